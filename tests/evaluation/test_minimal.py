"""Attacks that minimise a norm: counted apart, never as 100 %, and verified."""

import json
import math
import shutil
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cembench.attacks import Attack, attacks
from cembench.evaluation.compare import differences
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.gate.baseline import load_baseline
from cembench.evaluation.gate.check import check
from cembench.evaluation.gate.evaluator import Evaluator
from cembench.evaluation.gate.update import update
from cembench.evaluation.measures.counts import count
from cembench.evaluation.protocol import Protocol, parse_protocol
from cembench.evaluation.record import load_record, load_table, save_record
from cembench.evaluation.sections.minimal import Minimal
from cembench.evaluation.statistics import median_interval
from cembench.evaluation.verify import verify_record
from cembench.models.checkpoint import load_checkpoint
from cembench.reporting.leaderboard.robustness import robust_boards
from cembench.reporting.leaderboard.seeds import seed_boards
from tests.support.attacks import run

FMN = {"name": "fmn", "steps": 30}
PLAN = {
    "attacks": [FMN, {**FMN, "norm": "l2"}, {"name": "pgd", "steps": 3}],
    "limit": 40,
    "batch_size": 24,
}


class Far(Attack):
    """Proposes images far away, which fool every network and lie in no ball."""

    name: ClassVar[str] = "far"
    smallest: str | None = None

    @property
    def minimises(self):
        return self.smallest

    def stages(self, target):
        return [(self.title, lambda x, y: 1 - x)]


@pytest.fixture
def far(monkeypatch):
    monkeypatch.setitem(attacks._targets, "far", Far)


def measured(copy, *used, **options):
    protocol = {**PLAN, "attacks": list(used)} if used else PLAN
    record, path = evaluate(copy, parse_protocol(protocol), save_adversarial=True, **options)
    assert record.error is None
    return record, load_table(path), path


def disagreements(path, copy):
    return {row.figure for row in verify_record(path, copy) if not row.agrees}


@pytest.mark.parametrize("images", [1, 2, 5, 6, 15, 100])
def test_the_interval_of_a_median_is_the_narrowest_pair_of_ranks_that_holds_it(images):
    def outside(rank):
        """The chance that fewer than `rank` of `images` values lie on one side of the median."""
        return sum(math.comb(images, k) for k in range(rank)) / 2**images

    values = torch.randperm(images).add(1).double().tolist()
    median, low, high = median_interval(values)
    assert median == np.median(values)
    rank = 0 if low == 0 else int(low)
    assert (low, high) == ((0, math.inf) if rank == 0 else (rank, images + 1 - rank))
    assert outside(rank) <= 0.025 < outside(rank + 1)


def test_images_that_are_wrong_anyway_count_0_and_those_never_fooled_infinity():
    sizes = pd.Series([0.0, 0.0, 0.1, 0.2, 0.3, 0.4, math.inf, math.inf, math.inf, math.inf])
    found = Minimal.of(sizes, "l2", None, 1.0)
    assert (found.images, found.found) == (10, 6) and found.median == pytest.approx(0.35)
    assert (found.low, found.high) == (0.0, None)
    accuracy = {point.eps: point.correct for point in found.curve}
    assert accuracy == {0.0: 8, 0.1: 7, 0.2: 6, 0.3: 5, 0.4: 4}
    assert json.loads(json.dumps(found.dump()))["high"] is None
    at = Minimal.of(sizes, "l2", [0.25, 0.1], 1.0).curve
    assert [(point.eps, point.correct) for point in at] == [(0.0, 8), (0.1, 7), (0.25, 6)]
    assert Minimal.of(sizes + math.inf, "l2", None, 1.0).median is None


def test_one_run_gives_the_accuracy_at_every_radius_of_its_norm(copy):
    record, table, path = measured(copy)
    assert record.figures.keys() == {"clean", "fmn-linf", "pgd", "worst_case"}
    assert record.minimal.keys() == {"fmn-linf", "fmn-l2"}
    assert {c for c in table if c.startswith("fmn-l2")} == {"fmn-l2_outside", "fmn-l2_size"}
    threat, right = record.threat, table["clean_pred"] == table["label"]
    inside = (table["fmn-linf_size"] <= threat.eps + threat.ball.tolerance) & right
    assert inside.equals(table["fmn-linf_broken"]) and 0 < inside.sum() < right.sum()
    assert (table.loc[~right, "fmn-linf_size"] == 0).all()
    for found in record.minimal.values():
        assert 0 < found.low <= found.median <= found.high and found.found >= 38
        counts = [point.correct for point in found.curve]
        assert counts[0] == right.sum() and counts == sorted(counts, reverse=True)
        assert counts[-1] <= 2
    assert record.warnings == []
    assert disagreements(path, copy) == set()
    table.loc[3, "fmn-l2_size"] *= 0.5
    save_record(path, record, table)
    assert disagreements(path, copy) == {"images whose verdicts agree"}


def test_radii_can_be_asked_for_and_agree_with_the_accuracy_at_the_threat_model(copy):
    plan = {**PLAN, "minimal": {"eps": {"linf": [0.05, 0.125], "l2": [0.5]}}}
    assert parse_protocol(plan).digest != parse_protocol(PLAN).digest
    assert "minimal" not in Protocol.parse(PLAN | {"name": "t"}).dump()
    record, _ = evaluate(copy, parse_protocol(plan))
    curve = {point.eps: point.correct for point in record.minimal["fmn-linf"].curve}
    assert list(curve) == [0.0, 0.05, 0.125]
    assert curve[record.threat.eps] == record.figures["fmn-linf"].correct


