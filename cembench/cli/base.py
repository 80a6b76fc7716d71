"""What all commands share: errors in one line, options, tables on stdout."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from cembench.util.errors import CembenchError

# Threads that spin while they wait cost a busy machine a multiple of the time (measured: a digits
# run of 6 s took 20 to 45 s beside one other process). It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Module(click.ParamType):
    """A module by import path; a variable holds several, between commas or blanks."""

    name = "module"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the modules that a variable names."""
        return re.findall(r"[^\s,]+", rv)


def rank() -> int:
    """Return which of several processes this is."""
    return int(os.environ.get("RANK", "0"))


class Command(click.Command):
    """A command whose errors are one line on stderr and exit code 2; `--debug` shows where."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        help_text = "Show the traceback of an error."
        self.params.append(click.Option(["--debug"], is_flag=True, help=help_text))
        help_text = "Import a module that registers something. Repeatable."
        self.params.append(
            click.Option(
                ["--plugin"],
                multiple=True,
                type=Module(),
                envvar="CEMBENCH_PLUGINS",
                show_envvar=True,
                help=help_text,
            )
        )

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        debug = context.params.pop("debug")
        try:
            for module in context.params.pop("plugin"):
                from cembench.util.registry import add_plugin

                add_plugin(module)
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except KeyboardInterrupt:
            fail("interrupted; what was finished is kept", 130)
        except Exception as error:
            if debug:
                traceback.print_exc()
            known = isinstance(error, CembenchError | OSError) and str(error)
            reporting_rank = getattr(error, "reporting_rank", None)
            fail(
                known or f"unexpected {error!r}; --debug shows where", reporting_rank=reporting_rank
            )


def fail(message: str, code: int = 2, reporting_rank: int | None = None) -> None:
    """Say what went wrong in one line and leave; what all processes know is said by the first."""
    if reporting_rank is None or rank() == 0:
        where = f"process {reporting_rank or rank()}: " if reporting_rank or rank() else ""
        click.echo(f"cembench: error: {where}{' '.join(message.split())}", err=True)
    sys.exit(code)


def say(text: object) -> None:
    """Print a line on stdout, in the first of several processes alone."""
    if rank() == 0:
        click.echo(text)


FILE = click.Path(path_type=Path)
DEVICE = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), show_default=True
)


def show(boards: list[Any]) -> None:
    """Print boards on stdout."""
    for board in boards:
        say(f"{board.title}\n\n{board.markdown()}")


SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting."
)
OUT = click.option("--out", type=FILE, default="runs", show_default=True, help="Folder of runs.")
RESUME = click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
