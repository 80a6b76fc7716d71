"""The page of the command line: `::commands` becomes a section a command, by click's own account.

The command line imports click alone, so nothing else need be installed.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import click
from mkdocs.structure.pages import Page
from source import ROOT

DIRECTIVE = "::commands"
SHARED = ("debug", "plugin", "help")


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Write the sections."""
    if DIRECTIVE not in markdown:
        return markdown
    sys.path.insert(0, str(ROOT))
    main = importlib.import_module("cembench.cli").main
    known = [main.get_command(click.Context(main), name) for name in sorted(main.commands)]
    sections = ['<div class="keys"></div>', *map(_section, known)]
    return markdown.replace(DIRECTIVE, "\n\n".join(sections))


def _section(command: click.Command) -> str:
    context = click.Context(command, info_name=f"cembench {command.name}")
    usage = " ".join(command.collect_usage_pieces(context))
    rows = [_row(p, context) for p in command.get_params(context) if p.name not in SHARED]
    table = ["| option | default | meaning |", "| --- | --- | --- |", *filter(None, rows)]
    lines = [f"## `{command.name}` {{ #{command.name} }}", "", "```"]
    lines += [f"cembench {command.name} {usage}", "```", "", inspect.cleandoc(command.help or "")]
    return "\n".join([*lines, "", *(table if any(rows) else [])])


def _row(parameter: click.Parameter, context: click.Context) -> str:
    """Return an option as a row; arguments stand in the usage line, empty here."""
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return ""
    found = parameter.get_help_extra(context)
    record = parameter.get_help_record(context)
    words = (record[0] if record else ", ".join(parameter.opts)).replace(" RANGE", "")
    notes = [parameter.help or "", _range(found.get("range", ""))]
    notes += ["Required."] if found.get("required") else []
    notes += ["Repeatable."] if parameter.multiple else []
    default = f"`{found['default']}`" if "default" in found else ""
    cells = (f"`{words}`", default, " ".join(filter(None, notes)))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _range(limits: str) -> str:
    """Write `x>=1` and `1<=x<=9` as people do."""
    return limits.replace("x>=", "≥ ").replace("<=x<=", " to ")
