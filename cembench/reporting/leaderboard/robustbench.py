"""RobustBench's published board: the entries of its repository as tables, never ranked with ours.

An entry is a JSON file in `model_info/DATASET/THREAT` of its repository (arXiv 2010.09670); the
package on PyPI has none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cembench.energy.norms import NORMS
from cembench.reporting.leaderboard.board import Board, slug
from cembench.reporting.leaderboard.published import is_a
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes
from cembench.util.files.names import shown

THREATS = {norm.library_name: name for name, norm in NORMS.items()} | {"corruptions": "corruptions"}
FIGURES = {
    "clean_acc": "clean",
    "autoattack_acc": "autoattack",
    "external": "external",
    "corruptions_acc": "corruptions",
    "corruptions_mce": "corruptions_mce",
    "corruptions_acc_3d": "corruptions_3d",
    "corruptions_mce_3d": "corruptions_mce_3d",
}
HEADINGS = {
    "name": "name",
    "architecture": "network",
    "extra_data": "extra data",
    "clean": "clean ↑",
    "autoattack": "autoattack ↑",
    "best_known": "best known ↑",
    "corruptions": "corruptions ↑",
    "corruptions_mce": "mCE ↓",
    "corruptions_3d": "corruptions 3D ↑",
    "unreliable": "unreliable",
    "venue": "venue",
    "paper": "paper",
}


def robustbench_boards(folder: Path, datasets: Iterable[str] | None = None) -> list[Board]:
    """Return a board per data set and threat model, best first, figures as their files have them.

    The best known robust accuracy is the lower one of AutoAttack's and of an external evaluation.

    Args:
        folder: a checkout of RobustBench's repository, or its `model_info`.
        datasets: titles of data sets, of which `cifar10-jpeg` is a kind of `cifar10`; all unless
            given.

    Raises:
        CembenchError: when there are no entries, or one cannot be read.
    """
    root = folder if folder.name == "model_info" else folder / "model_info"
    files = sorted(root.glob("*/*/*.json"))
    if not files:
        raise CembenchError(
            f"{folder}: no RobustBench entries; give a checkout of its repository (the package of "
            "PyPI has none)"
        )
    titles = None if datasets is None else list(datasets)
    groups: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        dataset, threat = file.parts[-3:-1]
        if titles is None or any(is_a(title, dataset) for title in titles):
            groups.setdefault((dataset, threat), []).append(file)
    return [_board(*place, group) for place, group in groups.items()]


def _board(dataset: str, threat: str, files: list[Path]) -> Board:
    table = pd.DataFrame([_row(file) for file in files])
    ranked = pd.to_numeric(
        table["best_known"].where(table["best_known"] != "", table["corruptions"])
    )
    order = ranked.sort_values(ascending=False, kind="stable").index
    table = table.loc[order].reset_index(drop=True)
    used = [key for key in HEADINGS if (table[key] != "").any()]
    people = table[used].replace("", "–").rename(columns=HEADINGS)
    title = f"{dataset}, {threat}: RobustBench's entries, reported, not re-run; percent"
    return Board(slug("published-robustbench", dataset, threat), title, table, people)


def _row(file: Path) -> dict[str, str]:
    """Return the cells of an entry.

    Data set and threat model are those of its folders: some entries name another data set.

    Raises:
        CembenchError: naming the file and what is wrong.
    """
    entry, (dataset, threat) = _entry(file), file.parts[-3:-1]
    found = {column: _figure(file, entry, key) for key, column in FIGURES.items()}
    measured = [text for text in (found["autoattack"], found["external"]) if text]
    eps = _text(entry, "eps")
    return {
        "name": shown(file.stem),
        "dataset": dataset,
        "threat": "-".join(filter(None, [THREATS.get(threat, threat), eps])),
        "architecture": _text(entry, "architecture"),
        "extra_data": _yes_or_no(entry.get("additional_data")),
        **found,
        "best_known": min(measured, key=float, default=""),
        "unreliable": _yes_or_no(entry.get("unreliable")),
        "venue": _text(entry, "venue"),
        "paper": _text(entry, "name"),
        "link": _text(entry, "link"),
        "note": _text(entry, "footnote"),
    }


def _entry(file: Path) -> Mapping[str, Any]:
    try:
        entry = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise CembenchError(f"{file}: not JSON: {error}") from error
    if not isinstance(entry, dict) or "clean_acc" not in entry:
        raise CembenchError(f"{file}: no entry of RobustBench: it has no clean_acc")
    return entry


def _figure(file: Path, entry: Mapping[str, Any], key: str) -> str:
    text = _text(entry, key)
    if text and not re.fullmatch(r"\d{1,3}(\.\d+)?", text):
        raise CembenchError(f"{file}: {key} is {text:.40}, not a number of percent")
    return text


def _yes_or_no(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else ""


def _text(entry: Mapping[str, Any], key: str) -> str:
    """Return a value as text without HTML tags, in one line."""
    value = entry.get(key)
    return "" if value is None else " ".join(re.sub(r"<[^>]*>", " ", str(value)).split())
