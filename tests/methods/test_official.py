"""Losses of the field's methods against the arithmetic of their authors' code, in float64.

The expected values are computed image by image and class by class, from the same tensors.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cembench.energy.threat import Threat
from cembench.methods import methods
from cembench.methods.perturbation import perturbations
from cembench.samplers import SamplerContext, samplers
from cembench.util.rng import generator_of

CLASSES, COUNT, LINF = 4, 6, Threat(norm="linf", eps=0.1)


@pytest.fixture(autouse=True)
def double(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, CLASSES)
    return nn.Sequential(*layers).double()


def given(seed, count=COUNT):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 2, 2, generator=generator, dtype=torch.float64)


IMAGES = {name: given(seed) for seed, name in enumerate(("x", "attacked", "data", "sampled"))}
Y = torch.arange(COUNT) % CLASSES


def context(**changes):
    return replace(SamplerContext(LINF, generator_of(0, "cpu")), **changes)


def same(net, found, expected):
    """Whether two losses have the same value and the same gradient."""
    one, two = (torch.autograd.grad(loss, list(net.parameters())) for loss in (found, expected))
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(one, two, strict=True))
    return True


def loss_of(net, images=("x", "attacked"), at=None, y=Y, **settings):
    method = methods.parse(settings)
    drawn = {name: IMAGES[name] for name in images}
    return method.loss(net, drawn, y, at or context())


def kl(p, q):
    return sum(p[k] * (p[k].log() - q[k].log()) for k in range(CLASSES))


def mart(net, beta):
    """YisenWang/MART, mart.py."""
    total = 0
    for x, attacked, y in zip(IMAGES["x"], IMAGES["attacked"], Y, strict=True):
        p, q = net(x[None])[0].softmax(0), net(attacked[None])[0].softmax(0)
        order = q.argsort()
        rival = order[-2] if order[-1] == y else order[-1]
        total += -q[y].log() - (1.0001 - q[rival] + 1e-12).log()
        total += beta * kl(p, q) * (1.0000001 - p[y])
    return total / COUNT


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_mart_is_its_code(net, beta):
    found, parts = loss_of(net, name="mart", beta=beta)
    assert found.item() == pytest.approx(mart(net, beta).item(), rel=1e-6)
    one, two = (torch.autograd.grad(one, net[1].weight)[0] for one in (found, mart(net, beta)))
    assert torch.allclose(one, two, rtol=0, atol=1e-6)  # the code adds 1e-7 to 1 − p(y|x)
    assert (found.item() == parts["boosted"].item()) == (beta == 0)


def weat(net, beta, natural):
    """OmnAI-Lab/Robust-Classifiers-under-the-lens-of-EBM, WEAT_loss.py."""
    total = 0
    for x, attacked, y in zip(IMAGES["x"], IMAGES["attacked"], Y, strict=True):
        logits, away = net(x[None])[0], net(attacked[None])[0]
        energy = -logits.detach().exp().sum().log()
        weight = 1 / torch.log(1 + torch.exp(torch.abs(energy)))
        judged = (logits if natural == "clean" else away).softmax(0)
        total += weight * (-judged[y].log() + beta * kl(logits.softmax(0), away.softmax(0)))
    return total / COUNT


@pytest.mark.parametrize(("natural", "beta"), [("clean", 6.0), ("attacked", 7.0)])
def test_weat_is_its_code(net, natural, beta):
    found, _ = loss_of(net, name="weat", natural=natural, beta=beta)
    assert same(net, found, weat(net, beta, natural))


def test_weat_with_equal_weights_is_trades(net):
    level = nn.Sequential(net, nn.LogSoftmax(1))  # LSE is 0 everywhere, and all weights 1/log 2
    found, parts = loss_of(level, name="weat")
    trades, _ = loss_of(level, name="trades")
    assert parts["weight"].item() == pytest.approx(1 / torch.tensor(2.0).log().item())
    assert same(net, found * torch.tensor(2.0).double().log(), trades)


def gkl(net, prior, alpha, beta, gamma):
    """jiequancui/DKL, DKLv2/Adv-training-dkl/train_dkl_cifar10.py; a row of the prior an image."""
    squares = mass = soft = natural = 0
    for x, attacked, y, row in zip(IMAGES["x"], IMAGES["attacked"], Y, prior, strict=True):
        logits, away = net(x[None])[0], net(attacked[None])[0]
        for k in range(CLASSES):
            for other in range(CLASSES):
                weight = row[k] ** gamma * row[other] ** gamma
                near, far = logits[k] - logits[other], away[k] - away[other]
                squares, mass = squares + weight * (near - far) ** 2, mass + weight
            soft -= logits.softmax(0)[k].detach() * away.softmax(0)[k].log()
        natural -= logits.softmax(0)[y].log()
    return natural / COUNT + beta * 0.25 * squares / mass + alpha * soft / COUNT


@pytest.mark.parametrize("gamma", [1.0, 0.2])
def test_gkl_is_its_code_with_the_class_means_of_the_epoch_before(net, gamma):
    settings = {"name": "gkl", "gamma": gamma, "temperature": 2.0}
    method, memory, counts = methods.parse(settings), {}, torch.zeros(CLASSES, CLASSES).double()
    for _ in range(2):  # two steps of the first epoch
        values = loss_of(net, at=context(memory=memory), **settings)[1]
        method.learn(memory, values, COUNT)
        for x, y in zip(IMAGES["x"], Y, strict=True):
            counts[y] += (net(x[None])[0] / 2).softmax(0).detach()
    uniform = torch.full((COUNT, CLASSES), 1 / CLASSES).double()
    found, _ = loss_of(net, at=context(memory=memory), **settings)
    assert same(net, found, gkl(net, uniform, 4, 20, gamma))
    for _ in range(2):  # the second epoch has the means of the first, also after it has begun
        found, values = loss_of(net, at=context(memory=memory, epoch=1), **settings)
        means = counts / counts.sum(1, keepdim=True)
        assert same(net, found, gkl(net, means[Y], 4, 20, gamma))
        method.learn(memory, values, COUNT)


def test_dkl_has_the_gradient_of_trades(net):
    """The theorem that the divergence comes from (arXiv 2305.13948, theorem 1)."""
    settings = {"class_means": False, "symmetric": False, "alpha": 6.0, "beta": 6.0}
    found, _ = loss_of(net, name="gkl", **settings)
    trades, _ = loss_of(net, name="trades", beta=6.0)
    one, two = (torch.autograd.grad(one, list(net.parameters())) for one in (found, trades))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(one, two, strict=True))


def test_gkl_without_its_divergence_is_standard_training(net):
    found, _ = loss_of(net, name="gkl", alpha=0.0, beta=0.0)
    assert same(net, found, F.cross_entropy(net(IMAGES["x"]), Y))


def test_gkl_sums_its_class_means_in_full_precision(net, monkeypatch):
    monkeypatch.undo()
    drawn = {name: IMAGES[name].float() for name in ("x", "attacked")}
    with torch.autocast("cpu", torch.bfloat16):  # as in a training step
        _, found = methods.parse("gkl").loss(net.float(), drawn, Y, context())
    assert found["sums"].dtype == torch.float32


def test_gkl_of_a_class_that_had_no_images_has_uniform_weights(net):
    method, memory = methods.parse("gkl"), {}
    values = loss_of(net, name="gkl", y=torch.zeros_like(Y))[1]
    method.learn(memory, values, COUNT)
    found, _ = loss_of(net, name="gkl", at=context(memory=memory, epoch=1))
    assert found.isfinite()


def ratio(net, attacked, outside):
    """M4xim4l/InNOutRobustness: AdversarialACET with `KL`, at its weights of ½."""
    logits = torch.stack([net(x[None])[0] for x in attacked])
    spread = torch.stack([net(x[None])[0].log_softmax(0) for x in outside])
    uniform = torch.full_like(spread, 1 / CLASSES)
    away = F.kl_div(spread, uniform, reduction="none").sum(1).mean()
    return 0.5 * F.cross_entropy(logits, Y, reduction="none").mean() + 0.5 * away


def test_ratio_is_its_code(net):
    images = {"attacked": IMAGES["attacked"], "outside": IMAGES["sampled"]}
    found, _ = methods.parse("ratio").loss(net, images, Y, context())
    assert same(net, found, ratio(net, *images.values()))


def test_ratio_without_other_images_is_adversarial_training(net):
    x, options = IMAGES["x"], {"negatives": {"steps": 3, "start": "data"}}
    found, _ = methods.parse({"name": "ratio", "weight": 0, **options}).objective(
        net, x, Y, context()
    )
    at, _ = methods.parse({"name": "at", **options}).objective(net, x, Y, context())
    assert found.item() == at.item() and same(net, found, at)


def eb_jdat(net, w):
    """jkcjkc/EB-JDAT, EB-JDAT-SADAJEM/train_sadajem.py."""

    def f(name):
        return torch.stack([net(x[None])[0].exp().sum().log() for x in IMAGES[name]]).mean()

    density = -(f("data") - f("sampled"))
    aligned = -(f("data") - f("attacked"))
    natural, robust = (F.cross_entropy(net(IMAGES[name]), Y) for name in ("x", "attacked"))
    return density + natural + w * aligned + robust


@pytest.mark.parametrize("w", [0.1, -0.1])
def test_eb_jdat_is_its_code_with_either_sign(net, w):
    both = torch.cat([Y, Y.flip(0)])  # the labels of the density's images are not used
    found, _ = loss_of(net, IMAGES, y=both, name="eb-jdat", alignment=w)
    assert same(net, found, eb_jdat(net, w))


def test_eb_jdat_without_energies_is_cross_entropy_on_both(net):
    found, _ = loss_of(
        net, IMAGES, name="eb-jdat", own_batch=False, data_noise=0.0, alignment=0.0, gamma=0.0
    )
    expected = F.cross_entropy(net(IMAGES["x"]), Y) + F.cross_entropy(net(IMAGES["attacked"]), Y)
    assert same(net, found, expected)


def test_eb_jdat_without_its_third_part_is_jem_and_adversarial_training(net):
    names = ("x", "data", "sampled")
    both = torch.cat([Y, Y])
    found, _ = loss_of(net, IMAGES, y=both, name="eb-jdat", alignment=0.0)
    jem, _ = loss_of(net, names, y=both, name="jem", own_batch=True)
    at, _ = loss_of(net, name="at")
    assert same(net, found, jem + at)


def test_jem_of_a_batch_of_its_own_is_jem_if_that_is_the_same(net):
    sampled = IMAGES["sampled"]
    one = methods.parse({"name": "jem", "own_batch": True, "energy_l2": 0.1})
    images = {"x": IMAGES["x"], "data": IMAGES["x"], "sampled": sampled}
    found, _ = one.loss(net, images, torch.cat([Y, Y]), context())
    jem, _ = loss_of(net, ("x", "sampled"), name="jem", energy_l2=0.1)
    assert same(net, found, jem) and one.cost(context()) == methods.parse("jem").cost(context()) + 1


def inner_step(net, x, y, start, objective):
    """jkcjkc/EB-JDAT, sampleXadv: on [−1, 1], in batches of two."""
    found = []
    for rows in torch.arange(len(x)).split(2):
        at = (2 * start[rows] - 1).clone()
        for _ in range(5):
            at.requires_grad_()
            out, clean = net((at + 1) / 2), net(x[rows])
            value = out.gather(1, y[rows][:, None]).sum()
            if objective == "cross_entropy":
                value = F.cross_entropy(out, y[rows], reduction="sum")
            for a, b in zip(out, clean, strict=True):
                value = value + ((a / a.norm() - b / b.norm()) ** 2).sum()
            (slope,) = torch.autograd.grad(value, at)
            at = (at.detach() + 2 / 255 * slope.sign()).clamp(-1, 1)
        found.append((at + 1) / 2)
    return torch.cat(found)


@pytest.mark.parametrize("objective", ["label", "cross_entropy"])
def test_the_inner_step_of_eb_jdat_is_its_code_unless_it_is_projected(net, objective):
    half = replace(context(), threat=Threat(norm="linf", eps=4 / 255))
    sampler = samplers.parse({"name": "eb-jdat", "step_size": 1 / 255, "objective": objective})
    free = sampler.model_copy(update={"project": False})
    x = IMAGES["x"]
    start = half.threat.ball.uniform(x, generator_of(0, "cpu"))
    moved = free.draw(net, x, Y, half)
    assert torch.allclose(moved, inner_step(net, x, Y, start, objective), atol=1e-9)
    assert 4 / 255 < (moved - x).abs().max() <= 9 / 255 + 1e-9
    half = replace(half, generator=generator_of(0, "cpu"))
    assert (sampler.draw(net, x, Y, half) - x).abs().max() <= 4 / 255 + 1e-9


def test_adaptive_sam_is_the_code_of_sada_jem_and_eb_jdat(net):
    """sam.py of sndnyang/SADAJEM, where ρ = 2 and lengths are in units of each weight."""
    weights = dict(net.named_parameters())
    gradients = {n: torch.sin(7 * w).detach() for n, w in weights.items()}
    sam = perturbations.parse({"name": "sam", "rho": 2.0, "adaptive": True})
    scaled = [(weights[n].abs() * g).norm() for n, g in gradients.items()]
    scale = 2.0 / torch.stack(scaled).norm()
    for name, delta in sam.deltas(weights, gradients).items():
        assert torch.allclose(delta, weights[name] ** 2 * gradients[name] * scale, atol=1e-9)


@pytest.mark.parametrize("measure", ["divergence", "maximum"])
def test_the_attack_outside_the_data_climbs_what_ratio_names(net, measure):
    settings = {"start": "data", "eps": 0.3, "step_size": 0.05, "measure": measure}
    x = IMAGES["x"]
    moved = samplers.parse({"name": "confidence", **settings}).draw(net, x, Y, context())
    assert (moved - x).flatten(1).norm(dim=1).max() <= 0.3 + 1e-9
    before, after = (net(images).log_softmax(1) for images in (x, moved))
    rise = (
        after.amax(1) - before.amax(1) if measure == "maximum" else before.mean(1) - after.mean(1)
    )
    assert (rise > 0).all()
