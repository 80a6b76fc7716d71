"""The surrogate of a network in training: the same values and gradients, and what has none."""

import gc

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cembench.energy.similarity import Pairs
from cembench.energy.threat import Threat
from cembench.models import models
from cembench.models.classifier import build_classifier
from cembench.models.copies.surrogate import Surrogate, ascent_model, build_surrogate
from cembench.samplers import SamplerContext, samplers
from cembench.training import build, optim
from cembench.training.trainer import Trainer
from tests.conftest import experiment

NETWORKS = [
    {"name": "small_cnn", "width": 8},
    {"name": "small_cnn", "width": 8, "norm": "dual"},
    {"name": "small_cnn", "width": 8, "norm": "group"},
    {"name": "resnet18", "width": 4},
    {"name": "preact_resnet18", "width": 4},
    {"name": "wide_resnet", "depth": 10, "width": 1, "norm": "none"},
]
X = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(settings):
    torch.manual_seed(0)
    return build_classifier(models.parse(settings), (3, 16, 16), 10)


def take_steps(model, count=3):
    """Change weights and statistics as training does."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(count):
        optimizer.zero_grad()
        x = (X + step).to(next(model.parameters()).dtype)
        nn.functional.cross_entropy(model(x), torch.arange(6)).backward()
        optimizer.step()


def values(model, x=X):
    """Outputs, and the gradient of the images."""
    x = x.clone().requires_grad_()
    out = model(x)
    return out.detach(), torch.autograd.grad(out.logsumexp(1).sum(), x)[0]


def followed(model):
    """What an ascent follows without a surrogate: the network, frozen."""
    x = X.to(next(model.parameters()).dtype)
    with ascent_model(model, x) as net:
        return values(net, x)


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_it_says_the_same_after_steps_of_the_optimizer(settings):
    model, x = network(settings).double(), X.double()  # so that no activation changes its sign
    surrogate = build_surrogate(model, x, False)
    for _ in range(2):
        take_steps(model)
        with ascent_model(model, x, surrogate=surrogate) as net:
            found = values(net, x)
            assert net is not model and not any(p.requires_grad for p in net.parameters())
        for ours, own in zip(found, followed(model), strict=True):
            assert (ours - own).abs().max() <= 1e-8 * own.abs().max()
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_under_autocast_it_follows_in_bfloat16(settings):
    model = network(settings)
    surrogate = build_surrogate(model, X, True)
    take_steps(model)
    own = followed(model)
    with torch.autocast("cpu", torch.bfloat16), ascent_model(model, X, "eval", surrogate) as net:
        out, gradient = values(net)
    assert (out - own[0]).abs().max() < 0.05 * own[0].abs().max()
    cosine = nn.functional.cosine_similarity(gradient.flatten(1), own[1].flatten(1))
    assert cosine.mean() > 0.97
    with ascent_model(model, X, "eval", surrogate) as net:
        assert net is model  # in float32 it does not stand for the network


class Noisy(nn.Module):
    """A network that adds noise."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))


class Choosing(nn.Module):
    """A network whose layers depend on the images."""

    def __init__(self, net):
        super().__init__()
        self.net, self.other = net, nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))

    def forward(self, x):
        return self.net(self.other(x) if x.mean() > 0.9 else x)


class Twice(nn.Module):
    """A network that uses a batch norm behind two convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.second(self.norm(self.first(x)))).mean((2, 3))


class Elsewhere(nn.Module):
    """A network whose copies compute with the layers of the first one."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.forward = lambda x: net(x)


def test_networks_that_no_copy_stands_for_have_none():
    around = [kind(network(NETWORKS[0])) for kind in (Noisy, Choosing, Elsewhere)]
    for model in (*around, Twice()):
        assert build_surrogate(model, X, False) is None
        assert build_surrogate(model, X, True) is None


