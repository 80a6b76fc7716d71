"""Clean and robust accuracy, image by image."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from cembench.ascent import ball_of, to_bytes
from cembench.data.split import Split
from cembench.errors import CembenchError
from cembench.evaluation.attacks import Attack, Propose, Target
from cembench.evaluation.density import look
from cembench.evaluation.parts import Parts
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.standing import Columns, Standing
from cembench.evaluation.verify import Verdict, Watched, verify
from cembench.guard import derive, exact, frozen, isolated_rng
from cembench.progress import Bar
from cembench.threat import Threat


@dataclass
class Verdicts:
    """A row an image, and what the attacks cost.

    Attributes:
        table: `index, label, clean_pred, clean_8bit_pred`, and for each attack
            `X_broken, X_broken_8bit` (booleans), `X_by` (the stage that won, else empty) and
            `X_norm` (of the winning perturbation, else NaN); with a density plan also what
            `density.look` returns.
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

    Raises:
        ModelError: when the model returns the wrong number of logits or any that are not finite.
        CembenchError: when an attack cannot be run.
    """
    tables, seconds = [], dict.fromkeys((attack.title for attack in protocol.attacks), 0.0)
    work = len(split) * max(1, len(protocol.attacks))
    with Bar(f"{protocol.name} {threat}", work) as bar, frozen(model), exact():
        watched = Watched(model, len(split.classes)).eval()
        target = Target(watched, threat, len(split.classes), protocol.seed)
        for start in range(0, len(split), protocol.batch_size):
            chunk = torch.arange(start, min(start + protocol.batch_size, len(split)))
            found = None if parts is None else parts.get(start)
            if found is None:
                some = Chunk(split.take(chunk), rows[chunk], start, parts)
                found = _chunk(target, some, protocol, bar)
                if parts is not None:
                    parts.put(start, *found)
            else:
                bar.advance(len(chunk) * len(protocol.attacks))
            tables.append(found[0])
            seconds = {key: value + found[1][key] for key, value in seconds.items()}
    return Verdicts(pd.concat(tables, ignore_index=True), seconds)


@dataclass(frozen=True)
class Chunk:
    """Images attacked together: where they are in the whole split, and where work is kept."""

    split: Split
    rows: Tensor
    start: int
    parts: Parts | None


def _chunk(
    target: Target, chunk: Chunk, protocol: Protocol, bar: Bar
) -> tuple[pd.DataFrame, dict[str, float]]:
    watched, x, y = target.watched, chunk.split.pixels(), chunk.split.labels
    columns = _clean(watched, x, y, chunk.rows, target.threat)
    if protocol.density is not None:
        seed = derive(protocol.seed, "density", int(chunk.rows[0]))
        columns |= look(watched, x, y, target.threat, protocol.density, seed)
        watched.require_finite("in the ball")
    correct = torch.as_tensor(columns["clean_pred"]) == y
    seconds = {}
    for attack in protocol.attacks:
        begun = time.monotonic()
        columns |= (result := _attack(attack, target, chunk, correct, bar))
        seconds[attack.title] = time.monotonic() - begun
        broken = int(torch.as_tensor(result[f"{attack.title}_broken"]).sum())
        images = f"{protocol.split} images {int(chunk.rows[0])}…{int(chunk.rows[-1])}"
        bar.report(f"{images}: {attack.title} breaks {broken} of {len(x)}")
    return pd.DataFrame({key: _array(value) for key, value in columns.items()}), seconds


@torch.no_grad()
def _clean(model: Watched, x: Tensor, y: Tensor, rows: Tensor, threat: Threat) -> Columns:
    predicted = model(x).argmax(1)
    rounded = model(to_bytes(x, x, ball_of(threat))).argmax(1)
    model.require_finite("on clean images")
    return {"index": rows, "label": y, "clean_pred": predicted, "clean_8bit_pred": rounded}


def _attack(attack: Attack, target: Target, chunk: Chunk, alive: Tensor, bar: Bar) -> Columns:
    """Run the stages of an attack, each on the survivors of those before it.

    What stands after each stage is kept, so a killed evaluation goes on with the next one.
    """
    x, y = chunk.split.pixels(), chunk.split.labels
    stages = attack.stages(target)
    name = f"adversarial.{attack.title}.{chunk.start}"
    kept = None if chunk.parts is None else chunk.parts.tensors(name)
    standing = Standing.fresh(x) if kept is None else Standing.read(kept, x.device)
    for stage, propose in stages[standing.stages :]:
        left = (alive & ~standing.broken).nonzero().squeeze(1)
        bar.advance(0, f"{attack.title} {stage}: {len(left)} of {len(x)} stand")
        if len(left) == 0:
            break
        standing.record(left, _stage(attack, stage, propose, target, x[left], y[left]))
        target.watched.require_finite(f"under {stage}")
        if chunk.parts is not None:
            chunk.parts.keep_tensors(name, standing.kept() | {"rows": chunk.rows.cpu()})
    bar.advance(len(x))
    return standing.columns(attack.title, [stage for stage, _ in stages])


def _stage(
    attack: Attack, stage: str, propose: Propose, target: Target, x: Tensor, y: Tensor
) -> Verdict:
    try:
        # Attacks switch modes as they like: torchattacks leaves a model in training mode.
        with isolated_rng(target.seed), frozen(target.model):
            proposed = propose(x.clone(), y.clone())
    except CembenchError:
        raise
    except Exception as error:
        raise CembenchError(f"attack {attack.title}, stage {stage}, failed: {error!r}") from error
    if proposed.shape != x.shape:
        raise CembenchError(f"attack {attack.title} returned {tuple(proposed.shape)} images")
    return verify(target.model, x, proposed, y, ball_of(target.threat))


def _array(value: Tensor | list[str]) -> object:
    return value if isinstance(value, list) else value.cpu().numpy()
