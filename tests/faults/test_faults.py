"""Files that are damaged or mixed up, and clocks that go back: no traceback, no wrong figure."""

import random
import shutil
from datetime import datetime, timedelta

import pandas as pd
import pytest
from safetensors.torch import load, save

import cembench.evaluation.evaluate as evaluation
import cembench.evaluation.measure as measure_module
import cembench.models.source as source
import cembench.training.trainer as trainer_module
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.record.files import load_record, load_table
from cembench.evaluation.verify import verify_record
from cembench.models.checkpoint import load_checkpoint
from cembench.reporting.leaderboard import build_boards, find_records
from cembench.training.run_folder import RunFolder
from cembench.training.train import train
from cembench.training.trainer import Trainer
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from tests.conftest import NOTHING, experiment

PLAN = [*NOTHING, "attacks=[{name: pgd, steps: 3}]", "batch_size=16"]


@pytest.fixture
def kept(copy):
    """A record with its table and its evidence, beside the checkpoint `copy`."""
    return evaluate(copy, load_protocol("quick", PLAN, limit=48), save_adversarial=True)[1]


def flipped(content, moment):
    """Return content with one bit turned over."""
    place = moment.randrange(len(content))
    return (
        content[:place] + bytes([content[place] ^ 1 << moment.randrange(8)]) + content[place + 1 :]
    )


def damaged(content, seed=0, times=30):
    """Yield content with a flipped bit anywhere, then cut short anywhere."""
    moment = random.Random(seed)
    for _ in range(times):
        yield flipped(content, moment)
        yield content[: moment.randrange(len(content))]


@pytest.mark.parametrize("kind", ["checkpoint", "record", "table"])
def test_no_damage_to_what_a_run_shows_goes_unnoticed(copy, kept, kind):
    path, read = {
        "checkpoint": (copy, load_checkpoint),
        "record": (kept, load_record),
        "table": (kept.with_suffix(".parquet"), lambda path: load_table(path.with_suffix(".json"))),
    }[kind]
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CembenchError) as error:
            read(path)
        assert str(path) in str(error.value)


def test_every_command_names_a_damaged_file_in_one_line(cembench, copy, kept):
    for path, commands in (
        (copy, (["eval", copy], ["sample", copy], ["show", copy], ["verify", kept, copy])),
        (kept.with_suffix(".parquet"), (["compare", copy.parent, kept], ["verify", kept, copy])),
        (kept, (["show", kept], ["leaderboard", copy.parent], ["compare", kept, kept])),
    ):
        content = path.read_bytes()
        path.write_bytes(flipped(content, random.Random(3)))
        for command in commands:
            result = cembench(*command)
            lines = result.err.splitlines()
            assert result.code == 2 and len(lines) == 1 and not result.out, (command, lines)
            assert path.name in lines[0]
        path.write_bytes(content)


def test_damaged_evidence_is_an_error_or_a_difference(copy, kept):
    path = RunLayout.adversarial(kept) / "pgd.safetensors"
    recorded = load_record(kept).figures["pgd"].correct
    values = load(path.read_bytes())
    elsewhere = save(values | {"rows": values["rows"] + 10_000})
    for content in (elsewhere, *damaged(path.read_bytes(), times=15)):
        path.write_bytes(content)
        try:
            rows = verify_record(kept, copy)
        except CembenchError as error:
            assert str(path) in str(error)
        else:
            (pgd,) = [row.again for row in rows if row.figure == "pgd"]
            assert pgd >= recorded  # noise breaks no network


def interrupted_training(folder, monkeypatch, after=2, **changes):
    original = Trainer.run_epoch

    def run_epoch(self, bar):
        if self.epoch == after:
            raise KeyboardInterrupt
        return original(self, bar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "run_epoch", run_epoch)
        train(experiment(**changes), folder)
    return RunFolder(folder)


def test_no_damage_to_a_resume_state_goes_unnoticed(tmp_path, monkeypatch):
    run = interrupted_training(tmp_path / "run", monkeypatch)
    for content in damaged(run.resume_state.read_bytes()):
        run.resume_state.write_bytes(content)
        with pytest.raises(CembenchError, match=r"last\.ckpt: damaged resume state; delete it"):
            train(experiment(), run.folder, resume=True)


def test_files_of_another_run_are_refused(tmp_path, monkeypatch, trained, copy, kept):
    ours = interrupted_training(tmp_path / "ours", monkeypatch)
    other = interrupted_training(tmp_path / "other", monkeypatch, seed=1)
    shutil.copy(other.resume_state, ours.resume_state)
    with pytest.raises(CembenchError, match=r"last\.ckpt: of another run"):
        train(experiment(), ours.folder, resume=True)
    ours.resume_state.unlink()
    shutil.copy(train(experiment(seed=1), other.folder, resume=True), ours.checkpoint)
    with pytest.raises(CembenchError, match=r"model\.safetensors: of another run"):
        train(experiment(), ours.folder, resume=True)
    ours.checkpoint.unlink()
    again = train(experiment(), ours.folder, resume=True)
    assert again.read_bytes() == (trained / "model.safetensors").read_bytes()


