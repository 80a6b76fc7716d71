"""Attacks over norm, start and mode: inside the rules, nothing else touched; peers agree."""

import random

import numpy as np
import pytest
import torch
import torchattacks

from cembench.ascent import ball_of
from cembench.guard import frozen, generator_of, isolated_rng
from cembench.samplers import PGD, Scene, samplers
from cembench.threat import Threat
from tests.conftest import conv_net, images, labels

THREATS = [Threat(norm="linf", eps=0.1), Threat(norm="l2", eps=0.7)]
STARTS = {"pgd": [{"start": "uniform"}, {"start": "data"}], "trades": [{}, {"noise": 0.0}]}
TABLE = [
    (name, options, mode)
    for name in samplers.names()
    for options in STARTS[name]
    for mode in ("eval", "train")
]


def scene(threat, seed=0):
    return Scene(threat, generator_of(seed, "cpu"))


def fingerprint(model):
    """All that an attack must leave alone."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad for p in model.parameters()]
    flags = [p.requires_grad for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    rng = (torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate())
    return state, grads, flags, modes, rng


def assert_untouched(before, model):
    after = fingerprint(model)
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1:4] == after[1:4]
    assert torch.equal(before[4][0], after[4][0]) and (before[4][1] == after[4][1]).all()
    assert before[4][2] == after[4][2]


def test_the_table_covers_every_sampler():
    assert set(STARTS) == set(samplers.names())


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize(("name", "options", "mode"), TABLE)
def test_draws_stay_in_the_ball_and_touch_nothing(name, options, mode, threat):
    model, x, y = conv_net(), images(), labels()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    before = fingerprint(model)
    rng = torch.get_rng_state().clone()
    drawn = samplers.parse({"name": name, "steps": 4, "mode": mode, **options}).draw(
        model, x, y, scene(threat)
    )
    if mode == "train":  # dropout in training mode draws from the global generator
        torch.set_rng_state(rng)
    assert_untouched(before, model)
    assert not drawn.requires_grad and drawn.shape == x.shape
    assert ball_of(threat).size(drawn - x).max() <= threat.eps + 1e-6
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert not torch.equal(drawn, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("name", "options", "mode"), TABLE)
def test_no_budget_is_the_identity(name, options, mode, norm):
    model, x, y = conv_net(), images(), labels()
    sampler = samplers.parse({"name": name, "steps": 2, "mode": mode, **options})
    assert torch.equal(sampler.draw(model, x, y, scene(Threat(norm=norm, eps=0.0))), x)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_more_steps_from_the_image_break_no_fewer(threat):
    model, x, y = conv_net(3).eval(), images(64, seed=3), labels(64)
    y = torch.where(torch.rand(64) < 0.8, model(x).argmax(1), y)

    def broken(steps):
        attack = PGD(start="data", steps=steps, step_size=threat.eps / 4)
        found = attack.search(model, x, y, scene(threat))
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
    last = broken(attack.draw(model, x, y, scene(threat)))
    best = broken(attack.search(model, x, y, scene(threat)))
    more = broken(PGD(steps=3, step_size=threat.eps, restarts=4).search(model, x, y, scene(threat)))
    assert (best | ~last).all() and (more | ~best).all()


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_pgd_is_torchattacks_pgd_on_the_same_start(threat):
    model, x, y = conv_net().eval(), images(), labels()
    options = {"eps": threat.eps, "alpha": threat.eps / 4, "steps": 7, "random_start": False}
    peer = torchattacks.PGD if threat.norm == "linf" else torchattacks.PGDL2
    theirs = peer(model, **options)(x, y)
    ours = PGD(start="data", steps=7, step_size=threat.eps / 4).draw(model, x, y, scene(threat))
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
