"""AutoAttack (Croce and Hein, arXiv 2003.01690): the official attacks with the official settings.

The attack classes and their settings are pyautoattack's; the loop over images is ours, so that
only survivors are attacked, the attack that succeeded on an image is known, and no global state
changes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from cembench.attacks import Attack, Propose, Target, attacks
from cembench.energy.threat import Threat
from cembench.util.devices import device_of
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import Tensor, nn


BLACK_BOX = frozenset({"square"})  # stages that need no gradient
NORMS = frozenset({"linf", "l2", "l1"})  # that have steps of APGD, FAB and Square


class AutoAttack(Attack):
    """AutoAttack, in two versions.

    `standard` is APGD-CE, targeted APGD, targeted FAB and Square. With K < 10 classes there are
    K − 1 targets instead of 9. The targeted DLR loss needs four logits: with three classes
    untargeted APGD-DLR takes its place, with two it is left out.

    `rand`, for networks with random layers, is APGD-CE and APGD-DLR on gradients that are means of
    20 passes (expectation over transformation).

    Attributes:
        version: which of the two.

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
    version: Literal["standard", "rand"] = "standard"

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
            "fab-t": official.fab.perturb,
            "square": official.square.perturb,
        }
        names = standard_attacks(target.classes)
        if self.version == "rand":
            names = ["apgd-ce", "apgd-dlr"] if target.classes > 2 else ["apgd-ce"]
        return [(name, runs[name]) for name in names]


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


def _apgd(attack: Any, loss: str, x: Tensor, y: Tensor) -> Tensor:
    attack.loss = loss
    return attack.perturb(x, y)
