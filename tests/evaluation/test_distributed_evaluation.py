"""Evaluation in several processes: the record of one process, also after a kill."""

import os
import signal
import time
from functools import partial

import pytest
import torch

import cembench.evaluation.evaluate as evaluate_module
import cembench.evaluation.measures.reference as reference
import cembench.evaluation.measures.sanity as sanity
from cembench.evaluation.cache import ChunkCache
from cembench.evaluation.record.files import load_record
from tests.support.ranks import Place, called, free_port, ranks, start
from tests.support.records import settled

PGD = "{name: pgd, steps: 2}"
PLAN = [
    "limit=48",
    "batch_size=16",
    f"attacks=[{PGD}]",
    f"curve={{attack: {PGD}, eps: [0.1, 0.2], factors: [1]}}",
    "threats=[linf 0.125, {norm: l2, eps: 0.5, attacks: [{name: pgd, steps: 2}]}]",
]
PLAN += ["samples.count=32", "samples.batch_size=16"]
PLAN += ["samples.samplers=[{name: rcs, steps: 2}, {name: pgd, steps: 2}]"]
PLAN += ["sanity={images: 16, steps: 2, queries: 5}", "density={outside: [digits], steps: 2}"]
PLAN += ["counterfactuals={eps: [1], steps: 2}"]
PLAN += ["corruptions={names: [shot_noise], severities: [3]}"]
PLAN += ["samples.extractor={name: lite0, size: 32}"]
OPTIONS = [word for value in PLAN for word in ("--set", value)]
KEPT = ["--save-adversarial", "--save-samples"]


def command(copy, out):
    """Return an evaluation of the checkpoint, copied into a folder of its own."""
    run = out / copy.parent.name
    run.mkdir(parents=True)
    (run / copy.name).write_bytes(copy.read_bytes())
    return ["eval", run, *OPTIONS, *KEPT], run


def same(one, two):
    """Check that two run folders hold the same results but for what the clock says."""
    (first,), (second,) = ((run / "eval").glob("*.json") for run in (one, two))
    assert settled(first).model_copy(update={"seal": ""}) == settled(second).model_copy(
        update={"seal": ""}
    )
    for file in one.rglob("*"):
        if file.suffix in (".parquet", ".png") and "seal" not in file.name:
            assert file.read_bytes() == (two / file.relative_to(one)).read_bytes(), file
    assert not list((two / "eval").glob(".*"))


@pytest.fixture
def alone(copy, tmp_path, monkeypatch):
    """Return the folder of an evaluation in one process."""
    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 200)
    once, one = command(copy, tmp_path / "one")
    assert called(once).code == 0
    return one


def slow(work, seconds, *given):
    time.sleep(seconds)
    return work(*given)


def dies_at(name, holder, place):
    """Let the process of a rank die right after it has done something for the first time."""
    done = getattr(holder, name)

    def strike(*given):
        found = done(*given)
        if os.environ["RANK"] == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(holder, name, strike)


def struck(folder, words, dead, blow):
    """Return what the other of two processes says when one of them is killed."""
    port = free_port()

    def work():
        dies_at(*blow, str(dead))
        return called(words)

    forks = [start(Place(rank, 2, port), work, folder) for rank in range(2)]
    assert forks[dead].wait() == -signal.SIGKILL
    left = forks[1 - dead].result()
    assert left.code == 2, left.err
    assert left.err.count("cembench: error: ") == 1
    assert f"lost touch with another process: process {dead} has ended" in left.err


def test_the_record_is_that_of_one_process_even_after_kills(alone, copy, tmp_path, monkeypatch):
    words, three = command(copy, tmp_path / "three")
    strike = partial(struck, tmp_path, words)
    strike(1, ("put", ChunkCache))
    assert len(list((three / "eval").glob(".*.parts/*.parquet"))) >= 2
    strike(1, ("value", ChunkCache))
    kept = {path: path.stat().st_mtime_ns for path in (three / "eval").glob(".*.parts/*")}
    assert any(path.suffix == ".json" for path in kept)
    strike(0, ("_summed", evaluate_module))
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())

    # the first process works alone for longer than a step may wait, and nobody minds
    monkeypatch.setattr(sanity, "consistency_checks", partial(slow, sanity.consistency_checks, 5))
    first, second = ranks(tmp_path, words, words, variables={"CEMBENCH_TIMEOUT": "4"})
    assert (first.code, second.code) == (0, 0), first.err
    assert first.out.count("| run |") and second.out == second.err == ""
    same(alone, three)
    (record,) = (three / "eval").glob("*.json")
    assert called(["verify", record, three]).code == 0


def test_a_network_that_breaks_its_contract_gives_a_record_that_says_so(copy, tmp_path):
    from cembench.models.checkpoint import load_checkpoint, save_checkpoint

    model = load_checkpoint(copy)[0]
    metadata = model.metadata
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    floats = [key for key, value in weights.items() if value.is_floating_point()]
    weights[floats[-1]] = torch.full_like(weights[floats[-1]], torch.nan)
    save_checkpoint(copy, weights, metadata)
    results = ranks(tmp_path, *[["eval", copy, *OPTIONS]] * 2)
    assert [result.code for result in results] == [2, 2]
    assert results[0].err.count("cembench: error:") == 1 and results[1].err == ""
    (path,) = copy.parent.glob("eval/*.json")
    assert "finite" in load_record(path).error
