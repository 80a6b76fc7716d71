"""Passes through a network that trainings and evaluations take, counted from settings alone."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from cembench.attacks import Attack
from cembench.evaluation.protocol import Protocol
from cembench.training.config import Experiment
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.samplers import InitialImages, SamplerContext
    from cembench.util.rng import generator_of

FORWARD = 1 / 3  # of a gradient, a forward pass
SURVIVE = {True: 0.75, False: 0.3}  # share of images, by whether training attacks images
FIRST = 0.1  # of the steps of its first attack, that an image takes which does not survive
UNKNOWN = 100  # gradients of an attack of a library that does not say how many
LONG, RADII, SAMPLES_SCORED = 5, 3, 2  # of the sanity checks; of a sample and its initial image


@dataclass(frozen=True)
class Passes:
    """Numbers of images that go through a network.

    Attributes:
        gradients: passes with a gradient with respect to the image.
        forwards: forward passes alone.
        updates: passes with a gradient with respect to the weights.
    """

    gradients: float = 0.0
    forwards: float = 0.0
    updates: float = 0.0

    def __add__(self, other: Passes) -> Passes:
        return Passes(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> Passes:
        return Passes(*(factor * value for value in astuple(self)))

    @property
    def in_gradients(self) -> float:
        """All of them, as gradients with respect to images."""
        return self.gradients + self.updates + FORWARD * self.forwards


NONE = Passes()


def training_passes(experiment: Experiment, images: int, held: int, begun: int = 0) -> Passes:
    """Return what the epochs of a training take.

    Args:
        experiment: its settings.
        images: number of images to train on.
        held: number of images held out.
        begun: epochs that are done.
    """
    batch = min(experiment.batch_size, images)
    epoch = (experiment.epoch_images or images) // batch * batch
    if not experiment.method.trainable:
        return Passes(forwards=images)
    found = NONE
    for number in range(begun, experiment.epochs):
        found += _step(experiment, number) * epoch
        last = number + 1 == experiment.epochs
        if last or (number + 1) % experiment.validation.every == 0:
            found += _validation(experiment, held)
    return found


def _step(experiment: Experiment, epoch: int) -> Passes:
    """Return the passes of an image in a step; under a frozen network none goes back to it."""
    generator = generator_of(0, "cpu")
    context = SamplerContext(experiment.threat, generator, InitialImages(), epoch=epoch)
    draws = experiment.method.draw_cost(context)
    updates, start = experiment.method.cost(context) - draws, experiment.pretrained
    if start is not None and start.frozen:
        return Passes(gradients=draws, forwards=updates)
    return Passes(gradients=draws, updates=updates)


def _validation(experiment: Experiment, held: int) -> Passes:
    if experiment.method.labels == "none":
        return Passes(forwards=2 * held)
    from cembench.training.validation import CLEAN

    attacked = min(experiment.validation.images, held)
    steps = experiment.validation.steps * len(experiment.threats)
    return Passes(gradients=attacked * steps, forwards=min(held, CLEAN))


def evaluation_passes(protocol: Protocol, images: int, classes: int, survive: float) -> Passes:
    """Return what the evaluation of a classifier, or what is measured of an encoder, takes.

    Args:
        protocol: what is measured of it.
        images: number of attacked images.
        classes: number of classes.
        survive: share of the images that survive all attacks.
    """
    found = Passes(forwards=images * protocol.passes)
    for run in protocol.runs:
        found += attack_passes(run.attack, images, protocol.batch_size, classes, survive)
    return found + _sections(protocol, images, survive) + sample_passes(protocol, images)


def sample_passes(protocol: Protocol, images: int) -> Passes:
    """Return what samples and counterfactuals take."""
    found, drawn, changed = NONE, protocol.samples, protocol.counterfactuals
    if drawn is not None:
        steps = sum(sampler.gradients for sampler in drawn.samplers)
        scored = SAMPLES_SCORED * len(drawn.samplers)
        found += Passes(steps, scored) * min(drawn.count or images, images)
    if changed is not None:
        found += Passes(gradients=changed.steps * len(changed.eps)) * images
    return found


def _sections(protocol: Protocol, images: int, survive: float) -> Passes:
    found = NONE
    if (checks := protocol.sanity) is not None:
        # PGD at three radii, five times the steps on those that survive, half as long in a ball
        # that holds every image, and Square, a twentieth of its queries where nothing is near.
        steps = checks.steps * (RADII + LONG * (survive + FIRST))
        queries = checks.queries * (0.05 + (1 - survive) / LONG)
        found += Passes(2 + steps, queries) * min(images, checks.images)
    if (curve := protocol.curve) is not None:
        # The median image falls half way; the attack is that of the record at one of the radii.
        share, radii = (survive + FIRST) / (1 + FIRST), len(curve.eps or curve.factors)
        each = attack_passes(curve.attack, images, protocol.batch_size, 2, 1.0)
        found += each * (share * radii)
    if (density := protocol.density) is not None:
        found += Passes(2 + 2 * density.steps, 4 + len(density.outside)) * images
    if (corrupted := protocol.corruptions) is not None:
        kinds = len(corrupted.asked) * len(corrupted.severities)
        found += Passes(forwards=kinds) * images
    return found


def attack_passes(attack: Attack, images: int, chunk: int, classes: int, survive: float) -> Passes:
    """Return what an attack takes, if this share of the images survives it."""
    first, all_, sampled = _costs(attack, classes)
    broken = first * FIRST * (1 - survive)
    left = survive * images
    some = left
    if attack.sampling is not None and (chunks := -(-images // chunk)):
        some = min(left, attack.sampling.images * chunks)
    return broken * images + all_ * left + sampled * some


def _costs(attack: Attack, classes: int) -> tuple[Passes, Passes, Passes]:
    """Return the passes of an image in the first stage, in all, and in the stages on a sample."""
    targets = min(9, classes - 1)
    ce = each = Passes(100, 1)
    fab = Passes(150, 100)  # a gradient, the projection that costs half of one, and a check
    square = Passes(forwards=5000)
    match attack.name:
        case "autoattack-fast":
            if attack.sampling is None:
                return ce, ce + (each + fab) * targets + square, NONE
            near = min(3, targets)
            return ce, ce + each * near, each * (targets - near) + fab * targets + square
        case "autoattack":
            version = getattr(attack, "version", "standard")
            plus = ce * 10 + fab * 5 + square + (each + fab) * targets
            known = {"rand": ce * 40, "plus": plus, "custom": plus}
            return ce, known.get(version, ce + (each + fab) * targets + square), NONE
        case "cascade":
            parts = [_costs(one, classes)[1] for one in attack.inner]
            return parts[0], sum(parts, NONE), NONE
        case "transfer":
            return Passes(UNKNOWN), Passes(UNKNOWN, 1), NONE
    one = _of_steps(attack, classes)
    return one, one, NONE


def _of_steps(attack: Attack, classes: int) -> Passes:
    """Return the passes of an image in an attack that takes so many steps, or asks so often."""
    args = getattr(attack, "args", {})
    steps = getattr(
        attack, "steps", args.get("steps", 0 if hasattr(attack, "queries") else UNKNOWN)
    )
    times = [getattr(attack, key, 1) for key in ("restarts", "eot")]
    times += [min(getattr(attack, "targets", 1), classes - 1)]
    queries = getattr(attack, "queries", args.get("n_queries", 0))
    for factor in times:
        steps *= factor
    return Passes(steps, steps + queries)  # each step is judged, by the network itself
