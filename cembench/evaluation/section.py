"""A section of an evaluation: one key of a protocol, and what a record says of it."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

from cembench.evaluation.diff import Comparison, compared
from cembench.evaluation.statistics import Rate
from cembench.util.display.charts import Cell, Chart, Table
from cembench.util.display.format import with_interval
from cembench.util.settings import NonNegative, Settings

C = TypeVar("C")  # its settings in a protocol
R = TypeVar("R")  # its result in a record


class GatedValue(Settings):
    """A number in a baseline, with how much worse it may get.

    Attributes:
        value: the number.
        tolerance: by how much it may get worse.
        better: the direction that counts as better.
    """

    value: float
    tolerance: NonNegative
    better: Literal["higher", "lower"]


class Section(ABC, Generic[C, R]):
    """What is measured under one key of a protocol.

    A file of `evaluation.sections` says what it is, without torch: settings, result, columns,
    charts and tables for reports, and numbers for the gate. The file of the same name in
    `evaluation.measures` computes it, with the functions `measure(config, measurement)`, which
    returns the result, and, if it has columns in the table of verdicts,
    `chunk_columns(config, chunk)`. Where the result has parts that are long and independent, it has
    `share(config, measurement, ranks)` too.

    Attributes:
        key: its key in protocols.
        setting: type and default of that key. The default is false, and measures nothing.
        result_key: its key in records.
        result: type and default of that key.
        always: whether it is measured of each classifier, whatever the protocol says.
        later: keys of its result that records of earlier versions lack.
        optional: whether protocols and records without it leave its key out, as those did that
            were written before there was such a section.
    """

    key: ClassVar[str]
    setting: ClassVar[tuple[Any, Any]]
    result_key: ClassVar[str]
    result: ClassVar[tuple[Any, Any]]
    always: ClassVar[bool] = False
    later: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[bool] = False

    def config(self, protocol: Any) -> C:
        """Return its settings in a protocol."""
        return cast("C", getattr(protocol, self.key))

    def of(self, record: Any) -> R:
        """Return its result in a record."""
        return cast("R", getattr(record, self.result_key))

    def for_encoder(self, config: C) -> C:
        """Return what is measured of a network without logits: nothing, unless it says more."""
        return cast("C", self.setting[1])

    @property
    def measure(self) -> Callable[[C, Any], R]:
        """The function that returns the result, from settings and a `Measurement`."""
        return cast("Callable[[C, Any], R]", self._computes.measure)

    @property
    def chunk_columns(self) -> Callable[[C, Any], dict[str, Any]] | None:
        """The function from settings and a `Chunk` to columns, one value per image, if any."""
        return getattr(self._computes, "chunk_columns", None)

    @property
    def share(self) -> Callable[[C, Any, Any], None]:
        """The function that several processes call, with settings, a `Measurement` and a `World`.

        Each of them computes parts of the result that no other one does, into the cache, where
        `measure` finds them.
        """
        return getattr(self._computes, "share", _nothing_to_share)

    @property
    def _computes(self) -> Any:
        return import_module(type(self).__module__.replace(".sections.", ".measures."))

    def compare(self, recorded: R, again: R) -> list[Comparison]:
        """Compare a recorded result with the same result computed again."""
        return compared(self.result_key, recorded, again, self.later)

    def columns(self, result: R) -> dict[str, Any]:
        """Return its columns in a leaderboard of networks, by name."""
        return {}

    def panels(self, records: Mapping[str, Any]) -> list[Chart]:
        """Return charts and tables that compare records, which are given by the names of runs."""
        return []

    def details(self, result: R) -> list[Table]:
        """Return tables on one record."""
        return []

    def gated(self, result: R) -> dict[str, GatedValue]:
        """Return the numbers that a baseline keeps, each with its customary tolerance."""
        return {}


def _nothing_to_share(config: object, measurement: object, ranks: object) -> None:
    """Leave everything to the first process."""


def rate_cells(found: Rate) -> list[Cell]:
    """Return an accuracy with its interval, and its count, as cells of a table."""
    text = with_interval(found.accuracy, found.low, found.high, ".1%")
    return [Cell.of(found.accuracy, text), Cell(f"{found.correct} of {found.images}")]
