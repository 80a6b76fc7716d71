"""cembench from Python: each function is what a command calls.

Paths may be given as text. `device` is `auto` (CUDA's GPU where there is one), `cpu`, `cuda`,
`cuda:1`, … or `mps`. What a user can put right is raised as `cembench.util.errors.CembenchError`,
in one line.

Examples:
    >>> import cembench as cb
    >>> tiny = {"data": "digits", "model": {"name": "small_cnn", "width": 8}, "epochs": 2}
    >>> checkpoint = cb.train({**tiny, "method": "at"}, name="tiny")
    >>> checkpoint.as_posix()
    'runs/tiny/model.safetensors'
    >>> model = cb.load(checkpoint)
    >>> model.metadata.threat.eps
    0.125
    >>> samples = cb.sample(model, sampler="rcs", count=20, steps=10)
    >>> tuple(samples.images.shape)
    (20, 1, 8, 8)
    >>> plan = {"attacks": [{"name": "pgd", "steps": 5}, "autoattack"], "limit": 32}
    >>> record = cb.evaluate(checkpoint, protocol=plan)
    >>> figure = record.figures["autoattack"]
    >>> figure.images, 0 <= figure.low <= figure.accuracy <= figure.high <= 1
    (32, True)
    >>> cb.rank(["runs"])[0].stem
    'digits-linf-0.125'

    A network that you built yourself takes images in [0, 1], N×C×H×W, and gives N×K logits:

    >>> from torch import nn
    >>> mine = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> cb.evaluate(mine, "digits", plan | {"limit": 8}, trust_pixels=True).run
    'Sequential'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cembench.data import DataSettings, datasets
from cembench.energy.threat import Threat
from cembench.evaluation.gate.check import check as check_baseline
from cembench.evaluation.gate.evaluator import Evaluator
from cembench.evaluation.gate.gate import Outcome
from cembench.evaluation.protocol import Protocol, load_protocol, parse_protocol
from cembench.evaluation.record import Record
from cembench.samplers import Sampler, samplers
from cembench.training.config import Experiment, load_experiment, parse_experiment
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError, blaming
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.lazy import lazy_imports
from cembench.util.overrides import override

with lazy_imports():
    import torch
    from torch import nn

    from cembench.evaluation.evaluate import evaluate as evaluate_source
    from cembench.interop.importing.normalisation import infer_normalisation
    from cembench.models.checkpoint import load_checkpoint
    from cembench.models.classifier import Classifier
    from cembench.models.source import ModelSource
    from cembench.reporting.leaderboard import Board, build_boards, find_records, write_boards
    from cembench.reporting.plots.curves import write_curve
    from cembench.samplers.context import CheckpointImages
    from cembench.samplers.draw import Samples
    from cembench.samplers.to_files import iter_samples
    from cembench.training.probes import Mode, probe_experiment
    from cembench.training.train import train as train_in
    from cembench.util.distributed import process_group, world

Place = str | Path
Data = str | dict[str, Any] | DataSettings


def train(
    config: Place | Mapping[str, Any] | Experiment,
    out: Place = "runs",
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
) -> Path:
    """Train an experiment in its run folder `out/name` and return its checkpoint.

    Args:
        config: a YAML file or the name of a recipe, its content, or an `Experiment`.
        out: the folder of runs.
        name: of the run; that of the file, or of the method, unless given.
        overrides: `key.inner=value` assignments.
        resume: go on with a run that is there, or return at once when it is finished.
        device: where to compute.

    Raises:
        CembenchError: for wrong settings, missing data, a run that is there, or divergence.
    """
    with process_group(device) as own:
        experiment, run = world().on_all_ranks(lambda: _experiment(config, overrides, name))
        return train_in(experiment, Path(out) / run, resume=resume, device=own)


def probe(
    checkpoint: Place,
    mode: Mode = "linear",
    out: Place = "runs",
    *,
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
        name: of the new run; that of the probed one and the mode unless given.
        overrides: `key.inner=value` assignments to the settings of the probe.
        resume: as for `train`.
        device: where to compute.

    Raises:
        CembenchError: when it cannot be read, or was not trained by cembench.
    """
    experiment = probe_experiment(Path(checkpoint), mode, override({}, overrides))
    if name is None:
        name = f"{RunLayout.at(Path(checkpoint)).name}-{mode}"
    return train(experiment, out, name=name, resume=resume, device=device)


