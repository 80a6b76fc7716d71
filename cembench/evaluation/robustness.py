"""Clean and robust accuracy, image by image."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from cembench.attacks import Target
from cembench.attacks.verdict import CheckedModel, averaged
from cembench.data.split import Split
from cembench.energy.ascent import to_bytes
from cembench.energy.threat import Threat
from cembench.evaluation.attack_stages import Chunk, run_stages, stages_of
from cembench.evaluation.attack_state import Columns, Standing
from cembench.evaluation.cache import Parts
from cembench.evaluation.curve import breaking_radius
from cembench.evaluation.density import look
from cembench.evaluation.protocol import Protocol
from cembench.models.engine import EXAMPLES
from cembench.util.distributed import ALONE, World
from cembench.util.frozen import exact, frozen
from cembench.util.progress import Bar
from cembench.util.rng import derive, isolated_rng


@dataclass
class Verdicts:
    """A row an image, and what the attacks cost.

    Attributes:
        table: `index, label, clean_pred, clean_8bit_pred`, and for each attack
            `X_broken, X_broken_8bit` (booleans), `X_by` (the stage that won, else empty) and
            `X_norm` (of the winning perturbation, else NaN); with a density plan also what
            `density.look` returns, with a curve `curve_eps`, as `curve.breaking_radius` does.
        seconds: wall time of each attack.
    """

    table: pd.DataFrame
    seconds: dict[str, float]


def attack_split(
    model: nn.Module,
    split: Split,
    rows: Tensor,
    protocol: Protocol,
    threat: Threat,
    parts: Parts | None = None,
    world: World = ALONE,
) -> Verdicts:
    """Attack every image of a split with every attack of a protocol.

    Chunks of `protocol.batch_size` images are independent: an image's verdict depends on its
    chunk alone. The model's modes, buffers and gradients and the global generators are left as
    they were.

    Args:
        model: images in [0, 1] to logits, on the device of the split.
        split: the images.
        rows: their numbers in the whole split, for the table.
        protocol: the attacks, batch size and seed.
        threat: the ball that perturbations must stay in.
        parts: where finished chunks are kept, and found after a kill.
        world: of several processes, each attacks its share of the chunks alone.

    Raises:
        ModelError: when the model returns the wrong number of logits or any that are not finite.
        CembenchError: when an attack cannot be run.
    """
    tables, seconds = [], dict.fromkeys((attack.title for attack in protocol.attacks), 0.0)
    work = len(split) * max(1, len(protocol.attacks))
    with Bar(f"{protocol.name} {threat}", work) as bar, frozen(model), exact():
        example = split.pixels(slice(EXAMPLES))
        target = target_of(model, len(split.classes), protocol, threat, example)
        target = replace(target, room=min(target.room, len(split)))
        for start in world.shard(range(0, len(split), protocol.batch_size)):
            chunk = torch.arange(start, min(start + protocol.batch_size, len(split)))
            found = None if parts is None else parts.get(start)
            if found is None:
                some = Chunk(split.take(chunk), rows[chunk], start, parts)
                with isolated_rng(derive(protocol.seed, "chunk", start)):
                    found = _chunk(target, some, protocol, bar)
                if parts is not None:
                    parts.put(start, *found)
            else:
                bar.advance(len(chunk) * len(protocol.attacks))
            tables.append(found[0])
            seconds = {key: value + found[1][key] for key, value in seconds.items()}
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Verdicts(table, seconds)


def target_of(
    model: nn.Module,
    classes: int,
    protocol: Protocol,
    threat: Threat,
    example: Tensor | None = None,
) -> Target:
    """Return what the attacks of a protocol face.

    Args:
        model: the network as it is, frozen.
        classes: how many logits it returns.
        protocol: says how verdicts are taken, and which engine proposes.
        threat: the ball that perturbations must stay in.
        example: a few images that the engine tries its copy on; without them the network is
            attacked as it is.
    """
    plain = CheckedModel(model, classes).eval()
    climbed = model if example is None else protocol.engine.prepare(model, example)
    attacked = plain if climbed is model else CheckedModel(climbed, classes).eval()
    judge = averaged(plain, protocol.passes)
    return Target(attacked, plain, judge, threat, classes, protocol.seed, protocol.batch_size)


def _chunk(
    target: Target, chunk: Chunk, protocol: Protocol, bar: Bar
) -> tuple[pd.DataFrame, dict[str, float]]:
    watched, x, y = target.plain, chunk.split.pixels(), chunk.split.labels
    columns = _clean(target.judge, x, y, chunk.rows, target.threat)
    watched.require_finite("on clean images")
    if protocol.density is not None:
        seed = derive(protocol.seed, "density", int(chunk.rows[0]))
        columns |= look(watched, x, y, target.threat, protocol.density, seed)
        watched.require_finite("in the ball")
    correct = torch.as_tensor(columns["clean_pred"]) == y
    seconds, fallen = {}, Standing.fresh(x)
    for attack in protocol.attacks:
        begun = time.monotonic()
        stages = stages_of(attack, target, correct)
        before = fallen if attack.on == "survivors" else None
        standing = run_stages(attack.title, stages, chunk, bar, before)
        fallen = fallen.followed(standing)
        columns |= standing.columns(attack.title, [stage.name for stage in stages])
        seconds[attack.title] = time.monotonic() - begun
        bar.advance(len(x))
        images = f"{protocol.split} images {int(chunk.rows[0])}…{int(chunk.rows[-1])}"
        bar.report(f"{images}: {attack.title} breaks {int(standing.broken.sum())} of {len(x)}")
    if protocol.curve is not None:
        known = smallest(columns, protocol, correct)
        columns["curve_eps"] = breaking_radius(target, chunk, known, protocol.curve, bar)
    return pd.DataFrame({key: _array(value) for key, value in columns.items()}), seconds


def smallest(columns: Columns, protocol: Protocol, correct: Tensor) -> Tensor:
    """Return the size of the smallest perturbation that broke each image; infinity for none."""
    known = torch.where(correct, torch.inf, 0.0)
    for attack in protocol.attacks:
        size = torch.as_tensor(columns[f"{attack.title}_norm"])
        known = torch.fmin(known, size)
    return known


@torch.no_grad()
def _clean(model: nn.Module, x: Tensor, y: Tensor, rows: Tensor, threat: Threat) -> Columns:
    predicted = model(x).argmax(1)
    rounded = model(to_bytes(x, x, threat.ball)).argmax(1)
    return {"index": rows, "label": y, "clean_pred": predicted, "clean_8bit_pred": rounded}


def _array(value: Tensor | list[str]) -> object:
    return value if isinstance(value, list) else value.cpu().numpy()
