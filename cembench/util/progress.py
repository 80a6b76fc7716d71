"""Progress on stderr: a live bar on a terminal and in a notebook, lines of text in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cembench.util.verbosity import is_quiet


def live_of(console: Console) -> Callable[..., Any]:
    """Return the class of live displays."""
    if not console.is_jupyter:
        return Live
    from cembench.util.display.notebook import NotebookLive

    return NotebookLive


class Speed(ProgressColumn):
    """The column of images per second."""

    def render(self, task: Task) -> Text:
        """Return the speed, blank before it is known."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


class Stderr(Console):
    """The console of stderr, whose reader may leave."""

    def on_broken_pipe(self) -> None:
        """Raise the error again: rich would end the process with an exit code of its own."""
        raise  # it is called where the error is caught


def stderr() -> Console:
    """Return the console of stderr; what is quiet writes nothing.

    It is interactive where what was shown can be replaced: in a notebook and on a terminal, which a
    file is not, even if `FORCE_COLOR` asks for colours in it.
    """
    console = Stderr(stderr=True, quiet=is_quiet())
    console.is_interactive &= sys.stderr.isatty()
    console.is_interactive |= console.is_jupyter
    return console


class Screen:
    """The live display of a terminal that bars are a part of, below something else.

    Attributes:
        above: what is shown above the bar.
        bar: the bar of what runs in this process, if any.
    """

    _current: ContextVar[Screen | None] = ContextVar("screen", default=None)

    def __init__(self, console: Console) -> None:
        self.console = console
        self.above: RenderableType = ""
        self.bar: Progress | None = None

    def __rich__(self) -> RenderableType:
        return Group(self.above, *([] if self.bar is None else [self.bar]))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it until this ends; bars that begin meanwhile appear in it."""
        token = Screen._current.set(self)
        try:
            with live_of(self.console)(self, console=self.console, refresh_per_second=4):
                yield
        finally:
            Screen._current.reset(token)

    @classmethod
    def current(cls) -> Screen | None:
        """Return the one that is shown."""
        return cls._current.get()


class Bar:
    """A progress bar over a number of images, with a note such as the current loss.

    Of several processes only the first one shows it.
    """

    def __init__(self, title: str, images: int) -> None:
        self._screen = Screen.current()
        self._console = stderr() if self._screen is None else self._screen.console
        self._shown = self._console.is_interactive
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}", markup=False),
            Speed(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._shown,
        )
        if self._console.is_jupyter:
            shown = self._progress.get_renderable
            self._progress.live = live_of(self._console)(
                console=self._console, get_renderable=shown
            )
        self._task = self._progress.add_task(title, total=images, note="")
        self._title = title

    def __enter__(self) -> Self:
        if self._screen is None:
            self._progress.start()
        else:
            self._screen.bar = self._progress
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._screen is None:
            self._progress.stop()
        else:
            self._screen.bar = None

    def advance(self, images: int, note: str | None = None) -> None:
        """Count images as done, and replace the note unless it is None."""
        fields = {} if note is None else {"note": note}
        self._progress.update(self._task, advance=images, **fields)  # type: ignore[arg-type]

    def report(self, text: str) -> None:
        """Write a line that a log needs where no bar is shown, which would say it already."""
        if not self._shown:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Write a line to the log or above the bar."""
        line = f"{self._title}: {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