def test_an_attack_outside_the_ball_is_no_silent_100_percent(copy, far, cembench):
    record, table, path = measured(copy, "far")
    right = int((table["clean_pred"] == table["label"]).sum())
    figure = record.figures["far"]
    assert figure.correct == right == record.figures["clean"].correct
    assert 0 < figure.outside == table["far_outside"].sum() <= right
    assert record.figures["worst_case"].outside == figure.outside
    told = "outside the ball; its accuracy says little of robustness"
    (warning,) = record.warnings
    assert warning.startswith(f"far fooled {figure.outside} of {right}, all") and told in warning
    assert f"⚠ {figure.outside} fooled outside the ball" in str(record)
    (board,) = robust_boards([record])
    assert (
        f"⚠ {figure.outside} outside" in board.shown["far ↑"][0] and "⚠ outside" in board.notes[0]
    )
    assert board.table["worst_case_outside"][0] == figure.outside
    shown = cembench("show", path).out
    assert f"⚠ {figure.outside} outside" in shown and told in " ".join(shown.split())
    assert disagreements(path, copy) == set()
    both, table, _ = measured(copy, "far", {"name": "pgd", "steps": 3})
    left = table["far_outside"] & table["pgd_outside"]
    assert both.figures["worst_case"].outside == left.sum() == 0
    assert both.figures["worst_case"].correct == both.figures["pgd"].correct


def test_an_attack_that_minimises_another_norm_has_no_accuracy_and_no_part_in_the_worst_case(
    copy, far
):
    attack, rest = {"name": "far", "smallest": "l2"}, {"name": "pgd", "steps": 3, "on": "survivors"}
    record, _, path = measured(copy, attack, rest)
    alone, _, _ = measured(copy, rest)
    assert record.figures.keys() == {"clean", "pgd-rest", "worst_case"}
    assert record.figures["worst_case"].correct == alone.figures["worst_case"].correct
    assert record.warnings[0].endswith("all outside the ball: it minimises l2")
    assert record.minimal["far"].norm == "l2" and record.minimal["far"].median > 1
    assert disagreements(path, copy) == set()
    only, _, _ = measured(copy, attack)
    assert only.figures.keys() == {"clean"} and "far median l2" in str(only)


def test_records_in_which_such_attacks_counted_are_still_verified_and_compared(
    copy, far, monkeypatch
):
    record, table, path = measured(copy, "far")
    figures = {
        name: figure.model_copy(update={"outside": 0}) for name, figure in record.figures.items()
    }
    before = table.drop(columns="far_outside")
    save_record(path, record.model_copy(update={"figures": figures}), before)
    monkeypatch.setattr(Far, "minimises", "l2")
    assert load_record(path).figures["far"].outside == 0
    (adversarial,) = path.with_suffix(".adversarial").glob("far*")
    kept = {k: v for k, v in load_file(adversarial).items() if not k.startswith("outside")}
    save_file(kept, adversarial)
    assert disagreements(path, copy) == set()
    _, after, _ = measured(copy, "far")
    assert [row.figure for row in differences(before, after)] == ["clean"]


def test_a_baseline_keeps_medians_and_one_in_which_such_attacks_counted_still_compares(
    copy, far, tmp_path, monkeypatch
):
    path, few = tmp_path / "baseline.yaml", {"name": "pgd", "steps": 2}
    plan = {"attacks": ["far", few, {**FMN, "norm": "l2"}], "limit": 24}
    update([f"tiny={copy}"], path, parse_protocol(plan), Evaluator())
    metric = load_baseline(path).rows["tiny"].metrics["median_l2 fmn-l2"]
    assert metric.value > metric.tolerance > 0 and metric.better == "higher"
    monkeypatch.setattr(Far, "minimises", "l2")
    shutil.rmtree(copy.parent / "eval")  # else the record there would be used again
    found = check([], path, Evaluator(), allow_unchecked=True)
    assert not {"error", "regression"} & {outcome.verdict for outcome in found}
    assert {"clean", "pgd", "worst_case", "median_l2 fmn-l2"} <= {one.metric for one in found}
    assert "far" not in {one.metric for one in found}


def test_attacks_of_torchattacks_that_leave_the_ball_are_never_a_silent_100_percent(trained):
    pytest.importorskip("torchattacks")
    short = {
        "CW": {"steps": 3},
        "DeepFool": {"steps": 3, "overshoot": 0.1},
        "EADEN": {"max_iterations": 10, "binary_search_steps": 1},
        "SparseFool": {"steps": 2},
        "GN": {"std": 0.5},
    }
    model, metadata = load_checkpoint(trained)
    split = metadata.data.load("test").take(torch.arange(6))
    used = [{"name": "torchattacks", "attack": kind, "args": args} for kind, args in short.items()]
    table = run(model, split, metadata.threat, *used)
    counted = [c.removesuffix("_broken") for c in table if c.endswith("_broken")]
    assert counted == ["gn"]
    figures = count(table, counted, {})
    outside = int(table["gn_outside"].sum())
    assert figures["gn"].outside == figures["worst_case"].outside == outside > 0
    for name in ("cw", "deepfool", "eaden", "sparsefool"):
        sizes = table[f"{name}_size"]
        assert (sizes[table[f"{name}_outside"]] < math.inf).all()
    assert table["deepfool_outside"].any() and table["sparsefool_outside"].any()


def test_medians_stand_in_the_boards(copy):
    record, _, _ = measured(copy)
    (board,) = robust_boards([record])
    median = record.minimal["fmn-l2"].median
    assert board.table["fmn-l2_median_l2"][0] == median
    assert board.shown["fmn-l2 median l2 ↑"][0].startswith(f"{median:.3g} (")
    other = record.model_copy(update={"seed": record.seed + 1})
    (means,) = seed_boards([record, other])
    assert means.table["fmn-l2_median_l2"][0] == pytest.approx(median)
