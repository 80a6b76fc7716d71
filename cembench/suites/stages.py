"""Where the time of a suite goes: seconds of each stage of each experiment, in one process."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from cembench.reporting.leaderboard import build_boards, find_records, write_boards
from cembench.reporting.plots.curves import write_missing_curves
from cembench.suites.experiment import run_experiment
from cembench.suites.outcomes import Outcome
from cembench.suites.run import SuiteRun
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.shared import sharing
from cembench.util.stages import Seconds, stage, timed

ALL = "whole suite"


def stage_seconds(path: Path, device: str, images: int | None = None) -> pd.DataFrame:
    """Run a suite in a folder of its own and return the time of its stages.

    Args:
        path: the suite file.
        device: where to compute.
        images: attack at most so many test images, instead of as many as the protocol says.

    Returns:
        A row per stage: the stage, CPU seconds of each experiment and of the whole suite, whose
        column holds imports and tables besides, and wall seconds.

    Raises:
        CembenchError: when the suite file is wrong, or an experiment fails.
    """
    imports = Seconds.now().cpu  # nobody measured their wall time
    found = {ALL: {"import": Seconds(imports, imports)}}
    with TemporaryDirectory() as folder, sharing():
        out = Path(folder)
        suite = SuiteRun(path, out, device, None)
        if images is not None:
            suite.protocol = suite.protocol.model_copy(update={"limit": images})
        for name in suite.experiments:
            with timed() as times:
                _run(suite, name)
            found[name] = times.seconds
        with timed() as times:
            _finish(out)
        found[ALL] |= times.seconds
    return _table(found)


def _run(suite: SuiteRun, name: str) -> None:
    experiment, folder = suite.experiments[name], suite.out / name
    try:
        outcome = run_experiment(experiment, folder, suite.protocol, pick_device(suite.device))
    except CembenchError as error:
        outcome = Outcome(str(error))
    if outcome.failure is not None:
        raise CembenchError(f"experiment {name}: {outcome.failure}")


def _finish(out: Path) -> None:
    with stage("tables"):
        records = find_records([out])
        write_boards(build_boards(records.values()), out / "leaderboards")
    write_missing_curves(records)


def _table(found: dict[str, dict[str, Seconds]]) -> pd.DataFrame:
    none = Seconds()
    names = dict.fromkeys(name for times in found.values() for name in times)
    sums = {name: sum((t.get(name, none) for t in found.values()), none) for name in names}
    order = sorted(names, key=lambda name: -sums[name].cpu)
    rows = [
        {"stage": name}
        | {one: times.get(name, none).cpu for one, times in found.items() if one != ALL}
        | {ALL: sums[name].cpu, "wall": sums[name].wall}
        for name in order
    ]
    table = pd.DataFrame(rows)
    total = table.drop(columns="stage").sum().to_dict()
    return pd.concat([table, pd.DataFrame([{"stage": "sum", **total}])], ignore_index=True).round(2)
