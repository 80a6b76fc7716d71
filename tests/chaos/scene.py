"""The scene of a chaos run: a small project with everything that cembench writes, made undisturbed.

All commands run in its folder, with relative paths, so that a copy elsewhere has the same bytes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from cembench.training.run_folder import RunFolder
from cembench.util.errors import CembenchError
from tests.support.records import settled

SHARED = "data: digits, model: {name: small_cnn, width: 8}, epochs: 2, batch_size: 256"
AT = "{name: at, negatives: {steps: 2}}"
JEM = "{name: jem, negatives: {name: sgld, steps: 1, buffer: 50}}"
FILES = {
    "protocol.yaml": """
limit: 24
batch_size: 8
attacks: [{name: pgd, steps: 2}]
samples:
  count: 60
  batch_size: 20
  samplers: [{name: rcs, steps: 2}, {name: ta, steps: 2}]
  extractor: {name: lite0, size: 32}
""",
    "gate.yaml": "{limit: 32, batch_size: 16, attacks: [{name: pgd, steps: 2}], sanity: {}}",
    "jem.yaml": f"{{{SHARED}, method: {JEM}, optimizer: {{lr: 1.0e-3}}}}",
    "at.yaml": f"{{{SHARED}, method: {AT}}}",
    "suite.yaml": f"""
protocol: protocol.yaml
shared: {{{SHARED}}}
experiments:
  plain: {{method: standard}}
  trades: {{method: {{name: trades, negatives: {{steps: 2}}}}}}
""",
}


class Command(NamedTuple):
    """A command and what it writes, as patterns that are removed to run it afresh."""

    args: str
    writes: tuple[str, ...] = ()


TRAIN = "train {0}.yaml --out runs --resume"
EVAL = "eval runs/{0} --protocol protocol.yaml --save-adversarial --save-samples"
COMMANDS = {
    "train": Command(TRAIN.format("jem"), ("runs/jem/*.*",)),
    "eval": Command(EVAL.format("jem"), ("runs/jem/eval", "runs/jem/samples")),
    "run": Command("run suite.yaml --out suite --jobs 1", ("suite",)),
    "run two": Command("run suite.yaml --out suite --jobs 2", ("suite",)),
    "check": Command("check --baseline baseline.yaml --out gated --allow-unchecked", ("gated",)),
    "update": Command("check --baseline baseline.yaml --out checked --update", ("checked",)),
    "leaderboard": Command("leaderboard runs suite --out boards", ("boards",)),
    "report": Command("report runs suite --out page", ("page",)),
    "verify": Command("verify runs/jem/eval/*.json runs/jem"),
    "show": Command("show runs/jem"),
}
BEGIN = (
    TRAIN.format("at"),
    TRAIN.format("jem"),
    EVAL.format("at"),
    EVAL.format("jem"),
    COMMANDS["run"].args,
    "check runs/at runs/jem --baseline baseline.yaml --protocol gate.yaml --out checked --update",
    COMMANDS["check"].args,
    COMMANDS["leaderboard"].args,
    COMMANDS["report"].args,
)


def write_settings(folder: Path) -> None:
    """Write the files that a user would."""
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)


def remove(folder: Path, patterns: tuple[str, ...]) -> None:
    """Remove what fits the patterns."""
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def snapshot(folder: Path) -> dict[str, object]:
    """Return the content of all files by relative path, without what depends on the clock.

    Logs are left out: each attempt appends to them.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _content(path)
        for path in files
        if path.name not in ("log.txt", "filler")
    }


def _content(path: Path) -> object:
    try:
        return _without_clock(path)
    except (CembenchError, ValueError):  # damaged
        return path.read_bytes()


def _without_clock(path: Path) -> object:
    if path.suffix == ".json" and path.parent.name == "eval":
        # The digest of the replay buffer tells runs apart, whether or not samples start in it.
        text = settled(path).model_copy(update={"train_seconds": 0}).model_dump_json()
        return re.sub('"buffer":(null|"[0-9a-f]*")', "", text)
    if path.name == "last.ckpt":
        return _state(path)
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        return table[[c for c in table if not c.endswith("seconds")]].to_csv()
    if path.suffix in (".html", ".md"):
        return re.sub(r"\d+(\.\d+)? ?s\b|\d{4}-\d\d-\d\d[T ][\d:+]+", "", path.read_text())
    return path.read_bytes()


def _state(path: Path) -> str:
    state = RunFolder(path.parent).load()
    assert state is not None
    history = [{**row, "seconds": 0} for row in state.history]
    return repr(_plain({**vars(state), "history": history}))


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
