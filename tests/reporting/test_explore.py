"""The page answers the mouse and the keyboard: images, samples, charts, columns, its address."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from cembench.data.split import fixed_permutation
from cembench.evaluation.record.files import load_table
from cembench.evaluation.sections.counterfactuals import CounterfactualFigures, Counterfactuals
from cembench.evaluation.statistics import rate
from cembench.reporting.page import write_report
from cembench.util.display.cells import EDITED
from cembench.util.display.image_grid import strips
from cembench.util.files.layout import RunLayout
from tests.support.browser import CORNER, location, needs_chromium, until
from tests.support.pages import BARE, HOSTILE, encoder, leave
from tests.support.records import touch

pytestmark = needs_chromium
NAME = "baseline-e1e984"


@pytest.fixture
def address(explorer):
    return explorer.resolve().as_uri()


def shown(attacked, run):
    """Return the verdicts on the images that the page shows of a run."""
    table = load_table(attacked / run / "eval" / f"{NAME}.json")
    chosen = table.iloc[sorted(fixed_permutation(len(table))[:64].tolist())]
    broken = chosen[[name for name in chosen if name.endswith("_broken")]]
    return chosen.assign(any=broken.any(axis=1), right=chosen["clean_pred"] == chosen["label"])


def opened(tab, run="at"):
    row = tab.locator(".board").first.locator("tbody tr").filter(has_text=run).first
    row.locator("td").nth(2).click()
    dialog = tab.locator("dialog[open]")
    dialog.locator("article").first.wait_for()
    return dialog


def choose(dialog, label, option):
    dialog.get_by_label(label, exact=True).select_option(option)
    return dialog.locator("article").count()


def figures(eps):
    reached = rate(pd.Series([True, False]))
    values = {"eps": eps, "norm": "l2", "reached": reached, "distance": 0.5, "confidence": 0.9}
    return CounterfactualFigures(**values)


PIXELS = """canvas => {
    const all = [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
    return all.filter((_, place) => place % 4 === 0);
}"""


def test_a_row_opens_its_images_with_filters(visit, attacked):
    dialog, table = opened(visit()), shown(attacked, "at")
    assert dialog.get_by_text("64 of 64 images").is_visible()
    assert dialog.get_by_text("a fixed random choice").is_visible()
    assert choose(dialog, "Result", "attack succeeds") == table["any"].sum()
    first = dialog.locator("article").first
    assert first.locator("canvas").count() == 3
    words = first.text_content()
    assert "clean: " in words and "adversarial: " in words and "log p" in words
    assert "linf 0.125" in words and " succeeds, " in words
    clean, other, change = (first.locator("canvas").nth(n).evaluate(PIXELS) for n in range(3))
    told = [min(255, max(0, 128 + 4 * (b - a))) for a, b in zip(clean, other, strict=True)]
    assert clean != other and all(abs(a - b) <= 4 for a, b in zip(told, change, strict=True))
    assert choose(dialog, "Attack", "fgsm") == table["fgsm_broken"].sum()
    eights = table[table["fgsm_broken"] & (table["label"] == 8)]
    assert choose(dialog, "Class", "8") == len(eights)
    choose(dialog, "Attack", "any"), choose(dialog, "Class", "all")
    assert choose(dialog, "Result", "survives") == (table["right"] & ~table["any"]).sum()
    assert choose(dialog, "Result", "misclassified") == (~table["right"]).sum()


def test_two_runs_stand_side_by_side_on_the_same_image(visit, attacked):
    tab = visit()
    dialog = opened(tab)
    ours, theirs = (shown(attacked, run).set_index("index") for run in ("at", "trades"))
    kept = [table["right"] & ~table["any"] for table in (ours, theirs)]
    choose(dialog, "Beside", "trades")
    assert choose(dialog, "Result", "lost here, kept there") == (~kept[0] & kept[1]).sum() > 0
    assert dialog.locator("article").first.locator(".one").count() == 2
    assert choose(dialog, "Result", "kept here, lost there") == (kept[0] & ~kept[1]).sum()
    address = location(tab)
    again = visit(fragment=f"#{address.partition('#')[2]}")
    again.locator("dialog[open] article, dialog[open] [role=status]").first.wait_for()
    assert again.locator("dialog[open] select[name=result]").input_value() == "won"
    assert again.locator("dialog[open] select[name=with]").input_value() != ""


def test_names_of_runs_and_their_classes_stay_text(visit, attacked, tmp_path):
    for name in ("at", "trades"):
        shutil.copytree(attacked / name, tmp_path / name)
        touch(tmp_path / name / f"eval/{NAME}.json", ("run", f"{HOSTILE} {name}"))
    tab = visit(page=write_report([tmp_path], tmp_path / "out"))
    dialog = opened(tab, "trades")
    choose(dialog, "Beside", f"{HOSTILE} at")
    assert f"{HOSTILE} at" in dialog.locator("article h4").all_text_contents()
    assert tab.locator("script").count() == 1


def test_images_beside_the_page_are_shown_too(tabs, scarce, tmp_path):
    written = Path(shutil.copytree(scarce.parent, tmp_path / "page")) / scarce.name
    (file,) = (written.parent / "images").iterdir()
    with tabs.lent() as tab:
        for there in (True, False):
            tab.goto(written.resolve().as_uri())
            tab.goto(f"{written.resolve().as_uri()}#{file.name.rpartition('-')[0]}")
            place = tab.locator("dialog[open] .images")
            if there:
                place.locator("article").first.wait_for()
                file.unlink()
            else:
                place.get_by_text(f"images/{file.name} was not found").wait_for()
            tab.goto("about:blank")


def test_a_sample_shows_where_it_began_and_what_is_nearest(visit):
    tab = visit()
    picture = tab.locator("#samples img[data-samples]").first
    scale = picture.evaluate("one => one.clientWidth / one.naturalWidth")
    where = {"x": (80 + 288 + 34 + 10) * scale, "y": (16 + 3 * 34 + 10) * scale}
    picture.click(position=where)
    look = tab.locator("dialog.look")
    titles = ["initial image", "sample", "nearest training image"]
    assert look.locator("figcaption").all_text_contents()[:3] == titles
    assert look.get_by_role("heading", name="row 4, column 2").is_visible()
    assert look.get_by_text("were not kept").is_visible()
    look.get_by_role("button", name="left").click()
    assert look.get_by_text("Its chain").is_visible() and look.locator("canvas").count() > 6
    images = [look.locator("canvas").nth(n).evaluate(PIXELS) for n in range(2)]
    steps = look.locator(".small canvas")
    assert steps.first.evaluate(PIXELS) == images[0] and steps.last.evaluate(PIXELS) == images[1]
    tab.keyboard.press("Escape")
    picture.focus()
    tab.keyboard.press("Enter")
    assert look.get_by_role("heading", name="row 1, column 1").is_visible()


def test_the_keyboard_reaches_everything_and_returns_to_where_it_was(visit):
    tab = visit()
    focused = "document.activeElement.textContent.trim() || document.activeElement.tagName"
    tab.keyboard.press("Tab")
    assert tab.evaluate(focused) == "Leaderboards"
    link = tab.locator(".board").first.locator("tbody a").first
    link.focus()
    tab.keyboard.press("Enter")
    tab.locator("dialog[open] article").first.wait_for()
    for _ in range(8):
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.closest('dialog[open]') !== null")
    tab.keyboard.press("Escape")
    until(link, "link => link === document.activeElement")
    tab.locator(".board").first.locator("tbody td").nth(3).click()
    tab.locator("dialog[open]").wait_for()
    tab.keyboard.press("Escape")
    until(tab, "!document.querySelector('dialog[open]') && !location.hash")
    until(link, "link => link === document.activeElement")
    columns = tab.locator(".columns summary").first
    columns.focus()
    tab.keyboard.press("Enter"), tab.keyboard.press("Tab"), tab.keyboard.press("Space")
    assert tab.get_by_label("method").first.is_visible() and "columns=0.1" in location(tab)
    tab.keyboard.press("Escape")
    until(columns, "one => one === document.activeElement && !one.parentNode.open")
    picture = tab.locator("#samples img[data-samples]").first
    picture.focus()
    tab.keyboard.press("Space")
    look = tab.locator("dialog.look")
    tab.keyboard.press("ArrowRight"), tab.keyboard.press("ArrowDown"), tab.keyboard.press("ArrowUp")
    assert look.get_by_role("heading", name="row 1, column 2").is_visible()
    tab.keyboard.press("Escape")
    until(picture, "one => one === document.activeElement")
    assert not look.is_visible()


def test_a_counterfactual_shows_what_it_was(visit, tmp_path):
    balls = {"counterfactual-l2-1": figures(1.0)}
    made = Counterfactuals(confidence=0.9, originals=figures(0.0), balls=balls)
    path = leave(tmp_path / "run", counterfactuals=made, generation=None, **BARE)
    file = RunLayout.picture(path, "counterfactual-l2-1")
    file.parent.mkdir()
    shades = [torch.full((12, 1, 8, 8), shade) for shade in (0.25, 0.5, 0.75)]
    texts = {title: ["\n".join("x" * n)] * 12 for title, n in EDITED.items() if n}
    file.write_bytes(strips(dict(zip(EDITED, shades, strict=True)), texts))
    tab = visit(page=write_report([tmp_path], tmp_path))
    picture = tab.locator("#samples img").first
    assert picture.get_attribute("class") is None and picture.evaluate(CORNER) == 0
    scale = picture.evaluate("one => one.clientWidth / one.naturalWidth")
    picture.click(position={"x": (132 + 66 + 10) * scale, "y": (237 + 10) * scale})
    look = tab.locator("dialog.look")
    assert look.get_by_role("heading").text_content() == "counterfactual in row 2, column 2"
    assert look.locator("figcaption").all_text_contents() == list(EDITED)
    assert [set(look.locator("canvas").nth(n).evaluate(PIXELS)) for n in range(3)] == [
        {64},
        {128},
        {191},
    ]


@pytest.mark.parametrize("kind", ["encoders", "errors", "nothing"])
def test_a_page_without_classifiers_or_figures_works(visit, tmp_path, kind):
    nothing = {"figures": {}, "curve": [], "density": None, "sanity": [], "generation": None}
    for name in "ab":
        values = {"pictures": False, "history": False}
        if kind == "errors":
            leave(tmp_path / "runs" / name, error="it diverged", **nothing, **values)
        else:
            lost = {"error": "it diverged", "generation": None} if kind == "nothing" else {}
            encoder(tmp_path / "runs" / name, **lost, **values)
    tab = visit(page=write_report([tmp_path / "runs"], tmp_path / "out"))
    assert tab.get_by_text("no figures to rank").count() == (kind == "nothing")
    assert tab.get_by_label("Filter").is_visible() == (kind != "nothing")
    assert tab.locator(".attention li").count() == (0 if kind == "encoders" else 2)
    tab.evaluate("location.hash = 'run-1'")
    assert tab.locator("dialog[open] h1").text_content().startswith("b")


def test_a_filter_that_nothing_fits_says_so(visit, attacked):
    tab = visit(fragment="#?filter=no+such+run")
    assert tab.locator("#matches").text_content() == "nothing found"
    assert not tab.locator("#samples").is_visible()
    tab.get_by_label("Filter").fill("")
    assert tab.locator("#samples").is_visible()
    dialog = opened(tab)
    assert choose(dialog, "Class", "0") > 0
    fewest = min("0123456789", key=lambda one: choose(dialog, "Class", one))
    choose(dialog, "Class", fewest), choose(dialog, "Result", "misclassified")
    assert dialog.get_by_text("nothing found").is_visible()


@pytest.fixture(scope="module")
def charts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("charts")
    for number in range(2):
        leave(folder / f"run-{number}-with-a-name-that-is-long", 40 + number, 1.0 + number)
    return write_report([folder], folder)


class TestCharts:
    @pytest.fixture
    def address(self, charts):
        return charts.resolve().as_uri()

    def test_a_value_is_named_below_the_mouse_and_leads_to_its_run(self, visit):
        tab = visit()
        chart = tab.locator("#curves svg")
        chart.scroll_into_view_if_needed()
        x, y = chart.evaluate(
            """svg => {
            const [, , [[x, y]]] = JSON.parse(svg.dataset.points)[0];
            const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
            return [at.x, at.y];
        }"""
        )
        tab.mouse.move(x, y)
        assert tab.locator("#tip b").text_content().startswith("run-")
        assert "ε 0, accuracy under attack: 90.0 %" in tab.locator("#tip").text_content()
        tab.mouse.click(x, y)
        tab.locator("dialog[open]").wait_for()
        heading = tab.locator("dialog[open] h1").text_content()
        assert tab.locator("#tip b").text_content() in heading
        row = tab.locator("main tbody tr[data-run]").filter(has_text=heading.strip()).first
        place = row.bounding_box()
        assert 0 < place["y"] < 800

    def test_arrow_keys_step_from_value_to_value(self, visit):
        tab = visit()
        tab.locator("#calibration svg").focus()
        tab.keyboard.press("ArrowRight")
        first = tab.locator("#tip").text_content()
        assert "confidence 80.0 %, accuracy: 70.0 %" in first
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#tip b").text_content() not in first
        tab.keyboard.press("Escape")
        assert not tab.locator("#tip").is_visible()
        tab.keyboard.press("ArrowLeft"), tab.keyboard.press("Enter")
        tab.locator("dialog[open]").wait_for()

    def test_the_legend_hides_a_run_in_all_charts_and_the_address_keeps_it(self, visit):
        tab = visit()
        entry = tab.locator("#curves .legend button").first
        run = entry.get_attribute("data-hides")
        assert tab.locator(".off").count() == 0 and entry.get_attribute("aria-pressed") == "true"
        entry.focus()
        tab.keyboard.press("Enter")
        for one in (tab, visit(fragment="#" + location(tab).partition("#")[2])):
            parts = one.locator(f'[data-of="{run}"]').all()
            assert len(parts) > 4 and not any(part.is_visible() for part in parts)
            assert one.locator(".off").count() == len(parts)
            entry = one.locator("#curves .legend button").first
            assert entry.get_attribute("aria-pressed") == "false"
        entry.click()
        assert one.locator(".off").count() == 0 and "#" not in location(one)

    def test_a_filter_hides_charts_and_samples_too(self, visit):
        tab = visit(fragment="#?filter=run-1")
        assert tab.locator("#matches").text_content().startswith("4 of ")
        cards = tab.locator("#samples figure[data-run]:visible figcaption").all_text_contents()
        assert cards and all("run-1" in card for card in cards)
        shown = tab.locator("#curves [data-of]:not(.off)").all()
        assert len({part.get_attribute("data-of") for part in shown}) == 1

    def test_columns_hide_and_links_of_the_page_keep_it(self, visit):
        tab = visit()
        board = tab.locator(".board").first
        board.get_by_text("Columns", exact=True).click()
        board.get_by_label("seed").uncheck()
        head = board.locator("thead th").filter(has_text="seed")
        assert not head.is_visible()
        board.get_by_role("button", name="clean").click()
        tab.locator("nav a").last.click()
        until(tab, "location.hash.startsWith('#samples?')")
        again = visit(fragment="#" + location(tab).partition("#")[2])
        board = again.locator(".board").first
        assert not board.locator("thead th").filter(has_text="seed").is_visible()
        assert board.locator("[aria-sort=descending]").text_content().startswith("clean")
        assert again.evaluate("scrollY") > 500

    def test_what_goes_on_to_the_right_has_a_sign(self, visit):
        tab = visit(width=390)
        board = tab.locator(".board").first
        assert "more" in board.get_attribute("class").split()
        box = board.locator(".scroll")
        box.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
        until(tab, "!document.querySelector('.board').classList.contains('more')")
        wide = visit(width=3000).locator(".board").first
        assert "more" not in wide.get_attribute("class").split()

    def test_paper_gets_the_tables_and_no_controls(self, visit):
        tab = visit(scheme="dark")
        tab.emulate_media(media="print")
        assert tab.locator(".board table").first.is_visible()
        assert not tab.locator("header").is_visible()
        assert not tab.locator(".columns").first.is_visible()
        ink = tab.evaluate("getComputedStyle(document.body).color")
        assert sum(int(part) for part in ink.strip("rgb()").split(",")) < 200
        assert not tab.locator(".save").first.is_visible()
        tab.evaluate("location.hash = document.querySelector('tr[data-run]').dataset.run")
        tab.locator("dialog[open]").wait_for()
        assert not tab.locator("main").is_visible()

    def test_without_scripts_all_tables_and_charts_are_there(self, visit):
        tab = visit(java_script_enabled=False)
        assert tab.locator(".board table").first.is_visible()
        assert tab.locator("dialog table").first.is_visible()
        assert tab.locator("#curves .legend").is_visible()
        assert tab.locator("#curves svg").is_visible()
