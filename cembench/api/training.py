"""Training from Python: experiments, probes and suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cembench.api.arguments import checked
from cembench.api.data import fitted, parse_data
from cembench.data import DataSettings
from cembench.data.in_memory import InMemoryData
from cembench.interop.hub.address import local_folder
from cembench.interop.hub.cache import fetch_start, local
from cembench.training.config import Experiment, load_experiment, parse_experiment
from cembench.util.errors import CembenchError, blaming
from cembench.util.files.fetched import told
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.lazy import lazy_imports
from cembench.util.overrides import merge, override

with lazy_imports():
    from cembench.models.metadata import read_metadata
    from cembench.reporting.leaderboard.board import Boards
    from cembench.suites.run import SuiteResult
    from cembench.suites.run import run_suite as run_all
    from cembench.training.probes import Mode, probe_experiment
    from cembench.training.train import train as train_in
    from cembench.util.processes.distributed import world
    from cembench.util.processes.process_group import process_group


@checked
def train(
    config: str | Path | Mapping[str, Any] | Experiment,
    out: str | Path = "runs",
    *,
    data: Any = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
) -> Path:
    """Train an experiment in its run folder `out/name` and return its checkpoint.

    Args:
        config: a YAML file or the name of a recipe, its content, or an `Experiment`.
        out: the folder of runs.
        data: what to train on, in place of the data that the config says: a name, settings, or
            training images from memory as `dataset` takes them.
        name: of the run; that of the file, or of the method, unless given.
        overrides: `key.inner=value` assignments.
        resume: go on with a run that is there, or return at once when it is finished.
        device: where to compute.

    Raises:
        CembenchError: for wrong settings, missing data, a run that is there, or divergence.
    """
    with process_group(device) as own:
        experiment, run = world().on_all_ranks(lambda: _experiment(config, data, overrides, name))
        return train_in(experiment, local_folder(out) / run, resume=resume, device=own)


@checked
def probe(
    checkpoint: str | Path,
    mode: Mode = "linear",
    out: str | Path = "runs",
    *,
    data: Any = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
) -> Path:
    """Fit a classifier to the features of a checkpoint and return the new one.

    Args:
        checkpoint: of an encoder or a classifier.
        mode: `linear`, `adv-linear`, `finetune`, `adv-finetune` or `knn`.
        out: the folder of runs.
        data: as for `train`; the training images of the checkpoint unless given.
        name: of the new run; that of the probed one and the mode unless given.
        overrides: `key.inner=value` assignments to the settings of the probe.
        resume: as for `train`.
        device: where to compute.

    Raises:
        CembenchError: when it cannot be read, or was not trained by cembench.
    """
    checkpoint = local(checkpoint)
    layout = RunLayout.at(checkpoint)
    start = {"pretrained": {"checkpoint": told(checkpoint)}}
    experiment = probe_experiment(checkpoint, mode, merge(start, override({}, overrides)))
    if data is not None:
        data = fitted(parse_data(data, "train"), read_metadata(layout.checkpoint))
    name = f"{layout.name}-{mode}" if name is None else name
    return train(experiment, out, data=data, name=name, resume=resume, device=device)


@checked
def run_suite(
    path: str | Path,
    out: str | Path = "runs",
    *,
    device: str = "auto",
    jobs: int | None = None,
    launcher: str = "local",
    settings: Mapping[str, Any] | None = None,
    max_failures: int | None = None,
    inception_weights: str | Path | None = None,
) -> SuiteResult:
    """Train and evaluate what a suite lists and is not done yet; rank all runs of a folder.

    Args:
        path: the suite: a file, or the name of a recipe.
        out: the folder of runs, which all machines must see; tables go to `leaderboards` in it.
        device: where an experiment runs.
        jobs: how many run at once. Unless given, as many as there are elsewhere; on this machine
            one with all threads, or one with one thread on each core where networks are tiny.
        launcher: `local`, `ray` or `submitit`.
        settings: what the launcher takes.
        max_failures: failures after which the others are stopped; they save their state.
        inception_weights: weights for the extractors `inception` and `dinov2`.

    Returns:
        `boards`, `failures` in words, and `records` of this suite by file.

    Raises:
        CembenchError: when the suite is wrong, every experiment failed, or another process runs it.
    """
    weights = None if inception_weights is None else Path(inception_weights)
    found = run_all(
        Path(path),
        Path(out),
        device,
        weights,
        jobs=jobs,
        launcher=launcher,
        settings=None if settings is None else dict(settings),
        max_failures=max_failures,
    )
    return replace(found, boards=Boards(found.boards))


def _experiment(
    config: str | Path | Mapping[str, Any] | Experiment,
    data: Any,
    overrides: Sequence[str],
    name: str | None,
) -> tuple[Experiment, str]:
    """Return an experiment, and the name of its run: of the file or method unless given."""
    if not isinstance(config, str | Path | Mapping | Experiment):
        raise CembenchError(f"config: a {type(config).__name__} is no recipe, file or settings")
    given = None if data is None else parse_data(data, "train")
    if isinstance(config, str | Path):
        experiment, stem = load_experiment(Path(config), overrides, given), Path(config).stem
    else:
        values = _values(config) | ({} if given is None else {"data": given})
        experiment = parse_experiment(override(values, overrides), "config")
        stem = experiment.title
    fetch_start(experiment)
    with blaming("--name"):
        return experiment, file_name(stem if name is None else name)


def _values(config: Mapping[str, Any] | Experiment) -> dict[str, Any]:
    """Return the settings of an experiment, whose data may be images in memory."""
    if not isinstance(config, Experiment):
        found = dict(config)
        data = found.get("data")
        own = data is not None and not isinstance(data, str | dict | DataSettings)
        return {**found, "data": parse_data(data, "train")} if own else found
    kept = {"tracker": config.tracker, "save_every": config.save_every}  # which no file keeps
    data = {"data": config.data} if isinstance(config.data, InMemoryData) else {}
    return config.dump() | kept | data
