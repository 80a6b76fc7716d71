"""The command line: command X is `cli/TASK/X.py`, which parses, calls and prints.

A command is imported when it is called, and torch when a command needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cembench.cli.codes import FOUND, rows
from cembench.util.allocator import keep_freed_memory
from cembench.util.version import __version__

COMMANDS = {
    "Train": ("init", "data", "train", "probe", "run", "work"),
    "Measure": ("eval", "sample", "leaderboard", "compare", "transfer", "bench"),
    "Look": ("report", "site", "plot", "records", "show", "status", "list"),
    "Check": ("check", "verify"),
    "Share": ("import", "export", "push", "pull", "submit", "accept"),
    "Setup": ("completion", "doctor"),
}
TASKS = {name: task for task, names in COMMANDS.items() for name in names}


class Commands(click.Group):
    """The commands, by task in the help. Wrong arguments are told in one line, as errors are."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read what stands before the name of the command."""
        with _in_one_line("; options of a command come after its name"):
            return super().make_context(*args, **kwargs)

    def invoke(self, context: click.Context) -> Any:
        """Read the arguments of the command, and run it."""
        with _in_one_line():
            return super().invoke(context)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; of an unknown one, say which was probably meant."""
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            import difflib

            if close := difflib.get_close_matches(args[0], TASKS, 1):
                text = f"{error.message.rstrip('.')}; did you mean '{close[0]}'?"
                raise click.UsageError(text, context) from None
            raise

    def list_commands(self, context: click.Context) -> list[str]:
        """Return their names, in the order of the help."""
        return list(TASKS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import a command, unless there is none of that name."""
        if name not in TASKS:
            return None
        module = f"{name}_" if name == "import" else name  # a keyword of Python
        found = importlib.import_module(f"cembench.cli.{TASKS[name].lower()}.{module}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each task in a section of its own."""
        width = formatter.width - 6 - max(map(len, self.list_commands(context)))
        for task, names in COMMANDS.items():
            known = [(name, self.get_command(context, name)) for name in names]
            with formatter.section(task):
                formatter.write_dl([(n, c.get_short_help_str(width)) for n, c in known if c])
        with formatter.section("Exit codes"):
            formatter.write_dl(rows(self.found()))

    def found(self) -> dict[int, str]:
        """Return what the exit code 1 of commands means, the only one that not all have."""
        with click.Context(self) as context:
            known = {name: self.get_command(context, name) for name in self.list_commands(context)}
        own = {name: getattr(command, "codes", {}).get(FOUND) for name, command in known.items()}
        return {FOUND: "; ".join(f"{name}: {what}" for name, what in own.items() if what)}


@contextmanager
def _in_one_line(more: str = "") -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        from cembench.cli.base import fail

        text = error.format_message().rstrip(".") + more
        path = error.ctx.command_path if error.ctx else "cembench"
        fail(text if text.endswith("?") else f"{text}; see {path} --help")


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(__version__)
def main() -> None:
    """Train robust classifiers, attack them, sample from them, rank them."""
    keep_freed_memory()
