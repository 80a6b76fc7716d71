"""Exit codes of commands: one table for their help, the documentation and what they return."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from cembench.util.stopping import ENDINGS, TEMPORARY_FAILURE

DONE, FOUND, FAILED = 0, 1, 2
CLOSED = 141  # as a shell says of SIGPIPE
MEANINGS = {DONE: "done", FAILED: "a mistake or an error, told in one line on stderr"}
SIGNALS = {ending.code: signal.Signals(number).name for number, ending in ENDINGS.items()}


def codes_of(own: Mapping[int, str]) -> dict[int, str]:
    """Return the codes of a command that it decides itself; `own` says more of some of them."""
    return dict(sorted({**MEANINGS, **own}.items()))


def rows(own: Mapping[int, str]) -> list[tuple[str, str]]:
    """Return the codes of a command as rows of a table, those of signals in one row."""
    told = [(str(code), meaning) for code, meaning in codes_of(own).items()]
    ended = f"ended by {', '.join(SIGNALS.values())}"
    again = f"; after {TEMPORARY_FAILURE} start it again" if TEMPORARY_FAILURE in SIGNALS else ""
    return [*told, (", ".join(map(str, SIGNALS)), ended + again)]
