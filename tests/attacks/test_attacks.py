"""Evaluation attacks against closed forms, peers, and networks that misbehave."""

from itertools import product
from typing import ClassVar

import numpy as np
import pyautoattack
import pytest
import torch
from torch import nn

from cembench.attacks import Attack, Target, attacks
from cembench.attacks.autoattack import AutoAttack
from cembench.attacks.pgd import PGDAttack
from cembench.attacks.verdict import verify
from cembench.energy import potentials
from cembench.energy.norms import Linf
from cembench.energy.threat import Threat
from cembench.evaluation.measures.counts import count
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.models.checkpoint import load_checkpoint
from cembench.util.errors import CembenchError, ModelError
from tests.conftest import Linear, conv_net, images, labels
from tests.support.attacks import THREATS, assert_untouched, fingerprint, linear_case, run, split_of


@pytest.mark.parametrize(
    ("classes", "norm"),
    [*product([2, 3, 4, 6, 12], ["linf", "l2"]), (2, "l1"), (6, "l1")],
)
def test_linear_networks_are_broken_exactly_where_the_closed_form_says(
    classes, norm, short_autoattack
):
    model, split, distance = linear_case(classes, norm)
    threat = Threat(norm=norm, eps=float(distance.median()))
    clear = ((distance - threat.eps).abs() > 0.02 * threat.eps).numpy()
    table = run(model, split, threat, "autoattack", {"name": "pgd", "steps": 40, "restarts": 2})
    expected = (distance < threat.eps).numpy()
    assert threat.eps < (1 if norm == "l1" else 0.3) and 0.4 < expected.mean() < 0.6
    assert (table["autoattack_broken"].to_numpy() == expected)[clear].all()
    assert not (table["pgd_broken"].to_numpy() & ~expected)[clear].any()
    if classes == 2:
        least = 0.9 if norm == "l1" else 1  # its steps are spread over several values
        assert (table["pgd_broken"].to_numpy() == expected)[clear].mean() >= least


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("loss", "classes"), [("margin", 2), ("margin", 6), ("probability-margin", 6), ("dlr", 6)]
)
def test_margin_attacks_break_linear_networks_where_the_closed_form_says(loss, classes, norm):
    model, split, distance = linear_case(classes, norm)
    threat = Threat(norm=norm, eps=float(distance.median()))
    clear = ((distance - threat.eps).abs() > 0.02 * threat.eps).numpy()
    attack = {"name": "pgd", "loss": loss, "steps": 40, "restarts": 3}
    broken = run(model, split, threat, attack)["pgd_broken"].to_numpy()
    expected = (distance < threat.eps).numpy()
    assert not (broken & ~expected)[clear].any()
    assert (broken == expected)[clear].mean() > (0.99 if classes == 2 else 0.95)


def test_a_probability_margin_survives_logits_on_which_the_cross_entropy_is_flat():
    """At a scale of 1000 the softmax of float32 saturates: only differences of logits are left."""
    model, split, distance = linear_case(6, "linf")
    model.weight.data, model.bias.data = 1000 * model.weight.data, 1000 * model.bias.data
    threat = Threat(norm="linf", eps=float(distance.median()))
    attack = {"name": "pgd", "steps": 40, "restarts": 2}
    table = run(model, split, threat, attack, {**attack, "loss": "margin", "label": "cw"})
    assert table["cw_broken"].mean() > 0.4 > table["pgd_broken"].mean()


def test_a_search_returns_the_iterate_with_the_largest_loss_of_its_own():
    model, split, distance = linear_case(6, "linf")
    threat = Threat(norm="linf", eps=0.2 * float(distance.min()))
    x, y = split.pixels(), split.labels
    losses = ("cross-entropy", "margin", "probability-margin", "dlr")
    target = Target.of(model, threat, classes=6)
    found = {}
    for loss in losses:
        [(_, propose)] = PGDAttack(steps=20, loss=loss).stages(target)
        found[loss] = model(propose(x, y))
    for loss in losses:
        value = potentials.LOSSES[loss]
        mine = value(found[loss], y)
        assert all((mine >= value(found[other], y) - 1e-2).all() for other in losses)
        assert (mine > value(model(x), y)).all()


