"""Progress in a notebook: one output for each bar, which is replaced and stays."""

import io
from functools import partial

import pytest

from cembench.util import progress
from cembench.util.progress import Bar, Screen, Stderr, stderr

display = pytest.importorskip("IPython.display")


class Handle:
    """An output of a cell, with all that it showed."""

    def __init__(self, text):
        self.texts = [text["text/plain"]]

    def update(self, text, raw):
        self.texts.append(text["text/plain"])


@pytest.fixture
def outputs(monkeypatch):
    """Outputs of live displays, as a notebook has them; nothing else is shown."""
    made = []

    def show(text, raw, display_id):
        made.append(Handle(text))
        return made[-1]

    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr(progress, "Stderr", partial(Stderr, force_jupyter=True))
    return made


def test_a_bar_is_one_output_that_ends_complete(outputs):
    with Bar("at", 100) as bar:
        bar.report("nothing, since the bar says it")
        for part in range(10):
            bar.advance(10, note=f"part {part}")
    assert len(outputs) == 1
    last = outputs[0].texts[-1]
    assert last.startswith("at ") and "━" * 20 in last and "part 9" in last and "\x1b" not in last


def test_a_bar_inside_a_screen_has_no_output_of_its_own(outputs):
    screen = Screen(progress.Stderr(stderr=True))
    screen.above = "two runs"
    with screen.shown(), Bar("at", 10) as bar:
        bar.advance(10)
    assert len(outputs) == 1 and "two runs" in outputs[0].texts[-1]


def test_a_bar_that_fails_stays_as_it_was(outputs):
    with pytest.raises(ZeroDivisionError), Bar("at", 10) as bar:
        bar.advance(5)
        raise ZeroDivisionError
    assert len(outputs) == 1 and outputs[0].texts[-1].startswith("at ")


def test_a_reader_who_leaves_is_told_as_one(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    with pytest.raises(BrokenPipeError):
        stderr().print("a line")
