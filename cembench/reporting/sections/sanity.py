"""Checks for gradient masking as a table."""

from __future__ import annotations

from cembench.evaluation.record import Record
from cembench.util.charts import Cell, Table
from cembench.util.format import number

MARKS = {"fail": "error"}


def details(record: Record) -> list[Table]:
    """Return the table of checks, one row per check."""
    rows = [
        [
            Cell(check.name),
            Cell(check.verdict, mark=MARKS.get(check.verdict, "")),
            Cell.of(check.figure, number(check.figure)),
            Cell(check.meaning),
        ]
        for check in record.sanity
    ]
    return [Table("Sanity checks", ["check", "verdict", "value", "meaning"], rows)] if rows else []
