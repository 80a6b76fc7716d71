"""How often attacks look at the device, and how many operations a step of theirs takes."""

import copy

import pytest
import torch
from torch import nn

from cembench.attacks import fab, state
from cembench.attacks.apgd import apgd, targeted_apgd
from cembench.attacks.autoattack_fast import FastAutoAttack
from cembench.attacks.fab import targeted_fab
from cembench.attacks.square import SEARCHES, square
from cembench.attacks.state import AttackState
from cembench.attacks.verdict import verify
from cembench.energy.norms import NORMS, Linf
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.target import target_of
from cembench.models.engine import Plain
from cembench.samplers import SamplerContext, best_iterates, samplers
from cembench.samplers.pgd import PGD
from cembench.util.devices import PATIENCE
from cembench.util.rng import generator_of
from tests.support.operations import Unseen, a_step

EPS = {"linf": 0.05, "l2": 0.5, "l1": 3.0}
SMALL = {"linf": 1e-4, "l2": 1e-3, "l1": 1e-2}  # nothing succeeds


class Precise(nn.Sequential):
    """Computes in float64, so that no row depends on the rows beside it in a batch."""

    def forward(self, x):
        return super().forward(x.double()).float()


class Noise(nn.Module):
    """Adds random numbers."""

    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


@pytest.fixture(scope="module")
def case():
    """A network, a copy whose logits differ, images, and their labels."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(512, 10)]
    model = Precise(*layers).double().eval().requires_grad_(False)
    other = copy.deepcopy(model)
    for weight in other.parameters():
        weight.mul_(1 + 0.05 * torch.randn(weight.shape))
    x = torch.rand(16, 3, 8, 8, generator=generator_of(1, "cpu"))
    return model, other, x, model(x).argmax(1)


@pytest.fixture
def as_on_gpus(monkeypatch):
    for module in (state, best_iterates, fab):
        monkeypatch.setattr(module, "patience", lambda device: PATIENCE)


def context(norm, eps):
    return SamplerContext(Threat(norm=norm, eps=eps), generator_of(3, "cpu"))


def found_by_all(model, verifier, x, y, norm):
    """Return the images and successes of each attack."""
    found = []
    for attack in (
        lambda s: apgd(model, s, steps=20, generator=generator_of(3, "cpu")),
        lambda s: targeted_apgd(
            model, s, steps=10, targets=2, max_batch=32, generator=generator_of(3, "cpu")
        ),
        lambda s: targeted_fab(model, s, steps=10, targets=2, max_batch=32),
        lambda s: square(model, s, generator_of(3, "cpu"), queries=40, max_batch=32),
    ):
        attacked = AttackState(verifier, x, y, NORMS[norm](EPS[norm]))
        attack(attacked)
        found.append((attacked.best, attacked.success))
    for restarts in (1, 2):
        pgd, judge = PGD(steps=18, restarts=restarts), None if model is verifier else verifier
        best = pgd.search(model, x, y, context(norm, EPS[norm]), judge)
        found.append((best, (verifier(best).argmax(1) != y).long()))
    return found


@pytest.mark.parametrize("norm", SEARCHES)
@pytest.mark.parametrize("copied", [False, True])
def test_rare_looks_at_the_device_lose_nothing(case, norm, copied, request):
    model, other, x, y = case
    attacked = other if copied else model
    at_once = found_by_all(attacked, model, x, y, norm)
    request.getfixturevalue("as_on_gpus")
    rarely = found_by_all(attacked, model, x, y, norm)
    for (images, success), (other_images, other_success) in zip(at_once, rarely, strict=True):
        assert 0 < int((success > 0).sum()) < len(x)
        assert torch.equal(success, other_success) and torch.equal(images, other_images)


def loops(model, x, y, norm):
    """Return each loop as a function of its number of steps."""

    def fresh():
        return AttackState(model, x, y, NORMS[norm](SMALL[norm]))

    seeded = {"generator": generator_of(0, "cpu")}
    rcs = samplers.parse({"name": "rcs", "steps": 1, "start": "noise"})
    return {
        "apgd-ce": lambda n: apgd(model, fresh(), steps=n, **seeded),
        "apgd-t": lambda n: targeted_apgd(
            model, fresh(), targets=1, max_batch=8, steps=n, **seeded
        ),
        "fab-t": lambda n: targeted_fab(model, fresh(), targets=1, max_batch=8, steps=n),
        "square": lambda n: square(model, fresh(), queries=n, max_batch=8, **seeded),
        "pgd": lambda n: PGD(steps=n).search(model, x, y, context(norm, SMALL[norm])),
        "rcs": lambda n: rcs.model_copy(update={"steps": n}).draw(model, x, y, context(norm, 1.0)),
    }


# Operations of a step where no attack succeeds, without those of the network.
OPERATIONS = {
    "linf": {"apgd-ce": 38, "apgd-t": 57, "fab-t": 212, "square": 36, "pgd": 43, "rcs": 29},
    "l2": {"apgd-ce": 62, "apgd-t": 81, "fab-t": 208, "square": 107, "pgd": 57, "rcs": 29},
}


@pytest.mark.parametrize("norm", OPERATIONS)
def test_steps_take_few_operations_and_hardly_ever_wait_for_a_gpu(case, as_on_gpus, norm):
    model, _, x, y = case
    top = model(x).topk(2).values
    sure = (top[:, 0] - top[:, 1]).argsort(descending=True)[:8]
    for name, loop in loops(Unseen(model), x[sure], y[sure], norm).items():
        operations, waits = a_step(loop, 20, 52)
        assert operations <= OPERATIONS[norm][name] + 2, (name, operations)
        assert waits <= 0.1, (name, waits)


def test_verdicts_taken_in_an_attack_are_those_of_another_pass(case):
    model, _, x, y = case
    threat = Threat(norm="linf", eps=EPS["linf"])
    protocol = Protocol.parse({"name": "test", "attacks": ["autoattack-fast"]})
    target = target_of(model, 10, protocol, threat, x[:4], Plain())
    assert target.repeatable
    stage = dict(FastAutoAttack().stages(target))["apgd-ce"]
    verdict = stage.verdict(x, y)
    again = verify(model, x, verdict.images, y, threat.ball)
    assert 0 < int(verdict.success.sum()) < len(x)
    assert all(torch.equal(value, vars(again)[key]) for key, value in vars(verdict).items())


def test_a_network_with_random_layers_is_asked_again(case):
    model, _, x, _ = case
    noisy = nn.Sequential(model, Noise())
    protocol = Protocol.parse({"name": "test", "attacks": ["autoattack-fast"]})
    target = target_of(noisy, 10, protocol, Threat(norm="linf", eps=0.1), x[:4], Plain())
    assert not target.repeatable


def test_the_largest_change_is_the_norm_in_linf():
    delta = torch.randn(5, 3, 4, 4, generator=generator_of(0, "cpu"))
    assert torch.equal(Linf(0.1).size(delta), delta.flatten(1).norm(p=torch.inf, dim=1))
