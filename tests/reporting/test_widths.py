"""The page at three widths in two themes: nothing is cut off, hidden, or barred from anybody.

With CEMBENCH_SCREENSHOTS=DIR, pictures of all of them are kept in that folder.
"""

import itertools
import os
from pathlib import Path

import pytest

from tests.support.browser import CLIPPED, CORNER, OUTSIDE, barriers, needs_chromium

pytestmark = needs_chromium
SHOTS = os.environ.get("CEMBENCH_SCREENSHOTS")
WIDTHS = [1400, 768, 390]
EVERY = [*itertools.product(WIDTHS, ["light", "dark"])]
TRIED = EVERY if SHOTS else [(1400, "light"), (768, "light"), (390, "dark")]

UPPERMOST = """one => {
    const { x, y } = one.getBoundingClientRect();
    return y < 500 && one.contains(document.elementFromPoint(x + 5, y + 5));
}"""


def require_whole(tab, name, place=None, *, usable=True):
    """Require that all that is shown fits and can be used; keep a picture of it if wanted."""
    assert tab.evaluate(OUTSIDE) == [] and tab.evaluate(CLIPPED) == []
    width = tab.viewport_size["width"]
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert not usable or width == 768 or barriers(tab) == []  # a width between two others
    if SHOTS:
        scheme = tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches ? 'dark':'light'")
        file = Path(SHOTS) / f"{width}-{scheme}-{name}.png"
        (tab if place is None else tab.locator(place).first).screenshot(path=file)


@pytest.fixture(params=TRIED, ids=lambda one: "-".join(map(str, one)))
def tab(request, visit):
    width, scheme = request.param
    return visit(width=width, scheme=scheme)


class TestImages:
    @pytest.fixture
    def address(self, explorer):
        return explorer.resolve().as_uri()

    def test_images_are_whole_and_open_to_all(self, tab):
        require_whole(tab, "top", usable=False)
        tab.evaluate("location.hash = document.querySelector('tr[data-run]').dataset.run")
        drawer = tab.locator("dialog[open]")
        drawer.locator("article").first.wait_for()
        drawer.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true })")
        require_whole(tab, "images", usable=False)
        drawer.get_by_label("Beside").select_option(index=1)
        drawer.get_by_label("Class", exact=True).select_option("8")
        require_whole(tab, "compared")
        tab.keyboard.press("Escape")
        picture = tab.locator("#samples img[data-samples]").first
        assert picture.evaluate(CORNER) == 0  # white paper would be a slab in the dark
        picture.focus()
        tab.keyboard.press("Enter")
        require_whole(tab, "sample")
        tab.keyboard.press("Escape")
        require_whole(tab, "samples", "#samples", usable=False)


class TestCharts:
    @pytest.fixture
    def address(self, report):
        return report.resolve().as_uri()

    def test_charts_and_warnings_are_whole_and_open_to_all(self, tab):
        tab.get_by_text("Columns", exact=True).first.click()
        require_whole(tab, "columns")
        tab.keyboard.press("Escape")
        for kind in ("plane", "curves", "energies", "calibration") if SHOTS else ():
            require_whole(tab, kind, f"#{kind}", usable=False)
        tab.get_by_label("Filter").fill("no such run")
        assert tab.get_by_text("nothing found").is_visible()
        require_whole(tab, "nothing", usable=False)
        tab.get_by_label("Filter").fill("")
        tab.evaluate("location.hash = 'run-1'")
        tab.locator("dialog[open]").wait_for()
        require_whole(tab, "drawer")

    @pytest.mark.parametrize("width", WIDTHS[1:])
    def test_the_navigation_leads_to_each_section(self, visit, width):
        tab = visit(width=width)
        for link in tab.locator("nav a").all():
            tab.evaluate("scrollTo(0, 0)")
            link.click()
            place = tab.locator(link.get_attribute("href")).get_by_role("heading").first
            tab.wait_for_function("scrollY > 0 || location.hash === '#leaderboards'")
            assert place.evaluate(UPPERMOST)


def test_the_page_of_a_data_set_of_a_site_is_whole_and_open_to_all(tabs, site):
    with tabs.lent(width=1400) as tab:
        tab.goto(next(site.glob("sets/digits-*/index.html")).resolve().as_uri())
        require_whole(tab, "site")
