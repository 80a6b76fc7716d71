"""Attacks in stages: each on the survivors of those before it, judged, and kept on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from cembench.attacks import Attack, Propose, Target
from cembench.attacks.verdict import Verdict, verify
from cembench.data.split import Split
from cembench.evaluation.attack_state import Standing
from cembench.evaluation.cache import Parts
from cembench.util.errors import CembenchError
from cembench.util.frozen import frozen
from cembench.util.progress import Bar
from cembench.util.rng import derive, isolated_rng

log = logging.getLogger("cembench")


@dataclass(frozen=True)
class Stage:
    """One step of an attack.

    Attributes:
        name: what it is called in tables.
        target: its rules.
        propose: images and labels to proposed images.
        alive: the images of the chunk that it may be given, N booleans.
    """

    name: str
    target: Target
    propose: Propose
    alive: Tensor


@dataclass(frozen=True)
class Chunk:
    """Images attacked together: where they are in the whole split, and where work is kept."""

    split: Split
    rows: Tensor
    start: int
    parts: Parts | None


def stages_of(attack: Attack, target: Target, alive: Tensor) -> list[Stage]:
    """Return the stages of an attack under one set of rules."""
    return [Stage(name, target, propose, alive) for name, propose in attack.stages(target)]


def run_stages(
    title: str, stages: list[Stage], chunk: Chunk, bar: Bar, before: Standing | None = None
) -> Standing:
    """Run stages on a chunk, each on the images that still stand.

    What stands after each stage is kept, so a killed evaluation goes on with the next one.

    Args:
        title: what the attack is called.
        stages: its stages.
        chunk: the images.
        bar: told of progress.
        before: what stands at the beginning; everything unless given.

    Raises:
        CembenchError: when a stage fails; a `ModelError` for logits that are not finite.
    """
    x, y = chunk.split.pixels(), chunk.split.labels
    name = f"adversarial.{title}.{chunk.start}"
    kept = None if chunk.parts is None else chunk.parts.tensors(name)
    begun = Standing.fresh(x) if before is None else before
    standing = begun if kept is None else Standing.read(kept, x.device)
    if before is not None and kept is None:
        _keep(chunk, name, standing)
    for stage in stages[standing.stages :]:
        left = (stage.alive & ~standing.broken).nonzero().squeeze(1)
        bar.advance(0, f"{title} {stage.name}: {len(left)} of {len(x)} stand")
        if len(left) == 0:
            break
        standing.record(left, run_stage(title, stage, x[left], y[left]))
        stage.target.require_finite(f"under {stage.name}")
        _keep(chunk, name, standing)
    return standing


def _keep(chunk: Chunk, name: str, standing: Standing) -> None:
    if chunk.parts is not None:
        chunk.parts.keep_tensors(name, standing.kept() | {"rows": chunk.rows.cpu()})


def run_stage(title: str, stage: Stage, x: Tensor, y: Tensor) -> Verdict:
    """Let a stage propose images for x (N×C×H×W) with labels y (N), and judge them.

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
            proposed = stage.propose(x.clone(), y.clone())
    except (CembenchError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CembenchError(f"attack {title}, stage {stage.name}, failed: {error!r}") from error
    if proposed.shape != x.shape:
        raise CembenchError(f"attack {title} returned {tuple(proposed.shape)} images")
    with isolated_rng(derive(target.seed, "verdict")):
        return verify(target.verifier, x, proposed, y, target.threat.ball)
