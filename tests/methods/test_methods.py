"""Training objectives against the formulas of their papers."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    softmax,
)

from cembench.energy.threat import Threat
from cembench.methods import Method, methods
from cembench.samplers import InitialImages, SamplerContext
from cembench.samplers.initial import ReplayBuffer
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.rng import generator_of, uniform
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
    method = methods.parse(name)
    loss, parts = method.objective(model, images(), labels(), context())
    loss.backward()
    assert loss.shape == () and loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any(part.requires_grad for part in parts.values())
    learns = type(method).learn is not Method.learn  # from tensors that are not logged
    assert all(part.shape == () or learns for part in parts.values())


SUPERVISED = [name for name in methods.names() if methods.find(name).labels == "all"]


@pytest.mark.parametrize("name", SUPERVISED)  # the views of others are kornia's
def test_every_value_of_a_loss_is_on_the_device_of_the_network(name):
    method = methods.parse({"name": name, "first_stage": 0} if name == "dat" else name)
    model, count = conv_net(), len(method.branches)
    given = replace(context(), memory={"steps": 2})
    x, y = images().repeat(count, 1, 1, 1), labels().repeat(count)
    with torch.device("meta"):  # where a tensor goes that is made without a device
        loss, parts = method.objective(model, x, y, given)
    assert {loss.device.type, *(part.device.type for part in parts.values())} == {"cpu"}


def test_at_is_cross_entropy_on_the_negatives():
    model, method = deterministic(), methods.parse("at")
    loss, _ = method.objective(deterministic(), images(), labels(), context())
    negative = method.negatives.draw(model, images(), labels(), context())
    assert loss.item() == pytest.approx(cross_entropy(model(negative), labels()).item())


def test_trades_is_the_reference_formula():
    model, method = deterministic(), methods.parse({"name": "trades", "beta": 4.0})
    negative = method.negatives.draw(model, images(), labels(), context())
    clean, moved = model(images()), model(negative)
    robust = kl_div(moved.log_softmax(1), softmax(clean, 1), reduction="sum") / len(clean)
    expected = cross_entropy(clean, labels()) + 4.0 * robust
    loss, parts = method.objective(deterministic(), images(), labels(), context())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() == pytest.approx((parts["natural"] + 4.0 * parts["robust"]).item(), rel=1e-5)


def test_trades_without_beta_is_standard_training():
    given = images(), labels(), context()
    standard, _ = methods.parse("standard").objective(deterministic(), *given)
    trades, _ = methods.parse({"name": "trades", "beta": 0}).objective(deterministic(), *given)
    assert trades.item() == pytest.approx(standard.item())


def test_eps_grows_over_the_warm_up():
    method = methods.parse({"name": "at", "eps_warmup": 4})
    radii = [method.threat_at(THREAT, epoch).eps for epoch in (0, 1, 3.5, 4, 9)]
    assert radii == pytest.approx([0, 0.025, 0.0875, 0.1, 0.1])


def test_gradient_evaluations_count_sampler_and_weights():
    counts = {name: methods.parse(name).cost(context()) for name in methods.names()}
    supervised = {"standard": 1, "at": 11, "trades": 12, "jem": 22, "cem": 15, "knn": 0}
    supervised |= {"mart": 12, "gkl": 12, "weat": 12, "ratio": 10 + 20 + 2, "eb-jdat": 5 + 10 + 4}
    supervised |= {"cem-b": 10 + 5 + 3}
    unlabelled = {"infonce": 2, "adv-infonce": 24, "np-jem": 23}
    assert counts == {**supervised, **unlabelled, "dat": 11}
    later = replace(context(), epoch=10, memory={"steps": 40})
    assert methods.parse("dat").cost(later) == 10 + 1 + 40 + 2


OLD_DAT = {
    "name": "dat",
    "contrast": {"name": "sgld", "start": "noise", "steps": 12, "direction": "l2", "noise": 0.0},
    "own_batch": False,
    "curriculum": "epoch",
    "first_steps": 5,
    "more_steps": 5,
    "separable": 0.9,
}


def test_dat_is_at_first_and_then_tells_data_from_samples():
    x, y = torch.cat([images(), images()]), torch.cat([labels(), labels()])
    negatives = {"steps": 2, "start": "data"}
    dat = methods.parse({"name": "dat", "negatives": negatives, "first_stage": 1})
    at = methods.parse({"name": "at", "negatives": negatives})
    assert torch.equal(
        dat.objective(deterministic(), x, y, context())[0],
        at.objective(deterministic(), images(), labels(), context())[0],
    )
    model, later = conv_net(), replace(context(), epoch=1, memory={"steps": 3})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss, parts = dat.objective(model.train(), x, y, later)
    loss.backward()
    assert loss.item() == pytest.approx((parts["robust"] + parts["told"] / 2).item(), rel=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_dats_binary_part_is_the_mean_over_data_and_samples_of_their_own_batch():
    dat = methods.parse({"name": "dat", "first_stage": 0})
    model, y = deterministic(), torch.cat([labels(), labels().flip(0)])
    x = torch.cat([images(), images().flip(0)])
    drawn = dat.draw(model, x, y, replace(context(), memory={"steps": 2}))
    assert torch.equal(drawn["x"], images().flip(0))
    loss, parts = dat.loss(model, drawn, y, context())
    logits = [model(drawn[name]) for name in ("x", "sampled")]
    energies = torch.cat(logits).logsumexp(1)
    truth = torch.cat([torch.ones(16), torch.zeros(16)])
    expected = binary_cross_entropy_with_logits(energies, truth)
    expected = expected + cross_entropy(model(drawn["attacked"]), labels())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (one.gather(1, y[16:, None])[:, 0].detach() for one in logits)
    area = roc_auc_score(truth, torch.cat([ours, theirs]))
    assert parts["auc"].item() == pytest.approx(area, abs=1e-6)


def test_dats_samples_ascend_the_logit_of_the_label_from_no_step_on():
    dat, model = methods.parse({"name": "dat", "first_stage": 0}), conv_net()
    y = labels().repeat(2)
    drawn = [
        dat.draw(model, images().repeat(2, 1, 1, 1), y, replace(context(), memory={"steps": n}))
        for n in (0, 4)
    ]
    start, moved = (one["sampled"] for one in drawn)
    assert torch.equal(start, uniform(start.shape, context().generator))
    before, after = (model.eval()(x).gather(1, labels()[:, None]) for x in (start, moved))
    assert (after > before).all()


def test_dat_raises_its_steps_within_an_epoch_up_to_their_maximum():
    settings = {"contrast": {"start": "noise", "steps": 2}, "window": 30}
    dat, memory = methods.parse({"name": "dat", **settings}), {}
    for value in (0.5, 0.9, 0.9, 0.9, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9):
        dat.learn(memory, {"auc": torch.tensor(value)}, 10)
    assert memory["steps"] == 2
    assert dat.steps_at(replace(context(), epoch=dat.first_stage, memory=memory)) == 2


def test_the_other_curriculum_takes_more_steps_after_an_epoch():
    dat = methods.parse({**OLD_DAT, "first_stage": 2})
    rows = [{}, {}, {"separated": 0.95}, {"separated": 0.5}, {"separated": 0.9}, {"separated": 1.0}]
    contexts = [replace(context(), history=rows[:n], epoch=n) for n in range(len(rows) + 1)]
    assert [dat.steps_at(one) for one in contexts] == [0, 0, 5, 10, 10, 12, 12]


CHAINS = {"start": "noise", "steps": 2}


def test_cem_b_is_known_methods_at_its_limits():
    given = images(), labels()
    cases = [
        ({"weight": 0}, {"name": "at"}),
        (
            {"weight": 0, "beta": 3, "negatives": {"name": "trades"}},
            {"name": "trades", "beta": 3},
        ),
        ({}, {"name": "dat", "own_batch": False, "first_stage": 0, "negatives": {"name": "pgd"}}),
    ]
    for ours, theirs in cases:
        method = methods.parse({"name": "cem-b", "contrast": CHAINS, **ours})
        known = methods.parse(
            theirs | ({"contrast": CHAINS, "first_steps": 2} if theirs["name"] == "dat" else {})
        )
        first, second = (
            one.objective(deterministic().eval(), *given, context())[0] for one in (method, known)
        )
        assert first.item() == pytest.approx(second.item(), rel=1e-6)


def test_what_a_method_would_not_use_is_named():
    with pytest.raises(ConfigError, match="density_augment: needs own_batch: true"):
        methods.parse({"name": "jem", "density_augment": {"crop": 2}})
    both = {"own_batch": False, "density_augment": {"crop": 2}}
    with pytest.raises(ConfigError, match="density_augment: needs own_batch: true"):
        methods.parse({"name": "dat", **both})
    dlr = methods.parse({"name": "at", "negatives": {"loss": "dlr", "steps": 1}})
    with pytest.raises(CembenchError, match="loss dlr needs three classes; take margin"):
        dlr.objective(conv_net(classes=2), images(), labels() % 2, context())


@pytest.mark.parametrize("curriculum", ["auc", "epoch"])
def test_dat_never_takes_more_steps_than_its_maximum(curriculum):
    settings = {"first_stage": 0, "first_steps": 9, "contrast": {"steps": 3}}
    dat = methods.parse({"name": "dat", "curriculum": curriculum, **settings})
    assert dat.steps_at(context()) == 3
