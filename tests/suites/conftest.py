"""A stored suite of three experiments."""

import pytest

from cembench.suites.run import SuiteRun
from tests.suites.test_suites import suite

NAMES = ["standard.s0", "standard.s1", "standard.s2"]
GRID = {"method.name": ["standard"], "seed": [0, 1, 2]}


@pytest.fixture
def stored(tmp_path):
    """Store a suite of three, whose experiments tests replace by functions."""
    with SuiteRun(suite(tmp_path, grid=GRID), tmp_path / "runs", "cpu", None).stored() as queue:
        return queue
