"""Signals: one line and an exit code of their own, locks released, training saved in mid-epoch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import cembench.training.run_folder as run_folder
import cembench.training.trainer as trainer_module
import cembench.util.stopping as stopping
from cembench.attacks.pgd import PGDAttack
from cembench.cli import main
from cembench.cli.base import Command
from cembench.suites.launchers import processes
from cembench.suites.launchers.job import Job
from cembench.training.run_folder import RunFolder
from cembench.training.train import train
from cembench.training.trainer import Trainer
from cembench.util.files.yaml import to_yaml
from tests.conftest import experiment
from tests.support.divergence import diverging
from tests.support.forks import Fork
from tests.support.ranks import Place, called, free_port, start

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGUSR1: "stopped before its time limit",
}
JEM = {"name": "jem", "negatives": {"name": "sgld", "steps": 2, "buffer": 50}}
RECIPES = {
    "at": {
        "data": {"name": "digits", "crop": 1, "flip": True},
        "schedule": {"name": "one-cycle"},
        "ema": 0.9,
    },
    "jem": {"method": JEM, "optimizer": {"name": "adamw", "lr": 1e-3}, "select": "clean"},
    "bf16": {
        "method": "standard",
        "precision": "bf16",
        "optimizer": {"clip": 1.0},
        "epoch_images": 1030,
    },
    "infonce": {"method": "infonce", "optimizer": {"name": "adamw", "lr": 1e-3}},
}


@pytest.fixture(autouse=True)
def restored():
    """Ignore no signal, as tests in the background of a script do, and restore the handlers."""
    with stopping.kept_handlers():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        stopping.handle_signals()


@pytest.fixture
def command(cembench):
    """Call the command line as a process does, where it handles signals."""

    def call(*args):
        stopping.handle_signals()
        return cembench(*args)

    return call


def require_stopped(result, number):
    assert result.code == CODES[number]
    lines = result.err.splitlines()
    assert lines[-1].startswith(f"cembench: error: {WORDS[number]}; what was finished is kept")
    assert sum("error" in line for line in lines) == 1 and "Traceback" not in result.err


def struck(monkeypatch, owner, name, blows):
    """Send this process signals before chosen calls of a function; return a list of its calls."""
    original, calls = getattr(owner, name), []

    def strike(*args, **options):
        calls.append(args)
        if (number := blows.get(len(calls))) is not None:
            signal.raise_signal(number)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, strike)
    return calls


def write(folder, **changes):
    path = folder / "c.yaml"
    path.write_text(to_yaml(experiment(**changes).dump()))
    return ["train", path, "--out", folder, "--resume"]


def require_same(run, straight):
    for path in (straight / name for name in ("model.safetensors", "buffer.safetensors")):
        if path.exists():
            assert (run / path.name).read_bytes() == path.read_bytes()
    tables = [pd.read_csv(folder / "history.csv") for folder in (run, straight)]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_stopped_within_its_epochs_ends_as_if_it_never_was(
    recipe, command, tmp_path, monkeypatch
):
    train(experiment(**RECIPES[recipe]), tmp_path / "straight")
    args, run = write(tmp_path, **RECIPES[recipe]), RunFolder(tmp_path / "c")
    blows = {3: signal.SIGTERM, 4: signal.SIGUSR1, 8: signal.SIGINT, 13: signal.SIGTERM}
    steps = struck(monkeypatch, Trainer, "step", blows)
    for number, blow in blows.items():
        require_stopped(command(*args), blow)
        assert len(steps) == number  # no step is lost
        assert run.load_midway(run.load()).midway["steps"] == (number - 1) % 8 + 1
        assert not list(run.folder.glob(".*"))
    validations = struck(monkeypatch, trainer_module, "validate", {2: signal.SIGTERM})
    require_stopped(command(*args), signal.SIGTERM)
    assert len(steps) == 24 and len(validations) == 2
    assert command(*args).code == 0
    assert len(steps) == 24 and len(validations) == 3
    require_same(run.folder, tmp_path / "straight")
    assert not run.midway_state.exists()


def test_a_second_signal_ends_a_save_at_once_and_nothing_is_half(
    command, tmp_path, monkeypatch, trained
):
    args, run = write(tmp_path), RunFolder(tmp_path / "c")
    monkeypatch.setattr(stopping, "SAME", 0.0)
    with monkeypatch.context() as patch:
        steps = struck(patch, Trainer, "step", {11: signal.SIGTERM})
        saves = struck(patch, run_folder.torch, "save", {3: signal.SIGINT})
        require_stopped(command(*args), signal.SIGTERM)
    assert len(steps) == 11 and len(saves) == 3
    assert not run.midway_state.exists() and not list(run.folder.glob(".*"))
    assert run.load().epoch == 1
    assert command(*args).code == 0
    require_same(run.folder, trained)


def test_what_several_send_at_once_is_one_signal(command, tmp_path, monkeypatch):
    args, run = write(tmp_path, method="standard"), RunFolder(tmp_path / "c")
    struck(monkeypatch, Trainer, "step", {2: signal.SIGTERM})
    struck(monkeypatch, run_folder.torch, "save", {2: signal.SIGTERM})
    require_stopped(command(*args), signal.SIGTERM)
    assert run.load_midway(run.load()).midway["steps"] == 2


def test_a_divergence_goes_back_to_the_last_whole_epoch_wherever_training_was_stopped(
    command, tmp_path, monkeypatch
):
    changes = {"method": "standard", "divergence": {"policy": "rollback"}}
    with monkeypatch.context() as patch:
        diverging(patch, {13})
        straight = train(experiment(**changes), tmp_path / "straight")
    args = write(tmp_path, **changes)
    diverging(monkeypatch, {13})
    struck(monkeypatch, Trainer, "step", {11: signal.SIGTERM, 15: signal.SIGTERM})
    codes = [command(*args).code for _ in range(3)]
    assert codes == [143, 143, 0]
    require_same(tmp_path / "c", straight.parent)


def test_a_run_that_saves_every_few_minutes_goes_on_within_its_epoch(tmp_path, monkeypatch):
    settings = experiment(method="standard", epochs=2, save_every=1e-9)
    assert settings.identity == experiment(method="standard", epochs=2).identity
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        struck(patch, Trainer, "step", {12: signal.SIGINT})
        train(settings, tmp_path / "c")
    steps = struck(monkeypatch, Trainer, "step", {})
    train(settings, tmp_path / "c", resume=True)
    assert len(steps) == 16 - 11
    straight = train(settings.model_copy(update={"save_every": None}), tmp_path / "straight")
    require_same(tmp_path / "c", straight.parent)


def test_a_state_within_an_epoch_is_named_when_it_is_damaged(command, tmp_path, monkeypatch):
    args, run = write(tmp_path, method="standard"), RunFolder(tmp_path / "c")
    with monkeypatch.context() as patch:
        struck(patch, Trainer, "step", {11: signal.SIGTERM})
        command(*args)
    content = run.midway_state.read_bytes()
    run.midway_state.write_bytes(content[:-1000])
    result = command(*args)
    assert result.code == 2
    assert "midway.ckpt: damaged resume state; delete it to go on after epoch 1" in result.err


@pytest.mark.parametrize("number", CODES)
def test_an_evaluation_ends_at_once_and_keeps_its_chunks(
    number, command, copy, tmp_path, monkeypatch
):
    plan = tmp_path / "p.yaml"
    plan.write_text("limit: 48\nbatch_size: 16\nattacks: [{name: pgd, steps: 2}]\n")
    with monkeypatch.context() as patch:
        struck(patch, PGDAttack, "stages", {3: number})
        require_stopped(command("eval", copy, "--protocol", plan), number)
    left = sorted(path.name for path in (copy.parent / "eval").iterdir())
    assert len(left) == 1 and left[0].endswith(".parts")
    attacked = struck(monkeypatch, PGDAttack, "stages", {})
    assert command("eval", copy, "--protocol", plan).code == 0
    assert len(attacked) <= 2  # the last of three chunks, and images that are evaluated again


def test_signals_end_every_command():
    context = main.make_context("cembench", ["list"])
    commands = [main.get_command(context, name) for name in main.list_commands(context)]
    assert len(commands) > 10 and all(isinstance(one, Command) for one in commands)


def test_an_import_is_finished_before_a_signal_ends_the_command(tmp_path, monkeypatch):
    """Extension modules swallow an exception within, and leave half of what they imported."""
    plugin = tmp_path / "struck_plugin.py"
    plugin.write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\ndone = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def work():
        stopping.handle_signals()
        result = called(["list", "methods", "--plugin", "struck_plugin"])
        time.sleep(2 * stopping.MOMENT)  # the second try of the signal finds the command ended
        return result, sys.modules["struck_plugin"].done

    result, done = Fork(work, tmp_path / "result.pt").result()
    require_stopped(result, signal.SIGTERM)
    assert done


@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_the_command_line_is_imported_is_one_line(number, tmp_path):
    (tmp_path / "click.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    done = subprocess.run(
        [sys.executable, "-m", "cembench", "list"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CODES[number] and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cembench: error: {WORDS[number]}; what was finished is kept")


def test_what_ignores_a_signal_goes_on_ignoring_it():
    """As below nohup, or in the background of a script."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.handle_signals()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_training_from_python_leaves_handlers_alone(tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in CODES]
    seen = []
    original = Trainer.step
    monkeypatch.setattr(
        Trainer,
        "step",
        lambda *args: seen.append([signal.getsignal(n) for n in CODES]) or original(*args),
    )
    train(experiment(epochs=1, method="standard"), tmp_path)
    assert all(handlers == before for handlers in seen) and seen


