"""The directive `::exit-codes` becomes the table of exit codes, from where commands have them."""

from __future__ import annotations

from typing import Any

import click
from mkdocs.structure.pages import Page
from source import ROOT  # noqa: F401 - puts the package on the path

from cembench.cli import main
from cembench.cli.codes import rows

DIRECTIVE = "::exit-codes"


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Write the table: the codes of all commands, then what single ones say of theirs."""
    if DIRECTIVE not in markdown:
        return markdown
    context = click.Context(main)
    lines = [f"| {code} | all commands | {meaning} |" for code, meaning in rows({})]
    for name in main.list_commands(context):
        own = getattr(main.get_command(context, name), "codes", {})
        lines += [f"| {code} | `{name}` | {meaning} |" for code, meaning in own.items()]
    head = "| exit code | of | meaning |\n| --- | --- | --- |\n"
    return markdown.replace(DIRECTIVE, head + "\n".join(lines))
