"""Published results: each with its source, beside measured ones and never among them."""

import re

import pandas as pd
import pytest

from cembench.reporting.leaderboard import build_boards
from cembench.reporting.leaderboard.published import published, published_board
from tests.support.records import record


def test_every_row_says_where_its_figures_are_from():
    table = published()
    threats = {"linf-8/255", "l2-0.5", "linf-4/255", "l2-3", ""}
    assert len(table) >= 50 and set(table["threat"]) == threats
    for row in table.to_dict("records"):
        assert re.search(r"arXiv \d{4}\.\d{5}|RobustBench", row["source"]), row
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", row["date"]), row
        assert ("FID" in row["note"]) <= bool(row["fid"])
        figures = [row[key] for key in ("clean", "autoattack", "fid", "inception_score")]
        assert any(figures) and row["extra_data"] in ("yes", "no", "")
    robust = table[table["autoattack"] != ""].astype({"clean": float, "autoattack": float})
    assert ((robust["autoattack"] < robust["clean"]) & (robust["clean"] < 100)).all()
    assert not robust.duplicated(["name", "dataset", "threat", "architecture"]).any()


def test_a_figure_that_was_not_read_in_its_paper_says_so():
    table = published()
    generates = (table["fid"] != "") & (table["autoattack"] != "")
    assert table["note"][generates].str.contains("noted by a third party, not read").all()
    claimed = table.set_index("name").loc["EB-JDAT"]
    assert "8/255 is measured on [-1, 1]" in claimed["note"]


@pytest.mark.parametrize(
    ("titles", "known"),
    [
        (["cifar10"], "cifar10"),
        (["digits", "cifar10-jpeg"], "cifar10"),
        (["cifar100"], "cifar100"),
        (["imagenet"], "imagenet"),
        (["my-cifar10"], None),
        (["digits"], None),
        ([], None),
    ],
)
def test_a_data_set_has_the_results_of_what_it_is_a_kind_of(titles, known):
    board = published_board(titles)
    assert (board is None) is (known is None)
    if board is not None:
        assert board.stem == "published" and "reported, not re-run" in board.title
        assert (board.table["dataset"] == known).all()


def test_cells_are_as_published():
    board = published_board(["cifar10"])
    mart = board.shown.set_index("name").loc["MART"]
    assert (mart["clean ↑"], mart["autoattack ↑"], mart["FID ↓"]) == ("87.50", "56.29", "–")
    assert "MART,cifar10,linf-8/255,WideResNet-28-10,yes,87.50,56.29,,," in board.csv()


def test_they_stand_behind_the_measured_boards_and_in_none_of_them(cembench, tmp_path):
    from cembench.evaluation.record.files import save_record

    for name in ("digits", "cifar10-jpeg"):
        found = record("mine", 60, dataset=name)
        save_record(tmp_path / name / "mine" / "eval" / "quick.json", found, None)
    out = tmp_path / "out"
    result = cembench("leaderboard", tmp_path / "cifar10-jpeg", "--out", out)
    measured, reported = result.out.split("cifar10: published results")
    assert result.code == 0 and "| mine |" in measured and "TRADES" not in measured
    assert "| TRADES |" in reported and "| mine |" not in reported
    assert sorted(file.name for file in out.glob("*.csv")) == [
        "cifar10-jpeg-linf-0.125.csv",
        "published.csv",
    ]
    shown = pd.read_csv(out / "published.csv", dtype=str, keep_default_na=False)
    expected = published()
    assert shown.equals(expected[expected["dataset"] == "cifar10"].reset_index(drop=True))
    assert all(board.stem != "published" for board in build_boards([found]))
    assert "published" not in cembench("leaderboard", tmp_path / "digits", "--out", out).out
    refused = cembench("verify", out / "published.csv", tmp_path / "cifar10-jpeg")
    assert refused.code == 2 and "not a leaderboard" in refused.err


def test_they_can_be_listed_at_any_time(cembench):
    result = cembench("list", "published")
    assert result.code == 0 and "| JEM | cifar10 | – | WideResNet-28-10 |" in result.out
