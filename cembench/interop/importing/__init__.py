"""Import of networks that were trained elsewhere, as checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cembench.data import DataSettings, datasets
from cembench.data.roots import remember
from cembench.energy.threat import Threat, ThreatChange
from cembench.interop.hub.address import is_address
from cembench.interop.hub.cache import local
from cembench.interop.importing.normalisation import infer_normalisation
from cembench.interop.importing.weights import load_weights
from cembench.models import ModelSettings, Shape, models
from cembench.models.checkpoint import (
    build_network,
    load_checkpoint,
    save_checkpoint,
    weights_digest,
)
from cembench.models.classifier import Classifier
from cembench.models.factory import Factory
from cembench.models.libraries import RobustBenchModel
from cembench.models.metadata import CheckpointMetadata
from cembench.models.source import imported_metadata, wrapped
from cembench.models.state_dict import read_weights
from cembench.util.errors import CembenchError, blaming
from cembench.util.files import sha256
from cembench.util.files.fetched import told
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.files.yaml import parse_yaml
from cembench.util.registry import add_plugin
from cembench.util.rng import isolated_rng

PACKAGES = ("torchvision", "timm", "robustbench")


def import_model(
    model: str | dict[str, Any] | ModelSettings,
    data: str | dict[str, Any] | DataSettings,
    weights: str | Path | None = None,
    out: Path | None = None,
    *,
    data_root: str | None = None,
    threat: ThreatChange | None = None,
    normalise: str = "auto",
    method: str = "imported",
) -> Path:
    """Turn a classifier that was trained elsewhere into a checkpoint, and return its path.

    Args:
        model: `package.module:factory`, `torchvision:ARCH`, `timm:ARCH`, `robustbench:NAME`, the
            name of a registered model, or any of their settings as a mapping.
        data: the data set that it classifies; its training images decide on the normalisation.
        weights: its state dict, a file or an address, such as `hf://USER/NAME/FILE`. Without
            one a factory's network is taken as it was built, and RobustBench's weights are
            downloaded.
        out: the file to write, or its run folder; unless given, `runs/NAME` after the weights.
        data_root: the folder of the data.
        threat: what differs from the threat model that is customary for the data.
        normalise: a name or numbers, as `normalisation.normalisation` takes them; or `auto`, to
            infer it from training images.
        method: how it was trained, for tables.

    Raises:
        CembenchError: when weights do not fit, when no known normalisation makes the network
            better than chance, when outputs are no logits, or when another checkpoint is there.
        ConfigError: for wrong settings.
    """
    values = _values(data, "--dataset")
    with blaming("--dataset"):
        dataset = datasets.parse(values).moved(data_root)
    remember(dataset)
    whole = dataset.load("train")
    budget = (threat or ThreatChange()).over(dataset.threat)
    budget.ball.require_below_diameter("eps", math.prod(whole.shape))
    settings = model_settings(model, dataset, budget)
    given = None if weights is None else local(weights)
    source = settings.title if given is None else told(given)
    net = _built(settings, given, (whole.shape, len(whole.classes)))
    wrapped(net, whole)
    try:
        statistics, note = infer_normalisation(net, whole, normalise)
    except CembenchError as error:
        raise CembenchError(f"{source}: {error}") from error
    fetched = given is not None and is_address(source)
    known = "" if given is None else f" (SHA-256 {sha256(given)})"
    origin = f"{source if fetched else Path(source).name}{known}; {note}"
    normalised = wrapped(net, whole, statistics)
    metadata = imported_metadata(
        settings, normalised, dataset, whole, budget, method=method, origin=origin
    )
    with blaming("--out"):
        name = given.parent.name if given is not None and fetched else Path(source).stem
        file = out or Path("runs") / file_name(name)
    file = file if file.suffix == ".safetensors" else RunLayout(file).checkpoint
    _write(file, normalised, metadata)
    return file


def model_settings(
    model: str | dict[str, Any] | ModelSettings, data: DataSettings, threat: Threat
) -> ModelSettings:
    """Return the settings of a network; a factory's module counts as trusted from now on.

    Raises:
        ConfigError: for an unknown name or wrong settings.
    """
    values = _values(model, "--model")
    if isinstance(values, str) and ":" in values:
        kind, _, rest = values.partition(":")
        known = kind in PACKAGES
        values = {"name": kind, "arch": rest} if known else {"name": "factory", "target": model}
        if kind == "robustbench":
            where = "cifar100" if data.title.startswith("cifar100") else "cifar10"
            values |= {"dataset": where, "threat": threat.ball.library_name}
    with blaming("--model"):
        settings = models.parse(values)
    if isinstance(settings, Factory):
        add_plugin(settings.target.partition(":")[0])
    return settings


def _values(given: object, option: str) -> Any:
    yaml = isinstance(given, str) and given.lstrip().startswith("{")
    return parse_yaml(str(given), option) if yaml else given


def _built(settings: ModelSettings, weights: Path | None, size: tuple[Shape, int]) -> nn.Module:
    """Return the network with its weights, in evaluation mode."""
    if weights is None and isinstance(settings, RobustBenchModel):
        return settings.download().eval()
    if weights is None and not isinstance(settings, Factory):
        raise CembenchError(f"--weights: {settings.title} has none of its own; give a file")
    found = None if weights is None else read_weights(weights)
    with isolated_rng(0):
        net = settings.build(*size)
    if found is not None:
        load_weights(net, found, f"{weights} for {settings.title}")
    return net.eval()


def _write(file: Path, model: Classifier, metadata: CheckpointMetadata) -> None:
    """Write the checkpoint, after checking that it is enough to build the network again."""
    weights = model.state_dict()
    again = build_network(metadata).eval()
    again.load_state_dict(weights)
    blank = torch.full((2, *metadata.shape), 0.5)
    with torch.no_grad():
        if not torch.equal(again(blank), model.eval()(blank)):
            raise CembenchError(
                f"{metadata.model.title}: built again with the same weights it answers otherwise; "
                "it must keep all that it depends on in parameters and buffers"
            )
    if file.exists():
        old, known = load_checkpoint(file)
        same = weights_digest(old.state_dict()) == weights_digest(weights)
        if not same or known.dump() != metadata.dump():
            raise CembenchError(f"{file}: another checkpoint is there; choose another --out")
        return
    save_checkpoint(file, weights, metadata)
