"""Images that a Python program has: arrays, data sets and loaders in place of a data set's name."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import cembench as cb
from cembench.data.digits import Digits
from cembench.data.split import Split
from cembench.models.checkpoint import weights_digest
from cembench.util.files.layout import user_cache
from tests.conftest import TINY, Linear, images, labels

PGD = {"attacks": [{"name": "pgd", "steps": 3}], "limit": 24}
SMALL = {"name": "lite0", "size": 32}
RCS = {"samples": {"samplers": [{"name": "rcs", "steps": 2}], "count": 24, "extractor": SMALL}}


@pytest.fixture(scope="module")
def test() -> Split:
    return Digits().load("test")


@pytest.fixture(scope="module")
def own() -> Any:
    """The digits, in memory."""
    splits = (Digits().load(split) for split in ("train", "test"))
    train, test = ((split.batch(), split.labels) for split in splits)
    return cb.dataset(train, test, levels=16)


class Pictures(Dataset[tuple[Image.Image, int]]):
    """A data set with class names that gives PIL images, and no way to iterate."""

    classes = list("0123456789")

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        image = self.split.batch(torch.tensor([row]))[0, 0].numpy()
        return Image.fromarray(image), int(self.split.labels[row])


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Hub:
    """What the `datasets` of Hugging Face look like."""

    features = {"id": None, "img": None, "label": ClassLabel(list("0123456789"))}

    def __init__(self, split: Split) -> None:
        self.rows = Pictures(split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        image, label = self.rows[row]
        return {"id": row, "img": image, "label": label}


KINDS = {
    "tensors": lambda split: (split.batch(), split.labels),
    "arrays": lambda split: (split.batch().permute(0, 2, 3, 1).numpy(), split.labels.numpy()),
    "floats": lambda split: (split.pixels().squeeze(1), split.labels.tolist()),
    "tensor data set": lambda split: TensorDataset(split.batch(), split.labels),
    "pictures": Pictures,
    "hub": Hub,
    "split": lambda split: split,
    "list": lambda split: list(zip(split.pixels(), split.labels, strict=True)),
    "shuffling loader": lambda split: DataLoader(
        TensorDataset(split.pixels(), split.labels), 100, shuffle=True, drop_last=True
    ),
    "iterator of batches": lambda split: (
        (split.batch(rows), split.labels[rows]) for rows in split.parts(99)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_object_holds_the_same_images(kind: str, test: Split) -> None:
    read = cb.dataset(test=KINDS[kind](test), levels=16)
    assert read.test == test.fingerprint and read.cautions == ()
    assert read.title == f"memory-{test.fingerprint[:8]}"


def test_figures_are_those_of_the_data_set_by_name(trained: Path, own: Any) -> None:
    net = cb.load(trained)
    plan = {**PGD, **RCS}
    by_name = cb.evaluate(net, "digits", plan)
    in_memory = cb.evaluate(net, own, plan)
    assert in_memory.figures["pgd"].correct == by_name.figures["pgd"].correct
    assert in_memory.generation.samplers == by_name.generation.samplers
    assert in_memory.fingerprint == by_name.fingerprint
    assert in_memory.dataset != by_name.dataset
    samples = [cb.sample(net, "rcs", 10, data=data, steps=2) for data in ("digits", own)]
    assert torch.equal(samples[0].images, samples[1].images)


def test_training_from_memory_gives_the_weights_of_the_data_set_by_name(
    tmp_path: Path, own: Any, trained: Path, cembench: Any
) -> None:
    settings = {key: TINY[key] for key in TINY if key != "data"} | {"threat": {"eps": 0.125}}
    run = cb.train(settings, tmp_path, data=own)
    again = cb.train({**settings, "data": own, "epochs": 1}, tmp_path, name="short")
    assert cb.train(settings, tmp_path, data=own, resume=True) == run
    ours, theirs = (cb.load(path) for path in (run, trained))
    assert weights_digest(ours.state_dict()) == weights_digest(theirs.state_dict())
    assert ours.metadata.data.dump()["train"] == theirs.metadata.fingerprint

    lost = cembench("eval", run.parent)
    assert lost.code == 2 and "were in the memory of a Python program" in lost.err
    assert "give them again" in cembench("probe", run.parent, "--out", tmp_path).err
    assert cembench("show", run.parent).code == 0
    record = cb.evaluate(run, own, {**PGD, **RCS})
    assert record.dataset == ours.metadata.data.title and record.generation is not None
    wrong = (images(40), labels(40))
    with pytest.raises(cb.CembenchError, match="not those that the network was trained on"):
        cb.evaluate(run, wrong, {**PGD, **RCS}, train=wrong)
    probed = cb.probe(again, "linear", tmp_path, data=own, overrides=["epochs=1"])
    assert cb.load(probed).metadata.fingerprint == theirs.metadata.fingerprint


def test_without_training_images_nothing_is_sampled_and_the_record_says_so(
    trained: Path, test: Split, tmp_path: Path
) -> None:
    net, ours = cb.load(trained), (test.pixels(), test.labels)
    record = cb.evaluate(net, ours, {**PGD, **RCS}, out=tmp_path / "mine")
    assert record.generation is None and record.not_applicable == ["samples"]
    rounded, missing = record.warnings
    assert "multiples of 1/255" in rounded and "0.002" in rounded
    assert "no training images were given" in missing
    whole = cb.evaluate(net, ours, {**PGD, **RCS}, train="digits", out=tmp_path / "whole")
    assert whole.generation is not None and whole.not_applicable == []
    assert len(cb.leaderboard([tmp_path])) >= 2
    with pytest.raises(cb.CembenchError, match="training images; give them with train="):
        cb.evaluate(net, ours, RCS)
    bare = cb.dataset(test=ours)
    assert cb.sample(net, "rcs", 4, data=bare, steps=1, start="noise").images.shape[0] == 4
    with pytest.raises(cb.CembenchError, match="has no training images"):
        cb.sample(net, "rcs", 4, data=bare, steps=1)


def test_a_checkpoint_is_evaluated_on_other_images(copy: Path, test: Split) -> None:
    record = cb.evaluate(copy, (test.batch(), test.labels), PGD, out=copy.parent / "own")
    assert record.checkpoint_sha256 and record.dataset.startswith("memory-")
    assert str(record.threat) == "linf-0.125"


class Noisy(Dataset[tuple[Tensor, int]]):
    """Random images, others in each pass."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.rand(1, 8, 8), row % 10


