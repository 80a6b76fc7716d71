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

    def loss(self, model, images, y, context):
        """Return the loss, and the distance of the logits; AT draws `x` and `attacked`."""
        logits, away = (model(images[key]).float() for key in ("x", "attacked"))
        natural, robust = (cross_entropy(f, y) for f in (logits, away))
        pairing = (logits - away).square().mean()
        return (natural + robust) / 2 + self.weight * pairing, {"pairing": pairing.detach()}

    def loss_cost(self, context):
        """Gradients of the weights through two batches; those of the sampler are counted anyway."""
        return 2
