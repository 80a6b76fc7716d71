"""Tables as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as markdown, with vertical bars in cells escaped."""
    escaped = [[str(cell).replace("|", "\\|") for cell in row] for row in table.to_numpy()]
    lines = [list(table.columns), ["---"] * len(table.columns), *escaped]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