def test_images_are_read_once() -> None:
    noisy = cb.dataset(train=Noisy())
    first, second = (noisy.load("train").batch() for _ in range(2))
    assert torch.equal(first, second)
    assert copy.deepcopy({"data": noisy})["data"].load("train") is noisy.load("train")


def test_more_images_than_memory_may_hold_go_to_a_file_while_they_are_used(test: Split) -> None:
    folder = user_cache() / "in-memory"
    pair = test.batch(), test.labels
    small = cb.dataset(test=pair, levels=16, memory_limit=1e-5)
    (file,) = folder.iterdir()
    assert small.test == test.fingerprint and file.stat().st_size == test.batch().numel()
    rows = torch.tensor([500, 3, 4])
    assert torch.equal(small.load("test").take(rows).batch(), test.batch(rows))
    record = cb.evaluate(Linear(64, 10), small, PGD, trust_pixels=True)
    in_memory = cb.evaluate(
        Linear(64, 10), cb.dataset(test=pair, levels=16), PGD, trust_pixels=True
    )
    assert record.figures["pgd"].correct == in_memory.figures["pgd"].correct
    del small
    gc.collect()
    assert not list(folder.iterdir())


def test_names_of_classes() -> None:
    x, y = images(30), labels(30)
    named = Pictures(Split.of((x * 255).byte(), y, tuple("0123456789")))
    named.classes = list("abcdefghij")
    assert cb.dataset((x, y), Subset(named, range(9))).load("train").classes == tuple("abcdefghij")
    assert cb.dataset((x, y), classes=list("klmnopqrst")).load("train").classes[0] == "k"
    few = cb.evaluate(Linear(64, 10), (x, y % 3), PGD, trust_pixels=True)
    assert few.error is None and few.figures["clean"].images == 24
    grey, colour = Image.new("L", (8, 8)), Image.new("RGB", (8, 8))
    assert cb.dataset([(colour, 0), (grey, 1)]).load("train").shape == (3, 8, 8)


