"""What all commands share: errors in one line, options, tables on stdout."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from cembench.cli.arguments import Device, Module, require_assignments, value_of
from cembench.cli.codes import CLOSED, FAILED, rows
from cembench.cli.names import name_or_file
from cembench.interop.hub.address import elsewhere, is_address
from cembench.util.errors import CembenchError
from cembench.util.files.names import hint, shown
from cembench.util.stopping import asked, ending, interruptible
from cembench.util.verbosity import is_quiet, speaking

QUIET = "Print results and errors alone: no bars, no notes."
VERBOSE = "Log what is read, reused and done, with the time."

# Threads that spin while they wait cost a busy machine a multiple of the time (measured: a digits
# run of 6 s took 20 to 45 s beside one other process). It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def rank() -> int:
    """Return which of several processes this is."""
    return int(os.environ.get("RANK", "0"))


def alone() -> bool:
    """Return whether there is one process, which reads settings before it imports torch."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


class Command(click.Command):
    """A command whose errors are one line on stderr and exit code 2; `--debug` shows where.

    A signal ends it in one line too, with an exit code of its own.

    Args:
        args: as click takes them.
        example: arguments, for the help.
        settings: import path of the class whose keys KEY=VALUE changes, if any.
        codes: what its exit codes mean, where the help has to say more than of all commands.
        kwargs: as click takes them.
    """

    def __init__(
        self,
        *args: Any,
        example: str,
        settings: str = "",
        codes: Mapping[int, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.settings, self.codes = settings, dict(codes or {})
        self.epilog = f"Example: cembench {self.name} {example}"
        from_shell: dict[str, Any] = {"envvar": "CEMBENCH_PLUGINS", "show_envvar": True}
        text = "Import a module that registers something. Repeatable."
        self.params += [
            click.Option(["-q", "--quiet"], is_flag=True, help=QUIET),
            click.Option(["-v", "--verbose"], is_flag=True, help=VERBOSE),
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
            click.Option(["--plugin"], multiple=True, type=Module(), help=text, **from_shell),
        ]

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and below them the exit codes."""
        super().format_options(context, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl(rows(self.codes))

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; for an option named like a setting, say how settings are changed."""
        given = list(args)
        try:
            return super().parse_args(context, args)
        except click.NoSuchOption as error:
            if self._is_setting(key := error.option_name.lstrip("-").replace("-", "_")):
                value = value_of(error.option_name, given)
                fail(f"no such option {error.option_name}; settings are changed as {key}={value}")
            raise

    def _is_setting(self, key: str) -> bool:
        if not self.settings:
            return False
        module, _, name = self.settings.partition(":")
        return key.split(".")[0] in getattr(import_module(module), name).model_fields

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        debug, quiet, verbose = map(context.params.pop, ("debug", "quiet", "verbose"))
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose: give one of them", context)
        try:
            with interruptible(), speaking(quiet, verbose):
                return self._run(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(CLOSED)
        except KeyboardInterrupt:
            fail(*ending(), reporting_rank=0)
        except Exception as error:
            if debug:
                traceback.print_exc()
            known = isinstance(error, CembenchError | OSError) and str(error)
            if asked() and not known:  # C++ code made another exception of it
                fail(*ending(), reporting_rank=0)
            message = known or f"unexpected {error!r}; --debug shows where"
            message += hint(_missing_file(error))
            fail(message, reporting_rank=getattr(error, "reporting_rank", None))

    def _run(self, context: click.Context) -> Any:
        for module in context.params.pop("plugin"):
            from cembench.util.registry import add_plugin

            add_plugin(module)
        if changes := context.params.pop("changes", ()):
            context.params["overrides"] += require_assignments(changes)
        for parameter in self.params:
            if parameter.type is RUN and parameter.name is not None:
                context.params[parameter.name] = self._fetched(context.params[parameter.name])
        return super().invoke(context)

    def _fetched(self, given: Any) -> Any:
        """Return paths as they are, and where addresses lie once they are fetched."""
        if isinstance(given, tuple):
            return tuple(map(self._fetched, given))
        if not is_address(given):
            return given
        from cembench.interop.hub.cache import local
        from cembench.interop.hub.manifest import Part

        return local(given, Part[NEEDS.get(str(self.name), "ALL")])


def fail(message: str, code: int = FAILED, reporting_rank: int | None = None) -> None:
    """Say what went wrong in one line and leave; what all processes know is said by the first."""
    if reporting_rank is None or rank() == 0:
        where = f"process {reporting_rank or rank()}: " if reporting_rank or rank() else ""
        click.echo(f"cembench: error: {where}{shown(' '.join(message.split()))}", err=True)
    sys.exit(code)


def _missing_file(error: BaseException | None) -> object:
    """Return the file whose absence led to an error, if that did."""
    while error is not None and not isinstance(error, FileNotFoundError):
        error = error.__cause__
    return None if error is None else error.filename


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print as `click.echo` does, in the first of several processes alone.

    What goes to stderr is a note, which nobody sees under `--quiet`.

    A path is printed byte by byte, for scripts. In other texts, some of which come from files of
    others, what a terminal would obey is printed as escapes.
    """
    if rank() == 0 and not (err and is_quiet()):
        safe = bytes(text) if isinstance(text, Path) else shown(str(text), kept="\n")
        click.echo(safe, err=err, nl=nl)


def show(boards: list[Any]) -> None:
    """Print boards on stdout."""
    for board in boards:
        say(f"{board.title}\n\n{board.markdown()}")


def _runs(context: click.Context, parameter: click.Parameter, given: Any) -> Any:
    return given or (Path("runs"),)


class RunPath(click.Path):
    """A file or folder; or an address, which `Command` fetches before the command begins."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a path, or an address as it is."""
        return value if is_address(value) else super().convert(value, param, ctx)


class LocalPath(click.Path):
    """A file or folder of this machine."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Refuse an address, in one line."""
        if is_address(value):
            fail(f"{param.opts[0] if param.opts[0][0] == '-' else param.name}: {elsewhere(value)}")
        return super().convert(value, param, ctx)


# How much of a run each command reads, by the names of `Part`; others read all.
NEEDS = {"probe": "NETWORK", "bench": "NETWORK", "import": "NETWORK", "export": "RECORDS"}
NEEDS |= dict.fromkeys(("show", "compare", "leaderboard", "plot", "records"), "RECORDS")

# A command says in the help of the partial ones what its own is about.
FILE = LocalPath(path_type=Path)
RUN = RunPath(path_type=Path)
RUNS = click.argument("runs", nargs=-1, type=RUN, callback=_runs)
OUT = click.option("--out", type=FILE, default="runs", help="Folder of runs.")
KEY_VALUE = partial(click.option, multiple=True, metavar="KEY=VALUE")
SET = partial(KEY_VALUE, "--set", "overrides")
EXPERIMENT = "cembench.training.config:Experiment"  # whose keys `train` and `probe` change
SETTINGS = click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
PROTOCOL = partial(click.option, "--protocol", shell_complete=name_or_file("protocols"))
LIMIT = click.option("--limit", type=click.IntRange(1), help="Attack at most so many test images.")
JSON = partial(click.option, "--json", "as_json", is_flag=True)
IMAGES = click.option(
    "--images",
    type=click.IntRange(0),
    default=64,
    help="Attacked images of each run at most; 0 for none.",
)
RESUME = click.option("--resume", is_flag=True, help="Continue an interrupted run.")
DATA_ROOT = click.option("--data-root", help="Folder of the data set, if moved or never named.")
WEIGHTS = click.option(
    *("--extractor-weights", "--inception-weights", "inception_weights"),
    type=FILE,
    help="Weights file for the extractors inception and dinov2.",
)
DEVICE = click.option(
    "--device",
    default="auto",
    type=Device(),
    help="auto, cpu, cuda, cuda:1, … or mps.",
)
