"""The training loop: trainable, resumes exactly, stops on divergence, keeps the right epoch."""

import contextlib
import math
import random
import signal
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import cembench.samplers.initial as initial_images
import cembench.training.train as train_module
import cembench.training.trainer as trainer_module
from cembench.data.statistics import pixel_statistics
from cembench.models.checkpoint import load_checkpoint
from cembench.models.metadata import read_metadata
from cembench.training import build as assembly
from cembench.training import optim
from cembench.training.run_folder import RunFolder
from cembench.training.selection import best_epoch
from cembench.training.train import train
from cembench.training.trainer import Trainer
from cembench.training.validation import correct
from cembench.util.errors import CembenchError
from cembench.util.files.yaml import to_yaml
from tests.conftest import experiment
from tests.support.divergence import diverging, stopping_in_step
from tests.support.forks import Process
from tests.support.stores import FewDigits

FEW = {"data": FewDigits.name}
RECIPES = [
    FEW,
    {
        **FEW,
        "method": "standard",
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"name": "one-cycle"},
    },
    {**FEW, "method": {"name": "trades", "negatives": {"steps": 2}, "eps_warmup": 2}, "ema": 0.9},
    {
        "precision": "bf16",
        "optimizer": {"clip": 1.0, "nesterov": True},
        "data": {"name": FewDigits.name, "crop": 1},
    },
]


def weights(path):
    return load_checkpoint(path)[0].state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("recipe", RECIPES, ids=["at", "standard", "trades", "bf16"])
def test_a_run_cut_after_any_epoch_ends_with_the_same_file(tmp_path, recipe, monkeypatch):
    config = experiment(**recipe)
    straight = train(config, tmp_path / "straight")
    for cut in (1, 2):
        monkeypatch.setattr(Trainer, "run_epoch", stop_after(cut))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / f"cut{cut}")
        monkeypatch.undo()
        resumed = train(config, tmp_path / f"cut{cut}", resume=True)
        assert resumed.read_bytes() == straight.read_bytes()
        history = [pd.read_csv(p.parent / "history.csv") for p in (straight, resumed)]
        columns = [c for c in history[0].columns if c != "seconds"]
        pd.testing.assert_frame_equal(history[0][columns], history[1][columns])


def stop_after(epochs):
    original = Trainer.run_epoch

    def run_epoch(self, bar):
        if self.epoch == epochs:
            raise KeyboardInterrupt
        return original(self, bar)

    return run_epoch


def test_a_killed_process_loses_nothing(tmp_path):
    config = experiment(epochs=8, **FEW)
    straight = train(config, tmp_path / "straight")
    (tmp_path / "c.yaml").write_text(to_yaml(config.dump()))
    command = ["train", tmp_path / "c.yaml", "--resume", "--out", tmp_path, "--name", "killed"]
    epoch = pd.read_csv(straight.with_name("history.csv"))["seconds"].mean()
    moments, killed = random.Random(0), 0
    for _ in range(3):
        process = Process(*command, errors=tmp_path / "errors.txt")
        wait_for_a_write(tmp_path / "killed/last.ckpt", process)
        time.sleep(moments.uniform(0, 2 * epoch))
        process.send(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        read_metadata(tmp_path / "killed/model.safetensors")
    assert killed >= 1
    assert Process(*command, errors=tmp_path / "errors.txt").wait() == 0
    assert (tmp_path / "killed/model.safetensors").read_bytes() == straight.read_bytes()


def wait_for_a_write(path, process):
    before = path.stat().st_mtime_ns if path.exists() else 0
    while not process.ended and (not path.exists() or path.stat().st_mtime_ns == before):
        time.sleep(0.01)


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path, trained):
    again = train(experiment(), tmp_path / "again")
    assert again.read_bytes() == (trained / "model.safetensors").read_bytes()
    other = train(experiment(seed=1), tmp_path / "other")
    assert not same(weights(other), weights(again))


def test_the_global_generator_is_left_as_found(tmp_path):
    before = torch.get_rng_state().clone()
    train(experiment(epochs=1, **FEW), tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())


