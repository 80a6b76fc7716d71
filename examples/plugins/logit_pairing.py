"""Adversarial logit pairing (Kannan et al., arXiv 1803.06373): AT with both logits drawn together.

cembench train CONFIG --set method=logit-pairing --plugin logit_pairing
"""

from typing import ClassVar

from torch.nn.functional import cross_entropy

from cembench.methods import methods
from cembench.methods.at import AT
from cembench.util.settings import NonNegative


@methods.register
class LogitPairing(AT):
    """Minimise ½ CE(x, y) + ½ CE(x̂, y) + λ·mean (f(x) − f(x̂))²; negatives are those of AT."""

    name: ClassVar[str] = "logit-pairing"
    weight: NonNegative = 0.5

    def loss(self, model, x, y, context):
        """Return the loss, and the distance of the logits."""
        negative = self.negatives.draw(model, x, y, context)
        logits, away = model(x).float(), model(negative).float()
        natural, robust = (cross_entropy(f, y) for f in (logits, away))
        pairing = (logits - away).square().mean()
        return (natural + robust) / 2 + self.weight * pairing, {"pairing": pairing.detach()}

    def cost(self, context):
        """The sampler's steps, and the weights' gradient through two batches."""
        return self.negatives.steps + 2
