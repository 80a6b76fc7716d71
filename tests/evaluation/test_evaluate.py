"""Evaluation of a checkpoint: goes on after a kill, reuses what is current, notices what is not."""

import pandas as pd
import pytest

import cembench.evaluation.measure as measure_module
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.record.files import load_record, load_table, save_record
from cembench.util.files.parquet import read_frame
from tests.conftest import NOTHING, experiment

OVERRIDES = [
    *NOTHING,
    "attacks=[{name: pgd, steps: 3}, {name: torchattacks, attack: MIFGSM}]",
    "batch_size=16",
]


def figures(record):
    return {k: v.model_copy(update={"seconds": 0}) for k, v in record.figures.items()}


def test_a_killed_evaluation_goes_on_chunk_by_chunk(copy, monkeypatch):
    protocol = load_protocol("quick", OVERRIDES, limit=64)
    straight, path = evaluate(copy, protocol)
    table = read_frame(path.with_suffix(".parquet"))
    path.unlink()
    chunk, done = measure_module._table, []

    def counted(*args):
        if len(done) in (1, 3):
            done.append(None)
            raise KeyboardInterrupt
        done.append(1)
        return chunk(*args)

    monkeypatch.setattr(measure_module, "_table", counted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(copy, protocol)
    (parts,) = path.parent.glob(".*.parts")
    (parts / "16.parquet").write_bytes(b"half a file")
    resumed, _ = evaluate(copy, protocol)
    assert done.count(1) == 5  # four chunks, one of them again because its part was damaged
    assert figures(resumed) == figures(straight)
    pd.testing.assert_frame_equal(read_frame(path.with_suffix(".parquet")), table)
    assert not list(path.parent.glob(".*"))


def changed(path, update):
    """Write a record anew with something else in it."""
    save_record(path, load_record(path).model_copy(update=update), load_table(path))


def test_a_current_record_is_reused_and_any_other_is_not(copy, trained):
    protocol = load_protocol("quick", OVERRIDES, limit=16)
    first, path = evaluate(copy, protocol, reuse=True)
    stamp = path.stat().st_mtime_ns
    assert evaluate(copy, protocol, reuse=True)[0] == first and path.stat().st_mtime_ns == stamp
    for change in (
        lambda: path.write_text("{"),
        lambda: changed(path, {"checkpoint_sha256": "other"}),
        lambda: changed(path, {"error": "it failed"}),
        lambda: path.with_suffix(".parquet").unlink(),
    ):
        change()
        again, _ = evaluate(copy, protocol, reuse=True)
        assert figures(again) == figures(first) and path.stat().st_mtime_ns != stamp
        stamp = path.stat().st_mtime_ns


def test_the_record_says_what_it_takes_to_check_it(copy):
    record, path = evaluate(copy, load_protocol("quick", OVERRIDES, limit=16))
    assert record.threat == experiment().threat and record.figures["pgd"].images == 16
    assert record.protocol["attacks"][0]["steps"] == 3 and record.data["name"] == "digits"
    assert record.environment["threads"] == 1 and record.parameters > 1000
    assert record.finished and record.epoch >= 1
    rows = read_frame(path.with_suffix(".parquet"))
    assert rows["index"].is_unique and len(rows) == 16


def test_checkpoints_in_one_folder_have_records_of_their_own(copy):
    other = copy.with_name("other.safetensors")
    other.write_bytes(copy.read_bytes())
    protocol = load_protocol("quick", OVERRIDES, limit=16)
    paths = {evaluate(path, protocol)[1] for path in (copy, other)}
    assert len(paths) == 2