def test_training_learns_and_the_history_tells(trained):
    history = pd.read_csv(trained / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["loss"].is_monotonic_decreasing and history["val_clean_acc"].iloc[-1] > 0.8
    model, metadata = load_checkpoint(trained)
    test = metadata.data.load("test")
    assert correct(model, test.pixels(), test.labels) / len(test) > 0.8
    assert metadata.finished and metadata.gradients == 3 * 4 * 8 * 128
    assert metadata.method == "at" and metadata.config == experiment().dump()


@pytest.mark.parametrize(
    ("select", "best"), [("robust", 3), ("clean", 4), ("last", 5)], ids=["robust", "clean", "last"]
)
def test_the_kept_epoch_breaks_ties_by_clean_accuracy_then_by_lateness(select, best):
    rows = [(1, 0.5, 0.7), (2, 0.5, 0.8), (3, 0.5, 0.8), (4, 0.4, 0.9), (5, 0.1, 0.1)]
    history = [
        {"epoch": epoch, "val_pgd_acc": robust, "val_clean_acc": clean}
        for epoch, robust, clean in rows
    ]
    assert best_epoch(history, select) == best


def test_kept_weights_are_those_of_the_kept_epoch(tmp_path):
    config = experiment(epochs=4, select="clean", **FEW)
    path = train(config, tmp_path / "run")
    history, metadata = pd.read_csv(tmp_path / "run" / "history.csv"), read_metadata(path)
    kept = history[history["epoch"] == metadata.epoch].iloc[0]
    assert kept["val_clean_acc"] == history["val_clean_acc"].max()
    trainer = Trainer(config, torch.device("cpu"))
    model, _ = load_checkpoint(path)
    assert correct(model, trainer.held.pixels(), trainer.held.labels) == round(
        kept["val_clean_acc"] * len(trainer.held)
    )


def test_validation_uses_training_images_alone(monkeypatch):
    config = experiment()
    splits = []
    load = type(config.data).load
    monkeypatch.setattr(
        type(config.data), "load", lambda self, split: splits.append(split) or load(self, split)
    )
    trainer = Trainer(config, torch.device("cpu"))
    assert splits == ["train"]
    everything = load(config.data, "train")
    assert len(trainer.data) + len(trainer.held) == len(everything)
    mean, std = pixel_statistics(trainer.data)
    pixels = trainer.data.pixels()
    assert torch.allclose(mean, pixels.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(std, pixels.std((0, 2, 3), unbiased=False), atol=1e-6)


def test_an_average_of_weights_is_what_is_kept(tmp_path):
    trainer = Trainer(experiment(ema=0.5), torch.device("cpu"))
    batch, generator = trainer.feed.at(torch.arange(128)), torch.Generator().manual_seed(0)
    expected = None
    for step in range(3):
        trainer.step(step, batch, generator)
        now = [p.detach().clone() for p in trainer.model.parameters()]
        expected = (
            now
            if expected is None
            else [0.5 * old + 0.5 * new for old, new in zip(expected, now, strict=True)]
        )
    averaged = list(trainer.average.module.parameters())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(averaged, expected, strict=True))
    assert trainer.evaluated is trainer.average.module


class Explosive(nn.Module):
    """A network whose logits become NaN after some training steps."""

    def __init__(self, net, steps):
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x):
        if self.training and torch.is_grad_enabled() and next(self.parameters()).requires_grad:
            self.steps -= 1
        return self.net(x) * (torch.nan if self.steps < 0 else 1.0)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state_kept(tmp_path, monkeypatch):
    build = assembly.build_classifier
    monkeypatch.setattr(assembly, "build_classifier", lambda *a: Explosive(build(*a), 11))
    with pytest.raises(CembenchError, match=r"loss is nan at epoch 2, step 4; .* epoch 1 is kept"):
        train(experiment(), tmp_path / "run")
    state = RunFolder(tmp_path / "run").load()
    assert state is not None and state.epoch == 1
    assert all(value.isfinite().all() for value in state.model.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_where_the_device_computes_ahead_a_loss_beyond_the_bound_changes_no_weights(
    tmp_path, monkeypatch, optimizer
):
    build, seen = assembly.build_classifier, []
    monkeypatch.setattr(assembly, "build_classifier", lambda *a: Explosive(build(*a), 3))
    monkeypatch.setattr(optim, "fusible", lambda model: True)
    step = Trainer.step

    def watched(self, *rest):
        seen.append((self, [p.detach().clone() for p in self.model.parameters()]))
        return step(self, *rest)

    monkeypatch.setattr(Trainer, "step", watched)
    with pytest.raises(CembenchError, match=r"loss is nan at epoch 1, step 4; nothing was kept"):
        train(experiment(optimizer={"name": optimizer, "lr": 0.01}), tmp_path / "run")
    assert len(seen) == trainer_module.LOOK
    trainer, before = seen[3]
    assert not torch.equal(seen[2][1][0], before[0])
    assert all(map(torch.equal, trainer.model.parameters(), before))


def test_a_device_that_computes_ahead_logs_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(optim, "fusible", lambda model: True)
    histories = []
    for look in (1, 7):
        monkeypatch.setattr(trainer_module, "LOOK", look)
        file = train(experiment(ema=0.9), tmp_path / str(look))
        table = pd.read_csv(file.parent / "history.csv").drop(columns="seconds")
        histories.append((table, load_file(file)))
    pd.testing.assert_frame_equal(histories[0][0], histories[1][0])
    assert same(histories[0][1], histories[1][1])


def test_a_huge_learning_rate_is_reported_not_saved(tmp_path):
    with pytest.raises(CembenchError, match=r"not finite|loss is (nan|inf)"):
        train(experiment(optimizer={"lr": 1e30}), tmp_path / "run")


def test_a_folder_in_use_or_other_settings_are_refused(tmp_path, trained):
    with pytest.raises(CembenchError, match="a run is there already"):
        train(experiment(), trained)
    with pytest.raises(CembenchError, match=r"method.negatives.steps was 3, now 4"):
        train(experiment(method={"name": "at", "negatives": {"steps": 4}}), trained, resume=True)
    before = (trained / "model.safetensors").stat().st_mtime_ns
    assert train(experiment(), trained, resume=True) == trained / "model.safetensors"
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_changed_training_data_is_noticed(tmp_path, monkeypatch, trained):
    config = experiment()
    load = type(config.data).load

    def poisoned(self, split):
        data = load(self, split)
        data.store.images[0] = 16 - data.store.images[0]
        return data

    monkeypatch.setattr(Trainer, "run_epoch", stop_after(1))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(type(config.data), "load", poisoned)
    for folder in (tmp_path / "run", trained):
        with pytest.raises(CembenchError, match="training data is not what it was"):
            train(config, folder, resume=True)


def test_leftovers_of_a_kill_are_cleared(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".last.ckpt.abc.tmp").write_bytes(b"half")
    train(experiment(epochs=1, **FEW), tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def test_a_damaged_resume_state_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "run_epoch", stop_after(1))
    with pytest.raises(KeyboardInterrupt):
        train(experiment(**FEW), tmp_path / "run")
    monkeypatch.undo()
    state = tmp_path / "run" / "last.ckpt"
    for content in (b"", state.read_bytes()[:1000], b"cos\nsystem\n(S'false'\ntR."):
        state.write_bytes(content)
        with pytest.raises(CembenchError, match=r"last.ckpt: damaged resume state; delete it"):
            train(experiment(**FEW), tmp_path / "run", resume=True)


def test_an_architecture_that_cannot_be_built_leaves_no_run_behind(tmp_path):
    with pytest.raises(CembenchError, match="does not take"):
        train(experiment(model={"name": "torchvision", "arch": "alexnet"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_divergence_rolls_back_slows_down_and_is_counted(tmp_path, monkeypatch):
    diverging(monkeypatch, {3, 12, 15})
    path = train(
        experiment(divergence={"policy": "rollback"}, schedule={"name": "constant"}), tmp_path
    )
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["divergences"].tolist() == [1, 3, 3]
    assert history["lr"].tolist() == pytest.approx([0.05, 0.0125, 0.0125])
    metadata = read_metadata(path)
    assert metadata.divergences == 3 and metadata.finished
    taken = 3 * 8 + 2 + 0 + 2  # steps of three epochs, and those that were rolled back
    assert metadata.gradients == taken * 128 * 4 == history["gradients"].iloc[-1]


def test_divergence_stops_where_it_should_and_gives_up_after_the_limit(tmp_path, monkeypatch):
    diverging(monkeypatch, set(range(10, 99)))
    with pytest.raises(CembenchError, match=r"loss is 1e9 at epoch 2, step 2; .* epoch 1 is kept"):
        train(experiment(), tmp_path / "stop")
    diverging(monkeypatch, set(range(10, 99)))
    again = {"policy": "rollback", "limit": 2}
    with pytest.raises(CembenchError, match=r"2 times rolled back"):
        train(experiment(divergence=again), tmp_path / "again")


def test_a_loss_beyond_the_bound_is_a_divergence(tmp_path):
    with pytest.raises(CembenchError, match=r"loss is \d"):
        train(experiment(divergence={"bound": 0.5}), tmp_path / "run")


def test_an_energy_beyond_the_bound_is_a_divergence_though_the_loss_is_not(tmp_path):
    method = {"name": "jem", "gamma": 0, "negatives": "pgd"}
    with pytest.raises(CembenchError, match=r"lse_data is \d.*epoch 1, step \d"):
        train(
            experiment(method=method, divergence={"bound": 2.5, "policy": "stop"}),
            tmp_path / "run",
        )


def test_a_kill_after_a_divergence_does_not_forget_it(tmp_path, monkeypatch):
    config = experiment(divergence={"policy": "rollback"}, schedule={"name": "constant"})
    diverging(monkeypatch, {3})
    rolled = train_module.roll_back

    def then_die(trainer, run, error):
        rolled(trainer, run, error)
        run.save(trainer.state())
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "roll_back", then_die)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    monkeypatch.undo()
    assert read_metadata(train(config, tmp_path, resume=True)).divergences == 1
    assert pd.read_csv(tmp_path / "history.csv")["lr"].tolist() == pytest.approx([0.05] * 3)


DAT = {
    "name": "dat",
    "first_stage": 1,
    "window": 256,
    "separable": 0.01,
    "negatives": {"steps": 2},
    "contrast": {"steps": 9},
    "augment": {"cutout": 4},
}


def test_dat_resumes_with_the_steps_it_had_reached(tmp_path, monkeypatch):
    sizes = {"epoch_images": 320, "batch_size": 64}
    config = experiment(method=DAT, epochs=3, optimizer={"lr": 0.05}, save_every=1e-9, **sizes)
    straight = train(config, tmp_path / "straight")
    for step in (3, 4):  # of every epoch
        monkeypatch.setattr(Trainer, "step", stopping_in_step(step))
        for _ in range(3):
            with contextlib.suppress(KeyboardInterrupt):
                train(config, tmp_path / str(step), resume=True)
        monkeypatch.undo()
        resumed = train(config, tmp_path / str(step), resume=True)
        assert resumed.read_bytes() == straight.read_bytes()
    steps = pd.read_csv(tmp_path / "straight" / "history.csv")["contrast_steps"].tolist()
    assert math.isnan(steps[0]) and 0 < steps[1] < steps[2]


def test_dat_keeps_no_epoch_of_its_first_stage():
    config = experiment(method={"name": "dat", "first_stage": 2}, epochs=3)
    rows = [{"epoch": e, "val_clean_acc": 1 / e, "val_pgd_acc": 1 / e} for e in (1, 2, 3)]
    assert best_epoch(rows, config.select, config.method.first_kept) == 3
    assert best_epoch(rows[:2], config.select, config.method.first_kept) == 0
    with pytest.raises(CembenchError, match=r"dat keeps epoch 11 or later; raise epochs"):
        experiment(method="dat", epochs=10)


def test_an_informative_start_begins_and_renews_the_buffer_with_seeds(tmp_path):
    negatives = {"name": "sgld", "steps": 1, "step_size": 1e-9, "noise": 0, "renewed": 1}
    means = {}
    for renewal in ("noise", "gaussian"):
        method = {"name": "jem", "negatives": negatives | {"buffer": 50, "renewal": renewal}}
        run = tmp_path / renewal
        train(experiment(method=method, epochs=1, optimizer={"lr": 1e-3}), run)
        means[renewal] = load_file(run / "buffer.safetensors")["images"].mean().item()
    pixels = experiment().data.load("train").pixels().mean().item()
    assert means["noise"] == pytest.approx(0.5, abs=0.02)
    assert means["gaussian"] == pytest.approx(pixels, abs=0.05)


def test_the_buffer_beside_a_checkpoint_is_that_of_its_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "best_epoch", lambda *_: 1)
    method = {"name": "jem", "negatives": {"name": "sgld", "steps": 1, "buffer": 50}}
    config = experiment(method=method, epochs=2, optimizer={"lr": 1e-3}, **FEW)
    train(config, tmp_path)
    state = RunFolder(tmp_path).load()
    saved = load_file(tmp_path / "buffer.safetensors")["images"]
    assert torch.equal(saved, state.kept_buffer) and not torch.equal(saved, state.buffer)


def test_a_large_buffer_is_kept_as_bytes_and_one_of_floats_goes_on(tmp_path, monkeypatch):
    method = {"name": "jem", "negatives": {"name": "sgld", "steps": 1, "buffer": 50}}
    config = experiment(method=method, epochs=2, optimizer={"lr": 1e-3}, **FEW)
    whole = Trainer.run_epoch

    def cut(run):
        monkeypatch.setattr(Trainer, "run_epoch", stop_after(1))
        with pytest.raises(KeyboardInterrupt):
            train(config, run)
        monkeypatch.setattr(Trainer, "run_epoch", whole)
        return run

    floats = cut(tmp_path / "floats")
    monkeypatch.setattr(initial_images, "IN_FLOATS", 0)
    straight, rounded = train(config, tmp_path / "bytes"), cut(tmp_path / "cut")
    kinds = {}
    for run in (floats, rounded):
        train(config, run, resume=True)
        kinds[run.name] = load_file(run / "buffer.safetensors")["images"].dtype
    assert kinds == {"floats": torch.float32, "cut": torch.uint8}
    assert (rounded / "model.safetensors").read_bytes() == straight.read_bytes()


@pytest.mark.parametrize("negatives", ["sgld", "pgd", "rcs"])
@pytest.mark.parametrize("method", ["jem", "cem"])
def test_energy_based_training_runs_resumes_and_keeps_its_buffer(
    tmp_path, monkeypatch, method, negatives
):
    options = {"buffer": 200} if negatives == "sgld" else {}
    config = experiment(
        method={"name": method, "negatives": {"name": negatives, "steps": 2, **options}},
        model={"name": "small_cnn", "width": 8, "norm": "none", "activation": "silu"},
        optimizer={"name": "adamw", "lr": 1e-3},
        epochs=2,
        **FEW,
    )
    straight = train(config, tmp_path / "straight")
    monkeypatch.setattr(Trainer, "run_epoch", stop_after(1))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut")
    monkeypatch.undo()
    resumed = train(config, tmp_path / "cut", resume=True)
    assert resumed.read_bytes() == straight.read_bytes()
    buffers = [p.parent / "buffer.safetensors" for p in (straight, resumed)]
    assert buffers[0].exists() == (negatives == "sgld")
    if negatives == "sgld":
        assert buffers[0].read_bytes() == buffers[1].read_bytes()
    history = pd.read_csv(tmp_path / "straight" / "history.csv")
    assert history.notna().all().all() and {"lse_data", "cosine"} & set(history.columns)


def test_unpaired_negatives_are_refused_between_at_and_jem():
    with pytest.raises(CembenchError, match="right at consistency: 1 alone"):
        experiment(method={"name": "cem", "consistency": 0.5, "negatives": {"name": "sgld"}})
    experiment(
        method={"name": "cem", "consistency": 0.5, "negatives": {"name": "sgld", "start": "data"}}
    )
