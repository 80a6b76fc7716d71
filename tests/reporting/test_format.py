"""Numbers and columns as text: the same everywhere, and a dash where there is nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cembench.util.display.charts import Cell
from cembench.util.display.column import Column
from cembench.util.display.format import number, percent, with_error, with_interval


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(1234.5678), "1.23e+03"),
        (number(0.25, "+.1f"), "+0.2"),
        (percent(0.8238), "82.4%"),
        (percent(np.float64(0.5), 2), "50.00%"),
        (with_error(1.0666, 0.0932), "1.07 ± 0.093"),
        (with_error(-1.5, 0.25, "+.3g"), "-1.5 ± 0.25"),
        (with_error(0.5, 0.1, ".1%"), "50.0 ± 10.0 %"),
        (with_interval(0.27, 0.0384, 0.502), "0.27 (0.0384 to 0.502)"),
        (with_interval(0.824, 0.773, 0.866, ".1%"), "82.4% (77.3%–86.6%)"),
    ],
)
def test_numbers_have_one_form(text, expected):
    assert text == expected


@pytest.mark.parametrize("nothing", [None, math.nan, np.float64("nan")])
def test_nothing_is_a_dash(nothing):
    texts = [number(nothing), percent(nothing), with_error(nothing, nothing)]
    assert [*texts, with_interval(nothing, 0, 1)] == ["–"] * 4
    assert math.isnan(Cell.of(nothing, "–").number)


def test_a_cell_sets_the_uncertainty_of_its_number_apart():
    assert Cell.of(1.07, with_error(1.07, 0.093)) == Cell("1.07", "± 0.093", 1.07)
    cell = Cell.of(0.5, with_interval(0.5, 0.4, 0.6, ".1%"))
    assert cell == Cell("50.0%", "40.0%–60.0%", 0.5) and cell.share == 0.5
    assert Cell.of(3.0, "3").share is None


@given(
    st.from_regex(r"[\w@ .-]+", fullmatch=True),
    st.from_regex(r"[a-z0-9]+@\d+", fullmatch=True),
    st.integers(1, 10**6),
    st.sampled_from(["kid", "kid_error", "gain_low", "judge_acc", "pixel-distance"]),
)
def test_a_column_reads_back_from_its_name(sampler, extractor, count, metric):
    column = Column(sampler, extractor, count, metric)
    assert Column.parse(column.name) == column
    assert column.of("gain").name == f"{sampler}_{extractor}_n{count}_gain"


@pytest.mark.parametrize("name", ["autoattack_acc", "ece", "pgd_ball_lse", "auroc_log_px_noise"])
def test_other_columns_are_none(name):
    assert Column.parse(name) is None
