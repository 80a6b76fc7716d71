"""A protocol: which images are attacked, how, and with what randomness. One YAML file holds one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator

from cembench.config import override
from cembench.errors import ConfigError
from cembench.evaluation.attacks import Attack, attacks
from cembench.files import digest, read_yaml
from cembench.settings import Count, Settings, nearest
from cembench.threat import ThreatChange


class Protocol(Settings):
    """What is done to the test split.

    Attributes:
        threat: what differs from the checkpoint's own threat model.
        limit: number of test images, a fixed random choice; all of them unless given.
        batch_size: images attacked together. Verdicts depend on it, so it is part of the protocol.
        attacks: what is run, each on every image that is classified correctly.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str = ""
    threat: ThreatChange = ThreatChange()
    limit: Count | None = None
    batch_size: Count = 256
    seed: Annotated[int, Field(ge=0)] = 0
    attacks: list[SerializeAsAny[Attack]]

    @field_validator("attacks", mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        if not isinstance(values, list):
            return values
        parsed = []
        for place, value in enumerate(values):
            try:
                parsed.append(attacks.parse(value))
            except ConfigError as error:
                raise error.within("attacks", str(place)) from None
        return parsed

    @field_validator("attacks")
    @classmethod
    def _distinct(cls, values: list[Attack]) -> list[Attack]:
        titles = [attack.title for attack in values]
        for title, attack in zip(titles, values, strict=True):
            reserved = {"clean", "worst_case", *attacks.names()} - {attack.name}
            if titles.count(title) > 1 or title in reserved:
                raise ValueError(f"the label '{title}' is taken; give each attack its own")
        return values

    @property
    def digest(self) -> str:
        """Identifies everything that decides verdicts."""
        values = self.dump()
        return digest({key: values[key] for key in values if key not in ("name", "description")})


def shipped() -> list[str]:
    """Return the names of the protocols that come with cembench."""
    folder = files("cembench").joinpath("protocols")
    return sorted(Path(item.name).stem for item in folder.iterdir())


def load_protocol(
    name: str, overrides: Sequence[str] = (), limit: int | None = None, base: Path = Path()
) -> Protocol:
    """Load a shipped protocol by name, or one from a YAML file.

    The name of a protocol that does not ship as it is ends with a part of its digest, so that
    no two protocols share a record.

    Args:
        name: the name, or the path of a file (relative to `base`).
        overrides: `key.inner=value` assignments.
        limit: replaces the protocol's limit, and shows in its name.
        base: the folder that relative paths start from.

    Raises:
        ConfigError: for an unknown name or wrong settings.
    """
    path = base / name
    if name in shipped():
        path = Path(str(files("cembench").joinpath("protocols", f"{name}.yaml")))
    elif path.suffix not in (".yaml", ".yml"):
        raise ConfigError.single(
            f"no protocol '{name}'; {nearest(name, shipped())}; or give a file"
        )
    values = override({"name": path.stem, **read_yaml(path)}, overrides)
    if limit is not None:
        values |= {"limit": limit, "name": f"{values['name']}-n{limit}"}
    try:
        protocol = Protocol.parse(values)
    except ConfigError as error:
        error.source = str(path)
        raise
    if name in shipped() and not overrides:
        return protocol
    return protocol.model_copy(update={"name": f"{protocol.name}-{protocol.digest[:6]}"})
