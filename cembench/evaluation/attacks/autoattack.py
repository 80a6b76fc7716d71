"""AutoAttack (Croce and Hein, arXiv 2003.01690): the official attacks with the official settings.

The attack classes and their settings are pyautoattack's; the loop over images is ours, so that
survivors alone are attacked, each image knows which attack won it, and nothing global moves.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor

from cembench.evaluation.attacks import Attack, Propose, Target

NORMS = {"linf": "Linf", "l2": "L2"}


class AutoAttack(Attack):
    """The standard version: APGD-CE, targeted APGD, targeted FAB, Square.

    With K < 10 classes there are K − 1 targets instead of 9. The targeted DLR loss needs four
    logits: with three classes untargeted APGD-DLR takes its place, with two it is left out.
    """

    name: ClassVar[str] = "autoattack"
    label: None = None
    version: Literal["standard"] = "standard"

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the four attacks in the official order."""
        import pyautoattack

        official = pyautoattack.AutoAttack(
            target.model,
            norm=NORMS[target.threat.norm],
            eps=target.threat.eps,
            seed=target.seed,
            version=self.version,
            device=next(target.model.parameters()).device,
        )
        targets = min(9, target.classes - 1)
        official.apgd_targeted.n_target_classes = targets
        official.fab.n_target_classes = targets
        official.fab.targeted = True
        second = {2: [], 3: ["apgd-dlr"]}.get(target.classes, ["apgd-t"])
        runs = {
            "apgd-ce": partial(_apgd, official.apgd, "ce"),
            "apgd-dlr": partial(_apgd, official.apgd, "dlr"),
            "apgd-t": official.apgd_targeted.perturb,
            "fab-t": official.fab.perturb,
            "square": official.square.perturb,
        }
        return [(name, runs[name]) for name in ("apgd-ce", *second, "fab-t", "square")]


def _apgd(attack: Any, loss: str, x: Tensor, y: Tensor) -> Tensor:
    attack.loss = loss
    return attack.perturb(x, y)
