"""A suite: several experiments under one protocol, done once and ranked together."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.suites.grid import points
from cembench.training.config import Experiment
from cembench.training.probes import Probe, probe_settings
from cembench.training.recipes import kind_of
from cembench.util.errors import ConfigError, blaming
from cembench.util.files.names import file_name, require_distinct
from cembench.util.files.yaml import read_yaml
from cembench.util.overrides import merge
from cembench.util.settings import Name, Settings, nearest
from cembench.util.shipped import find_file

Values = Annotated[list[Any], Field(min_length=1)]


class Suite(Settings):
    """The content of a suite file.

    Attributes:
        protocol: name or file of the protocol, relative to the suite's folder.
        shared: settings that all experiments start from.
        seeds: when given, each experiment runs once with each, as `NAME.s0`, `NAME.s1`, ….
        experiments: by name, what each adds to them; an inner mapping adds to the shared one. With
            `probe: NAME`, or `probe: {of: NAME, mode: …}`, it starts from the features of another
            one above it, and adds to the settings of that probe instead.
        grid: by key, such as `method.name`, the values it takes. Each combination is an experiment
            named after its values, `at-0.1.s0` with a seed among them; they stand above the others.
    """

    protocol: str = "standard"
    shared: dict[str, Any] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    experiments: dict[Name, dict[str, Any]] = {}
    grid: Annotated[dict[str, Values], Field(min_length=1)] | None = None

    @field_validator("experiments")
    @classmethod
    def _not_reserved(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "leaderboards" in values:
            raise ValueError("'leaderboards' is the folder of the tables; choose another name")
        return values

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.experiments and self.grid is None:
            raise ValueError("give experiments, a grid, or both")
        if self.seeds is not None and "seed" in (self.grid or {}):
            raise ValueError("grid.seed: there are seeds beside the grid already; keep one of them")
        return self


def load_suite(path: Path, out: Path = Path("runs")) -> tuple[dict[str, Experiment], Protocol]:
    """Read a suite from a file or a recipe: its experiments by name, and its protocol.

    Probes find what they probe in `out`, the folder of its runs.

    Raises:
        ConfigError: naming the file, the experiment, each wrong key and the nearest valid name.
    """
    file = find_file("recipe", str(path))
    values = read_yaml(file)
    if "method" in values and kind_of(values) == "experiment":
        raise ConfigError.single(f"{path}: one experiment; cembench train {path} takes it")
    with blaming(path):
        suite = Suite.parse(values)
        entries = points(suite.grid or {}, suite.shared, suite.experiments) | suite.experiments
    experiments: dict[str, Experiment] = {}
    wrong: dict[str, ConfigError] = {}
    seeds: list[int | None] = [None] if suite.seeds is None else [*suite.seeds]
    for name, own in entries.items():
        for seed in seeds:
            end = "" if seed is None else f".s{seed}"
            chosen = {} if seed is None else {"seed": seed}
            try:
                if name + end in experiments:
                    raise ConfigError.single("another one is named so; rename it")
                values = _values(suite.shared, own, experiments, wrong, end, out)
                experiments[name + end] = Experiment.parse(values | chosen)
            except ConfigError as error:
                wrong[name + end] = error
    with blaming(path):
        require_distinct(["leaderboards", *map(file_name, experiments)])
    mistakes = _mistakes(path, wrong)
    try:
        with blaming(f"{path}: protocol"):
            protocol = load_protocol(suite.protocol, base=file.parent)
    except ConfigError as error:
        mistakes.append(error)
    if mistakes:
        raise ConfigError([((), str(error)) for error in mistakes])
    return experiments, protocol


def _mistakes(path: Path, wrong: dict[str, ConfigError]) -> list[ConfigError]:
    """Return what is wrong with each experiment; a mistake that several share is named once."""
    mistakes, seen = [], set()
    for name, error in wrong.items():
        problems = [problem for problem in error.problems if problem not in seen]
        seen.update(problems)
        if problems:
            mistakes.append(ConfigError(problems, f"{path}, experiment {name}"))
    return mistakes


def _values(
    shared: dict[str, Any],
    own: dict[str, Any],
    before: dict[str, Experiment],
    wrong: Collection[str],
    end: str,
    out: Path,
) -> dict[str, Any]:
    """Return the settings of an experiment; those of a probe rest on what it probes."""
    if "probe" not in own:
        return merge(shared, own)
    given, rest = own["probe"], {key: value for key, value in own.items() if key != "probe"}
    try:
        probe = Probe.parse({"of": given} if isinstance(given, str) else given)
    except ConfigError as error:
        raise ConfigError([(("probe", *place), text) for place, text in error.problems]) from None
    name = probe.of + end
    if name in wrong:
        raise ConfigError([])  # its mistakes are named already
    if name not in before:
        known = [key.removesuffix(end) for key in before]
        hint = nearest(probe.of, known) if known else "put it above its probes"
        raise ConfigError.single(f"no experiment '{probe.of}' above; {hint}", "probe", "of")
    return merge(probe_settings(before[name], out / name, probe.mode), rest)
