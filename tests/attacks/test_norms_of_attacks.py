"""Which norms attacks know, ℓ0, and radii of another norm's scale."""

import pytest
import torch

from cembench.attacks import attacks, knowing
from cembench.attacks.apgd_runs import RUNS
from cembench.attacks.autoattack import NORMS as AUTOATTACK
from cembench.attacks.fab import MOVES
from cembench.attacks.square import SEARCHES
from cembench.energy.norms import NORMS
from cembench.energy.threat import Threat
from cembench.util.errors import CembenchError
from tests.conftest import NOTHING, conv_net, images
from tests.support.attacks import linear_case, run, split_of


def test_autoattack_knows_the_norms_that_its_attacks_have_steps_for():
    assert set(RUNS) == set(MOVES) == set(SEARCHES) == AUTOATTACK


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_has_attacks_that_know_it(norm):
    known = knowing(norm)
    assert "pgd" in known and ("autoattack" in known) == (norm != "l0")
    assert ("sparse-rs" in known) == (norm == "l0")


@pytest.mark.parametrize(("attack", "norm"), [("autoattack", "l0"), ("sparse-rs", "linf")])
def test_an_attack_that_does_not_know_the_norm_is_refused(attack, norm):
    model, split, _ = linear_case(4, "linf")
    with pytest.raises(CembenchError, match=f"{attack} knows .*, not the norm {norm} .*: .*pgd"):
        run(model, split, Threat(norm=norm, eps=0.9), attack)


def test_commands_name_the_attacks_that_know_the_norm(cembench, copy):
    asked = ["threat={norm: l0, eps: 4}", "attacks=[autoattack]", "limit=4", *NOTHING[1:]]
    result = cembench("eval", copy, *asked)
    assert result.code == 2 and result.err.count("\n") == 1
    assert "knows l1, l2, linf, not the norm l0" in result.err
    assert "sparse-rs" in result.err
    curve = ["threat={norm: l2, eps: 1}", "curve={attack: sparse-rs}", "limit=4"]
    result = cembench("eval", copy, *NOTHING[:-1], *curve)
    assert result.code == 2 and "sparse-rs knows l0, not the norm l2" in result.err


def test_sparse_rs_finds_every_pixel_that_turns_a_linear_network():
    """With one pixel there are 64 places and two colours: the closed form tries them all."""
    model, split, _ = linear_case(3, "linf")
    x = split.pixels().flatten(1)
    model.bias.data[0] += 2  # so that some stand
    y = split.labels[:] = model(x).argmax(1)
    tried = torch.stack([one + torch.diag(c - one) for one in x for c in (0.0, 1.0)])
    moved = model(tried.flatten(0, 1)).argmax(1).reshape(len(x), -1)
    expected = (moved != y[:, None]).any(1)
    attack = {"name": "sparse-rs", "queries": 1500}
    table = run(model, split, Threat(norm="l0", eps=1), attack)
    assert 0.1 < expected.float().mean() < 0.9
    assert (table["sparse-rs_broken"].to_numpy() == expected.numpy()).mean() >= 0.97
    assert not (table["sparse-rs_broken"].to_numpy() & ~expected.numpy()).any()


def test_attacks_in_l0_change_no_more_pixels_than_they_may():
    model = conv_net(channels=3).eval()
    x = (images(24, 3) * 255).round() / 255
    split = split_of(x, model(x).argmax(1), 10)
    both = {"name": "sparse-rs", "queries": 100}, {"name": "pgd", "steps": 20}
    few, many = (run(model, split, Threat(norm="l0", eps=eps), *both) for eps in (2, 12))
    for table, eps in ((few, 2), (many, 12)):
        for title in ("sparse-rs", "pgd"):
            assert (table.loc[table[f"{title}_broken"], f"{title}_norm"] <= eps).all()
            assert (table[f"{title}_broken_8bit"] == table[f"{title}_broken"]).all()
    assert few["sparse-rs_broken"].sum() < many["sparse-rs_broken"].sum()
    none = run(model, split, Threat(norm="l0", eps=0.5), *both)
    assert not none["sparse-rs_broken"].any() and not none["pgd_broken"].any()


def test_sparse_rs_replaces_fewer_and_fewer_pixels():
    shares = [attacks.parse("sparse-rs").share(number) for number in range(0, 5000, 100)]
    assert shares[0] == 0.3 and shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0.3 / 20)


@pytest.mark.parametrize(
    ("norm", "eps", "odd"),
    [
        ("linf", 8 / 255, ""),
        ("linf", 0.6, "large in linf"),
        ("l2", 0.5, ""),
        ("l2", 8 / 255, "small in l2; customary are 0.5"),
        ("l2", 12, "large in l2"),
        ("l1", 12, ""),
        ("l1", 8 / 255, "small in l1; customary are 12"),
        ("l0", 24, ""),
        ("l0", 8 / 255, "small in l0"),
        ("l1", 0, ""),
    ],
)
def test_a_radius_of_another_norms_scale_is_warned_of(norm, eps, odd):
    found = NORMS[norm](eps).caution(3 * 32 * 32)
    assert odd in found and bool(found) == bool(odd)


def test_evaluation_and_record_warn_of_such_a_radius(cembench, copy, caplog):
    plan = ["threat={norm: l1, eps: 8/255}", "attacks=[{name: pgd, steps: 1}]", "limit=4"]
    result = cembench("eval", copy, *plan, *NOTHING[1:])
    text = "ε = 0.03137 is unusually small in l1; customary are 12"
    assert result.code == 0 and text in caplog.text
    [path] = (copy.parent / "eval").glob("*.json")
    assert "unusually small in l1" in path.read_text(encoding="utf-8")
