"""Records and tables: exact counts, honest columns, nothing mixed."""

import json
import math

import pandas as pd
import pytest

from cembench.energy.threat import Threat
from cembench.evaluation.measures.counts import count
from cembench.evaluation.record.files import load_record, load_table, save_record
from cembench.evaluation.statistics import wilson
from cembench.reporting.leaderboard import build_boards, find_records, write_boards
from cembench.reporting.leaderboard.rows import FIRST
from cembench.util.errors import CembenchError
from tests.support.records import record


@pytest.mark.parametrize(
    ("correct", "images", "expected"),
    # Wilson's interval as Brown, Cai and DasGupta (2001) and R's prop.test(correct=FALSE) give it.
    [
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (50, 100, (0.4038, 0.5962)),
        (1, 1, (0.2065, 1)),
    ],
)
def test_wilson_intervals(correct, images, expected):
    assert wilson(correct, images) == pytest.approx(expected, abs=1e-4)


def test_figures_are_counts_over_the_table():
    table = pd.DataFrame(
        {
            "label": [0, 1, 2, 3, 4],
            "clean_pred": [0, 1, 2, 3, 0],
            "clean_8bit_pred": [0, 1, 2, 0, 4],
            "a_broken": [True, False, False, False, False],
            "a_broken_8bit": [False, False, False, False, False],
            "a_by": ["x", "", "", "", ""],
            "b_broken": [False, True, False, False, False],
            "b_broken_8bit": [False, True, False, False, False],
            "b_by": ["", "y", "", "", ""],
        }
    )
    figures = count(table, ["a", "b"], {"a": 1.5})
    got = {name: (value.correct, value.correct_8bit) for name, value in figures.items()}
    assert got == {"clean": (4, 3), "a": (3, 3), "b": (3, 2), "worst_case": (2, 2)}
    assert figures["a"].won == {"x": 1} and figures["a"].seconds == 1.5
    assert figures["clean"].accuracy == 0.8


def test_a_record_reads_back_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "eval" / "standard.json"
    written = save_record(path, record("a"), pd.DataFrame({"index": [0]}))
    assert load_record(path) == written and load_table(path)["index"].tolist() == [0]
    for text in ("", "{", "[]", json.dumps({**record("a").dump(), "format": 99}), '{"format": 3}'):
        path.write_text(text)
        with pytest.raises(CembenchError, match=r"standard\.json"):
            load_record(path)


def test_the_best_under_autoattack_comes_first_and_the_columns_are_as_promised(tmp_path):
    boards = build_boards([record("low", 10), record("high", 60), record("mid", 30)])
    assert [board.stem for board in boards] == ["digits-linf-0.125"]
    csv, markdown = write_boards(boards, tmp_path)
    table = pd.read_csv(csv)
    assert list(table.columns[: len(FIRST)]) == FIRST
    assert table["run"].tolist() == ["high", "mid", "low"]
    assert table["autoattack_acc"].tolist() == [0.6, 0.3, 0.1]
    text = markdown.read_text()
    assert "| autoattack ↑ |" in text and "| 60.0% (50.2%–69.1%) |" in text


def test_figures_measured_in_different_ways_never_share_a_table():
    ways = [
        {"threat": Threat(norm="linf", eps=0.1)},
        {"threat": Threat(norm="l2", eps=0.125)},
        {"dataset": "mine"},
        {"protocol_digest": "other", "protocol": {"name": "quick"}},
        {"fingerprint": "fewer"},
    ]
    boards = build_boards(
        [record("a"), record("b"), *(record(f"w{i}", **way) for i, way in enumerate(ways))]
    )
    assert len(boards) == 1 + len(ways) and len({board.stem for board in boards}) == len(boards)
    assert boards[0].stem == "digits-linf-0.125" and boards[0].table["run"].tolist() == ["a", "b"]
    for board in boards:
        assert board.table["protocol_digest"].nunique() == 1


def test_an_error_is_a_row_without_figures_at_the_end():
    failed = record("nan", figures={}, error="logits | not finite")
    (board, *_) = build_boards([failed, record("fine")])
    assert board.table["run"].tolist() == ["fine", "nan"]
    assert math.isnan(board.table["autoattack_acc"].iloc[1])
    assert board.table["n_images"].tolist() == [100, 0]
    assert "logits \\| not finite" in board.markdown() and "| – |" in board.markdown()


def test_an_unfinished_run_says_so_and_no_title_leaves_the_folder():
    boards = build_boards([record("a", finished=False, dataset="../../up")])
    assert boards[0].table["run"].tolist() == ["a (unfinished)"]
    assert "/" not in boards[0].stem


def test_the_newest_record_of_a_checkpoint_counts():
    old, new = record("a", 10, created="2026-01-01"), record("a", 20, created="2026-01-02")
    assert build_boards([new, old])[0].table["autoattack_acc"].tolist() == [0.2]


def test_no_records_is_an_error(tmp_path):
    with pytest.raises(CembenchError, match=r"no records below .*run `cembench eval`"):
        find_records([tmp_path])


def test_latex_has_the_table_for_people_and_is_written_if_asked(cembench, tmp_path):
    save_record(tmp_path / "runs/a_b/eval/standard.json", record("a_b", 60), None)
    done = cembench("leaderboard", tmp_path / "runs", "--out", tmp_path, "--format", "latex")
    text = (tmp_path / "digits-linf-0.125.tex").read_text()
    assert done.code == 0 and done.out == text and (tmp_path / "digits-linf-0.125.md").exists()
    about, what, begin, top, head, _, row, *_ = text.splitlines()
    assert "booktabs" in about and "digits, linf-0.125" in what and top == r"\toprule"
    assert begin == r"\begin{tabular}{llrrrrrrr}" and head.startswith(r"run & method & clean $\up")
    assert row.startswith(r"a\_b & at & 90.0\% (82.6\%--94.5\%) & 61.0\%")


def test_stems_of_long_names_are_file_names_of_their_own():
    records = [record("a", dataset="n" * 300 + end) for end in "xy"]
    first, second = (board.stem for board in build_boards(records))
    assert first != second and len(first) < 150 and first.startswith("nnn")
