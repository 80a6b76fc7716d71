"""Tables as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cembench.util.files.names import shown

if TYPE_CHECKING:
    import pandas as pd


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as markdown, with vertical bars and what cannot be shown escaped."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(value: object) -> str:
    return shown(str(value)).replace("|", "\\|")
