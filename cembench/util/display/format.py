"""Numbers as text for people: a value, percent, a value with its error or its interval.

`form` is a format specification of Python, such as `.3g` or `.1%`. Where there is no value, None or
NaN, all of these return a dash; where its error or interval is missing, the value alone.
"""

from __future__ import annotations

NOTHING = "–"


def missing(value: object) -> bool:
    """Return whether a cell is empty: None, NaN, or a text of no letters."""
    return value is None or value != value or value == ""


def number(value: float | None, form: str = ".3g") -> str:
    """Return a number; with its sign where the form begins with `+`."""
    return NOTHING if missing(value) else f"{value:{form}}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a proportion in percent: `82.4%`."""
    return number(value, f".{digits}%")


def interval(low: float, high: float, form: str = ".3g") -> str:
    """Return the ends of an interval: `0.1 to 0.5`, in percent `77.3%–86.6%`."""
    return f"{low:{form}}{'–' if form.endswith('%') else ' to '}{high:{form}}"


def with_interval(value: float | None, low: float, high: float, form: str = ".3g") -> str:
    """Return a value and its interval: `0.3 (0.1 to 0.5)`, in percent `82.4% (77.3%–86.6%)`."""
    alone = number(value, form)
    known = not (missing(value) or missing(low) or missing(high))
    return f"{alone} ({interval(low, high, form)})" if known else alone


def with_error(value: float | None, error: float | None, form: str = ".3g") -> str:
    """Return a value and its error or deviation: `1.07 ± 0.093`, in percent `50.0 ± 10.0 %`."""
    if value is None or error is None or missing(value) or missing(error):
        return number(value, form)
    if form.endswith("%"):
        return f"{100 * value:{form[:-1]}f} ± {100 * error:{form[:-1]}f} %"
    return f"{value:{form}} ± {error:.2g}"


def byte_size(count: float) -> str:
    """Return a number of bytes, in MB or GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def roughly(seconds: float) -> str:
    """Return a duration without digits that nobody can know: `about 3 min`."""
    if seconds < 45:
        return "less than a minute"
    minutes = seconds / 60
    if minutes < 90:
        step = 1 if minutes < 10 else 5
        return f"about {max(1, round(minutes / step)) * step} min"
    hours = minutes / 60
    if hours < 36:
        return f"about {round(hours)} h"
    days = hours / 24
    return f"about {days:.0f} days" if days < 700 else f"about {days / 365:,.0f} years"