def evaluate(
    model: Place | nn.Module,
    data: Data | None = None,
    protocol: Place | Mapping[str, Any] | Protocol = "quick",
    *,
    threat: Threat | None = None,
    out: Place | None = None,
    trust_pixels: bool = False,
    device: str = "auto",
    data_root: str | None = None,
    inception_weights: Place | None = None,
    save_samples: bool = False,
    save_adversarial: bool = False,
) -> Record:
    """Attack a network and score its samples, as a protocol says; return the record.

    Args:
        model: a checkpoint or run folder; or a network in memory: images in [0, 1], N×C×H×W, to
            N×K logits. It is left as it was.
        data: the data set, by name or as settings; its own for a checkpoint.
        protocol: a name, a YAML file, or its content.
        threat: the threat model of a network in memory; customary for the data unless given.
        out: the folder where `eval` and `samples` go. Beside a checkpoint unless given; of a
            network in memory nothing is kept then.
        trust_pixels: leave out the check that a network in memory is right on training images as
            they are, more often than under another normalisation.
        device: where to compute.
        data_root: where the data lies now.
        inception_weights: weights for the extractor `inception`.
        save_samples: keep all samples beside the pictures of them.
        save_adversarial: keep what broke each image.

    Raises:
        CembenchError: when model or data cannot be used. A network that breaks its contract gives a
            record with `error` and no figures instead.
    """
    plan = _protocol(protocol)
    with TemporaryDirectory() as nowhere, process_group(device) as own:
        place = nowhere if out is None and isinstance(model, nn.Module) else out
        source = world().on_all_ranks(lambda: _source(model, data, threat, trust_pixels))
        record, _ = evaluate_source(
            source,
            plan,
            folder=None if place is None else Path(place),
            device=own,
            data_root=data_root,
            inception_weights=None if inception_weights is None else Path(inception_weights),
            save_samples=save_samples,
            save_adversarial=save_adversarial,
            on_record=write_curve,
        )
        return record


def sample(
    model: Place | nn.Module,
    sampler: str | Mapping[str, Any] | Sampler = "rcs",
    count: int = 80,
    *,
    data: Data | None = None,
    label: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data_root: str | None = None,
    **settings: Any,
) -> Samples:
    """Draw samples, all classes in turn; none is filtered.

    Args:
        model: a checkpoint or run folder, or a network in memory.
        sampler: a name of `cembench list samplers`, or its settings.
        count: the number of samples, N.
        data: what a network in memory classifies; seeds are fitted on its training images.
        label: the one class to draw.
        seed: decides starts and noise.
        device: where to compute.
        data_root: where the data of a checkpoint lies now.
        settings: of the sampler, such as `steps=40` or `start="noise"`.

    Returns:
        `images` and `starts`, N×C×H×W, float32 in [0, 1]; `labels`, N; `logits`, N×K.

    Raises:
        SamplingError: when the chains leave the finite numbers, or lack what they start from.
    """
    if isinstance(sampler, str):
        sampler = {"name": sampler}
    chosen = sampler if isinstance(sampler, Sampler) else samplers.parse({**sampler, **settings})
    source = _source(model, data, None).moved(data_root)
    images = CheckpointImages(source.file, source.metadata, torch.device(pick_device(device)))
    chunks = iter_samples(source, chosen, images, count, label, seed)
    return Samples.joined([drawn for drawn, _ in chunks])


