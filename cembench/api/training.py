"""Training from Python: experiments and probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cembench.api.data import fitted, parse_data
from cembench.data import DataSettings
from cembench.data.in_memory import InMemoryData
from cembench.interop.hub.address import local_folder
from cembench.interop.hub.cache import fetch_start, local
from cembench.training.config import Experiment, load_experiment, parse_experiment
from cembench.util.errors import blaming
from cembench.util.files.fetched import told
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.lazy import lazy_imports
from cembench.util.overrides import merge, override

with lazy_imports():
    from cembench.models.metadata import read_metadata
    from cembench.training.probes import Mode, probe_experiment
    from cembench.training.train import train as train_in
    from cembench.util.processes.distributed import world
    from cembench.util.processes.process_group import process_group


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


def _experiment(
    config: str | Path | Mapping[str, Any] | Experiment,
    data: Any,
    overrides: Sequence[str],
    name: str | None,
) -> tuple[Experiment, str]:
    """Return an experiment, and the name of its run: of the file or method unless given."""
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
