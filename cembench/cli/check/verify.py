"""`cembench verify`: recompute a record or a table."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cembench.cli.base import DATA_ROOT, DEVICE, RUN, WEIGHTS, Command, say
from cembench.cli.codes import DONE, FOUND
from cembench.util.errors import CembenchError

CODES = {DONE: "all agrees", FOUND: "something differs"}


@click.command("verify", cls=Command, example="runs/at/eval/quick.json runs/at", codes=CODES)
@click.argument("claim", type=RUN, metavar="RECORD|TABLE.csv")
@click.argument("proofs", nargs=-1, required=True, type=RUN, metavar="CHECKPOINT|RUNS...")
@WEIGHTS
@DATA_ROOT
@DEVICE
def command(
    claim: Path,
    proofs: tuple[Path, ...],
    inception_weights: Path | None,
    data_root: str | None,
    device: str,
) -> None:
    """Recompute a record or a table; exit 1 if it differs.

    RECORD: from CHECKPOINT and what `eval --save-adversarial --save-samples` wrote. TABLE.csv: from
    RUNS that the table's command made again, run folders or folders of them.
    """
    import pandas as pd

    from cembench.evaluation.diff import shown
    from cembench.evaluation.verify import verify_record
    from cembench.reporting.leaderboard import find_records
    from cembench.reporting.leaderboard.verify_table import compare_table
    from cembench.util.devices import pick_device
    from cembench.util.display.markdown import markdown_table

    if claim.suffix == ".csv":
        rows = compare_table(claim, find_records(proofs).values())
    elif len(proofs) == 1:
        rows = verify_record(claim, proofs[0], pick_device(device), inception_weights, data_root)
    else:
        raise CembenchError(f"{claim}: a record is of one checkpoint, got {len(proofs)}")
    say(markdown_table(pd.DataFrame(shown(rows))), nl=False)
    if not all(row.agrees for row in rows):
        say(f"cembench: {claim} does not agree with its evidence", err=True)
        sys.exit(FOUND)
