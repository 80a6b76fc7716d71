"""Listings: lists of results that are shown as a table, in a console and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cembench.util.display.html import html_table
from cembench.util.display.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Shown = Mapping[str, Sequence[object]]  # cells by heading


class Listing(list[T]):
    """A list with a table of what it holds.

    Args:
        items: the results.
        shown: returns the table for people.
    """

    def __init__(self, items: Iterable[T], shown: Callable[[Sequence[T]], Shown]) -> None:
        super().__init__(items)
        self._table = shown

    def shown(self) -> pd.DataFrame:
        """Return the table for people, as text."""
        import pandas as pd

        return pd.DataFrame(self._table(self))

    def to_frame(self) -> pd.DataFrame:
        """Return all values, numbers as they are, one row for each result."""
        import pandas as pd

        return pd.DataFrame([_values(item) for item in self])

    def __repr__(self) -> str:
        return "\n".join(text_table(*self._cells()))

    def _repr_html_(self) -> str:
        return html_table(*self._cells())

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows of the table for people."""
        table = self._table(self)
        return [*table], [list(map(str, row)) for row in zip(*table.values(), strict=True)]


def _values(item: Any) -> dict[str, Any]:
    dump = getattr(item, "dump", None)
    return dump() if dump is not None else dict(vars(item))
