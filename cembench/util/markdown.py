"""Tables and intervals as markdown."""

from __future__ import annotations

import pandas as pd


def interval(value: float | None, low: float, high: float, form: str = "{:.3g}") -> str:
    """Return `value (low to high)`, or a dash where there is none."""
    if value is None or pd.isna(value):
        return "–"
    return f"{form.format(value)} ({form.format(low)} to {form.format(high)})"


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as markdown, with vertical bars in cells escaped."""
    escaped = [[str(cell).replace("|", "\\|") for cell in row] for row in table.to_numpy()]
    lines = [list(table.columns), ["---"] * len(table.columns), *escaped]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
