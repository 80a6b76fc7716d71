"""Folders of images that a checkpoint names: read where its user named them, or within reach."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import cembench as cb
from cembench.data import roots
from cembench.data.digits import Digits
from cembench.evaluation.protocol import load_protocol
from cembench.interop.importing import import_model
from cembench.util.errors import CembenchError
from tests.conftest import NOTHING, experiment
from tests.support.checkpoints import rewrite

PLAN = [*NOTHING, "attacks=[{name: pgd, steps: 1}]", "limit=4"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of images outside of the working folder, in a time when nobody named any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(roots, "_named", set())
    monkeypatch.setattr(roots, "_told", set())
    for name in ("work", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for split in ("train", "test"):
        digits = Digits().load(split)
        for row in range(60):
            place = tmp_path / "images" / split / str(int(digits.labels[row]))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.store.images[row, 0] * 15).numpy()).save(place / f"{row}.png")
    return tmp_path / "images"


def foreign(trained, path, root):
    """Return a checkpoint that says its images lie in a folder."""
    data = {"name": "folder", "root": str(root), "mode": "L"}

    def change(values):
        values.update(data=data, fingerprint="")
        values["config"]["data"] = data

    return rewrite(trained, path, change)


def forget():
    roots._named.clear()


def test_a_folder_that_only_a_checkpoint_names_needs_its_user(cembench, trained, folder):
    file = foreign(trained, folder.parent / "other" / "m.safetensors", folder)
    assert f"images in     {folder}\n" in cembench("show", file).out
    remedy = f"images lie in {folder}, outside the working folder, .* give --data-root {folder}"
    commands = (
        ["eval", file, *PLAN],
        ["sample", file, "-n", 10, "steps=1", "--out", "x.png"],
    )
    for command in commands:
        result = cembench(*command)
        assert result.code == 2 and len(result.err.splitlines()) == 1
        assert result.err.count(str(file)) == 1
        with pytest.raises(CembenchError, match=remedy):
            raise CembenchError(result.err)
    probe = cembench("probe", file, "epochs=1")
    assert probe.code == 2 and f"give data.root={folder}" in probe.err
    with pytest.raises(CembenchError, match="which you never named"):
        cb.evaluate(cb.load(file), protocol=load_protocol("quick", PLAN), trust_pixels=True)
    with pytest.raises(CembenchError, match="which you never named"):
        cb.evaluate(cb.load(file), protocol=load_protocol("quick", PLAN))
    assert not (folder.parent / "cache" / "cembench" / "data-roots").exists()
    for command in commands:
        forget()
        assert cembench(*command, "--data-root", folder).code == 0
    forget()
    assert cembench(*commands[0]).code == 0  # it was named, and that is remembered


@pytest.mark.parametrize("place", ["working folder", "beside the checkpoint"])
def test_a_folder_within_reach_is_read_and_told(cembench, trained, folder, place, monkeypatch):
    beside = place == "beside the checkpoint"
    path = folder.parent / ("m.safetensors" if beside else "other/m.safetensors")
    file = foreign(trained, path, folder if beside else "images")
    if not beside:
        monkeypatch.chdir(folder.parent)
    for told in (1, 0):
        result = cembench("eval", file, *PLAN)
        assert result.code == 0
        assert result.err.count(f"cembench: reading images from {folder}, as {file} says") == told


def test_a_link_does_not_bring_a_folder_within_reach(cembench, trained, folder):
    Path("near").symlink_to(folder)
    file = foreign(trained, folder.parent / "other" / "m.safetensors", "near")
    assert f"images lie in {folder}, outside" in cembench("eval", file, *PLAN).err


def test_folders_that_the_user_named_are_read_without_a_word(cembench, folder, tmp_path):
    data = {"name": "folder", "root": str(folder), "mode": "L"}
    run = cb.train(experiment(data=data, epochs=1, method="standard").dump(), name="mine")
    torch.save(cb.load(run).net.state_dict(), "weights.pt")
    forget()
    result = cembench("eval", run, *PLAN)
    assert result.code == 0 and not result.err.count("reading images")
    (tmp_path / "cache" / "cembench" / "data-roots").unlink()
    model = {"name": "small_cnn", "width": 8}
    imported = import_model(model, data, Path("weights.pt"), Path("theirs"), normalise="data")
    forget()
    assert cembench("eval", imported, *PLAN).code == 0


def test_where_nothing_can_be_kept_a_named_folder_is_known_to_this_process(
    trained, folder, monkeypatch
):
    (folder.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "file"))
    file = foreign(trained, folder.parent / "other" / "m.safetensors", folder)
    plan = load_protocol("quick", PLAN)
    cb.evaluate(file, protocol=plan, data_root=str(folder), out="x")
    cb.evaluate(file, protocol=plan, out="y")


def test_a_folder_of_a_protocol_is_known_after_an_evaluation(cembench, copy, folder):
    other = f"{{name: folder, root: {folder}, mode: L, alias: others}}"
    options = [*PLAN, f"density={{steps: 1, outside: [{other}]}}", "--save-adversarial"]
    evaluated = cembench("eval", copy, *options)
    assert evaluated.code == 0, evaluated.err
    (record,) = (copy.parent / "eval").glob("*.json")
    forget()
    assert cembench("verify", record, copy).code == 0
    (folder.parent / "cache" / "cembench" / "data-roots").unlink()
    forget()
    result = cembench("verify", record, copy)
    assert result.code == 2 and f"images lie in {folder}, outside" in result.err
