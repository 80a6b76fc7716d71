"""Tables as LaTeX, in which names stay text."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import TYPE_CHECKING

from cembench.util.files.names import shown

if TYPE_CHECKING:
    import pandas as pd

NAMED = {
    **{letter: f"\\{letter}" for letter in "{}$&#%_"},
    **{letter: f"{{{letter}}}" for letter in '[*"'},  # behind \\ the first two would be arguments
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "…": r"\dots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "★": r"$\star$",
    "⚠": r"$\triangle$",
    "ε": r"$\varepsilon$",
}
SPECIAL = f"[{re.escape(''.join(NAMED))}]"


def latex_text(text: object) -> str:
    r"""Return a text for LaTeX that is typeset as it is.

    What cannot be shown becomes an escape such as `\x1b`, and so does a line break.
    """
    return re.sub(SPECIAL, lambda found: NAMED[found[0]], shown(str(text)))


def latex_table(table: pd.DataFrame, numeric: Container[str] = ()) -> str:
    """Return a table as a `tabular` with the rules of the package booktabs.

    Args:
        table: its cells and headings are text.
        numeric: columns that are aligned to the right.
    """
    places = "".join("r" if column in numeric else "l" for column in table.columns)
    head, *rows = [
        f"{' & '.join(map(latex_text, row))} \\\\" for row in (table.columns, *table.to_numpy())
    ]
    lines = [f"\\begin{{tabular}}{{{places}}}", r"\toprule", head, r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
