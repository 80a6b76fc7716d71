"""Processes that are killed, or meet another one: nothing is lost, nothing is half, no mix-up."""

import random
import signal
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from PIL import Image

import cembench.training.run_folder as run_folder
from cembench.attacks import Attack, attacks
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.record.files import load_record, load_table
from cembench.models.checkpoint import load_checkpoint
from cembench.training.config import load_experiment
from cembench.training.run_folder import RunFolder
from cembench.training.train import train
from cembench.util.files import locks
from cembench.util.files.yaml import to_yaml
from cembench.util.rng import generator_of
from tests.conftest import experiment
from tests.support.forks import Blow, Process
from tests.support.records import settled
from tests.support.stores import FewDigits

CHUNKS, STAGES = 4, 3
PROTOCOL = """
limit: 64
batch_size: 16
attacks: [{name: pgd, steps: 2}, staged]
"""
FEW = {"data": FewDigits.name}
JEM = {"name": "jem", "negatives": {"name": "sgld", "steps": 1, "buffer": 50}}


@attacks.register
class Staged(Attack):
    """Random corners of the ball in three stages; each run of one is a line in a log."""

    name: ClassVar[str] = "staged"
    log: ClassVar[Path] = Path()

    def stages(self, target):
        def corner(number):
            def propose(x, y):
                with self.log.open("a") as file:
                    file.write("stage\n")
                drawn = torch.rand(x.shape, generator=generator_of(number, "cpu"))
                return (x + target.threat.eps * (drawn - 0.5).sign()).clamp(0, 1)

            return propose

        return [(f"corner {number}", corner(number)) for number in range(STAGES)]


@pytest.fixture
def protocol(tmp_path, monkeypatch):
    monkeypatch.setattr(Staged, "log", tmp_path / "stages.log")
    path = tmp_path / "small.yaml"
    path.write_text(PROTOCOL)
    return path


@pytest.fixture
def config(tmp_path):
    """The config of a run `c`."""
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(experiment(**FEW).dump()))
    return path


READERS = {
    "model.safetensors": load_checkpoint,
    "last.ckpt": lambda path: RunFolder(path.parent).load(),
    "config.yaml": load_experiment,
    "history.csv": pd.read_csv,
    ".json": load_record,
    ".png": Image.open,
}


def require_whole(folder):
    """Read every file that stands under its final name."""
    for path in folder.rglob("*"):
        reader = READERS.get(path.name) or READERS.get(path.suffix)
        if reader is not None and not path.name.startswith("."):
            reader(path)


def chain(command, folder, moments, check):
    """Run a command again and again, each time killed at a drawn moment; return the kills."""
    errors, kills = folder.parent / "errors.txt", 0
    while (code := Process(*command, errors=errors, blow=Blow(folder, moments())).wait()) != 0:
        assert code == -signal.SIGKILL, errors.read_text()
        kills += 1
        assert kills < 200, "no progress"
        require_whole(folder)
        check()
    return kills


def test_training_killed_again_and_again_ends_as_if_it_never_was(tmp_path):
    settings = experiment(method=JEM, epochs=5, optimizer={"lr": 1e-3}, **FEW)
    straight = train(settings, tmp_path / "straight")
    (tmp_path / "c.yaml").write_text(to_yaml(settings.dump()))
    command = ["train", tmp_path / "c.yaml", "--out", tmp_path, "--resume"]
    run, done = RunFolder(tmp_path / "c"), [0]

    def check():
        state = run.load()
        done.append(0 if state is None else state.epoch)
        assert done[-1] >= done[-2]

    drawn = random.Random(0)
    assert chain(command, run.folder, lambda: drawn.randint(2, 50), check) > 6
    assert len(set(done)) > 3  # epochs that a kill came after
    for name in ("model.safetensors", "buffer.safetensors", "config.yaml"):
        assert (run.folder / name).read_bytes() == straight.with_name(name).read_bytes()
    pd.testing.assert_frame_equal(*(history(path) for path in (straight.parent, run.folder)))
    assert not list(run.folder.glob(".*"))


