"""Generative tables: beside the robust ones, apart by start, and as means over seeds."""

import pandas as pd
import pytest

from cembench.evaluation.sections.samples import SamplerFigures
from cembench.evaluation.sections.sanity import SanityCheck
from cembench.evaluation.statistics import half_width
from cembench.reporting.leaderboard import build_boards
from cembench.reporting.leaderboard.ranking import pareto
from tests.support.records import PLAN, both, drawn, record


def named(boards):
    return {board.stem: board for board in boards}


def test_robust_and_generative_columns_stand_side_by_side_with_the_front_marked():
    boards = named(
        build_boards([both("robust", 60, 1.5), both("lost", 50, 1.6), both("draws", 20, 0.5)])
    )
    board = boards["digits-linf-0.125"]
    assert board.table["run"].tolist() == ["robust", "lost", "draws"]
    assert board.table["pareto"].tolist() == [True, False, True]
    assert board.table["rcs-gaussian_lite0@64_n100_kid"].tolist() == [1.5, 1.6, 0.5]
    assert "| KID-lite0@64 rcs-gaussian, n100 ↓ |" in board.markdown()
    assert "0.5 (-1e-07" not in board.markdown() and "1.5 (1 to 2)" in board.markdown()
    assert board.shown["Pareto"].tolist() == ["★", "", "★"]


@pytest.mark.parametrize("without", [60, 20])
def test_a_record_without_samples_is_a_row_with_dashes_wherever_it_ranks(without):
    boards = named(build_boards([record("bare", without), both("draws", 40, 1.5)]))
    assert set(boards) == {
        "digits-linf-0.125",
        "digits-samples-gaussian",
        "digits-samples-noise",
    }
    shown = boards["digits-linf-0.125"].shown.set_index("run")
    kid = "KID-lite0@64 rcs-gaussian, n100 ↓"
    assert shown.loc["draws", kid] == "1.5 ± 0.1" and shown.loc["draws", "Pareto"] == "★"
    assert shown.loc["bare", [kid, "gain over its seeds ↑", "Pareto"]].tolist() == ["–"] * 3


def test_runs_whose_seeds_lack_samples_have_a_mean_of_those_that_have_them():
    runs = [both(f"at.s{seed}", 50, 1.0, recipe="r", seed=seed) for seed in (0, 1)]
    board = named(build_boards([record("at.s2", 70, recipe="r", seed=2), *runs]))[
        "digits-linf-0.125-seeds"
    ]
    (row,) = board.table.to_dict("records")
    assert row["rcs-gaussian_lite0@64_n100_kid_runs"] == 2 and row["seeds"] == 3


@pytest.mark.parametrize(
    ("robust", "distance", "front"),
    [
        ([1, 2, 3], [1, 2, 3], [True, True, True]),
        ([1, 2, 3], [3, 2, 1], [False, False, True]),
        ([1, 1], [2, 2], [True, True]),
        ([1, 1], [2, 1], [False, True]),
        ([1, 2], [None, 1], [None, True]),
        ([None, 0], [0, 5], [None, True]),
    ],
)
def test_a_row_is_on_the_front_if_no_other_beats_it(robust, distance, front):
    found = pareto(pd.Series(robust, dtype=float), pd.Series(distance, dtype=float))
    assert found.tolist() == front


def test_noise_and_gaussian_starts_are_ranked_apart_best_first():
    boards = named(build_boards([both("a", 60, 1.5), both("b", 50, 0.5)]))
    assert {"digits-samples-gaussian", "digits-samples-noise"} < set(boards)
    for start, factor in (("gaussian", 1), ("noise", 9)):
        table = boards[f"digits-samples-{start}"].table
        assert table["run"].tolist() == ["b", "a"] and set(table["start"]) == {start}
        assert table["kid"].tolist() == [0.5 * factor, 1.5 * factor]
        assert table["kid_seeds"].tolist() == [2.0, 2.0] and table["judge_acc_real"].iloc[0] == 0.95


