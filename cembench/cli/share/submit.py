"""`cembench submit`: write an entry for a shared board."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, RUN, Command, say


@click.command("submit", cls=Command, example="runs/at --to e/at --licence MIT --contact me@x.org")
@click.argument("run", type=RUN)
@click.option("--record", type=FILE, help="Record. Default: that with most images attacked.")
@click.option("--to", required=True, type=FILE, help="Folder of the entry.")
@click.option("--licence", required=True, help="Licence of all files, SPDX: MIT, CC-BY-4.0, …")
@click.option("--contact", required=True, help="Whom to ask: an address or a name.")
@click.option("--authors", default="", help="Whose work it is.")
@click.option("--link", default="", help="Where it is described.")
@click.option("--name", default="", help="Name of the entry. Default: that of its folder.")
@click.option("--force", is_flag=True, help="Replace an entry that is there.")
def command(
    run: Path,
    record: Path | None,
    to: Path,
    licence: str,
    contact: str,
    authors: str,
    link: str,
    name: str,
    force: bool,
) -> None:
    """Write a run as an entry for a board.

    Prints its folder. It has the checkpoint, the record, its table, adversarial images, samples
    and a card. What a keeper could not accept is refused here: evaluate with --save-adversarial
    --save-samples first.
    """
    from cembench.interop.submission.submit import submit

    said = {"licence": licence, "contact": contact, "authors": authors, "link": link}
    written = submit(run, to, record=record, name=name, force=force, **said)
    for note in written.notes:
        say(f"cembench: {note}", err=True)
    say(written.folder)
