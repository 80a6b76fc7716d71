"""`cembench check`: compare checkpoints with a baseline; the gate for CI."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cembench.cli.arguments import runs_of
from cembench.cli.base import (
    DATA_ROOT,
    DEVICE,
    FILE,
    JSON,
    LIMIT,
    PROTOCOL,
    SET,
    WEIGHTS,
    Command,
    say,
)
from cembench.cli.codes import DONE, FAILED, FOUND
from cembench.cli.names import file
from cembench.util.display.json_text import to_json
from cembench.util.errors import CembenchError

CODES = {
    DONE: "nothing got worse",
    FOUND: "a regression",
    FAILED: "an error: something could not be evaluated or compared, or too few images tell",
}


@click.command("check", cls=Command, example="runs/at --baseline baseline.yaml", codes=CODES)
@click.argument("checkpoints", nargs=-1, metavar="[NAME=]CHECKPOINT...", shell_complete=file)
@click.option("--baseline", required=True, type=FILE, help="The file to compare with.")
@click.option("--update", is_flag=True, help="Write what is measured into the baseline.")
@PROTOCOL(help="Protocol of a new baseline, with --update.")
@SET(help="Change a setting of that protocol.")
@LIMIT
@click.option("--allow-changed-software", is_flag=True, help="Compare across versions.")
@click.option("--allow-unchecked", is_flag=True, help="Let rows pass without sanity checks.")
@click.option("--junit", type=FILE, help="Write the outcomes as JUnit XML.")
@click.option("--markdown", type=FILE, help="Write the table to a file too.")
@JSON(help="Print the outcomes with all images as JSON.")
@click.option("--out", type=FILE, help="Folder of records. Default: beside the checkpoints.")
@DATA_ROOT
@WEIGHTS
@DEVICE
def command(
    checkpoints: tuple[str, ...],
    baseline: Path,
    update: bool,
    protocol: str | None,
    overrides: tuple[str, ...],
    limit: int | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    allow_changed_software: bool,
    allow_unchecked: bool,
    device: str,
    **options: Any,
) -> None:
    """Compare checkpoints with a baseline, for CI.

    Of a folder of runs all are checked. They are evaluated again and compared image by image.
    A protocol without sanity checks tells too little to pass.
    """
    from cembench.evaluation.gate import report
    from cembench.evaluation.gate.check import check
    from cembench.evaluation.gate.evaluator import Evaluator
    from cembench.evaluation.gate.gate import UNCHECKED
    from cembench.evaluation.gate.update import update as write
    from cembench.evaluation.protocol import load_protocol
    from cembench.reporting.plots.curves import write_curve
    from cembench.util.files import write_text

    checkpoints = tuple(str(path) for word in checkpoints for path in _paths(word))
    if (protocol or overrides or limit) and not (update and protocol):
        raise CembenchError("--protocol, --set and --limit begin a new baseline: use --update")
    evaluator = Evaluator(device, on_record=write_curve, **options)
    if update:
        plan = None if protocol is None else load_protocol(protocol, overrides, limit)
        written = write(checkpoints, baseline, plan, evaluator)
        say(f"wrote {baseline}: {', '.join(written.rows)}", err=True)
        if written.protocol.sanity is None and written.protocol.attacks:
            say(f"cembench: unchecked: {UNCHECKED}", err=True)
        return
    outcomes = check(
        checkpoints,
        baseline,
        evaluator,
        allow_changed_software=allow_changed_software,
        allow_unchecked=allow_unchecked,
    )
    for path, text in ((junit, report.junit), (markdown, report.markdown)):
        if path is not None:
            write_text(path, text(outcomes))
    found = [asdict(outcome) for outcome in outcomes]
    say(to_json(found) if as_json else report.markdown(outcomes), nl=as_json)
    say(f"cembench: {report.verdict_line(outcomes)}", err=True)
    sys.exit(report.exit_code(outcomes))


def _paths(word: str) -> list[str] | list[Path]:
    """Return NAME=CHECKPOINT as it is, and the checkpoints that a path means."""
    from cembench.interop.hub.cache import placed_row

    word = placed_row(word)
    return [word] if "=" in word else runs_of([Path(word)])
