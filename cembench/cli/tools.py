"""Commands about cembench itself."""

from __future__ import annotations

import json
from typing import Any

import click

from cembench.cli.base import DEVICE, Command, show

KINDS = ["methods", "models", "datasets", "samplers", "extractors", "metrics", "trackers"]
KINDS += ["protocols", "published"]


@click.command(cls=Command)
@click.argument("works", nargs=-1, type=click.Choice(["train", "sample", "pgd", "autoattack"]))
@click.option("--method", default="at", show_default=True, help="train: at, trades, infonce, …")
@click.option("--sampler", default="rcs", show_default=True, help="sample: rcs or sgld.")
@click.option("--model", default="resnet18", show_default=True, help="train, sample: architecture.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--images", default=256, show_default=True, type=click.IntRange(1, 597))
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Attacks.")
@click.option("--precision", default="auto", type=click.Choice(["auto", "fp32", "bf16"]))
@click.option("--compile", "compiled", is_flag=True, help="Compile our side's networks.")
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON instead of a table.")
@DEVICE
def bench(works: tuple[str, ...], device: str, as_json: bool, **options: Any) -> None:
    """Time WORKS (all unless given) beside references, interleaved in one process.

    References: pyautoattack's run_standard_evaluation, torchattacks.PGD, and the loops that
    research code has for training and sampling. All works together take about half an hour on two
    cores, most of it in pyautoattack.
    """
    from cembench.bench import table
    from cembench.bench.works import run
    from cembench.devices import pick_device

    chosen = works or ("train", "sample", "pgd", "autoattack")
    rows = [row for work in chosen for row in run(work, pick_device(device), **options)]
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows), nl=as_json)


@click.command("list", cls=Command)
@click.argument(
    "kind",
    required=False,
    type=click.Choice(KINDS),
)
def names(kind: str | None) -> None:
    """List what a config can name; `published`: results that others reported."""
    if kind == "published":
        from cembench.leaderboard.published import published, published_board

        show([board for board in [published_board(published()["dataset"])] if board])
        return
    from cembench.data import datasets
    from cembench.evaluation.extractors import extractors
    from cembench.evaluation.metrics import metrics
    from cembench.evaluation.protocol import shipped
    from cembench.methods import methods
    from cembench.models import models
    from cembench.samplers import samplers
    from cembench.trackers import trackers

    known = {
        "methods": methods.names,
        "models": models.names,
        "datasets": datasets.names,
        "samplers": samplers.names,
        "extractors": extractors.names,
        "metrics": metrics.names,
        "trackers": trackers.names,
        "protocols": shipped,
    }
    for key in [kind] if kind else known:
        prefix = "" if kind else f"{key}: "
        click.echo(prefix + ("\n" if kind else ", ").join(known[key]()))
