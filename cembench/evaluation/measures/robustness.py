"""Attacks on a chunk of images: stage by stage, verified, and cached after each stage."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from cembench.attacks import Attack, Propose, Target, Verified
from cembench.attacks.verdict import Verdict, verify
from cembench.data.split import Split
from cembench.energy.threat import Threat
from cembench.evaluation.cache import ChunkCache, attack_key, sample_key
from cembench.evaluation.chunk import Chunk, Columns
from cembench.evaluation.measure import Measurement, verdict_table
from cembench.evaluation.measures.attack_progress import DRAWN, REST, AttackProgress
from cembench.evaluation.measures.counts import count, fooled_outside
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.sections.robustness import Figure
from cembench.evaluation.target import applicable, applies, not_applicable
from cembench.models.gradient import missing_gradient
from cembench.util import stages as timing
from cembench.util.errors import CembenchError, NoGradientError
from cembench.util.frozen import frozen
from cembench.util.rng import derive, isolated_rng

log = logging.getLogger("cembench")


def chunk_columns(config: list[Attack], chunk: Chunk) -> Columns:
    """Return `X_broken, X_broken_8bit, X_by, X_norm, X_outside` for each attack X of a protocol.

    They say whether the attack succeeds as it is and rounded to 8 bits, by which stage, the size of
    the perturbation (NaN without one), and whether the network is fooled outside the ball alone. An
    attack with sampled stages has `X_sample` too: what these did with each image, one of
    `sections.robustness.PARTS`.

    An attack that minimises a norm has `X_size`: the smallest change found, in that norm. If it is
    not the threat model's, only `X_outside` stands beside it, since such an attack says nothing of
    the ball.
    """
    columns: Columns = {}
    before = AttackProgress.fresh(chunk.split.pixels())
    for attack in config:
        title = chunk.title(attack.title)
        if not applies(attack, chunk.target):
            chunk.bar.advance(len(chunk.rows))
            continue
        begun = time.monotonic()
        progress = chunk.attacks.attacked(attack, chunk, before)
        own = _columns(attack, chunk, progress)
        if f"{title}_broken" in own:
            before = before.followed_by(progress)
        columns |= own
        chunk.seconds[title] = time.monotonic() - begun
        chunk.bar.advance(len(chunk.rows))
        images = f"{chunk.protocol.split} images {int(chunk.rows[0])}…{int(chunk.rows[-1])}"
        chunk.bar.report(f"{images}: {_told(attack, chunk, progress)}")
    return columns


def _columns(attack: Attack, chunk: Chunk, progress: AttackProgress) -> Columns:
    title = chunk.title(attack.title)
    norm = chunk.attacks.minimised(attack, title)
    columns: Columns = dict(progress.columns(title))
    if attack.sampling is not None:
        columns[f"{title}_sample"] = progress.parts
    if norm is None:
        return columns
    outside = columns.pop(f"{title}_outside")
    size = {f"{title}_size": progress.sizes(norm, chunk.split.pixels(), chunk.correct)}
    if norm == chunk.target.threat.norm:
        return columns | size
    return {f"{title}_outside": outside} | size


def _told(attack: Attack, chunk: Chunk, progress: AttackProgress) -> str:
    title = chunk.title(attack.title)
    broken, outside = int(progress.broken.sum()), int(progress.outside.sum())
    if outside and (norm := attack.minimises) != chunk.target.threat.norm:
        return fooled_outside(title, norm, broken + outside, outside, int(chunk.correct.sum()))
    return f"{title} succeeds on {broken} of {len(chunk.rows)}"


def measure(config: list[Attack], measurement: Measurement) -> dict[str, Figure]:
    """Count the table of verdicts.

    Attacks that do not apply, or that minimise another norm, have no verdicts in it.
    """
    table, target = measurement.table, measurement.target
    for attack in config:
        parts = not_applicable(attack, target)
        measurement.not_applicable += map(measurement.title, parts)
        title = measurement.title(attack.title)
        measurement.warnings.update(_outside_warning(title, attack, table, target.threat.norm))
    titles = [t for a in config if f"{(t := measurement.title(a.title))}_broken" in table]
    return count(table, titles, measurement.seconds, measurement.context.split.classes)


def _outside_warning(title: str, attack: Attack, table: pd.DataFrame, norm: str) -> Iterator[str]:
    """Warn of an attack that fools the network outside the ball, unless its settings say so."""
    asked = "norm" in type(attack).model_fields
    if asked or attack.minimises == norm or f"{title}_outside" not in table:
        return
    outside, counted = table[f"{title}_outside"], f"{title}_broken" in table
    inside = table[f"{title}_broken"] if counted else _sized(table[f"{title}_size"])
    if outside.any():
        right = int((table["clean_pred"] == table["label"]).sum())
        fooled = int((outside | inside).sum())
        yield fooled_outside(title, attack.minimises, fooled, int(outside.sum()), right)


def _sized(sizes: pd.Series) -> pd.Series:
    return sizes.between(0, math.inf, inclusive="neither")


def attack_split(
    model: nn.Module, split: Split, rows: Tensor, protocol: Protocol, threat: Threat
) -> pd.DataFrame:
    """Run all attacks of a protocol on a split and return the table, as `verdict_table` does."""
    return verdict_table(model, split, rows, protocol, threat, RunAttacks())[0]


class RunAttacks:
    """Attacks that run, each on the images that are classified correctly."""

    def attacked(self, attack: Attack, chunk: Chunk, before: AttackProgress) -> AttackProgress:
        """Run an attack; a killed one goes on with the stage it was at."""
        stages = stages_of(attack, chunk.target, chunk.correct)
        start = before if attack.on == "survivors" else None
        return run_stages(chunk.title(attack.title), stages, chunk, start)

    def images(
        self, title: str, number: int, cache: ChunkCache | None, find: Callable[[], Tensor]
    ) -> Tensor:
        """Find the images of a chunk, unless the cache has them."""
        if cache is None:
            return find()
        kept = cache.obtain(sample_key(title, number), lambda: {"images": find().cpu()})
        return kept["images"]

    def minimised(self, attack: Attack, title: str) -> str | None:
        """Return the norm that an attack on all images minimises, if any."""
        return attack.minimises if attack.on == "all" else None


@dataclass(frozen=True)
class Stage:
    """One step of an attack.

    Attributes:
        name: its name in tables.
        target: what it faces.
        propose: images and labels to proposed images.
        alive: the images of the chunk that it may be given, N booleans.
        sample: of how many survivors it attacks a random sample; all of them unless given.
        rest: whether it attacks what such a sample left out, where that turned out to be needed.
    """

    name: str
    target: Target
    propose: Propose
    alive: Tensor
    sample: int | None = None
    rest: bool = False

    def left(self, progress: AttackProgress, chunk: Chunk) -> Tensor:
        """Return the numbers of the images that it attacks."""
        left = self.alive & ~progress.broken
        if self.sample is not None:
            progress.draw(left, self.sample, sample_seed(chunk))
            if self.rest:
                progress.release()
            left = left & (progress.part == (REST if self.rest else DRAWN))
        return left.nonzero().squeeze(1)


def stages_of(attack: Attack, target: Target, alive: Tensor) -> list[Stage]:
    """Return the stages of an attack on a target; those on what a sample left out come last."""
    stages = [Stage(name, target, propose, alive) for name, propose in applicable(attack, target)]
    if attack.sampling is None:
        return stages
    images, names = attack.sampling
    stages = [replace(s, sample=images) if s.name in names else s for s in stages]
    return stages + [replace(stage, rest=True) for stage in stages if stage.sample is not None]


def sample_seed(chunk: Chunk) -> int:
    """Return the seed of the sample that sampled stages attack first."""
    return derive(chunk.protocol.seed, "sample", chunk.start)


def run_stages(
    title: str, stages: list[Stage], chunk: Chunk, before: AttackProgress | None = None
) -> AttackProgress:
    """Run stages on a chunk, each on the images that still survive.

    The progress is cached after each stage, so a killed evaluation goes on with the next one.

    Args:
        title: the name of the attack.
        stages: its stages.
        chunk: the images.
        before: the progress to begin with; all images survive unless given.

    Raises:
        CembenchError: when a stage fails; a `ModelError` for logits that are not finite.
    """
    x, y, cache = chunk.split.pixels(), chunk.split.labels, chunk.cache
    key = attack_key(title, chunk.start)
    cached = None if cache is None else cache.tensors(key)
    progress = AttackProgress.fresh(x) if before is None else before.restarted()
    if cached is not None:
        progress = AttackProgress.read(cached, x.device)
    elif before is not None:
        _cache(chunk, key, progress)
    progress.names = [stage.name for stage in stages]
    for number, stage in list(enumerate(stages))[progress.stages :]:
        left = stage.left(progress, chunk)
        chunk.bar.advance(0, f"{title} {stage.name} attacks {len(left)} of {len(x)}")
        if len(left) == 0:
            continue
        progress.stages = number
        begun, name = time.monotonic(), stage.name.partition(" at ")[0]
        with timing.stage(title if name == title else f"{title} {name}"):
            progress.record(left, run_stage(title, stage, x[left], y[left]))
        stage.target.require_finite(f"under {stage.name}")
        spent = f"{title}/{stage.name}"
        chunk.seconds[spent] = chunk.seconds.get(spent, 0.0) + time.monotonic() - begun
        _cache(chunk, key, progress)
    return progress


def _cache(chunk: Chunk, key: str, progress: AttackProgress) -> None:
    if chunk.cache is not None:
        chunk.cache.keep_tensors(key, progress.tensors() | {"rows": chunk.rows.cpu()})


def run_stage(title: str, stage: Stage, x: Tensor, y: Tensor) -> Verdict:
    """Let a stage propose images for x (N×C×H×W) with labels y (N), and verify them.

    What does not fit into the memory of a GPU is attacked in halves, and the record says so.
    """
    try:
        return _run(title, stage, x, y)
    except torch.OutOfMemoryError as error:
        if len(x) == 1:
            raise CembenchError(f"attack {title}: one image exceeds the memory") from error
    log.warning(f"{len(x)} images did not fit into memory under {stage.name}: attacked in halves")
    parts = zip(x.tensor_split(2), y.tensor_split(2), strict=True)
    halves = [run_stage(title, stage, *part) for part in parts]
    return Verdict(*map(torch.cat, zip(*(vars(found).values() for found in halves), strict=True)))


def _run(title: str, stage: Stage, x: Tensor, y: Tensor) -> Verdict:
    target = stage.target
    try:
        # Attacks switch modes as they like: torchattacks leaves a model in training mode.
        with isolated_rng(target.seed), frozen(target.model):
            if isinstance(stage.propose, Verified) and target.repeatable:
                return stage.propose.verdict(x.clone(), y.clone())
            proposed = stage.propose(x.clone(), y.clone())
    except (CembenchError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if reason := missing_gradient(target.model, x):  # although it has one on a few images
            raise NoGradientError(reason) from error
        raise CembenchError(f"attack {title}, stage {stage.name}, failed: {error!r}") from error
    if proposed.shape != x.shape:
        raise CembenchError(f"attack {title} returned {tuple(proposed.shape)} images")
    with isolated_rng(derive(target.seed, "verdict")):
        return verify(target.verifier, x, proposed, y, target.threat.ball)
