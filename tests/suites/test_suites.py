"""The same suite in one process, in several, on Ray and through submitit; killed and resumed."""

import importlib.util
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from cembench.data.digits import Digits
from cembench.evaluation.extractors.lite import Lite0
from cembench.evaluation.record.files import load_record, load_table
from cembench.suites.launchers import local
from cembench.suites.launchers.job import Job
from cembench.suites.leases import read
from cembench.suites.run import SuiteRun
from cembench.suites.suite import load_suite
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.yaml import read_yaml, to_yaml
from cembench.util.stopping import handle_signals
from tests.support.forks import Fork, Process, call_apart, called
from tests.support.threads import multiply

ROOT = Path(__file__).parents[2]
SHARED = {"data": "digits", "model": {"name": "small_cnn", "width": 8}, "epochs": 1}
GRID = {"method.name": ["at", "trades"], "seed": [0, 1]}


def suite(folder, **content):
    (folder / "proto.yaml").write_text("{limit: 32, attacks: [{name: pgd, steps: 2}]}")
    (folder / "s.yaml").write_text(to_yaml({"protocol": "proto.yaml", "shared": SHARED, **content}))
    return folder / "s.yaml"


def begin(folder, *args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cembench", "run", "s.yaml", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def run(folder, *args):
    process = begin(folder, *args)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def ended(err):
    """Return the names of the experiments whose figures were printed, in that order."""
    rows = [re.match(r"(\S+): clean [\d.]+%, worst-case", line) for line in err.splitlines()]
    return [row[1] for row in rows if row]


def table(out):
    found = pd.read_csv(out / "leaderboards" / "digits-linf-0.125.csv")
    return found[[column for column in found if not column.endswith("_seconds")]]


def until(found, seconds=90):
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def started_by(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []


def below(pid):
    """Return the pids of all processes that one started, directly or not."""
    return [p for child in started_by(pid) for p in (child, *below(child))]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid):
    """Return the pids of the experiments that a command runs."""
    own = command_of(pid)  # a process that was forked has the same
    return [p for p in below(pid) if b"--parent" in command_of(p) or command_of(p) == own]


WAYS = {
    "jobs": ["--jobs", 2],
    "ray": ["--launcher", "ray", "--launcher-set", "num_cpus=2"],
    "submitit": ["--launcher", "submitit", "--launcher-set", "cluster=local", "--jobs", 2],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_grid_gives_the_same_leaderboard_wherever_it_runs(tmp_path, way):
    if way != "jobs":
        pytest.importorskip("submitit") if way == "submitit" else _require("ray")
    if way == "jobs" and (os.cpu_count() or 1) < 2:
        pytest.skip("one core")
    suite(tmp_path, grid=GRID)
    code, _, err = run(tmp_path, "--out", "runs")
    assert code == 0, err
    straight = table(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "straight")
    code, _, err = run(tmp_path, "--out", "runs", *WAYS[way])
    assert code == 0, err
    pd.testing.assert_frame_equal(table(tmp_path / "runs"), straight)
    assert sorted(ended(err)) == ["at.s0", "at.s1", "trades.s0", "trades.s1"]


def _require(package):
    if importlib.util.find_spec(package) is None:  # Ray must not be imported into these tests
        pytest.skip(f"no {package}")


@pytest.mark.slow
def test_an_experiment_whose_worker_is_killed_goes_on_in_another(tmp_path):
    """Another one fails by itself, and a third is done all the same."""
    wild = {"method": "standard", "optimizer": {"lr": 1e30}}
    long = {"method": "at", "epochs": 12}
    suite(tmp_path, experiments={"long": long, "wild": wild, "fine": {"method": "standard"}})
    process = begin(tmp_path, "--jobs", 2)
    until((tmp_path / "runs/long/history.csv").exists)
    (victim,) = [p for p in children(process.pid) if _holds(p, tmp_path / "runs/long/.lock")]
    os.kill(int(victim), signal.SIGKILL)
    before = pd.read_csv(tmp_path / "runs/long/history.csv")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "| fine |" in out and "| long |" in out
    assert sorted(ended(err)) == ["fine", "long"]
    assert "wild: failed: " in err and "experiment wild: " in err.splitlines()[-1]
    after = pd.read_csv(tmp_path / "runs/long/history.csv")
    assert len(before) >= 1 and len(after) == 12 and after["seconds"][0] == before["seconds"][0]


def _holds(pid, file):
    return any(
        link.exists() and link.readlink() == file for link in Path(f"/proc/{pid}/fd").iterdir()
    )


def test_ctrl_c_stops_all_and_what_was_done_stays(tmp_path):
    path = suite(tmp_path, grid={"method.name": ["at", "trades"], "epochs": [40]})

    def work():
        handle_signals()
        return called(["run", path, "--jobs", 2, "--out", tmp_path / "runs"])

    process = Fork(work, tmp_path / "result.pt")
    until((tmp_path / "runs/at-40/history.csv").exists)
    workers = children(process.pid)
    process.send(signal.SIGINT)
    result = process.result()
    assert result.code == 130 and "interrupted" in result.err.splitlines()[-1]
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert (tmp_path / "runs/at-40/last.ckpt").exists()
    leases = list((tmp_path / "runs/.queue").rglob("*-40.1"))
    assert len(leases) == 2 and all(read(lease)[0].released for lease in leases)


def test_a_killed_command_leaves_no_experiment_running(tmp_path):
    path = suite(tmp_path, grid={"method.name": ["at", "trades"], "epochs": [400]})
    command = ("run", path, "--jobs", 2, "--out", tmp_path / "runs")
    process = Process(*command, errors=tmp_path / "errors.txt")
    until((tmp_path / "runs/at-400/history.csv").exists)
    workers = children(process.pid)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert workers
    until(lambda: not any(command_of(pid) for pid in workers), 10)


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_goes_on(tmp_path):
    """SLURM signals every process of a job: that of submitit, and the experiment below it."""
    pytest.importorskip("submitit")
    suite(tmp_path, experiments={"long": {"method": "at", "epochs": 40}})
    process = begin(tmp_path, *WAYS["submitit"])
    history = tmp_path / "runs/long/history.csv"
    until(lambda: history.exists() and len(history.read_text().splitlines()) > 3)
    (experiment,) = children(process.pid)
    (job,) = [p for p in below(process.pid) if experiment in started_by(p)]
    for pid in (experiment, job):
        os.kill(int(pid), signal.SIGTERM)
        os.kill(int(pid), signal.SIGUSR2)
    until(lambda: [p for p in children(process.pid) if p != experiment])
    before = pd.read_csv(history)
    said = (tmp_path / "runs/.queue/s/worker-0.log").read_text()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0 and ended(err) == ["long"], err
    after = pd.read_csv(history)
    assert len(after) == 40 and after["seconds"][0] == before["seconds"][0]
    assert "stopped before its time limit" in said


@pytest.mark.slow
def test_a_probe_of_a_job_that_diverged_is_a_row(tmp_path):
    wild = {"method": "infonce", "optimizer": {"lr": 1e30}}
    suite(tmp_path, experiments={"wild": wild, "probe": {"probe": "wild"}})
    code, out, err = run(tmp_path, "--jobs", 2)
    assert code == 2 and "| probe | infonce+linear | probe |" in out
    assert "wild: failed: runs/wild: loss is nan" in err
    assert "probe: failed: runs/wild, which it starts from, gave up" in err


@pytest.mark.slow
def test_jobs_know_the_plugins_of_their_command(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from cembench.methods import methods\n"
        "from cembench.methods.standard import Standard\n"
        "@methods.register\n"
        "class Mine(Standard):\n"
        "    name = 'mine'\n"
    )
    suite(tmp_path, experiments={"own": {"method": "mine"}})
    code, out, err = run(tmp_path, "--jobs", 2, "--plugin", "mine")
    assert code == 0 and ended(err) == ["own"] and "| own | mine |" in out, err


def test_a_worker_says_how_it_ended(tmp_path):
    job = Job((), Path("log.txt"), tmp_path)
    assert job.ending(0) == ""
    assert "code 1, see log.txt" in job.ending(1) and "killed by SIGKILL" in job.ending(-9)
    (tmp_path / "log.txt").write_text("at: begun\ncembench: error: no suite is stored here\n")
    with pytest.raises(CembenchError, match=r"^no suite is stored here$"):
        job.ending(2)


def tell(folder):
    """Be a worker that says where it runs, until it is told to end."""
    text = f"{os.environ['CUDA_VISIBLE_DEVICES']} {torch.get_num_threads()}"
    (folder / "writing").write_text(text)
    (folder / "writing").rename(folder / str(os.getpid()))
    time.sleep(60)


def test_workers_share_cores_and_gpus_and_are_replaced(tmp_path, monkeypatch):
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(local.multiprocessing, "get_context", lambda method: fork)
    monkeypatch.setattr(local, "cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = {}

    def news():
        new = {p.name: p.read_text() for p in tmp_path.glob("[0-9]*") if p.name not in found}
        found.update(new)
        return new

    with local.workers(local.Work(partial(tell, tmp_path), local.threads(3), []), local.gpus()) as (
        start
    ):
        for number, expected in enumerate(("4 2", "7 2", "4 2")):
            (poll,) = start([number])
            ((victim, text),) = until(news).items()
            assert text == expected and poll() is None
        os.kill(int(victim), signal.SIGKILL)
        assert "killed by SIGKILL" in until(poll)
        (poll,) = start([2])
        assert list(until(news).values()) == ["4 2"] and poll() is None
    assert len(found) == 4 and not any(Path(f"/proc/{pid}").exists() for pid in found)
    assert local.gpus(2) == ["4,7"]


def test_workers_use_several_threads_also_after_this_process_did(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        multiply(tmp_path / "here")
        with local.workers(local.Work(partial(multiply, tmp_path / "there"), 2, [])) as start:
            (poll,) = start([0])
            until(lambda: poll() == "")
        assert (tmp_path / "there").read_text() == "2 threads"
    finally:
        torch.set_num_threads(before)


def test_tiny_networks_run_side_by_side_with_one_thread_each(tmp_path, monkeypatch):
    path, used = suite(tmp_path, grid=GRID), []
    monkeypatch.setattr(local, "may_fork", lambda: True)
    monkeypatch.setattr(local, "cores", lambda: 3)
    for model, expected in (({"name": "small_cnn", "width": 8}, (3, 1)), ("resnet18", None)):
        path = suite(tmp_path, shared={**SHARED, "model": model}, grid=GRID)
        run = SuiteRun(path, tmp_path / "runs", "cpu", None)
        monkeypatch.setattr(run, "_local", lambda queue, *args: used.append(args))
        monkeypatch.setattr(run, "_time_left", lambda *_: None)
        for jobs in (None, 1):
            with pytest.raises(TypeError):  # nothing was opened
                run.run_all(None, "local", jobs, {})
        alone = (1, torch.get_num_threads())
        assert used == [expected or alone, alone]
        used.clear()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grid": {"epochz": [1]}}, "s.yaml, experiment 1: .*did you mean 'epochs'"),
        ({"grid": {"epochs": [1, 1]}}, "s.yaml: grid: two things are named 1"),
        ({"grid": {"method.name": ["at"]}, "experiments": {"at": {}}}, "two things are named at"),
        ({"grid": {"epochs": []}}, "s.yaml: grid.epochs"),
        ({"grid": {"epochs.inner": [1]}, "shared": {"epochs": 3}}, "'epochs' holds no settings"),
        ({"grid": {"seed": [0]}, "seeds": [1]}, "seeds beside the grid"),
        ({}, "give experiments, a grid, or both"),
    ],
)
def test_mistakes_in_a_grid_are_named(tmp_path, content, message):
    path = suite(tmp_path, **{"shared": {**SHARED, "method": "at"}, **content})
    with pytest.raises(ConfigError, match=message):
        load_suite(path)


def test_all_mistakes_of_a_suite_are_named_at_once(tmp_path):
    own = {
        "a": {"method": {"name": "at", "negatives": {"stepz": 3}}},
        "b": {"method": "trade", "optimizer": {"lrr": 1}},
        "of-a": {"probe": "a"},
        "c": {"probe": {"off": "a"}},
    }
    path = suite(tmp_path, shared={**SHARED, "epocs": 3}, seeds=[0, 1], experiments=own)
    (tmp_path / "proto.yaml").write_text("{limt: 32, attacks: [pgdd]}")
    with pytest.raises(ConfigError) as error:
        load_suite(path)
    shown = str(error.value).replace(str(tmp_path), "").split("; /")
    assert shown == [
        "/s.yaml, experiment a.s0: method.negatives.stepz: unknown key; did you mean 'steps'?; "
        "epocs: unknown key; did you mean 'epochs'?",
        "s.yaml, experiment b.s0: method.name: unknown method 'trade'; did you mean 'trades'?; "
        "optimizer.lrr: unknown key; did you mean 'lr'?",
        "s.yaml, experiment c.s0: probe.of: required, but not given; "
        "probe.off: unknown key; did you mean 'of'?",
        "proto.yaml: attacks.0.name: unknown attack 'pgdd'; did you mean 'pgd'?; "
        "limt: unknown key; did you mean 'limit'?",
    ]


def test_points_lie_over_shared_settings_and_may_be_probed(tmp_path):
    shared = {**SHARED, "method": {"name": "infonce"}}
    grid = {"optimizer.lr": [0.1, 0.03], "seed": [0, 1]}
    path = suite(tmp_path, shared=shared, grid=grid, experiments={"p": {"probe": "0.03.s1"}})
    found, _ = load_suite(path, tmp_path)
    assert list(found) == ["0.1.s0", "0.1.s1", "0.03.s0", "0.03.s1", "p"]
    assert found["0.03.s1"].optimizer.lr == 0.03 and found["0.03.s1"].seed == 1
    assert found["p"].pretrained.checkpoint == str(tmp_path / "0.03.s1")


def test_what_cannot_be_launched_is_one_line(tmp_path):
    suite(tmp_path, grid=GRID)
    for args, message in (
        (("--jobs", 10_000), "this machine has"),
        (("--launcher-set", "x=1"), "the launcher local has no settings"),
    ):
        done = call_apart(tmp_path, "run", "s.yaml", *args)
        assert done.returncode == 2 and message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (
        call_apart(tmp_path, "run", "s.yaml", "--jobs", 0).returncode == 2
        and not (tmp_path / "runs").exists()
    )


def test_each_experiment_is_a_row_as_soon_as_it_is_over(tmp_path):
    experiments = {"one": {"method": "standard"}, "two": {"method": "standard", "seed": 1}}
    suite(tmp_path, experiments=experiments)
    done = call_apart(tmp_path, "run", "s.yaml", "--jobs", 1)
    err = done.stderr
    assert done.returncode == 0, err
    lines = err.splitlines()
    assert lines[0] == "0 of 2 experiments done, less than a minute left"
    begun = next(n for n, text in enumerate(lines) if text.startswith("two: "))
    row = r"one: clean \d+\.\d%, worst-case \d+\.\d%, sanity unchecked"
    row += r" \(1 of 2 experiments done, less than .* left\)"
    assert re.fullmatch(row, lines[begun - 1]) and ended(err) == ["one", "two"]
    assert lines[-1] == "everything on one page: cembench report runs"
    assert "| one |" in done.stdout


def test_a_suite_reads_nothing_twice(tmp_path, cembench, monkeypatch):
    loads, reads = Counter(), Counter()
    load, opened = Digits.load, Path.open

    def counted_load(self, split):
        loads[split] += 1
        return load(self, split)

    def counted_open(self, mode="r", *args, **kwargs):
        if mode == "rb" and self.name == "model.safetensors":
            reads[self.parent.name] += 1
        return opened(self, mode, *args, **kwargs)

    experiments = {"one": {"method": "standard"}, "two": {"method": "standard", "seed": 1}}
    path = suite(tmp_path, experiments=experiments)
    (tmp_path / "proto.yaml").write_text(
        "{limit: 32, attacks: [{name: pgd, steps: 2}], sanity: {images: 32, steps: 2, queries: 5},"
        "samples: {count: 32, extractor: {name: lite0, size: 32}, samplers: [{name: rcs, steps: 2},"
        "{name: ta, steps: 2}]}}"
    )
    builds, build = Counter(), Lite0.build
    monkeypatch.setattr(Lite0, "build", lambda *args: builds.update(["lite0"]) or build(*args))
    monkeypatch.setattr(Digits, "load", counted_load)
    monkeypatch.setattr(Path, "open", counted_open)
    assert cembench("run", path, "--out", tmp_path / "runs", "--jobs", 1).code == 0
    assert loads == {"train": 1, "test": 1} and builds == {"lite0": 1}
    assert reads == {"one": 2, "two": 2}
    suite_of_one = to_yaml(read_yaml(path) | {"experiments": {"two": experiments["two"]}})
    path.write_text(suite_of_one)
    assert cembench("run", path, "--out", tmp_path / "alone", "--jobs", 1).code == 0
    weights = [tmp_path / out / "two/model.safetensors" for out in ("runs", "alone")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    (shared,) = (tmp_path / "runs/two/eval").glob("*.json")
    both = [load_record(tmp_path / out / "two/eval" / shared.name) for out in ("runs", "alone")]
    assert both[0].generation == both[1].generation and both[0].sanity == both[1].sanity
    tables = [load_table(tmp_path / out / "two/eval" / shared.name) for out in ("runs", "alone")]
    pd.testing.assert_frame_equal(*tables)


def test_the_stages_of_a_suite_add_up(tmp_path, cembench, short_autoattack):
    experiments = {"one": {"method": "standard"}, "two": {"method": "at"}}
    path = suite(tmp_path, experiments=experiments)
    (tmp_path / "proto.yaml").write_text(
        "{attacks: [{name: pgd, steps: 2}, autoattack], curve: {}}"
    )
    result = cembench("bench", path, "--images", 8, "--json")
    assert result.code == 0, result.err
    rows = {row.pop("stage"): row for row in json.loads(result.out)}
    stages = {
        "import",
        "data",
        "training steps",
        "validation",
        "pgd",
        "saving",
        "figures",
        "tables",
    }
    assert stages | {"autoattack apgd-ce", "curve pgd"} <= set(rows)
    for name, row in rows.items():
        own = row["one"] + row["two"]
        assert own <= row["whole suite"] + 0.02 and (
            row["wall"] > 0 or own == 0 or name == "import"
        )
    total = rows.pop("sum")
    assert abs(sum(row["whole suite"] for row in rows.values()) - total["whole suite"]) < 0.5
    assert rows["training steps"]["two"] > rows["training steps"]["one"] > 0
    assert list(rows["data"]) == ["one", "two", "whole suite", "wall"]
    assert cembench("bench", tmp_path / "none.yaml").code == 2
