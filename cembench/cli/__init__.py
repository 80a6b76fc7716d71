"""The command line: parses, calls, prints. No science, and no torch until a command needs it."""

from __future__ import annotations

import click

from cembench import __version__
from cembench.cli import evaluate, evidence, export, foreign, gate, report, sample, tools, train


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Train robust classifiers, attack them, sample from them, rank them."""


for module in (train, evaluate, foreign, evidence, report, gate, sample, export, tools):
    for command in vars(module).values():
        if isinstance(command, click.Command):
            main.add_command(command)
