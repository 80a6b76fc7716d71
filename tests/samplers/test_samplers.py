"""Attacks over norm, start and mode: inside the rules, nothing else touched; peers agree."""

import random

import numpy as np
import pytest
import torch
import torchattacks

from cembench.data.split import Split, fixed_permutation
from cembench.energy.threat import Threat
from cembench.samplers import InitialImages, Needs, SamplerContext, samplers
from cembench.samplers import initial as initial_images
from cembench.samplers.initial import GaussianInit, ReplayBuffer
from cembench.samplers.pgd import PGD
from cembench.samplers.smooth import smooth_noise
from cembench.util.errors import CembenchError
from cembench.util.frozen import frozen
from cembench.util.rng import generator_of, isolated_rng
from tests.conftest import conv_net, images, labels
from tests.support.attacks import THREATS, assert_untouched, fingerprint

STARTS = {
    "pgd": [{"start": "uniform"}, {"start": "normal"}, {"start": "data"}],
    "trades": [{}, {"noise": 0.0}],
    "eb-jdat": [{}, {"objective": "cross_entropy", "distance": 0}],
}
TABLE = [
    (name, options, mode)
    for name in STARTS
    for options in STARTS[name]
    for mode in ("eval", "train")
]


def context(threat, **initial):
    return SamplerContext(threat, generator_of(0, "cpu"), **initial)


ENERGY = ["sgld", "ta", "cs", "rcs", "confidence"]
EMBEDDING = ["maxent", "infonce", "np-sgld"]  # test_embedding_samplers.py
SEVERAL = ["max", "avg", "sat", "e-at"]  # test_several.py


def test_the_tables_cover_every_sampler():
    assert {*STARTS, *ENERGY, *EMBEDDING, *SEVERAL} == set(samplers.names())


def prepared():
    split = Split.of((images(40) * 255).byte(), labels(40), tuple("0123456789"))
    buffer = ReplayBuffer(50, (1, 8, 8), 10, generator_of(0, "cpu"))
    return context(THREATS[0], initial=InitialImages(GaussianInit(split), buffer))


@pytest.mark.parametrize("start", ["gaussian", "noise", "smooth", "data", "buffer"])
@pytest.mark.parametrize("direction", ["l2", "raw", "sign"])
@pytest.mark.parametrize("name", ENERGY)
def test_energy_samplers_climb_their_potential_and_touch_nothing(name, direction, start):
    model, x, y = conv_net(), images(), labels()
    before = fingerprint(model)
    options = {"direction": direction, "start": start, "noise": 0.0, "step_size": 0.01, "box": True}
    sampler = samplers.parse({"name": name, "steps": 6, "renewed": 0.0, **options})
    begun, _ = sampler.initial_images(x, y, prepared())
    drawn = sampler.draw(model, x, y, prepared())
    assert_untouched(before, model)
    assert not drawn.requires_grad and drawn.shape == x.shape
    assert drawn.min() >= 0 and drawn.max() <= 1
    model.eval()
    rise = sampler.potential(model(drawn), y) - sampler.potential(model(begun), y)
    assert (rise > 0).float().mean() > 0.9
    assert torch.equal(sampler.draw(model, x, y, prepared()), drawn)


def test_samplers_declare_what_they_need():
    def needs(name, **settings):
        return samplers.parse({"name": name, **settings}).needs()

    assert needs("pgd") == needs("trades") == Needs()
    assert needs("rcs", clusters=1) == Needs(gaussians="gaussian")
    assert needs("cs", start="cluster", clusters=3) == Needs(gaussians="cluster", clusters=3)
    assert needs("sgld", buffer=50, clusters=1) == Needs(buffer_size=50)
    informed = {"buffer": 50, "renewal": "gaussian", "clusters": 1}
    assert needs("sgld", **informed) == Needs(gaussians="gaussian", buffer_size=50)
    other = needs("ta", start="outside", outside="digits")
    assert other.other_data.name == "digits" and other.gaussians is None
    assert needs("rcs", start="noise", outside="digits").other_data is None
    bank = needs("infonce", start="noise", others=5, image=7)
    assert (bank.bank_size, bank.image) == (5, 7) and needs("maxent").bank_size == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_energy_samplers_can_stay_in_a_ball(norm):
    model, x, y = conv_net(), images(), labels()
    sampler = samplers.parse({"name": "rcs", "start": "data", "norm": norm, "eps": 0.05})
    drawn = sampler.draw(model, x, y, context(THREATS[0]))
    assert Threat(norm=norm, eps=0.05).ball.size(drawn - x).max() <= 0.05 + 1e-6


def test_a_start_that_is_not_there_is_named():
    for start in ("gaussian", "buffer"):
        with pytest.raises(CembenchError, match=f"starts from '{start}'"):
            sampler = samplers.parse({"name": "cs", "start": start})
            sampler.draw(conv_net(), images(), labels(), context(THREATS[0]))


