"""`cembench eval`: attack checkpoints and score their samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cembench.cli.arguments import divided, runs_of
from cembench.cli.base import (
    DEVICE,
    JSON,
    LIMIT,
    PROTOCOL,
    SET,
    WEIGHTS,
    Command,
    alone,
    say,
    show,
)
from cembench.cli.dry_run import DRY_RUN, show_evaluations
from cembench.cli.names import file, offer
from cembench.cli.share.import_ import import_options, imported
from cembench.util.display.json_text import to_json
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.evaluation.protocol import Protocol
    from cembench.evaluation.record import Record


ENGINE = "Attack with plain or fast passes; plain ones decide."
THREATS = "Attack under several threat models: 'linf 8/255, l2 0.5'."
EXTRACTOR = "Network whose features compare samples."
KEYS = "cembench.evaluation.protocol:Protocol"


@click.command("eval", cls=Command, settings=KEYS, example="runs --protocol quick threat.eps=0.1")
@click.argument("words", nargs=-1, metavar="[CHECKPOINT|KEY=VALUE]...", shell_complete=file)
@import_options
@PROTOCOL(default="quick", help="Name, or a YAML file.")
@SET(help="The same as KEY=VALUE.")
@click.option("--threats", metavar="TEXT", help=THREATS)
@click.option("--engine", shell_complete=offer("engines"), help=ENGINE)
@click.option("--extractor", shell_complete=offer("extractors"), help=EXTRACTOR)
@LIMIT
@WEIGHTS
@click.option("--save-samples", is_flag=True, help="Keep all samples, not only their pictures.")
@click.option("--save-adversarial", is_flag=True, help="Keep adversarial examples, for `verify`.")
@JSON(help="Print the records as JSON instead of a table.")
@DRY_RUN
@DEVICE
def command(
    words: tuple[str, ...],
    protocol: str,
    overrides: tuple[str, ...],
    threats: str | None,
    engine: str | None,
    extractor: str | None,
    limit: int | None,
    as_json: bool,
    device: str,
    data_root: str | None,
    inception_weights: Path | None,
    save_samples: bool,
    save_adversarial: bool,
    dry_run: bool,
    **foreign: Any,
) -> None:
    """Attack checkpoints and score their samples.

    Each is a file or a run folder, and gets a record beside it; of a folder of runs all are
    evaluated. What has an address, such as hf://USER/NAME, is put into runs/NAME. KEY=VALUE changes
    a setting of the protocol, such as threat.eps=0.1.

    With --model, --weights and --dataset, as `import` has them, it takes a network from elsewhere.
    """
    from cembench.evaluation.protocol import load_protocol
    from cembench.interop.hub.cache import placed

    paths, assignments = divided(words)
    overrides = (*overrides, *assignments)
    shorthands = {"threats": threats, "engine": engine, "samples.extractor": extractor}
    given = [f"{key}={name}" for key, name in shorthands.items() if name is not None]
    overrides = (*overrides, *given)
    if alone() or dry_run:  # mistakes are told before torch is imported
        plan = load_protocol(protocol, overrides, limit)
    checkpoints = runs_of(map(placed, paths))
    if dry_run:
        show_evaluations(checkpoints, plan, device)
        return
    if any(value is not None for key, value in foreign.items() if key != "normalise"):
        checkpoints.append(imported(data_root=data_root, **foreign))
    if not checkpoints:
        raise CembenchError("name a CHECKPOINT, or a network with --model, --weights and --dataset")
    from cembench.reporting.leaderboard import build_boards
    from cembench.util.processes.distributed import world
    from cembench.util.processes.process_group import process_group

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
        say(to_json([record.dump() for record in records]))
    elif records:
        show(build_boards(records))
    if failed:
        raise _joint(failed)


def _records(
    checkpoints: list[Path], protocol: Protocol, **options: Any
) -> tuple[list[Record], list[CembenchError]]:
    """Return the records of all that could be evaluated, and what went wrong with the others."""
    from cembench.data.roots import remember
    from cembench.evaluation.evaluate import evaluate
    from cembench.evaluation.record.display import rates
    from cembench.reporting.plots.curves import write_curve

    for other in protocol.other_data:
        remember(other)
    records, failed = [], []
    for path in checkpoints:
        try:
            record, _ = evaluate(path, protocol, on_record=write_curve, **options)
            records.append(record)
            if record.error:
                raise CembenchError.on_every_rank(f"{path}: {record.error}")
            line = f"{path}: {rates(record) or 'samples were scored'}"
        except CembenchError as error:
            failed.append(error)
            line = str(error) if str(path) in str(error) else f"{path}: {error}"
        if len(checkpoints) > 1:
            say(line, err=True)
    return records, failed


def _joint(errors: list[CembenchError]) -> CembenchError:
    """Return one error for several; the first process says it if it knows all of them."""
    error = CembenchError("; ".join(dict.fromkeys(map(str, errors))))
    if all(one.reporting_rank is not None for one in errors):
        error.reporting_rank = 0 if len(errors) > 1 else errors[0].reporting_rank
    error.__cause__ = errors[0]
    return error
