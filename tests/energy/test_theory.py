"""The identities of CEM (arXiv 2203.13455), in float64 on a small network."""

import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from cembench import energy
from cembench.energy import potentials
from cembench.energy.ascent import ascend
from cembench.energy.threat import Threat
from cembench.methods import methods
from cembench.samplers import Sampler, SamplerContext
from cembench.samplers.logits import CS, SGLD
from cembench.util.rng import generator_of

CLASSES, PIXELS, COUNT = 4, 6, 5


@pytest.fixture(autouse=True)
def double(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.fixture
def toy():
    """A network, images, negatives and labels, all in float64."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(PIXELS, 16), nn.Tanh(), nn.Linear(16, CLASSES)
    ).double()
    x = torch.rand(COUNT, 1, 2, 3, generator=generator, dtype=torch.float64)
    negative = torch.rand(COUNT, 1, 2, 3, generator=generator, dtype=torch.float64)
    return net, x, negative, torch.arange(COUNT) % CLASSES


class Given(Sampler):
    """Negatives that the test chose."""

    name = "given"
    gradients: ClassVar[int] = 0

    def draw(self, model, x, y, context):
        return GIVEN[0]


GIVEN: list[torch.Tensor] = []


def gradient(net, value):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, net.parameters())])


def loss_gradient(net, name, x, y, negative, **options):
    GIVEN[:] = [negative]
    method = methods.parse({"name": name, "negatives": Given(), **options})
    context = SamplerContext(Threat(norm="linf", eps=0.1), generator_of(0, "cpu"))
    return gradient(net, method.objective(net, x, y, context)[0])


def contrastive(net, negative, y):
    """The contrastive part with ŷ summed exactly under p(ŷ|x̂)."""
    logits = net(negative)
    share = logits.softmax(1).detach()
    terms = [
        share[:, k] * energy.contrastive(logits, y, torch.full_like(y, k)) for k in range(CLASSES)
    ]
    return sum(terms).mean()


def test_the_at_gradient_is_minus_the_contrastive_part(toy):
    net, x, negative, y = toy
    at = loss_gradient(net, "at", x, y, negative)
    assert torch.allclose(at, -gradient(net, contrastive(net, negative, y)), atol=1e-12)


def test_both_parts_together_are_the_likelihood_gradient(toy):
    """With one negative a data point, E_p(x̂,ŷ) ∇f is the mean over negatives and ŷ ~ p(ŷ|x̂)."""
    net, x, negative, y = toy
    consistency = gradient(net, energy.consistency(net(x), net(negative), y).mean())
    parts = consistency + gradient(net, contrastive(net, negative, y))
    logits = net(negative)
    model_side = (logits.softmax(1).detach() * logits).sum(1).mean()
    likelihood = gradient(net, energy.joint(net(x), y).mean() - model_side)
    assert torch.allclose(parts, likelihood, atol=1e-12)


def test_cem_at_one_is_jem_at_one_and_at_zero_is_at(toy):
    net, x, negative, y = toy
    free = {"energy_l2": 0.0, "log_gradients": False}
    cem = loss_gradient(net, "cem", x, y, negative, consistency=1.0, **free)
    jem = loss_gradient(net, "jem", x, y, negative, gamma=1.0)
    assert torch.allclose(cem, jem, atol=1e-12)
    none = loss_gradient(net, "cem", x, y, negative, consistency=0.0, **free)
    assert torch.allclose(none, loss_gradient(net, "at", x, y, negative), atol=1e-12)


def test_cem_logs_its_parts_apart(toy):
    net, x, negative, y = toy
    GIVEN[:] = [negative]
    method = methods.parse({"name": "cem", "negatives": Given(), "consistency": 0.3})
    context = SamplerContext(Threat(norm="linf", eps=0.1), generator_of(0, "cpu"))
    _, parts = method.objective(net, x, y, context)
    first = gradient(net, -contrastive(net, negative, y))
    second = gradient(net, -energy.consistency(net(x), net(negative), y).mean())
    assert parts["contrastive_gradient"].item() == pytest.approx(first.norm().item())
    assert parts["consistency_gradient"].item() == pytest.approx(second.norm().item())
    cosine = (first @ second / (first.norm() * second.norm())).item()
    assert parts["cosine"].item() == pytest.approx(cosine)


def test_with_data_as_negatives_the_likelihood_is_standard_training(toy):
    net, x, _, y = toy
    jem = loss_gradient(net, "jem", x, y, x, gamma=1.0)
    at = loss_gradient(net, "at", x, y, x)
    standard = gradient(net, -energy.conditional(net(x), y).mean())
    assert torch.allclose(jem, standard, atol=1e-12) and torch.allclose(at, standard, atol=1e-12)


def slope(net, potential, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(potential(net(x), y).sum(), x)[0]


def test_potentials_are_sums_of_each_other(toy):
    net, x, _, y = toy
    joint, marginal = slope(net, potentials.joint, x, y), slope(net, potentials.marginal, x, y)
    pgd = slope(net, potentials.cross_entropy, x, y)
    assert torch.allclose(pgd, marginal - joint, atol=1e-12)
    assert torch.allclose(slope(net, potentials.conditional, x, y), -pgd, atol=1e-12)
    assert torch.allclose(slope(net, potentials.reinforced, x, y), joint + marginal, atol=1e-12)


class Mixture(nn.Module):
    """Logits whose joint density is a mixture of two Gaussians in the plane, one a class."""

    centres = torch.tensor([[-1.0, 0.0], [1.5, 0.5]], dtype=torch.float64)
    spread = 0.5

    def forward(self, x):
        distance = (x.flatten(1)[:, None] - self.centres).square().sum(2)
        weights = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
        return weights - distance / (2 * self.spread**2)


def test_langevin_samples_match_a_known_density():
    """SGLD on LSE with noise √(2α) draws from p(x) as α → 0; means and spreads are known."""
    generator = generator_of(0, "cpu")
    start = torch.rand(4000, 1, 1, 2, generator=generator, dtype=torch.float64) * 4 - 2
    sampler = SGLD(steps=600, step_size=0.005, noise=None, start="data")
    context = SamplerContext(Threat(norm="linf", eps=0.1), generator)
    samples = sampler.draw(Mixture(), start, torch.zeros(4000).long(), context).flatten(1)
    nearest = (samples[:, None] - Mixture.centres).square().sum(2).argmin(1)
    for label, centre in enumerate(Mixture.centres):
        group = samples[nearest == label]
        assert torch.allclose(group.mean(0), centre, atol=0.06)
        assert torch.allclose(group.std(0), torch.full((2,), 0.5, dtype=torch.float64), atol=0.05)


def test_conditional_samples_are_of_the_class_that_was_asked_for():
    generator = generator_of(0, "cpu")
    y = torch.arange(2000) % 2
    start = torch.zeros(2000, 1, 1, 2, dtype=torch.float64)
    sampler = CS(steps=400, step_size=0.005, direction="raw", start="data", box=False)
    context = SamplerContext(Threat(norm="linf", eps=0.1), generator)
    samples = sampler.draw(Mixture(), start, y, context).flatten(1)
    nearest = (samples[:, None] - Mixture.centres).square().sum(2).argmin(1)
    # The classes overlap: 1.27 standard deviations from each centre to the middle, each way.
    expected = 0.5 * (1 + math.erf((math.sqrt(2.5**2 + 0.5**2) / 2 / 0.5) / math.sqrt(2)))
    assert (nearest == y).double().mean().item() == pytest.approx(expected, abs=0.02)
    for label, centre in enumerate(Mixture.centres):
        assert torch.allclose(samples[y == label].mean(0), centre, atol=0.05)


def test_jem_learns_a_density_that_it_can_sample():
    """On four values of one pixel the partition function is a sum, and the model must match."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], dtype=torch.float64).reshape(4, 1, 1, 1)
    truth = torch.tensor([[0.4, 0.05], [0.1, 0.05], [0.05, 0.1], [0.05, 0.2]], dtype=torch.float64)

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.values = nn.Parameter(torch.zeros(4, 2, dtype=torch.float64))

        def forward(self, x):
            return self.values[(x.flatten() * 3).round().long()]

    net = Table()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for _ in range(3000):
        draw = torch.multinomial(truth.flatten(), 256, True, generator=generator)
        x, y = grid[draw // 2], draw % 2
        shares = net.values.detach().logsumexp(1).softmax(0)
        GIVEN[:] = [grid[torch.multinomial(shares, 256, True, generator=generator)]]
        method = methods.parse({"name": "jem", "negatives": Given()})
        context = SamplerContext(Threat(norm="linf", eps=0.1), generator_of(0, "cpu"))
        optimizer.param_groups[0]["lr"] *= 0.999
        optimizer.zero_grad()
        method.objective(net, x, y, context)[0].backward()
        optimizer.step()
    learned = net.values.detach().flatten().softmax(0).reshape(4, 2)
    assert torch.allclose(learned, truth, atol=0.02)


def test_noise_free_ascent_reaches_the_mode():
    start = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    end = ascend(Mixture(), potentials.joint, start, torch.tensor([1]), steps=500, step_size=0.02)
    assert torch.allclose(end.flatten(), Mixture.centres[1], atol=1e-4)
