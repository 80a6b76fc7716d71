"""Fused convolutions: the function and the gradients of the network itself, or no fusion."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from cembench.models import models
from cembench.models.classifier import build_classifier
from cembench.models.copies.folding import folded
from cembench.models.copies.fused_conv import FusedConv
from cembench.models.copies.fusion import fused
from cembench.models.engine import Fast

SHAPE = (3, 12, 12)
NETWORKS = [
    {"name": "small_cnn", "width": 8},
    {"name": "small_cnn", "width": 8, "norm": "group", "activation": "silu"},
    {"name": "resnet18", "width": 16},
    {"name": "preact_resnet18", "width": 4},
    {"name": "wide_resnet", "depth": 10, "width": 2},
    {"name": "wide_resnet", "depth": 10, "width": 1, "norm": "none"},
    {"name": "torchvision", "arch": "resnet18"},
]


def network(settings):
    torch.manual_seed(0)
    model = build_classifier(models.parse(settings), SHAPE, 10, torch.full((3,), 0.4))
    model(torch.rand(16, *SHAPE))
    return model.eval().requires_grad_(False)


def gradient(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).logsumexp(1).sum(), x)[0]


def convolutions(model):
    return [module for module in model.modules() if isinstance(module, FusedConv)]


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_fusion_changes_rounding_alone(settings):
    model, x = network(settings), torch.rand(5, *SHAPE)
    found = fused(folded(model, x), x)
    assert found is not None and convolutions(found)
    for images in (x, x[:2]):
        expected = gradient(model, images)
        torch.testing.assert_close(found(images), model(images), atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(found(images), model(images), atol=1e-4, rtol=1e-4)
        bound = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(gradient(found, images), expected, atol=bound, rtol=1e-3)
    assert gradient(found, x).is_contiguous()


def test_convolutions_of_residual_blocks_take_in_what_follows_them():
    model, x = network({"name": "resnet18", "width": 4}), torch.rand(2, *SHAPE)
    layers = convolutions(fused(folded(model, x), x))
    assert len(layers) == 20 and sum(layer.relu for layer in layers) == 17
    assert sum(layer.last_use for layer in layers) == 8
    assert [layer.first for layer in layers].count(True) == 1


def test_the_images_of_the_caller_are_left_alone():
    class OnlyConvolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return (self.conv(x) + x).relu().mean((2, 3))

    model, x = OnlyConvolutions().eval(), torch.rand(4, *SHAPE)
    found, kept = fused(model, x), x.clone()
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x))
    assert torch.equal(x, kept)


def test_a_second_derivative_is_that_of_the_network():
    model, x = network(NETWORKS[0]), torch.rand(3, *SHAPE)

    def second(net):
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(at).logsumexp(1).sum(), at, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), at)[0]

    found = fused(folded(model, x), x)
    torch.testing.assert_close(second(found), second(model), atol=1e-5, rtol=1e-2)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return self.conv(x).relu().mean((2, 3))


class ByValue(Base):
    def forward(self, x):
        return super().forward(x if x.mean() > 0.5 else 2 * x)


class GradientInside(Base):
    def forward(self, x):
        with torch.enable_grad():
            inner = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(super().forward(inner).sum(), inner, create_graph=True)
        return super().forward(x + slope)


class RandomOnce(Base):
    """Random numbers that tracing would keep."""

    def forward(self, x):
        return super().forward(x + torch.randn(1))


class PartlyWithoutGradient(Base):
    """A part without a gradient, which tracing would give one."""

    def forward(self, x):
        with torch.no_grad():
            scale = self.conv(x).mean((1, 2, 3), keepdim=True)
        return super().forward(x * scale)


class WrittenOver(Base):
    """The input of the convolution is changed before the ReLU reads the output."""

    def forward(self, x):
        x = x * 1.0
        out = self.conv(x)
        x.mul_(0.0)
        return (out + self.conv(x)).relu().mean((2, 3))


def test_a_network_that_overwrites_what_a_convolution_reads_is_not_fused():
    assert fused(WrittenOver().eval(), torch.rand(4, *SHAPE)) is None


@pytest.mark.parametrize("kind", [ByValue, GradientInside, RandomOnce, PartlyWithoutGradient])
def test_what_cannot_be_traced_is_not_fused_and_still_computed(kind):
    torch.manual_seed(0)
    model, x = kind().eval().requires_grad_(False), torch.rand(4, *SHAPE)
    assert fused(copy.deepcopy(model), x) is None
    fast = Fast(precision="fp32").prepare(model, x)
    assert not convolutions(fast)
    if kind is not RandomOnce:
        torch.testing.assert_close(fast(x), model(x), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(gradient(fast, x), gradient(model, x), atol=1e-5, rtol=1e-4)


def test_an_encoder_is_that_of_the_network():
    model, x = network({"name": "small_cnn", "width": 8}), torch.rand(4, *SHAPE)
    for precision, tolerance in (("fp32", 1e-4), ("bf16", 0.05)):
        fast = Fast(precision=precision).prepare(model, x)
        assert convolutions(fast)
        torch.testing.assert_close(fast.encoder(x), model.encoder(x), atol=tolerance, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_copies_and_threads_get_the_same(precision):
    model, x = network({"name": "resnet18", "width": 4}), torch.rand(8, *SHAPE)
    fast = Fast(precision=precision).prepare(model, x)
    fresh = copy.deepcopy(fast)
    parts = list(x.split(2)) * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda part: gradient(fresh, part), parts))
    for part, value in zip(parts, found, strict=True):
        torch.testing.assert_close(value, gradient(fast, part))


def test_the_first_layer_in_halves_is_as_accurate_as_float32():
    conv = nn.Conv2d(3, 16, 3, padding=1).requires_grad_(False)
    halved, x = FusedConv(conv, relu=True), torch.rand(4, *SHAPE)
    halved.split = True
    exact = conv(x).relu()
    with torch.no_grad():
        found = halved(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-4)


def plain(*middle):
    """Return a network whose middle layers are not fused and get what a fused one returns."""
    ends = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(16, 10)
    torch.manual_seed(0)
    return nn.Sequential(ends[0], nn.ReLU(), *middle, ends[1]).eval().requires_grad_(False)


@pytest.mark.parametrize("padding", [{"padding": "same"}, {"padding_mode": "reflect"}])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_that_are_not_fused_read_what_fused_ones_return(padding, precision):
    conv = nn.Conv2d(8, 8, 3, **{"padding": 1} | padding)
    for model in (
        plain(nn.Flatten(), nn.Linear(8 * 144, 32), nn.ReLU(), nn.Linear(32, 16)),
        plain(conv, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 16)),
    ):
        x = torch.rand(4, *SHAPE)
        fast = Fast(precision=precision).prepare(model, x)
        assert convolutions(fast)
        torch.testing.assert_close(fast(x), model(x), atol=0.02, rtol=0.02)
        bound = 0.1 * float(gradient(model, x).abs().max())
        torch.testing.assert_close(gradient(fast, x), gradient(model, x), atol=bound, rtol=0)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.first(x).relu()
        return self.head((x.sigmoid() + self.second(x)).relu().mean((2, 3)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_added_to_convolutions_with_groups(precision):
    torch.manual_seed(0)
    model, x = Grouped().eval().requires_grad_(False), torch.rand(4, *SHAPE)
    fast = Fast(precision=precision).prepare(model, x)
    assert len(convolutions(fast)) == 2
    torch.testing.assert_close(fast(x), model(x), atol=0.02, rtol=0.02)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), atol=0.02, rtol=0.02)


def test_a_cpu_that_cannot_multiply_in_bfloat16_computes_without_fusion(monkeypatch):
    def refuse(layer, weight, x, *sizes):
        if x.dtype == torch.bfloat16:
            raise RuntimeError("mkldnn bf16 path needs the cpu support avx512bw")
        return pack(layer, weight, x, *sizes)

    pack = FusedConv._pack
    monkeypatch.setattr(FusedConv, "_pack", refuse)
    model, x = network({"name": "small_cnn", "width": 8}), torch.rand(4, *SHAPE)
    fast = Fast(precision="bf16").prepare(model, x)
    assert not convolutions(fast)
    torch.testing.assert_close(fast(x), model(x), atol=0.05, rtol=0.05)
