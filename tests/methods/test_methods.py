"""Training objectives against the formulas of their papers."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, softmax

from cembench.energy.threat import Threat
from cembench.methods import methods
from cembench.samplers import InitialImages, SamplerContext
from cembench.samplers.initial import ReplayBuffer
from cembench.util.rng import generator_of
from tests.conftest import conv_net, images, labels

THREAT = Threat(norm="linf", eps=0.1)


def context():
    generator = generator_of(0, "cpu")
    initial = InitialImages(buffer=ReplayBuffer(100, (1, 8, 8), 10, generator))
    return SamplerContext(THREAT, generator, initial)


def deterministic():
    model = conv_net()
    model[3].p = 0.0
    return model


@pytest.mark.parametrize("name", methods.names())
def test_every_loss_is_a_finite_scalar_with_gradients_everywhere(name):
    model = conv_net()
    loss, parts = methods.parse(name).loss(model, images(), labels(), context())
    loss.backward()
    assert loss.shape == () and loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(part.shape == () and not part.requires_grad for part in parts.values())


def test_at_is_cross_entropy_on_the_negatives():
    model, method = deterministic(), methods.parse("at")
    loss, _ = method.loss(deterministic(), images(), labels(), context())
    negative = method.negatives.draw(model, images(), labels(), context())
    assert loss.item() == pytest.approx(cross_entropy(model(negative), labels()).item())


def test_trades_is_the_reference_formula():
    model, method = deterministic(), methods.parse({"name": "trades", "beta": 4.0})
    negative = method.negatives.draw(model, images(), labels(), context())
    clean, moved = model(images()), model(negative)
    robust = kl_div(moved.log_softmax(1), softmax(clean, 1), reduction="sum") / len(clean)
    expected = cross_entropy(clean, labels()) + 4.0 * robust
    loss, parts = method.loss(deterministic(), images(), labels(), context())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() == pytest.approx((parts["natural"] + 4.0 * parts["robust"]).item(), rel=1e-5)


def test_trades_without_beta_is_standard_training():
    given = images(), labels(), context()
    standard, _ = methods.parse("standard").loss(deterministic(), *given)
    trades, _ = methods.parse({"name": "trades", "beta": 0}).loss(deterministic(), *given)
    assert trades.item() == pytest.approx(standard.item())


def test_eps_grows_over_the_warm_up():
    method = methods.parse({"name": "at", "eps_warmup": 4})
    radii = [method.threat_at(THREAT, epoch).eps for epoch in (0, 1, 3.5, 4, 9)]
    assert radii == pytest.approx([0, 0.025, 0.0875, 0.1, 0.1])


def test_gradient_evaluations_count_sampler_and_weights():
    counts = {name: methods.parse(name).cost(context()) for name in methods.names()}
    supervised = {"standard": 1, "at": 11, "trades": 12, "jem": 22, "cem": 15, "knn": 0}
    unlabelled = {"infonce": 2, "adv-infonce": 24, "np-jem": 23}
    assert counts == {**supervised, **unlabelled, "dat": 11}
    later = replace(context(), history=[{}] * 10)
    assert methods.parse("dat").cost(later) == 11 + 5 + 2


def test_dat_is_at_first_and_then_tells_data_from_samples():
    given = images(), labels()
    settings = {"negatives": {"steps": 2}, "first_stage": 1, "first_steps": 3}
    dat = methods.parse({"name": "dat", "contrast": {"start": "noise", "steps": 8}, **settings})
    at = methods.parse({"name": "at", "negatives": {"steps": 2}})
    assert torch.equal(
        dat.loss(deterministic(), *given, context())[0],
        at.loss(deterministic(), *given, context())[0],
    )
    model, later = conv_net(), replace(context(), history=[{}])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss, parts = dat.loss(model.train(), *given, later)
    loss.backward()
    assert loss.item() == pytest.approx((parts["robust"] + parts["told"]).item(), rel=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_dat_takes_more_steps_once_data_and_samples_are_separable():
    dat = methods.parse(
        {"name": "dat", "first_stage": 2, "contrast": {"start": "noise", "steps": 12}}
    )
    rows = [{}, {}, {"separated": 0.95}, {"separated": 0.5}, {"separated": 0.9}, {"separated": 1.0}]
    steps = [dat.steps_at(replace(context(), history=rows[:n])) for n in range(len(rows) + 1)]
    assert steps == [0, 0, 5, 10, 10, 12, 12]
