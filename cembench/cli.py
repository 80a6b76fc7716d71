"""The command line: parses, calls, prints. No science, and no torch until a command needs it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from cembench import __version__
from cembench.errors import CembenchError

# Threads that spin while they wait cost a busy machine a multiple of the time (measured: a digits
# run of 6 s took 20 to 45 s beside one other process). It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Command(click.Command):
    """A command whose errors are one line on stderr and exit code 2; `--debug` shows where."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        help_text = "Show the traceback of an error."
        self.params.append(click.Option(["--debug"], is_flag=True, help=help_text))
        help_text = "Import a module that registers methods, models or data sets. Repeatable."
        self.params.append(
            click.Option(["--plugin"], multiple=True, metavar="MODULE", help=help_text)
        )

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        debug = context.params.pop("debug")
        try:
            for module in context.params.pop("plugin"):
                from cembench.registry import add_plugin

                add_plugin(module)
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except KeyboardInterrupt:
            fail("interrupted; what was finished is kept", 130)
        except Exception as error:
            if debug:
                traceback.print_exc()
            known = isinstance(error, CembenchError | OSError | MemoryError)
            fail(str(error) if known else f"unexpected {error!r}; --debug shows where")


def fail(message: str, code: int = 2) -> None:
    """Say what went wrong in one line and leave."""
    click.echo(f"cembench: error: {' '.join(message.split())}", err=True)
    sys.exit(code)


FILE = click.Path(path_type=Path)
DEVICE = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), show_default=True
)


def pick_device(name: str) -> str:
    """Return `cuda` or `cpu`."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise CembenchError("--device cuda: torch sees no GPU; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Train robust classifiers, attack them and rank them: one network, all figures."""


