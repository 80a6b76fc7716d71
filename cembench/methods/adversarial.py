"""Bases of the methods that train on adversarially perturbed images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from cembench.energy.threat import Threat
from cembench.methods import Method, Supervised
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import Tensor, nn


class InnerAttack(Method):
    """Method with perturbations inside the threat model.

    Attributes:
        eps_warmup: epochs over which ε grows linearly from 0 to that of the threat model.
    """

    eps_warmup: Annotated[int, Field(ge=0)] = 0

    def threat_at(self, threat: Threat, epoch: float) -> Threat:
        """Return the threat model after `epoch` epochs, a fractional number."""
        if epoch >= self.eps_warmup:
            return threat
        return threat.model_copy(update={"eps": threat.eps * epoch / self.eps_warmup})


class Adversarial(InnerAttack, Supervised):
    """Supervised method with perturbations inside the threat model.

    Attributes:
        negatives: sampler of x̂.
    """

    select: ClassVar[Literal["robust", "clean", "last"]] = "robust"
    attacks: ClassVar[bool] = True
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("pgd")] = PGD()

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return the data, `x`, and x̂, `attacked`."""
        return {"x": x, "attacked": self.negatives.draw(model, x, y, context)}
