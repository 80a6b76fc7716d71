"""Pseudo-labels: the classes that a network gives, made once, and part of what identifies a run."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import cembench.models.pseudo_labels as pseudo_labels
from cembench.data import datasets, roots
from cembench.data.digits import Digits
from cembench.models.checkpoint import load_checkpoint, weights_digest
from cembench.models.metadata import read_metadata
from cembench.training.train import train
from cembench.util.errors import CembenchError
from tests.conftest import experiment
from tests.support.checkpoints import rewrite
from tests.support.scans import NAMES, scan, write_scans

ROWS = torch.arange(200, 300)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def unlabelled(tmp_path):
    """The same images without labels: as parquet, and directly in a folder."""
    scans = list(map(scan, Digits().load("train").batch(ROWS)[:, 0]))
    folder, parquet = tmp_path / "folder", tmp_path / "parquet"
    for path in (folder / "train", parquet):
        path.mkdir(parents=True)
    for number, content in enumerate(scans):
        (folder / "train" / f"{number:03}.png").write_bytes(content)
    cells = [{"bytes": content, "path": None} for content in scans]
    pq.write_table(pa.table({"img": cells}), parquet / "train.parquet")
    return folder, parquet


def settings(root, checkpoint, **more):
    values = {"root": str(root), "mode": "L", "pseudo_labels": str(checkpoint)}
    kind = "parquet" if list(root.glob("*.parquet")) else "folder"
    return {"name": kind, "alias": "extra", **values, **more}


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_labels_are_the_classes_of_the_network_and_are_made_once(
    unlabelled, undefended, place, monkeypatch
):
    model, metadata = load_checkpoint(undefended)
    found = []
    for root in unlabelled:
        split = datasets.parse(settings(root, undefended, store=place)).load("train")
        expected = model(split.batch().float() / 255).argmax(1)
        assert torch.equal(split.labels, expected) and split.labels.unique().numel() > 5
        assert list(split.classes) == metadata.classes
        found.append(split.fingerprint)
    assert len({*found}) == 1
    resolved = datasets.parse(settings(unlabelled[0], undefended)).resolved()
    assert resolved.pseudo_labels.weights == weights_digest(model.state_dict())
    monkeypatch.setattr(pseudo_labels, "load_checkpoint", None)
    again = resolved.load("train")
    assert torch.equal(again.labels, split.labels) and again.fingerprint == found[0]


def test_other_weights_give_other_labels(unlabelled, undefended, trained):
    first, second = (
        datasets.parse(settings(unlabelled[0], run)).load("train") for run in (undefended, trained)
    )
    assert first.fingerprint != second.fingerprint
    assert not torch.equal(first.labels, second.labels)


def test_the_labels_that_training_images_have_do_not_count(undefended, tmp_path):
    real = write_scans(tmp_path / "parquet", range(100), names=NAMES[::-1])
    data = datasets.parse(settings(real, undefended))
    assert data.load("train").classes == NAMES and data.load("test").classes == NAMES[::-1]


def test_a_mix_with_pseudo_labels_trains_and_says_whose_they_are(
    unlabelled, undefended, trained, tmp_path, cembench
):
    real = write_scans(tmp_path / "real", range(200))

    def run(teacher):
        extra = settings(unlabelled[1], teacher, share=0.6)
        own = {"name": "parquet", "root": str(real), "mode": "L"}
        data = {"name": "mix", "parts": [own, extra]}
        return experiment(data=data, method="standard", epochs=1, batch_size=50)

    teacher = shutil.copytree(undefended, tmp_path / "teacher")
    file = train(run(teacher), tmp_path / "run")
    metadata = read_metadata(file)
    weights = weights_digest(load_checkpoint(undefended)[0].state_dict())
    assert metadata.config["data"]["parts"][1]["pseudo_labels"]["weights"] == weights
    assert f"labels of     extra from {teacher}" in cembench("show", file).out
    moved = teacher.rename(tmp_path / "moved")
    assert train(run(moved), tmp_path / "run", resume=True) == file
    with pytest.raises(CembenchError, match=r"another configuration: data.parts.1.pseudo_labels"):
        train(run(trained), tmp_path / "run", resume=True)
    metadata.training_split()  # the labels are in the cache, whatever became of the network
    shutil.rmtree(tmp_path / "cache" / "cembench" / "pseudo-labels")
    with pytest.raises(CembenchError, match="teacher"):
        metadata.training_split()


def test_what_cannot_label_is_named_in_one_line(
    unlabelled, undefended, encoder, tmp_path, cembench
):
    unfinished = rewrite(undefended, tmp_path / "u.safetensors", lambda v: v.update(finished=False))
    cases = {
        encoder: "is an encoder, without classes",
        unfinished: "is not finished; --resume it",
        tmp_path / "nowhere": "nowhere",
    }
    for checkpoint, words in cases.items():
        with pytest.raises(CembenchError, match=words):
            datasets.parse(settings(unlabelled[0], checkpoint)).load("train")
    with pytest.raises(CembenchError, match=r"for images of \[1, 8, 8\], not \[1, 6, 6\]"):
        datasets.parse(settings(unlabelled[0], undefended, size=6)).load("train")
    given = {"checkpoint": str(undefended), "weights": "0" * 64}
    with pytest.raises(CembenchError, match="has other weights than before"):
        datasets.parse(settings(unlabelled[0], undefended) | {"pseudo_labels": given}).load("train")
    with pytest.raises(CembenchError, match="chekpoint: unknown key; did you mean"):
        datasets.parse(settings(unlabelled[0], 0) | {"pseudo_labels": {"chekpoint": "x"}})


def test_a_network_that_only_a_checkpoint_names_labels_nothing(
    unlabelled, undefended, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(roots, "_named", set())
    monkeypatch.chdir(tmp_path)
    data = settings(unlabelled[0], undefended)
    file = rewrite(trained, tmp_path / "m.safetensors", lambda values: values.update(data=data))
    with pytest.raises(
        CembenchError, match=f"labels come from {undefended}, outside.*start cembench in"
    ):
        read_metadata(file).training_split()
