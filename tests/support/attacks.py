"""Networks whose robustness is known, and what an attack must leave alone."""

import random

import numpy as np
import torch

from cembench.data.split import Split
from cembench.energy.norms import NORMS
from cembench.energy.threat import Threat
from cembench.evaluation.measures.robustness import attack_split
from cembench.evaluation.protocol import Protocol
from tests.conftest import Linear, images

THREATS = [
    Threat(norm="linf", eps=0.1),
    Threat(norm="l2", eps=0.7),
    Threat(norm="l1", eps=3.0),
]


def fingerprint(model):
    """All that an attack must leave alone."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad for p in model.parameters()]
    flags = [p.requires_grad for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    rng = (torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate())
    return state, grads, flags, modes, rng


def assert_untouched(before, model):
    after = fingerprint(model)
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1:4] == after[1:4]
    assert torch.equal(before[4][0], after[4][0]) and (before[4][1] == after[4][1]).all()
    assert before[4][2] == after[4][2]


def split_of(x, y, classes):
    return Split.of((x * 255).round().byte(), y, tuple(map(str, range(classes))))


def run(model, split, threat, *attacks, **options):
    protocol = Protocol.parse({"name": "test", "attacks": list(attacks), **options})
    return attack_split(model, split, torch.arange(len(split)), protocol, threat)


def linear_case(classes, norm):
    """A linear network, grey images, and their distances to the boundary by the closed form."""
    model = Linear(64, classes, seed=classes)
    model.bias.data = -0.5 * model.weight.data.sum(1)
    x = 0.35 + 0.3 * images(48, seed=classes)
    split = split_of(x, model((x * 255).round() / 255).argmax(1), classes)
    logits = model(split.pixels())
    rows = torch.arange(len(split))
    gap = logits[rows, split.labels][:, None] - logits
    slope = model.weight[split.labels][:, None] - model.weight
    if norm == "l1":
        distance = _l1_distance(gap, slope, split.pixels())
    else:
        distance = gap / slope.norm(p=1 / (1 - 1 / NORMS[norm].order), dim=2)
    distance[rows, split.labels] = torch.inf
    return model, split, distance.nan_to_num(nan=torch.inf).amin(1).detach()


def _l1_distance(gap, slope, x):
    """The values with the steepest slopes move, one after the other, each as far as 0 or 1."""
    rate, order = slope.abs().sort(2, descending=True)
    room = torch.where(slope > 0, x.flatten(1)[:, None], 1 - x.flatten(1)[:, None]).gather(2, order)
    before = (rate * room).cumsum(2) - rate * room
    return ((gap[:, :, None] - before) / rate).clamp_min(0).minimum(room).sum(2)