def test_smooth_noise_has_low_frequencies_and_the_whole_range():
    x = images(200)
    found = smooth_noise(x, generator_of(0, "cpu"))
    assert torch.equal(found, smooth_noise(x, generator_of(0, "cpu"))) and found.shape == x.shape
    low, high = found.flatten(1).aminmax(dim=1)
    assert low.abs().max() < 1e-6 and (high - 1).abs().max() < 1e-5
    with torch.autocast("cpu", torch.bfloat16):  # as in a training step
        assert torch.equal(found, smooth_noise(x, generator_of(0, "cpu")))

    def roughness(images):
        return images.diff(dim=-1).square().mean() / images.var()

    assert roughness(found) < 0.2 * roughness(x)
    permuted = smooth_noise(torch.full_like(x, 0.3), generator_of(0, "cpu"))
    flat = (permuted.flatten(1).std(1) < 1e-3).float().mean()  # permuted, without any contrast
    assert 0.35 < flat < 0.65


def test_langevin_noise_belongs_to_raw_gradients():
    still = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.init.zeros_(still[1].weight)
    x, y = torch.full((500, 1, 8, 8), 0.5), labels(500)
    for options, spread in (
        ({"direction": "raw", "step_size": 0.02}, 0.2 * 3**0.5),
        ({"direction": "l2", "step_size": 0.02}, 0.0),
        ({"direction": "raw", "step_size": 0.02, "noise": 0.1}, 0.1 * 3**0.5),
    ):
        options = {"name": "cs", "start": "data", "steps": 3, "box": False, **options}
        moved = samplers.parse(options).draw(still, x, y, context(THREATS[0])) - x
        assert moved.std().item() == pytest.approx(spread, abs=0.01)


def test_gaussian_seeds_have_the_mean_and_covariance_of_their_class():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=generator) * 0.03
    data = (0.5 + torch.randn(400, 8, generator=generator) @ mixing).clamp(0, 1)
    split = Split.of((data * 255).round().byte().reshape(400, 1, 2, 4), labels(400, 2), ("a", "b"))
    drawn = GaussianInit(split).draw(torch.zeros(20000, dtype=torch.long), generator).flatten(1)
    real = split.pixels(split.labels == 0).flatten(1)
    assert torch.allclose(drawn.mean(0), real.mean(0), atol=0.005)
    assert torch.allclose(drawn.T.cov(), real.T.cov(), atol=0.0005)
    assert real.T.cov().abs().max() > 0.003


