"""Benchmarks against reference implementations: same process, same data, interleaved, medians."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from cembench.bench.machine import MACHINE, clock
from cembench.bench.meters import Peak, product_rate
from cembench.util.display.markdown import markdown_table


@dataclass(frozen=True)
class Timing:
    """Median seconds of both sides, and the peak memory of each in any round, in bytes."""

    ours: float
    theirs: float
    our_memory: int
    their_memory: int


def interleaved(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    rounds: int,
    device: str,
    warm_up: bool = True,
    between: Callable[[], Any] = lambda: None,
) -> Timing:
    """Time cembench and the reference, called in turn, in swapped order each round.

    In the warm-up each runs once more, where memory is measured, but not time. What runs `between`
    the rounds, before the first and after the last one too, is not timed.
    """
    now = clock(device)
    sides, peaks = (ours, theirs), [0, 0]
    times: tuple[list[float], list[float]] = [], []
    for number in range(rounds + warm_up):
        between()
        for which in (0, 1) if number % 2 else (1, 0):
            gc.collect()
            with Peak(device) as peak:
                begun = now()
                sides[which]()
                if device == "cuda":
                    torch.cuda.synchronize()
                taken = now() - begun
            peaks[which] = max(peaks[which], peak.bytes)
            if number >= warm_up:
                times[which].append(taken)
    between()
    return Timing(statistics.median(times[0]), statistics.median(times[1]), *peaks)


def row(
    work: str,
    model: str,
    network: str,
    images: int,
    precision: str,
    timing: Timing,
    agreement: float,
    operations: float,
    device: str,
    **more: Any,
) -> dict[str, Any]:
    """Return a row of the table.

    Args:
        work: the benchmark.
        model: the kind of network: `robust`, `standard`, or `new` for one that is not trained.
        network: its architecture.
        images: the number of images in one round.
        precision: of our side; the reference is always float32.
        timing: of both sides; `ratio` is reference time over ours, so above 1 ours is faster.
        agreement: fraction of images on which both sides come to the same decision.
        operations: floating-point operations of our side in one round; `roofline` is their rate
            over that of a plain matrix product in our precision.
        device: `cpu` or `cuda`.
        more: further columns.
    """
    return {
        "work": work,
        "model": model,
        "network": network,
        "images": images,
        "precision": precision,
        "images_per_second": round(images / timing.ours, 3),
        "reference_images_per_second": round(images / timing.theirs, 3),
        "ratio": round(timing.theirs / timing.ours, 3),
        "agreement": round(agreement, 4),
        "roofline": round(operations / timing.ours / product_rate(device, precision), 3),
        "memory_ratio": round(timing.our_memory / max(1, timing.their_memory), 3),
        **more,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return benchmark rows as a Markdown table, with the machine in a line below it."""
    found = pd.DataFrame(rows)
    place = found[[key for key in MACHINE if key in found]]
    on = [", ".join(map("{}: {}".format, place, line)) for line in place.drop_duplicates().values]
    return "\n".join([markdown_table(found.drop(columns=place.columns)), *on]) + "\n" * bool(on)
