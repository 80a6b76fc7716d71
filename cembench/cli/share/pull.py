"""`cembench pull`: a pushed run as a run folder."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, Command, say


@click.command("pull", cls=Command, example="hf://me/at --out runs/theirs")
@click.argument("address")
@click.option("--out", type=FILE, help="The new run folder. Default: runs/NAME.")
@click.option("--resume-state", is_flag=True, help="Also what training goes on from.")
def command(address: str, out: Path | None, resume_state: bool) -> None:
    """Fetch a run that was pushed; print its folder.

    Every file is compared with the manifest that was pushed last. The folder appears when all is
    there, or not at all. Nothing of it is run.
    """
    from cembench.interop.hub.pull import pull

    say(pull(address, out, resume_state=resume_state))
