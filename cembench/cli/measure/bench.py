"""`cembench bench`: speed and verdicts compared with reference implementations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cembench.cli.base import DEVICE, FILE, JSON, RUN, Command, say
from cembench.cli.codes import FOUND
from cembench.cli.names import offer
from cembench.util.display.json_text import to_json

WORKS = ("train", "sample", "pgd", "autoattack")
QUICKSTART = Path("quickstart")  # a recipe
METHODS, SAMPLERS = offer("methods"), offer("samplers")
MODELS, DATA = offer("models"), offer("datasets")
PRECISIONS = click.Choice(["auto", "fp32", "bf16"])


class Work(click.Choice[str]):
    """A benchmark by name, `quickstart`, or a suite file."""

    name = "work"

    def __init__(self) -> None:
        super().__init__([*WORKS, "scale", "sanity", "counts", "quickstart"])

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Return a name, or the path of a suite."""
        if str(value).endswith((".yaml", ".yml")):
            return Path(value)
        name = super().convert(value, parameter, context)
        return QUICKSTART if name == "quickstart" else name


CODES = {FOUND: "with --compare, a count rose"}


@click.command("bench", cls=Command, example="train --method trades --rounds 3", codes=CODES)
@click.argument("works", nargs=-1, type=Work(), metavar="[WORK]...")
@click.option("--method", default="at", shell_complete=METHODS, help="Method of train.")
@click.option("--sampler", default="rcs", shell_complete=SAMPLERS, help="For sample: rcs or sgld.")
@click.option("--model", shell_complete=MODELS, help="Network: NAME, or {name: …, width: …}.")
@click.option("--data", shell_complete=DATA, help="Data set of train and sample.")
@click.option("--batch", default=32, type=click.IntRange(2), help="Images in a batch.")
@click.option("--rounds", default=5, type=click.IntRange(1), help="How often each is timed.")
@click.option("--images", default=256, type=click.IntRange(1, 597), help="Images to attack.")
@click.option("--seeds", default=1, type=click.IntRange(1), help="Seeds to attack with.")
@click.option("--checkpoint", "checkpoints", multiple=True, type=RUN, help="Network to attack.")
@click.option("--precision", default="auto", type=PRECISIONS, help="Of our side.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the networks of our side.")
@click.option("--compare", type=FILE, help="Exit code 1 if a count rose by a fifth over FILE's.")
@click.option("--ratios", is_flag=True, help="Compare ratios too.")
@JSON(help="Print rows as JSON instead of a table.")
@DEVICE
@click.pass_context
def command(
    context: click.Context,
    works: tuple[str | Path, ...],
    device: str,
    as_json: bool,
    compare: Path | None,
    ratios: bool,
    **options: Any,
) -> None:
    """Compare WORKS with references, or time the stages of a suite.

    All but scale, sanity and counts unless given; both sides are interleaved in one process.

    References: pyautoattack's run_standard_evaluation, torchattacks.PGD, and the loops that
    research code has for training and sampling. autoattack and pgd attack networks that they train
    first, or each --checkpoint. All works together take about half an hour on two
    cores, most of it in pyautoattack. scale: training in one, two and four processes of one thread.
    sanity: the gradient-masking checks, and PGD with 100 steps on the same images. counts:
    operators, synchronisations and passes per step of each loop, in seconds, without timing
    anything; --compare leaderboards/bench/counts.json fails where one rose.

    quickstart, or the file of a suite: CPU seconds of each stage of each experiment, from reading
    data to figures, in one process. --images takes fewer test images.
    """
    from cembench.bench.compare import load_rows
    from cembench.util.devices import pick_device

    device = pick_device(device)
    given = context.get_parameter_source("images") is ParameterSource.COMMANDLINE
    limit = options["images"] if given else None
    committed = None if compare is None else load_rows(compare)  # a bench may take half an hour
    rows = [row for work in works or WORKS for row in _rows(work, device, limit, options)]
    say(to_json(rows) if as_json else _text(rows), nl=as_json)
    if compare is not None and committed is not None:
        _compare(rows, committed, compare, ratios)


def _rows(
    work: str | Path, device: str, limit: int | None, options: dict[str, Any]
) -> list[dict[str, Any]]:
    if isinstance(work, Path):
        from cembench.suites.stages import stage_seconds

        found = stage_seconds(work, device, limit)
        return [{str(key): value for key, value in row.items()} for _, row in found.iterrows()]
    from cembench.bench.works import run

    return run(work, device, **options)


def _text(rows: list[dict[str, Any]]) -> str:
    from cembench.bench import table

    return table(rows)


def _compare(
    rows: list[dict[str, Any]], committed: list[dict[str, Any]], file: Path, ratios: bool
) -> None:
    from cembench.bench.compare import worse

    found = worse(rows, committed, ratios)
    for line in found:
        say(f"cembench: worse than {file}: {line}", err=True)
    if found:
        sys.exit(FOUND)
