"""`cembench export`: write a checkpoint for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, Command


@click.command("export", cls=Command)
@click.argument("checkpoint", type=FILE)
@click.option(
    "--to", required=True, type=click.Choice(["robustbench", "huggingface", "onnx"]), help="Format."
)
@click.option("--out", type=FILE, help="File or folder; export/RUN unless given.")
@click.option("--record", type=FILE, help="Source of the results; beside it unless given.")
@click.option(
    "--set", "fields", multiple=True, metavar="KEY=VALUE", help="What only its author knows."
)
def command(
    checkpoint: Path, to: str, out: Path | None, record: Path | None, fields: tuple[str, ...]
) -> None:
    """Export to RobustBench, Hugging Face or ONNX.

    Prints the path of what was written.

    Fields: name, authors, link; for huggingface licence; for robustbench venue, and any other of
    its model_info.
    """
    from cembench.interop.exporting import export as run
    from cembench.util.overrides import override

    click.echo(run(checkpoint, to, out, record=record, fields=override({}, fields)))  # type: ignore[arg-type]