def test_building_it_changes_nothing():
    model = network({"name": "resnet18", "width": 4})
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert isinstance(build_surrogate(model, X, False), Surrogate)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_a_loss_around_the_network_is_followed_too_and_another_network_is_not():
    model, other = network(NETWORKS[0]), network(NETWORKS[1])
    surrogate = build_surrogate(model, X, False)
    take_steps(model)
    pairs = Pairs(model, 0.5)
    with ascent_model(pairs, X, "eval", surrogate) as net:
        found = values(net)
    assert net is not pairs and pairs.encoder is model
    for ours, own in zip(found, followed(pairs), strict=True):
        torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-3)
    for stranger, mode in (
        (other, "eval"),
        (model, "train"),
        (nn.Sequential(model, other), "eval"),
    ):
        with ascent_model(stranger, X, mode, surrogate) as net:
            assert net is stranger


@pytest.mark.parametrize(
    "name", ["pgd", "trades", "eb-jdat", {"name": "sgld", "start": "data"}, "confidence"], ids=str
)
def test_samplers_follow_it(name):
    model = network({"name": "resnet18", "width": 4})
    surrogate = build_surrogate(model, X, False)
    take_steps(model)
    settings = {"name": name} if isinstance(name, str) else name
    sampler = samplers.parse(settings | ({"start": "smooth"} if name == "confidence" else {}))
    calls, drawn = [], []
    model.register_forward_hook(lambda *_: calls.append(1))
    for one in (None, surrogate):
        generator = torch.Generator().manual_seed(0)
        context = SamplerContext(Threat(norm="l2", eps=0.5), generator, surrogate=one)
        drawn.append(sampler.draw(model, X, torch.arange(6), context))
    assert len(calls) == sampler.steps + (name in ("trades", "eb-jdat"))
    torch.testing.assert_close(*drawn, atol=0.02, rtol=0)


def test_a_compiled_network_or_one_without_samplers_has_none():
    trainer = Trainer(experiment(), torch.device("cpu"))
    assert trainer.surrogate is not None

    def of(**changes):
        return build.followed(experiment(**changes), trainer.model, trainer.data.pixels(slice(2)))

    assert of(precision="bf16") is not None
    assert of(method="standard") is None and of(compile=True) is None
    assert of(method={"name": "at", "negatives": {"name": "pgd", "mode": "train"}}) is None


class Operations(TorchDispatchMode):
    """Counter of operations, and of those that wait for the device."""

    def __init__(self):
        super().__init__()
        self.all = self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.all += 1
        self.waits += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def taken(trainer, count=1):
    batch, generator = trainer.feed.at(torch.arange(64)), torch.Generator().manual_seed(0)
    for step in range(count):
        trainer.step(step, batch, generator)


@pytest.mark.parametrize("precision, most", [("fp32", 740), ("bf16", 800)])
def test_a_step_takes_few_operations(precision, most):
    attack = {"name": "at", "negatives": {"name": "pgd", "steps": 10}}
    trainer = Trainer(experiment(method=attack, precision=precision), torch.device("cpu"))
    taken(trainer, 2)
    with Operations() as counted:
        taken(trainer)
    assert counted.all < most
    assert counted.waits == 1  # for the loss, which on a GPU is read every few steps


def test_no_step_waits_for_a_device_that_computes_ahead(monkeypatch):
    monkeypatch.setattr(optim, "fusible", lambda model: True)
    trainer = Trainer(experiment(), torch.device("cpu"))
    taken(trainer, 2)
    with Operations() as counted:
        taken(trainer)
    assert counted.waits == 0


def test_steps_leave_no_tensors_behind():
    def tensors():
        gc.collect()
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    trainer = Trainer(experiment(), torch.device("cpu"))
    taken(trainer, 2)
    before = tensors()
    taken(trainer, 3)
    assert tensors() == before


def test_only_convolutions_of_many_channels_on_small_maps_are_not_channels_last():
    model = network({"name": "resnet18", "width": 32})
    surrogate = build_surrogate(model, X, False)
    with ascent_model(model, X, "eval", surrogate) as net:
        convs = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
        large = [conv for conv in convs if conv.kernel_size == (3, 3)]
        wide = [conv for conv in large if conv.weight.is_contiguous()]
        assert {conv.in_channels for conv in wide} == {256}
        found = values(net)
    for ours, own in zip(found, followed(model), strict=True):
        assert (ours - own).norm() <= 1e-3 * own.norm()
