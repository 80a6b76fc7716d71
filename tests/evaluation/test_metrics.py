"""Figures of samples that a protocol asks for besides: built in, or somebody else's."""

import json
from typing import ClassVar

import pandas as pd
import pytest
import torch

from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.metrics import Metric, functional, metrics
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.record.files import load_record
from cembench.evaluation.sections.samples import SamplesConfig, Scores
from cembench.reporting.leaderboard import build_boards
from cembench.util.errors import CembenchError, ConfigError
from tests.conftest import NOTHING
from tests.support.features import normal, pool
from tests.support.records import both, drawn, sampled, scores, touch

NOTHING = [entry for entry in NOTHING if not entry.startswith("samples")]


@metrics.register
class Brightness(Metric):
    """The distance of mean pixels; or what goes wrong."""

    name: ClassVar[str] = "brightness"
    better: ClassVar[str] = "lower"
    returns: str = ""

    def measure(self, samples, real):
        if self.returns:
            return float(self.returns)
        noise = torch.rand(1)  # the same in each call
        return (samples.images.float().mean() - real.images.float().mean()).abs() + noise


def by_hand(fake, real, k):
    """The sums of the paper, image by image."""
    x, y = real.points.double().tolist(), fake.points.double().tolist()

    def apart(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5

    radii = [sorted(apart(a, b) for b in x)[k] for a in x]
    inside = [[apart(a, b) < r for b in y] for a, r in zip(x, radii, strict=True)]
    density = sum(map(sum, inside)) / (k * len(y))
    return density, sum(map(any, inside)) / len(x)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_density_and_coverage_are_the_sums_of_the_paper(k, shift, monkeypatch):
    expected = by_hand(normal(40, shift, 1), normal(55, seed=2), k)
    for rows in (functional.ROWS, 7):
        monkeypatch.setattr(functional, "ROWS", rows)
        fake, real = normal(40, shift, 1), normal(55, seed=2)
        found = [metrics.parse({"name": n, "k": k}) for n in ("density", "coverage")]
        assert [m.finite(fake, real) for m in found] == pytest.approx(expected)


def test_density_and_coverage_have_closed_forms():
    density, coverage = metrics.parse({"name": "density", "k": 1}), metrics.parse("coverage")
    real = normal(50)
    assert density.finite(real, real) == coverage.finite(real, real) == 1.0
    away = pool(real.points + 100)
    assert density.finite(away, real) == coverage.finite(away, real) == 0.0
    # Four points on a line, one apart: balls of radius 1, and 0.5 lies in two of them.
    line = pool([[0.0], [1.0], [2.0], [3.0]])
    one = metrics.parse({"name": "coverage", "k": 1})
    assert density.finite(pool([[0.5]] * 7), line) == 2.0
    assert one.finite(pool([[0.5]] * 7), line) == 0.5


def test_one_outlier_fools_recall_but_not_coverage():
    """As in figure 3 of the paper: few samples far out make balls around samples huge."""
    from cembench.evaluation.metrics.functional import precision_recall

    real = normal(100, seed=1)
    corner = real.points[:1] + 0.001 * normal(95, seed=2).points
    fake = pool(torch.cat([corner, normal(5, seed=3).points * 20]))
    recall = precision_recall(fake.points, real.points, 5)[1]
    assert recall > 0.9 and metrics.parse("coverage").finite(fake, real) < 0.3


def test_lengths_do_not_count_where_the_extractor_says_so():
    real = normal(30)
    longer = pool(real.points * 2.0 ** (torch.arange(30) % 4)[:, None], unit=True)
    same = pool(real.points, unit=True)
    assert metrics.parse("density").finite(longer, same) == pytest.approx(1.0)


def test_too_few_images_for_k_is_said_in_one_line():
    with pytest.raises(CembenchError, match="metric density: k is 5, of 4 real images"):
        metrics.parse("density").finite(normal(9), normal(4))


PLAN = [*NOTHING, "density=null"]
SAMPLES = (
    "samples={{count: 40, extractor: {{name: lite0, size: 32}}, "
    "samplers: [{{name: rcs, steps: 2}}], metrics: {}}}"
)


def measured(copy, wanted, **options):
    plan = load_protocol("quick", [*PLAN, SAMPLES.format(wanted)], limit=40)
    return evaluate(copy, plan, **options)


def test_a_record_has_what_was_asked_for_and_the_tables_too(copy):
    wanted = "[density, {name: coverage, k: 3, label: coverage-3}, brightness]"
    record, path = measured(copy, wanted)
    found = record.generation.samplers["rcs-gaussian"]
    titles = ["density", "coverage-3", "brightness"]
    for side in (found.samples, found.seeds, record.generation.floor):
        assert list(side.metrics) == titles and not side.failed
    assert load_record(path).generation == record.generation
    boards = {board.stem: board for board in build_boards([record])}
    board = boards["digits-samples-gaussian"]
    assert list(board.shown.columns)[-3:] == ["density ↑", "coverage-3 ↑", "brightness ↓"]
    for title in titles:
        assert board.table[title].tolist() == [found.samples.metrics[title]]
        assert board.table[f"{title}_seeds"].tolist() == [found.seeds.metrics[title]]
    robust = boards["digits-linf-0.125"].table
    name = f"rcs-gaussian_lite0@32_n40_{titles[1]}"
    assert robust[name].tolist() == [found.samples.metrics[titles[1]]]


def test_a_figure_is_computed_again_like_every_other(copy, cembench):
    _, path = measured(copy, "[coverage, brightness, authpct, fd-train, vendi]", save_samples=True)
    assert cembench("verify", path, copy.parent).code == 0
    place = "generation/samplers/rcs-gaussian/samples/metrics/brightness"
    touch(path, (place, 0.123))
    result = cembench("verify", path, copy.parent)
    assert result.code == 1 and "samples.metrics.brightness | 0.123 |" in result.out


@pytest.mark.parametrize(
    ("returns", "reason"),
    [("nan", "returned nan"), ("inf", "returned inf"), ("x", "ValueError could not convert")],
)
def test_a_metric_that_fails_costs_its_own_figure_alone(cembench, copy, returns, reason):
    sets = [f"--set={entry}" for entry in PLAN]
    wanted = f"[coverage, {{name: brightness, returns: {returns!r}}}]"
    result = cembench("eval", copy, *sets, f"--set={SAMPLES.format(wanted)}", "--limit", 40)
    assert result.code == 0 and f"; metric brightness: {reason}" in result.err
    (path,) = (copy.parent / "eval").glob("*.json")
    found = load_record(path).generation.samplers["rcs-gaussian"].samples
    assert list(found.metrics) == ["coverage"] and list(found.failed) == ["brightness"]
    (row,) = build_boards([load_record(path)])[-1].table.to_dict("records")
    assert pd.isna(row["brightness"]) and row["kid"] == found.kid and reason in row["error"]


def test_who_asks_for_nothing_has_the_digests_and_records_of_before():
    plain = {"name": "p", "samples": {"samplers": ["rcs"]}}
    asked = {"name": "p", "samples": {"samplers": ["rcs"], "metrics": ["density"]}}
    assert "metrics" not in json.dumps(Protocol.parse(plain).dump())
    assert Protocol.parse(plain).digest != Protocol.parse(asked).digest
    assert not {"metrics", "failed", "better"} & json.loads(json.dumps(drawn(1.0).dump())).keys()
    assert set(scores(1.0).dump()) == set(Scores.model_fields) - {"metrics", "failed"}


def test_tables_of_others_gain_no_empty_columns():
    further = scores(0.5).model_copy(update={"metrics": {"density": 0.7}})
    figures = sampled("gaussian", 0.5).model_copy(update={"samples": further})
    asked = drawn(0.5, samplers={"rcs-gaussian": figures}, better={"density": "higher"})
    plan = {"name": "more", "samples": {"metrics": ["density"]}, "seed": 0}
    boards = build_boards([both("a", 60, 0.5, generation=asked, protocol=plan), both("b", 60, 1.0)])
    tables = [board.table for board in boards if "samples-gaussian" in board.stem]
    assert sorted("density" in table for table in tables) == [False, True]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["densitty"], "metrics.0.name: unknown metric 'densitty'; did you mean 'density'"),
        ([{"name": "density", "kk": 3}], "metrics.0.kk: unknown key"),
        (["density", {"name": "density", "k": 3}], "no column can be called 'density'"),
        ([{"name": "density", "label": "kid"}], "no column can be called 'kid'"),
        ([{"name": "fd", "count": 50, "label": "fd"}], "no column can be called 'fd'"),
        (["fd"], "metrics.0.count: required"),
        ([{"name": "density", "label": "my_acc"}], "no column can be called 'my_acc'"),
    ],
)
def test_wrong_metrics_are_refused_by_name(wanted, message):
    with pytest.raises(ConfigError, match=message):
        SamplesConfig.parse({"samplers": ["rcs"], "metrics": wanted})
