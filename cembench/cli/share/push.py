"""`cembench push`: a finished run, whole, to a hub or a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cembench.cli.base import FILE, SET, Command, say
from cembench.util.display.format import byte_size

if TYPE_CHECKING:
    from cembench.interop.hub.push import Package

TO = "hf://USER/NAME[@BRANCH], s3://…, file://…, …"


@click.command("push", cls=Command, example="runs/at --to hf://me/at --set licence=mit")
@click.argument("run", type=FILE)
@click.option("--to", required=True, help=TO)
@click.option("--dry-run", is_flag=True, help="Say what would leave this machine; send nothing.")
@click.option("--private", is_flag=True, help="Make a new repository on the hub private.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.option("--unfinished", is_flag=True, help="Also a run whose training is not finished.")
@click.option("--resume-state", is_flag=True, help="Also what training goes on from.")
@click.option("--record", type=FILE, help="Record that the model card is made from.")
@SET(help="Set a field of the card: name, authors, link, licence.")
def command(
    run: Path,
    to: str,
    dry_run: bool,
    private: bool,
    force: bool,
    unfinished: bool,
    resume_state: bool,
    record: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Push a finished run; print its address, to cite.

    Checkpoint, records, verdicts, adversarial images, samples, history, pictures and a model card
    go, so that `pull` gives back a run folder that `verify` takes. States to resume from stay, and
    logs. On Hugging Face a push is one commit, whose id is part of the address. In any store that
    fsspec knows a run is written once.
    """
    from cembench.interop.hub.push import push
    from cembench.util.overrides import override

    def tell(package: Package) -> bool:
        _tell(run, package, dry_run)
        return not dry_run

    address = push(
        run,
        to,
        unfinished=unfinished,
        resume_state=resume_state,
        force=force,
        private=private,
        record=record,
        fields=override({}, overrides),
        tell=tell,
    )
    if address:
        say(address)


def _tell(run: Path, package: Package, listed: bool) -> None:
    """Say what leaves this machine and what stays."""
    if listed:
        for name, entry in package.manifest.files.items():
            say(f"{entry.bytes:>14,}  {name}")
    say(f"{run}: {len(package.files)} files, {byte_size(package.size)}", err=True)
    if package.left_out:
        say(f"stays here: {', '.join(package.left_out)}", err=True)
    for place, path in package.paths.items():
        say(f"names a path of this machine: {place}: {path}", err=True)
