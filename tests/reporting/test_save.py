"""What a browser saves and copies of the page: tables and charts, without a server."""

import io
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from cembench.reporting.leaderboard import build_boards, find_records
from cembench.reporting.page.tables import PLAIN
from tests.support.browser import needs_chromium

pytestmark = needs_chromium


@pytest.fixture
def address(report):
    return report.resolve().as_uri()


@pytest.fixture(scope="module")
def boards(kept):
    return build_boards(find_records([kept]).values())


@pytest.fixture
def tab(visit):
    return visit(permissions=["clipboard-read", "clipboard-write"])


def saved(tab, place, button):
    with tab.expect_download() as download:
        place.get_by_role("button", name=button).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def copied(tab, place, button):
    place.get_by_role("button", name=button).click()
    place.get_by_text("copied").wait_for()
    return tab.evaluate("navigator.clipboard.readText()")


def on_the_page(text):
    """Return the text of a table with the headings that the page has."""
    for start, plain in PLAIN.items():
        text = text.replace(start, plain)
    return text


def test_a_board_is_saved_as_its_csv(tab, boards):
    for place, board in zip(tab.locator(".board[data-csv]").all(), boards, strict=True):
        assert saved(tab, place, "Save CSV") == (f"{board.stem}.csv", board.csv().encode())


def test_a_board_is_copied_as_its_markdown_and_latex(tab, boards):
    for place, board in zip(tab.locator(".board[data-csv]").all(), boards, strict=True):
        table = board.markdown().partition("\n\n")[0].strip().splitlines()
        rows = copied(tab, place, "Copy Markdown").splitlines()
        assert [rows[0], *rows[2:]] == on_the_page("\n".join([table[0], *table[2:]])).splitlines()
        rows = copied(tab, place, "Copy LaTeX").splitlines()[1:]
        table = [row for row in board.latex().splitlines() if not row.startswith("%")]
        assert rows == on_the_page("\n".join(table)).splitlines()


def test_what_is_hidden_is_not_copied(tab):
    tab.get_by_label("Filter").fill("doubtful")
    board = tab.locator(".board").first
    board.get_by_text("Columns", exact=True).click()
    board.get_by_label("seed").uncheck()
    head, _, row = copied(tab, board, "Copy Markdown").strip().splitlines()
    assert row.startswith("| doubtful |") and "seed" not in head and "method" in head


def test_a_chart_is_saved_with_the_legend_of_what_is_shown(tab):
    chart = tab.locator("#curves .chart").first
    chart.locator(".legend button").filter(has_text="early").click()
    name, content = saved(tab, chart, "Save SVG")
    root = ET.fromstring(content)
    words = [text.text for text in root.findall(".//{*}text")]
    assert name == "digits-linf-0.125-curves.svg" and "<script>alert(1)</script>" in words
    assert "good" in words and "early" not in words and b"currentColor" in content
    name, content = saved(tab, chart, "Save PNG")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.width > 1000 and picture.getpixel((0, 0)) == (255, 255, 255, 255)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
