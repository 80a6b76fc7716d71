"""`cembench accept`: inspect an entry of somebody else for a shared board."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cembench.cli.base import DATA_ROOT, DEVICE, FILE, PROTOCOL, WEIGHTS, Command, say
from cembench.cli.codes import DONE, FAILED, FOUND

CODES = {DONE: "accepted", FOUND: "refused", FAILED: "it could not be inspected"}


@click.command("accept", cls=Command, example="e/at --board board --report at.md", codes=CODES)
@click.argument("entry", type=FILE)
@click.option("--board", type=FILE, help="Folder that an accepted entry is copied to.")
@PROTOCOL(
    "protocols",
    multiple=True,
    help="Allowed protocol. Repeatable. Default: all of cembench.",
)
@click.option(
    "--share", type=click.FloatRange(0, 1), default=0.25, help="Of images to attack again."
)
@click.option(
    "--seed", type=click.IntRange(0), help="Decides which images, and how. Default: a random one."
)
@click.option("--report", type=FILE, help="File for the page, which is printed too.")
@click.option("--most", type=click.FloatRange(0), default=2.0, help="GiB that an entry may have.")
@click.option("--only-recounted", is_flag=True, help="Refuse what cannot be run here.")
@WEIGHTS
@DATA_ROOT
@DEVICE
def command(
    entry: Path,
    board: Path | None,
    protocols: tuple[str, ...],
    share: float,
    seed: int | None,
    report: Path | None,
    most: float,
    only_recounted: bool,
    inception_weights: Path | None,
    data_root: str | None,
    device: str,
) -> None:
    """Inspect an entry of somebody else; exit 1 if refused.

    An accepted one is copied to the board. Prints a page: the verdict, and every check.
    Nothing of the entry is imported or unpickled; its figures are recounted, a share of its images
    is attacked again, and a share of its samples drawn again.
    """
    from cembench.interop.submission.accept import accept
    from cembench.interop.submission.page import page_of
    from cembench.util.files import write_text

    verdict = accept(
        entry,
        board,
        protocols=protocols,
        share=share,
        seed=seed,
        device=device,
        data_root=data_root,
        inception_weights=inception_weights,
        most=most,
        only_recounted=only_recounted,
    )
    page = page_of(verdict)
    if report is not None:
        write_text(report, page)
    say(page, nl=False)
    if not verdict.accepted:
        sys.exit(FOUND)
