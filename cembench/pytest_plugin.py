"""`pytest --cembench-baseline FILE`: one test per figure of a baseline.

Loaded in every pytest session, so it imports nothing heavy before it is asked to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cembench.evaluation.gate.gate import Outcome


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    text = "check the checkpoints of a baseline, one test per figure"
    group = parser.getgroup("cembench")
    group.addoption("--cembench-baseline", type=Path, metavar="FILE", help=text)
    text = "compare also when versions are others than those of the baseline"
    group.addoption("--cembench-allow-changed-software", action="store_true", help=text)
    text = "skip, rather than fail, where the protocol has no sanity checks"
    group.addoption("--cembench-allow-unchecked", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Collect the file of the baseline too, wherever it lies."""
    path = config.getoption("--cembench-baseline")
    if path is not None and str(path) not in config.args:
        config.args.append(str(path))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the baseline and nothing else."""
    path = parent.config.getoption("--cembench-baseline")
    if path is None or file_path != path.resolve():
        return None
    return BaselineFile.from_parent(parent, path=file_path)


class BaselineFile(pytest.File):
    """A baseline: its checkpoints are evaluated once, when the first test wants to know."""

    problem = "was not measured"

    def collect(self) -> Iterable[pytest.Item]:
        """Yield a test for each figure that the baseline knows."""
        from cembench.evaluation.gate.check import figures_of
        from cembench.util.errors import CembenchError

        try:
            found = figures_of(self.path)
        except CembenchError as error:
            raise self.CollectError(str(error)) from error
        for name, figures in found.items():
            for figure in figures:
                yield Figure.from_parent(self, name=f"{name}::{figure}", key=(name, figure))

    @cached_property
    def outcomes(self) -> dict[tuple[str, str], Outcome]:
        """The outcomes by row and figure, or none when something could not be evaluated."""
        from cembench.evaluation.gate.check import check
        from cembench.evaluation.gate.evaluator import Evaluator
        from cembench.util.errors import CembenchError

        option = self.config.getoption
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = check(
                    [],
                    self.path,
                    Evaluator(out=Path(folder)),
                    allow_changed_software=option("--cembench-allow-changed-software"),
                    allow_unchecked=option("--cembench-allow-unchecked"),
                )
            except CembenchError as error:
                self.problem = str(error)
                return {}
        return {(outcome.row, outcome.metric): outcome for outcome in found}


class Figure(pytest.Item):
    """One figure of one checkpoint."""

    def __init__(self, *, key: tuple[str, str], **rest: Any) -> None:
        super().__init__(**rest)
        self.key = key

    def runtest(self) -> None:
        """Fail unless the figure passes."""
        from cembench.evaluation.gate.report import sentence

        parent = self.parent
        assert isinstance(parent, BaselineFile)
        outcome = parent.outcomes.get(self.key)
        if outcome is None:
            pytest.fail(parent.problem, pytrace=False)
        if outcome.allowed:
            pytest.skip(sentence(outcome))
        if not outcome.passes:
            pytest.fail(sentence(outcome), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return what the report is headed with."""
        return self.path, None, self.name
