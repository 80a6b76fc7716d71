"""The site in a real browser, opened as a folder and from a server in a sub-path."""

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.browser import CLIPPED, barriers, location, needs_chromium
from tests.support.pages import HOSTILE

pytestmark = needs_chromium


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@contextmanager
def served(folder):
    """Serve the folder around a site, and yield the address of the site."""
    handler = partial(Quiet, directory=folder.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{folder.name}"
        server.shutdown()


@pytest.fixture(params=["file", "http"])
def address(request, site):
    if request.param == "file":
        yield site.resolve().as_uri()
        return
    with served(site) as place:
        yield place


@pytest.fixture
def tab(tabs, address):
    """A tab; when the test is over nothing may have gone wrong or left the site."""
    inside = f"{address}/", "data:"
    with tabs.lent(lambda url: url.startswith(inside), height=900) as tab:
        tab.goto(f"{address}/index.html")
        yield tab


def test_a_search_leads_to_a_run_whose_images_can_be_explored(tab):
    field = tab.get_by_role("searchbox", name="Search")
    field.fill("digits trades")
    tab.locator("#found a").first.wait_for()
    assert tab.locator("#found").get_by_text("Nothing").count() == 0
    field.press("ArrowDown")
    assert tab.evaluate("document.activeElement.parentNode.id") == "found"
    field.press("Escape")
    assert not tab.locator("#found").is_visible()
    field.fill("no such run")
    assert tab.get_by_text("Nothing found").is_visible()
    field.fill("method trades")
    field.press("Enter")
    tab.wait_for_url("**/methods/trades/index.html")
    tab.locator(".board tbody tr[data-run] td").first.click()
    tab.wait_for_url("**/runs/trades-*/index.html*")
    cards = tab.locator(".list article")
    cards.first.wait_for()
    assert cards.count() == 16
    tab.locator("select[name=result]").select_option("broken")
    broken = cards.count()
    assert 0 < broken < 16 and cards.first.locator("canvas").count() == 3
    colours = cards.first.locator("canvas").nth(1).evaluate("one => one.width * one.height")
    assert colours > 0 and "result=broken" in location(tab)
    tab.reload()
    cards.first.wait_for()
    assert cards.count() == broken
    tab.locator("select[name=result]").select_option("")
    tab.locator("select[name=with]").select_option(label="at")
    tab.locator("article h4").get_by_text("at", exact=True).first.wait_for()
    assert cards.count() == 16 and "with=at-" in location(tab)
    tab.locator("img[data-samples]").first.click(position={"x": 130, "y": 40})
    assert tab.locator("dialog.look[open]").get_by_text("nearest training image").is_visible()


@pytest.mark.parametrize("address", ["file"], indirect=True)
def test_a_data_set_filters_sorts_and_leads_to_its_runs(tab):
    tab.locator("#sets").get_by_role("link", name="digits, linf-0.125", exact=True).click()
    tab.wait_for_url("**/sets/digits-linf-0.125/index.html")
    board = tab.locator(".board").first
    tab.get_by_label("Filter").fill("doubtful")
    assert board.locator("tbody tr:visible").count() <= 1
    tab.get_by_label("Filter").fill("")
    assert tab.evaluate(CLIPPED) == []
    assert tab.locator("main").get_by_text(HOSTILE).first.is_visible()
    image = tab.locator("#samples img").first
    image.scroll_into_view_if_needed()
    image.evaluate("one => one.decode()")
    tab.locator("#plane svg a").first.click()
    tab.wait_for_url("**/runs/*/index.html#*")
    assert tab.locator("main.run h1").first.is_visible()
    tab.go_back()
    tab.locator("#theme").click()
    colour = "getComputedStyle(document.body).backgroundColor"
    chosen = tab.evaluate(colour)
    tab.get_by_role("link", name="All results").click()
    tab.wait_for_url("**/site/index.html", wait_until="load")
    assert tab.evaluate(colour) == chosen


@pytest.mark.parametrize("address", ["file"], indirect=True)
def test_every_kind_of_page_fits_a_phone_and_bars_nobody(tab, address, site):
    for kind in ("sets/digits-*", "methods/at", "tables/*", "runs/at-*", "."):
        file = sorted(site.glob(f"{kind}/index.html"))[0].relative_to(site)
        for width, scheme in ((390, "dark"), (768, "light")):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.emulate_media(color_scheme=scheme)
            tab.goto(f"{address}/{file.as_posix()}")
            assert tab.evaluate("document.documentElement.scrollWidth") == width, file
        if "sets" not in file.parts:  # its parts are those of the report, which has such a test
            assert barriers(tab) == [], file
