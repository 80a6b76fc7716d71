"""`cembench work`: workers of a stored suite that are killed, pre-empted, or lose their store."""

import errno
import os
import pickle
import random
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from cembench.suites import leases, patience, worker
from cembench.suites.claims import Claims
from cembench.suites.leases import read
from cembench.suites.outcomes import Outcome
from cembench.suites.queue import Queue
from cembench.suites.run import SuiteRun, run_suite
from cembench.suites.runner import Runner
from cembench.suites.worker import Worker
from cembench.util.errors import CembenchError
from cembench.util.files.yaml import read_yaml, to_yaml
from cembench.util.stopping import handle_signals
from tests.suites.conftest import GRID, NAMES
from tests.suites.test_suites import suite, table, until
from tests.support.forks import Blow, Fork, Process, called


def again(queue):
    """Return the queue as another process reads it."""
    return Queue.read(queue.out, queue.name)


def fine(name, diverged):
    return Outcome()


def require_same(killed, straight):
    """Require the results of another folder: tables, weights and verdicts."""
    pd.testing.assert_frame_equal(table(killed), table(straight))
    for name in ("*/model.safetensors", "*/eval/*.parquet"):
        pairs = zip(sorted(killed.glob(name)), sorted(straight.glob(name)), strict=True)
        for one, other in pairs:
            assert one.relative_to(killed) == other.relative_to(straight)
            if one.suffix == ".safetensors":
                assert one.read_bytes() == other.read_bytes()
            else:
                tables = [pd.read_parquet(file) for file in (one, other)]
                pd.testing.assert_frame_equal(*(t.filter(regex="^(?!.*seconds)") for t in tables))


