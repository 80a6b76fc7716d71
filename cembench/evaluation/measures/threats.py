"""Attacks under several threat models, and the images that survive all of them."""

from __future__ import annotations

from cembench.evaluation.chunk import Chunk, Columns
from cembench.evaluation.measure import Measurement
from cembench.evaluation.measures import curve, robustness
from cembench.evaluation.measures.counts import count
from cembench.evaluation.sections.curve import CurvePoint
from cembench.evaluation.sections.robustness import Figure
from cembench.evaluation.sections.threats import AttackedThreat, Threats, UnderThreat

NO_ATTACK = ("clean", "worst_case")  # figures that are not of one attack


def chunk_columns(config: list[AttackedThreat], chunk: Chunk) -> Columns:
    """Return what `robustness` and `curve` do, under each threat model but the record's.

    The names of the columns begin with that of the threat model: `l2-0.5 pgd_broken`.
    """
    columns: Columns = {}
    for threat in config[1:]:
        there = chunk.under(threat)
        found = robustness.chunk_columns(there.protocol.attacks, there)
        there.columns |= found
        if there.protocol.curve is not None:
            found |= curve.chunk_columns(there.protocol.curve, there)
        columns |= found
    return columns


def measure(config: list[AttackedThreat], measurement: Measurement) -> Threats:
    """Count the table of verdicts under each threat model, and image by image under all."""
    first, *others = config
    under = {first.slug: _found(first, measurement.results["figures"])}
    titles = [title for title in measurement.results["figures"] if title not in NO_ATTACK]
    for threat in others:
        there = measurement.under(threat)
        protocol = there.protocol
        figures = robustness.measure(protocol.attacks, there)
        points = [] if protocol.curve is None else curve.measure(protocol.curve, there)
        titles += [title for title in figures if title not in NO_ATTACK]
        own = {title.removeprefix(f"{threat.slug} "): found for title, found in figures.items()}
        under[threat.slug] = _found(threat, own, points)
    tried = all(found.figures for found in under.values())
    classes = measurement.context.split.classes
    union = count(measurement.table, titles, {}, classes)["worst_case"] if tried else None
    return Threats(under=under, union=union)


def _found(
    threat: AttackedThreat, figures: dict[str, Figure], points: list[CurvePoint] | None = None
) -> UnderThreat:
    return UnderThreat(
        norm=threat.norm,
        eps=threat.eps,
        figures={name: figure for name, figure in figures.items() if name != "clean"},
        seconds=round(sum(figure.seconds for figure in figures.values()), 3),
        curve=points or [],
    )