@pytest.mark.parametrize("last", ["history", "buffer", "checkpoint"])
def test_a_run_killed_among_its_last_writes_is_completed_by_resuming(tmp_path, monkeypatch, last):
    settings = experiment(method=JEM, epochs=1, optimizer={"lr": 1e-3}, **FEW)
    straight = train(settings, tmp_path / "straight").parent
    owner, name = {
        "history": (pd.DataFrame, "to_csv"),
        "buffer": (run_folder, "write_tensors"),
        "checkpoint": (run_folder, "save_checkpoint"),
    }[last]

    def kill(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, kill)
        train(settings, tmp_path / "killed")
    train(settings, tmp_path / "killed", resume=True)
    for name in ("model.safetensors", "buffer.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (straight / name).read_bytes()
    pd.testing.assert_frame_equal(history(straight), history(tmp_path / "killed"))


def history(folder):
    return pd.read_csv(folder / "history.csv").drop(columns="seconds")


def test_an_evaluation_killed_again_and_again_ends_as_if_it_never_was(copy, protocol, tmp_path):
    _, path = evaluate(copy, load_protocol(str(protocol)))
    straight, table = settled(path), load_table(path)
    path.unlink()
    path.with_suffix(".parquet").unlink()
    Staged.log.unlink()
    finished: dict[Path, int] = {}

    def check():
        """A chunk that was finished is neither lost nor computed again."""
        found = {p: p.stat().st_mtime_ns for p in path.parent.glob(".*.parts/*.parquet")}
        assert path.exists() or finished.items() <= found.items()
        finished.update(found)

    drawn = random.Random(1)
    command = ["eval", copy, "--protocol", protocol]
    kills = chain(command, copy.parent, lambda: drawn.randint(2, 36), check)
    assert kills > 6 and len(finished) == CHUNKS
    stages = len(Staged.log.read_text().splitlines())
    assert stages <= CHUNKS * STAGES + kills  # a kill costs the stage it struck, no other
    assert settled(path) == straight
    pd.testing.assert_frame_equal(load_table(path), table)
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("content", [b"", b"\x00\xff garbage \n" * 999], ids=["empty", "garbage"])
def test_a_lock_that_a_killed_process_left_locks_nobody_out(content, copy, config, protocol):
    run = config.parent / "runs" / "c"
    for command, lock in (
        (["train", config, "--out", run.parent], run / ".lock"),
        (["eval", copy, "--protocol", protocol], copy.parent / "eval"),
    ):
        errors = config.with_name("errors.txt")
        blow = Blow(lock.parent, 12)
        assert Process(*command, errors=errors, blow=blow).wait() == -signal.SIGKILL
        left = [lock] if lock.name == ".lock" else list(lock.glob(".*.lock"))
        assert len(left) == 1
        left[0].write_bytes(content)
        again = [*command, "--resume"] if command[0] == "train" else command
        assert Process(*again, errors=errors).wait() == 0, errors.read_text()
        assert not left[0].exists()


def test_of_two_trainings_of_a_run_one_wins_and_is_not_disturbed(config, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    straight = train(load_experiment(config), config.parent / "straight")
    out = config.parent / "runs"
    command = ["train", config, "--out", out, "--resume"]
    blow = Blow(out / "c", 30, signal.SIGSTOP)
    require_one_winner(command, blow, config.with_name("errors.txt"))
    assert (out / "c" / straight.name).read_bytes() == straight.read_bytes()


def test_of_two_evaluations_of_a_run_one_wins_and_is_not_disturbed(copy, protocol, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    _, path = evaluate(copy, load_protocol(str(protocol)))
    alone = settled(path)
    path.unlink()
    command = ["eval", copy, "--protocol", protocol]
    blow = Blow(copy.parent, 40, signal.SIGSTOP)
    require_one_winner(command, blow, protocol.with_name("errors.txt"))
    assert settled(path) == alone
    load_table(path)


def require_one_winner(command, blow, errors):
    first = Process(*command, errors=errors, blow=blow)
    assert first.wait() == -signal.SIGSTOP
    assert Process(*command, errors=errors).wait() == 2
    assert "another process is at it" in errors.read_text().splitlines()[-1]
    first.send(signal.SIGCONT)
    assert first.wait() == 0, errors.read_text()


def test_what_a_killed_write_left_half_done_is_cleared_by_the_next_evaluation(copy, protocol):
    _, path = evaluate(copy, load_protocol(str(protocol)))
    for name in (path.name, path.with_suffix(".parquet").name):
        path.with_name(f".{name}.abcd_012.tmp").write_bytes(b"half")
    evaluate(copy, load_protocol(str(protocol)))
    assert not list(path.parent.glob(".*"))
