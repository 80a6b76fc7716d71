"""PGD (Madry et al., arXiv 1706.06083) with restarts; the best iterate of each image counts."""

from __future__ import annotations

from typing import ClassVar

from cembench.attacks import Attack, Propose, Target
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import Tensor

    from cembench.util.rng import generator_of


class PGDAttack(Attack, PGD):
    """The PGD sampler's `search` as an attack; its settings are the sampler's.

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

    @property
    def black_box(self) -> frozenset[str]:
        """None: it follows gradients."""
        return frozenset()

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return one stage with all restarts."""

        def propose(x: Tensor, y: Tensor) -> Tensor:
            context = SamplerContext(target.threat, generator_of(target.seed, x.device))
            verifier = None if target.model is target.plain else target.verifier
            return self.search(target.model, x, y, context, verifier)

        return [(self.title, propose)]
