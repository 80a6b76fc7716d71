"""Display of a record in Python: one line, tables for notebooks, and a data frame."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from cembench.evaluation.sections import SECTIONS
from cembench.util.display.charts import Cell, Table
from cembench.util.display.html import html_table

if TYPE_CHECKING:
    import pandas as pd


def rates(record: Any) -> str:
    """Return its accuracies, and the medians of smallest perturbations."""
    found = [*record.accuracies.items(), *record.minimal.items()]
    return ", ".join(f"{name} {one.text}" for name, one in found)


def line(record: Any) -> str:
    """Return the run, what it was measured on, and its accuracies."""
    failed = ", ".join(record.sanity_failed)
    result = (
        record.error
        or f"{rates(record) or 'samples alone'}{'; failed checks: ' * bool(failed)}{failed}"
    )
    plan = record.protocol.get("name")
    return f"<Record {record.run} on {record.dataset}, {record.threat}, {plan}: {result}>"


def page(record: Any) -> str:
    """Return the line and the tables of all sections as HTML."""
    shown = [table for section in SECTIONS for table in section.details(section.of(record))]
    return f"<p>{escape(line(record))}</p>" + "".join(map(_html, shown))


def frame(record: Any) -> pd.DataFrame:
    """Return a row for each accuracy: images, correct ones, accuracy, and its interval."""
    import pandas as pd

    columns = ("accuracy", "low", "high", "correct", "images")
    rows = {
        name: {column: getattr(rate, column) for column in columns}
        for name, rate in record.accuracies.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns))


def _html(table: Table) -> str:
    rows = (map(_text, row) for row in table.rows)
    return f"<h4>{escape(table.title)}</h4>{html_table(table.head, rows)}"


def _text(cell: Cell) -> str:
    apart = cell.note and not cell.note.startswith("±")  # an interval, or whose value it is
    return f"{cell.text} ({cell.note})" if apart else f"{cell.text} {cell.note}".strip()
