"""AutoAttack (Croce and Hein, arXiv 2003.01690): the official attacks with the official settings.

The attack classes and their settings are pyautoattack's; the loop over images is ours, so that
only survivors are attacked, the attack that succeeded on an image is known, and no global state
changes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from cembench.attacks import Attack, Propose, Target, attacks
from cembench.energy.threat import Threat
from cembench.util.devices import device_of
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import optional_field

with lazy_imports():
    from torch import Tensor, nn


BLACK_BOX = frozenset({"square"})  # stages that need no gradient
NORMS = frozenset({"linf", "l2", "l1"})  # that have steps of APGD, FAB and Square
PLUS = ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")
FEWEST = {"apgd-dlr": 3, "apgd-t": 4}  # classes that a loss needs

Stage = Literal["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]


class AutoAttack(Attack):
    """AutoAttack, in four versions, each with a column of its own.

    `standard` is APGD-CE, targeted APGD, targeted FAB and Square. With K < 10 classes there are
    K − 1 targets instead of 9. The targeted DLR loss needs four logits: with three classes
    untargeted APGD-DLR takes its place, with two it is left out.

    `rand`, for networks with random layers, is APGD-CE and APGD-DLR on gradients that are means of
    20 passes (expectation over transformation).

    `plus` is APGD-CE and APGD-DLR with five restarts, FAB with five, Square, targeted APGD and
    targeted FAB. `custom` is the `attacks` that one names, with the settings of pyautoattack's
    custom version: five restarts of APGD and FAB.

    Attributes:
        version: which of the four.
        attacks: what the custom version runs, in this order.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="linf", eps=0.3), classes=4)
        >>> stages = dict(AutoAttack().stages(target))
        >>> list(stages)
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']
        >>> adversarial = stages["apgd-ce"](x, y)
        >>> (net(adversarial).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "autoattack"
    label: None = None
    version: Literal["standard", "plus", "rand", "custom"] = "standard"
    attacks: list[Stage] = optional_field([])

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.version == "custom") != bool(self.attacks):
            raise ValueError(f"version custom, and no other, takes attacks: {', '.join(PLUS)}")
        return self

    @property
    def own_title(self) -> str:
        """`autoattack` is the standard version alone."""
        return self.name if self.version == "standard" else f"{self.name}-{self.version}"

    @property
    def black_box(self) -> frozenset[str]:
        """Square."""
        return BLACK_BOX

    @property
    def norms(self) -> frozenset[str]:
        """Those of pyautoattack."""
        return NORMS

    def under(self, engine: str) -> Attack:
        """Return our attacks under the fast engine, in place of the standard version."""
        official = engine == "plain" or self.version != "standard"
        return self if official else attacks.parse({"name": "autoattack-fast", "on": self.on})

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attacks in the official order."""
        official = official_autoattack(target.model, target.threat, target.seed, self.version)
        for attack in (official.apgd_targeted, official.fab):
            attack.n_target_classes = min(attack.n_target_classes, target.classes - 1)
        official.fab.targeted = True
        runs = {
            "apgd-ce": partial(_apgd, official.apgd, "ce"),
            "apgd-dlr": partial(_apgd, official.apgd, "dlr"),
            "apgd-t": official.apgd_targeted.perturb,
            "fab": partial(_fab, official.fab, False, official.fab.n_restarts),
            "fab-t": partial(_fab, official.fab, True, 1),
            "square": official.square.perturb,
        }
        return [(name, runs[name]) for name in self._names(target.classes)]

    def _names(self, classes: int) -> list[str]:
        if self.version == "standard":
            return standard_attacks(classes)
        chosen = {"plus": PLUS, "rand": PLUS[:2], "custom": self.attacks}[self.version]
        names = [name for name in chosen if classes >= FEWEST.get(name, 2)]
        if not names:
            raise CembenchError(f"{self.title}: {classes} classes are too few for its attacks")
        return names


def standard_attacks(classes: int) -> list[str]:
    """Return the names of the standard version's attacks, in the official order."""
    second = {2: [], 3: ["apgd-dlr"]}.get(classes, ["apgd-t"])
    return ["apgd-ce", *second, "fab-t", "square"]


def official_autoattack(
    model: nn.Module, threat: Threat, seed: int, version: str = "standard"
) -> Any:
    """Return pyautoattack's object."""
    import pyautoattack

    norm, device = threat.ball.library_name, device_of(model)
    return pyautoattack.AutoAttack(
        model, norm=norm, eps=threat.eps, seed=seed, version=version, device=device
    )


def _fab(attack: Any, targeted: bool, restarts: int, x: Tensor, y: Tensor) -> Tensor:
    attack.targeted, attack.n_restarts = targeted, restarts
    return attack.perturb(x, y)


def _apgd(attack: Any, loss: str, x: Tensor, y: Tensor) -> Tensor:
    attack.loss = loss
    return attack.perturb(x, y)
