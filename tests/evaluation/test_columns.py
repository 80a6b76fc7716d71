"""Columns beside the accuracies: worst class, proper scores, attacked outside images, rates."""

import json
import math
import shutil

import pandas as pd
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import nn

from cembench.attacks import Target
from cembench.energy.threat import Threat
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures.counts import count
from cembench.evaluation.measures.density import proper_scores
from cembench.evaluation.measures.outside import attacked_scores, scores_of
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.record import load_record
from cembench.evaluation.throughput import forward_flops
from cembench.evaluation.verify import verify_record
from cembench.models.checkpoint import load_checkpoint
from cembench.reporting.leaderboard import build_boards
from cembench.util.errors import CembenchError
from tests.conftest import Linear, conv_net, images, labels
from tests.support.records import figure, record, touch

SAMPLES = "{count: 30, samplers: [{name: rcs, steps: 2}], extractor: {name: lite0, size: 32}}"
PLAN = [
    "attacks=[{name: pgd, steps: 3}]",
    "sanity=null",
    "curve=null",
    f"samples={SAMPLES}",
    "density={steps: 4, attack_outside: true}",
]


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A run with its history, and the path of a record with all evidence."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("columns") / "run")
    plan = load_protocol("quick", PLAN, limit=60)
    _, path = evaluate(run, plan, save_adversarial=True, save_samples=True)
    return path


def test_the_worst_class_is_the_one_with_the_lowest_share_of_survivors():
    table = pd.DataFrame(
        {
            "label": [0, 0, 1, 1, 1, 3],
            "clean_pred": [0, 0, 1, 1, 0, 3],
            "clean_8bit_pred": [0, 0, 1, 1, 0, 3],
            "pgd_broken": [True, True, False, True, False, True],
            "pgd_broken_8bit": [True, True, False, True, False, True],
            "pgd_by": ["pgd", "pgd", "", "pgd", "", "pgd"],
        }
    )
    figures = count(table, ["pgd"], {}, ["cat", "dog", "eel", "fox"])
    clean, pgd, worst = (figures[name].worst_class for name in ("clean", "pgd", "worst_case"))
    assert (clean.name, clean.correct, clean.images) == ("dog", 2, 3)
    assert (pgd.name, pgd.correct, pgd.images, pgd.accuracy) == ("cat", 0, 2, 0.0)
    assert worst == pgd
    assert count(table, ["pgd"], {})["pgd"].worst_class is None


def test_the_worst_class_under_the_attack_that_ranks_is_shown():
    found = figure(50).model_dump() | {"worst_class": {"name": "3", "correct": 2, "images": 8}}
    figures = {"clean": figure(90), "autoattack": found, "worst_case": found}
    (board,) = build_boards([record("a", figures=figures), record("b")])
    shown = dict(zip(board.shown["run"], board.shown["autoattack worst class ↑"], strict=True))
    assert shown == {"a": "25.0%", "b": "–"}
    assert board.table.set_index("run")["worst_case_worst_class_acc"]["a"] == 0.25
    assert not [c for c in build_boards([record("b")])[0].shown if "worst class" in c]


def test_proper_scores_are_those_of_scikit_learn():
    out, y = 3 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), labels(40, 4)
    p, scores = out.double().softmax(1).numpy(), proper_scores(out, y)
    assert float(scores["nll"].mean()) == pytest.approx(log_loss(y, p))
    binary = [brier_score_loss(y == k, p[:, k]) for k in range(4)]
    assert float(scores["brier"].mean()) == pytest.approx(sum(binary))
    huge = proper_scores(1e38 * torch.eye(3), torch.tensor([0, 1, 1]))
    assert huge["nll"].tolist() == [0, 0, pytest.approx(1e38)]
    assert huge["brier"].tolist() == [0, 0, 2]


def test_an_attack_reaches_the_largest_energy_of_the_ball_that_the_closed_form_gives():
    """LSE of two logits ±w·x grows along |w|: its maximum in the ℓ∞ ball is at a corner."""
    model = Linear(64, 2)
    model.weight.data[1], model.weight.data[0] = -model.weight.data[0], model.weight.data[0].clone()
    x, threat = 0.3 + 0.4 * images(6), Threat(norm="linf", eps=0.05)
    target = Target.of(model, threat, classes=2)
    reached = attacked_scores(target, x, steps=10)
    logit = model(x).abs().amax(1) + 0.05 * model.weight[0].abs().sum()
    torch.testing.assert_close(reached["lse"], torch.stack([logit, -logit], 1).logsumexp(1))
    torch.testing.assert_close(reached["confidence"], (2 * logit).sigmoid())
    _, before = scores_of(target, x)
    assert all((reached[key] >= before[key]).all() for key in reached)


