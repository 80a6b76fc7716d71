"""AutoAttack (Croce and Hein, arXiv 2003.01690): the official attacks with the official settings.

The attack classes and their settings are pyautoattack's; the loop over images is ours, so that
survivors alone are attacked, each image knows which attack won it, and nothing global moves.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor

from cembench.attacks import Attack, Propose, Target

NORMS = {"linf": "Linf", "l2": "L2"}


class AutoAttack(Attack):
    """AutoAttack, in two versions.

    `standard` is APGD-CE, targeted APGD, targeted FAB and Square. With K < 10 classes there are
    K − 1 targets instead of 9. The targeted DLR loss needs four logits: with three classes
    untargeted APGD-DLR takes its place, with two it is left out.

    `rand`, for networks with random layers, is APGD-CE and APGD-DLR on gradients that are means of
    20 passes (expectation over transformation).

    Attributes:
        version: which of the two.
    """

    name: ClassVar[str] = "autoattack"
    label: None = None
    version: Literal["standard", "rand"] = "standard"

    @property
    def own_title(self) -> str:
        """`autoattack` is the standard version alone."""
        return self.name if self.version == "standard" else f"{self.name}-{self.version}"

    def under(self, engine: str) -> Attack:
        """Return our attacks under the fast engine, in place of the standard version."""
        from cembench.attacks.autoattack_fast import FastAutoAttack

        official = engine == "plain" or self.version != "standard"
        return self if official else FastAutoAttack(on=self.on)

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attacks in the official order."""
        official = _official(target, self.version)
        targets = min(9, target.classes - 1)
        official.apgd_targeted.n_target_classes = targets
        official.fab.n_target_classes = targets
        official.fab.targeted = True
        runs = {
            "apgd-ce": partial(_apgd, official.apgd, "ce"),
            "apgd-dlr": partial(_apgd, official.apgd, "dlr"),
            "apgd-t": official.apgd_targeted.perturb,
            "fab-t": official.fab.perturb,
            "square": official.square.perturb,
        }
        second = {2: [], 3: ["apgd-dlr"]}.get(target.classes, ["apgd-t"])
        names = ["apgd-ce", *second, "fab-t", "square"]
        if self.version == "rand":
            names = ["apgd-ce", "apgd-dlr"] if target.classes > 2 else ["apgd-ce"]
        return [(name, runs[name]) for name in names]


def square(target: Target, queries: int) -> Propose:
    """Return the official Square attack (arXiv 1912.00049) with so many forward passes."""
    attack = _official(target, "standard").square
    attack.n_queries = queries
    return attack.perturb


def _official(target: Target, version: str) -> Any:
    import pyautoattack

    return pyautoattack.AutoAttack(
        target.model,
        norm=NORMS[target.threat.norm],
        eps=target.threat.eps,
        seed=target.seed,
        version=version,
        device=next(target.model.parameters()).device,
    )


def _apgd(attack: Any, loss: str, x: Tensor, y: Tensor) -> Tensor:
    attack.loss = loss
    return attack.perturb(x, y)
