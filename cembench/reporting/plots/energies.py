"""What a network says of p(x): LSE f(x, ·) on several kinds of images."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from cembench.evaluation.results import MeanStd
from cembench.reporting.plots.style import COLOURS, INK, fit_titles, name, panels, styled

KINDS = {"clean": COLOURS[0], "pgd": COLOURS[1], "ta": COLOURS[4], "noise": COLOURS[6]}


@styled
def energies(found: Mapping[str, Mapping[str, MeanStd]]) -> Figure:
    """Draw mean and deviation on each kind of images, a panel a run.

    What they differ from the mean on clean images by is shown: log Z of each network is unknown.
    """
    kinds = list(dict.fromkeys(kind for spreads in found.values() for kind in spreads))
    figure, places = panels(len(found), 3, 2.5, 0.62 + 0.19 * len(kinds))
    titles = []
    for number, (axes, (run, spreads)) in enumerate(zip(places, found.items(), strict=True)):
        zero = spreads["clean"].mean if "clean" in spreads else 0.0
        axes.axvline(0, color=INK, alpha=0.5, linewidth=0.8)
        for row, kind in enumerate(kinds):
            if kind in spreads:
                _dot(axes, row, spreads[kind], zero, _colour(kind))
        titles.append(axes.set_title(name(run)))
        axes.set_yticks(range(len(kinds)), [name(k) for k in kinds] if number % 3 == 0 else [])
        axes.set_ylim(len(kinds) - 0.5, -0.5)
        axes.tick_params("y", length=0)
    figure.supxlabel("LSE f(x, ·) above its mean on clean images, ± 1 deviation", fontsize=9)
    fit_titles(figure, titles)
    return figure


def _dot(axes, row: int, spread: MeanStd, zero: float, colour: str) -> None:  # type: ignore[no-untyped-def]
    middle = spread.mean - zero
    ends = (middle - spread.std, middle + spread.std)
    axes.plot(ends, [row, row], color=colour, alpha=0.45, linewidth=3.2, solid_capstyle="butt")
    axes.plot([middle], [row], "o", color=colour)


def _colour(kind: str) -> str:
    """Return what tells images, their attacked copies, strangers, samples and seeds apart."""
    return KINDS.get(kind, COLOURS[5] if kind.endswith(" seeds") else COLOURS[2])
