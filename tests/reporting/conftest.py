"""Runs of every kind and their page, made once for all processes of a test run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cembench.reporting.page import page, write_report
from cembench.reporting.site import write_site
from tests.conftest import made_once
from tests.support.browser import CHROMIUM, QUIET
from tests.support.pages import every_kind

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
REFERENCE = LEADERBOARDS / "reference"


@pytest.fixture(scope="session")
def kept(shared: Path) -> Path:
    """Runs of every kind; do not write to them."""
    return made_once(shared / "pages" / "runs", every_kind)


@pytest.fixture(scope="session")
def report(shared: Path, kept: Path) -> Path:
    """The file with the page of these runs."""
    folder = shared / "pages" / "report"
    return made_once(folder, lambda out: write_report([kept], out)) / "index.html"


@pytest.fixture(scope="session")
def attacked(shared: Path) -> Path:
    """Two run folders with the adversarial images of one protocol; do not write to them."""

    def make(out: Path) -> None:
        for name in ("at", "trades"):
            shutil.copytree(
                REFERENCE / name, out / name, ignore=shutil.ignore_patterns("standard-*")
            )

    return made_once(shared / "pages" / "attacked", make)


@pytest.fixture(scope="session")
def explorer(shared: Path, attacked: Path) -> Path:
    """The file with the page of these runs."""
    folder = shared / "pages" / "explorer"
    return made_once(folder, lambda out: write_report([attacked], out)) / "index.html"


@pytest.fixture(scope="session")
def scarce(shared: Path, attacked: Path, explorer: Path) -> Path:
    """The file with the same page, which has room for the images of one run alone."""

    def make(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(page, "LIMIT", explorer.stat().st_size - 1000)
            write_report([attacked], out)

    return made_once(shared / "pages" / "scarce", make) / "index.html"


@pytest.fixture(scope="session")
def site(shared: Path, kept: Path, attacked: Path) -> Path:
    """A site of runs of every kind, of two with their images, and of tables without records."""

    def make(out: Path) -> None:
        tables = out / "tables" / "orderings"
        tables.mkdir(parents=True)
        for file in (LEADERBOARDS / "orderings").glob("digits-linf*"):
            shutil.copy(file, tables)
        write_site([kept, attacked, tables.parent], out / "site", 16)

    return made_once(shared / "pages" / "site", make) / "site"


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page; when the test is over nothing may have gone wrong or left the page."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def opened(width: int = 1280, scheme: str = "light", fragment: str = "", **more: Any) -> Any:
        size = {"width": width, "height": 800}
        context = browser.new_context(viewport=size, color_scheme=scheme, **more)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (wrong.append("a script ran"), dialog.dismiss()))
        tab.on("request", lambda request: inside(request.url) or wrong.append(request.url))
        tab.goto(address + fragment)
        return tab

    def inside(url: str) -> bool:
        beside = address.rpartition("/")[0] + "/images/"
        return url.partition("#")[0] == address or url.startswith(("data:", beside))

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
