"""The non-parametric half of CEM (arXiv 2203.13455): identities in float64, and peers."""

import math
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from cembench import energy
from cembench.data.views import Views
from cembench.energy.ascent import ascend
from cembench.energy.potentials import BatchEntropy
from cembench.energy.similarity import Pairs, SimilarityClassifier, partners, similarity_logits
from cembench.energy.threat import Threat
from cembench.methods import methods
from cembench.methods.contrastive import nt_xent
from cembench.models import models
from cembench.models.blocks import clean_branch
from cembench.models.classifier import build_classifier
from cembench.models.heads import Projection
from cembench.samplers import Sampler, SamplerContext
from cembench.samplers.pgd import PGD
from cembench.util.rng import generator_of
from tests.conftest import images

THREATS = [Threat(norm="linf", eps=0.1), Threat(norm="l2", eps=0.7)]
POINTS, TAU = 5, 0.5


class Embedding(nn.Module):
    """A small encoder."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, x):
        return normalize(self.net(x))


@pytest.fixture
def double(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.fixture
def toy(double):
    """An encoder in float64, the points of a finite world, and a density of pairs of them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(POINTS, 1, 2, 3, generator=generator, dtype=torch.float64)
    pairs = torch.rand(POINTS, POINTS, generator=generator, dtype=torch.float64)
    pairs = pairs + pairs.T
    return Embedding().double(), x, pairs / pairs.sum()


def gradient(net, value):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(value, net.parameters(), retain_graph=True)]
    )


def test_infonce_is_the_importance_sampled_likelihood_gradient(toy):
    """With p_d(x̂) for p(x̂), E_pd ∇f − E_pd E_pd w ∇f is ∇ E log(exp f / E_pd exp f)."""
    net, x, density = toy
    single = density.sum(1)
    f = similarity_logits(net(x), net(x), TAU)
    infonce = (density * (f - (single * f.exp()).sum(1, keepdim=True).log())).sum()
    weights = (f.exp() / (single * f.exp()).sum(1, keepdim=True)).detach()
    positive = (density * f).sum()
    negative = (single[:, None] * single * weights * f).sum()
    assert torch.allclose(gradient(net, infonce), gradient(net, positive - negative), atol=1e-12)
    other = gradient(net, positive - (single[:, None] * single * f).sum())
    assert not torch.allclose(gradient(net, infonce), other, atol=1e-3)


def test_infonce_in_expectation_is_that_over_batches_drawn_from_the_data(toy):
    """Cross-entropy beside the whole world, points as often as the data has them."""
    net, x, density = toy
    single = density.sum(1)
    logits = SimilarityClassifier(net, TAU, net(x))(x) + single.log()
    loss = (density * -(logits.log_softmax(1) - single.log())).sum()
    f = similarity_logits(net(x), net(x), TAU)
    infonce = (density * (f - (single * f.exp()).sum(1, keepdim=True).log())).sum()
    assert torch.allclose(gradient(net, loss), -gradient(net, infonce), atol=1e-12)


class Given(Sampler):
    """Negatives that the test chose."""

    name = "given"
    gradients: ClassVar[int] = 0

    def draw(self, model, x, y, context, target=None):
        return GIVEN[0]


class Told(Views):
    """Two views that the test chose."""

    def pair(self, x, generator=None):
        return GIVEN[1], GIVEN[2]


GIVEN = []


def np_jem(net, first, second, negative, **settings):
    GIVEN[:] = [negative, first, second]
    method = methods.parse({"name": "np-jem", "negatives": Given(), "views": Told(), **settings})
    context = SamplerContext(THREATS[0], generator_of(0, "cpu"))
    return gradient(net, method.objective(net, first, torch.zeros(len(first)), context)[0])


