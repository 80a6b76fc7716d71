"""Sections of a protocol: what one declares is in tables, on the page and among the plots."""

import pytest

from cembench.evaluation import sections
from cembench.evaluation.section import Section
from cembench.reporting.leaderboard import build_boards
from cembench.reporting.page import write_plots, write_report
from cembench.util.display.charts import Axis, Cell, Chart, Lines, Series, Table
from tests.support.pages import leave
from tests.support.records import both


def compared(records):
    severities = [1.0, 2.0, 3.0]
    series = [Series(name, severities, [0.9, 0.6, 0.2]) for name in records]
    lines = Lines(series, Axis("severity", integer=True), Axis("accuracy", percent=True))
    rows = [[Cell(name), Cell.of(0.57, "57.0% (50.0%–64.0%)")] for name in records]
    table = Table("Fog", ["run", "fog ↑"], rows)
    return [
        Chart("fog", "Corruption by fog", "Accuracy over severity.", [lines]),
        Chart("fog", "Corruption by fog", "Mean over severities.", table=table),
    ]


class Fog(Section[None, float]):
    key = result_key = "fog"

    def of(self, record):
        return 0.57

    def columns(self, result):
        return {"fog_ace": result}

    def panels(self, records):
        return compared(records)

    def details(self, result):
        return [Table("Fog by severity", ["severity"], [[Cell("hardest")]])]


@pytest.fixture
def fog(monkeypatch):
    monkeypatch.setattr(sections, "SECTIONS", [*sections.SECTIONS, Fog()])


def test_a_section_has_its_columns_in_the_table_of_networks(fog):
    (board, *_) = build_boards([both("a", 60, 1.5), both("b", 50, 1.6)])
    assert board.table["fog_ace"].tolist() == [0.57, 0.57]


def test_a_section_has_its_place_on_the_page_and_in_the_details_of_a_run(fog, tmp_path):
    leave(tmp_path / "a")
    text = write_report([tmp_path], tmp_path / "out").read_text()
    place = text[text.index('<section id="fog">') :]
    assert '<a href="#fog">Corruption by fog</a>' in text and "Fog by severity" in text
    assert "severity</text>" in place and "Accuracy over severity." in place
    assert '<a href="#run-0">a</a>' in place
    assert 'data-number="0.57" style="--share: 0.5700">57.0%<small>50.0%–64.0%</small>' in place


def test_charts_of_a_section_are_plots_and_tables_are_not(fog, tmp_path):
    leave(tmp_path / "a")
    names = [file.name for file in write_plots([tmp_path], tmp_path / "out")]
    assert names.count("digits-linf-0.125-fog.png") == 1
    assert not [name for name in names if "fog-2" in name]
