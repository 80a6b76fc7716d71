"""Locks: one holder a place, none left behind by a killed process."""

import os
import signal
import subprocess
import sys

import pytest

from cembench.training.train import train
from cembench.util.errors import CembenchError
from cembench.util.files.locks import locked
from tests.conftest import experiment

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
    with pytest.raises(CembenchError, match="it: another process is at it"), locked(path, "it"):
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


def test_two_trainings_of_one_run_do_not_mix(tmp_path):
    other = locked(tmp_path / "run" / ".lock", "the other one")
    with other, pytest.raises(CembenchError, match="another process is at it"):
        train(experiment(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
