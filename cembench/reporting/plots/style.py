"""Look of all charts: one figure serves a page in light or dark, and a paper."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from cembench.util.display.charts import Axis

INK = "#1c2430"  # text and frames; a page replaces it by the colour of its own text
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
NAMED, LONGEST = 28, 26  # lines that a legend can tell apart; letters of a name
NARROWEST = 3.8  # inches of a figure: room for the label below all panels
Format = Literal["png", "svg", "pdf"]
METADATA: dict[Format, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
LOOK: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    "text.parse_math": False,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "errorbar.capsize": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
}


class Margins(NamedTuple):
    """Room around each axes, in inches."""

    left: float
    right: float
    bottom: float
    top: float

    def shares(self, width: float, height: float, rows: int, columns: int) -> dict[str, float]:
        """Return the same as matplotlib takes it, for a figure of so many inches."""
        across, up = self.left + self.right, self.bottom + self.top
        return {
            "left": self.left / width,
            "right": 1 - self.right / width,
            "bottom": self.bottom / height,
            "top": 1 - self.top / height,
            "wspace": across / (width / columns - across),
            "hspace": up / (height / rows - up),
        }


@contextmanager
def look(**changes: Any) -> Iterator[None]:
    """Draw in this look, whatever the user's own configuration of matplotlib says.

    `@look()` makes a function draw in it.
    """
    with style.context(["default", LOOK | changes]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def render(figure: Figure, form: Format, page: str = "") -> bytes:
    """Return a figure as a file, the same each time.

    For a page text stays text, nothing is behind it, and ids are those of the name that is given.
    """
    stream = io.BytesIO()
    embedded = {"svg.hashsalt": page, "svg.fonttype": "none", "savefig.facecolor": "none"}
    with look(**(embedded if page else {"svg.hashsalt": "cembench"})):
        figure.savefig(stream, format=form, dpi=200, metadata=METADATA[form])
    return stream.getvalue()


def grid(
    count: int, columns: int, width: float, height: float, margins: Margins | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many axes, in rows of at most `columns`, each of so many inches.

    Margins around the axes take half the time that it takes to find out which fit.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    inches = (max(columns * width, NARROWEST), rows * height)
    figure = Figure(figsize=inches, layout=None if margins else "constrained")
    if margins is not None:
        figure.subplots_adjust(**margins.shares(*inches, rows, columns))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def fit_titles(figure: Figure, titles: Sequence[Text]) -> None:
    """Cut titles of panels off before the next panel and the edge of the figure.

    This lays the figure out once: titles of axes with a fixed aspect get their room only when it
    is laid out a second time, as it is drawn.
    """
    figure.draw_without_rendering()
    boxes = [title.axes.bbox for title in titles if title.axes is not None]
    for title, own, following in zip(titles, boxes, [*boxes[1:], None], strict=True):
        beside = following is not None and following.y0 == own.y0
        edge = following.x0 if following is not None and beside else figure.bbox.x1
        _cut(title, edge - 8)  # browsers set letters a little wider


def _cut(text: Text, edge: float) -> None:
    first, *rest = text.get_text().split("\n")
    while text.get_window_extent().x1 > edge and len(first) > 2:
        first = f"{first[:-2]}…"
        text.set_text("\n".join([first, *rest]))


def part(number: int) -> str:
    """Return the id of everything that is drawn of the n-th thing."""
    return f"part-{number}"


def colour(number: int) -> str:
    """Return the colour of the n-th thing."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Return the marker of the n-th thing."""
    return MARKERS[number % len(MARKERS)]


def dash(number: int) -> str:
    """Return the line style of the n-th thing: another one once the colours are used up."""
    return DASHES[number // len(COLOURS) % len(DASHES)]


def name(text: str, longest: int = LONGEST) -> str:
    """Return a name as a chart can show it: without control characters, and cut to a length."""
    unknown = "\N{REPLACEMENT CHARACTER}"
    plain = "".join(letter if letter.isprintable() else unknown for letter in text)
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def upright(axes: Axes, x: float, text: str) -> None:
    """Draw a vertical reference line with its name above it."""
    axes.axvline(x, color=INK, alpha=0.5, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "annotation_clip": False}
    place |= {"textcoords": "offset points", "ha": "center", "va": "bottom"}
    axes.annotate(text, (x, 1), (0, 2), fontsize=8, alpha=0.8, **place)


def scale(axis: Axis) -> float:
    """Return what values of an axis are multiplied by: 100 for percent."""
    return 100 if axis.percent else 1


def label(axis: Axis) -> str:
    """Return the label of an axis, with its unit and its better direction."""
    arrow = {"": "", "lower": "   ← better", "higher": "   better →"}[axis.better]
    return f"{axis.label}{', %' if axis.percent and axis.label else ''}{arrow}"


def legend(figure: Figure, lines: Mapping[str, Artist]) -> None:
    """Draw a legend to the right of a figure, unless it has more lines than can be told apart."""
    if 1 < len(lines) <= NAMED:
        numbers = [str(number) for number in range(len(lines))]
        made = figure.legend([*lines.values()], numbers, loc="outside right upper")
        for text, run in zip(made.get_texts(), lines, strict=True):
            text.set_text(name(run))  # as labels, names that begin with _ would be left out
