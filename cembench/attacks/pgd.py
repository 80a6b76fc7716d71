"""PGD with restarts that keeps the best iterate of each."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cembench.attacks import Attack, Propose, Target
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.util.rng import generator_of


class PGDAttack(Attack, PGD):
    """The PGD sampler's `search` as an attack; its settings are the sampler's."""

    name: ClassVar[str] = "pgd"

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return one stage with all restarts."""

        def propose(x: Tensor, y: Tensor) -> Tensor:
            context = SamplerContext(target.threat, generator_of(target.seed, x.device))
            judge = None if target.model is target.plain else target.judge
            return self.search(target.model, x, y, context, judge)

        return [(self.title, propose)]