def test_the_loss_of_an_attack_shows_in_its_settings_only_where_it_was_chosen():
    assert PGDAttack().dump() == PGDAttack(loss="cross-entropy").dump()
    assert "loss" not in PGDAttack().dump()
    assert PGDAttack(loss="margin").dump()["loss"] == "margin"
    model, split, _ = linear_case(2, "linf")
    with pytest.raises(CembenchError, match="loss dlr needs three classes"):
        run(model, split, Threat(norm="linf", eps=0.1), {"name": "pgd", "loss": "dlr"})


@pytest.mark.parametrize(
    "threat",
    [Threat(norm="linf", eps=0.12), Threat(norm="l2", eps=0.5), Threat(norm="l1", eps=2)],
    ids=str,
)
def test_autoattack_gives_the_official_verdicts(trained, threat, short_autoattack):
    model, metadata = load_checkpoint(trained)
    data = metadata.data.load("test")
    split = data.take(torch.arange(24))
    table = run(model, split, threat, "autoattack", seed=7, batch_size=24)
    norm = threat.ball.library_name
    official = pyautoattack.AutoAttack(model, norm=norm, eps=threat.eps, seed=7)
    adversarial, _ = official.run_standard_evaluation(split.pixels(), split.labels, batch_size=24)
    theirs = (model(adversarial).argmax(1) != split.labels).numpy()
    clean_wrong = (table["clean_pred"] != table["label"]).to_numpy()
    ours = table["autoattack_broken"].to_numpy() | clean_wrong
    assert (ours == theirs).all() and 0 < ours.mean() < 1
    assert set(table.loc[table["autoattack_broken"], "autoattack_by"]) <= {
        "apgd-ce",
        "apgd-t",
        "fab-t",
        "square",
    }


def test_the_official_attacks_run_with_their_official_settings(monkeypatch):
    made, threat, model = [], THREATS[0], conv_net()
    official = pyautoattack.AutoAttack

    def make(*args, **options):
        made.append(official(*args, **options))
        return made[-1]

    monkeypatch.setattr(pyautoattack, "AutoAttack", make)
    stages = dict(AutoAttack().stages(Target.of(model, threat, classes=10, seed=7)))
    stages["apgd-ce"](images(2), labels(2))
    (ours,) = made
    options = {"norm": threat.ball.library_name, "eps": threat.eps, "device": images().device}
    theirs = official(model, seed=7, **options)
    theirs.fab.targeted = True  # as its run_standard_evaluation sets it
    for name in ("apgd", "apgd_targeted", "fab", "square"):
        expected = plain_settings(getattr(theirs, name))
        assert expected.items() <= plain_settings(getattr(ours, name)).items() and expected


def test_the_other_versions_of_autoattack_have_names_of_their_own():
    target = Target.of(conv_net(), THREATS[0], classes=10)
    official = pyautoattack.AutoAttack(conv_net(), eps=0.1, version="plus")
    plus = AutoAttack(version="plus")
    assert plus.title == "autoattack-plus" and plus.under("fast") is plus
    assert [name for name, _ in plus.stages(target)] == official.attacks_to_run
    few = Target.of(conv_net(classes=2), THREATS[0], classes=2)
    assert [name for name, _ in plus.stages(few)] == ["apgd-ce", "fab", "square", "fab-t"]
    custom = AutoAttack(version="custom", attacks=["fab", "apgd-ce"])
    assert custom.title == "autoattack-custom"
    stages = dict(custom.stages(target))
    assert list(stages) == ["fab", "apgd-ce"]
    x = images(3)
    y = conv_net().eval()(x).argmax(1)
    assert stages["fab"](x, y).shape == x.shape
    for wrong in ({"version": "custom"}, {"attacks": ["fab"]}):
        with pytest.raises(CembenchError, match="version custom, and no other, takes attacks"):
            AutoAttack.parse(wrong)
    with pytest.raises(CembenchError, match="the label 'autoattack-plus' is taken"):
        Protocol.parse({"name": "t", "attacks": [{"name": "pgd", "label": "autoattack-plus"}]})


