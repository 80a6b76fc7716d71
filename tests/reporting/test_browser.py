"""The page in a real browser: what a person does with it, and what it must never do."""

import math

import pytest

from cembench.reporting.page import write_report
from tests.support.browser import CLIPPED, needs_chromium, until
from tests.support.pages import HOSTILE, leave

pytestmark = needs_chromium


@pytest.fixture
def address(report):
    return report.resolve().as_uri()


def cells(tab, heading, board=0):
    """Return the cells below a heading as (text, number), from top to bottom."""
    return (
        tab.locator(".board")
        .nth(board)
        .evaluate(
            """(board, heading) => {
            const heads = [...board.querySelectorAll("thead th")];
            const place = heads.findIndex((head) => head.textContent.trim().startsWith(heading));
            return [...board.querySelectorAll("tbody tr:not([hidden])")].map((row) => {
                const cell = row.cells[place];
                return [cell.textContent.trim(), cell.dataset.number ?? null];
            });
        }""",
            heading,
        )
    )


def numbers(tab, heading):
    return [float(number) for _, number in cells(tab, heading)]


def head(tab, heading):
    return tab.locator(".board").first.get_by_role("button", name=heading)


def test_a_click_sorts_by_numbers_and_another_one_the_other_way(visit):
    tab = visit()
    before = numbers(tab, "KID")
    head(tab, "KID-lite0").click()
    rising = numbers(tab, "KID")
    known = [value for value in rising if not math.isnan(value)]
    assert known == sorted(known) == [0.5, 1.0, 1.5, 10.0] and math.isnan(rising[-1])
    assert rising != before  # as text, 10.0 would stand before 1.5
    head(tab, "KID-lite0").click()
    falling = numbers(tab, "KID")
    assert falling[:4] == [10.0, 1.5, 1.0, 0.5] and math.isnan(falling[-1])


def test_headings_of_boards_are_those_of_the_details(visit):
    text = visit().locator("main").text_content()
    for words in ("KID improvement over init", "KID of initial images", "classifier agreement"):
        assert words in text
    assert "its seeds" not in text and "as intended" not in text


def test_sorting_is_told_to_those_who_do_not_see_it_and_needs_no_mouse(visit):
    tab = visit()
    button = head(tab, "autoattack")
    button.focus()
    tab.keyboard.press("Enter")
    sort = button.locator("..")
    assert sort.get_attribute("aria-sort") == "descending"
    assert [text[:5] for text, _ in cells(tab, "autoattack")][:2] == ["99.0%", "60.0%"]
    tab.keyboard.press("Space")
    assert sort.get_attribute("aria-sort") == "ascending"
    head(tab, "run").click()
    assert sort.get_attribute("aria-sort") == "none"
    names = [text for text, _ in cells(tab, "run")]
    assert names[0].startswith("<script>") and names[-1].startswith("good")


def test_a_filter_leaves_the_rows_with_all_its_words(visit):
    tab = visit()
    rows = len(cells(tab, "run"))
    tab.get_by_label("Filter").fill("GOOD 60.0%")
    assert [text for text, _ in cells(tab, "run")] == ["good"]
    assert tab.locator("#matches").text_content().startswith("1 of ")
    tab.get_by_label("Filter").fill("no such run")
    assert cells(tab, "run") == [] and not tab.locator(".board").first.is_visible()
    tab.get_by_label("Filter").fill("")
    assert len(cells(tab, "run")) == rows


def test_a_row_opens_what_is_known_of_it(visit):
    tab = visit()
    row = tab.locator(".board").first.locator("tbody tr").filter(has_text="doubtful")
    row.locator("td").nth(2).click()
    details = tab.locator("dialog[open]")
    assert details.get_by_role("heading", level=1).text_content().startswith("doubtful")
    for text in ("black_box_wins", "Square wins", "fingerprint f", "rcs-noise: initial images"):
        assert details.get_by_text(text, exact=False).first.is_visible()
    assert details.locator("svg").count() == 1
    pictures = details.locator("img:visible")
    assert pictures.count() == 2
    assert pictures.first.evaluate("picture => picture.complete && picture.naturalWidth") > 100
    tab.keyboard.press("Escape")
    until(tab, "!document.querySelector('dialog[open]') && !location.hash")
    tab.locator("#plane svg a").first.click()
    tab.locator("dialog[open]").wait_for()
    tab.go_back()
    tab.locator("dialog[open]").wait_for(state="detached")


def test_an_address_leads_to_a_run_and_the_keyboard_to_all(visit):
    tab = visit(fragment="#run-2")
    assert tab.locator("dialog[open]").get_attribute("id") == "run-2"
    tab.get_by_label("Close").locator("visible=true").click()
    link = tab.locator(".board").first.locator("tbody a").first
    link.focus()
    tab.keyboard.press("Enter")
    tab.locator("dialog[open]").wait_for()
    opened = tab.locator("dialog[open]").get_attribute("id")
    assert link.get_attribute("href") == f"#{opened}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light_follow_the_system_and_then_the_button(visit, scheme):
    tab = visit(scheme=scheme)

    def brightness():
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(",")) / 3

    first = brightness()
    assert (first < 60) if scheme == "dark" else (first > 200)
    button = tab.get_by_role("button", name="Dark")
    assert button.get_attribute("aria-pressed") == str(scheme == "dark").lower()
    button.click()
    assert (brightness() < 60) != (first < 60)
    ink = tab.locator("#plane svg text").first.evaluate("text => getComputedStyle(text).fill")
    assert ink == tab.evaluate("getComputedStyle(document.querySelector('#plane')).color")


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_only_tables_and_charts_scroll_sideways(visit, width):
    tab = visit(width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    tab.locator("tbody tr[data-run] a").first.click()
    dialog = tab.locator("dialog[open]")
    assert dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0


def test_heads_stay_in_sight_while_a_table_scrolls(visit):
    tab = visit(width=600)
    box = tab.locator(".board .scroll").first
    box.evaluate("box => { box.style.maxHeight = '160px'; box.scrollTo(200, 120) }")
    place = box.bounding_box()
    top = tab.locator(".board thead th").first.bounding_box()
    left = tab.locator(".board tbody tr").last.locator("th").bounding_box()
    assert abs(top["y"] - place["y"]) < 3 and abs(left["x"] - place["x"]) < 3


def test_names_that_look_like_scripts_stay_text(visit):
    tab = visit()
    assert tab.locator("script").count() == 1
    tab.locator(".board").first.get_by_role("link", name=HOSTILE).click()
    tab.locator("dialog[open]").wait_for()
    assert HOSTILE in tab.locator("dialog[open] h1").text_content()
    assert HOSTILE in tab.locator("dialog[open] dl").text_content()
    assert tab.locator("#curves .legend").get_by_text(HOSTILE, exact=True).is_visible()


@pytest.mark.parametrize("runs", [1, 4])
def test_no_text_of_a_chart_is_cut_off(visit, tmp_path, runs):
    for number in range(runs):
        name = f"run {number} with a name that is long"
        leave(tmp_path / name, 40 + number, 1.0 + number, pictures=False, history=runs == 1)
    tab = visit(page=write_report([tmp_path], tmp_path))
    assert tab.locator("#calibration svg text").count() > runs
    assert tab.evaluate(CLIPPED) == []
