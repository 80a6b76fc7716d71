"""Evaluation in several processes: the record of one process, also after a kill."""

import os
import signal

import torch

import cembench.evaluation.measures.reference as reference
from cembench.evaluation.cache import ChunkCache
from cembench.evaluation.record import load_record
from tests.support.ranks import Place, called, free_port, ranks, start
from tests.support.records import settled

PGD = "{name: pgd, steps: 5}"
PLAN = [
    "limit=96",
    "batch_size=16",
    f"attacks=[{PGD}]",
    f"curve={{attack: {PGD}, eps: [0.1, 0.2], factors: [1]}}",
    "threats=[linf 0.125, {norm: l2, eps: 0.5, attacks: [{name: pgd, steps: 2}]}]",
]
PLAN += ["samples.count=64", "samples.batch_size=16", "sanity=null", "density=null"]
PLAN += ["counterfactuals={eps: [0.2, 1], steps: 5}"]
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


def test_the_record_is_that_of_one_process_even_after_a_kill(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 200)
    alone, one = command(copy, tmp_path / "one")
    assert called(alone).code == 0
    joint, two = command(copy, tmp_path / "two")
    first, second = ranks(tmp_path, joint, joint)
    assert (first.code, second.code) == (0, 0), first.err
    assert first.out.count("| run |") and second.out == second.err == ""
    same(one, two)
    (record,) = (two / "eval").glob("*.json")
    assert called(["verify", record, two]).code == 0

    struck, three = command(copy, tmp_path / "three")
    port = free_port()

    def work():
        put = ChunkCache.put

        def strike(self, start, *rest):
            put(self, start, *rest)
            if os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)

        ChunkCache.put = strike
        return called(struck)

    forks = [start(Place(rank, 2, port), work, tmp_path) for rank in range(2)]
    assert forks[1].wait() == -signal.SIGKILL
    lost = forks[0].result()
    assert lost.code == 2 and lost.err.count("lost touch with another process") == 1
    kept = {p: p.stat().st_mtime_ns for p in (three / "eval").glob(".*.parts/*.parquet")}
    assert len(kept) >= 2
    assert ranks(tmp_path, struck, struck)[0].code == 0
    same(one, three)


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
