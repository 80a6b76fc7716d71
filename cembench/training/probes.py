"""Probes: classifiers on the features of a trained network.

Each is an ordinary experiment that starts from another run, as in the literature on robust
self-supervision (ACL, arXiv 2010.13337): a linear head on frozen features or all weights, trained
on clean or on attacked images; or nearest neighbours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cembench.data.roots import require_named
from cembench.models.metadata import read_metadata
from cembench.models.recipe import recipe_of
from cembench.training.config import Experiment, parse_experiment
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.overrides import merge
from cembench.util.settings import Settings, nearest

Mode = Literal["linear", "adv-linear", "finetune", "adv-finetune", "knn"]

HEAD_ALONE = {"epochs": 25, "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 2e-4}}
ALL_WEIGHTS = {"epochs": 25, "optimizer": {"name": "sgd", "lr": 0.02, "weight_decay": 5e-4}}
MODES: dict[str, dict[str, Any]] = {
    "linear": {"method": {"name": "standard"}, "pretrained": {"frozen": True}, **HEAD_ALONE},
    "adv-linear": {"method": {"name": "at"}, "pretrained": {"frozen": True}, **HEAD_ALONE},
    "finetune": {"method": {"name": "standard"}, **ALL_WEIGHTS},
    "adv-finetune": {"method": {"name": "at"}, **ALL_WEIGHTS},
    "knn": {
        "method": {"name": "knn"},
        "pretrained": {"frozen": True},
        "epochs": 1,
        "select": "last",
    },
}
KEPT = ("data", "model", "threat", "seed", "precision", "validation", "tracker")


class Probe(Settings):
    """Probe of an experiment in a suite.

    Attributes:
        of: name of the experiment whose features are probed.
        mode: `linear` and `adv-linear` train a head on frozen features, on clean or on attacked
            images; `finetune` and `adv-finetune` train all weights; `knn` is k-nearest neighbours.
    """

    of: Annotated[str, Field(min_length=1)]
    mode: Mode = "linear"


def probe_settings(base: Experiment, checkpoint: Path, mode: Mode) -> dict[str, Any]:
    """Return the settings of a probe.

    Args:
        base: the probed experiment, whose data, network, threat model, seed and validation images
            are used.
        checkpoint: path of its weights, which need not exist yet.
        mode: a key of `MODES`.
    """
    if mode not in MODES:
        raise CembenchError(f"mode: no probe '{mode}'; {nearest(str(mode), MODES)}")
    settings = base.dump() | {"tracker": [tracker.dump() for tracker in base.tracker]}
    start = {
        "checkpoint": str(checkpoint),
        "method": base.title,
        "labels": base.labels,
        "recipe": recipe_of(base.dump()),
    }
    return merge({key: settings[key] for key in KEPT}, merge(MODES[mode], {"pretrained": start}))


def probe_experiment(checkpoint: Path, mode: Mode, overrides: dict[str, Any]) -> Experiment:
    """Return the experiment of a probe of a checkpoint.

    Raises:
        CembenchError: when it cannot be read or was not trained by cembench.
        ConfigError: for wrong overrides.
    """
    file = RunLayout.at(checkpoint).checkpoint
    metadata = read_metadata(file)
    if not metadata.config:
        raise CembenchError(f"{file}: says nothing of its training; a probe needs its data split")
    base = parse_experiment(metadata.config, str(file))
    values = merge(probe_settings(base, checkpoint, mode), overrides)
    probe = parse_experiment(values, f"probe of {file}")
    given = overrides.get("data")
    if not (isinstance(given, dict) and {"root", "parts"} & given.keys()):
        require_named(probe.data, file, "data.root=")
    return probe
