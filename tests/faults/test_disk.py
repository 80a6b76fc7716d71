"""A disk that fills up, and one that cannot be written: a clear line, and nothing is spoilt."""

import cembench.evaluation.measure as measure_module
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.record.files import load_table
from cembench.training.trainer import Trainer
from cembench.util.files.yaml import to_yaml
from tests.conftest import experiment

PROTOCOL = """
limit: 48
batch_size: 16
attacks: [{name: pgd, steps: 2}]
"""


def filling(disk, monkeypatch, owner, name, calls):
    """Fill the disk when a function is called for so many times."""
    original, done = getattr(owner, name), []

    def call(*args):
        done.append(None)
        if len(done) == calls:
            disk.fill()
        return original(*args)

    monkeypatch.setattr(owner, name, call)


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "filler"}


def test_training_survives_a_disk_that_fills_up(disk, cembench, trained, tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text(to_yaml(experiment().dump()))
    command = ["train", tmp_path / "c.yaml", "--out", disk.folder, "--resume"]
    filling(disk, monkeypatch, Trainer, "run_epoch", 2)
    failed = cembench(*command)
    line = failed.err.splitlines()[-1]
    assert failed.code == 2 and "last.ckpt: No space left on device; free some space" in line
    before = contents(disk.folder)
    assert {p.name for p in before} == {
        "config.yaml",
        "last.ckpt",
        "model.safetensors",
        "history.csv",
    }
    again = cembench(*command)
    assert again.code == 2 and contents(disk.folder) == before
    disk.free()
    assert cembench(*command).code == 0
    name = "model.safetensors"
    assert (disk.folder / "c" / name).read_bytes() == (trained / name).read_bytes()


def test_an_evaluation_survives_a_disk_that_fills_up(disk, cembench, copy, tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(PROTOCOL)
    _, straight = evaluate(copy, load_protocol(str(tmp_path / "small.yaml")))
    (disk.folder / "run").mkdir()
    moved = disk.folder / "run" / copy.name
    moved.write_bytes(copy.read_bytes())
    filling(disk, monkeypatch, measure_module, "_table", 2)
    command = ["eval", moved, "--protocol", tmp_path / "small.yaml"]
    failed = cembench(*command)
    assert failed.code == 2 and "No space left on device; free" in failed.err.splitlines()[-1]
    kept = contents(moved.parent)
    assert sum(p.suffix == ".parquet" for p in kept) == 1
    assert cembench(*command).code == 2 and contents(moved.parent) == kept
    disk.free()
    assert cembench(*command).code == 0
    table = load_table(moved.parent / "eval" / straight.name)
    assert table.equals(load_table(straight))


def test_a_folder_that_cannot_be_written_is_named_and_stays_as_it_was(
    disk, cembench, copy, tmp_path
):
    (tmp_path / "c.yaml").write_text(to_yaml(experiment(epochs=1).dump()))
    (tmp_path / "small.yaml").write_text(PROTOCOL)
    evaluate(copy, load_protocol(str(tmp_path / "small.yaml")))
    moved = disk.folder / copy.name
    moved.write_bytes(copy.read_bytes())
    before = contents(disk.folder)
    disk.protect()
    picture, tensors = disk.folder / "grid.png", disk.folder / "s.safetensors"
    for command in (
        ["train", tmp_path / "c.yaml", "--out", disk.folder],
        ["eval", moved, "--protocol", tmp_path / "small.yaml"],
        ["sample", copy, "-n", 1, "--steps", 1, "--out", picture],
        ["sample", copy, "-n", 1, "--steps", 1, "--save-tensors", tensors],
        ["leaderboard", copy.parent, "--out", disk.folder / "boards"],
    ):
        result = cembench(*command)
        line = result.err.splitlines()[-1]
        assert result.code == 2 and f"cannot write {disk.folder}" in line
    assert contents(disk.folder) == before
