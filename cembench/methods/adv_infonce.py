"""Adversarial contrastive learning (Jiang et al., arXiv 2010.13337): InfoNCE on attacked views.

Adversarial training without labels: PGD on InfoNCE (arXiv 2006.07589) attacks the views inside the
ball of the threat model, and the encoder is trained on the attacked views.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import SerializeAsAny, model_validator

from cembench.methods.adversarial import InnerAttack
from cembench.methods.contrastive import Contrastive, bank_classifier, nt_xent
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import PGD
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.energy.similarity import Pairs, partners
    from cembench.models.blocks import clean_branch
    from cembench.util.processes.collectives import place_of_rows
    from cembench.util.rng import in_parts


class AdvInfoNCE(InnerAttack, Contrastive):
    """Minimise NT-Xent between attacked views, between an attacked and a clean one, or both.

    With the model's `norm: dual`, clean views have batch norms of their own.

    Attributes:
        stream: `a2a` attacks both views together; `a2s` attacks one of them, away from the clean
            other one; `dual` is the mean of `a2a` and of NT-Xent on the clean views.
        negatives: sampler that attacks the views.

    Examples:
        Losses on attacked and on clean views are logged:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.methods import methods
        >>> from cembench.models import models
        >>> from cembench.models.classifier import build_classifier
        >>> from cembench.samplers import SamplerContext
        >>> x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> method = methods.parse({"name": "adv-infonce", "negatives": {"steps": 2}})
        >>> model = build_classifier(models.parse("small_cnn"), (1, 8, 8), 10, head=method.head)
        >>> loss, parts = method.objective(model, x, y, context)
        >>> torch.allclose(loss, (parts["attacked"] + parts["clean"]) / 2)
        True
    """

    name: ClassVar[str] = "adv-infonce"
    stream: Literal["dual", "a2a", "a2s"] = "dual"
    negatives: Annotated[SerializeAsAny[Sampler], samplers.field("pgd")] = PGD()

    @model_validator(mode="after")
    def _stays_in_ball(self) -> Self:
        if not self.negatives.in_ball:
            raise ValueError(
                f"negatives: {self.negatives.name} leaves the ball, so its samples are no views "
                "of the image; take pgd or trades"
            )
        return self

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> dict[str, Tensor]:
        """Return views, `clean`, and attacked ones, `attacked`: of `a2s` one of each."""
        first, second = self.views.pair(x, context.generator)
        if self.stream == "a2s":
            moved = self._attacked_one(model, first, second, context)
            return {"clean": second, "attacked": moved}
        both = torch.cat([first, second])
        return {"clean": both, "attacked": self._attacked_both(model, both, context)}

    def loss(
        self, model: nn.Module, images: dict[str, Tensor], y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and with `stream: dual` its attacked and clean parts."""
        if self.stream == "a2s":
            with clean_branch(model):
                clean = model(images["clean"])
            return nt_xent(torch.cat([model(images["attacked"]), clean]), self.temperature), {}
        attacked = nt_xent(model(images["attacked"]), self.temperature)
        if self.stream == "a2a":
            return attacked, {}
        with clean_branch(model):
            natural = nt_xent(model(images["clean"]), self.temperature)
        return (attacked + natural) / 2, {
            "attacked": attacked.detach(),
            "clean": natural.detach(),
        }

    def _attacked_both(self, model: nn.Module, both: Tensor, context: SamplerContext) -> Tensor:
        """Return both views, attacked together."""
        target = partners(len(both) // 2, both.device)
        pairs = Pairs(model, self.temperature)
        with in_parts(context.generator, 2):
            return self.negatives.draw(pairs, both, torch.zeros_like(target), context, target)

    def _attacked_one(
        self, model: nn.Module, first: Tensor, second: Tensor, context: SamplerContext
    ) -> Tensor:
        """Return the first views, attacked away from the second ones."""
        with clean_branch(model):
            classifier = bank_classifier(model, second, self.temperature, self.negatives)
        target = place_of_rows(len(first), first.device)
        return self.negatives.draw(classifier, first, torch.zeros_like(target), context, target)

    def draw_cost(self, context: SamplerContext) -> int:
        """Steps of the attack, for each view that it moves."""
        return self.negatives.gradients * (1 if self.stream == "a2s" else 2)

    def loss_cost(self, context: SamplerContext) -> int:
        """Gradients of the weights on two views, or on two attacked and two clean ones."""
        return 4 if self.stream == "dual" else 2
