"""Commands about cembench itself."""

from __future__ import annotations

import json
from typing import Any

import click
from click.shell_completion import get_completion_class

from cembench.cli.base import DEVICE, Command, show
from cembench.cli.names import KINDS, names, offer

WORKS = ("train", "sample", "pgd", "autoattack")


@click.command(cls=Command)
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
def bench(works: tuple[str, ...], device: str, as_json: bool, **options: Any) -> None:
    """Time WORKS (all but scale unless given) beside references, interleaved in one process.

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


@click.command("list", cls=Command)
@click.argument("kind", required=False, type=click.Choice([*KINDS, "published"]))
def list_names(kind: str | None) -> None:
    """List what a config can name; `published`: results that others reported."""
    if kind == "published":
        from cembench.reporting.leaderboard.published import published, published_board

        show([board for board in [published_board(published()["dataset"])] if board])
        return
    for key in [kind] if kind else KINDS:
        click.echo("\n".join(names(key)) if kind else f"{key}: {', '.join(names(key))}")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which a SHELL completes commands, options, names and files.

    bash, in ~/.bashrc: eval "$(cembench completion bash)"; zsh, in ~/.zshrc, the same with zsh;
    fish: cembench completion fish > ~/.config/fish/completions/cembench.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "cembench", "_CEMBENCH_COMPLETE").source())
