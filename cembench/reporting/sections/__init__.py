"""Sections of a protocol as boards, the page and `cembench plot` show them.

A section turns records into data alone: values, `Chart`s and `Table`s. Boards, the page and the
plots take what all `SECTIONS` give, in their order, so that a further section is one module and one
line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cembench.evaluation.record import Record
from cembench.reporting.sections import curve, density, robustness, samples, sanity
from cembench.util.charts import Chart, Table


@dataclass(frozen=True)
class Section:
    """What a section of a protocol gives to reports.

    Attributes:
        name: its name in a protocol; `robustness` for the attacks.
        columns: of a record, by name of the column of the CSV file.
        panels: charts and tables that compare records, which are given by the names of their runs.
        details: tables on one record.
    """

    name: str
    columns: Callable[[Record], dict[str, Any]] = lambda record: {}
    panels: Callable[[Mapping[str, Record]], Sequence[Chart]] = lambda records: ()
    details: Callable[[Record], Sequence[Table]] = lambda record: ()


SECTIONS = (
    Section("robustness", columns=robustness.columns, details=robustness.details),
    Section("sanity", details=sanity.details),
    Section("samples", columns=samples.columns, details=samples.details),
    Section("curve", panels=curve.panels, details=curve.details),
    Section("density", columns=density.columns, panels=density.panels, details=density.details),
)
