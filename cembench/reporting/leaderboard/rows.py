"""Rows of the boards of networks: everything that a table can show of a record."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pandas as pd

from cembench.evaluation import sections
from cembench.evaluation.record import Record
from cembench.evaluation.sections.samples import Generation
from cembench.reporting.leaderboard.board import Shown, flagged, free_stem, slug
from cembench.reporting.leaderboard.frame import says
from cembench.util.display.column import Column
from cembench.util.files import digest

HEAD = ["run", "method", "labels", "dataset", "threat", "clean_acc", "pgd_acc", "autoattack_acc"]
OURS = ["autoattack-fast_acc", "autoattack-sampled_acc"]  # between the two, where they were run
TAIL = ["worst_case_acc", "n_images", "seed", "weights_sha256"]
FIRST = [*HEAD, *TAIL]
COSTS = ["parameters", "divergences", "train_gradients", "train_seconds", "eval_seconds"]
RATES = ["flops", "train_images_per_second"]  # before the costs, where they are known
LAST = ["model", "split", "protocol", "protocol_digest", "recipe", "cembench", "sanity_failed"]
LAST += ["error"]
PLAIN = ["method", "labels", "dataset", "seed", "weights_sha256", "parameters", "divergences"]
PLAIN += ["train_seconds", "model", "split", "protocol_digest", "recipe", "fingerprint", "error"]
PLAIN += RATES
REPLACED = (
    "⚠ replaced: the checkpoint that lies beside the record now is not the one that was measured."
)
ACCEPTED = (
    "recounted: the keeper of the board computed the figures again and attacked a share of the "
    "images again. not re-run: nothing but the record was checked."
)
MARKS = ["checkpoint", "unchecked", "accepted"]  # in files, only where a row says something
HIDDEN = [*MARKS, "slug", "threats", "fingerprint", "reference", "record"]
SAME = ["dataset", "threat", "protocol_digest", "fingerprint", "reference"]


def row_of(record: Record) -> dict[str, Any]:
    """Return the columns of a record, those of its sections last."""
    row: dict[str, Any] = dict.fromkeys([*HEAD, *OURS, *TAIL])
    row |= {key: getattr(record, key) for key in PLAIN}
    row |= {
        "run": run_title(record),
        "threat": str(record.threat),
        "slug": record.threat.slug,
        "threats": _threats(record),
        "n_images": next((figure.images for figure in record.figures.values()), 0),
        "train_gradients": record.gradients,
        "eval_seconds": record.seconds,
        "protocol": record.protocol.get("name"),
        "reference": _reference(record.generation),
        "cembench": record.environment.get("cembench"),
        "sanity_failed": " ".join(record.sanity_failed),
        "checkpoint": checkpoint_mark(record),
        "unchecked": record.unchecked,
        "accepted": record.accepted,
        "record": record,
    }
    for section in sections.SECTIONS:
        row |= section.columns(section.of(record))
    return row | _sampling_rates(record)


def run_title(record: Record) -> str:
    """Return the name of a run, which says so where training has not ended."""
    return record.run if record.finished else f"{record.run} (unfinished)"


def checkpoint_mark(record: Record) -> str:
    """Return what is wrong with the checkpoint beside a record, if anything."""
    return "replaced" if record.replaced else ""


def sanity_mark(failed: str | int, unchecked: bool, of: int | None = None) -> str:
    """Return failed checks as a mark, as `flagged` does, and whether a protocol asked for none."""
    return " ".join(filter(None, [flagged(failed, of), "unchecked" * unchecked]))


def show_sanity(shown: Shown, *of: str) -> None:
    """Show failed checks, and rows without checks, if there are any; as `Shown.mark` does."""
    if any(shown.table["sanity_failed"]) or any(shown.table["unchecked"]):
        shown.add("sanity", "sanity_failed", sanity_mark, "unchecked", *of)


def board_stem(first: pd.Series, taken: Container[str], *kind: str) -> str:
    """Return the file name of a board with this row; it says the protocol if others need to."""
    held = "" if first["split"] == "test" else first["split"]
    plan = f"{first['protocol']}-{first['protocol_digest'][:6]}"
    more = (plan, first["fingerprint"][:6], first["reference"][:6])
    return free_stem(slug(first["dataset"], first["slug"], held, *kind), more, taken)


def filled(rows: pd.DataFrame) -> pd.Series:
    """Give rows without samples the reference of those that they share a board with."""
    known = rows["reference"].where(rows["reference"] != "")
    keys = [rows[key] for key in SAME if key != "reference"]
    return known.fillna(known.groupby(keys).transform("first")).fillna("")


def arranged(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns in the order of the file, without those that no row has."""
    named = [*HEAD, *OURS, *TAIL, *RATES, *COSTS, *LAST, *HIDDEN]
    ours = [c for c in OURS if says(table[c])]
    figures = [c for c in table.columns if c not in named and says(table[c])]
    rates = [c for c in RATES if says(table[c])]
    kept = [*HEAD, *ours, *TAIL, *figures, *rates, *COSTS, *LAST]
    return with_marks(table[kept], table).reset_index(drop=True)


def with_marks(kept: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return columns of a file, without those of warnings that no row of the table has."""
    marked = table[[c for c in MARKS if c in table and any(map(flagged, table[c]))]]
    return kept.drop(columns=MARKS, errors="ignore").join(marked)


def _threats(record: Record) -> str:
    """Return the names of several threat models; empty for a single one."""
    under = {} if record.threats is None else record.threats.under
    return ", ".join(str(one.threat) for one in under.values())


def _sampling_rates(record: Record) -> dict[str, float]:
    found = record.generation
    if found is None:
        return {}
    return {
        Column(title, found.extractor, found.count, "images_per_second").name: rate
        for title, rate in record.sample_images_per_second.items()
    }


def _reference(generation: Generation | None) -> str:
    """Return what identifies real images and extractor, the same for columns that compare."""
    if generation is None:
        return ""
    return digest([generation.extractor_sha256, generation.reference_fingerprint, generation.count])
