"""Consistency checks: whether answers depend on the image alone, and whether gradients are theirs.

They are made of every classifier whatever the protocol, after its attacks: about forty forward
passes and one gradient of at most 32 images. A vote over the batch, batch statistics, a memory of
earlier images, a counter or a gradient of another network make attacks fail that would succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from cembench.attacks import Target
from cembench.attacks.verdict import CheckedModel
from cembench.data.split import Split
from cembench.energy.ascent import gradient_of
from cembench.energy.norms import per_row
from cembench.evaluation.sections.sanity import SanityCheck
from cembench.evaluation.statistics import wilson
from cembench.util.frozen import copied
from cembench.util.rng import derive, generator_of, isolated_rng

IMAGES = 32
TOLERANCE = 1e-3  # of logits, relative to the largest of the image: float32 rounds at 1e-6
STEP = 1e-3  # of the pixel that moves most along a gradient
SLOPE_TOLERANCE = 0.25  # of what a gradient says; curvature and kinks make it wrong by 1 %
ROUNDING = 1e-4  # of logits, relative to the largest: smaller changes tell nothing


class Answers:
    """A network's answers to a few images that it was not asked about before.

    All answers are taken in one order, so that a change between calls has some calls to show in.

    Attributes:
        x: the images, N×C×H×W: some attacked ones, each moved at random inside the ball.
        together: logits of all in one batch, N×K.
        unused: those of a copy of the network that nobody asked anything yet; None without one.
        alone: those of each image in a batch of its own; None where the network fails on one.
        beside: those of each half in one batch with its mirror images.
        again: those of all in one batch, asked last.
    """

    def __init__(self, target: Target, x: Tensor, unused: nn.Module | None) -> None:
        self.target = target
        self.x = target.threat.ball.uniform(x, generator_of(target.seed, x.device))
        with torch.no_grad():
            self.together = target.model(self.x)
            self.unused = None if unused is None else self._checked(unused)(self.x)
            self.alone = self._alone()
            self.beside = torch.cat([self._beside(half) for half in self.x.tensor_split(2)])
            self.again = target.model(self.x)
        self.require_finite()

    def require_finite(self) -> None:
        """Refuse logits that are not finite.

        Raises:
            ModelError: naming the checks.
        """
        self.target.model.require_finite("in the consistency checks")

    @cached_property
    def changed(self) -> Tensor:
        """Which answers are others the second time, or than those of an unused copy, N."""
        changed = differ(self.together, self.again)
        if self.unused is None or not bool(differ(self.together, self.unused).any()):
            return changed
        with torch.no_grad():  # a copy that is not faithful tells nothing
            copy = copied(self.target.model)
            faithful = copy is not None and not bool(differ(self.together, copy(self.x)).any())
        return changed | (differ(self.together, self.unused) & faithful)

    def _checked(self, model: nn.Module) -> CheckedModel:
        return CheckedModel(model, self.target.classes).eval()

    def _alone(self) -> Tensor | None:
        try:
            return torch.cat([self.target.model(image) for image in self.x.split(1)])
        except torch.OutOfMemoryError:
            raise
        except Exception:  # as of a batch norm in training mode that is given a single value
            return None

    def _beside(self, half: Tensor) -> Tensor:
        return self.target.model(torch.cat([half.flip(3), half]))[len(half) :]


def answers_change_between_calls(answers: Answers) -> Tensor:
    """The network answers the same question in another way, or as an unused copy does not."""
    return answers.changed


def answers_depend_on_batch(answers: Answers) -> Tensor:
    """An image alone, or beside others, gets other logits."""
    everything = torch.ones_like(answers.changed)
    alone = everything if answers.alone is None else differ(answers.together, answers.alone)
    return alone | differ(answers.together, answers.beside)


def wrong_gradients(answers: Answers) -> Tensor:
    """The gap between the two likeliest classes changes otherwise than its gradient says."""
    model = answers.target.model
    x = (STEP + (1 - 2 * STEP) * answers.x).requires_grad_()  # so that both steps stay in [0, 1]
    with torch.enable_grad():
        out = model(x)
        top = out.topk(2, dim=1).indices
        gradient = gradient_of(_gap(out, top), x)
    largest = gradient.flatten(1).abs().amax(1)
    direction = gradient / per_row(largest.clamp_min(torch.finfo(x.dtype).tiny), x)
    expected = 2 * STEP * (gradient * direction).flatten(1).sum(1)
    with torch.no_grad():
        ahead, behind = (_gap(model(x + sign * STEP * direction), top) for sign in (1, -1))
    size = 1 + out.detach().abs().amax(1)
    return (ahead - behind - expected).abs() > SLOPE_TOLERANCE * expected + ROUNDING * size


CHECKS: dict[Callable[[Answers], Tensor], str] = {
    answers_change_between_calls: "share of images with other logits when asked again, or than an "
    "unused copy of the network gives; beyond chance above 1 %, verdicts depend on earlier calls",
    answers_depend_on_batch: "share of images with other logits alone or beside other images; "
    "beyond chance above 1 %, verdicts depend on what is attacked together",
    wrong_gradients: "share of images whose logits change along their gradient otherwise than it "
    "says; beyond chance above 1 %, white-box attacks are led astray",
}


def consistency_checks(target: Target, split: Split, unused: nn.Module | None) -> list[SanityCheck]:
    """Make all checks on the first images of a split, as many of 32 as fit into memory at once.

    All are skipped where a verdict is a mean over several passes, since such a network is random by
    design; those after the first where answers change from call to call; and the last without a
    gradient.

    Args:
        target: the network as it is.
        split: the attacked images.
        unused: a copy of the network that was not asked anything, where there is one.

    Raises:
        ModelError: for logits that are not finite.
    """
    if target.verifier is not target.model:
        return [_row(check, meaning, None) for check, meaning in CHECKS.items()]
    x = split.pixels(slice(IMAGES))
    while True:
        try:
            return _rows(target, x, unused)
        except torch.OutOfMemoryError:
            if len(x) == 1:
                raise
            x = x[: len(x) // 2]


def _rows(target: Target, x: Tensor, unused: nn.Module | None) -> list[SanityCheck]:
    with isolated_rng(derive(target.seed, "consistency")):
        answers = Answers(target, x, unused)
        rows: list[SanityCheck] = []
        for check, meaning in CHECKS.items():
            changes = bool(rows) and rows[0].verdict == "fail"
            skipped = changes or (check is wrong_gradients and target.no_gradient)
            rows.append(_row(check, meaning, None if skipped else check(answers)))
    answers.require_finite()
    return rows


def _row(check: Callable[[Answers], Tensor], meaning: str, found: Tensor | None) -> SanityCheck:
    name = check.__name__
    if found is None:
        return SanityCheck(name=name, verdict="skipped", figure=None, meaning=meaning)
    count, images = int(found.sum()), len(found)
    failed = wilson(count, images)[0] > 0.01
    figure, verdict = count / images, "fail" if failed else "pass"
    return SanityCheck.parse(
        {"name": name, "verdict": verdict, "figure": figure, "meaning": meaning}
    )


def differ(first: Tensor, second: Tensor) -> Tensor:
    """Return which rows of logits, N×K, differ by more than rounding, N booleans."""
    distance = (first - second).abs().amax(1)
    return distance > TOLERANCE * (1 + first.abs().amax(1))


def _gap(out: Tensor, top: Tensor) -> Tensor:
    return out.gather(1, top[:, :1])[:, 0] - out.gather(1, top[:, 1:])[:, 0]
