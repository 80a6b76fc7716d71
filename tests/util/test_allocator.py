"""Freed memory is kept, unless the user has chosen otherwise."""

import ctypes

from cembench.util.allocator import CHOSEN, keep_freed_memory


def test_the_environment_has_the_last_word(monkeypatch):
    calls = []

    class Library:
        def __init__(self, name):
            self.mallopt = lambda *args: calls.append(args)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr("sys.platform", "linux")
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory()
    assert len(calls) == 2
    monkeypatch.setenv(CHOSEN[0], "131072")
    keep_freed_memory()
    assert len(calls) == 2


def test_a_library_without_such_a_call_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
