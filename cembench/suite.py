"""A suite: several experiments under one protocol, done once and ranked together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator

from cembench.config import Experiment, parse_experiment
from cembench.data.split import hold_out, subset
from cembench.errors import CembenchError, ConfigError, GaveUp
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.record import Record, recipe_of, save_record
from cembench.files import read_yaml
from cembench.leaderboard import Board, find_records, rank, write_boards
from cembench.provenance import environment
from cembench.runs import RunFolder
from cembench.settings import Settings
from cembench.training import train

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class Suite(Settings):
    """The content of a suite file.

    Attributes:
        protocol: name or file of the protocol, relative to the suite's folder.
        shared: settings that all experiments start from.
        seeds: when given, each experiment runs once with each, as `NAME.s0`, `NAME.s1`, ….
        experiments: by name, what each adds to them; an inner mapping adds to the shared one.
    """

    protocol: str = "standard"
    shared: dict[str, Any] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    experiments: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]

    @field_validator("experiments")
    @classmethod
    def _not_reserved(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "leaderboards" in values:
            raise ValueError("'leaderboards' is the folder of the tables; choose another name")
        return values


def load_suite(path: Path) -> tuple[dict[str, Experiment], Protocol]:
    """Read a suite file: its experiments by name, and its protocol.

    Raises:
        ConfigError: naming the file, the experiment, each wrong key and the nearest valid name.
    """
    try:
        suite = Suite.parse(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(error.problems, error.source or str(path)) from None
    experiments = {}
    for name, own in suite.experiments.items():
        values = merge(suite.shared, own)
        repeats = {name: {}} if suite.seeds is None else _repeats(name, suite.seeds)
        for full, seed in repeats.items():
            source = f"{path}, experiment {full}"
            experiments[full] = parse_experiment(values | seed, source)
    return experiments, load_protocol(suite.protocol, base=path.parent)


def _repeats(name: str, seeds: list[int]) -> dict[str, dict[str, int]]:
    return {f"{name}.s{seed}": {"seed": seed} for seed in seeds}


def _note(experiment: Experiment, folder: Path, protocol: Protocol, why: str, device: str) -> None:
    """Leave a record of a run that diverged for good: a ranking without it would flatter."""
    state = RunFolder(folder).load()
    split = experiment.data.load("test")
    if protocol.split == "validation":
        split = hold_out(experiment.data.load("train"), experiment.validation.fraction)[1]
    record = Record(
        run=folder.name,
        method=experiment.method.name,
        dataset=experiment.data.title,
        model=experiment.model.name,
        seed=experiment.seed,
        recipe=recipe_of(experiment.dump()),
        epoch=0 if state is None else state.epoch,
        threat=protocol.threat.over(experiment.threat),
        protocol=protocol.dump(),
        protocol_digest=protocol.digest,
        split=protocol.split,
        data=experiment.data.dump(),
        fingerprint=subset(split, protocol.limit)[0].fingerprint,
        checkpoint_sha256="",
        gradients=0 if state is None else state.gradients,
        labels=experiment.method.labels,
        divergences=1 if state is None else state.divergences + 1,
        environment=environment(torch.device(device)),
        error=f"training diverged: {why}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    save_record(folder / "eval" / f"{protocol.name}.json", record, None)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; where both hold a mapping without a new `name`, inside too."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        joined = isinstance(old, dict) and isinstance(value, dict) and "name" not in value
        result[key] = merge(old, value) if joined and isinstance(old, dict) else value
    return result


def run_suite(
    path: Path, out: Path, device: str, inception_weights: Path | None = None
) -> tuple[list[Board], list[str]]:
    """Train and evaluate what is not done yet; rank all runs of `out` in `out/leaderboards/`.

    Experiments that fail are skipped; the others go on.

    Returns:
        The boards, and a message for each experiment that failed.

    Raises:
        CembenchError: when the suite file is wrong or every experiment failed.
    """
    experiments, protocol = load_suite(path)
    failures: list[str] = []
    for name, experiment in experiments.items():
        try:
            checkpoint = train(experiment, out / name, resume=True, device=device)
            record, place = evaluate(
                checkpoint,
                protocol,
                device=device,
                inception_weights=inception_weights,
                reuse=True,
            )
        except CembenchError as error:
            failures.append(f"experiment {name}: {error}")
            if isinstance(error, GaveUp):
                _note(experiment, out / name, protocol, str(error), device)
            continue
        if record.error is not None:
            failures.append(f"experiment {name}: {record.error} ({place})")
    if not any(out.glob("*/eval/*.json")):
        raise CembenchError(f"{path}: {'; '.join(failures)}")
    boards = rank(find_records([out]))
    write_boards(boards, out / "leaderboards")
    return boards, failures
