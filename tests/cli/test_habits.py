"""What people expect of every command: quiet, verbose, colours, exit codes."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest

from cembench.cli import main
from cembench.cli.codes import SIGNALS, codes_of
from cembench.util import stages
from cembench.util.progress import Bar
from cembench.util.stopping import ENDINGS
from cembench.util.verbosity import is_quiet
from tests.conftest import NOTHING

REFERENCE = Path(__file__).parents[2] / "leaderboards" / "reference"
(RECORD,) = REFERENCE.glob("at/eval/baseline-*.json")
ATTACK = ("attacks=[{name: pgd, steps: 1}]", *NOTHING[1:], "--limit", 10)


@pytest.fixture
def runs(trained, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(trained / "model.safetensors", tmp_path / name)
    return tmp_path / "one", tmp_path / "two"


def test_quiet_prints_results_and_errors_alone(cembench, runs):
    said = cembench("eval", *runs, *ATTACK)
    assert said.code == 0 and "clean" in said.err
    quiet = cembench("eval", *runs, *ATTACK, "-q")
    assert (quiet.code, quiet.err) == (0, "") and quiet.out == said.out
    refused = cembench("show", "nosuch", "--quiet")
    assert refused.code == 2 and refused.err.startswith("cembench: error: ")
    assert not is_quiet(), "it lasts for one command"


def test_verbose_logs_what_is_read_and_done(cembench, runs, monkeypatch):
    monkeypatch.setattr(stages, "SHORT", 0.0)
    said = cembench("eval", runs[0], *ATTACK, "-v")
    lines = said.err.splitlines()
    assert any(" pgd: " in line and line.endswith(" s") for line in lines)
    assert said.code == 0 and all(line.split()[1] == "ms" for line in lines if " ms  " in line)
    assert any(line.endswith("model.safetensors: read") for line in lines)
    assert said.out == cembench("eval", runs[0], *ATTACK).out
    assert "ms  " not in cembench("show", RECORD).err
    both = cembench("show", RECORD, "-q", "-v")
    assert both.code == 2 and "give one of them" in both.err


@pytest.fixture
def drawn(monkeypatch):
    """Draw a bar, on a terminal or into a file, and return what was written."""

    def draw(terminal, **environment):
        for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm-256color"} | environment).items():
            monkeypatch.setenv(name, value)
        reading, writing = os.openpty() if terminal else os.pipe()
        with os.fdopen(writing, "w") as file, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", file)
            with Bar("train", 4) as bar:
                bar.advance(4, "loss 1")
                bar.report("epoch 1/1 loss 1")
        found = b""
        with suppress(OSError):  # which the end of a terminal is
            while part := os.read(reading, 100_000):
                found += part
        os.close(reading)
        return found.decode()

    return draw


def test_colours_and_control_codes_are_for_terminals(drawn):
    assert "\x1b[38;5;" in drawn(True) and "epoch" not in drawn(True)
    plain = drawn(True, NO_COLOR="1")
    assert "loss 1" in plain and "\x1b[3" not in plain
    for terminal, environment in (
        (True, {"TERM": "dumb"}),
        (False, {}),
        (False, {"NO_COLOR": "1"}),
    ):
        assert drawn(terminal, **environment).split() == ["train:", "epoch", "1/1", "loss", "1"]
    forced = drawn(False, FORCE_COLOR="1")
    assert "epoch 1/1" in forced and "\x1b[?25l" not in forced and "\r" not in forced


def test_the_help_of_each_command_has_its_exit_codes(cembench):
    for name in main.list_commands(context := click.Context(main)):
        command = main.get_command(context, name)
        told = cembench(name, "--help").out.partition("Exit codes:\n")[2]
        first = [line.split()[0] for line in told.splitlines() if line.startswith("  ")]
        assert {*map(str, codes_of(command.codes))} <= {*first}, name
        assert ("1" in first) == (1 in command.codes)
    assert "130, 143, 75" in cembench("--help").out
    assert {*SIGNALS} == {ending.code for ending in ENDINGS.values()}


def test_exit_codes_are_those_of_the_help(cembench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cembench("leaderboard", REFERENCE / "at", "--out", ".").code == 0
    (table,) = tmp_path.glob("digits-linf-0.125-baseline-*.csv")
    assert cembench("verify", table, REFERENCE / "at").code == 0
    head, row = table.read_text().splitlines()
    table.write_text(f"{head}\n{row.replace('0.8', '0.9', 1)}\n")
    differs = cembench("verify", table, REFERENCE / "at")
    assert differs.code == 1 and "DIFFERS" in differs.out
    for wrong in (
        ["verify", "none.csv", "."],
        ["show", "none"],
        ["list", "nosuch"],
        ["list", "-?"],
    ):
        assert cembench(*wrong).code == 2
