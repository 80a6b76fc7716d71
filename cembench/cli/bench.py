"""`cembench bench`: speed and verdicts compared with reference implementations."""

from __future__ import annotations

import json
from typing import Any

import click

from cembench.cli.base import DEVICE, Command
from cembench.cli.names import offer

WORKS = ("train", "sample", "pgd", "autoattack")


@click.command("bench", cls=Command)
@click.argument("works", nargs=-1, type=click.Choice([*WORKS, "scale"]))
@click.option(
    "--method",
    default="at",
    shell_complete=offer("methods"),
    show_default=True,
    help="train: at, trades, infonce, …",
)
@click.option(
    "--sampler",
    default="rcs",
    shell_complete=offer("samplers"),
    show_default=True,
    help="sample: rcs or sgld.",
)
@click.option(
    "--model",
    default="resnet18",
    shell_complete=offer("models"),
    show_default=True,
    help="train, sample: architecture.",
)
@click.option("--batch", default=32, show_default=True, type=click.IntRange(2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--images", default=256, show_default=True, type=click.IntRange(1, 597))
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Attacks.")
@click.option("--precision", default="auto", type=click.Choice(["auto", "fp32", "bf16"]))
@click.option("--compile", "compiled", is_flag=True, help="Compile our side's networks.")
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON instead of a table.")
@DEVICE
def command(works: tuple[str, ...], device: str, as_json: bool, **options: Any) -> None:
    """Compare WORKS with reference implementations.

    All but scale unless given; both sides are interleaved in one process.

    References: pyautoattack's run_standard_evaluation, torchattacks.PGD, and the loops that
    research code has for training and sampling. All works together take about half an hour on two
    cores, most of it in pyautoattack. scale: training in one process and in two, one thread each.
    """
    from cembench.bench import table
    from cembench.bench.works import run
    from cembench.util.devices import pick_device

    chosen = works or WORKS
    rows = [row for work in chosen for row in run(work, pick_device(device), **options)]
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows), nl=as_json)
