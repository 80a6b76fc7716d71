"""Live display in a notebook: one output of the cell that is replaced, without widgets."""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Self

from rich.console import Console, RenderableType

WIDTH = 100  # letters


class NotebookLive:
    """A live display as text, which stays in the notebook as it last was.

    It takes the place of `rich.live.Live`, which needs ipywidgets in a notebook and leaves nothing
    behind where they are not shown, such as in a saved one.

    Args:
        renderable: what is shown.
        console: of the display that it takes the place of.
        get_renderable: returns what is shown, in place of `renderable`.
        refresh_per_second: how often the output is replaced.
    """

    def __init__(
        self,
        renderable: RenderableType = "",
        *,
        console: Console,
        get_renderable: Callable[[], RenderableType] | None = None,
        refresh_per_second: float = 4,
    ) -> None:
        self.console, self.is_started = console, False
        self._renderable = get_renderable or (lambda: renderable)
        self._period, self._over = 1 / refresh_per_second, Event()
        self._thread = Thread(target=self._repeat, daemon=True)
        self._output: Any = None
        self._shown = ""

    def start(self, refresh: bool = True) -> None:
        """Show it, and again and again from now on."""
        self.is_started = True
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Show it for the last time."""
        if self.is_started:
            self.is_started = False
            self._over.set()
            self._thread.join()
            self.refresh()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def refresh(self) -> None:
        """Replace the output by what is to be shown now, if that is something else."""
        from IPython.display import display

        file = io.StringIO()
        Console(file=file, width=WIDTH, force_jupyter=False, color_system=None).print(
            self._renderable()
        )
        if (text := file.getvalue().rstrip()) == self._shown:
            return
        self._shown = text
        if self._output is None:
            self._output = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._output.update({"text/plain": text}, raw=True)

    def _repeat(self) -> None:
        while not self._over.wait(self._period):
            self.refresh()