@pytest.mark.parametrize("threat", ["l2 0.5", {"norm": "l2", "eps": 0.5}, "l2-0.5"])
def test_threat_models_as_text_and_settings(threat: Any) -> None:
    record = cb.evaluate(Linear(64, 10), "digits", ["pgd"], threat=threat, trust_pixels=True)
    assert str(record.threat) == "l2-0.5" and "pgd" in record.figures


X, Y = images(30), labels(30)
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "bytes as floats": ((X * 255, Y), {}, r"must be in \[0, 1\].*divide by 255"),
    "normalised": ((X * 2 - 1, Y), {}, "leave out the normalisation"),
    "not a number": ((X / 0, Y), {}, "NaN or infinite"),
    "integers": (((X * 999).int(), Y), {}, r"must be in 0\.\.255"),
    "booleans": ((X > 0.5, Y), {}, "images of bool"),
    "flat": ((X.flatten(1), Y), {}, "no pairs|N×C×H×W"),
    "two shapes": ([(X[0], 0), (X[1, :, :4], 1)], {}, "1×4×8, the first one 1×8×8"),
    "too few labels": ((X, Y[:9]), {}, "30 images and 9 labels"),
    "one-hot labels": ((X, torch.eye(10)[Y]), {}, r"argmax\(1\)"),
    "float labels": ((X, Y.float()), {}, "labels of float32"),
    "negative labels": ((X, Y - 1), {}, "label -1 is outside"),
    "too many classes": ((X, Y + 5), {}, "label 14 is outside the 10 classes"),
    "empty": ((X[:0], Y[:0]), {}, "holds no images"),
    "without labels": (TensorDataset(X), {}, "no pairs of image and label"),
    "several splits": (type("DatasetDict", (dict,), {})(train=1, test=2), {}, r"data\['test'\]"),
    "unknown columns": ([{"picture": 1, "label": 2}], {}, "rename one to 'image'"),
    "a number": (5, {}, "type int holds no images; give a pair"),
    "another shape": ((torch.rand(30, 1, 9, 9), Y), {}, "does not take"),
    "train beside a name": ("digits", {"train": (X, Y)}, "train: goes with"),
    "train of another shape": ((X, Y), {"train": (X[..., 1:], Y)}, "training data has images of"),
    "no norm": ("digits", {"threat": "linff 8/255"}, r"threat\.norm: give one of linf"),
    "no radius": ("digits", {"threat": "linf much"}, r"threat\.eps: .*'much'"),
    "radius in bytes": ("digits", {"threat": "linf 8"}, "8/255"),
    "no settings": ("digits", {"threat": 0.1}, "threat: "),
    "no attack": ("digits", {"protocol": ["pgdd"]}, "did you mean 'pgd'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_in_one_line(case: str) -> None:
    data, options, message = WRONG[case]
    with pytest.raises(cb.CembenchError, match=message) as caught:
        cb.evaluate(Linear(64, 10), data, **{"protocol": PGD, **options})
    assert "\n" not in str(caught.value)


def test_names_of_data_sets_and_functions_of_other_values_are_refused() -> None:
    with pytest.raises(cb.CembenchError, match="'cifar10' is a data set of cembench"):
        cb.dataset((X, Y), alias="cifar10")
    with pytest.raises(cb.CembenchError, match="expected 1×10 logits"):
        cb.evaluate(lambda x: x, (X, Y))
    with pytest.raises(cb.CembenchError, match="classes"):
        cb.dataset((X, Y), TensorDataset(X, Y), classes=["one", "two"])
    with pytest.raises(cb.CembenchError, match="expected 1×12 logits"):
        own = cb.dataset(test=(X, Y), classes=list("abcdefghijkl"))
        cb.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), own, PGD)
