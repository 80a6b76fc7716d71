"""Names of columns as people type them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cembench.util.errors import CembenchError
from cembench.util.settings import nearest


def resolve(name: str, columns: Iterable[str]) -> str:
    """Return the column that a name means.

    It is the name of the column; or that of an attack, for its accuracy: `pgd` for `pgd_acc`. In
    both, `_` may stand for any character that names in expressions cannot have:
    `autoattack_fast` for `autoattack-fast_acc`.

    Raises:
        CembenchError: when no column, or more than one, is meant; it says the nearest.
    """
    known = list(columns)
    for form in (name, f"{name}_acc"):
        if form in known:
            return form
    for form in (name, f"{name}_acc"):
        found = [column for column in known if as_typed(column) == form]
        if len(found) > 1:
            raise CembenchError(f"'{name}' may be {', '.join(found)}; write it between backquotes")
        if found:
            return found[0]
    raise CembenchError(f"no record has the column '{name}'; {nearest(name, known)}")


def as_typed(column: str) -> str:
    """Return the name of a column with `_` for what a name in an expression cannot have."""
    return re.sub(r"\W|^(?=\d)", "_", column)