def test_the_buffer_keeps_what_is_put_back_in_the_places_of_its_class():
    generator = generator_of(0, "cpu")
    buffer = ReplayBuffer(40, (1, 2, 2), 4, generator)
    y = torch.tensor([0, 1, 2, 3])
    drawn, rows = buffer.draw(y, 0.0, generator)
    assert torch.equal(rows // buffer.per_class, y) and torch.equal(drawn, buffer.images[rows])
    buffer.update(rows, torch.ones(4, 1, 2, 2))
    assert (buffer.images[rows] == 1).all() and (buffer.images == 1).all((1, 2, 3)).sum() == 4
    fresh, _ = buffer.draw(y.repeat(500), 1.0, generator)
    assert fresh.mean().item() == pytest.approx(0.5, abs=0.02) and not (fresh == 1).any()


def test_mixed_chains_begin_anew_from_noise_and_from_gaussians():
    pixels = torch.full((4, 1, 2, 2), 0.2).add(torch.arange(4).reshape(4, 1, 1, 1) / 1000)
    split = Split.of((pixels * 255).byte(), torch.zeros(4, dtype=torch.long), ("a", "b"))
    generator = generator_of(0, "cpu")
    initial = InitialImages(GaussianInit(split), ReplayBuffer(2000, (1, 2, 2), 2, generator))
    context = SamplerContext(Threat(norm="linf", eps=0.1), generator, initial)
    settings = {"name": "cs", "start": "buffer", "renewal": "mixed", "renewed": 1.0}
    sampler = samplers.parse(settings)
    assert sampler.needs().gaussians == "gaussian"
    y = torch.zeros(1000, dtype=torch.long)
    drawn, _ = sampler.initial_images(torch.zeros(1000, 1, 2, 2), y, context)
    of_gaussians = ((drawn - 0.2).abs() < 0.05).flatten(1).all(1)
    assert of_gaussians.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert drawn[~of_gaussians].std().item() == pytest.approx(12**-0.5, abs=0.02)


def test_a_large_buffer_keeps_bytes_of_the_same_images(monkeypatch):
    floats = ReplayBuffer(40, (1, 2, 2), 4, generator_of(0, "cpu"))
    monkeypatch.setattr(initial_images, "IN_FLOATS", 0)
    rounded = ReplayBuffer(40, (1, 2, 2), 4, generator_of(0, "cpu"))
    assert rounded.images.dtype == torch.uint8
    assert (rounded.images / 255 - floats.images).abs().max() <= 0.5 / 255 + 1e-6
    y, generator = torch.arange(4), generator_of(1, "cpu")
    drawn, rows = rounded.draw(y, 0.0, generator)
    assert torch.equal(drawn, rounded.images[rows] / 255)
    rounded.update(
        rows, torch.tensor([-0.2, 0.25, 0.5, 1.3]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    )
    assert rounded.images[rows, 0, 0, 0].tolist() == [0, 64, 128, 255]


def test_a_large_class_is_represented_by_the_same_part_of_it_in_every_draw(monkeypatch):
    split = Split.of(torch.randint(0, 256, (60, 1, 2, 4)).byte(), labels(60, 2), ("a", "b"))
    y = torch.zeros(5, dtype=torch.long)
    whole = GaussianInit(split).draw(y, generator_of(0, "cpu"))
    monkeypatch.setattr(initial_images, "WHOLE", 30 * 8)
    assert torch.equal(GaussianInit(split).draw(y, generator_of(0, "cpu")), whole)
    monkeypatch.setattr(initial_images, "WHOLE", 29 * 8)
    monkeypatch.setattr(initial_images, "PART", 10 * 8)
    few = GaussianInit(split)
    drawn = [few.draw(y, generator_of(0, "cpu")) for _ in range(2)]
    assert torch.equal(*drawn) and not torch.equal(drawn[0], whole)
    own = split.take((split.labels == 0).nonzero().squeeze(1))
    part = own.take(fixed_permutation(30)[:10].sort().values)
    assert torch.equal(GaussianInit(part).draw(y, generator_of(0, "cpu")), drawn[0])


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize(("name", "options", "mode"), TABLE)
def test_draws_stay_in_the_ball_and_touch_nothing(name, options, mode, threat):
    model, x, y = conv_net(), images(), labels()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    before = fingerprint(model)
    rng = torch.get_rng_state().clone()
    drawn = samplers.parse({"name": name, "steps": 4, "mode": mode, **options}).draw(
        model, x, y, context(threat)
    )
    if mode == "train":  # dropout in training mode draws from the global generator
        torch.set_rng_state(rng)
    assert_untouched(before, model)
    assert not drawn.requires_grad and drawn.shape == x.shape
    assert threat.ball.size(drawn - x).max() <= threat.eps + 1e-6
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert not torch.equal(drawn, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("name", "options", "mode"), TABLE)
def test_no_budget_is_the_identity(name, options, mode, norm):
    model, x, y = conv_net(), images(), labels()
    sampler = samplers.parse({"name": name, "steps": 2, "mode": mode, **options})
    assert torch.equal(sampler.draw(model, x, y, context(Threat(norm=norm, eps=0.0))), x)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_more_steps_from_the_image_break_no_fewer(threat):
    model, x, y = conv_net(3).eval(), images(64, seed=3), labels(64)
    y = torch.where(torch.rand(64) < 0.8, model(x).argmax(1), y)

    def broken(steps):
        attack = PGD(start="data", steps=steps, step_size=threat.eps / 4)
        found = attack.search(model, x, y, context(threat))
        return model(found).argmax(1) != y

    one, ten = broken(1), broken(10)
    assert (ten | ~one).all() and ten.sum() > one.sum()


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_restarts_break_no_fewer_and_search_beats_the_last_iterate(threat):
    model, x, y = conv_net(5).eval(), images(64, seed=5), torch.zeros(64, dtype=torch.long)
    y = model(x).argmax(1)

    def broken(found):
        return model(found).argmax(1) != y

    attack = PGD(steps=3, step_size=threat.eps)
    last = broken(attack.draw(model, x, y, context(threat)))
    best = broken(attack.search(model, x, y, context(threat)))
    more = broken(
        PGD(steps=3, step_size=threat.eps, restarts=4).search(model, x, y, context(threat))
    )
    assert (best | ~last).all() and (more | ~best).all()


@pytest.mark.parametrize("threat", THREATS[:2], ids=str)
def test_pgd_is_torchattacks_pgd_on_the_same_start(threat):
    model, x, y = conv_net().eval(), images(), labels()
    options = {"eps": threat.eps, "alpha": threat.eps / 4, "steps": 7, "random_start": False}
    peer = torchattacks.PGD if threat.norm == "linf" else torchattacks.PGDL2
    theirs = peer(model, **options)(x, y)
    ours = PGD(start="data", steps=7, step_size=threat.eps / 4).draw(model, x, y, context(threat))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_step_sizes_are_the_customary_ones():
    assert PGD(steps=10).alpha(8 / 255) == pytest.approx(2 / 255)
    assert PGD(steps=1).alpha(8 / 255) == pytest.approx(10 / 255)
    assert PGD(step_size=0.3).alpha(8 / 255) == 0.3


def test_frozen_restores_after_an_error_and_train_mode_keeps_running_statistics():
    model = conv_net()
    before = fingerprint(model)
    with pytest.raises(RuntimeError, match="stop"), frozen(model, "train"):
        model(images())
        assert not torch.equal(before[0]["1.running_mean"], model[1].running_mean)
        raise RuntimeError("stop")
    torch.set_rng_state(before[4][0])
    assert_untouched(before, model)


def test_isolated_rng_repeats_and_restores():
    def draw():
        return torch.rand(3), np.random.rand(3), random.random()

    before = torch.get_rng_state().clone(), random.getstate()
    with isolated_rng(5):
        first = draw()
    with isolated_rng(5):
        second = draw()
    assert torch.equal(first[0], second[0]) and (first[1] == second[1]).all()
    assert first[2] == second[2]
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
