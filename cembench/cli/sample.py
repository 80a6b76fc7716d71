"""`cembench sample`: draw samples from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cembench.cli.base import DATA_ROOT, DEVICE, FILE, JSON, SET, SETTINGS, Command, say
from cembench.cli.names import offer
from cembench.util.errors import CembenchError

STARTS = ["gaussian", "pooled", "cluster", "noise", "smooth", "data", "buffer", "outside"]
SAMPLERS = offer("samplers")


KEYS = "cembench.samplers.energy:EnergySampler"


@click.command(
    "sample", cls=Command, settings=KEYS, example="runs/at --sampler sgld --init noise noise=0.01"
)
@click.argument("checkpoint", type=FILE)
@SETTINGS
@click.option("--sampler", default="rcs", shell_complete=SAMPLERS, help="See `list samplers`.")
@click.option("-n", "count", default=80, type=click.IntRange(1), help="Number of samples.")
@click.option("--class", "label", help="Name of the one class to draw.")
@click.option("--init", "--seeds", "start", type=click.Choice(STARTS), help="Initial images.")
@click.option("--image", type=click.IntRange(0), help="Row of the training image to approach.")
@click.option("--steps", type=click.IntRange(1), help="Steps of each chain.")
@SET(help="The same as KEY=VALUE.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of initial images and noise.")
@click.option("--out", "picture", type=FILE, default="grid.png", help="Picture of samples (PNG).")
@click.option("--save-tensors", "tensors", type=FILE, help="Save samples as safetensors.")
@DATA_ROOT
@click.option("--trajectory", type=FILE, help="Save the chains' steps: a .gif or .png strip.")
@JSON(help="Print all settings and scores as JSON.")
@DEVICE
def command(
    checkpoint: Path,
    sampler: str,
    count: int,
    label: str | None,
    start: str | None,
    image: int | None,
    steps: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
    device: str,
    data_root: str | None,
    **options: Any,
) -> None:
    """Draw samples from a checkpoint into a picture.

    Prints how the network itself classifies them. KEY=VALUE changes a setting of the sampler, see
    `list SAMPLER`.
    """
    from cembench.models.metadata import read_metadata
    from cembench.samplers import samplers
    from cembench.util.devices import pick_device
    from cembench.util.files.layout import RunLayout
    from cembench.util.overrides import override
    from cembench.util.settings import nearest

    given = {"start": start, "steps": steps, "image": image}
    chosen = {key: value for key, value in given.items() if value is not None}
    settings = samplers.parse(override({"name": sampler, **chosen}, overrides))
    classes = read_metadata(RunLayout.at(checkpoint).checkpoint).classes
    if label is not None:
        if label not in classes:
            raise CembenchError(f"--class: no class '{label}'; {nearest(label, classes)}")
        if settings.target_type == "none" or image is not None:
            raise CembenchError(
                "--class: with --image, or a sampler without target classes; drop it"
            )
        options["label"] = classes.index(label)
    from cembench.models.source import ModelSource
    from cembench.samplers.to_files import sample_to_files

    source = ModelSource.at(checkpoint).moved(data_root)
    summary = sample_to_files(source, settings, count, device=pick_device(device), **options)
    if as_json:
        values = {"samples": count, "sampler": settings.dump(), **summary}
        say(json.dumps(values, indent=2))
        return
    say(f"{count} samples of {settings.title}, {settings.steps} steps: {options['picture']}")
    for words, key, form in (
        ("classified as intended", "own_acc", ".1%"),
        ("log p(x) + const", "lse", ".3g"),
    ):
        if key in summary:
            before, after = (format(summary[k], form) for k in (f"{key}_start", key))
            say(f"{words}: {after} (initial images: {before})")
