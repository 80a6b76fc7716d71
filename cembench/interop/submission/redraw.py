"""Samples of an entry, drawn again with the seeds of its protocol."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cembench import energy
from cembench.evaluation.artifacts import saved_samples
from cembench.evaluation.context import EvaluationContext
from cembench.evaluation.extractors.features import to_uint8
from cembench.evaluation.measures.samples import chunk_labels, chunk_seed
from cembench.interop.submission.checks import Checks
from cembench.interop.submission.claim import Claim, sample_files
from cembench.models.engine import EXAMPLES
from cembench.samplers import Sampler
from cembench.samplers.draw import Samples, draw
from cembench.util.frozen import exact, frozen
from cembench.util.rng import generator_of

ALIKE = 0.95  # share of samples that are the same, above which they are not compared further
NEAR = 2.0  # levels of 255 by which images that are the same may differ, in the mean
FAR = 4.0  # standard errors
OWN_BUFFER = "those of a replay buffer that the entry brings"
DESCRIBED = ("distance moved", "LSE", "share in their class")


def draw_again(
    claim: Claim, context: EvaluationContext, share: float, seed: int, checks: Checks
) -> None:
    """Draw a random share of the chunks of samples again, with the seeds of the protocol.

    On the same kind of device initial images are the same. Samples are the same, or else the same
    in distribution: their distance from the initial images, LSE and the share in their class.

    Raises:
        Refused: when they differ.
    """
    samples = context.protocol.samples
    if samples is None or claim.record.generation is None:
        return
    example = context.images.data.pixels(slice(EXAMPLES))
    surrogate = context.protocol.engine.prepare(context.model, example)
    with (
        checks.stage("Samples again"),
        checks.trying("samples", "drawn again"),
        frozen(context.model),
        exact(),
    ):
        for sampler in samples.samplers:
            figures = claim.record.generation.samplers.get(sampler.title)
            if figures is None or figures.error is not None:
                continue
            if sampler.init == "buffer":
                checks.note(f"samples of {sampler.title}", "known initial images", OWN_BUFFER)
            labels = list(chunk_labels(context, sampler))
            files = sample_files(claim.path)[sampler.title]
            checks.equal(f"files of samples of {sampler.title}", len(labels), files)
            order = torch.randperm(len(labels), generator=generator_of(seed, "cpu"))
            for number in order[: math.ceil(share * len(labels))].tolist():
                saved = saved_samples(claim.path, sampler.title, number, labels[number])
                y, own = labels[number].to(context.images.device), chunk_seed(context, number)
                drawn = draw(context.model, sampler, y, context.images, own, None, surrogate).cpu()
                _compare_samples(claim, context, sampler, (saved, drawn), checks)


def _compare_samples(
    claim: Claim,
    context: EvaluationContext,
    sampler: Sampler,
    pair: tuple[Samples, Samples],
    checks: Checks,
) -> None:
    saved, drawn = pair
    title = f"samples of {sampler.title}"
    starts = _alike(saved.starts, to_uint8(drawn.starts))
    recorded, here = (str(d) for d in (_kind(claim), context.images.device.type))
    if recorded == here:
        text = f"{starts:.1%} the same"
        checks.require(f"{title}: initial images", starts >= ALIKE, "those of the seed", text)
    else:
        checks.note(f"{title}: initial images", f"of {recorded}", f"not compared on {here}")
    same = _alike(saved.images, to_uint8(drawn.images))
    if same >= ALIKE:
        checks.require(title, True, "drawn again", f"{same:.1%} the same")
        return
    checks.note(title, "the same pixels", f"{same:.1%} of them the same")
    columns = zip(*(_described(context, one, saved.labels) for one in pair), strict=True)
    for name, (old, new) in zip(DESCRIBED, columns, strict=True):
        apart = _standard_errors(old, new)
        text = f"{float(old.mean()):.4g}, {apart:.1f} standard errors apart"
        checks.require(f"{title}: {name}", apart <= FAR, f"{float(new.mean()):.4g}", text)


def _kind(claim: Claim) -> str:
    """Return the kind of device that a record was made on, such as `cpu`."""
    return (str(claim.record.environment.get("device", "")).split() or ["unknown"])[0].lower()


def _alike(one: Tensor, other: Tensor) -> float:
    """Return the share of images, in bytes, that differ by rounding at most."""
    apart = (one.float() - other.float()).abs().flatten(1).mean(1)
    return float((apart <= NEAR).float().mean())


@torch.no_grad()
def _described(context: EvaluationContext, one: Samples, y: Tensor) -> list[Tensor]:
    """Return how far each sample is from its initial image, its LSE, and whether it is in y."""
    images, starts = (
        x.float() / 255 if x.dtype == torch.uint8 else x for x in (one.images, one.starts)
    )
    moved = (images - starts).flatten(1).norm(dim=1)
    if context.header.kind == "encoder":
        return [moved, torch.zeros(len(y)), torch.zeros(len(y))]
    logits = context.model(images.to(context.images.device)).cpu()
    return [moved, energy.marginal(logits), (logits.argmax(1) == y).float()]


def _standard_errors(old: Tensor, new: Tensor) -> float:
    """Return by how many standard errors two means differ; 0 where nothing varies.

    Infinity where values are not finite, or so large that their variance is not.
    """
    error = ((old.double().var() + new.double().var()) / len(old)).sqrt()
    apart = (old.double().mean() - new.double().mean()).abs()
    if not (error.isfinite() and apart.isfinite()):
        return math.inf
    return float(apart / error) if error > 0 else (0.0 if apart < 1e-6 else math.inf)
