"""`cembench import`: turn a classifier trained elsewhere into a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cembench.cli.base import DATA_ROOT, FILE, RUN, Command, say
from cembench.energy.norms import NORMS

F = TypeVar("F", bound=Callable[..., Any])

NORMALISE = "Input normalisation: none, imagenet, … or means/deviations."
OPTIONS = (
    click.option("--model", metavar="MODULE:FACTORY", help="Or torchvision:ARCH, timm:ARCH, …"),
    click.option("--weights", type=RUN, help="Its state dict: safetensors or torch.save."),
    click.option("--dataset", help="Data set that it classifies: a name, or {name: …, …}."),
    DATA_ROOT,
    click.option("--norm", type=click.Choice([*NORMS]), help="Norm of its threat model."),
    click.option("--eps", help="Radius of its threat model, such as 8/255."),
    click.option("--normalise", "--normalize", default="auto", help=NORMALISE),
    click.option("--method", help="How it was trained, for tables."),
    click.option("--out", type=FILE, help="Checkpoint to write. Default: in runs/."),
)


def import_options(command: F) -> F:
    """Add the options that name a network trained elsewhere."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def imported(
    model: str | None,
    dataset: str | None,
    data_root: str | None,
    norm: str | None,
    eps: str | None,
    method: str | None,
    **options: Any,
) -> Path:
    """Import the network that the options name, and print the inferred normalisation on stderr."""
    from cembench.energy.threat import ThreatChange
    from cembench.interop.importing import import_model
    from cembench.models.metadata import read_metadata
    from cembench.util.errors import CembenchError
    from cembench.util.files.yaml import parse_yaml

    if model is None or dataset is None:
        missing = "--model" if model is None else "--dataset"
        raise CembenchError(f"{missing}: say it too, to import a network from elsewhere")
    given = {"norm": norm, "eps": None if eps is None else parse_yaml(eps, "--eps")}
    threat = ThreatChange.parse({key: value for key, value in given.items() if value is not None})
    options |= {"data_root": data_root, "threat": threat, "method": method or "imported"}
    file = import_model(model, dataset, **options)
    say(f"cembench: {read_metadata(file).origin}", err=True)
    return file


@click.command("import", cls=Command, example="--model nets:wide --weights w.pt --dataset cifar10")
@import_options
def command(**options: Any) -> None:
    """Import a classifier that was trained elsewhere.

    Prints the path of the checkpoint.

    Weights may have the usual prefixes and lie inside the usual keys; nothing but tensors is
    unpickled. The normalisation of pixels (none, half for [-1, 1], imagenet, cifar10, data, … or
    means/deviations) is inferred from training images, unless given.
    """
    say(imported(**options))
