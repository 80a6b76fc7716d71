"""PGD (Madry et al., arXiv 1706.06083) with restarts; the best iterate of each image counts."""

from __future__ import annotations

from typing import ClassVar

from cembench.attacks import Attack, Propose, Target
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, optional_field

with lazy_imports():
    from torch import Tensor

    from cembench.attacks.verdict import averaged
    from cembench.util.rng import generator_of


class PGDAttack(Attack, PGD):
    """The PGD sampler's `search` as an attack; its settings are the sampler's, and one more.

    One step from the image itself (`steps: 1`, `start: data`) is FGSM (arXiv 1412.6572).

    Attributes:
        eot: passes through a network with random layers, whose mean probabilities each gradient is
            taken of: expectation over transformation (arXiv 1707.07397).

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="linf", eps=0.3), classes=4)
        >>> [(name, propose)] = PGDAttack(steps=5, restarts=2).stages(target)
        >>> (net(propose(x, y)).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "pgd"
    eot: Count = optional_field(1)

    @property
    def black_box(self) -> frozenset[str]:
        """None: it follows gradients."""
        return frozenset()

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return one stage with all restarts."""

        def propose(x: Tensor, y: Tensor) -> Tensor:
            context = SamplerContext(target.threat, generator_of(target.seed, x.device))
            own = target.model is target.plain and self.eot == 1
            model, verifier = averaged(target.model, self.eot), None if own else target.verifier
            return self.search(model, x, y, context, verifier)

        return [(self.title, propose)]
