"""AutoAttack with FAB-T and Square on a sample of the survivors: tried, told and counted."""

import json
import shutil
from functools import partial
from math import comb

import pandas as pd
import pytest

from cembench.attacks import Target
from cembench.attacks.autoattack_fast import FastAutoAttack
from cembench.bench.passes import Counted, Passes
from cembench.energy.threat import Threat
from cembench.evaluation.compare import differences
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures import sanity
from cembench.evaluation.measures.counts import count
from cembench.evaluation.protocol import Protocol, parse_protocol
from cembench.evaluation.record.files import load_record, load_table, save_record
from cembench.evaluation.sections.sanity import SanityCheck
from cembench.evaluation.statistics import most_found, wilson
from cembench.evaluation.verify import verify_record
from cembench.reporting.leaderboard.ranking import evidence, robust_attack
from cembench.reporting.leaderboard.robustness import robust_boards
from cembench.util.errors import CembenchError
from tests.support.attacks import linear_case, run

PLAN = {"attacks": [{"name": "autoattack-fast", "sample": 5}], "limit": 48, "batch_size": 24}
TITLE = "autoattack-sampled"


def without_effect(x, y):
    return x


def noisy(strength, x, y):
    """Random images, which succeed on some."""
    return (x + strength * (x * 1000).sin()).clamp(0, 1)


def beyond(x, y):
    """Succeed on every image, within a ball that holds nearly all of them."""
    return x + 0.999 * (1 - 2 * x)


@pytest.fixture
def stages(monkeypatch):
    """Replace the four attacks by functions, and list the calls: stage and number of images."""
    calls = []

    def call(name, propose, kill, x, y):
        if len(calls) == kill:
            raise KeyboardInterrupt
        calls.append((name, len(x)))
        return propose(x, y)

    def replace(kill=None, **proposals):
        names = ("apgd-ce", "apgd-t", "fab-t", "square")
        found = [
            (name, partial(call, name, proposals.get(name.replace("-", "_"), without_effect), kill))
            for name in names
        ]
        monkeypatch.setattr(FastAutoAttack, "stages", lambda self, target: found)
        calls.clear()
        return calls

    return replace


def measured(copy, protocol=PLAN, **options):
    record, path = evaluate(copy, parse_protocol(protocol), **options)
    assert record.error is None
    return record, load_table(path), path


@pytest.mark.parametrize(("found", "sample", "whole"), [(0, 32, 107), (2, 10, 30), (0, 4, 4)])
def test_the_bound_is_the_largest_count_that_the_sample_does_not_exclude(found, sample, whole):
    def chance(hits):
        """Of as few hits in the sample, by counting samples."""
        ways = [comb(hits, k) * comb(whole - hits, sample - k) for k in range(found + 1)]
        return sum(ways) / comb(whole, sample)

    bound = most_found(found, sample, whole)
    assert chance(bound) > 0.05
    assert bound == whole - sample + found or chance(bound + 1) <= 0.05
    assert most_found(0, 0, 0) == 0


def test_a_sample_of_each_chunk_is_attacked_and_the_interval_allows_for_the_others(copy, stages):
    calls = stages()
    record, table, _ = measured(copy)
    assert [name for name, _ in calls] == ["apgd-ce", "apgd-t", "fab-t", "square"] * 2
    assert [images for name, images in calls if name in ("fab-t", "square")] == [5] * 4
    right = table["clean_pred"] == table["label"]
    part = table[f"{TITLE}_sample"]
    assert part.value_counts().to_dict() == {
        "untried": right.sum() - 10,
        "drawn": 10,
        **({"": (~right).sum()} if (~right).any() else {}),
    }
    figure, worst = record.figures[TITLE], record.figures["worst_case"]
    at_risk = most_found(0, 10, int(right.sum()))
    assert (figure.untried, figure.at_risk) == (right.sum() - 10, at_risk)
    assert figure.correct == right.sum() and figure.high == wilson(right.sum(), 48)[1]
    assert figure.low == wilson(right.sum() - at_risk, 48)[0] < wilson(right.sum(), 48)[0]
    assert (worst.low, worst.untried) == (figure.low, figure.untried)


