"""Suites that are killed: nobody goes on, and started again they end as if nothing had happened."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cembench.suites.launchers import local
from cembench.suites.launchers.processes import end_with
from cembench.util.files.yaml import to_yaml
from tests.conftest import TINY
from tests.suites.test_suites import below, command_of, until
from tests.support.forks import ROOT, Fork, Process

PROTOCOL = "{limit: 32, batch_size: 16, attacks: [{name: pgd, steps: 5}]}"
SECONDS = re.compile(r'"\w*(seconds|created|seal|table_sha256)": [^,}]*')


def suite(folder, methods, epochs):
    """Write a suite file, and return the command that runs it."""
    (folder / "proto.yaml").write_text(PROTOCOL)
    grid = {"method.name": methods, "seed": [0, 1]}
    content = {"protocol": "proto.yaml", "shared": TINY | {"epochs": epochs}, "grid": grid}
    del content["shared"]["method"]
    (folder / "s.yaml").write_text(to_yaml(content))
    return ["run", folder / "s.yaml", "--jobs", 2, "--out"]


def contents(out):
    """Return the results of a suite by file, without times."""
    found = {}
    for path in sorted(out.rglob("*.*")):
        if path.name == "model.safetensors":
            found[path.relative_to(out)] = path.read_bytes()
        elif path.suffix == ".json":
            found[path.relative_to(out)] = SECONDS.sub("", json.dumps(json.loads(path.read_text())))
        elif path.suffix in (".csv", ".parquet"):
            table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
            found[path.relative_to(out)] = table.filter(regex="^(?!.*seconds)").to_csv()
    return found


def require_same(killed, straight):
    found, expected = contents(killed), contents(straight)
    assert found.keys() == expected.keys() and len(found) > 8
    assert [name for name in found if found[name] != expected[name]] == []
    assert not list(killed.rglob(".*"))


def test_a_killed_suite_that_starts_again_at_once_meets_no_stranger(tmp_path, monkeypatch):
    monkeypatch.setattr("cembench.util.registry._named", {})  # by tests that ran before
    command, errors = suite(tmp_path, ["standard"], 4), tmp_path / "errors.txt"
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert Process(*command, straight, errors=errors).wait() == 0, errors.read_text()
    first = Process(*command, killed, errors=errors)
    until((killed / "standard.s1/history.csv").exists)
    workers = below(first.pid)
    first.send(signal.SIGKILL)
    first.wait()
    assert Process(*command, killed, errors=errors).wait() == 0, errors.read_text()
    assert len(workers) == 2 and not any(map(command_of, workers))
    require_same(killed, straight)


@pytest.mark.slow
def test_a_suite_killed_again_and_again_ends_in_the_files_of_one_that_never_was(tmp_path):
    command, errors = suite(tmp_path, ["at", "trades"], 6), tmp_path / "errors.txt"
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    begun = time.monotonic()
    assert Process(*command, straight, errors=errors).wait() == 0, errors.read_text()
    whole, drawn = time.monotonic() - begun, random.Random(0)
    for blow in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) * 3:
        process = subprocess.Popen(
            [sys.executable, "-m", "cembench", *map(str, command), killed],
            env=os.environ | {"PYTHONPATH": str(ROOT), "THIS_TEST": str(tmp_path)},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(drawn.uniform(0.5, 3 + whole / 3))
        process.send_signal(blow)
        process.wait(60)
        until(lambda: not strangers(tmp_path), 10)
    assert Process(*command, killed, errors=errors).wait() == 0, errors.read_text()
    require_same(killed, straight)


def strangers(folder):
    """Return the processes that began with a variable of this test, or were forked by those."""
    mark = f"THIS_TEST={folder}\0".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            found += [place.name] * (mark in place.joinpath("environ").read_bytes())
        except OSError:  # it has ended, or is of another user
            continue
    return found


def keep_busy(folder):
    """Be a worker that starts a process of its own."""
    child = subprocess.Popen(["sleep", "60"])
    (folder / f"worker.{child.pid}.{os.getpid()}").touch()
    time.sleep(60)


@pytest.mark.parametrize("victim", ["command", "worker", "interrupted command"])
def test_what_an_experiment_started_ends_with_it(tmp_path, victim):
    def command():
        with local.workers(local.Work(lambda: keep_busy(tmp_path), 1, [])) as start:
            polls = start([0, 1])
            until(lambda: any(poll() for poll in polls))
            (tmp_path / "noticed").touch()
            time.sleep(60)

    process = Fork(command, tmp_path.with_name("result.pt"))
    until(lambda: len(list(tmp_path.glob("*.*.*"))) == 2)
    files = sorted(tmp_path.glob("*.*.*"))
    a, b = ([int(pid) for pid in file.name.split(".")[1:]] for file in files)
    if victim == "worker":
        os.kill(a[1], signal.SIGKILL)
        until((tmp_path / "noticed").exists)
        until(lambda: not any(map(command_of, a)))  # the kernel takes a moment
        assert all(map(command_of, b))
    process.send(signal.SIGINT if "interrupted" in victim else signal.SIGKILL)
    process.wait()
    until(lambda: not any(map(command_of, a + b)), 10)


def test_a_process_whose_parent_ended_before_it_looked_ends_too(tmp_path):
    def work():
        end_with(parent=os.getppid() + 1)
        time.sleep(60)

    assert Fork(work, tmp_path / "result.pt").wait() == -signal.SIGKILL


def test_a_signal_that_comes_while_workers_start_is_not_lost(tmp_path):
    def work():
        came = iter([signal.SIGINT])
        os.register_at_fork(after_in_parent=lambda: [*map(signal.raise_signal, came)])
        done = []
        try:
            with local.workers(local.Work(print, 1, [])) as start_workers:
                start_workers([0, 1])
                done.append("all started")
                time.sleep(60)
        except KeyboardInterrupt:
            return done
        return None

    assert Fork(work, tmp_path / "result.pt").result() == []


def test_a_process_ends_with_its_owner_too(tmp_path):
    owner = subprocess.Popen(["sleep", "60"])

    def work():
        end_with(os.getppid(), owner.pid)
        time.sleep(60)

    process = Fork(work, tmp_path / "result.pt")
    owner.kill()
    owner.wait()
    assert process.wait() == -signal.SIGKILL
