"""Tables as Markdown, in which names stay text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cembench.util.files.names import shown

if TYPE_CHECKING:
    import pandas as pd

# Emphasis, code, links, HTML, cells, formulas. Backslashes and underscores only where they mean
# something, so that names such as worst_case stay as they are. JavaScript reads it in the same way.
SPECIAL = r"[`*[<>|~$]|\\(?=[!-/:-@[-`{-~])|&(?=#?\w+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
NAMED = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def markdown_text(text: object) -> str:
    r"""Return a text for one line of Markdown that is rendered as it is.

    What cannot be shown becomes an escape such as `\x1b`, and so does a line break.
    """
    return re.sub(
        SPECIAL, lambda found: NAMED.get(found[0], f"\\{found[0]}"), shown(str(text)), flags=re.A
    )


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as Markdown whose cells are rendered as they are."""
    rule = ["---"] * len(table.columns)
    cells = [[markdown_text(cell) for cell in row] for row in (table.columns, *table.to_numpy())]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])) + "\n"
