"""Boards of samplers: one row per run and sampler, with their controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from cembench.evaluation.record import Record
from cembench.evaluation.sections.samples import Generation, SamplerFigures, Scores
from cembench.reporting.leaderboard.board import Board, Shown, free_stem, optional, slug
from cembench.reporting.leaderboard.frame import frame, says
from cembench.reporting.leaderboard.ranking import nearest_first
from cembench.reporting.leaderboard.rows import REPLACED, checkpoint_mark, run_title, with_marks
from cembench.util.display.format import missing, number, percent, with_error, with_interval
from cembench.util.files import digest

KEYS = ["dataset", "start", "plan", "extractor", "extractor_sha256", "n_samples", "reference"]
KEYS += ["fingerprint", "ball"]


def sample_boards(records: Sequence[Record]) -> list[Board]:
    """Return a board for each data set, kind of initial images and way of measuring.

    Chains that start from noise are ranked apart from those that start from a Gaussian fitted to
    the data, which is close to real images already.
    """
    rows = frame(row for record in records for row in _rows(record))
    if rows.empty:
        return []
    groups = [group for _, group in rows.groupby(KEYS, sort=True)]
    groups.sort(key=lambda group: (-group["n_samples"].max(), -len(group)))
    boards: dict[str, Board] = {}
    for group in groups:
        first = group.iloc[0]
        held = "" if first["reference"] == "test" else first["reference"]
        size = f"{first['extractor']}-n{first['n_samples']}"
        rest = digest([str(first[key]) for key in KEYS])[:6]
        more = (first["ball"].replace("/", "_"), size, rest)
        stem = free_stem(slug(first["dataset"], "samples", first["start"], held), more, boards)
        boards[stem] = _board(stem, nearest_first(group))
    return list(boards.values())


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    generation = record.generation
    if generation is None:
        return
    plan = digest([record.protocol["samples"], record.protocol["seed"], record.split])
    for title, found in generation.samplers.items():
        yield {
            "run": run_title(record),
            "method": record.method,
            "labels": record.labels,
            "sampler": title.removesuffix(f"-{found.start}"),
            "dataset": record.dataset,
            "start": found.start,
            "ball": found.ball or "",
            "extractor": generation.extractor,
            "extractor_sha256": generation.extractor_sha256,
            "n_samples": generation.count,
            "reference": generation.reference,
            **_figures(found),
            **_controls(generation),
            "further": _further(found, generation),
            "better": generation.better,
            "steps": found.sampler["steps"],
            "seed": record.seed,
            "images_per_second": record.sample_images_per_second.get(title),
            "divergences": record.divergences,
            "train_gradients": record.gradients,
            "weights_sha256": record.weights_sha256,
            "protocol": record.protocol["name"],
            "plan": plan,
            "recipe": record.recipe,
            "fingerprint": generation.reference_fingerprint,
            "error": _error(found),
            "checkpoint": checkpoint_mark(record),
            "record": record,
        }


def _figures(found: SamplerFigures) -> dict[str, Any]:
    gain = {"gain": found.gain, "gain_low": found.gain_low, "gain_high": found.gain_high}
    own = {"own_acc": found.own_acc, "lse": found.lse, "lse_seeds": found.lse_seeds}
    scores, seeds = _fixed(found.samples), _fixed(found.seeds)
    return scores | gain | {f"{key}_seeds": value for key, value in seeds.items()} | own


def _fixed(scores: Scores | None) -> dict[str, Any]:
    keys = [key for key in Scores.model_fields if key not in ("metrics", "failed")]
    return {key: getattr(scores, key, None) for key in keys}


def _further(found: SamplerFigures, generation: Generation) -> dict[str, float | None]:
    """Return the further metrics of the protocol, with their controls."""
    sides = {"": found.samples, "_seeds": found.seeds, "_floor": generation.floor}
    return {
        f"{title}{end}": None if scores is None else scores.metrics.get(title)
        for title in generation.better
        for end, scores in sides.items()
    }


def _error(found: SamplerFigures) -> str | None:
    """Return why all scores or some metrics are missing; None where none is."""
    failed = {} if found.samples is None else found.samples.failed
    return found.error or "; ".join(failed.values()) or None


def _controls(generation: Generation) -> dict[str, Any]:
    floor = {} if generation.floor is None else generation.floor.dump()
    return {f"{key}_floor": floor.get(key) for key in ("kid", "fd")} | {
        "judge_acc_real": generation.judge_real_acc,
        "nearest_real": generation.nearest_real,
    }


def _board(stem: str, group: pd.DataFrame) -> Board:
    further = pd.DataFrame(list(group["further"]), group.index, dtype=float)
    better = group["better"].iloc[0]
    group = group.drop(columns=["further", "better"]).join(further)
    first = group.iloc[0]
    name = f"{first['extractor']}, n={first['n_samples']}"
    floor = "real images have no floor here"
    if not missing(first["kid_floor"]):
        floor = f"real images score KID {first['kid_floor']:.2g}, FD {first['fd_floor']:.3g}"
    title = (
        f"{first['dataset']}: samples started from {first['start']}, beside {first['n_samples']} "
        f"{first['reference']} images ({first['extractor']}); {floor}, an independent classifier "
        f"reads {first['judge_acc_real']:.1%} of them"
    )
    if not says(group["images_per_second"]):
        group = group.drop(columns="images_per_second")
    sources = [[record] for record in group["record"]]
    kept = with_marks(group.drop(columns="record"), group).reset_index(drop=True)
    return _shown(group, name, better).board(stem, title, kept, sources)


def _shown(table: pd.DataFrame, name: str, better: Mapping[str, str]) -> Shown:
    shown = Shown(table)
    for column in ("run", *shown.labels, "sampler"):
        shown.add(column, column)
    shown.add(f"KID ({name}) ↓", "kid", with_error, "kid_error")
    shown.add("KID of its seeds", "kid_seeds", number)
    shown.add("gain ↑", "gain", with_interval, "gain_low", "gain_high")
    distance = "FID" if table["extractor"].iloc[0] == "inception" else "FD"
    shown.add(f"{distance} ({name}) ↓", "fd", partial(number, form=".4g"))
    shown.add(f"IS ({name}) ↑", "inception_score", partial(number, form=".2f"))
    shown.add("precision ↑", "precision", partial(number, form=".2f"))
    shown.add("recall ↑", "recall", partial(number, form=".2f"))
    shown.add("read as intended ↑", "judge_acc", percent)
    for title, direction in better.items():
        shown.add(f"{title} {'↑' if direction == 'higher' else '↓'}", title, number)
    shown.mark("checkpoint", "checkpoint", note=REPLACED)
    if says(table["error"]):
        shown.add("error", "error", optional)
    return shown
