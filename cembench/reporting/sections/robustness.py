"""Accuracies under attack as columns and a table."""

from __future__ import annotations

from typing import Any

from cembench.evaluation.record import Record
from cembench.evaluation.statistics import Rate
from cembench.util.charts import Cell, Table
from cembench.util.format import NOTHING, number, percent, with_interval


def columns(record: Record) -> dict[str, Any]:
    """Return each accuracy with its interval, and for 8-bit images."""
    row: dict[str, Any] = {}
    for name, figure in record.figures.items():
        row[f"{name}_acc"] = figure.accuracy
        row[f"{name}_acc_low"], row[f"{name}_acc_high"] = figure.low, figure.high
        row[f"{name}_acc_8bit"] = figure.accuracy_8bit
    return row


def details(record: Record) -> list[Table]:
    """Return the table of accuracies, one row per attack."""
    rows = []
    for name, figure in record.figures.items():
        won = ", ".join(f"{stage} {count}" for stage, count in figure.won.items())
        bits = f"{percent(figure.accuracy_8bit)} ({figure.correct_8bit} of {figure.images})"
        cells = [Cell(name), *rate(figure), Cell.of(figure.accuracy_8bit, bits)]
        seconds = Cell.of(figure.seconds, number(figure.seconds, ".1f") + " s")
        rows.append([*cells, Cell(won or NOTHING), seconds])
    head = ["attack", "accuracy", "correct", "8-bit images", "successes per stage", "time"]
    note = "With 95 % Wilson intervals. Successes: images that a stage was the first to break."
    return [Table("Accuracy", head, rows, note)] if rows else []


def rate(found: Rate) -> list[Cell]:
    """Return an accuracy with its interval, and its count."""
    text = with_interval(found.accuracy, found.low, found.high, ".1%")
    return [Cell.of(found.accuracy, text), Cell(f"{found.correct} of {found.images}")]