@main.command(cls=Command)
@click.argument("config", type=FILE)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--out", type=FILE, default="runs", show_default=True, help="Folder of runs.")
@click.option("--name", help="Name of the run; the config's file name unless given.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@DEVICE
def train(
    config: Path, overrides: tuple[str, ...], out: Path, name: str | None, resume: bool, device: str
) -> None:
    """Train the experiment of a YAML file; print the path of its checkpoint."""
    from cembench.config import load_experiment
    from cembench.training import train as run

    experiment = load_experiment(config, overrides)
    folder = out / (name or config.stem)
    click.echo(run(experiment, folder, resume=resume, device=pick_device(device)))


@main.command("eval", cls=Command)
@click.argument("checkpoints", nargs=-1, required=True, type=FILE, metavar="CHECKPOINT...")
@click.option("--protocol", default="quick", show_default=True, help="Name, or a YAML file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the protocol.")
@click.option("--limit", type=click.IntRange(1), help="Attack at most so many test images.")
@click.option("--data-root", help="Where the data lies now.")
@click.option("--inception-weights", type=FILE, help="Weights for samples.extractor=inception.")
@click.option("--save-samples", is_flag=True, help="Keep all samples beside the pictures of them.")
@click.option("--json", "as_json", is_flag=True, help="Print the records instead of a table.")
@DEVICE
def evaluate(
    checkpoints: tuple[Path, ...],
    protocol: str,
    overrides: tuple[str, ...],
    limit: int | None,
    data_root: str | None,
    inception_weights: Path | None,
    save_samples: bool,
    as_json: bool,
    device: str,
) -> None:
    """Attack checkpoints (files or run folders), sample from them, leave a record beside each."""
    from cembench.evaluation.evaluate import evaluate as run
    from cembench.evaluation.protocol import load_protocol
    from cembench.leaderboard import rank

    settings = load_protocol(protocol, overrides, limit)
    records, failed = [], []
    for path in checkpoints:
        try:
            record, place = run(
                path,
                settings,
                device=pick_device(device),
                data_root=data_root,
                inception_weights=inception_weights,
                save_samples=save_samples,
            )
        except CembenchError as error:
            failed.append(error)
            continue
        records.append(record)
        if record.error:
            failed.append(CembenchError(f"{place}: {record.error}"))
    if as_json:
        click.echo(json.dumps([record.dump() for record in records], indent=2))
    elif records:
        show(rank(records))
    if failed:
        raise CembenchError("; ".join(map(str, failed))) from failed[0]


@main.command(cls=Command)
@click.argument("runs", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default="leaderboards", show_default=True)
def leaderboard(runs: tuple[Path, ...], out: Path) -> None:
    """Rank the records below RUNS (default: runs) and write CSV and markdown."""
    from cembench.leaderboard import find_records, rank, write_boards

    boards = rank(find_records(runs or [Path("runs")]))
    for path in write_boards(boards, out):
        click.echo(f"wrote {path}", err=True)
    show(boards)


@main.command(cls=Command)
@click.argument("suite", type=FILE)
@click.option("--out", type=FILE, default="runs", show_default=True, help="Folder of runs.")
@DEVICE
def run(suite: Path, out: Path, device: str) -> None:
    """Train and evaluate every experiment of a suite file, and rank them.

    What is already done and unchanged is not done twice.
    """
    from cembench.suite import run_suite

    boards, failures = run_suite(suite, out, pick_device(device))
    show(boards)
    click.echo(f"tables and records are in {out}", err=True)
    if failures:
        fail("; ".join(failures))


@main.command(cls=Command)
@click.argument("checkpoint", type=FILE)
@click.option("--sampler", default="rcs", show_default=True, help="ta, cs, rcs, sgld, pgd, ….")
@click.option("-n", "count", default=80, show_default=True, type=click.IntRange(1))
@click.option("--class", "label", help="Name of the one class to draw.")
@click.option("--seeds", type=click.Choice(["gaussian", "noise", "data", "buffer", "outside"]))
@click.option("--steps", type=click.IntRange(1))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the sampler.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--out", type=FILE, default="grid.png", show_default=True, help="The picture.")
@click.option("--save-tensors", type=FILE, help="Keep images, starts and labels as safetensors.")
@click.option("--trajectory", type=FILE, help="How chains move: a .gif, or a .png for a strip.")
@DEVICE
def sample(
    checkpoint: Path,
    sampler: str,
    count: int,
    label: str | None,
    seeds: str | None,
    steps: int | None,
    overrides: tuple[str, ...],
    seed: int,
    out: Path,
    save_tensors: Path | None,
    trajectory: Path | None,
    device: str,
) -> None:
    """Draw samples from a checkpoint into a picture; print how the network itself sees them."""
    from cembench.checkpoint import checkpoint_file, read_passport
    from cembench.config import override
    from cembench.gallery import sample_to_files
    from cembench.samplers import samplers
    from cembench.settings import nearest

    given = {"start": seeds, "steps": steps}
    chosen = {key: value for key, value in given.items() if value is not None}
    settings = samplers.parse(override({"name": sampler, **chosen}, overrides))
    classes = read_passport(checkpoint_file(checkpoint)).classes
    if label is not None and label not in classes:
        raise CembenchError(f"--class: no class '{label}'; {nearest(label, classes)}")
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


@main.command(cls=Command)
@click.argument("work", type=click.Choice(["train", "sample"]))
@click.option("--model", default="resnet18", show_default=True, help="Name of the architecture.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16"]), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON instead of a table.")
@DEVICE
def bench(
    work: str, model: str, batch: int, rounds: int, precision: str, as_json: bool, device: str
) -> None:
    """Time WORK beside a plain reference loop, interleaved in one process."""
    from cembench.bench import bench_sample, bench_train, table

    if work == "sample":
        if precision != "fp32":
            raise CembenchError("bench sample: samplers run in fp32; leave --precision out")
        rows = bench_sample(model, batch, rounds, pick_device(device))
    else:
        rows = bench_train(model, batch, rounds, precision, pick_device(device))
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows), nl=as_json)


@main.command("list", cls=Command)
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


def show(boards: list[Any]) -> None:
    """Print boards on stdout."""
    for board in boards:
        click.echo(f"{board.title}\n\n{board.markdown()}")
