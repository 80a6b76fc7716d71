"""Momentum, expectation over transformation, and targets in an order of choice."""

import pytest
import torch
import torchattacks
from torch import nn

from cembench.attacks import Target, attacks
from cembench.attacks.pgd import PGDAttack
from cembench.attacks.targeted import TargetedPGD, linear_distance
from cembench.energy.threat import Threat
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.util.errors import CembenchError
from tests.conftest import conv_net, images, labels
from tests.support.attacks import linear_case, run


def test_momentum_is_that_of_mi_fgsm():
    model, x, y = conv_net().eval(), 0.2 + 0.6 * images(6), labels(6)
    context = SamplerContext(Threat(norm="linf", eps=0.1), torch.Generator())
    ours = PGD(steps=6, step_size=0.03, start="data", momentum=1.0).draw(model, x, y, context)
    theirs = torchattacks.MIFGSM(model, eps=0.1, alpha=0.03, steps=6, decay=1.0)(x, y)
    assert torch.allclose(ours, theirs, atol=1e-5)
    plain = PGD(steps=6, step_size=0.03, start="data").draw(model, x, y, context)
    assert not torch.allclose(ours, plain, atol=1e-3)
    assert "momentum" not in PGD().dump() and "eot" not in PGDAttack().dump()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targets_find_what_the_closed_form_says(norm):
    model, split, distance = linear_case(6, norm)
    threat = Threat(norm=norm, eps=float(distance.median()))
    clear = ((distance - threat.eps).abs() > 0.02 * threat.eps).numpy()
    tries = {"all": {"targets": 5}, "one": {"order": "malt", "targets": 1}}
    given = [{"name": "targeted", "steps": 40, "label": k, **v} for k, v in tries.items()]
    table = run(model, split, threat, *given)
    expected = (distance < threat.eps).numpy()
    for name in tries:  # on a linear network, MALT's first target is the nearest
        assert (table[f"{name}_broken"].to_numpy() == expected)[clear].mean() > 0.95


def test_linear_distance_is_that_of_a_linear_network():
    model, split, distance = linear_case(6, "linf")
    target = Target.of(model, Threat(norm="linf", eps=0.1), 6)
    x, y = split.pixels(), split.labels
    others = [(y + k) % 6 for k in range(1, 6)]
    found = torch.stack([linear_distance(target, x, torch.stack([y, t], 1)) for t in others])
    assert torch.allclose(found.amin(0), distance, rtol=1e-4)


def test_targets_may_be_given_or_random():
    model, split, distance = linear_case(6, "linf")
    threat = Threat(norm="linf", eps=float(3 * distance.max()))
    target = Target.of(model, threat, classes=6)
    x, y = split.pixels(), split.labels
    [(_, propose)] = TargetedPGD(order=[2], steps=20).stages(target)
    moved = propose(x, y)
    assert torch.equal(moved[y == 2], x[y == 2])
    assert (model(moved[y != 2]).argmax(1) != y[y != 2]).all()
    [(_, propose)] = TargetedPGD(order="random", targets=5, steps=20).stages(target)
    assert (model(propose(x, y)).argmax(1) != y).all()
    with pytest.raises(CembenchError, match="labels are 0 to 5"):
        attacks.parse({"name": "targeted", "order": [6]}).stages(target)


class Shaken(nn.Module):
    """A linear network whose images are shifted at random in each pass."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x + 0.3 * torch.randn_like(x)).clamp(0, 1))


def test_gradients_are_means_over_passes_where_layers_are_random():
    model, split, distance = linear_case(4, "linf")
    threat = Threat(norm="linf", eps=float(distance.median()))
    attack = {"name": "pgd", "steps": 10, "eot": 8, "label": "eot"}
    passes = 0

    def count(*_):
        nonlocal passes
        passes += 1

    shaken = Shaken(model)
    shaken.register_forward_hook(count)
    table = run(shaken, split, threat, attack, passes=4)
    assert table["eot_broken"].any() and passes > 8 * 10
