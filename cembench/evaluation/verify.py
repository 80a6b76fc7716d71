"""Every figure of a record, computed again from the checkpoint, the data and what was kept."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cembench.attacks import Target
from cembench.attacks.verdict import verify
from cembench.energy.ascent import to_bytes
from cembench.evaluation.artifacts import kept_images, kept_samples
from cembench.evaluation.attack_stages import Chunk
from cembench.evaluation.attack_state import Columns
from cembench.evaluation.curve import breaking_radius, points
from cembench.evaluation.density import look, summarise
from cembench.evaluation.diff import Recount, accuracies, compared, samples, verdicts
from cembench.evaluation.extractors.features import FeatureReader
from cembench.evaluation.generation import chunk_seed, drawn
from cembench.evaluation.reference import Comparison
from cembench.evaluation.results import Density, Generation, count
from cembench.evaluation.robustness import smallest, target_of
from cembench.evaluation.sample_scores import score
from cembench.evaluation.sanity import sanity_checks
from cembench.evaluation.saved_context import Case, open_case
from cembench.evaluation.sections import CurveConfig, DensityConfig
from cembench.models.engine import EXAMPLES
from cembench.samplers import Sampler
from cembench.samplers.draw import Samples, chunks, intended_labels
from cembench.util.errors import CembenchError, SamplingError
from cembench.util.frozen import exact, frozen
from cembench.util.progress import Bar
from cembench.util.rng import derive, isolated_rng

# What a record says of training and of its protocol, and checkpoint and protocol say too.
SAID = {"method", "dataset", "model", "seed", "recipe", "epoch", "finished", "threat", "split"}
SAID |= {"protocol_digest", "gradients", "divergences", "parameters", "labels"}
SAID |= {"kind", "weights_sha256"}
NEAR = 0.1  # of the largest logit: rounding to bytes moves logits by a tenth of that


def recount(
    path: Path, checkpoint: Path, device: str = "cpu", inception_weights: Path | None = None
) -> list[Recount]:
    """Compute every figure of a record again.

    Accuracies come from the kept adversarial images, scores from the kept samples; energies and
    calibration, sanity checks and the curve from the checkpoint and the data alone. Wall times are
    left out.

    Args:
        path: the record.
        checkpoint: the checkpoint, or its run folder.
        device: where to compute; randomness of a GPU is not that of a CPU.
        inception_weights: a file of weights for the extractor inception.

    Raises:
        CembenchError: when the record is of another checkpoint or other data, or its evidence is
            missing or damaged.
    """
    case = open_case(path, checkpoint, torch.device(device))
    record = case.record
    if case.origins.metadata.kind == "encoder":
        return _of_encoder(case, inception_weights)
    with frozen(case.model), exact():
        table = _table(case)
        figures = count(table, [attack.title for attack in case.protocol.attacks], {})
        generation, read = _generation(case, inception_weights)
        density = _density(case, table, generation)
        facing = (case.model, case.model.classes, case.protocol, case.blank.threat)
        plan, curve = case.protocol.curve, []
        if plan is not None:
            target = target_of(*facing, case.split.pixels(slice(EXAMPLES)))
            curve = points(_radii(case, target, plan), plan.radii(case.blank.threat.eps))
        checks = case.protocol.sanity
        sanity = [] if checks is None else sanity_checks(target_of(*facing), case.split, checks)
    return [
        *compared("run", record.model_dump(include=SAID), case.blank.model_dump(include=SAID)),
        *accuracies(record.figures, figures),
        *verdicts(case.table, table),
        *samples(record.generation, generation),
        *read,
        *compared("density", record.density, density),
        *compared("sanity", record.sanity, sanity),
        *compared("curve", record.curve, curve),
    ]


def _of_encoder(case: Case, weights: Path | None) -> list[Recount]:
    """Compute what an encoder's record has: the scores of its samples."""
    with frozen(case.model), exact():
        generation, _ = _generation(case, weights)
    record, none = case.record, {"figures", "density", "sanity", "curve"}
    return [
        *compared("run", record.model_dump(include=SAID), case.blank.model_dump(include=SAID)),
        *compared("logits", record.model_dump(include=none), case.blank.model_dump(include=none)),
        *samples(record.generation, generation),
    ]


@torch.no_grad()
def _table(case: Case) -> pd.DataFrame:
    """Return the table of verdicts, with the stages that won as the record's own table has them."""
    protocol, ball = case.protocol, case.blank.threat.ball
    x, y = case.split.pixels(), case.split.labels
    columns = {"index": case.rows, "label": y, "clean_pred": _predicted(case, x)}
    columns["clean_8bit_pred"] = _predicted(case, to_bytes(x, x, ball))
    if protocol.density is not None:
        columns |= _looks(case, x, y, protocol.density)
    for attack in protocol.attacks:
        columns |= _verdicts(case, attack.title, x, y)
    table = pd.DataFrame({key: value.cpu().numpy() for key, value in columns.items()})
    for attack in protocol.attacks:
        table[f"{attack.title}_by"] = case.table.get(f"{attack.title}_by", "")
    return table


