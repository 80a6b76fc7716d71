"""Trackers look on: they show every finished epoch once, and change or end nothing."""

import random
import signal
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cembench.models.metadata import read_metadata
from cembench.models.recipe import recipe_of
from cembench.suites.suite import load_suite
from cembench.training.config import parse_experiment
from cembench.training.trackers import Tracker, TrackerRun, trackers
from cembench.training.train import train
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.yaml import read_yaml, to_yaml
from tests.conftest import TINY, experiment
from tests.support.disk import Disk
from tests.support.divergence import diverging
from tests.support.forks import Blow, Process
from tests.support.stores import FewDigits

FEW = {"data": FewDigits.name}
FOLLOWED = {"tracker": "tensorboard"}
TAGS = {
    "train/loss": "loss",
    "train/lr": "lr",
    "validation/clean_acc": "val_clean_acc",
    "validation/robust_acc": "val_pgd_acc",
    "cost/divergences": "divergences",
    "cost/gradients": "gradients",
    "cost/seconds": "seconds",
}


@trackers.register
class Probing(Tracker):
    """Draws random numbers, notes what it is told, and fails where it is asked to."""

    name: ClassVar[str] = "probing"
    told: ClassVar[list[object]] = []
    at: str = ""

    def open(self, run):
        self._reach("open")
        type(self).told = [run.name, run.config]
        return Notes(self)

    def _reach(self, place):
        random.random(), np.random.rand(), torch.rand(3), torch.manual_seed(7)
        if place == self.at:
            raise OSError(f"no route\nfrom {place}")


class Notes(TrackerRun):
    def __init__(self, tracker):
        self.tracker = tracker

    def write(self, epoch, values):
        self.tracker._reach(f"epoch {epoch}")
        self.tracker.told.append(epoch)

    def close(self, failed):
        self.tracker._reach("close")
        self.tracker.told.append("failed" if failed else "finished")


