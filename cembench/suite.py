"""A suite: several experiments under one protocol, done once and ranked together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator

from cembench.checkpoint import read_passport
from cembench.config import Experiment, merge, parse_experiment, recipe_of
from cembench.data.split import hold_out, subset
from cembench.errors import CembenchError, ConfigError, GaveUp
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.record import Record, save_record
from cembench.files import read_yaml
from cembench.leaderboard import Board, find_records, rank, write_boards
from cembench.probing import Probe, probe_settings
from cembench.provenance import environment
from cembench.runs import RunFolder
from cembench.settings import Settings, nearest
from cembench.training import train

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class Suite(Settings):
    """The content of a suite file.

    Attributes:
        protocol: name or file of the protocol, relative to the suite's folder.
        shared: settings that all experiments start from.
        seeds: when given, each experiment runs once with each, as `NAME.s0`, `NAME.s1`, ….
        experiments: by name, what each adds to them; an inner mapping adds to the shared one. With
            `probe: NAME`, or `probe: {of: NAME, mode: …}`, it starts from the features of another
            one above it, and adds to the settings of that probe instead.
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


def load_suite(path: Path, out: Path = Path("runs")) -> tuple[dict[str, Experiment], Protocol]:
    """Read a suite file: its experiments by name, and its protocol.

    Args:
        path: the file.
        out: the folder of its runs, where probes find what they probe.

    Raises:
        ConfigError: naming the file, the experiment, each wrong key and the nearest valid name.
    """
    try:
        suite = Suite.parse(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(error.problems, error.source or str(path)) from None
    experiments: dict[str, Experiment] = {}
    for name, own in suite.experiments.items():
        seeds: list[int | None] = [None] if suite.seeds is None else [*suite.seeds]
        for seed in seeds:
            end = "" if seed is None else f".s{seed}"
            chosen = {} if seed is None else {"seed": seed}
            source = f"{path}, experiment {name}{end}"
            values = _values(suite.shared, own, experiments, end, out, source)
            experiments[name + end] = parse_experiment(values | chosen, source)
    return experiments, load_protocol(suite.protocol, base=path.parent)


def _values(
    shared: dict[str, Any],
    own: dict[str, Any],
    before: dict[str, Experiment],
    end: str,
    out: Path,
    source: str,
) -> dict[str, Any]:
    """Return the settings of an experiment; those of a probe rest on what it probes."""
    if "probe" not in own:
        return merge(shared, own)
    given, rest = own["probe"], {key: value for key, value in own.items() if key != "probe"}
    try:
        probe = Probe.parse({"of": given} if isinstance(given, str) else given)
    except ConfigError as error:
        raise ConfigError(error.within("probe").problems, source) from None
    name = probe.of + end
    if name not in before:
        known = [key.removesuffix(end) for key in before]
        hint = nearest(probe.of, known) if known else "put it above its probes"
        message = f"no experiment '{probe.of}' above; {hint}"
        raise ConfigError(ConfigError.single(message, "probe.of").problems, source)
    return merge(probe_settings(before[name], out / name, probe.mode), rest)


def _note(experiment: Experiment, folder: Path, protocol: Protocol, why: str, device: str) -> None:
    """Leave a record of a run that diverged for good: a ranking without it would flatter."""
    state = RunFolder(folder).load()
    split = experiment.data.load("test")
    if protocol.split == "validation":
        split = hold_out(experiment.data.load("train"), experiment.validation.fraction)[1]
    record = Record(
        kind=experiment.method.kind,
        run=folder.name,
        method=experiment.title,
        dataset=experiment.data.title,
        model=experiment.model.title,
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
        labels=experiment.labels,
        divergences=1 if state is None else state.divergences + 1,
        environment=environment(torch.device(device)),
        error=f"training diverged: {why}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    save_record(folder / "eval" / f"{protocol.name}.json", record, None)


def run_suite(
    path: Path, out: Path, device: str, inception_weights: Path | None = None
) -> tuple[list[Board], list[str]]:
    """Train and evaluate what is not done yet; rank all runs of `out` in `out/leaderboards/`.

    Experiments that fail are skipped; the others go on.

    Returns:
        The boards, none for encoders of which the protocol measures nothing, and a message for
        each experiment that failed.

    Raises:
        CembenchError: when the suite file is wrong or every experiment failed.
    """
    experiments, protocol = load_suite(path, out)
    failures: list[str] = []
    given_up: set[str] = set()
    for name, experiment in experiments.items():
        start = experiment.pretrained
        try:
            if start is not None and Path(start.checkpoint).name in given_up:
                raise GaveUp(f"{start.checkpoint}, which it starts from, gave up")
            checkpoint = train(experiment, out / name, resume=True, device=device)
            if protocol.measured_of(read_passport(checkpoint).kind) is None:
                continue
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
                given_up.add(name)
                _note(experiment, out / name, protocol, str(error), device)
            continue
        if record.error is not None:
            failures.append(f"experiment {name}: {record.error} ({place})")
    if not any(out.glob("*/eval/*.json")):
        if failures:
            raise CembenchError(f"{path}: {'; '.join(failures)}")
        return [], []
    boards = rank(find_records([out]).values())
    write_boards(boards, out / "leaderboards")
    return boards, failures
