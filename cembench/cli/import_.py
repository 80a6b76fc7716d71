"""`cembench import`: turn a classifier trained elsewhere into a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cembench.cli.base import FILE, Command
from cembench.energy.norms import NORMS

F = TypeVar("F", bound=Callable[..., Any])


OPTIONS = (
    click.option("--model", metavar="MODULE:FACTORY", help="Or torchvision:ARCH, timm:ARCH, …"),
    click.option("--weights", type=FILE, help="Its state dict: safetensors or torch.save."),
    click.option("--dataset", help="What it classifies: a name, or {name: …, settings…}."),
    click.option("--data-root", help="Where the data lies now."),
    click.option("--norm", type=click.Choice([*NORMS]), help="Of its threat model."),
    click.option("--eps", help="Radius of its threat model, such as 8/255."),
    click.option(
        "--normalise",
        "--normalize",
        default="auto",
        show_default=True,
        help="none, half ([-1, 1]), imagenet, cifar10, data, … or means/deviations.",
    ),
    click.option("--method", help="How it was trained, for tables."),
    click.option("--out", type=FILE, help="The checkpoint to be; in runs/ unless given."),
)


def import_options(command: F) -> F:
    """Add the options that name a network from elsewhere."""
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
    from cembench.util.yaml import parse_yaml

    if model is None or dataset is None:
        missing = "--model" if model is None else "--dataset"
        raise CembenchError(f"{missing}: say it too, to import a network from elsewhere")
    given = {"norm": norm, "eps": None if eps is None else parse_yaml(eps, "--eps")}
    threat = ThreatChange.parse({key: value for key, value in given.items() if value is not None})
    file = import_model(
        model,
        dataset,
        data_root=data_root,
        threat=threat,
        method=method or "imported",
        **options,
    )
    click.echo(f"cembench: {read_metadata(file).origin}", err=True)
    return file


@click.command("import", cls=Command)
@import_options
def command(**options: Any) -> None:
    """Import a classifier that was trained elsewhere.

    Prints the path of the checkpoint.

    Weights may have the usual prefixes and lie inside the usual keys; nothing but tensors is
    unpickled. The normalisation of pixels is inferred from training images, unless given.
    """
    click.echo(imported(**options))
