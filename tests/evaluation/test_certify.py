"""Certified accuracy: exact on linear networks, below every attack, and refused in one line."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from cembench.energy.norms import NORMS
from cembench.energy.threat import Threat
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.verify import verify_record
from cembench.models.certified import Chain
from cembench.models.networks import ResNet, SmallNet
from cembench.util.errors import ConfigError, ModelError
from tests.conftest import NOTHING

GREY = 0.35 + 0.3 * torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))


def small(act, normed="batch", width=2):
    torch.manual_seed(0)
    net = SmallNet((1, 8, 8), 3, width, normed, act)
    with torch.no_grad():
        net(torch.rand(64, 1, 8, 8))  # statistics of batch norms
    return net.eval()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_margins_of_a_linear_network_are_exact(norm):
    torch.manual_seed(0)
    linear = nn.Linear(64, 3)
    chain = Chain.of(nn.Sequential(nn.Flatten(), linear), (1, 8, 8))
    ball = NORMS[norm](0.05)
    found = chain.margins(GREY, 1, ball)
    logits = linear(GREY.flatten()).double()
    slope = (linear.weight[1] - linear.weight).double()
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    wanted = logits[1] - logits - 0.05 * slope.norm(p=dual, dim=1)
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("act", ["relu", "silu", "softplus"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_no_image_of_the_ball_is_below_the_bound(act, norm):
    net, eps = small(act), {"linf": 0.05, "l2": 0.3, "l1": 1.0}[norm]
    ball, chain = NORMS[norm](eps), Chain.of(net, (1, 8, 8))
    bound = chain.margins(GREY, 1, ball)
    x = GREY.repeat(64, 1, 1, 1)
    generator = torch.Generator().manual_seed(1)
    at = ball.uniform(x, generator).requires_grad_()
    for _ in range(15):  # down the margins, 0 for half of the images and 2 for the others
        out = net(at)
        margin = torch.stack([out[:32, 1] - out[:32, 0], out[32:, 1] - out[32:, 2]])
        (gradient,) = torch.autograd.grad(margin.sum(), at)
        step = at.detach() - eps / 5 * ball.steepest(gradient, at.detach())
        at = ball.project(step, x).requires_grad_()
        out = net(at).detach()
        assert ((out[:, 1:2] - out).double().amin(0) >= bound - 1e-5).all()
    assert (bound[[0, 2]] < (net(GREY[None])[0, 1] - net(GREY[None])[0]).detach()[[0, 2]]).all()


def test_bounds_fall_with_the_radius_and_meet_the_margin_at_none():
    net = small("silu", "none")
    chain = Chain.of(net, (1, 8, 8))
    bounds = [chain.margins(GREY, 0, NORMS["linf"](eps)) for eps in (1e-6, 0.01, 0.03, 0.1)]
    out = net(GREY[None])[0].double()
    torch.testing.assert_close(bounds[0], (out[0] - out).detach(), rtol=0, atol=2e-3)
    assert all((low <= high + 1e-9).all() for high, low in pairwise(bounds))


def hooked():
    layer = nn.ReLU()
    layer.register_forward_hook(lambda module, args, out: -out)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 3))


def test_layers_that_work_in_place_have_the_same_bounds():
    torch.manual_seed(0)
    first, last, ball = nn.Linear(64, 8), nn.Linear(8, 3), NORMS["linf"](0.02)
    acts = nn.ReLU(inplace=True), nn.ReLU()
    nets = [nn.Sequential(nn.Flatten(), first, act, last) for act in acts]
    one, other = (Chain.of(net, (1, 8, 8)).margins(GREY, 0, ball) for net in nets)
    assert torch.equal(one, other) and acts[0].inplace


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(64)), "LayerNorm is not known"),
        (lambda: ResNet(False, 1, 4, [4], 1, 3, "batch", "relu"), "Basic is not known"),
        (lambda: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)), "BatchNorm2d"),
        (lambda: hooked(), "ReLU has hooks"),
        (lambda: SmallNet((1, 64, 64), 3, 32, "batch", "relu"), "activations, more than"),
    ],
)
def test_networks_without_bounds_are_named(net, text):
    shape = (1, 64, 64) if "more" in text else (1, 8, 8)
    with pytest.raises(ModelError, match=text):
        Chain.of(net().eval(), shape)


def test_certified_images_are_never_broken(copy):
    attacks = "attacks=[{name: pgd, steps: 10}]"
    asked = [attacks, "certify={factors: [0.05, 0.25, 1], images: 6}", "batch_size=4"]
    record, path = evaluate(
        copy, load_protocol("quick", [*NOTHING, *asked], limit=8), save_adversarial=True
    )
    found = record.certified
    assert [p.eps for p in found.points] == pytest.approx([0.00625, 0.03125, 0.125])
    correct = [p.correct for p in found.points]
    assert correct == sorted(correct, reverse=True) and correct[0] > 0
    assert correct[-1] <= found.worst_case.correct and found.points[0].images == 6
    assert all(row.agrees for row in verify_record(path, copy.parent))


def test_what_cannot_be_certified_is_one_line(copy):
    asked = ["threat={norm: l0, eps: 1}", "certify={}"]
    record, _ = evaluate(copy, load_protocol("quick", [*NOTHING, *asked], limit=4))
    assert record.certified is None
    assert "no certified bounds: there are none in l0" in record.warnings
    with pytest.raises(ConfigError, match="must rise"):
        load_protocol("quick", [*NOTHING, "certify={factors: [1, 0.5]}"])
    assert Threat(norm="l0", eps=1).norm == "l0"
