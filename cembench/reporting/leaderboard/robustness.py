"""One board a data set and threat model: a row a run, robust and generative columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cembench.evaluation.record import Record
from cembench.evaluation.results import Generation
from cembench.reporting.leaderboard.board import Board, Shown, slug
from cembench.util.files import digest
from cembench.util.markdown import interval

FIRST = ["run", "method", "labels", "dataset", "threat", "clean_acc", "pgd_acc", "autoattack_acc"]
FIRST += ["worst_case_acc", "n_images", "seed", "weights_sha256"]
COSTS = ["parameters", "divergences", "train_gradients", "train_seconds", "eval_seconds"]
LAST = ["model", "split", "protocol", "protocol_digest", "recipe", "cembench", "sanity_failed"]
LAST += ["error"]
HIDDEN = ["slug", "fingerprint", "reference", "record"]
SAME = ["dataset", "threat", "protocol_digest", "fingerprint", "reference"]


def robust_boards(records: Sequence[Record]) -> list[Board]:
    """Return a board for each data set (by its test images), threat model and protocol.

    The one with most images, then most runs, of a data set and threat model gets the short name;
    the name of any other says its protocol.
    """
    rows = pd.DataFrame([row_of(record) for record in records])
    if rows.empty:
        return []
    rows["reference"] = filled(rows)
    groups = [group for _, group in rows.groupby(SAME, sort=True)]
    groups.sort(key=lambda group: (-group["n_images"].max(), -len(group)))
    boards: dict[str, Board] = {}
    for group in groups:
        first = group.iloc[0]
        held = "" if first["split"] == "test" else first["split"]
        stem = slug(first["dataset"], first["slug"], held)
        plan = f"{first['protocol']}-{first['protocol_digest'][:6]}"
        for more in (plan, first["fingerprint"][:6], first["reference"][:6]):
            stem = slug(stem, more) if stem in boards else stem
        boards[stem] = _board(stem, group)
    return list(boards.values())


def filled(rows: pd.DataFrame) -> pd.Series:
    """Give rows without samples, after an error, the reference of those they stand beside."""
    known = rows["reference"].replace("", None)
    keys = [rows[key] for key in SAME if key != "reference"]
    return known.fillna(known.groupby(keys).transform("first")).fillna("")


def _board(stem: str, group: pd.DataFrame) -> Board:
    order = ["autoattack_acc", "worst_case_acc", "clean_acc"]
    group = group.sort_values([*order, "run"], ascending=[False] * 3 + [True])
    drawn = [record.generation for record in group["record"] if record.generation is not None]
    lead = lead_of(drawn[0]) if drawn else None
    if lead is not None:
        robust = group["autoattack_acc"].fillna(group["worst_case_acc"]).astype(float)
        group["pareto"] = pareto(robust, group[f"{lead}_kid"].astype(float))
    first = group.iloc[0]
    title = (
        f"{first['dataset']}, {first['threat']}, protocol {first['protocol']} on "
        f"{first['n_images']} {first['split']} images; accuracy in percent with its 95 % Wilson "
        "interval"
    )
    sources = [[record] for record in group["record"]]
    return _shown(group, lead).board(stem, title, _arranged(group), sources)


def pareto(robust: pd.Series, distance: pd.Series) -> pd.Series:
    """Tell which rows no other beats: none is at least as good on both axes and better on one.

    Args:
        robust: accuracies, higher is better.
        distance: of samples from real images, lower is better; rows without one are not judged.
    """
    front = []
    for mine, far in zip(robust, distance, strict=True):
        both = (robust >= mine) & (distance <= far) & ((robust > mine) | (distance < far))
        front.append(None if pd.isna(mine) or pd.isna(far) else not bool(both.any()))
    return pd.Series(front, index=robust.index, dtype="object")


def row_of(record: Record) -> dict[str, Any]:
    """Return everything that a table can show of a record."""
    row: dict[str, Any] = dict.fromkeys(FIRST)
    row |= {
        "run": record.run if record.finished else f"{record.run} (unfinished)",
        "method": record.method,
        "labels": record.labels,
        "dataset": record.dataset,
        "threat": str(record.threat),
        "slug": record.threat.slug,
        "n_images": next((figure.images for figure in record.figures.values()), 0),
        "seed": record.seed,
        "weights_sha256": record.weights_sha256,
        "parameters": record.parameters,
        "divergences": record.divergences,
        "train_gradients": record.gradients,
        "train_seconds": record.train_seconds,
        "eval_seconds": record.seconds,
        "model": record.model,
        "split": record.split,
        "protocol": record.protocol.get("name"),
        "protocol_digest": record.protocol_digest,
        "recipe": record.recipe,
        "fingerprint": record.fingerprint,
        "reference": _reference(record.generation),
        "cembench": record.environment.get("cembench"),
        "sanity_failed": " ".join(record.sanity_failed),
        "error": record.error,
        "record": record,
    }
    for name, figure in record.figures.items():
        row[f"{name}_acc"] = figure.accuracy
        row[f"{name}_acc_low"], row[f"{name}_acc_high"] = figure.low, figure.high
        row[f"{name}_acc_8bit"] = figure.accuracy_8bit
    return row | _generative(record.generation) | _density(record)


def lead_of(generation: Generation) -> str:
    """Return the column prefix of the first sampler: its title, extractor and count."""
    return prefix(generation, next(iter(generation.samplers)))


def prefix(generation: Generation, title: str) -> str:
    """Return what stands before `_kid` and others, so that unlike figures never share a column."""
    return f"{title}_{generation.extractor}_n{generation.count}"


def _generative(generation: Generation | None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for title, found in ({} if generation is None else generation.samplers).items():
        assert generation is not None
        samples, seeds = found.samples, found.seeds
        values = {
            "kid": samples and samples.kid,
            "kid_error": samples and samples.kid_error,
            "kid_seeds": seeds and seeds.kid,
            "gain": found.gain,
            "gain_low": found.gain_low,
            "gain_high": found.gain_high,
            "fd": samples and samples.fd,
            "is": samples and samples.inception_score,
            "judge_acc": samples and samples.judge_acc,
            **{name: samples and samples.metrics.get(name) for name in generation.better},
        }
        row |= {f"{prefix(generation, title)}_{key}": value for key, value in values.items()}
    return row


def _reference(generation: Generation | None) -> str:
    """Return what identifies real images and extractor, the same for columns that compare."""
    if generation is None:
        return ""
    return digest([generation.extractor_sha256, generation.reference_fingerprint, generation.count])


def _density(record: Record) -> dict[str, Any]:
    density = record.density
    if density is None:
        return {}
    row: dict[str, Any] = {"ece": density.calibration.ece}
    for title, scores in density.outside.items():
        row |= {f"auroc_{score}_{title}": found.auroc for score, found in scores.items()}
    for name, push in density.pushed.items():
        row |= {f"{name}_ball_acc": push.accuracy.accuracy, f"{name}_ball_lse": push.lse_change}
    return row


def _arranged(table: pd.DataFrame) -> pd.DataFrame:
    named = [*FIRST, *COSTS, *LAST, *HIDDEN]
    figures = [c for c in table.columns if c not in named and table[c].notna().any()]
    return table[[*FIRST, *figures, *COSTS, *LAST]].reset_index(drop=True)


def _shown(table: pd.DataFrame, lead: str | None) -> Shown:
    shown = Shown(table)
    for name in ("run", "method"):
        shown.add(name, name)
    if (table["labels"] != "all").any():
        shown.add("labels", "labels")
    for column in table.columns:
        if f"{column}_low" in table and column.endswith("_acc") and table[column].notna().any():
            shown.add(f"{column.removesuffix('_acc')} ↑", column, _percent(table, column))
    if lead is not None:
        _show_lead(shown, lead)
    shown.add("images", "n_images")
    shown.add("seed", "seed")
    if table["divergences"].any():
        shown.add("divergences", "divergences")
    shown.add("gradients ↓", "train_gradients", table["train_gradients"].map("{:.2g}".format))
    if (table["sanity_failed"] != "").any():
        marks = table["sanity_failed"].map(lambda names: f"⚠ {names}" if names else "")
        shown.add("sanity", "sanity_failed", marks)
    if table["error"].notna().any():
        shown.add("error", "error", table["error"].fillna(""))
    return shown


def _show_lead(shown: Shown, lead: str) -> None:
    table = shown.table
    title, extractor, count = lead.rsplit("_", 2)
    distances = [
        "–" if pd.isna(v) else f"{v:.3g} ± {e:.2g}"
        for v, e in zip(table[f"{lead}_kid"], table[f"{lead}_kid_error"], strict=True)
    ]
    shown.add(f"KID-{extractor} {title}, {count} ↓", f"{lead}_kid", distances)
    columns = (table[f"{lead}_{key}"] for key in ("gain", "gain_low", "gain_high"))
    gains = [interval(*row) for row in zip(*columns, strict=True)]
    shown.add("gain over its seeds ↑", f"{lead}_gain", gains)
    stars = table["pareto"].map({True: "★", False: ""}).fillna("–")
    shown.add("Pareto", "pareto", stars)


def _percent(table: pd.DataFrame, column: str) -> list[str]:
    low, high = f"{column}_low", f"{column}_high"
    return [
        "–" if pd.isna(row[column]) else f"{row[column]:.1%} ({row[low]:.1%}–{row[high]:.1%})"
        for _, row in table.iterrows()
    ]
