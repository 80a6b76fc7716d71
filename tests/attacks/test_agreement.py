"""Verdicts of `autoattack-fast` beside pyautoattack's, on networks that this file trains.

The real sizes are slow. Their tolerance is the official attack's own: how many of its verdicts
change with the seed.
"""

from typing import Literal

import pytest
import torch

from cembench.bench.attack import differing, official, survivors
from cembench.bench.networks import EnlargedDigits
from cembench.data.digits import Digits
from cembench.data.split import subset
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol
from cembench.training.config import Experiment
from cembench.training.trainer import Trainer
from cembench.util.frozen import frozen
from cembench.util.progress import Bar
from cembench.util.rng import isolated_rng
from tests.conftest import shorten_autoattack

SMALL = {
    "resnet": ({"name": "resnet18", "width": 4}, 2),
    "no batch norm": ({"name": "small_cnn", "width": 8, "norm": "group"}, 3),
}  # with epochs
LARGE = {
    "resnet": {"name": "resnet18", "width": 16},
    "wide": {"name": "wide_resnet", "depth": 10, "width": 2},
    "no batch norm": {"name": "small_cnn", "width": 16, "norm": "group"},
}
RADII = {"linf": 0.1, "l2": 0.6}
LARGE_RADII = {"linf": 0.1, "l2": 1.5}


class FourDigits(Digits):
    """The digits 0 to 3: as few classes as targeted APGD can have."""

    def load(self, split: Literal["train", "test"]):
        found = super().load(split)
        return found.take((found.labels < 4).nonzero().squeeze(1))


def robust(settings, data, threat, epochs, batch):
    method = {"name": "at", "negatives": {"name": "pgd", "steps": 3}}
    experiment = {"data": data, "model": settings, "method": method}
    rate = {"threat": threat.dump(), "optimizer": {"lr": 0.05}, "schedule": {"name": "one-cycle"}}
    trainer = Trainer(
        Experiment.parse({**experiment, **rate, "epochs": epochs, "batch_size": batch}),
        torch.device("cpu"),
    )
    with Bar("network", epochs) as bar:
        for _ in range(epochs):
            trainer.run_epoch(bar)
    return trainer.model.to(memory_format=torch.contiguous_format).eval()


def verdicts(model, split, threat, seeds):
    """Which images survive our attack, and the official one, for each seed."""
    ours, theirs = [], []
    for seed in range(seeds):
        protocol = {"name": "x", "seed": seed, "attacks": ["autoattack-fast"], "engine": "fast"}
        ours.append(survivors(model, split, Protocol.parse(protocol), threat))
        with frozen(model), isolated_rng(seed), torch.no_grad():
            found = official(model, split.pixels(), split.labels, threat, seed)
            theirs.append(model(found).argmax(1) == split.labels)
    return ours, theirs


@pytest.fixture(scope="module", params=SMALL)
def small(request):
    """A small network, robust in ℓ∞."""
    torch.manual_seed(0)
    settings, epochs = SMALL[request.param]
    return robust(settings, FourDigits(), Threat(norm="linf", eps=RADII["linf"]), epochs, 64)


@pytest.mark.parametrize("norm", RADII)
def test_short_attacks_agree_on_small_networks(small, norm, monkeypatch):
    shorten_autoattack(monkeypatch, steps=5, queries=10)
    split, threat = subset(FourDigits().load("test"), 16)[0], Threat(norm=norm, eps=RADII[norm])
    (ours,), (theirs,) = verdicts(small, split, threat, 1)
    assert differing([ours], [theirs]) <= 1
    assert 0 < int(theirs.sum()) < len(split)


@pytest.mark.slow
@pytest.mark.parametrize("norm", LARGE_RADII)
@pytest.mark.parametrize("name", LARGE)
def test_the_standard_version_agrees_on_networks_of_real_size(name, norm):
    torch.manual_seed(0)
    trained_for = Threat(norm="linf", eps=LARGE_RADII["linf"])
    model = robust(LARGE[name], EnlargedDigits(), trained_for, 8, 64)
    split = subset(EnlargedDigits().load("test"), 16)[0]
    ours, theirs = verdicts(model, split, Threat(norm=norm, eps=LARGE_RADII[norm]), 2)
    own = differing(theirs[1:], theirs[:-1])
    told = f"{name} {norm}: {differing(ours, theirs)} of 32 verdicts differ, {own} of 16 by seed"
    print(told, [int(found.sum()) for found in (*ours, *theirs)])
    assert differing(ours, theirs) <= 2 * own, told