@trackers.register
class Absent(Probing):
    name: ClassVar[str] = "absent"
    package: ClassVar[str | None] = "no_such_package"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that nobody follows."""
    return train(experiment(**FEW), tmp_path_factory.mktemp("alone") / "run").parent


def events(run):
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    return found, {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def agrees_with_history(run):
    history = pd.read_csv(run / "history.csv")
    _, points = events(run)
    assert set(points) == set(TAGS)
    for tag, column in TAGS.items():
        assert [step for step, _ in points[tag]] == history["epoch"].tolist()
        assert [value for _, value in points[tag]] == pytest.approx(history[column].tolist())


def test_tensorboard_has_every_figure_of_the_history_and_the_settings_once(alone, tmp_path):
    run = tmp_path / "followed"
    train(experiment(**FEW, **FOLLOWED), run)
    agrees_with_history(run)
    (text,) = events(run)[0].Tensors("run/text_summary")
    told = text.tensor_proto.string_val[0].decode()
    assert told.startswith("followed\n") and to_yaml(experiment(**FEW).dump()) in told
    for name in ("model.safetensors", "config.yaml"):  # and it left no other trace
        assert (run / name).read_bytes() == (alone / name).read_bytes()


def test_a_killed_run_keeps_its_finished_epochs_and_resuming_doubles_none(alone, tmp_path):
    (tmp_path / "c.yaml").write_text(to_yaml(TINY | FEW | FOLLOWED))
    command = ("train", tmp_path / "c.yaml", "--out", tmp_path, "--resume")
    run = tmp_path / "c"
    blow = Blow(run / "history.csv", 3)  # the third epoch is saved, and nobody told of it
    assert Process(*command, errors=tmp_path / "errors", blow=blow).wait() == -signal.SIGKILL
    assert [step for step, _ in events(run)[1]["train/loss"]] == [1, 2]
    assert Process(*command, errors=tmp_path / "errors").wait() == 0
    agrees_with_history(run)
    assert (run / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def test_a_run_may_be_followed_from_the_middle_and_left_again(tmp_path, monkeypatch):
    diverging(monkeypatch, {10})
    with pytest.raises(CembenchError, match="the loss is"):
        train(experiment(tracker="probing"), tmp_path)
    assert Probing.told[2:] == [1, "failed"]
    diverging(monkeypatch, {10})
    with pytest.raises(CembenchError, match="the loss is"):
        train(experiment(**FOLLOWED), tmp_path, resume=True)
    train(experiment(tracker=["probing", "tensorboard"]), tmp_path, resume=True)
    assert Probing.told[2:] == [1, 2, 3, "finished"]
    agrees_with_history(tmp_path)


def test_a_rolled_back_epoch_is_shown_once_as_it_was_taken(tmp_path, monkeypatch):
    diverging(monkeypatch, {3, 12, 15})
    train(experiment(divergence={"policy": "rollback"}, **FOLLOWED), tmp_path)
    agrees_with_history(tmp_path)
    assert [value for _, value in events(tmp_path)[1]["cost/divergences"]] == [1, 3, 3]


def test_what_identifies_a_run_does_not_know_its_trackers():
    plain, followed = experiment(), experiment(tracker=["tensorboard", {"name": "mlflow"}])
    assert plain.identity == followed.identity and plain.dump() == followed.dump()
    assert recipe_of(plain.dump()) == recipe_of(followed.dump())
    assert [tracker.name for tracker in followed.tracker] == ["tensorboard", "mlflow"]
    assert experiment(tracker=None).tracker == []


@pytest.mark.parametrize("place", ["open", "epoch 1", "epoch 2", "close"])
def test_a_tracker_that_fails_is_one_line_and_the_run_goes_on(cembench, alone, tmp_path, place):
    (tmp_path / "c.yaml").write_text(to_yaml(TINY | FEW))
    setting = f"tracker=[{{name: probing, at: {place}}}, tensorboard]"
    result = cembench("train", tmp_path / "c.yaml", "--out", tmp_path, "--set", setting)
    lines = [line for line in result.err.splitlines() if "tracker" in line]
    assert result.code == 0
    assert lines == ["c: tracker probing failed: no route; the run goes on without it"]
    agrees_with_history(tmp_path / "c")
    weights = (tmp_path / "c" / "model.safetensors").read_bytes()
    assert weights == (alone / "model.safetensors").read_bytes()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_under_the_events_costs_the_events_alone(cembench, tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    (tmp_path / "c.yaml").write_text(to_yaml(TINY | FOLLOWED | {"epochs": 2}))
    disk = Disk(tmp_path / "c" / "tensorboard", monkeypatch)
    try:
        if not disk.real:
            pytest.skip("no file system may be mounted here")
        disk.fill()
        result = cembench("train", tmp_path / "c.yaml", "--out", tmp_path)
    finally:
        monkeypatch.undo()
        disk.close()
    assert result.code == 0 and "No space left" in result.err
    assert len([line for line in result.err.splitlines() if "epoch" not in line]) == 1
    assert read_metadata(tmp_path / "c" / "model.safetensors").finished


def test_a_missing_package_is_one_line_before_anything_is_trained(cembench, tmp_path):
    (tmp_path / "c.yaml").write_text(to_yaml(TINY | {"tracker": ["tensorboard", "absent"]}))
    result = cembench("train", tmp_path / "c.yaml", "--out", tmp_path / "runs")
    assert result.code == 2 and not (tmp_path / "runs" / "c").exists()
    assert result.err == "cembench: error: tracker absent: pip install no_such_package\n"


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("tensorbord", "tracker.name: unknown tracker 'tensorbord'; did you mean 'tensorboard'"),
        (["tensorboard", "wandbb"], "tracker.1.name: .*did you mean 'wandb'"),
        ({"name": "wandb", "projekt": "x"}, "tracker.projekt: unknown key; .*'project'"),
        (["mlflow", "mlflow"], "mlflow is given twice"),
        (3, "give the name of a tracker"),
    ],
)
def test_wrong_trackers_are_refused_by_name(tracker, message):
    with pytest.raises(ConfigError, match=message):
        experiment(tracker=tracker)


def test_a_suite_follows_its_experiments_and_their_probes(tmp_path):
    shared = {**TINY, "method": "infonce", **FOLLOWED}
    suite = {"protocol": "quick", "shared": shared, "experiments": {"a": {}, "b": {"probe": "a"}}}
    (tmp_path / "s.yaml").write_text(to_yaml(suite))
    found, _ = load_suite(tmp_path / "s.yaml")
    assert [[t.name for t in one.tracker] for one in found.values()] == [["tensorboard"]] * 2


def test_the_resolved_settings_train_the_same_run_again(tmp_path):
    train(experiment(epochs=1, **FOLLOWED), tmp_path)
    again = parse_experiment(read_yaml(Path(tmp_path) / "config.yaml"), "config.yaml")
    assert again == experiment(epochs=1)
