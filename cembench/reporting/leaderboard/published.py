"""Published results, shown apart from measured ones and never ranked with them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from importlib.resources import files

import pandas as pd

from cembench.reporting.leaderboard.board import Board

HEADINGS = {
    "dataset": "data",
    "threat": "threat",
    "architecture": "network",
    "extra_data": "extra data",
    "clean": "clean ↑",
    "autoattack": "autoattack ↑",
    "fid": "FID ↓",
    "inception_score": "IS ↑",
    "date": "as of",
}


def published_board(datasets: Iterable[str]) -> Board | None:
    """Return the published results of some data sets, cells as their sources have them.

    Args:
        datasets: their titles; `cifar10-jpeg` is a kind of `cifar10`.

    Returns:
        A board; None where nothing is known.
    """
    table, titles = published(), list(datasets)
    known = {name for name in table["dataset"] if any(is_a(title, name) for title in titles)}
    table = table[table["dataset"].isin(known)].reset_index(drop=True)
    if table.empty:
        return None
    shown = table.replace("", "–").rename(columns=HEADINGS)
    title = (
        f"{', '.join(sorted(known))}: published results, reported, not re-run; accuracies in "
        "percent, on all test images"
    )
    return Board("published", title, table, shown.assign(note=table["note"]))


def published() -> pd.DataFrame:
    """Return every published result that comes with cembench, cells as text."""
    file = files("cembench.reporting.leaderboard") / "published.csv"
    return pd.read_csv(io.BytesIO(file.read_bytes()), dtype=str, keep_default_na=False)


def is_a(title: str, name: str) -> bool:
    """Return whether a data set is of a kind: `cifar10-jpeg` is a `cifar10`."""
    return re.match(rf"{re.escape(name)}(?![A-Za-z0-9])", title) is not None