def test_np_jem_is_the_likelihood_gradient_with_samples_of_the_model(toy):
    """E ∇f(x, x′) − E_x̂ Σ_j p(x′_j|x̂) ∇f(x̂, x′_j), and the data as samples give InfoNCE."""
    net, second, _ = toy
    generator = torch.Generator().manual_seed(2)
    first, negative = torch.rand(2, *second.shape, generator=generator, dtype=torch.float64)
    f, away = (
        similarity_logits(net(first), net(second), TAU),
        similarity_logits(net(negative), net(second), TAU),
    )
    shares = away.softmax(1).detach()
    likelihood = f.diagonal().mean() - (shares * away).sum(1).mean()
    found = np_jem(net, first, second, negative)
    assert torch.allclose(found, -gradient(net, likelihood), atol=1e-12)
    infonce = gradient(net, cross_entropy(f, torch.arange(POINTS)))
    assert torch.allclose(np_jem(net, first, second, first), infonce, atol=1e-12)
    assert torch.allclose(np_jem(net, first, second, negative, gamma=0.0), infonce, atol=1e-12)


def test_nt_xent_is_that_of_pytorch_metric_learning():
    from pytorch_metric_learning import losses

    z = normalize(torch.randn(24, 7, generator=torch.Generator().manual_seed(0)))
    theirs = losses.NTXentLoss(temperature=0.3)(z, torch.arange(24) % 12)
    assert nt_xent(z, 0.3).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_partners_are_each_other_and_no_row_is_a_class_of_itself():
    other = partners(4, torch.device("cpu"))
    assert other.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    logits = Pairs(Embedding(), TAU)(torch.rand(8, 1, 2, 3))
    assert (logits.diagonal() == -torch.inf).all() and logits.isfinite().sum() == 8 * 7


def test_likeness_has_own_images_as_class_zero():
    net, x = Embedding(), torch.rand(3, 1, 2, 3)
    bank = net(torch.rand(4, 1, 2, 3))
    out = SimilarityClassifier(net, TAU, bank, net(x))(x)
    assert out.shape == (3, 5) and torch.allclose(out[:, 0], torch.full((3,), 1 / TAU))
    assert torch.allclose(out[:, 1:], net(x) @ bank.T / TAU)


def test_batch_entropy_is_higher_when_embeddings_are_spread():
    angles = torch.arange(8) * math.pi / 4
    spread = torch.stack([angles.cos(), angles.sin()], 1)
    clusters = spread[[0, 0, 0, 0, 4, 4, 4, 4]]
    entropy = BatchEntropy(TAU)
    values = [entropy(z, z).sum() for z in (spread, clusters, spread[:1].repeat(8, 1))]
    assert values[0] > values[1] > values[2] and values[2] == pytest.approx(-8 / TAU)


def test_batch_entropy_separates_two_points_that_are_close():
    def embed(angle):
        angle = angle.flatten(1)
        return torch.cat([angle.cos(), angle.sin()], 1)

    start = torch.tensor([0.5, 0.6]).reshape(2, 1, 1, 1)
    climb = {"steps": 1000, "step_size": 0.1}
    end = ascend(embed, BatchEntropy(TAU), start, torch.zeros(2), **climb).flatten()
    assert (end[1] - end[0]).item() == pytest.approx(math.pi, abs=0.01)


def test_rows_of_a_coupled_potential_may_not_leave():
    def leave(step, rows, x, out):
        return torch.tensor([True, False])

    x = torch.rand(2, 1, 2, 3)
    with pytest.raises(ValueError, match="belong together"):
        ascend(Embedding(), BatchEntropy(TAU), x, x, steps=1, step_size=0.1, visit=leave)


def encoder(norm="dual"):
    torch.manual_seed(0)
    settings = models.parse({"name": "small_cnn", "width": 8, "norm": norm})
    return build_classifier(settings, (1, 8, 8), 10, head=Projection(dimension=16))


class Watching(PGD):
    """PGD that keeps what it was given and what it made."""

    name = "watching"

    def draw(self, model, x, y, context, target=None):
        moved = super().draw(model, x, y, context, target)
        with torch.no_grad():
            model.eval()
            losses = [cross_entropy(model(images), target).item() for images in (x, moved)]
            model.train()
        SEEN.append((x, moved, losses))
        return moved


