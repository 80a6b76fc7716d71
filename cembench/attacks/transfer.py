"""Transfer: images made on another network, as an attack on this one (arXiv 1605.07277)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import SerializeAsAny, model_validator

from cembench.attacks import Attack, Propose, Target, attacks
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.attacks.verdict import CheckedModel
    from cembench.models.source import ModelSource
    from cembench.util.frozen import frozen


class Transfer(Attack):
    """An attack that follows the gradients of another checkpoint.

    It sees of the attacked network what a surrogate would: which images fool it. So an image that
    fools it leaves the batch, and PGD keeps for each image the first iterate that does. No gradient
    of the attacked network is needed. Where images that survive its own gradients fall to those of
    another network, gradients hide what is there.

    Attributes:
        source: the other run folder or checkpoint, trained on images of the same kind.
        weights: SHA-256 of its file, which is filled in. A record is that of these weights.
        attack: what is run on it.

    Examples:
        >>> from cembench.attacks import attacks
        >>> attack = attacks.parse({"name": "transfer", "source": "runs/at", "weights": "f2a0"})
        >>> attack.title, attack.attack.name
        ('transfer-at', 'pgd')
    """

    name: ClassVar[str] = "transfer"
    source: str
    weights: str
    attack: Annotated[SerializeAsAny[Attack], attacks.field("pgd")] = attacks.parse("pgd")

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "source" not in values or "weights" in values:
            return values
        file = RunLayout.at(Path(str(values["source"]))).checkpoint
        if not file.is_file():
            raise ValueError(f"{values['source']}: no such checkpoint or run folder")
        return {**values, "weights": sha256(file)}

    @property
    def own_title(self) -> str:
        """The label, or the name with that of the source."""
        name = RunLayout.at(Path(self.source)).name
        plain = "".join(c if (c.isalnum() and c.isascii()) or c in "_.+@-" else "-" for c in name)
        return self.label or f"{self.name}-{plain}"

    @property
    def black_box(self) -> frozenset[str]:
        """All of its stages: none needs a gradient of the attacked network."""
        return frozenset({self.title})

    @property
    def norms(self) -> frozenset[str] | None:
        """Those of the attack that it runs."""
        return self.attack.norms

    @property
    def minimises(self) -> str | None:
        """That of the attack that it runs."""
        return self.attack.minimises

    @property
    def inner(self) -> list[Attack]:
        """The attack that it runs."""
        return [self.attack]

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return one stage, which reads the source."""
        return [(self.title, partial(self._propose, target))]

    def _propose(self, target: Target, x: Tensor, y: Tensor) -> Tensor:
        file = RunLayout.at(Path(self.source)).checkpoint
        net = _network(file, self.weights, str(x.device), tuple(x.shape[1:]), target.classes)
        surrogate = CheckedModel(net, target.classes).eval()
        other = replace(target, model=surrogate, no_gradient="")
        proposed, left = x.clone(), torch.arange(len(y), device=x.device)
        with frozen(surrogate):
            for _, propose in self.attack.stages(other):
                if len(left) == 0:
                    break
                proposed[left] = propose(x[left].clone(), y[left].clone())
                with torch.no_grad():
                    left = left[target.verifier(proposed[left]).argmax(1) == y[left]]
        surrogate.require_finite(f"of {self.source}")
        return proposed


@cache
def _network(file: Path, weights: str, device: str, shape: tuple[int, ...], classes: int) -> Any:
    """Return the network of a file, which must be that of the weights.

    Raises:
        CembenchError: when it is not, or is no classifier of such images.
    """
    source = ModelSource.at(file)
    if source.checksum != weights:
        raise CembenchError(f"{file}: changed since the protocol was read; evaluate again")
    metadata = source.metadata
    if metadata.kind != "classifier" or tuple(metadata.shape) != shape:
        raise CembenchError(f"{file}: no classifier of images of shape {shape}")
    if len(metadata.classes) != classes:
        raise CembenchError(f"{file}: knows {len(metadata.classes)} classes, not {classes}")
    return source.load(torch.device(device))