@pytest.mark.parametrize(
    "change",
    [
        {"extractor": "lite0@96"},
        {"count": 200},
        {"reference": "train"},
        {"extractor_sha256": "other weights"},
        {"reference_fingerprint": "other"},
    ],
)
def test_samples_measured_in_different_ways_never_share_a_table(change):
    boards = build_boards([both("a", 60, 1.5), both("b", 60, 1.5, generation=drawn(1.5, **change))])
    tables = [board.table for board in boards if "samples" in board.stem]
    assert len(tables) == 4 and all(len(table) == 1 for table in tables)
    assert len({board.stem for board in boards}) == len(boards)


def test_a_sampler_that_failed_is_a_row_without_figures():
    failed = SamplerFigures(sampler={"name": "rcs", "steps": 1}, start="noise", error="it | left")
    broken = both("broken", 60, 1.0, generation=drawn(1.0, samplers={"rcs-noise": failed}))
    boards = named(build_boards([broken, both("fine", 50, 1.0)]))
    table = boards["digits-samples-noise"].table
    assert table["run"].tolist() == ["fine", "broken"] and pd.isna(table["kid"].iloc[1])
    assert "it \\| left" in boards["digits-samples-noise"].markdown()
    assert named(build_boards([broken]))["digits-linf-0.125"].shown["run"].tolist() == ["broken"]


def test_seeds_of_one_recipe_become_a_mean_with_its_deviation_and_its_interval():
    runs = [
        both(f"at.s{seed}", robust, 1.0, recipe="r", seed=seed, divergences=seed)
        for seed, robust in enumerate((40, 50, 60))
    ]
    lonely = both("other", 10, 1.0, recipe="alone")
    board = named(build_boards([*runs, lonely]))["digits-linf-0.125-seeds"]
    (row,) = board.table.to_dict("records")
    assert (row["runs"], row["seeds"], row["divergences"]) == ("at", 3, 3)
    assert row["autoattack_acc"] == pytest.approx(0.5)
    assert row["autoattack_acc_std"] == pytest.approx(0.1)
    assert row["autoattack_acc_half"] == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert "50.0 ± 10.0 %" in board.markdown() and "mean ± standard deviation" in board.title
    assert half_width(pd.Series([1.0])) != half_width(pd.Series([1.0]))


def test_a_mean_says_how_many_of_its_runs_fail_a_sanity_check():
    bad = SanityCheck(name="zero_gradients", verdict="fail", figure=0.3, meaning="…")
    runs = [
        both(f"at.s{seed}", 40, 1.0, recipe="r", seed=seed, sanity=[bad] if seed else [])
        for seed in range(3)
    ]
    board = named(build_boards(runs))["digits-linf-0.125-seeds"]
    assert board.table["sanity_failed"].tolist() == [2]
    assert board.shown["sanity"].tolist() == ["⚠ 2 of 3"]


def test_seeds_that_gave_no_figures_are_counted_and_repeats_are_not():
    runs = [both(f"at.s{seed}", 40, 1.0, recipe="r", seed=seed) for seed in range(3)]
    copies = [both("copy", 40, 1.0, recipe="r", seed=0, created="2026-01-01")]
    failed = [
        record(f"at.s{seed}", figures={}, error="diverged", recipe="r", seed=seed, protocol=PLAN)
        for seed in (3, 4)
    ]
    board = named(build_boards([*runs, *copies, *failed]))["digits-linf-0.125-seeds"]
    (row,) = board.table.to_dict("records")
    assert (row["seeds"], row["autoattack_acc_runs"]) == (5, 3)
    assert "(3 of 5)" in board.markdown()
    assert not [
        b for b in build_boards(failed) if "seeds" in b.stem and b.table["seeds"].iloc[0] != 2
    ]


def test_figures_beside_other_real_images_never_share_a_table():
    other = both("b", 60, 1.5, generation=drawn(1.5, reference_fingerprint="other"))
    error = record("c", figures={}, error="nan", protocol=PLAN)
    boards = [
        b for b in build_boards([both("a", 60, 1.5), other, error]) if "samples" not in b.stem
    ]
    assert sorted(len(board.table) for board in boards) == [1, 2]