def load(path: Place, device: str = "cpu") -> Classifier:
    """Return the network of a checkpoint or run folder, in evaluation mode.

    It maps float images in [0, 1], N×C×H×W, to N×K logits (an encoder: to N×D embeddings of length
    1); `metadata` says what it is.

    Args:
        path: the file, or the folder of its run.
        device: where it goes.

    Raises:
        CembenchError: for a missing, damaged or foreign file.
    """
    return load_checkpoint(Path(path), pick_device(device))[0]


def rank(runs: Sequence[Place] = ("runs",), out: Place | None = None) -> list[Board]:
    """Rank the records below some folders.

    Args:
        runs: run folders, or folders of them.
        out: where tables are written as CSV and markdown, if anywhere.

    Returns:
        Boards: `table` is a data frame of all columns, `shown` one for people.

    Raises:
        CembenchError: when a folder holds no records, or a record is damaged.
    """
    boards = build_boards(find_records([Path(run) for run in runs]).values())
    if out is not None:
        write_boards(boards, Path(out))
    return boards


def check(
    baseline: Place,
    checkpoints: Sequence[Place] = (),
    *,
    allow_changed_software: bool = False,
    allow_unchecked: bool = False,
    out: Place | None = None,
    device: str = "auto",
    data_root: str | None = None,
    inception_weights: Place | None = None,
) -> list[Outcome]:
    """Compare checkpoints with a baseline, figure by figure.

    Args:
        baseline: the file that `cembench check --update` wrote.
        checkpoints: run folders, files, or `NAME=FILE` for the row of that name; those that the
            baseline names unless given.
        allow_changed_software: compare also when rows were measured with other versions.
        allow_unchecked: let rows pass without sanity checks.
        out: the folder of records; beside the checkpoints unless given.
        device: where to compute.
        data_root: where the data lies now.
        inception_weights: weights for the extractor `inception`.

    Returns:
        One outcome per figure; `outcome.passes` says whether it needs no attention.

    Raises:
        CembenchError: when something is missing or cannot be evaluated, or when protocol, images
            or software are not those that a row was measured under.
    """
    evaluator = Evaluator(
        device,
        data_root,
        None if inception_weights is None else Path(inception_weights),
        None if out is None else Path(out),
        write_curve,
    )
    return check_baseline(
        [str(checkpoint) for checkpoint in checkpoints],
        Path(baseline),
        evaluator,
        allow_changed_software=allow_changed_software,
        allow_unchecked=allow_unchecked,
    )


def _experiment(
    config: Place | Mapping[str, Any] | Experiment, overrides: Sequence[str], name: str | None
) -> tuple[Experiment, str]:
    """Return an experiment, and the name of its run: of the file or method unless given."""
    if isinstance(config, str | Path):
        experiment, stem = load_experiment(Path(config), overrides), Path(config).stem
    else:
        values = config.dump() if isinstance(config, Experiment) else dict(config)
        experiment = parse_experiment(override(values, overrides), "config")
        stem = experiment.title
    with blaming("--name"):
        return experiment, file_name(stem if name is None else name)


def _protocol(protocol: Place | Mapping[str, Any] | Protocol) -> Protocol:
    if isinstance(protocol, Protocol):
        return protocol
    if isinstance(protocol, Mapping):
        return parse_protocol(dict(protocol))
    return load_protocol(str(protocol))


def _source(
    model: Place | nn.Module, data: Data | None, threat: Threat | None, trust_pixels: bool = True
) -> ModelSource:
    dataset = None if data is None else datasets.parse(data)
    if isinstance(model, nn.Module):
        source = ModelSource.of(model, dataset, threat)
        if not trust_pixels and source.metadata.method == "imported":
            # refuses a network that wants other pixels than [0, 1], or gives no logits
            assert source.model is not None
            source.metadata.require_named_root()
            infer_normalisation(source.model, source.metadata.data.load("train"), "none")
        return source
    if dataset is not None or threat is not None:
        raise CembenchError(
            f"{model}: a checkpoint says its data and threat model itself; change them with "
            "data_root, and with threat in the protocol"
        )
    return ModelSource.at(Path(model))
