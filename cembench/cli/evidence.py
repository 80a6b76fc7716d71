"""Commands that check what others claim."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from cembench.cli.base import DEVICE, FILE, Command
from cembench.util.errors import CembenchError


@click.command(cls=Command)
@click.argument("claim", type=FILE, metavar="RECORD|TABLE.csv")
@click.argument("proofs", nargs=-1, required=True, type=FILE, metavar="CHECKPOINT|RUNS...")
@click.option("--inception-weights", type=FILE, help="Weights for samples.extractor=inception.")
@DEVICE
def verify(
    claim: Path, proofs: tuple[Path, ...], inception_weights: Path | None, device: str
) -> None:
    """Compute every figure of a record or a table again; exit code 1 if any differs.

    RECORD: from CHECKPOINT and what `eval --save-adversarial --save-samples` kept. TABLE.csv: from
    RUNS that the table's command made again, run folders or folders of them.
    """
    import pandas as pd

    from cembench.evaluation.verify import recount
    from cembench.reporting.leaderboard import find_records
    from cembench.reporting.leaderboard.verify_table import compare_table
    from cembench.util.devices import pick_device
    from cembench.util.markdown import markdown_table

    if claim.suffix == ".csv":
        rows = compare_table(claim, find_records(proofs).values())
    elif len(proofs) == 1:
        rows = recount(claim, proofs[0], pick_device(device), inception_weights)
    else:
        raise CembenchError(f"{claim}: a record is of one checkpoint, got {len(proofs)}")
    shown = {
        "figure": [row.figure for row in rows],
        "recorded": [_cell(row.recorded) for row in rows],
        "again": [_cell(row.recounted) for row in rows],
        "": ["agrees" if row.agrees else "DIFFERS" for row in rows],
    }
    click.echo(markdown_table(pd.DataFrame(shown)), nl=False)
    if not all(row.agrees for row in rows):
        click.echo(f"cembench: {claim} does not agree with its evidence", err=True)
        sys.exit(1)


@click.command(cls=Command)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option("--protocol", help="Name of the records to compare, if there are several.")
@click.option("--json", "as_json", is_flag=True, help="Print everything, with the images' numbers.")
def compare(first: Path, second: Path, protocol: str | None, as_json: bool) -> None:
    """Compare the records of two runs image by image (McNemar's exact test)."""
    import pandas as pd

    from cembench.evaluation.compare import compare_records
    from cembench.util.markdown import interval, markdown_table

    rows = compare_records(_record(first, protocol), _record(second, protocol))
    if as_json:
        click.echo(json.dumps([row.dump() for row in rows], indent=2))
        return
    shown = {
        "figure": [row.figure for row in rows],
        str(first): [f"{row.first / row.images:.1%}" for row in rows],
        str(second): [f"{row.second / row.images:.1%}" for row in rows],
        "difference": [
            interval(100 * row.difference, 100 * row.low, 100 * row.high, "{:+.1f}") for row in rows
        ],
        "only first": [len(row.only_first) for row in rows],
        "only second": [len(row.only_second) for row in rows],
        "p": [f"{row.p_value:.2g}" for row in rows],
    }
    click.echo(markdown_table(pd.DataFrame(shown)), nl=False)


@click.command(cls=Command)
@click.argument("file", type=FILE)
def show(file: Path) -> None:
    """Print what a checkpoint, a run folder or a record says of itself."""
    from cembench.evaluation.record import load_record
    from cembench.models.checkpoint import checkpoint_file, read_passport

    found = load_record(file) if file.suffix == ".json" else read_passport(checkpoint_file(file))
    click.echo(json.dumps(found.dump(), indent=2, ensure_ascii=False))


def _record(path: Path, protocol: str | None) -> Path:
    """Return the record that a path means: itself, or the one of a run folder."""
    from cembench.evaluation.record import load_record, outdated

    if path.suffix == ".json":
        return path
    found = sorted((path / "eval").glob(f"{protocol or '*'}.json"))
    if len(found) == 1:
        if outdated(found[0], load_record(found[0])):
            raise CembenchError(f"{found[0]}: of other weights than lie beside it; evaluate again")
        return found[0]
    names = ", ".join(file.stem for file in found)
    hint = f"choose one with --protocol: {names}" if found else "run `cembench eval` on it"
    raise CembenchError(f"{path}: {len(found)} records; {hint}")


def _cell(value: float | str | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:g}"