def plain_settings(attack):
    return {k: v for k, v in vars(attack).items() if isinstance(v, str | int | float)}


EVERY_ATTACK = [
    "autoattack",
    {"name": "pgd", "steps": 3},
    {"name": "torchattacks", "attack": "FGSM"},
    {"name": "torchattacks", "attack": "CW", "args": {"steps": 5}},
    {"name": "torchattacks", "attack": "PGDL2", "args": {"steps": 3, "alpha": "1/10"}},
    {"name": "torchattacks", "attack": "Pixle", "args": {"restarts": 2, "max_iterations": 2}},
]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_attacks_leave_the_network_and_the_generators_as_found(threat, short_autoattack):
    model = conv_net(classes=4)
    model[3].eval()
    before = fingerprint(model)
    known = [attacks.parse(one) for one in EVERY_ATTACK]
    used = [one for one in known if one.norms is None or threat.norm in one.norms]
    table = run(model, split_of(images(6), labels(6, 4), 4), threat, *used)
    assert_untouched(before, model)
    counted = [c.removesuffix("_broken") for c in table if c.endswith("_broken")]
    assert counted == [one.title for one in used if one.minimises in (None, threat.norm)]
    assert "cw_size" in table and len(counted) > 1
    for name in counted:
        norms = table.loc[table[f"{name}_broken"], f"{name}_norm"]
        assert (norms <= threat.eps + 1e-5).all()
        assert not (table[f"{name}_broken_8bit"] & ~table[f"{name}_broken"]).any()
        assert ((table[f"{name}_by"] != "") == table[f"{name}_broken"]).all()


class Meddler(Attack):
    """An attack that leaves the network in training mode and with gradients."""

    name: ClassVar[str] = "meddler"

    def stages(self, target):
        def propose(x, y):
            target.model.train().requires_grad_(True)
            target.model(x).sum().backward()
            return x

        return [("meddle", propose)]


@pytest.mark.parametrize(
    "first", [{"name": "torchattacks", "attack": "FGSM"}, "autoattack", Meddler()], ids=str
)
def test_verdicts_do_not_depend_on_the_attacks_before(trained, first, short_autoattack):
    model, metadata = load_checkpoint(trained)
    data, threat = metadata.data.load("test").take(torch.arange(48)), Threat(norm="linf", eps=0.15)
    model.train()
    attack = {"name": "pgd", "steps": 5}
    alone, after = run(model, data, threat, attack), run(model, data, threat, first, attack)
    for column in ("clean_pred", "pgd_broken", "pgd_norm"):
        assert alone[column].equals(after[column])
    assert all(module.training for module in model.modules())


def test_a_verdict_depends_on_its_chunk_alone(trained):
    model, metadata = load_checkpoint(trained)
    data, threat = metadata.data.load("test"), Threat(norm="linf", eps=0.2)
    attack = {"name": "pgd", "steps": 5}
    whole = run(model, data.take(torch.arange(96)), threat, attack, batch_size=32)
    part = run(model, data.take(torch.arange(32, 64)), threat, attack, batch_size=32)
    for column in ("pgd_broken", "pgd_norm"):
        assert whole[column][32:64].reset_index(drop=True).equals(part[column])


class Broken(nn.Module):
    """Returns `bad` logits for images brighter than the clean ones."""

    def __init__(self, bad):
        super().__init__()
        self.net = Linear(64, 10)
        self.bad = bad

    def forward(self, x):
        out = self.net(x)
        return self.bad(out) if x.max() > 0.8 else out


@pytest.mark.parametrize(
    "attack", ["autoattack", "pgd", {"name": "torchattacks", "attack": "FGSM"}]
)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda out: out * torch.nan, "not finite"),
        (lambda out: out * torch.inf, "not finite"),
        (lambda out: out[:, :9], r"returned \(\d+, 9\), expected"),
        (lambda out: (out, out), "returned tuple"),
    ],
    ids=["nan", "inf", "too few", "tuple"],
)
def test_a_network_that_misbehaves_under_attack_is_an_error_not_robust(bad, message, attack):
    x = 0.7 * images(8)
    model = Broken(bad)
    split = split_of(x, model.net((x * 255).round() / 255).argmax(1), 10)
    with pytest.raises(ModelError, match=message):
        run(model, split, Threat(norm="linf", eps=0.3), attack)


