"""`cembench eval`: attack checkpoints and score their samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.base import DEVICE, FILE, JSON, LIMIT, PROTOCOL, SET, WEIGHTS, Command, say, show
from cembench.cli.import_ import import_options, imported
from cembench.cli.names import offer
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.evaluation.protocol import Protocol
    from cembench.evaluation.record import Record


ENGINE = "Attack with plain or fast passes; plain ones decide."


@click.command("eval", cls=Command, example="runs/at --protocol quick --limit 64")
@click.argument("checkpoints", nargs=-1, type=FILE, metavar="CHECKPOINT...")
@import_options
@PROTOCOL(default="quick", help="Name, or a YAML file.")
@SET(help="Change a setting of the protocol.")
@click.option("--engine", shell_complete=offer("engines"), help=ENGINE)
@LIMIT
@WEIGHTS
@click.option("--save-samples", is_flag=True, help="Keep all samples, not only their pictures.")
@click.option("--save-adversarial", is_flag=True, help="Keep adversarial examples, for `verify`.")
@JSON(help="Print the records as JSON instead of a table.")
@DEVICE
def command(
    checkpoints: tuple[Path, ...],
    protocol: str,
    overrides: tuple[str, ...],
    engine: str | None,
    limit: int | None,
    as_json: bool,
    device: str,
    data_root: str | None,
    inception_weights: Path | None,
    save_samples: bool,
    save_adversarial: bool,
    **foreign: Any,
) -> None:
    """Attack checkpoints and score their samples.

    Each is a file or a run folder, and gets a record beside it.

    With --model, --weights and --dataset, as `import` has them, it takes a network from elsewhere.
    """
    from cembench.evaluation.protocol import load_protocol
    from cembench.reporting.leaderboard import build_boards
    from cembench.util.distributed import process_group, world

    if engine is not None:
        overrides = (*overrides, f"engine={engine}")
    if any(value is not None for key, value in foreign.items() if key != "normalise"):
        checkpoints = (*checkpoints, imported(data_root=data_root, **foreign))
    if not checkpoints:
        raise CembenchError("name a CHECKPOINT, or a network with --model, --weights and --dataset")
    with process_group(device) as own:
        settings = world().on_all_ranks(lambda: load_protocol(protocol, overrides, limit))
        records, failed = _records(
            checkpoints,
            settings,
            device=own,
            data_root=data_root,
            inception_weights=inception_weights,
            save_samples=save_samples,
            save_adversarial=save_adversarial,
        )
    if as_json:
        say(json.dumps([record.dump() for record in records], indent=2))
    elif records:
        show(build_boards(records))
    if failed:
        raise _joint(failed)


def _records(
    checkpoints: tuple[Path, ...], protocol: Protocol, **options: Any
) -> tuple[list[Record], list[CembenchError]]:
    """Return the records of all that could be evaluated, and what went wrong with the others."""
    from cembench.evaluation.evaluate import evaluate
    from cembench.reporting.plots.curves import write_curve

    records, failed = [], []
    for path in checkpoints:
        try:
            record, _ = evaluate(path, protocol, on_record=write_curve, **options)
        except CembenchError as error:
            failed.append(error)
            continue
        records.append(record)
        if record.error:
            failed.append(CembenchError.on_every_rank(f"{path}: {record.error}"))
    return records, failed


def _joint(errors: list[CembenchError]) -> CembenchError:
    """Return one error for several; the first process says it if it knows all of them."""
    error = CembenchError("; ".join(map(str, errors)))
    if all(one.reporting_rank is not None for one in errors):
        error.reporting_rank = 0 if len(errors) > 1 else errors[0].reporting_rank
    error.__cause__ = errors[0]
    return error
