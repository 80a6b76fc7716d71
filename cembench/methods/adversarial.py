"""What methods that train on perturbed images share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cembench.energy.threat import Threat
from cembench.methods import Method, Supervised


class InnerAttack(Method):
    """A method with perturbations inside the threat model.

    Attributes:
        eps_warmup: epochs over which ε grows linearly from 0 to the threat model's.
    """

    eps_warmup: Annotated[int, Field(ge=0)] = 0

    def threat_at(self, threat: Threat, epoch: float) -> Threat:
        """Return the threat model after `epoch` epochs, counted in fractions."""
        if epoch >= self.eps_warmup:
            return threat
        return threat.model_copy(update={"eps": threat.eps * epoch / self.eps_warmup})


class Adversarial(InnerAttack, Supervised):
    """A supervised one."""

    select: ClassVar[Literal["robust", "clean", "last"]] = "robust"
