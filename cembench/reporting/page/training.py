"""Training history: loss and validation metrics over epochs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cembench.util.display.charts import Axis, Chart, Lines, Series

METRIC = "val_"
CAPTION = (
    "Loss and validation metrics per epoch. Losses of different methods are different objectives: "
    "their values cannot be compared."
)


def training(frames: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Return the histories of runs, a panel per validation metric and one for the loss."""
    if not frames:
        return []
    columns = [str(column) for frame in frames.values() for column in frame]
    metrics = dict.fromkeys(column for column in columns if column.startswith(METRIC))
    panels = [_panel(frames, column) for column in (*metrics, "loss")]
    return [Chart("training", "Training", CAPTION, panels, columns=3)]


def _panel(frames: Mapping[str, pd.DataFrame], column: str) -> Lines:
    series = [
        Series(name, frame["epoch"].tolist(), frame[column].tolist())
        if column in frame
        else Series(name, [], [])
        for name, frame in frames.items()
    ]
    x, y = Axis("epoch", integer=True), Axis(percent=column.endswith("acc"))
    return Lines(series, x, y, _title(column))


def _title(column: str) -> str:
    if column == "loss":
        return "training loss"
    words = column.removeprefix(METRIC).removesuffix("_acc").replace("_", " ")
    return f"validation: {words}" + (", %" if column.endswith("_acc") else "")
