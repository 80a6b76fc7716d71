"""Boards across threat models: a row per network, the union, and means over seeds."""

import io

import pandas as pd
import pytest

from cembench.evaluation import sections
from cembench.evaluation.section import Section
from cembench.evaluation.sections.threats import Threats, UnderThreat
from cembench.reporting.leaderboard import build_boards, write_boards
from cembench.reporting.leaderboard.verify_table import compare_table
from cembench.reporting.page import write_report
from tests.support.pages import leave, point
from tests.support.records import PLAN, drawn, figure, record


def several(linf, l2, union, curve=()):
    first = {"autoattack": figure(linf), "worst_case": figure(linf)}
    other = {"autoattack": figure(l2), "worst_case": figure(l2)}
    under = {
        "linf-0.125": UnderThreat(norm="linf", eps=0.125, figures=first),
        "l2-1": UnderThreat(norm="l2", eps=1.0, figures=other, curve=list(curve)),
    }
    return Threats(under=under, union=figure(union))


def under_both(run, linf, l2, union, **changes):
    return record(run, linf, **{"threats": several(linf, l2, union), **changes})


def across(records):
    return {board.stem: board for board in build_boards(records) if "threats" in board.stem}


def test_networks_are_ranked_by_the_union_with_a_column_for_each_threat_model(tmp_path):
    records = [under_both("linf", 60, 20, 18), under_both("both", 50, 40, 39), record("alone")]
    boards = build_boards(records)
    assert [board.stem for board in boards] == ["digits-linf-0.125", "digits-linf-0.125-threats"]
    board = boards[-1]
    csv, markdown = write_boards([board], tmp_path)
    table = pd.read_csv(csv)
    assert table["run"].tolist() == ["both", "linf"] and table["union_acc"].tolist() == [0.39, 0.18]
    assert table["l2-1 autoattack_acc"].tolist() == [0.4, 0.2]
    assert table["threats"].tolist() == ["linf-0.125, l2-1"] * 2
    text = markdown.read_text()
    heads = ["clean ↑", "linf-0.125 autoattack ↑", "l2-1 autoattack ↑", "union ↑"]
    assert f"| {' | '.join(heads)} |" in text and "| 39.0% (30.0%–48.8%) |" in text
    assert "Union: images" in text and text.startswith("# digits under linf-0.125, l2-1, protocol")
    assert [row.figure for row in compare_table(csv, records) if not row.agrees] == []


def test_other_boards_have_the_union_and_leave_the_other_columns_to_the_file():
    board = build_boards([under_both("a", 60, 20, 18)])[0]
    assert "| union ↑ |" in board.markdown() and "l2-1" not in board.markdown()
    assert "l2-1 autoattack_acc" in board.table and "threats" not in board.table


def test_means_over_seeds():
    records = [
        under_both(f"{name}.s{seed}", linf, 20 + seed, union - seed, seed=seed, recipe=name)
        for name, linf, union in (("a", 60, 18), ("b", 50, 17), ("c", 40, 10))
        for seed in (0, 1)
        if (name, seed) != ("c", 1)
    ]
    boards = across(records)
    assert list(boards) == ["digits-linf-0.125-threats", "digits-linf-0.125-threats-seeds"]
    board = boards["digits-linf-0.125-threats-seeds"]
    table = pd.read_csv(io.StringIO(board.csv()))
    assert table["runs"].tolist() == ["a", "b"] and table["seeds"].tolist() == [2, 2]
    assert table["union_acc"].tolist() == pytest.approx([0.175, 0.165])
    assert table["l2-1 autoattack_acc_std"].tolist() == pytest.approx([0.00707107] * 2)
    assert "| 17.5 ± 0.7 % |" in board.markdown() and len(board.sources) == 2


def test_records_measured_in_other_ways_have_boards_of_their_own():
    first, other = under_both("a", 60, 20, 18), under_both("a", 60, 20, 18, protocol_digest="other")
    assert len(across([first, other])) == 2
    assert across([record("alone")]) == {}


class Further(Section[None, None]):
    key = result_key = "further"

    def of(self, record):
        return None

    def columns(self, result):
        corruptions = {"corruptions_acc": 0.7, "corruptions_mce": 0.9, "corruptions_acc_fog": 0.5}
        ends = {"fmn_median_l2_low": 0.1, "fmn_median_l2_high": 0.3}
        return {**corruptions, "corruptions_worst": "fog", "fmn_median_l2": 0.2, **ends}


def test_corruptions_smallest_perturbations_and_samples_are_beside_them(monkeypatch):
    monkeypatch.setattr(sections, "SECTIONS", [*sections.SECTIONS, Further()])
    sampled = under_both("a", 60, 20, 18, generation=drawn(1.5), protocol=PLAN)
    records = [sampled, under_both("b", 60, 20, 18, protocol=PLAN)]
    (board,) = across(records).values()
    shown = dict(zip(board.shown.columns, board.shown.iloc[0], strict=True))
    assert shown["corruptions ↑"] == "70.0%" and shown["corruptions mCE ↓"] == "90.0%"
    assert shown["fmn median l2 ↑"] == "0.2 (0.1 to 0.3)" and "corruptions_acc_fog" not in shown
    assert shown["KID-lite0@64 rcs-gaussian, n100 ↓"] == "1.5 ± 0.1"
    assert board.shown["KID-lite0@64 rcs-gaussian, n100 ↓"].iloc[1] == "–"


def test_a_threat_model_without_attacks_has_no_column():
    none = several(60, 20, 18)
    under = {**none.under, "l2-1": UnderThreat(norm="l2", eps=1.0, figures={})}
    (board,) = across([record("a", threats=Threats(under=under, union=None))]).values()
    assert "union ↑" not in board.shown and "l2-1" not in " ".join(board.shown.columns)


def test_the_page_has_the_board_and_the_curves(tmp_path):
    leave(tmp_path / "a", threats=several(60, 20, 18, [point(0.0, 9), point(1.0, 4)]))
    text = write_report([tmp_path], tmp_path / "out").read_text()
    assert "digits under linf-0.125, l2-1" in text and '<section id="threat-curves">' in text
    assert "Accuracy under several threat models" in text
