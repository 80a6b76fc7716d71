"""Settings to start from: a data set and a method; the rest as the nearest recipe says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from cembench.data import datasets
from cembench.methods import methods
from cembench.models import models
from cembench.training.config import Experiment
from cembench.util.errors import ConfigError
from cembench.util.files.yaml import read_yaml
from cembench.util.overrides import merge
from cembench.util.registry import Registry
from cembench.util.shipped import find_file, shipped

# Data sets whose recipes fit another one, which has none of its own for such a method.
SIMILAR = {"mnist": "fashion-mnist", "fashion-mnist": "digits"}
# What nobody but the user knows, as an example of it.
EXAMPLES: dict[str, Any] = {
    "root": "images",
    "arch": "resnet50",
    "target": "mypackage.nets:network",
    "parts": ["cifar10", {"name": "parquet", "root": "generated", "share": 0.7}],
}
# Training from random weights in the way of torchvision's reference scripts.
IMAGENET: dict[str, Any] = {
    "model": {"name": "torchvision", "arch": "resnet50"},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "epochs": 90,
    "batch_size": 256,
}
FEATURES = {
    "pretrained": {"checkpoint": "runs/infonce", "frozen": True},
    "select": "last",
    "epochs": 1,
}


class Start(NamedTuple):
    """Settings of an experiment, as a file would give them.

    Attributes:
        values: by key.
        source: the recipe that they follow.
    """

    values: dict[str, Any]
    source: str


def start_of(data: str, method: str, model: str | None = None) -> Start:
    """Return settings of an experiment with a data set, a method and a network.

    Raises:
        ConfigError: for an unknown name, and for images that no file can name.
    """
    if data == "memory":
        why = "images of a Python program, which no file can name; see cembench.dataset"
        raise ConfigError.single(f"memory: {why}")
    own = {"data": _named(datasets, data), "method": _named(methods, method)}
    trainable = methods.find(method).trainable
    recipe, found = _nearest(data, method if trainable else "infonce")
    if found["data"]["name"] == data:
        own["data"] |= found["data"]
    if found["method"]["name"] == method and _one_scale(own["data"], found["data"]):
        own["method"] = found["method"]
        own |= {"threat": found["threat"]} if "threat" in found else {}
    values = {key: value for key, value in found.items() if key not in ("data", "method", "threat")}
    for more in ([IMAGENET] if data == "imagenet" else []) + ([] if trainable else [FEATURES]):
        values = merge(values, more)
    first = methods.parse(own["method"]).first_kept
    if values.get("epochs", first) < first:
        values["epochs"] = 2 * first
    if model is not None:
        values["model"] = _named(models, model)
    usual = datasets.parse(own["data"]).threat
    eps = usual.radius if "/" in usual.radius else usual.eps
    threat = {"threat": {"norm": usual.norm, "eps": eps}}
    return Start({**threat, **own, **values}, recipe)


def _named(registry: Registry[Any], name: str) -> dict[str, Any]:
    """Return the name as settings, with examples of what they cannot do without."""
    fields = registry.find(name).model_fields.items()
    needed = [key for key, field in fields if field.is_required() and key in EXAMPLES]
    return {"name": name, **{key: EXAMPLES[key] for key in needed}}


def _nearest(data: str, method: str) -> tuple[str, dict[str, Any]]:
    """Return the recipe that is nearest, and its experiment that is."""
    known = _experiments()
    own = [one for one in known if one[1]["data"]["name"] == data]
    titles = {f"{data}-{method}", f"cifar10-{method}"}
    recipe, values = max(
        own or [one for one in known if one[1]["data"]["name"] == SIMILAR.get(data, "cifar10")],
        key=lambda one: (*_likeness(one[1], method), one[0] in titles),
    )
    labels = methods.find(values["method"]["name"]).labels
    if labels == methods.find(method).labels or data not in SIMILAR:
        return recipe, values
    return _nearest(SIMILAR[data], method)


def _likeness(values: Mapping[str, Any], method: str) -> tuple[bool, ...]:
    """Return how much alike the method of an experiment is: whether the same, or of its kind."""
    own, other = methods.find(method), methods.find(values["method"]["name"])
    kinds = ("labels", "on_divergence", "attacks")
    alike = tuple(getattr(own, kind) == getattr(other, kind) for kind in kinds)
    return (own is other, *alike)


def _one_scale(data: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether radii and steps of one data set suit another."""
    return datasets.parse(data).threat == datasets.parse(other).threat


@cache
def _experiments() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return every experiment of the recipes but probes; single ones come first."""
    return tuple(_read())


def _read() -> Iterator[tuple[str, dict[str, Any]]]:
    read = {name: read_yaml(find_file("recipe", name)) for name in shipped("recipe")}
    for name, values in read.items():
        if "method" in values:
            yield name, _long(values)
    for name, values in read.items():
        for own in values.get("experiments", {}).values():
            if "probe" not in own:
                yield name, _long(merge(values["shared"], own))


def _long(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which data, model and method are mappings."""
    short = {key: {"name": values[key]} for key in ("data", "model", "method")}
    return {**values, **{k: v for k, v in short.items() if isinstance(v["name"], str)}}


def experiment_of(start: Start) -> Experiment:
    """Return the experiment that settings to start from make.

    Raises:
        ConfigError: for a data set and a method, or a network, that do not go together.
    """
    return Experiment.parse(start.values)
