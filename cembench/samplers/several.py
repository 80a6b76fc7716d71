"""MAX, AVG, SAT and E-AT: negatives for training against several threat models at once.

Each attacks an image within the balls of several threat models, around one image: with every one of
them, and the loss decides (MAX and AVG: Tramèr and Boneh, arXiv 1904.13000), or with one that is
drawn for the batch (SAT: Madaan et al., arXiv 2002.11242; E-AT: Croce and Hein, arXiv 2105.12508).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, ClassVar, Self

from pydantic import Field, SerializeAsAny, model_validator

from cembench.energy.threat import Threat
from cembench.samplers import Sampler, SamplerContext, samplers
from cembench.samplers.pgd import PGD, InBall
from cembench.util.errors import ConfigError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.models.copies.surrogate import ascent_model
    from cembench.util.processes.distributed import world
    from cembench.util.rng import shared_uniform

ERRORS = "robust_errors"  # the key of E-AT's rates in the memory of a training


class Several(Sampler):
    """Negatives within several threat models, for methods that train on attacked images.

    The threat model of the experiment is the first of them unless given, and is what the checkpoint
    is evaluated with; the epoch is selected by the union over all of them.

    Attributes:
        threats: threat models, such as `{norm: l2, eps: 0.5}`.
        attack: sampler that stays in a ball; the default of its step is in proportion to each ε.
    """

    threats: Annotated[list[Threat], Field(min_length=1)]
    attack: Annotated[SerializeAsAny[Sampler], samplers.field("pgd")] = PGD()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not isinstance(self.attack, InBall) or not self.attack.in_ball:
            known = "take pgd or trades"
            raise ConfigError.single(f"{self.attack.name} stays in no ball; {known}", "attack")
        if len({str(threat) for threat in self.threats}) < len(self.threats):
            raise ConfigError.single("one of them is there twice", "threats")
        if self.attack.step_size is not None and len({t.norm for t in self.threats}) > 1:
            text = "steps of different norms do not compare; leave it out for 2.5 ε / steps of each"
            raise ConfigError.single(text, "attack", "step_size")
        return self

    @property
    def own_threats(self) -> tuple[Threat, ...]:
        """The threat models."""
        return tuple(self.threats)

    @property
    def gradients(self) -> int:
        """Gradient evaluations per image: those of one attack."""
        return self.attack.gradients

    def require_possible(self, threat: Threat) -> None:
        """Refuse radii and steps that reach every image."""
        for number, own in enumerate(self.threats):
            own.ball.require_below_diameter(f"threats.{number}.eps")
            self.attack.require_possible(own)

    def draw(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        context: SamplerContext,
        target: Tensor | None = None,
    ) -> Tensor:
        """Return the negatives of each image."""
        return self._draw(model, x, y if target is None else target, context)

    @abstractmethod
    def _draw(self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext) -> Tensor:
        """Return the negatives of each image that the rule makes, for targets y."""

    def _within(
        self, threat: Threat, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext
    ) -> Tensor:
        """Return what the attack draws within one threat model."""
        grown = threat.model_copy(update={"eps": threat.eps * context.growth})
        return self.attack.draw(model, x, y, replace(context, threat=grown))


class Avg(Several):
    """AVG (arXiv 1904.13000): the mean loss over one negative per threat model.

    The cost of a step is that of adversarial training times the number of threat models.

    Examples:
        Two negatives of each image, one set after the other:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> threats = [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.2}]
        >>> moved = samplers.parse({"name": "avg", "threats": threats}).draw(model, x, y, context)
        >>> tuple(moved.shape), bool(((moved[4:] - x).flatten(1).norm(dim=1) <= 0.2 + 1e-6).all())
        ((8, 3, 2, 2), True)
    """

    name: ClassVar[str] = "avg"

    @property
    def copies(self) -> int:
        """Images that `draw` returns for each one: as many as threat models."""
        return len(self.threats)

    @property
    def gradients(self) -> int:
        """Gradient evaluations per image: an attack per threat model."""
        return self.attack.gradients * len(self.threats)

    def _draw(self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext) -> Tensor:
        """Return a negative of each image within the first threat model, then the second, ….

        T·N×C×H×W for T threat models and N images.
        """
        drawn = [self._within(threat, model, x, y, context) for threat in self.threats]
        return torch.cat(drawn)


class Max(Avg):
    """MAX (arXiv 1904.13000): of one negative per threat model, that with the highest loss.

    The loss is what the attack raises, the cross-entropy under `pgd`, in the mode of the attack.

    Examples:
        The loss is at least that under either attack:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> loss = torch.nn.functional.cross_entropy
        >>> threats = [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.2}]
        >>> both = samplers.parse({"name": "max", "threats": threats, "attack": {"start": "data"}})
        >>> one = samplers.parse({"name": "pgd", "start": "data"})
        >>> def drawn(sampler, threat):
        ...     context = SamplerContext(Threat(**threat), torch.Generator())
        ...     return loss(model(sampler.draw(model, x, y, context)), y)
        >>> highest = drawn(both, threats[0])
        >>> all(bool(highest >= drawn(one, threat) - 1e-6) for threat in threats)
        True
    """

    name: ClassVar[str] = "max"

    @property
    def copies(self) -> int:
        """Images that `draw` returns for each one: one."""
        return 1

    def _draw(self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext) -> Tensor:
        """Return the negative of each image with the highest loss."""
        drawn = super()._draw(model, x, y, context).unflatten(0, (-1, len(x)))
        if len(drawn) == 1:
            return drawn[0]
        attack = self.attack
        assert isinstance(attack, InBall)
        with ascent_model(model, x, attack.mode, context.surrogate) as net, torch.no_grad():
            raised = attack.raised(net, x)
            losses = torch.stack([raised(net(moved), y) for moved in drawn])
        return drawn[losses.argmax(0), torch.arange(len(x), device=x.device)]


class SAT(Several):
    """SAT (arXiv 2002.11242): within one threat model, drawn for each batch, all equally often.

    A step costs as much as adversarial training.

    Examples:
        All images of a batch are in the ball of one of the two threat models:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> threats = [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.2}]
        >>> moved = samplers.parse({"name": "sat", "threats": threats}).draw(model, x, y, context)
        >>> delta = (moved - x).flatten(1)
        >>> bool(delta.abs().max() <= 0.1 + 1e-6) or bool(delta.norm(dim=1).max() <= 0.2 + 1e-6)
        True
    """

    name: ClassVar[str] = "sat"

    def _draw(self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext) -> Tensor:
        """Return a negative of each image within the threat model drawn for this batch."""
        threat = _drawn(self.threats, [1.0] * len(self.threats), context)
        return self._within(threat, model, x, y, context)


class EAT(Several):
    """E-AT (arXiv 2105.12508): SAT within the two extreme norms, the harder one more often.

    Of the threat models given, those with the smallest and the largest p are attacked: ℓ1 and ℓ∞ of
    ℓ1, ℓ2 and ℓ∞. One is drawn for each batch, with a probability in proportion to the share of
    training images that its attacks have misclassified so far; equally often until both have been
    drawn. As in the authors' code (fra31/robust-finetuning), but for its attack, which is APGD from
    the image itself. A step costs as much as adversarial training, so it also suits fine-tuning:
    `pretrained: {checkpoint: runs/at, head: kept}`.

    Examples:
        The memory of a training has sums of those shares, and the number of batches:

        >>> import torch
        >>> from cembench.energy.threat import Threat
        >>> from cembench.samplers import SamplerContext, samplers
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
        >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
        >>> context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
        >>> threats = [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.2}]
        >>> sampler = samplers.parse({"name": "e-at", "threats": threats})
        >>> for _ in range(5):
        ...     moved = sampler.draw(model, x, y, context)
        >>> sum(batches for total, batches in context.memory["robust_errors"].values())
        5
    """

    name: ClassVar[str] = "e-at"

    @property
    def extremes(self) -> list[Threat]:
        """Threat models that are attacked."""
        ordered = sorted(self.threats, key=lambda threat: threat.ball.order)
        return ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]

    def _draw(self, model: nn.Module, x: Tensor, y: Tensor, context: SamplerContext) -> Tensor:
        """Return a negative of each image, and keep how many are misclassified in the memory."""
        sums = context.memory.setdefault(ERRORS, {})
        found = [sums.get(str(threat), (0.0, 0)) for threat in self.extremes]
        known = all(batches for _, batches in found)
        rates = [total / batches for total, batches in found] if known else [1.0] * len(found)
        threat = _drawn(self.extremes, rates, context)
        moved = self._within(threat, model, x, y, context)
        with ascent_model(model, x, "eval", context.surrogate) as net, torch.no_grad():
            wrong = (net(moved).argmax(1) != y).double().mean()
        total, batches = sums.get(str(threat), (0.0, 0))
        sums[str(threat)] = (total + float(world().mean({"wrong": wrong})["wrong"]), batches + 1)
        return moved


def _drawn(threats: list[Threat], weights: list[float], context: SamplerContext) -> Threat:
    """Draw one threat model, the same in all processes; of one alone nothing is drawn."""
    if len(threats) == 1:
        return threats[0]
    weights = weights if sum(weights) else [1.0] * len(weights)
    point = shared_uniform(context.generator) * sum(weights)
    for threat, weight in zip(threats, weights, strict=True):
        point -= weight
        if point < 0:
            return threat
    return threats[-1]
