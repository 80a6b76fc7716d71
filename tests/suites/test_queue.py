"""Queues whose files anybody may have written, and workers that meet the end of one."""

import signal
import sys

import pytest

from cembench.suites import several, worker
from cembench.suites.claims import Claims
from cembench.suites.following import follow, together
from cembench.suites.launchers.crew import Crew
from cembench.suites.leases import Terms
from cembench.suites.outcomes import Outcome
from cembench.suites.queue import Plan
from cembench.suites.run import SuiteRun
from cembench.suites.worker import Worker
from cembench.util.errors import ConfigError
from tests.suites.conftest import GRID, NAMES
from tests.suites.test_suites import suite, until


def test_nothing_is_imported_from_the_folder_that_a_queue_names(stored, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("print('imported')")
    monkeypatch.chdir(tmp_path)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'mine'])"
    monkeypatch.setattr(several, "python", lambda arguments: [sys.executable, "-c", code])
    stored.layout(NAMES[0]).folder.mkdir()
    with pytest.raises(worker.Died, match="No module named mine"):
        several.run_in_processes(stored, NAMES[0], "cpu", 2)


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": "1"}', '{"deaths": null}', "[" * 100_000])
def test_a_damaged_file_of_a_queue_hides_no_experiment(stored, text):
    (stored.folder / f"{NAMES[0]}.1").write_text(text)
    (stored.folder / f"{NAMES[1]}.failed").write_text(text)
    (stored.folder / f"{NAMES[2]}.failed").write_text('{"failure": 1}')
    claims = Claims(stored, patience=0.01)
    assert {until(claims.next).name for _ in NAMES} == set(NAMES)
    assert not stored.failures


def test_a_process_id_that_none_can_have_is_of_a_dead_process():
    assert Terms(pid=1 << 80).died


def test_a_worker_that_helped_ends_well_after_the_command_has_finished(
    stored, cembench, monkeypatch
):
    monkeypatch.setattr(Worker, "work", lambda self, wait: self.queue.remove())
    result = cembench("work", stored.out)
    assert result.code == 0 and result.err == "s: no longer stored here\n"


def test_a_machine_without_the_device_takes_no_experiment(tmp_path, cembench):
    path, out = suite(tmp_path, grid=GRID), tmp_path / "runs"
    with SuiteRun(path, out, "cuda:99", None).stored() as queue:
        result = cembench("work", out)
    assert result.code == 2 and "cuda:99" in result.err and len(result.err.splitlines()) == 1
    assert queue.count().taken == [] and not queue.failures


def test_no_worker_is_started_after_the_last_outcome(stored):
    started = []

    def start(numbers):
        started.extend(numbers)
        for name in NAMES:
            stored.finish(name, Outcome())
        return [lambda: ""] * len(numbers)

    assert len(follow(stored, together(Crew(start, 1)), lambda look: None)) == 3
    assert started == [0]


def test_a_signal_is_heard_also_where_the_lease_is_lost_meanwhile(stored, monkeypatch):
    take = Claims.next

    def lost(claims):
        claim = take(claims)
        claim.lease.lost = True
        return claim

    def stopped(name, diverged):
        raise KeyboardInterrupt

    monkeypatch.setattr(Claims, "next", lost)
    monkeypatch.setattr(worker, "asked", lambda: signal.SIGUSR1)
    assert Worker(stored, stopped, logged=False).step()
    monkeypatch.setattr(worker, "asked", lambda: signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        Worker(stored, stopped, logged=False).step()


def test_a_queue_names_no_folder_but_its_own(stored):
    values = stored.plan.dump()
    values["experiments"]["../elsewhere"] = {}
    with pytest.raises(ConfigError, match="experiments"):
        Plan.parse(values)
