"""Records to tables: a CSV and a markdown file for each data set and threat model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cembench.errors import CembenchError
from cembench.evaluation.record import Record, load_record
from cembench.files import sha256, write_text

FIRST = ["run", "method", "dataset", "threat", "clean_acc", "pgd_acc", "autoattack_acc"]
FIRST += ["worst_case_acc", "n_images", "seed", "checkpoint_sha256"]
COSTS = ["parameters", "divergences", "train_gradients", "train_seconds", "eval_seconds"]
LAST = ["model", "protocol", "protocol_digest", "cembench", "error"]


@dataclass(frozen=True)
class Board:
    """A ranking of runs measured in the same way.

    Attributes:
        stem: its file name without ending, such as `digits-linf-0.125`.
        table: a row a run, accuracies as fractions, best AutoAttack accuracy first.
    """

    stem: str
    table: pd.DataFrame

    def markdown(self) -> str:
        """Return the table for people: percent, intervals, arrows toward better."""
        table = self.table
        shown: dict[str, Any] = {"run": table["run"], "method": table["method"]}
        for column in table.columns:
            if column.endswith("_acc") and table[column].notna().any():
                shown[f"{column.removesuffix('_acc')} ↑"] = _percent(table, column)
        shown |= {"images": table["n_images"], "seed": table["seed"]}
        shown["gradients ↓"] = table["train_gradients"].map("{:.2g}".format)
        if table["error"].notna().any():
            shown["error"] = table["error"].fillna("")
        return markdown_table(pd.DataFrame(shown))

    def title(self) -> str:
        """Say what all rows have in common."""
        row = self.table.iloc[0]
        return (
            f"{row['dataset']}, {row['threat']}, protocol {row['protocol']} on "
            f"{row['n_images']} test images; accuracy in percent with its 95 % Wilson interval"
        )


def find_records(paths: Iterable[Path]) -> list[Record]:
    """Read every record below run folders, or folders of them.

    A record whose checkpoint has changed since, because training went on, is left out.

    Raises:
        CembenchError: when a path holds none, or one is damaged.
    """
    records: list[Record] = []
    for path in paths:
        found = [(file, load_record(file)) for file in sorted(path.glob("**/eval/*.json"))]
        current = [record for file, record in found if not _outdated(file, record)]
        if not current:
            raise CembenchError(f"no records below {path}; run `cembench eval` on a checkpoint")
        records += current
    return records


def _outdated(file: Path, record: Record) -> bool:
    checkpoint = file.parent.parent / "model.safetensors"
    ours = file.stem == record.protocol["name"] and checkpoint.exists()
    return ours and sha256(checkpoint) != record.checkpoint_sha256


def rank(records: Sequence[Record]) -> list[Board]:
    """Sort records into boards, so that no column mixes figures measured in different ways.

    A board holds one data set (by its test images), threat model and protocol. The one with most
    images, then most runs, of a data set and threat model gets the short name; the name of
    any other says its protocol.
    """
    rows = pd.DataFrame([_row(record) for record in records])
    keys = ["dataset", "threat", "protocol_digest", "fingerprint"]
    newest = rows.sort_values("created").drop_duplicates(
        [*keys, "run", "checkpoint_sha256"], keep="last"
    )
    groups = [group for _, group in newest.groupby(keys, sort=True)]
    groups.sort(key=lambda group: (-group["n_images"].max(), -len(group)))
    boards: dict[str, Board] = {}
    for group in groups:
        first = group.iloc[0]
        stem = re.sub(r"[^\w.-]+", "-", f"{first['dataset']}-{first['slug']}")
        if stem in boards:
            stem += f"-{first['protocol']}-{first['protocol_digest'][:6]}"
        if stem in boards:
            stem += f"-{first['fingerprint'][:6]}"
        order = ["autoattack_acc", "worst_case_acc", "clean_acc"]
        table = group.sort_values([*order, "run"], ascending=[False] * 3 + [True])
        boards[stem] = Board(stem, _arranged(table))
    return list(boards.values())


def write_boards(boards: Sequence[Board], out: Path) -> list[Path]:
    """Write `STEM.csv` and `STEM.md` for each board and return the paths."""
    written = []
    for board in boards:
        csv = board.table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        text = f"# {board.title()}\n\n{board.markdown()}"
        for path, content in ((out / f"{board.stem}.csv", csv), (out / f"{board.stem}.md", text)):
            write_text(path, content)
            written.append(path)
    return written


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(FIRST)
    row |= {
        "run": record.run if record.finished else f"{record.run} (unfinished)",
        "method": record.method,
        "dataset": record.dataset,
        "threat": str(record.threat),
        "slug": record.threat.slug,
        "n_images": next((figure.images for figure in record.figures.values()), 0),
        "seed": record.seed,
        "checkpoint_sha256": record.checkpoint_sha256,
        "parameters": record.parameters,
        "divergences": record.divergences,
        "train_gradients": record.gradients,
        "train_seconds": record.train_seconds,
        "eval_seconds": record.seconds,
        "model": record.model,
        "protocol": record.protocol.get("name"),
        "protocol_digest": record.protocol_digest,
        "fingerprint": record.fingerprint,
        "cembench": record.environment.get("cembench"),
        "created": record.created,
        "error": record.error,
    }
    for name, figure in record.figures.items():
        row[f"{name}_acc"] = figure.accuracy
        row[f"{name}_acc_low"], row[f"{name}_acc_high"] = figure.low, figure.high
        row[f"{name}_acc_8bit"] = figure.accuracy_8bit
    return row


def _arranged(table: pd.DataFrame) -> pd.DataFrame:
    named = [*FIRST, *COSTS, *LAST]
    hidden = [*named, "slug", "fingerprint", "created"]
    figures = [c for c in table.columns if c not in hidden and table[c].notna().any()]
    return table[[*FIRST, *figures, *COSTS, *LAST]].reset_index(drop=True)


def _percent(table: pd.DataFrame, column: str) -> list[str]:
    low, high = f"{column}_low", f"{column}_high"
    return [
        "–" if pd.isna(row[column]) else f"{row[column]:.1%} ({row[low]:.1%}–{row[high]:.1%})"
        for _, row in table.iterrows()
    ]


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table as markdown, with vertical bars in cells escaped."""
    escaped = [[str(cell).replace("|", "\\|") for cell in row] for row in table.to_numpy()]
    lines = [list(table.columns), ["---"] * len(table.columns), *escaped]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
