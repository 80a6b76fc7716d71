"""Locks: one holder a place. What a killed process left is removed, and nothing else is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cembench.evaluation.cache import clear_abandoned
from cembench.training.train import train
from cembench.util.errors import CembenchError
from cembench.util.files import locks, replacing, write_bytes
from cembench.util.files.locks import locked
from cembench.util.files.temporary import clear_leftovers
from tests.conftest import experiment
from tests.support.forks import Fork

HOLD = """
import sys, time
from pathlib import Path
from cembench.util.files.locks import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_has_one_holder_and_ends_with_its_process(tmp_path):
    path = tmp_path / "run" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(CembenchError, match="it: another process is at it"),
        locked(path, "it", 0.1),
    ):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert path.exists()
    with locked(path, "it"):
        assert path.exists()
    assert not path.exists()


def test_a_lock_leaves_only_what_was_written_under_it(tmp_path):
    with locked(tmp_path / "new" / ".lock", "it"):
        pass
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "used" / ".lock", "it"):
        (tmp_path / "used" / "file").write_text("x")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["file"]


def test_two_trainings_of_one_run_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    other = locked(tmp_path / "run" / ".lock", "the other one")
    with other, pytest.raises(CembenchError, match="another process is at it"):
        train(experiment(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_lock_is_waited_for_while_its_holder_dies(tmp_path):
    path = tmp_path / "run" / ".lock"

    def hold():
        with locked(path, "it"):
            (tmp_path / "held").touch()
            time.sleep(0.5)
            os._exit(0)

    holder = Fork(hold, tmp_path / "result.pt")
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with locked(path, "it"):
        pass
    assert holder.wait() == 0 and not path.exists()


def test_many_processes_share_a_lock_whose_file_each_of_them_removes(tmp_path):
    path, inside = tmp_path / "run" / ".lock", tmp_path / "inside"

    def work():
        for _ in range(40):
            with locked(path, "it", patience=60):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                inside.unlink()

    processes = [Fork(work, tmp_path / f"{number}.pt") for number in range(6)]
    assert [process.result() for process in processes] == [None] * 6
    assert not path.exists()


def test_many_processes_write_one_file_and_leave_nothing_else(tmp_path):
    path = tmp_path / "out" / "file"

    def work():
        for _ in range(40):
            write_bytes(path, b"whole")
            assert path.read_bytes() == b"whole"
            clear_leftovers(path.parent)

    processes = [Fork(work, tmp_path / f"{number}.pt") for number in range(6)]
    assert [process.result() for process in processes] == [None] * 6
    assert list(path.parent.iterdir()) == [path]


def test_a_write_removes_what_killed_ones_of_the_same_file_left_and_no_other(tmp_path):
    path, theirs = tmp_path / "[a].png", tmp_path / ".b.png.abcd_012.tmp"
    theirs.write_bytes(b"half")
    with replacing(path) as first:
        first.write(b"first")
        path.with_name(".[a].png.abcd_012.tmp").write_bytes(b"half")
        write_bytes(path, b"second")
        assert len(list(tmp_path.glob(".[[]a].png.*"))) == 1  # what is being written
    assert path.read_bytes() == b"first"
    assert sorted(tmp_path.iterdir()) == [theirs, path]
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_evaluations_left_goes_once_there_is_a_record(tmp_path):
    """Also under earlier settings of the protocol; another protocol or process loses nothing."""
    own = [".quick-0a1b2c.json.lock", ".quick-0a1b2c.json.0123456789ab.parts"]
    edited = [".quick-ffffff.json.lock", ".quick.json.0123456789ab.parts"]
    kept = [".standard.json.lock", ".standard.json.0123456789ab.parts", ".net.quick.json.lock"]
    busy = [".quick-dddddd.json.lock", ".quick-dddddd.json.0123456789ab.parts"]
    for name in (*own, *edited, *kept, *busy[1:]):
        path = tmp_path / name
        path.mkdir() if path.suffix == ".parts" else path.touch()
        if path.suffix == ".parts":
            (path / "0.parquet").touch()
    with locked(tmp_path / busy[0], "the other one"):
        clear_abandoned(tmp_path / "quick-0a1b2c.json")
        assert {path.name for path in tmp_path.iterdir()} == {*kept, *busy}
