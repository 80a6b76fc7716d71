"""`cembench export`: write a checkpoint for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cembench.cli.base import FILE, RUN, SET, Command, say

FORMATS = click.Choice(["robustbench", "huggingface", "onnx"])


@click.command("export", cls=Command, example="runs/at --to huggingface --set licence=mit")
@click.argument("checkpoint", type=RUN)
@click.option("--to", required=True, type=FORMATS, help="Format.")
@click.option("--out", type=FILE, help="File or folder. Default: export/RUN.")
@click.option("--record", type=FILE, help="Record of results. Default: one beside CHECKPOINT.")
@SET(help="Set a field that only its author knows.")
def command(
    checkpoint: Path, to: Any, out: Path | None, record: Path | None, overrides: tuple[str, ...]
) -> None:
    """Export to RobustBench, Hugging Face or ONNX.

    Prints the path of what was written.

    Fields: name, authors, link; for huggingface licence; for robustbench venue, and any other of
    its model_info.
    """
    from cembench.interop.exporting import export as run
    from cembench.util.overrides import override

    say(run(checkpoint, to, out, record=record, fields=override({}, overrides)))
