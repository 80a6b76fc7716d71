"""An entry for a shared board."""

import shutil
from pathlib import Path

import pytest

from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.interop.submission.accept import accept
from cembench.interop.submission.page import page_of
from cembench.interop.submission.submit import submit
from tests.conftest import made_once
from tests.support.entries import Forger

PLAN = """
limit: 64
attacks: [{name: pgd, steps: 10}]
samples:
  count: 24
  batch_size: 12
  samplers: [{name: rcs, steps: 5}]
  extractor: {name: lite0, size: 32}
"""


@pytest.fixture(scope="session")
def plan(tmp_path_factory):
    file = tmp_path_factory.mktemp("plans") / "plan.yaml"
    file.write_text(PLAN)
    return file


def entry_of(run, plan, to):
    """Evaluate a run, and submit it."""
    own = to.parent / f"{to.name}-run"
    own.mkdir(parents=True)
    shutil.copy(run / "model.safetensors", own)
    evaluate(own, load_protocol(str(plan)), save_adversarial=True, save_samples=True)
    submit(own, to, licence="MIT", contact="me@example.org", authors="<b>A</b> | B")


@pytest.fixture(scope="session")
def honest(trained, plan, shared):
    """An honest entry; do not write to it."""
    return made_once(shared / "entries" / "honest", lambda to: entry_of(trained, plan, to))


@pytest.fixture
def not_attacked(monkeypatch):
    """Leave out attacks, in tests of something else."""
    monkeypatch.setattr("cembench.interop.submission.accept.attack_again", lambda *args: 0)


@pytest.fixture
def forger(honest, tmp_path):
    return Forger(Path(shutil.copytree(honest, tmp_path / "mine")))


@pytest.fixture
def refused(plan):
    """Say why an entry is refused, and that the page says it too."""

    def reasons(entry, **options):
        verdict = accept(entry, protocols=[str(plan)], seed=0, **options)
        page = page_of(verdict)
        assert verdict.outcome == "refused" and page.startswith(f"# {verdict.title}: refused\n")
        assert page.count("\n- ") >= len(verdict.checks.failed) and "## Reasons" in page
        return "\n".join(row.reason for row in verdict.checks.failed)

    return reasons
