"""Comparison from Python: records with each other, with their evidence, and with a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cembench.api.arguments import checked
from cembench.evaluation.gate.check import check as check_baseline
from cembench.evaluation.gate.evaluator import Evaluator
from cembench.evaluation.gate.gate import Outcome
from cembench.evaluation.record import Record
from cembench.interop.hub.cache import local, placed_row
from cembench.interop.hub.manifest import Part
from cembench.util.display.listing import Listing
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.evaluation.compare import Difference
    from cembench.evaluation.compare.seeds import SeedDifference
    from cembench.evaluation.compare.tables import compare as compare_named
    from cembench.evaluation.diff import Comparison
    from cembench.evaluation.diff import shown as recomputed
    from cembench.evaluation.gate.report import shown as outcome_table
    from cembench.evaluation.verify import verify_record
    from cembench.reporting.leaderboard import find_records
    from cembench.reporting.leaderboard.verify_table import compare_table
    from cembench.reporting.plots.curves import write_curve
    from cembench.util.devices import pick_device


@checked
def compare(
    first: str | Path | Record, second: str | Path | Record, protocol: str | None = None
) -> Listing[Difference] | Listing[SeedDifference]:
    """Compare two records image by image (McNemar's test), or two experiments over seeds.

    Args:
        first: a record, its file, a run folder or its address; an experiment is the path of its
            runs without the `.s0` of the first.
        second: what to compare it with.
        protocol: name of the records, if folders hold several.

    Returns:
        One difference per figure, second minus first, with its 95 % interval; `to_frame()` is a
        data frame. A notebook shows a table.

    Raises:
        CembenchError: when something is missing, or was not measured on the same images in the same
            way.
    """
    return compare_named(_record("first", first), _record("second", second), protocol)


@checked
def verify(
    claim: str | Path,
    *proofs: str | Path,
    device: str = "auto",
    data_root: str | None = None,
    inception_weights: str | Path | None = None,
) -> Listing[Comparison]:
    """Recompute a record from its evidence, or a table from runs that were made again.

    Args:
        claim: the file of a record, or of a table (`.csv`).
        proofs: the checkpoint of the record; run folders, folders of them, collections
            or addresses.
        device: where to compute.
        data_root: where the data lies now.
        inception_weights: weights for the extractors `inception` and `dinov2`.

    Returns:
        How many values agree, then each that differs; `agrees` says which one does.

    Raises:
        CembenchError: when evidence is missing or of another checkpoint.
    """
    path, places = Path(claim), [local(proof, Part.ALL) for proof in proofs]
    weights = None if inception_weights is None else Path(inception_weights)
    if path.suffix == ".csv" and places:
        rows = compare_table(path, find_records(places).values())
    elif len(places) == 1:
        rows = verify_record(path, places[0], pick_device(device), weights, data_root)
    else:
        raise CembenchError(f"{claim}: a record is of one checkpoint, a table of runs; give them")
    return Listing(rows, recomputed)


@checked
def check(
    baseline: str | Path,
    checkpoints: Sequence[str | Path] = (),
    *,
    allow_changed_software: bool = False,
    allow_unchecked: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    data_root: str | None = None,
    inception_weights: str | Path | None = None,
) -> Listing[Outcome]:
    """Compare checkpoints with a baseline, figure by figure.

    Args:
        baseline: the file that `cembench check --update` wrote.
        checkpoints: run folders, files, addresses, or `NAME=FILE` for the row of that name; those
            that the baseline names unless given.
        allow_changed_software: compare also when rows were measured with other versions.
        allow_unchecked: let rows pass without sanity checks.
        out: the folder of records; beside the checkpoints unless given.
        device: where to compute.
        data_root: where the data lies now.
        inception_weights: weights for the extractors `inception` and `dinov2`.

    Returns:
        One outcome per figure; `outcome.passes` says whether it needs no attention.

    Raises:
        CembenchError: when something is missing or cannot be evaluated, or when protocol, images
            or software are not those that a row was measured under.
    """
    evaluator = Evaluator(
        device,
        data_root,
        None if inception_weights is None else Path(inception_weights),
        None if out is None else Path(out),
        write_curve,
    )
    outcomes = check_baseline(
        [placed_row(str(checkpoint)) for checkpoint in checkpoints],
        Path(baseline),
        evaluator,
        allow_changed_software=allow_changed_software,
        allow_unchecked=allow_unchecked,
    )
    return Listing(outcomes, outcome_table)


def _record(name: str, given: Any) -> Path | Record:
    if isinstance(given, Record):
        return given
    if isinstance(given, str | Path):
        return local(given, Part.RECORDS)
    raise CembenchError(f"{name}: a {type(given).__name__} is no record, file or run folder")