def test_the_sample_depends_on_the_seed_and_is_nearly_the_same_for_other_survivors(copy, stages):
    stages()
    _, first, _ = measured(copy)
    _, second, _ = measured(copy, {**PLAN, "seed": 1, "limit": None})
    stages(apgd_ce=partial(noisy, 0.5))
    _, third, _ = measured(copy, {**PLAN, "threat": {"eps": 0.999}})
    drawn = [set(t.loc[t[f"{TITLE}_sample"] == "drawn", "index"]) for t in (first, second, third)]
    assert drawn[0] != drawn[1]
    gone = set(third.loc[third[f"{TITLE}_by"] == "apgd-ce", "index"])
    assert gone and drawn[0] - gone <= drawn[2]


@pytest.mark.parametrize("stage", ["fab-t", "square"])
def test_one_success_on_the_sample_has_all_survivors_of_the_chunk_attacked(copy, stages, stage):
    stages(**{stage.replace("-", "_"): beyond})
    plan = {**PLAN, "threat": {"eps": 0.999}, "limit": 24}
    record, table, _ = measured(copy, plan)
    figure = record.figures[TITLE]
    right = table["clean_pred"] == table["label"]
    assert figure.untried == figure.at_risk == 0
    assert not (table[f"{TITLE}_sample"] == "untried").any()
    assert (table[f"{TITLE}_sample"] == "rest").sum() == right.sum() - 5
    assert set(figure.won) == {stage}
    assert (figure.low, figure.high) == wilson(figure.correct, figure.images)
    full = {**plan, "attacks": ["autoattack-fast"]}
    assert measured(copy, full)[0].figures["autoattack-fast"].correct == figure.correct


def test_a_kill_inside_the_attack_costs_one_stage(copy, stages):
    proposals = {"apgd_t": partial(noisy, 0.2), "fab_t": beyond}
    plan = {**PLAN, "threat": {"eps": 0.999}}
    calls = stages(**proposals)
    _, table, path = measured(copy, plan)
    expected = list(calls)
    assert [name for name, _ in expected[:4]] == ["apgd-ce", "apgd-t", "fab-t", "fab-t"]
    for kill in (2, 3, len(expected) - 1):
        path.unlink()
        stages(kill=kill, **proposals)
        with pytest.raises(KeyboardInterrupt):
            measured(copy, plan)
        before, after = list(calls), stages(**proposals)
        _, again, _ = measured(copy, plan)
        assert before + after == expected
        pd.testing.assert_frame_equal(again, table)


def test_a_sampled_attack_can_be_verified(cembench, copy, short_autoattack):
    record, table, path = measured(copy, save_adversarial=True)
    figure = record.figures[TITLE]
    assert 0 < figure.correct < 48 and figure.untried > 0 and sum(figure.won.values()) > 0
    assert [row for row in verify_record(path, copy) if not row.agrees] == []
    claim = table.assign(**{f"{TITLE}_sample": table[f"{TITLE}_sample"].replace("untried", "rest")})
    figures = count(claim, [TITLE], {})
    assert figures[TITLE].untried == 0
    save_record(path, record.model_copy(update={"figures": figures}), claim)
    wrong = {row.figure for row in verify_record(path, copy) if not row.agrees}
    assert f"intervals and stages: {TITLE}.untried" in wrong
    assert "images whose verdicts agree" in wrong
    assert cembench("verify", path, copy).code == 1


def test_differences_say_how_many_images_are_untried(cembench, copy, tmp_path, stages):
    stages()
    _, table, path = measured(copy)
    found = {row.figure: row for row in differences(table, table)}
    untried = (table[f"{TITLE}_sample"] == "untried").sum()
    assert (found["clean"].untried, found[TITLE].untried) == (0, untried)
    assert found["worst_case"].untried == untried
    shutil.copytree(path.parent, tmp_path / "other" / "eval")
    other = tmp_path / "other" / "eval" / path.name
    assert "| untried |" in cembench("compare", path, other).out
    rows = json.loads(cembench("compare", path, other, "--json").out)
    assert rows[-1]["untried"] == untried


