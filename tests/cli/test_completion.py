"""What a shell offers at the tab key: asked as the shells' own scripts ask."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cembench.cli import main
from cembench.data import datasets
from cembench.methods import methods
from cembench.samplers import samplers
from cembench.util.shipped import shipped

ROOT = Path(__file__).parents[2]


def environment(**more):
    rest = {k: v for k, v in os.environ.items() if not k.startswith(("CEMBENCH", "_CEMBENCH"))}
    return {**rest, "PYTHONPATH": str(ROOT), **more}


def ask(line, *options, **more):
    """Return what bash is told when the tab key is pressed at the end of a line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), **more}
    command = [sys.executable, *options, "-m", "cembench"]
    told = environment(_CEMBENCH_COMPLETE="bash_complete", **asked)
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def offered(line):
    """Return the same as kinds and names, asked in this process."""
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "CEMBENCH_PLUGINS": None}
    told = {"_CEMBENCH_COMPLETE": "bash_complete", **asked}
    result = CliRunner().invoke(main, [], prog_name="cembench", env=told)
    assert result.exit_code == 0, result.stderr
    return [tuple(item.split(",", 1)) for item in result.stdout.split()]


def plain(*names):
    return [("plain", name) for name in names]


def test_commands_and_options():
    assert {name for _, name in offered("cembench ")} == set(
        main.list_commands(click.Context(main))
    )
    assert offered("cembench lead") == plain("leaderboard")
    assert offered("cembench eval --sav") == plain("--save-samples", "--save-adversarial")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("cembench eval x --protocol ", shipped("protocol")),
        ("cembench check --baseline b --update --protocol st", ["standard"]),
        ("cembench sample x --sampler ", samplers.known()),
        ("cembench sample x --seeds no", ["noise"]),
        ("cembench bench train --method ", methods.known()),
        ("cembench bench --sampler n", ["np-sgld"]),
        ("cembench eval --engine ", ["fast", "plain"]),
        ("cembench probe x --mode adv-", ["adv-linear", "adv-finetune"]),
        ("cembench list tr", ["trackers"]),
        ("cembench run quick", ["quickstart"]),
        ("cembench train digits-a", ["digits-adv-infonce", "digits-at"]),
        ("cembench init mine.yaml --recipe cifar10-f", ["cifar10-fast-at"]),
        ("cembench completion ", ["bash", "zsh", "fish"]),
        ("cembench train c.yaml --device c", ["cpu", "cuda"]),
    ],
)
def test_names_that_an_option_takes(line, names):
    assert offered(line) == plain(*names)


@pytest.mark.parametrize(
    "line",
    [
        "cembench train conf",
        "cembench eval runs/",
        "cembench check runs/",
        "cembench eval x --protocol mine",
        "cembench verify x",
        "cembench sample x --out ",
    ],
)
def test_files_are_left_to_the_shell(line):
    assert [kind for kind, _ in offered(line)] == ["file"]


@pytest.mark.parametrize(
    "line", ["cembench ", "cembench eval --protocol ", "cembench sample x --sampler "]
)
def test_the_tab_key_waits_for_no_torch_and_no_plugin(line):
    told = ask(line, "-X", "importtime", CEMBENCH_PLUGINS="torch").stderr
    modules = {row.split("|")[-1].strip() for row in told.splitlines() if "import time" in row}
    assert "cembench.cli" in modules
    assert not modules & {"torch", "pandas", "matplotlib"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(cembench, shell):
    result = cembench("completion", shell)
    assert result.code == 0 and f"_CEMBENCH_COMPLETE={shell}_complete" in result.out


def test_bash_itself_completes(cembench, tmp_path):
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash here")
    program = tmp_path / "cembench"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cembench "$@"\n')
    program.chmod(0o755)
    script = cembench("completion", "bash").out + (
        'COMP_WORDS=(cembench sample x --sampler maxe); COMP_CWORD=4; _cembench_completion "$1"\n'
        'echo "${COMPREPLY[@]}"; complete -p cembench\n'
    )
    command = [bash, "--norc", "-c", script, "bash", str(program)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "maxent", done.stderr
    assert "_cembench_completion cembench" in done.stdout


def test_data_sets_are_known_without_plugins_too():
    assert {"digits", "cifar10"} <= set(datasets.known()) <= set(datasets.names())
