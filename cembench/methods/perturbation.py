"""Perturbations of the weights by name: the loss is that of the worst weights nearby.

A method draws its images at the weights w, climbs its own loss from w to w + δ, and minimises its
loss on the same images at w + δ. δ takes no gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import Field

from cembench.util.lazy import lazy_imports
from cembench.util.registry import Registry
from cembench.util.settings import Choice, NonNegative, optional_field

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.models.moved import Moved
    from cembench.util.processes.distributed import world

TINY = 1e-12  # added to the norm of a gradient


class Perturbation(Choice):
    """Perturbation of the weights.

    Attributes:
        warmup: epochs before the first perturbation.
    """

    warmup: Annotated[int, Field(ge=0)] = 0

    def moved(self, net: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Moved:
        """Return the network at w + δ. The batch statistics that it keeps do not change.

        Args:
            net: the network at w.
            loss: the scalar to climb, as a function of a network.
        """
        named = {name: p for name, p in net.named_parameters() if p.requires_grad}
        own = {name: buffer.clone() for name, buffer in net.named_buffers()}
        value = loss(Moved(net, own))
        if not value.requires_grad:  # the step says what is wrong
            return Moved(net, {})
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        climbed = {n: g for n, g in zip(named, found, strict=True) if g is not None}
        climbed = world().average(climbed)
        deltas = self.deltas({n: named[n].detach() for n in climbed}, climbed)
        return Moved(net, {name: named[name] + delta for name, delta in deltas.items()})

    @abstractmethod
    def deltas(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return δ by name; weights that it leaves out stay where they are.

        Args:
            weights: tensors of weights by name.
            gradients: those of the loss, by the same names.
        """


class AWP(Perturbation):
    """Adversarial weight perturbation (Wu et al., arXiv 2004.05884): δ = γ‖w‖·g/‖g‖ per layer.

    Weights with one dimension, those of norms and biases, stay. The authors take γ = 0.005 for
    TRADES and 0.01 for AT, after ten epochs without.

    Attributes:
        gamma: γ, the length of δ in lengths of w.

    Examples:
        δ points along the gradient, and is γ times as long as the weights:

        >>> import torch
        >>> from cembench.methods.perturbation import perturbations
        >>> awp = perturbations.parse({"name": "awp", "gamma": 0.1})
        >>> awp.deltas({"w": torch.tensor([[3.0, 4.0]])}, {"w": torch.tensor([[0.0, 2.0]])})
        {'w': tensor([[0.0000, 0.5000]])}
    """

    name: ClassVar[str] = "awp"
    gamma: NonNegative = 0.005

    def deltas(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return δ of each tensor with two dimensions or more."""
        return {
            name: self.gamma * weights[name].norm() / (g.norm() + TINY) * g
            for name, g in gradients.items()
            if g.ndim > 1
        }


class SAM(Perturbation):
    """Sharpness-aware minimisation (Foret et al., arXiv 2010.01412): δ = ρ·g/‖g‖ over all weights.

    Attributes:
        rho: ρ, the length of δ.
        adaptive: whether lengths are in units of each weight (ASAM, arXiv 2102.11600):
            δ = ρ·w²g/‖wg‖. The codes of SADA-JEM and EB-JDAT take it with ρ = 2.

    Examples:
        δ of all weights together has length ρ:

        >>> import torch
        >>> from cembench.methods.perturbation import perturbations
        >>> sam = perturbations.parse({"name": "sam", "rho": 0.1})
        >>> g = {"w": torch.tensor([[3.0]]), "b": torch.tensor([4.0])}
        >>> sam.deltas({name: torch.zeros_like(one) for name, one in g.items()}, g)
        {'w': tensor([[0.0600]]), 'b': tensor([0.0800])}
    """

    name: ClassVar[str] = "sam"
    rho: NonNegative = 0.05
    adaptive: bool = optional_field(False)

    def deltas(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return δ of each tensor."""
        scaled = _times(weights, gradients) if self.adaptive else gradients
        length = torch.stack([g.norm() for g in scaled.values()]).norm()
        along = _times(weights, scaled) if self.adaptive else gradients
        return {name: self.rho / (length + TINY) * g for name, g in along.items()}


def _times(weights: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name] * other for name, other in others.items()}


perturbations: Registry[Perturbation] = Registry(
    "weight perturbation",
    Perturbation,
    {"awp": "cembench.methods.perturbation:AWP", "sam": "cembench.methods.perturbation:SAM"},
)
