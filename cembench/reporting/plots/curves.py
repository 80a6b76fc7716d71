"""The curve of a record: accuracy under attack over ε, as the picture beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cembench.evaluation.record import Record
from cembench.evaluation.sections import curve
from cembench.evaluation.sections.curve import CurvePoint
from cembench.reporting.plots.lines import draw_lines
from cembench.reporting.plots.style import render
from cembench.util.files import write_bytes
from cembench.util.files.layout import RunLayout
from cembench.util.stages import stage


def radii(curves: Mapping[str, Sequence[CurvePoint]], eps: float, title: str = "") -> Figure:
    """Draw accuracy under attack over ε with 95 % bands, and the threat model's radius `eps`."""
    return draw_lines([curve.lines(curves, eps, title)], 1)


def write_missing_curves(records: Mapping[Path, Record]) -> list[Path]:
    """Write the pictures of records that have none, or one of an earlier record; return them."""
    stale = {path: record for path, record in records.items() if _stale(path)}
    return [picture for one in stale.items() if (picture := write_curve(*one)) is not None]


def _stale(record: Path) -> bool:
    picture = RunLayout.curve(record)
    return not picture.exists() or picture.stat().st_mtime < record.stat().st_mtime


def write_curve(path: Path, record: Record) -> Path | None:
    """Write `NAME.curve.png` beside the record `NAME.json` and return its path.

    A record without a curve gets none, and None is returned.
    """
    if not record.curve:
        return None
    title = f"{record.run}, {record.dataset}, {record.threat.norm}"
    picture = RunLayout.curve(path)
    with stage("figures"):
        figure = radii({record.run: record.curve}, record.threat.eps, title)
        write_bytes(picture, render(figure, "png"))
    return picture