def test_processes_stop_at_one_step_and_the_first_says_so(tmp_path, monkeypatch):
    settings = {"method": JEM, "optimizer": {"lr": 1e-3}, "epochs": 1}
    args = write(tmp_path, **settings)

    def run(*command, **blows):
        port = free_port()

        def work(rank):
            stopping.handle_signals()
            if rank == 1:
                struck(monkeypatch, Trainer, "step", dict(blows.values()))
            return called(command)

        forks = [start(Place(r, 2, port), lambda r=r: work(r), tmp_path) for r in range(2)]
        return [fork.result() for fork in forks]

    assert [one.code for one in run(*args, "--name", "straight")] == [0, 0]
    first, second = run(*args, blow=(3, signal.SIGTERM))
    assert first.code == second.code == 143 and second.err == ""
    assert first.err.splitlines()[-1].startswith("cembench: error: terminated; what was")
    folder = RunFolder(tmp_path / "c")
    assert folder.load_midway(folder.load()).midway["steps"] == 3
    assert [one.code for one in run(*args)] == [0, 0]
    require_same(tmp_path / "c", tmp_path / "straight")


PREEMPTED = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: (time.sleep(0.2), os._exit(75)))
os.kill(os.getppid(), signal.SIGUSR2)
time.sleep(30)
"""


def test_a_preempted_job_saves_its_state_before_it_is_queued_again(tmp_path, monkeypatch):
    submitit = pytest.importorskip("cembench.suites.launchers.submitit")
    process = [sys.executable, "-c", PREEMPTED]
    monkeypatch.setattr(Job, "start", lambda self: subprocess.Popen(process))
    monkeypatch.setattr(processes, "SAVING", 20.0)
    job, requeued, again = Job((), Path("log.txt"), tmp_path), submitit.Requeued(), []
    before = signal.signal(signal.SIGUSR2, lambda *_: again.append(requeued.checkpoint(job)))
    try:
        assert requeued(job) == 75
    finally:
        signal.signal(signal.SIGUSR2, before)
    (delayed,) = again
    assert isinstance(delayed.function, submitit.Requeued) and delayed.args == (job,)