def test_the_gate_keeps_and_tells_what_is_untried(cembench, copy, tmp_path, stages):
    stages()
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps(PLAN))
    baseline = tmp_path / "baseline.yaml"
    made = cembench("check", copy, "--baseline", baseline, "--update", "--protocol", plan)
    assert made.code == 0, made.err
    result = cembench("check", copy, "--baseline", baseline, "--json")
    note = {row["metric"]: row["note"] for row in json.loads(result.out)}
    assert " untried" in note[TITLE] and " untried" not in note["clean"]


def test_boards_rank_by_it_where_nothing_better_was_run(copy, stages):
    stages()
    record, _, path = measured(copy)
    assert load_record(path).figures == record.figures
    assert robust_attack(record.figures) == TITLE and evidence(record) == 0
    assert robust_attack({TITLE, "autoattack-fast"}) == "autoattack-fast"
    assert robust_attack({TITLE, "autoattack"}) == "autoattack"
    (board,) = robust_boards([record])
    text = board.markdown()
    assert f"| {TITLE} ↑ |" in text and f"| {TITLE} untried |" in text
    assert board.table[f"{TITLE}_untried"].item() == record.figures[TITLE].untried
    assert pd.isna(board.table["autoattack_acc"].item())


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (10, ["apgd-ce", "apgd-t", "apgd-t-others", "fab-t", "square"]),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (2, ["apgd-ce", "fab-t", "square"]),
    ],
)
def test_classes_that_are_not_likely_are_left_to_the_sample(classes, expected):
    model, split, _ = linear_case(classes, "linf")
    target = Target.of(model, Threat(norm="linf", eps=1e-6), classes)
    attack = FastAutoAttack(sample=5)
    stages = dict(attack.stages(target))
    assert list(stages) == expected
    assert attack.sampling.stages >= set(expected) - {"apgd-ce", "apgd-t"}
    asked = []
    target.model.register_forward_hook(lambda model, args, out: asked.append(len(out)))
    for name, targets in (("apgd-t", min(3, classes - 1)), ("apgd-t-others", classes - 4)):
        if name in stages:
            asked.clear()
            stages[name](split.pixels(), split.labels)
            assert sum(asked) >= 100 * targets * len(split)
            assert sum(asked) <= 110 * targets * len(split)


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_a_failed_sanity_check_warns_of_what_is_untried(copy, stages, monkeypatch, verdict):
    stages()
    check = SanityCheck(name="zero_gradients", verdict=verdict, figure=0.5, meaning="a share")
    monkeypatch.setattr(sanity, "sanity_checks", lambda *_: [check])
    record, table, _ = measured(copy, {**PLAN, "sanity": {}})
    untried = int((table[f"{TITLE}_sample"] == "untried").sum())
    told = f"{TITLE} left {untried} images untried although zero_gradients failed"
    assert untried > 0 and any(told in text for text in record.warnings) == (verdict == "fail")


def test_a_sample_saves_the_passes_that_the_sampled_stages_would_make():
    model, split, _ = linear_case(10, "linf")
    passes, sample = Passes(), 4
    attack = {"name": "autoattack-fast", "sample": sample}
    threat = Threat(norm="linf", eps=1e-6)
    run(Counted(model, passes), split, threat, attack)
    gradients = 48 * 400 + sample * (600 + 900)
    assert gradients <= passes.images(True) <= 1.05 * gradients
    forward = sample * (900 + 5000)
    assert forward <= passes.images(False) <= 1.5 * forward + 48 * 20
    # Without a sample a survivor costs 5,900 passes, and 1,900 with a gradient, which are two.
    assert passes.images(False) + 2 * passes.images(True) < 48 * (5900 + 2 * 1900) / 5


def test_its_column_is_its_own():
    protocol = Protocol.parse({"name": "x", "attacks": [*PLAN["attacks"], "autoattack-fast"]})
    assert [attack.title for attack in protocol.attacks] == [TITLE, "autoattack-fast"]
    assert Protocol.parse(protocol.dump()) == protocol
    assert "sample" not in protocol.dump()["attacks"][1]
    with pytest.raises(CembenchError, match="the label 'autoattack-sampled' is taken"):
        Protocol.parse({"name": "x", "attacks": [{"name": "pgd", "label": TITLE}]})
