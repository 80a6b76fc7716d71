"""Tables without None: the same under every version of pandas.

A data frame turns None into NaN or keeps it, as its type and the version of pandas have it, and NaN
is true where None is false. So tables are made here, and cells are asked with `missing` or `says`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from cembench.util.display.format import missing


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table; what a row lacks is an empty text in columns of text, else NaN."""
    known = list(rows)
    columns = dict.fromkeys(key for row in known for key in row)
    return pd.DataFrame({key: _filled([row.get(key) for row in known]) for key in columns})


def says(column: pd.Series) -> bool:
    """Return whether any row has something in a column."""
    return not all(map(missing, column))


def _filled(cells: list[Any]) -> list[Any]:
    empty = "" if any(isinstance(cell, str) for cell in cells) else math.nan
    return [empty if missing(cell) else cell for cell in cells]