def _verdicts(case: Case, attack: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Judge the kept images of an attack; an image that none was kept of stands."""
    numbers, images = kept_images(case.path, attack, case.rows, case.split.shape)
    ball = case.blank.threat.ball
    found = torch.zeros(2, len(x)).bool()
    for part in _batches(len(numbers), case.protocol.batch_size):
        where = numbers[part].to(x.device)
        verdict = verify(case.model, x[where], images[part].to(x.device), y[where], ball)
        found[:, numbers[part]] = torch.stack([verdict.broken, verdict.broken_8bit]).cpu()
    return {f"{attack}_broken": found[0], f"{attack}_broken_8bit": found[1]}


def _looks(case: Case, x: Tensor, y: Tensor, plan: DensityConfig) -> dict[str, Tensor]:
    parts = []
    for part in _batches(len(x), case.protocol.batch_size):
        seed = derive(case.protocol.seed, "density", int(case.rows[part][0]))
        parts.append(look(case.model, x[part], y[part], case.blank.threat, plan, seed))
    return {key: torch.cat([columns[key] for columns in parts]) for key in parts[0]}


def _predicted(case: Case, x: Tensor) -> Tensor:
    return torch.cat([case.model(part).argmax(1) for part in x.split(case.protocol.batch_size)])


def _radii(case: Case, target: Target, plan: CurveConfig) -> pd.DataFrame:
    """Climb the radii again; the smallest perturbations known are those that the table has."""
    right = torch.tensor((case.table["clean_pred"] == case.table["label"]).to_numpy())
    names = [f"{attack.title}_norm" for attack in case.protocol.attacks]
    columns: Columns = {name: torch.tensor(case.table[name].to_numpy()) for name in names}
    known = smallest(columns, case.protocol, right)
    parts = []
    with Bar(f"curve of {case.record.run}", 0) as bar:
        for part in _batches(len(known), case.protocol.batch_size):
            rows = torch.arange(len(known))[part]
            chunk = Chunk(case.split.take(rows), case.rows[part], part.start, None)
            with isolated_rng(derive(case.protocol.seed, "chunk", part.start)):
                parts.append(breaking_radius(target, chunk, known[part], plan, bar))
    return pd.DataFrame({"curve_eps": torch.cat(parts).numpy()})


def _batches(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _generation(case: Case, weights: Path | None) -> tuple[Generation | None, list[Recount]]:
    """Score the kept samples, and tell how many have the logits that were kept with them."""
    plan, origins, recorded = case.protocol.samples, case.origins, case.record.generation
    if plan is None:
        return None, []
    reader = FeatureReader(plan.extractor, origins.device, weights)
    comparison = Comparison(plan, reader, case.whole, origins.data)
    failed = {} if recorded is None else {k: v.error for k, v in recorded.samplers.items()}
    read = []

    def obtain(sampler: Sampler) -> Samples:
        classes = len(origins.metadata.classes)
        labels = [
            intended_labels(
                sampler, y.to(origins.device), origins, chunk_seed(case.protocol, number)
            ).cpu()
            for number, y in enumerate(
                chunks(sampler, len(comparison.split), classes, plan.batch_size)
            )
        ]
        try:
            kept = kept_samples(case.path, sampler.title, labels)
        except CembenchError:
            if failed.get(sampler.title) is None:
                raise
            raise SamplingError(failed[sampler.title]) from None
        read.extend(_read(case, sampler, kept))
        return kept

    with Bar(f"samples of {case.record.run}", 0) as bar:
        return score(obtain, case.protocol, case.blank.threat, comparison, bar.report), read


@torch.no_grad()
def _read(case: Case, sampler: Sampler, kept: Samples) -> list[Recount]:
    """Count the samples whose bytes the network reads as their kept logits say.

    The kept logits are those before rounding. Where samples may leave [0, 1], or were climbed with
    batch statistics, they say nothing of the bytes.
    """
    unlike = sampler.mode == "train" or sampler.init == "buffer"
    if unlike or kept.logits.shape[1] == 0 or not getattr(sampler, "box", True):
        return []
    near = torch.ones(len(kept.labels)).bool()
    for images, logits in ((kept.images, kept.logits), (kept.starts, kept.start_logits)):
        parts = images.split(case.protocol.batch_size)
        out = [case.model(part.to(case.origins.device).float() / 255).cpu() for part in parts]
        apart = (torch.cat(out) - logits).abs().amax(1)
        near &= apart <= NEAR * logits.abs().amax(1).clamp_min(1)
    title = f"samples {sampler.title}: read as their logits say"
    return [Recount(title, len(near), int(near.sum()))]


def _density(case: Case, table: pd.DataFrame, generation: Generation | None) -> Density | None:
    if case.protocol.density is None:
        return None
    device = case.origins.device
    found = summarise(table, case.model, case.origins.metadata.shape, case.protocol, device)
    of_samples = {} if generation is None else drawn(generation)
    return found.model_copy(update={"energies": found.energies | of_samples})