SEEN = []


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("stream", ["dual", "a2a", "a2s"])
def test_adversarial_views_stay_in_the_ball_and_raise_the_loss(stream, threat):
    SEEN.clear()
    settings = {"stream": stream, "temperature": 0.02, "negatives": Watching(steps=5)}
    method = methods.parse({"name": "adv-infonce", **settings})
    context = SamplerContext(threat, generator_of(0, "cpu"))
    loss, _ = method.objective(encoder(), images(), torch.zeros(16), context)
    ((x, moved, (before, after)),) = SEEN
    assert len(x) == (16 if stream == "a2s" else 32) and loss.isfinite()
    assert threat.ball.size(moved - x).max() <= threat.eps + 1e-5
    assert moved.min() >= 0 and moved.max() <= 1 and after > before + 1e-3


def statistics(model):
    pairs = [(n, v.clone()) for n, v in model.named_buffers() if n.endswith("running_mean")]
    clean = torch.cat([v for n, v in pairs if "clean" in n])
    return clean, torch.cat([v for n, v in pairs if "attacked" in n])


def test_dual_batch_norm_keeps_two_sets_of_statistics_apart():
    model = encoder().train()
    clean, attacked = statistics(model)
    with clean_branch(model):
        model(images() + 1)
    assert not torch.equal(statistics(model)[0], clean)
    assert torch.equal(statistics(model)[1], attacked)
    clean = statistics(model)[0]
    model(images())
    assert torch.equal(statistics(model)[0], clean)
    assert not torch.equal(statistics(model)[1], attacked)
    model.eval()
    with clean_branch(model):
        other = model(images())
    assert not torch.allclose(model(images()), other)


@pytest.mark.parametrize(("stream", "moved"), [("dual", 2), ("a2a", 1), ("a2s", 2)])
def test_attacked_and_clean_views_take_their_own_branch(stream, moved):
    model = encoder().train()
    before = statistics(model)
    method = methods.parse({"name": "adv-infonce", "stream": stream, "negatives": {"steps": 2}})
    method.objective(
        model, images(), torch.zeros(16), SamplerContext(THREATS[0], generator_of(0, "cpu"))
    )
    changed = [not torch.equal(*pair) for pair in zip(before, statistics(model), strict=True)]
    assert changed == ([True, True] if moved == 2 else [False, True])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_similarities_are_never_in_half_precision(precision):
    z = normalize(torch.randn(6, 8)).to(precision)
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent(z, 0.1).dtype == torch.float32
        assert BatchEntropy(0.1)(z, z).dtype == torch.float32


def test_energy_of_the_bank_is_the_marginal_over_its_images(toy):
    net, x, _ = toy
    out = SimilarityClassifier(net, TAU, net(x))(x)
    expected = similarity_logits(net(x), net(x), TAU).exp().sum(1).log()
    assert torch.allclose(energy.marginal(out), expected)


def held_bytes(count):
    """Return what one loss on images keeps for its gradient."""
    size = 0

    def pack(tensor):
        nonlocal size
        size += tensor.numel() * tensor.element_size()
        return tensor

    method, context = methods.parse("infonce"), SamplerContext(THREATS[0], generator_of(0, "cpu"))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        method.objective(encoder(), images(count), torch.zeros(count), context)
    return size


def test_memory_is_linear_in_the_batch_but_for_the_matrix_of_similarities():
    few, some, more, most = (held_bytes(count) for count in (16, 32, 64, 128))
    square = ((more - 2 * some) - (some - 2 * few)) / (2 * 32**2 - 2 * 16**2)
    assert 4 * 4 <= square <= 4 * 12  # the logits of 2N rows: at most three floats an entry
    constant = -(some - 2 * few) + square * 2 * 16**2
    slope = (few - constant - square * 16**2) / 16
    assert most == pytest.approx(constant + slope * 128 + square * 128**2, rel=1e-3)
