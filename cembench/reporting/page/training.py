"""Training history: loss and validation metrics over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cembench.reporting.history import History
from cembench.util.display.charts import Axis, Chart, Lines, Series

METRIC = "val_"
CAPTION = (
    "Loss and validation metrics per epoch. Losses of different methods are different objectives: "
    "their values cannot be compared."
)


def training(histories: Mapping[str, History]) -> list[Chart]:
    """Return the histories of runs, a panel per validation metric and one for the loss."""
    if not histories:
        return []
    columns = [column for history in histories.values() for column in history]
    metrics = dict.fromkeys(column for column in columns if column.startswith(METRIC))
    panels = [_panel(histories, column) for column in (*metrics, "loss")]
    return [Chart("training", "Training", CAPTION, panels, columns=3)]


def _panel(histories: Mapping[str, History], column: str) -> Lines:
    series = [_series(name, history, column) for name, history in histories.items()]
    x, y = Axis("epoch", integer=True), Axis(percent=column.endswith("acc"))
    return Lines(series, x, y, _title(column))


def _series(name: str, history: History, column: str) -> Series:
    if column not in history:
        return Series(name, [], [])
    pairs = zip(history["epoch"], history[column], strict=True)
    known = [pair for pair in pairs if not math.isnan(pair[1])]  # some epochs have no validation
    return Series(name, [epoch for epoch, _ in known], [value for _, value in known])


def _title(column: str) -> str:
    if column == "loss":
        return "training loss"
    words = column.removeprefix(METRIC).removesuffix("_acc").replace("_", " ")
    return f"validation: {words}" + (", %" if column.endswith("_acc") else "")
