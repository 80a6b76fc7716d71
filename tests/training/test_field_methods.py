"""Training with the field's methods: resumed, in bf16, with what they keep from step to step."""

import pytest
import torch

from cembench.models.metadata import read_metadata
from cembench.training.ddp import batch_generator
from cembench.training.train import train
from cembench.training.trainer import Trainer
from tests.conftest import experiment
from tests.support.ranks import together
from tests.training.test_training import stop_after

SHORT = {"negatives": {"steps": 2}}
CHAINS = {"steps": 2, "buffer": 50}
SADA_JEM = {
    "name": "jem",
    "own_batch": True,
    "negatives": {"name": "sgld", "renewal": "gaussian", **CHAINS},
    "weights": {"name": "sam", "rho": 0.5, "adaptive": True},
}
CASES = {
    "gkl": ({"method": {"name": "gkl", **SHORT, "weights": "awp"}, "precision": "bf16"}, 6),
    "eb-jdat": ({"method": {"name": "eb-jdat", **SHORT, "contrast": CHAINS}}, 8),
    "sada-jem": ({"method": SADA_JEM}, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_cut_after_an_epoch_ends_with_the_same_weights(tmp_path, monkeypatch, case):
    changes, cost = CASES[case]
    small = {"batch_size": 256, "model": {"name": "small_cnn", "width": 4}}
    config = experiment(optimizer={"lr": 0.01}, epochs=2, **small, **changes)
    straight = train(config, tmp_path / "straight")
    monkeypatch.setattr(Trainer, "run_epoch", stop_after(1))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut")
    monkeypatch.undo()
    assert train(config, tmp_path / "cut", resume=True).read_bytes() == straight.read_bytes()
    found = read_metadata(straight)
    assert found.divergences == 0 and found.gradients == 2 * 4 * 256 * cost


def first_step(settings):
    """Return the loss of a step, and the sums over classes that it leaves."""
    trainer = Trainer(settings, torch.device("cpu"))
    trainer.wrap_ddp()
    generator = batch_generator(0, trainer.device, trainer.world)
    batch = next(iter(trainer.feed.read(torch.arange(trainer.batch)[None], 0)))
    loss = float(trainer.step(0, batch, generator)["loss"])
    return loss, trainer.memory["sums"].flatten().tolist()


def test_class_means_of_gkl_are_those_of_all_processes(tmp_path):
    settings = experiment(method={"name": "gkl", **SHORT})
    loss, sums = first_step(settings)
    first, second = together(tmp_path, lambda: first_step(settings))
    assert first == second and first[0] == pytest.approx(loss, rel=1e-5)
    assert [2 * one for one in first[1]] == pytest.approx(sums, rel=1e-4)
