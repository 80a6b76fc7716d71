"""Attacks and samplers may propose in TF32; what decides is computed in float32."""

import pytest
import torch
from torch import nn

import cembench.evaluation.measures.robustness as robustness
from cembench.attacks import Target, attacks
from cembench.energy.threat import Threat
from cembench.evaluation.measures.robustness import Stage, run_stage
from cembench.util.frozen import exact, proposing

THREAT = Threat(norm="linf", eps=0.3)


def rounds():
    return torch.backends.cudnn.allow_tf32


class Recorder(nn.Module):
    """A linear network that notes in which precision a GPU would run each pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.seen = nn.Linear(48, 3), []

    def forward(self, x):
        self.seen.append((x.requires_grad, rounds()))
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("name", ["pgd", "autoattack-fast"])
def test_passes_with_gradients_may_round_and_verdicts_may_not(name, monkeypatch):
    model, x = Recorder().eval(), torch.rand(8, 3, 4, 4)
    target = Target.of(model, THREAT, classes=3)
    stage, propose = attacks.parse(name).stages(target)[0]
    passes = []
    monkeypatch.setattr(robustness, "verify", noting(passes, model, robustness.verify))
    y = model(x).argmax(1)
    model.seen.clear()
    before = rounds()
    with exact():
        run_stage(name, Stage(stage, target, propose, torch.ones(8, dtype=torch.bool)), x, y)
    assert rounds() == before
    assert passes and not any(rounded for _, rounded in passes)
    climbed = [rounded for gradient, rounded in model.seen if gradient]
    assert climbed and all(climbed)


def noting(passes, model, verify):
    def run(*args):
        start = len(model.seen)
        found = verify(*args)
        passes.extend(model.seen[start:])
        return found

    return run


class Shifted(nn.Module):
    """A network that takes any image for class 1 in TF32, and bright ones in float32."""

    def forward(self, x):
        bright = x.flatten(1).mean(1) > 0.6
        score = (bright | rounds()).float()
        return torch.stack([1 - score, score], 1)


def test_an_attack_that_tf32_alone_satisfied_is_run_again(monkeypatch):
    monkeypatch.setattr(robustness, "reduced", lambda x: rounds())
    target = Target.of(Shifted(), THREAT, classes=2)

    def propose(x, y):
        wrong = target.model(x).argmax(1) != y
        return torch.where(wrong[:, None, None, None], x, x + 0.25)

    x, y = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.long)
    with proposing():
        assert (target.model(x).argmax(1) != y).all()
    found = run_stage("own", Stage("own", target, propose, torch.ones(4, dtype=torch.bool)), x, y)
    assert found.success.all() and torch.equal(found.images, x + 0.25)