def test_proposals_outside_the_rules_break_nothing():
    model, x = Linear(64, 10), images(4)
    y = model(x).argmax(1)
    wild = {"far": 1 - x, "out of range": x - 2, "nan": x * torch.nan}
    for proposed in wild.values():
        verdict = verify(model, x, proposed, y, Linf(0.01))
        assert not verdict.success.any() and not verdict.success_8bit.any()
    near = Linf(0.01).project(x + torch.randn(x.shape), x)
    assert (verify(model, x, near, y, Linf(0.01)).size <= 0.01 + 1e-6).all()


def test_eight_bit_figures_are_counted_on_rounded_images(trained):
    model, metadata = load_checkpoint(trained)
    data, threat = metadata.data.load("test").take(torch.arange(64)), Threat(norm="linf", eps=0.15)
    table = run(model, data, threat, {"name": "pgd", "steps": 10})
    figure = count(table, ["pgd"], {})["pgd"]
    assert figure.correct <= figure.correct_8bit <= figure.images
    # PGD keeps iterates that survive rounding, so few of its images are lost by it.
    assert figure.correct_8bit - figure.correct <= 0.1 * figure.images
    assert data.levels == 16 and threat.ball.eps == 0.15


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"attack": "AutoAttack"}, "no usable torchattacks.AutoAttack"),
        ({"attack": "PGDX"}, "did you mean 'PGD"),
        ({"attack": "PGD", "args": {"epsilon": 1}}, "unexpected keyword argument 'epsilon'"),
    ],
)
def test_unusable_attacks_are_refused_before_anything_runs(attack, message):
    with pytest.raises(CembenchError, match=message):
        Protocol.parse({"name": "t", "attacks": [{"name": "torchattacks", **attack}]})


def test_an_attack_that_fails_is_named():
    split = split_of(images(4), conv_net().eval()((images(4) * 255).round() / 255).argmax(1), 10)
    attack = {"name": "torchattacks", "attack": "FAB", "args": {"norm": "L1"}}
    with pytest.raises(CembenchError, match=r"attack fab, stage fab, failed"):
        run(conv_net(), split, Threat(norm="linf", eps=0.1), attack)


def test_protocols_are_strict_and_say_what_they_are():
    standard, quick = load_protocol("standard"), load_protocol("quick")
    assert standard.limit is None and quick.limit == 128
    assert [attack.title for attack in quick.attacks] == ["fgsm", "pgd", "autoattack-sampled"]
    limited = load_protocol("quick", limit=9)
    assert (limited.name, limited.limit) == ("quick-n9", 9) and limited.digest != quick.digest
    changed = load_protocol("quick", ["threat.eps=4/255"])
    assert changed.name == f"quick-{changed.digest[:6]}"
    assert changed.threat.over(Threat(norm="l2", eps=1.0)) == Threat(norm="l2", eps=4 / 255)
    for overrides, message in (
        (["attacks=[pgd, pgd]"], "the label 'pgd' is taken"),
        (["attacks=[{name: pgd, label: autoattack}]"], "the label 'autoattack' is taken"),
        (["attacks=[{name: autoattack, label: aa}]"], "attacks.0.label"),
        (["attacks=[{name: pgd, step: 3}]"], "attacks.0.step: unknown key; did you mean 'steps'"),
        (["batchsize=3"], "did you mean 'batch_size'"),
        (["threat.eps=-1"], "threat.eps"),
    ):
        with pytest.raises(CembenchError, match=message):
            load_protocol("quick", overrides)
    with pytest.raises(CembenchError, match="did you mean 'standard'"):
        load_protocol("standart")


def test_labels_of_images_are_never_filtered(trained):
    model, metadata = load_checkpoint(trained)
    data = metadata.data.load("test").take(torch.arange(40))
    table = run(
        model, data, Threat(norm="linf", eps=0.1), {"name": "pgd", "steps": 2}, batch_size=7
    )
    assert np.array_equal(table["label"], data.labels.numpy()) and len(table) == 40
