"""Runs of every kind and their page, made once for all processes of a test run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cembench.reporting.page import page, write_report
from cembench.reporting.site import write_site
from tests.conftest import made_once
from tests.support.browser import CHROMIUM, QUIET, Tabs
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
def tabs() -> Iterator[Tabs]:
    """Tabs of chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield Tabs(chromium)
        chromium.close()


@pytest.fixture
def visit(tabs: Tabs, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page, or another; at the end nothing may have gone wrong or left the page."""
    with ExitStack() as stack:

        def opened(fragment: str = "", page: Path | None = None, **options: Any) -> Any:
            place = address if page is None else page.resolve().as_uri()
            tab = stack.enter_context(tabs.lent(partial(belongs, place), **options))
            tab.goto(place + fragment)
            return tab

        yield opened


def belongs(page: str, url: str) -> bool:
    """Return whether an address is that of a page, or of an image in it or beside it."""
    beside = page.rpartition("/")[0] + "/images/"
    return url.partition("#")[0] == page or url.startswith(("data:", beside))
