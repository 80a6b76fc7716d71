"""Names and messages of strangers stay text, wherever results are shown, saved and copied."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from cembench.evaluation.record.files import load_record
from cembench.evaluation.sections.sanity import SanityCheck
from cembench.interop.exporting.huggingface import FIELDS, card
from cembench.models.source import ModelSource
from cembench.reporting.leaderboard import build_boards
from cembench.reporting.page import write_report
from cembench.reporting.page.images import Sheet
from cembench.util.display.latex import NAMED
from cembench.util.files.names import shown
from tests.reporting.conftest import REFERENCE
from tests.support.browser import needs_chromium
from tests.support.pages import BARE, leave
from tests.support.records import PLAN, both

HOSTILE = {
    "script": "</script></svg><script>alert(1)</script>",
    "attribute": '" autofocus onfocus="alert(1)" \' onclick=\'alert(1)',
    "markdown": "[x](javascript:alert(1)) | `code` **bold** __bold__ ~~gone~~ \\| <i> &lt; $x$",
    "picture": "![x](http://example.org/x.png) <http://example.org>",
    "formula": '=HYPERLINK("http://example.org";"x")',
    "other formula": "@SUM(1)|cmd",
    "latex": '[1pt] \\input{x} \\\\ $x^2$ 50% & #1 _a_ {b} ~ " * |',
    "terminal": "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "direction": "\u202egnp.exe\u2066 \u200f\u200b",
    "lines": "one\ntwo\r\n| three\u2028four",
    "long": "n" * 400,
    "odd": "$\\frac{$ \x01\n</svg><b>'\"",
    "emoji": "🦙 naïve ε\ufeff",
}
ALL = [pytest.param(text, id=name) for name, text in HOSTILE.items()]


def everywhere(text):
    """Return changes of a record by which every text in it is this one."""
    check = SanityCheck(name="zero_gradients", verdict="fail", figure=0.1, meaning=text)
    names = {"run": text, "method": text, "model": text, "inputs": {text: text}}
    plan = {**PLAN, "name": text, "attacks": [{"name": text}], text: text}
    more = {
        "environment": {"device": text, "torch": text, "cembench": text},
        "inputs": {text: text},
    }
    return {**names, **more, "protocol": plan, "sanity": [check], "warnings": [text]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for number, text in enumerate(HOSTILE.values()):
        first = {"pictures": True} if number == 0 else {**BARE, "pictures": False}
        leave(folder / f"{number}", 40 + number, **everywhere(text), **first)
        nothing = {"figures": {}, "curve": [], "density": None, "generation": None, "sanity": []}
        error = {"run": f"failed {number}", "error": text, "dataset": text, **nothing}
        leave(folder / f"failed {number}", pictures=False, history=False, **error)
    return folder


@pytest.fixture(scope="module")
def boards(runs):
    return build_boards(load_record(path) for path in sorted(runs.glob("*/eval/*.json")))


def inside(text, whole):
    """Return whether a text is there as it is shown, as a whole or cut off, and is only shown."""
    plain = (" ".join(one.split()) for one in (whole, shown(text)))
    return (lambda there, wanted: wanted in there)(*plain)


class Read(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def require_text(html, *texts):
    read = Read(html)
    for name, value in read.attributes:
        assert not name.startswith("on") and name != "autofocus"
        assert name not in ("href", "src") or value.startswith(("#", "data:"))
    assert read.elements.count("script") <= 1 and "i" not in read.elements
    for text in texts:
        assert inside(text, "".join(read.text)), text
    return read


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return write_report([runs], tmp_path_factory.mktemp("page"))


def test_on_the_page(page):
    text = page.read_text()
    read = require_text(text, *HOSTILE.values())
    assert "<script>alert(1)" not in text and "&lt;script&gt;alert(1)" in text
    seen = "".join(read.text) + "".join(value or "" for _, value in read.attributes)
    hidden = {letter for letter in seen if not letter.isprintable()} - {"\n", "\N{NO-BREAK SPACE}"}
    assert hidden == set()
    (points, *_) = [json.loads(value) for name, value in read.attributes if name == "data-points"]
    assert all(name.isprintable() for name, _, _ in points)


@needs_chromium
class TestBrowser:
    @pytest.fixture
    def address(self, page):
        return page.resolve().as_uri()

    def test_nothing_runs_and_nothing_is_too_wide(self, visit):
        tab = visit(width=390)
        for run in tab.locator("dialog[id]").evaluate_all("all => all.map((one) => one.id)"):
            tab.evaluate("run => { location.hash = run }", run)
            dialog = tab.locator(f"#{run}[open]")
            assert dialog.evaluate("one => one.scrollWidth - one.clientWidth") == 0
        assert tab.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("text", ALL)
def test_in_the_facts_of_images(text):
    facts = {"run": shown(text), "classes": [shown(text)]}
    read = require_text(Sheet("run-0", b"", facts).inside())
    (told,) = [json.loads(value) for name, value in read.attributes if name == "data-images"]
    assert told == facts


def test_in_csv(boards):
    for board in boards:
        head, *rows = csv.reader(io.StringIO(board.csv()))
        assert len(rows) == len(board.table) and len(head) == len(board.table.columns)
        for cell in [*head, *(cell for row in rows for cell in row)]:
            assert cell.isprintable() and not cell.startswith(("=", "+", "@"))


RENDERED = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def rendered(text):
    """Return the elements that Markdown becomes, and the text that people read."""
    tokens = [one for token in RENDERED.parse(text) for one in (token, *(token.children or ()))]
    words = "".join(one.content for one in tokens if one.type in ("text", "code_inline"))
    return [one.type for one in tokens if one.type != "text"], words


def test_in_markdown(boards):
    runs = {cell for board in boards for cell in board.shown.iloc[:, 0]}
    for board in boards:
        own = [text for text in HOSTILE.values() if text in set(board.shown.iloc[:, 0])]
        elements, words = rendered(board.markdown())
        assert all(inside(text, words) for text in own)
        assert elements.count("tr_open") == len(board.shown) + 1
        assert elements.count("td_open") == board.shown.size
        kinds = {one.partition("_")[0] for one in elements}
        assert kinds <= {"table", "thead", "tbody", "tr", "th", "td", "inline", "paragraph"}
        assert all(line.isprintable() for line in board.markdown().split("\n"))
    assert set(HOSTILE.values()) <= runs


def plain(latex):
    """Return what LaTeX typesets, and require that it obeys nothing."""
    marks = {text: mark for mark, text in NAMED.items()}
    parts = re.split(
        f"({'|'.join(re.escape(text) for text in sorted(marks, key=len)[::-1])})", latex
    )
    assert not re.search(r"[\\{}$&#%_^~]", "".join(parts[::2]))
    return "".join(marks.get(part, part) for part in parts)


def test_in_latex(boards):
    seen = []
    for board in boards:
        lines = [line for line in board.latex().splitlines() if not line.startswith("%")]
        rows = [line.removesuffix(" \\\\") for line in lines[4:-2]]
        assert len(rows) == len(board.shown) and len(lines) == len(rows) + 6
        for row in rows:
            cells = [plain(cell) for cell in row.split(" & ")]
            assert len(cells) == len(board.shown.columns) and not row.startswith(("[", "*"))
            seen.append(cells[0])
    assert {shown(text) for text in HOSTILE.values()} <= set(seen)


def test_in_the_terminal(cembench, runs, tmp_path):
    for number, text in enumerate(HOSTILE.values()):
        done = cembench("show", runs / f"{number}/eval/standard.json")
        assert done.code == 0 and inside(text[:40], done.out)
        assert all(line.isprintable() for line in done.out.split("\n"))
        assert not any(
            line.startswith(("two", "| three", "four")) for line in done.out.splitlines()
        )
    done = cembench("leaderboard", runs, "--out", tmp_path)
    assert done.code == 0 and all(line.isprintable() for line in done.out.split("\n"))
    assert "heading_open" in rendered(next(tmp_path.glob("*.md")).read_text())[0]


@pytest.mark.parametrize("text", ALL)
def test_in_a_model_card(text):
    source = ModelSource.at(REFERENCE / "at")
    elements = []
    for name in ("plain", text):
        record = both(robust=50, kid=1.0, **everywhere(name))
        page = card(source, record, {**FIELDS, "name": name, "authors": name}, False)
        assert all(line.isprintable() for line in page.split("\n"))
        found, words = rendered(page.split("---\n\n", 1)[1])
        elements.append(found)
    assert elements[0] == elements[1] and inside(text, words)
