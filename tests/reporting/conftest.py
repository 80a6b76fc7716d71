"""Runs of every kind and their page, made once for all processes of a test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cembench.reporting.page import write_report
from tests.conftest import made_once
from tests.support.pages import every_kind


@pytest.fixture(scope="session")
def kept(shared: Path) -> Path:
    """Runs of every kind; do not write to them."""
    return made_once(shared / "pages" / "runs", every_kind)


@pytest.fixture(scope="session")
def report(shared: Path, kept: Path) -> Path:
    """The file with the page of these runs."""
    folder = shared / "pages" / "report"
    return made_once(folder, lambda out: write_report([kept], out)) / "index.html"
