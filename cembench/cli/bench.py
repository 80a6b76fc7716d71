"""`cembench bench`: speed and verdicts compared with reference implementations."""

from __future__ import annotations

import json
from typing import Any

import click

from cembench.cli.base import DEVICE, FILE, JSON, Command
from cembench.cli.names import offer

WORKS = ("train", "sample", "pgd", "autoattack")
METHODS, SAMPLERS, MODELS = offer("methods"), offer("samplers"), offer("models")
PRECISIONS = click.Choice(["auto", "fp32", "bf16"])


@click.command("bench", cls=Command, example="train --method trades --rounds 3")
@click.argument("works", nargs=-1, type=click.Choice([*WORKS, "scale"]))
@click.option("--method", default="at", shell_complete=METHODS, help="Method of train.")
@click.option("--sampler", default="rcs", shell_complete=SAMPLERS, help="For sample: rcs or sgld.")
@click.option("--model", default="resnet18", shell_complete=MODELS, help="Network.")
@click.option("--batch", default=32, type=click.IntRange(2), help="Images in a batch.")
@click.option("--rounds", default=5, type=click.IntRange(1), help="How often each is timed.")
@click.option("--images", default=256, type=click.IntRange(1, 597), help="Images to attack.")
@click.option("--seeds", default=1, type=click.IntRange(1), help="Seeds to attack with.")
@click.option("--checkpoint", "checkpoints", multiple=True, type=FILE, help="Network to attack.")
@click.option("--precision", default="auto", type=PRECISIONS, help="Of our side.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the networks of our side.")
@JSON(help="Print rows as JSON instead of a table.")
@DEVICE
def command(works: tuple[str, ...], device: str, as_json: bool, **options: Any) -> None:
    """Compare WORKS with reference implementations.

    All but scale unless given; both sides are interleaved in one process.

    References: pyautoattack's run_standard_evaluation, torchattacks.PGD, and the loops that
    research code has for training and sampling. autoattack and pgd attack networks that they train
    first, or each --checkpoint. All works together take about half an hour on two
    cores, most of it in pyautoattack. scale: training in one process and in two, one thread each.
    """
    from cembench.bench import table
    from cembench.bench.works import run
    from cembench.util.devices import pick_device

    rows = [row for work in works or WORKS for row in run(work, pick_device(device), **options)]
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows), nl=as_json)