def test_workers_share_a_suite_and_go_on_where_others_were_killed(tmp_path, cembench):
    """One is killed before training, in training, between training and evaluation, and in it."""
    path, out = suite(tmp_path, grid=GRID), tmp_path / "runs"
    run_suite(path, tmp_path / "straight", "cpu", jobs=1)
    assert cembench("run", path, "--out", out, "--enqueue").code == 0
    path.write_text("nobody: reads it again")
    errors = tmp_path / "errors.txt"
    for at in (6, 30, 60, 75):
        first = Process("work", out, errors=errors, blow=Blow(out, at))
        assert first.wait() == -signal.SIGKILL, errors.read_text()
    both = [Process("work", out, errors=tmp_path / name) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    require_same(out, tmp_path / "straight")
    said = (tmp_path / "one").read_text() + (tmp_path / "two").read_text()
    assert said.count(": clean ") <= 3 and "s: 3 of 3 experiments done" in said
    shown = cembench("status", "--out", out)
    assert shown.code == 0 and shown.out == "s: 3 of 3 experiments done, 0 begun, 0 left\n"


def test_a_worker_that_is_told_to_end_saves_its_state_and_frees_its_experiment(tmp_path, cembench):
    path, out = suite(tmp_path, experiments={"long": {"method": "at", "epochs": 400}}), "runs"
    out = tmp_path / out
    for number, code in ((signal.SIGUSR1, 75), (signal.SIGTERM, 143)):
        assert cembench("run", path, "--out", out, "--enqueue").code == 0

        def work():
            handle_signals()
            return called(["work", out])

        seen = (out / "long/last.ckpt").stat().st_mtime_ns if number == signal.SIGTERM else 0
        process = Fork(work, tmp_path / "result.pt")
        state = out / "long/last.ckpt"
        until(lambda: state.exists() and state.stat().st_mtime_ns > seen)  # noqa: B023
        shown = cembench("status", "--out", out).out
        assert "0 of 1 experiments done, 1 begun" in shown and f" {process.pid}  " in shown
        process.send(number)
        assert process.result().code == code
        last = max((out / ".queue/s").rglob("long.[0-9]*"))
        assert read(last)[0].released and read(last)[0].deaths == 0
        assert "  long: waits" in cembench("status", "--out", out).out


def test_what_cannot_be_worked_on_is_one_line(tmp_path, cembench):
    (tmp_path / "mine.py").touch()
    path, out = suite(tmp_path, grid=GRID), tmp_path / "runs"
    given = ("run", path, "--out", out, "--enqueue")
    messages = {"work": "no suite is stored here", "status": "no suite is running or stored here"}
    for name, message in messages.items():
        args = (out,) if name == "work" else ("--out", out)
        result = cembench(name, *args)
        assert result.code == 2 and message in result.err and len(result.err.splitlines()) == 1
    assert cembench(*given).code == 0
    file = out / ".queue/s/suite.json"
    text = file.read_text()
    file.write_text(text.replace('"epochs": 1', '"epochs": 2'))
    result = cembench("work", out)
    assert result.code == 2 and "suite.json: damaged" in result.err
    queue = SuiteRun(path, out, "cpu", None)
    with queue.stored() as stored:
        stored.plan.plugins.append("mine")
        (out / ".queue/s/suite.json").unlink()
    assert cembench("work", out).code == 2


def test_a_holder_that_shows_no_life_is_replaced_once_and_finds_out(stored, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    asleep, others = Claims(stored, 0.2), [Claims(again(stored), 0.2) for _ in range(3)]
    mine = asleep.next()
    assert mine.name == NAMES[0]
    with mine.lease.kept():
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert NAMES[0] not in [claim.name for one in others if (claim := one.next())]
            time.sleep(0.05)
        assert not mine.lease.lost
    heirs = until(
        lambda: [claim for one in others if (claim := one.next()) and claim.name == NAMES[0]]
    )
    (heir,) = heirs
    assert heir.lease.terms.deaths == 1 and heir.lease.path.suffix == ".2"
    with heir.lease.kept(), mine.lease.kept():
        until(lambda: mine.lease.lost)
        assert not heir.lease.lost


def test_a_worker_can_be_sent_to_a_process_that_is_no_fork(stored):
    take = pickle.loads(pickle.dumps(Worker(stored, Runner(stored, "cpu")).work))
    assert take.__self__.queue.names == NAMES


def test_an_experiment_that_kills_its_workers_fails_in_the_end(stored, tmp_path):
    def deadly(name, diverged):
        if name == NAMES[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome()

    def work():
        Worker(again(stored), deadly).work()

    codes = [Fork(work, tmp_path / "result.pt").wait() for _ in range(worker.RETRIES + 2)]
    assert codes == [-signal.SIGKILL] * (worker.RETRIES + 1) + [0]
    assert stored.count()[:3] == (3, 2, 1)
    assert list(stored.failures) == [NAMES[0]]
    assert f"died {worker.RETRIES + 1} times, see " in stored.failures[NAMES[0]]


@pytest.mark.parametrize("how", ["error", "gone"])
def test_a_store_that_is_away_for_a_while_costs_no_experiment(stored, monkeypatch, how):
    monkeypatch.setattr(patience, "LONGEST", 20.0)
    begun, elsewhere = [], stored.out.with_name("elsewhere")

    def shaky(name, diverged):
        begun.append(name)
        if len(begun) == 1 and how == "error":
            raise CembenchError("cannot write it") from OSError(errno.ESTALE, "stale")
        if len(begun) == 1:
            stored.out.rename(elsewhere)
            threading.Timer(1.0, elsewhere.rename, [stored.out]).start()
            (stored.out / name / "last.ckpt").write_text("lost")
        return Outcome()

    Worker(stored, shaky).work()
    assert begun == [NAMES[0], *NAMES]
    assert stored.count()[:3] == (3, 3, 0)


def test_a_refusal_of_the_disk_is_a_failure_at_once(stored):
    def full(name, diverged):
        raise CembenchError("cannot write it; free some space") from OSError(errno.ENOSPC, "full")

    Worker(stored, full).work()
    assert stored.failures == dict.fromkeys(NAMES, "cannot write it; free some space")


def test_a_suite_stops_after_too_many_failures_and_goes_on_later(tmp_path, cembench):
    wild = {"method": "standard", "optimizer": {"lr": 1e30}}
    experiments = {"wild": wild, "fine": {"method": "standard"}}
    path, out = suite(tmp_path, experiments=experiments), tmp_path / "runs"
    result = cembench("run", path, "--out", out, "--jobs", 1, "--max-failures", 1)
    assert result.code == 2 and "wild: failed: " in result.err
    assert "1 experiments were stopped or not begun" in result.err.splitlines()[-1]
    assert not (out / "fine").exists()
    result = cembench("run", path, "--out", out, "--jobs", 1)
    assert result.code == 2 and "| fine |" in result.out


def test_a_command_that_starts_again_keeps_what_is_done_unless_it_was_removed(tmp_path):
    run = SuiteRun(suite(tmp_path, grid=GRID), tmp_path / "runs", "cpu", None)
    with run.stored() as queue:
        work = Worker(queue, fine)
        assert work.step() and work.step()
    run.record_file(NAMES[0]).parent.mkdir(parents=True)
    run.record_file(NAMES[0]).touch()
    with run.stored() as queue:
        begun = []
        Worker(queue, lambda name, _: begun.append(name) or Outcome()).work()
    assert begun == NAMES[1:]
    content = read_yaml(run.path)
    content["shared"]["epochs"] = 2
    run.path.write_text(to_yaml(content))
    with SuiteRun(run.path, run.out, "cpu", None).stored() as queue:
        assert queue.count() == (3, 0, 0, [])


def test_a_probe_waits_for_its_run_and_workers_may_leave(tmp_path):
    experiments = {"base": {"method": "infonce"}, "probe": {"probe": "base"}}
    path, out = suite(tmp_path, experiments=experiments), tmp_path / "runs"
    with SuiteRun(path, out, "cpu", None).stored() as queue:
        one, two = Claims(queue), Claims(again(queue))
        base = one.next()
        assert base.name == "base" and two.next() is None
        assert not two.all_taken  # it waits for the probe
        queue.finish("base", Outcome("loss is nan", diverged=True))
        probe = two.next()
        assert (probe.name, probe.diverged) == ("probe", "base")
        assert one.next() is None and one.all_taken


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kills"), [(12, 8), (40, 20)])
def test_random_kills_of_three_workers_end_in_the_table_of_an_undisturbed_run(
    tmp_path, cembench, count, kills
):
    grid = {"method.name": ["standard", "at"], "seed": list(range(count // 2))}
    path, out, drawn = suite(tmp_path, grid=grid), tmp_path / "runs", random.Random(0)
    run_suite(path, tmp_path / "straight", "cpu", jobs=1)
    assert cembench("run", path, "--out", out, "--enqueue").code == 0
    numbers = iter(range(1000))

    def begin():
        errors = tmp_path / f"errors-{next(numbers)}"
        return Process("work", out, "--patience", 5, errors=errors)

    crew = [begin() for _ in range(3)]
    for _ in range(kills):
        time.sleep(drawn.uniform(0.1, 1.0))
        number = drawn.randrange(3)
        if not crew[number].ended:
            crew[number].send(signal.SIGKILL)
        crew[number].wait()
        crew[number] = begin()
    assert [process.wait() for process in crew] == [0, 0, 0]
    require_same(out, tmp_path / "straight")
    assert Queue.read(out, "s").count() == (count, count, 0, [])


@pytest.mark.slow
def test_an_experiment_may_have_several_processes(tmp_path, cembench):
    experiments = {"two": {"method": "standard", "processes": 2}}
    path, out = suite(tmp_path, experiments=experiments), tmp_path / "runs"
    result = cembench("run", path, "--out", out, "--jobs", 1)
    assert result.code == 0, result.err
    assert "2 processes share each batch" in (Path(out) / "two/log.txt").read_text()
    content = read_yaml(path)
    content["experiments"]["two"]["optimizer"] = {"lr": 1e30}
    path.write_text(to_yaml(content))
    result = cembench("run", path, "--out", tmp_path / "wild", "--jobs", 1)
    assert result.code == 2 and "two: failed: " in result.err and "loss is" in result.err
