"""The checkpoint file: complete in itself, and every wrong file refused by name."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cembench.models.checkpoint import load_checkpoint, save_checkpoint, weights_digest
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.files.yaml import to_yaml
from tests.conftest import experiment
from tests.support.checkpoints import rewrite


def test_a_checkpoint_needs_nothing_else(trained, tmp_path):
    copy = tmp_path / "anything.safetensors"
    copy.write_bytes((trained / "model.safetensors").read_bytes())
    model, metadata = load_checkpoint(copy)
    original, _ = load_checkpoint(trained)
    x = torch.rand(3, *metadata.shape)
    assert torch.equal(model(x), original(x)) and not model.training
    assert metadata.classes == list("0123456789") and metadata.data.name == "digits"


def test_channels_last_and_shared_weights_survive(tmp_path, trained):
    model, metadata = load_checkpoint(trained)
    state = model.to(memory_format=torch.channels_last).state_dict()
    save_checkpoint(tmp_path / "m.safetensors", state, metadata)
    x = torch.rand(2, 1, 8, 8)
    assert torch.allclose(load_checkpoint(tmp_path / "m.safetensors")[0](x), model(x), atol=1e-6)


def spoiled(name, trained, path):
    content = (trained / "model.safetensors").read_bytes()
    if name == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "header":
        path.write_bytes(content[:40])
    elif name == "torch zip":
        torch.save({"a": torch.zeros(2)}, path)
    elif name == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif name == "foreign":
        save_file({"a": torch.zeros(2)}, path)
    elif name == "version":
        rewrite(trained, path, lambda values: values.update(format=99))
    elif name == "unfit":
        rewrite(trained, path, lambda values: values["model"].update(width=9))
    elif name == "unknown model":
        rewrite(trained, path, lambda values: values["model"].update(name="small_cn"))
    elif name == "nonsense":
        rewrite(trained, path, lambda values: values.update(shape="round"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated", "truncated or damaged"),
        ("empty", "truncated or damaged"),
        ("header", "truncated or damaged"),
        ("torch zip", "a pickle, which could run code"),
        ("pickle", "a pickle, which could run code"),
        ("foreign", "not written by cembench"),
        ("version", "format version 99; this cembench reads versions 1 to 2"),
        ("unfit", "does not fit its architecture: .*size mismatch"),
        ("unknown model", "unknown model 'small_cn'; did you mean 'small_cnn'.*--plugin"),
        ("nonsense", "cannot be understood: shape"),
        ("missing", "No such file"),
    ],
)
def test_wrong_files_are_refused_by_name(cembench, trained, tmp_path, name, message):
    path = tmp_path / "bad.safetensors"
    spoiled(name, trained, path)
    with pytest.raises(CembenchError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    result = cembench("eval", path)
    assert result.code == 2 and len(result.err.splitlines()) == 1 and not result.out


def test_a_pickle_bomb_is_not_lit(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "boom",)

    for lay in (lambda p: p.write_bytes(pickle.dumps(Bomb())), lambda p: torch.save(Bomb(), p)):
        lay(tmp_path / "bomb.safetensors")
        with pytest.raises(CembenchError, match="pickle"):
            load_checkpoint(tmp_path / "bomb.safetensors")
    assert not (tmp_path / "boom").exists()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CembenchError, match=r"cannot write .*/x: No space left.*free some space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(cembench, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "c.yaml").write_text(to_yaml(experiment(epochs=1).dump()))
    result = cembench("train", tmp_path / "c.yaml", "--out", tmp_path / "file")
    assert result.code == 2 and "cannot write" in result.err.splitlines()[-1]


def test_the_digest_of_weights_knows_names_values_and_types_alone():
    weights = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    digest = weights_digest(weights)
    assert digest == weights_digest(dict(reversed(weights.items())))
    for other in (
        {**weights, "a": weights["a"].reshape(3, 2)},
        {**weights, "n": torch.tensor(3, dtype=torch.int32)},
        {"b": weights["a"], "n": weights["n"]},
        {**weights, "a": weights["a"] + 1},
    ):
        assert weights_digest(other) != digest