def test_records_and_tables_of_another_run_are_not_taken_for_ours(cembench, tmp_path, copy, kept):
    theirs = tmp_path / "other" / "model.safetensors"
    train(experiment(seed=1, epochs=1), theirs.parent)
    record, place = evaluate(theirs, load_protocol("quick", PLAN, limit=48))
    assert record.figures["pgd"].correct != load_record(kept).figures["pgd"].correct
    shutil.copy(place.with_suffix(".parquet"), kept.with_suffix(".parquet"))
    with pytest.raises(CembenchError, match=r"damaged, or not the table of"):
        load_table(kept)
    shutil.copy(place, kept)
    for command in (["compare", copy.parent, theirs.parent], ["verify", kept, copy]):
        result = cembench(*command)
        assert result.code == 2 and "of other" in result.err.replace("another", "other")
    assert [found.replaced for found in find_records([copy.parent]).values()] == [True]
    again, _ = evaluate(copy, load_protocol("quick", PLAN, limit=48), reuse=True)
    assert again.run == "run" and again.checkpoint_sha256 != record.checkpoint_sha256
    assert again.checkpoint_seal.encode() in copy.read_bytes()


def spoil_bits(files):
    for path in files:
        path.write_bytes(flipped(path.read_bytes(), random.Random(0)))


def cut(files):
    for path in files:
        path.write_bytes(path.read_bytes()[:-1])


def swap(files):
    for kind in (".parquet", ".safetensors"):
        some = [path for path in files if path.suffix == kind]
        contents = [path.read_bytes() for path in some]
        for path, content in zip(some, contents[1:] + contents[:1], strict=True):
            path.write_bytes(content)


@pytest.mark.parametrize("spoil", [spoil_bits, cut, swap, None], ids=["flip", "cut", "swap", "no"])
def test_parts_that_are_not_what_they_were_are_computed_again(copy, kept, spoil, monkeypatch):
    plan = load_protocol("quick", PLAN, limit=48)
    figures, table = (
        [load_record(kept).figures[name].correct for name in ("clean", "pgd")],
        load_table(kept),
    )
    chunk, calls = measure_module._table, []

    def counted(*args):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return chunk(*args)

    monkeypatch.setattr(measure_module, "_table", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(copy, plan)
    files = sorted(next(kept.parent.glob(".*.parts")).iterdir())
    assert [path.suffix for path in files].count(".parquet") == 2
    if spoil is not None:
        spoil(files)
    record, _ = evaluate(copy, plan)
    assert len(calls) == (4 if spoil is None else 6)
    assert [record.figures[name].correct for name in ("clean", "pgd")] == figures
    pd.testing.assert_frame_equal(load_table(kept), table)


def test_weights_that_change_during_an_evaluation_give_no_record(copy, trained, monkeypatch):
    load, other = source.ModelSource.load, train(experiment(epochs=1), copy.parent.parent / "o")

    def late(self, device):
        self.file.write_bytes(other.read_bytes())
        return load(self, device)

    monkeypatch.setattr(source.ModelSource, "load", late)
    with pytest.raises(CembenchError, match="training went on meanwhile; evaluate again"):
        evaluate(copy, load_protocol("quick", PLAN, limit=16))
    assert not list(copy.parent.glob("eval/*.json"))


def test_a_clock_that_goes_back_does_no_harm(copy, tmp_path, monkeypatch):
    class Clock(datetime):
        days = 0

        @classmethod
        def now(cls, tz=None):
            cls.days += 1
            return datetime(2030, 1, 1, tzinfo=tz) - timedelta(days=cls.days)

    seconds = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(trainer_module.time, "time", lambda: next(seconds))
    monkeypatch.setattr(evaluation, "datetime", Clock)
    train(experiment(epochs=2), tmp_path / "run2")
    assert (pd.read_csv(tmp_path / "run2" / "history.csv")["seconds"] >= 0).all()
    plan = load_protocol("quick", PLAN, limit=16)
    first, path = evaluate(copy, plan)
    second, _ = evaluate(copy, plan)
    assert second.created < first.created and load_record(path) == second
    assert evaluate(copy, plan, reuse=True)[0] == second
    assert 0 <= second.seconds < 1000 and all(f.seconds >= 0 for f in second.figures.values())
    (row,) = build_boards(find_records([copy.parent]).values())[0].table.to_dict("records")
    assert row["run"] == "run"
