"""Many runs, made up from a reference record: what a site of hundreds of runs is tried on.

`python -m tests.support.many FOLDER COUNT` leaves them in a folder, `--evidence` with checkpoints
and adversarial images.
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path
from typing import Any

from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record, save_record
from cembench.evaluation.statistics import wilson

REFERENCE = Path(__file__).parents[2] / "leaderboards" / "reference" / "at"
METHODS = ["at", "trades", "standard", "jem", "cem", "dat", "mart", "gkl", "weat", "ours"]
SETS = [("digits", "linf", 0.125), ("digits", "l2", 0.5), ("fashion-mnist", "linf", 0.1)]
SETS += [("cifar10", "linf", 8 / 255), ("cifar10", "l2", 0.5)]
HISTORY = "epoch,loss,val_clean_acc,val_robust_acc,gradients\n"


def many(folder: Path, count: int, *, evidence: bool = False) -> Path:
    """Write run folders with records, pictures and histories, all different."""
    (path,) = REFERENCE.glob("eval/baseline-*.json")
    record, chance = load_record(path), random.Random(0)
    for number in range(count):
        run = folder / f"{METHODS[number % 10]}-{number // 50}.s{number % 5}-{number}"
        made = _varied(record, run.name, number, chance)
        if evidence:
            shutil.copytree(REFERENCE, run, ignore=shutil.ignore_patterns("standard-*"))
        else:
            shutil.copytree(REFERENCE / "samples", run / "samples", ignore=_others)
        new = run / "eval" / path.name
        save_record(new, made, None)
        (run / "history.csv").write_text(_history(made, chance))
    return folder


def _others(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".png") or name.startswith("standard")]


def _varied(record: Record, name: str, number: int, chance: random.Random) -> Record:
    values: dict[str, Any] = record.dump()
    dataset, norm, eps = SETS[number % len(SETS)]
    values |= {"run": name, "method": METHODS[number % 10], "seed": number % 5, "dataset": dataset}
    values |= {"threat": {"norm": norm, "eps": eps}, "recipe": f"{number // 50:012x}"}
    values |= {"weights_sha256": f"{number:064x}"}
    share = chance.uniform(0.2, 1)
    for figure in values["figures"].values():
        figure["correct"] = int(share * figure["correct"])
        figure["low"], figure["high"] = wilson(figure["correct"], figure["images"])
    for found in values["generation"]["samplers"].values():
        found["samples"]["kid"] *= chance.uniform(0.3, 3)
    return Record.parse(values)


def _history(record: Record, chance: random.Random) -> str:
    epochs = max(record.epoch, 20)
    rows = [
        f"{n},{3 / n + chance.random() / 10:.4f},{1 - 1 / (n + 1):.4f},{0.8 - 0.8 / n:.4f},"
        f"{record.gradients}\n"
        for n in range(1, epochs + 1)
    ]
    return HISTORY + "".join(rows)


if __name__ == "__main__":
    many(Path(sys.argv[1]), int(sys.argv[2]), evidence="--evidence" in sys.argv)
