"""`cembench sample`: draw samples from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cembench.cli.base import DEVICE, FILE, Command
from cembench.cli.names import offer
from cembench.util.errors import CembenchError

STARTS = ("gaussian", "pooled", "cluster", "noise", "data", "buffer", "outside")


@click.command("sample", cls=Command)
@click.argument("checkpoint", type=FILE)
@click.option(
    "--sampler",
    default="rcs",
    shell_complete=offer("samplers"),
    show_default=True,
    help="A name of `list samplers`.",
)
@click.option("-n", "count", default=80, show_default=True, type=click.IntRange(1))
@click.option("--class", "label", help="Name of the one class to draw.")
@click.option(
    "--init", "--seeds", "init", type=click.Choice([*STARTS]), help="Kind of initial images."
)
@click.option("--image", type=click.IntRange(0), help="Row of the training image to approach.")
@click.option("--steps", type=click.IntRange(1))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the sampler.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--out", type=FILE, default="grid.png", show_default=True, help="The picture.")
@click.option("--save-tensors", type=FILE, help="Save images, starts and labels as safetensors.")
@click.option("--trajectory", type=FILE, help="Save how chains move: a .gif or a .png strip.")
@DEVICE
def command(
    checkpoint: Path,
    sampler: str,
    count: int,
    label: str | None,
    init: str | None,
    image: int | None,
    steps: int | None,
    overrides: tuple[str, ...],
    seed: int,
    out: Path,
    save_tensors: Path | None,
    trajectory: Path | None,
    device: str,
) -> None:
    """Draw samples from a checkpoint into a picture.

    Prints how the network itself classifies them."""
    from cembench.models.metadata import read_metadata
    from cembench.samplers import samplers
    from cembench.samplers.to_files import sample_to_files
    from cembench.util.devices import pick_device
    from cembench.util.layout import RunLayout
    from cembench.util.overrides import override
    from cembench.util.settings import nearest

    given = {"start": init, "steps": steps, "image": image}
    chosen = {key: value for key, value in given.items() if value is not None}
    settings = samplers.parse(override({"name": sampler, **chosen}, overrides))
    classes = read_metadata(RunLayout.at(checkpoint).checkpoint).classes
    if label is not None and label not in classes:
        raise CembenchError(f"--class: no class '{label}'; {nearest(label, classes)}")
    if label is not None and (settings.target_type == "none" or image is not None):
        raise CembenchError("--class: with --image, or a sampler without target classes; drop it")
    summary = sample_to_files(
        checkpoint,
        settings,
        count,
        picture=out,
        label=None if label is None else classes.index(label),
        seed=seed,
        device=pick_device(device),
        tensors=save_tensors,
        trajectory=trajectory,
    )
    click.echo(json.dumps({"samples": count, "sampler": settings.dump(), **summary}, indent=2))