def test_images_outside_are_harder_to_tell_when_they_are_attacked(evaluated):
    density = load_record(evaluated).density
    plain, attacked = density.outside["noise"], density.outside_attacked["noise"]
    assert set(attacked) == {"log_px", "max_softmax"}
    assert all(attacked[score].auroc < plain[score].auroc for score in attacked)
    assert list(density.separations) == ["noise", "noise-attacked"]
    (board, *_) = build_boards([load_record(evaluated)])
    row = board.table.iloc[0]
    assert row["auroc_log_px_noise-attacked"] == attacked["log_px"].auroc
    assert row["nll"] == density.nll.mean > 0 and 0 < row["brier"] == density.brier.mean < 2


def test_a_protocol_that_does_not_attack_outside_images_keeps_its_digest():
    plain, off, on = (
        Protocol.parse({"name": "p", "density": {**more}})
        for more in ({}, {"attack_outside": False}, {"attack_outside": True})
    )
    assert plain.digest == off.digest != on.digest
    folder = {"name": "folder", "root": "x", "alias": "y"}
    sets = {"name": "p", "density": {"outside": ["noise", folder]}}
    assert Protocol.parse(sets)
    sets["density"]["outside"].append({**folder, "alias": "y-attacked"})
    with pytest.raises(CembenchError, match="taken"):
        Protocol.parse(sets)


def test_the_cost_of_a_forward_pass_is_counted_on_a_copy():
    class Asked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.count = conv_net(), 0

        def forward(self, x):
            self.count += 1
            return self.net(x)

    model = Asked().eval()
    convolution, linear = 64 * 8 * 9, 8 * 64 * 10
    assert forward_flops(model, images(1)) == 2 * (convolution + linear)
    assert forward_flops(None, images(1)) is None
    assert forward_flops(nn.Flatten(), images(1)) is None
    assert forward_flops(conv_net(channels=3), images(1)) is None


def test_a_record_says_what_a_pass_costs_and_how_fast_images_were_read_and_drawn(evaluated):
    found, run = load_record(evaluated), evaluated.parent.parent
    model, metadata = load_checkpoint(run)
    assert found.flops == forward_flops(model.eval(), images(1))
    history = pd.read_csv(run / "history.csv")
    held_in = len(metadata.training_split()[0])
    read = 3 * (held_in - held_in % 128)
    assert found.train_images_per_second == pytest.approx(read / history["seconds"].sum(), 1e-3)
    assert found.sample_images_per_second["rcs-gaussian"] > 0
    robust, samples = build_boards([found])
    assert robust.table["flops"][0] == found.flops
    assert robust.table["train_images_per_second"][0] == found.train_images_per_second
    assert robust.table["rcs-gaussian_lite0@32_n30_images_per_second"][0] > 0
    assert samples.table["images_per_second"][0] > 0


def test_rates_and_what_earlier_versions_did_not_record_are_not_verified(evaluated):
    kept, values = evaluated.read_bytes(), json.loads(evaluated.read_bytes())
    density = {k: v for k, v in values["density"].items() if k not in ("nll", "brier")}
    figures = {name: found | {"worst_class": None} for name, found in values["figures"].items()}
    rates = {"sample_images_per_second/rcs-gaussian": 1e9, "train_images_per_second": 1e9}
    touch(evaluated, ("density", density), ("figures", figures), ("flops", 1), *rates.items())
    rows = verify_record(evaluated, evaluated.parent.parent)
    assert all(row.agrees for row in rows)
    evaluated.write_bytes(kept)


def test_new_columns_that_were_touched_up_are_found(evaluated):
    kept = evaluated.read_bytes()
    touches = {
        "density/nll/mean": (9.0, "density: nll.mean"),
        "figures/pgd/worst_class/images": (999, "intervals and stages: pgd.worst_class.images"),
        "density/outside_attacked/noise/log_px/auroc": (
            0.9,
            "density: outside_attacked.noise.log_px.auroc",
        ),
    }
    touch(evaluated, *((place, value) for place, (value, _) in touches.items()))
    rows = verify_record(evaluated, evaluated.parent.parent)
    differing = {row.figure for row in rows if not row.agrees}
    assert {figure for _, figure in touches.values()} <= differing
    evaluated.write_bytes(kept)


def test_a_table_of_an_earlier_version_agrees_with_its_runs_made_again(
    cembench, evaluated, tmp_path
):
    run = evaluated.parent.parent
    assert cembench("leaderboard", run, "--out", tmp_path).code == 0
    for name in ("digits-linf-0.125", "digits-samples-gaussian"):
        (path,) = tmp_path.glob(f"{name}.csv")
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        later = [c for c in table if "worst_class" in c or "per_second" in c]
        later += [c for c in ("nll", "brier", "flops") if c in table]
        assert later
        table.drop(columns=later).to_csv(path, index=False)
        assert cembench("verify", path, run).code == 0
    assert math.isfinite(float(table["kid"][0]))
