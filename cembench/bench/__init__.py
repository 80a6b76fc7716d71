"""Our work beside a plain reference loop: same process, same data, interleaved, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pandas as pd
import torch

from cembench.data import DataSettings
from cembench.data.split import Split
from cembench.leaderboard.board import markdown_table

SHAPE, CLASSES = (3, 32, 32), 10
EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 10


class RandomImages(DataSettings):
    """Noise of CIFAR-10's shape: the cost of a step does not depend on what is in the images."""

    name: ClassVar[str] = "random"
    count: int = 256

    def load(self, split: Literal["train", "test"]) -> Split:
        """Return the same noise each time."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (self.count, *SHAPE), generator=generator)
        labels = torch.arange(self.count) % CLASSES
        return Split(images.byte(), labels, tuple("0123456789"))


def interleaved(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, device: str
) -> tuple[float, float]:
    """Return the median seconds of two functions called in turn, in swapped order each round."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            begun = time.perf_counter()
            (ours, theirs)[which]()
            if device == "cuda":
                torch.cuda.synchronize()
            if number > 0:
                times[which].append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def row(
    work: str, model: str, batch: int, precision: str, ours: float, theirs: float
) -> dict[str, Any]:
    """Return a row of the table; `ratio` is reference time over ours, so above 1 ours is faster."""
    return {
        "work": work,
        "model": model,
        "batch": batch,
        "precision": precision,
        "images_per_second": round(batch / ours, 2),
        "reference_images_per_second": round(batch / theirs, 2),
        "ratio": round(theirs / ours, 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return bench rows as a markdown table."""
    return markdown_table(pd.DataFrame(rows))
