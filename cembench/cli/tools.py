"""Commands about cembench itself."""

from __future__ import annotations

import json

import click

from cembench.cli.base import DEVICE, Command, pick_device
from cembench.errors import CembenchError


@click.command(cls=Command)
@click.argument("work", type=click.Choice(["train", "sample"]))
@click.option("--method", default="at", show_default=True, help="at, infonce or adv-infonce.")
@click.option("--model", default="resnet18", show_default=True, help="Name of the architecture.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16"]), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON instead of a table.")
@DEVICE
def bench(
    work: str,
    method: str,
    model: str,
    batch: int,
    rounds: int,
    precision: str,
    as_json: bool,
    device: str,
) -> None:
    """Time WORK beside a plain reference loop, interleaved in one process."""
    from cembench.bench import table
    from cembench.bench.sample import bench_sample
    from cembench.bench.train import METHODS, bench_train
    from cembench.settings import nearest

    if method not in METHODS:
        raise CembenchError(f"--method: no plain loop for '{method}'; {nearest(method, METHODS)}")
    if work == "sample":
        if precision != "fp32":
            raise CembenchError("bench sample: samplers run in fp32; leave --precision out")
        rows = bench_sample(model, batch, rounds, pick_device(device))
    else:
        rows = bench_train(model, batch, rounds, precision, pick_device(device), method)
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows), nl=as_json)


@click.command("list", cls=Command)
@click.argument(
    "kind",
    required=False,
    type=click.Choice(["methods", "models", "datasets", "samplers", "extractors", "protocols"]),
)
def names(kind: str | None) -> None:
    """List what a config can name."""
    from cembench.data import datasets
    from cembench.evaluation.extractors import extractors
    from cembench.evaluation.protocol import shipped
    from cembench.methods import methods
    from cembench.models import models
    from cembench.samplers import samplers

    known = {
        "methods": methods.names,
        "models": models.names,
        "datasets": datasets.names,
        "samplers": samplers.names,
        "extractors": extractors.names,
        "protocols": shipped,
    }
    for key in [kind] if kind else known:
        prefix = "" if kind else f"{key}: "
        click.echo(prefix + ("\n" if kind else ", ").join(known[key]()))
