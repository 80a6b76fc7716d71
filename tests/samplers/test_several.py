"""Negatives within several threat models: rules, limits, costs, what a training keeps of them."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import cembench as cb
from cembench.energy.norms import NORMS
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import parse_protocol
from cembench.methods import methods
from cembench.models.checkpoint import load_checkpoint
from cembench.samplers import SamplerContext, samplers
from cembench.samplers.several import ERRORS
from cembench.training.ddp import batch_generator
from cembench.training.run_folder import RunFolder
from cembench.training.train import train
from cembench.training.trainer import Trainer
from cembench.training.validation import validate
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.rng import generator_of
from tests.conftest import Linear, conv_net, experiment, images, labels
from tests.support.divergence import stopping_in_step
from tests.support.ranks import together
from tests.support.stores import FewDigits

LINF, L2 = {"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.5}
BOTH = [LINF, L2]
RULES = ["max", "avg", "sat", "e-at"]


def context(threat=LINF, memory=None, seed=0):
    given = {} if memory is None else {"memory": memory}
    return SamplerContext(Threat(**threat), generator_of(seed, "cpu"), **given)


def several(rule, threats=None, **attack):
    return samplers.parse(
        {"name": rule, "threats": threats or BOTH, "attack": {"steps": 3, **attack}}
    )


def sizes(moved, x):
    return {name: ball(1.0).size(moved - x) for name, ball in NORMS.items()}


@pytest.mark.parametrize("name", ["at", "trades", "mart"])
@pytest.mark.parametrize("rule", RULES)
def test_one_threat_model_is_plain_training_bit_for_bit(rule, name):
    x, y, found = images(), labels(), {}
    for negatives in ({"name": "pgd", "steps": 3}, several(rule, [L2])):
        model = conv_net()
        method = methods.parse({"name": name, "negatives": negatives, "weights": "awp"})
        loss, _ = method.objective(model, x, y, context(L2))
        loss.backward()
        found[str(negatives)] = [loss, *(p.grad for p in model.parameters())]
    plain, within = found.values()
    assert all(torch.equal(a, b) for a, b in zip(plain, within, strict=True))


def test_on_a_linear_network_each_attack_finds_its_closed_form_and_max_the_higher_one():
    model, y = Linear(64, 2).double(), torch.arange(16) % 2
    x = 0.4 + 0.2 * images().double()
    own, other = model.weight[y], model.weight[1 - y]
    lost = {"linf": 0.1 * (own - other).abs().sum(1), "l2": 0.5 * (own - other).norm(dim=1)}
    margin = (model(x)[torch.arange(16), y] - model(x)[torch.arange(16), 1 - y]).detach()
    exact = torch.stack([torch.nn.functional.softplus(lost[n] - margin) for n in ("linf", "l2")])
    drawn = several("max", start="data", steps=9).draw(model, x, y, context())
    assert torch.allclose(cross_entropy(model(drawn), y, reduction="none"), exact.amax(0))
    both = several("avg", start="data", steps=9).draw(model, x, y, context())
    losses = cross_entropy(model(both), y.repeat(2), reduction="none").unflatten(0, (2, -1))
    assert torch.allclose(losses, exact)


@pytest.mark.parametrize("attack", ["pgd", "trades"])
def test_max_takes_for_each_image_the_negative_whose_loss_is_highest(attack):
    model, x, y = conv_net().eval(), images(), labels()
    even = [{"norm": "linf", "eps": 0.075}, L2]  # neither reaches further than the other
    each = several("avg", even, name=attack).draw(model, x, y, context()).unflatten(0, (2, -1))
    best = several("max", even, name=attack).draw(model, x, y, context())
    raised = samplers.parse(attack).raised(model, x)
    losses = torch.stack([raised(model(one), y) for one in each])
    assert torch.equal(raised(model(best), y), losses.amax(0))
    chosen = (best == each).flatten(2).all(2)
    assert chosen.any(0).all() and chosen.any(1).all()


def test_avg_is_the_mean_of_the_losses_under_each_threat_model():
    x, y = images(), labels()
    model = conv_net().eval()
    for name, weights in (("at", None), ("trades", None), ("gkl", None)):
        method = methods.parse({"name": name, "negatives": several("avg"), "weights": weights})
        drawn = method.draw(model, x, y, context())
        assert len(drawn["attacked"]) == 2 * len(x)
        losses = [
            method.loss(model, {"x": x, "attacked": one}, y, context())[0]
            for one in drawn["attacked"].chunk(2)
        ]
        loss, _ = method.objective(model, x, y, context())
        assert torch.allclose(loss, sum(losses) / 2)


def test_sat_draws_every_threat_model_and_stays_in_its_ball():
    model, x, y = conv_net(), images(), labels()
    state = context()
    drawn = [sizes(several("sat").draw(model, x, y, state), x) for _ in range(30)]
    inf = [one for one in drawn if one["linf"].max() <= 0.1 + 1e-6]
    two = [one for one in drawn if one["linf"].max() > 0.1 + 1e-6]
    assert 8 <= len(inf) <= 22 and all(one["l2"].max() <= 0.5 + 1e-6 for one in two)


def test_e_at_attacks_extreme_norms_as_often_as_they_succeed(monkeypatch):
    model, x, y = conv_net(), images(), labels()
    middle = several("e-at", [LINF, {"norm": "l2", "eps": 0.3}])
    assert [threat.norm for threat in middle.extremes] == ["l2", "linf"]
    memory = {ERRORS: {"linf-0.1": (30.0, 100), "l2-0.5": (10.0, 100)}}
    drawn = []
    monkeypatch.setattr(
        type(samplers.parse("pgd")),
        "draw",
        lambda self, model, x, y, context: drawn.append(context.threat.norm) or x,
    )
    state = context(memory=memory)
    for _ in range(400):
        memory[ERRORS] = {"linf-0.1": (30.0, 100), "l2-0.5": (10.0, 100)}
        several("e-at").draw(model, x, y, state)
    assert drawn.count("linf") == pytest.approx(300, abs=40)
    never = context(memory={ERRORS: {"linf-0.1": (0.0, 9), "l2-0.5": (0.0, 9)}}, seed=1)
    drawn.clear()
    for _ in range(100):
        never.memory[ERRORS] = {"linf-0.1": (0.0, 9), "l2-0.5": (0.0, 9)}
        several("e-at").draw(model, x, y, never)
    assert drawn.count("linf") == pytest.approx(50, abs=20)


def test_e_at_remembers_the_share_of_images_that_its_attacks_break():
    model, x, y, memory = conv_net(), images(), labels(), {}
    state = context(memory=memory)
    moved = [several("e-at").draw(model, x, y, state) for _ in range(4)]
    model.eval()
    wrong = sum(float((model(one).argmax(1) != y).double().mean()) for one in moved)
    assert sum(total for total, _ in memory[ERRORS].values()) == pytest.approx(wrong)
    assert sum(batches for _, batches in memory[ERRORS].values()) == 4


def test_steps_and_radii_follow_each_ball_and_the_warm_up():
    model, x, y = conv_net(), 0.3 + 0.4 * images(), labels()
    half = replace(context(), growth=0.5)
    inf, two = several("avg").draw(model, x, y, half).chunk(2)
    assert sizes(inf, x)["linf"].max() == pytest.approx(0.05, rel=1e-4)
    assert sizes(two, x)["l2"].max() == pytest.approx(0.25, rel=1e-4)


MISTAKES = [
    ({"name": "max"}, r"threats: required"),
    ({"name": "max", "threats": []}, r"threats: list should have at least 1 item"),
    ({"name": "sat", "threats": [LINF, LINF]}, r"threats: one of them is there twice"),
    ({"name": "avg", "threats": BOTH, "attack": "sgld"}, r"attack: sgld stays in no ball"),
    ({"name": "avg", "threats": BOTH, "steps": 3}, r"steps: unknown key"),
    (
        {"name": "e-at", "threats": BOTH, "attack": {"step_size": 0.1}},
        r"attack\.step_size: steps of different norms do not compare",
    ),
]


@pytest.mark.parametrize(("settings", "words"), MISTAKES)
def test_mistakes_are_named(settings, words):
    with pytest.raises(ConfigError, match=rf"negatives\.{words}"):
        methods.parse({"name": "at", "negatives": settings})


def test_methods_without_attacked_images_refuse_several_threat_models():
    for method, key in (("jem", "negatives"), ("ratio", "contrast")):
        with pytest.raises(ConfigError, match=rf"{key}: max is for `negatives` of methods that"):
            methods.parse({"name": method, key: {"name": "max", "threats": BOTH}})
    with pytest.raises(ConfigError, match=r"threats\.1\.eps: 8 reaches every|eps: 8"):
        wide = [LINF, {"norm": "linf", "eps": 8}]
        experiment(method={"name": "at", "negatives": {"name": "max", "threats": wide}})


def test_the_first_threat_model_is_that_of_the_experiment_unless_given():
    method = {"name": "at", "negatives": {"name": "max", "threats": [L2, LINF]}}
    assert experiment(method=method).threat == Threat(**L2)
    assert experiment(method=method, threat={"eps": 0.25}).threat == Threat(norm="l2", eps=0.25)
    given = experiment(method=method, threat=LINF)
    assert given.threat == Threat(**LINF) and given.threats == (Threat(**L2), Threat(**LINF))


def test_the_epoch_is_selected_by_the_union_over_all_threat_models():
    method = {"name": "at", "negatives": {"name": "avg", "threats": BOTH}}
    few = {"validation": {"images": 64, "steps": 3}}
    trainer = Trainer(experiment(method=method), torch.device("cpu"))

    def accuracy(**changes):
        found = validate(trainer.model, trainer.held, experiment(**changes, **few), 64)
        return found["val_pgd_acc"]

    union = accuracy(method=method)
    assert union <= min(accuracy(threat=LINF), accuracy(threat=L2))
    one = {"name": "at", "negatives": {"name": "avg", "threats": [L2]}}
    assert accuracy(method=one) == accuracy(threat=L2)


E_AT = {"name": "at", "negatives": {"name": "e-at", "threats": BOTH, "attack": {"steps": 2}}}


def test_e_at_resumes_within_an_epoch_with_its_rates(tmp_path, monkeypatch):
    few = {"images": 16, "steps": 1}
    sizes = {"data": FewDigits.name, "batch_size": 32, "epochs": 2, "validation": few}
    config = experiment(method=E_AT, save_every=1e-9, **sizes)
    straight = train(config, tmp_path / "straight")
    monkeypatch.setattr(Trainer, "step", stopping_in_step(3))
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt):
            train(config, tmp_path / "cut", resume=True)
    monkeypatch.undo()
    resumed = train(config, tmp_path / "cut", resume=True)
    assert resumed.read_bytes() == straight.read_bytes()
    kept = [RunFolder(path.parent).load().memory[ERRORS] for path in (straight, resumed)]
    assert kept[0] == kept[1] and len(kept[0]) == 2
    assert load_checkpoint(straight)[1].threat == Threat(**LINF)


def steps_taken(settings):
    """Take a few steps, and return their losses and the rates of E-AT."""
    trainer = Trainer(settings, torch.device("cpu"))
    trainer.wrap_ddp()
    generator = batch_generator(0, trainer.device, trainer.world)
    order = torch.arange(4 * trainer.batch)[None]
    read = enumerate(trainer.feed.read(order, 0))
    losses = [float(trainer.step(step, one, generator)["loss"]) for step, one in read]
    return losses, trainer.memory[ERRORS]


def test_processes_draw_the_same_threat_models_and_agree_on_the_rates(tmp_path):
    settings = experiment(method=E_AT)
    alone, rates = steps_taken(settings)
    (first, theirs), second = together(tmp_path, lambda: steps_taken(settings))
    assert (first, theirs) == second
    assert first == pytest.approx(alone, rel=1e-2)
    assert {k: n for k, (_, n) in theirs.items()} == {k: n for k, (_, n) in rates.items()}


def test_training_starts_from_another_network_with_its_head(tmp_path, trained):
    start = {"checkpoint": str(trained), "head": "kept"}
    settings = {"optimizer": {"lr": 1e-6}, "epochs": 1, "seed": 1}
    path = train(experiment(method=E_AT, pretrained=start, **settings), tmp_path / "tuned")
    (tuned, metadata), (before, theirs) = load_checkpoint(path), load_checkpoint(trained)
    learned = zip(tuned.named_parameters(), before.parameters(), strict=True)
    assert all(torch.allclose(now, old, atol=1e-3) for (_, now), old in learned)
    assert metadata.method == "at+adv-finetune" and metadata.gradients > theirs.gradients
    other = experiment(data="digits", pretrained=start, method="infonce")
    with pytest.raises(CembenchError, match=r"its head is another one; leave out pretrained\.head"):
        train(other, tmp_path / "encoder")


def test_it_makes_negatives_and_no_samples(trained):
    plan = {"attacks": [], "samples": {"samplers": [{"name": "max", "threats": BOTH}]}}
    with pytest.raises(ConfigError, match=r"max draws no samples: it makes negatives"):
        parse_protocol(plan)
    with pytest.raises(CembenchError, match=r"max draws no samples"):
        cb.sample(trained, "max", 10, threats=[LINF])
