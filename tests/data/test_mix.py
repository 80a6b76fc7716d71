"""Mixes of data sets: their settings, what training reads of them, and what becomes of them."""

import pytest
import torch

from cembench.data import datasets, roots
from cembench.data.digits import Digits
from cembench.data.loading import load_training
from cembench.models.metadata import read_metadata
from cembench.training.feed import Feed
from cembench.training.train import train
from cembench.training.trainer import Trainer
from cembench.util.errors import CembenchError
from cembench.util.processes.distributed import ALONE
from tests.conftest import NOTHING, experiment
from tests.support.checkpoints import rewrite
from tests.support.divergence import stopping_in_step
from tests.support.scans import NAMES, scan, write_scans

STANDARD = {"method": "standard", "epochs": 2, "batch_size": 50}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders: 200 scans, and 300 other ones without class names."""
    base = tmp_path_factory.mktemp("mix")
    real = write_scans(base / "real", range(200))
    return real, write_scans(base / "more", range(200, 500), names=None)


def mix(folders, *shares, **more):
    parts = [{"name": "parquet", "root": str(folder), "mode": "L"} for folder in folders]
    for part, share in zip(parts, shares, strict=False):
        part |= {} if share is None else {"share": share}
    return {"name": "mix", "parts": parts, **more}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"parts": ["digits"]}, "data.parts: list should have at least 2 items"),
        ({"parts": ["digits", "digit"]}, "data.parts.1.name: unknown data set 'digit'; did you"),
        ({"parts": ["digits", {"name": "digits", "crp": 1}]}, "parts.1.crp: .*did you mean 'crop'"),
        ({"parts": ["digits", {"name": "digits", "share": 1}]}, "parts.1.share: .*less than 1"),
        ({"parts": [{"name": "digits", "share": 0.5}] * 3}, "data: parts: .*add up to 1.5, not to"),
        ({"parts": [{"name": "digits", "share": 0.5}] * 2 + ["digits"]}, "1 leave nothing to the"),
        (
            {"parts": ["digits", {"name": "mix", "parts": ["digits"] * 2}]},
            "parts.1: a mix in a mix",
        ),
        ({"parts": ["digits"] * 2, "crop": 4}, "data.crop: set it in the first part, for all"),
    ],
)
def test_a_mistake_in_a_mix_names_the_part(data, words):
    with pytest.raises(CembenchError, match=words):
        experiment(data={"name": "mix", **data})


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ((None, 0.7), (0.3, 0.7)),
        (("3/10", 0.7), (0.3, 0.7)),
        ((None, None), (0.25, 0.75)),
        ((0.2, None, None), (0.2, 0.6, 0.2)),
    ],
)
def test_shares_that_are_left_out_take_the_rest_by_size(given, shares):
    parts = [{"name": "digits"} | ({} if share is None else {"share": share}) for share in given]
    data = datasets.parse({"name": "mix", "parts": parts})
    assert datasets.parse(data.dump()) == data
    assert data.shares([100, 300, 100][: len(given)]) == pytest.approx(shares)
    assert sum(data.shares([7, 11, 13][: len(given)])) == pytest.approx(1)


def test_a_mix_is_read_in_exact_shares_and_held_out_of_its_first_part(folders):
    settings = experiment(data=mix(folders, None, 0.7), **STANDARD)
    feed = Feed(settings, CPU, ALONE)
    assert (len(feed.held), len(feed.first), len(feed.training)) == (20, 180, 480)
    assert feed.steps == 180 // 50 and feed.training.classes == NAMES
    for epoch in range(3):
        rows = feed.order(epoch, torch.Generator())
        assert [int((part >= 180).sum()) for part in rows.split(50, 1)] == [35] * 3
        batch, first = next(feed.read(rows, 0)), rows[0, :50]
        assert torch.equal(batch.images, feed.training.batch(first))
        assert torch.equal(batch.labels, feed.training.labels[first])
    longer = Feed(experiment(data=mix(folders), epoch_images=1000, **STANDARD), CPU, ALONE)
    assert longer.steps == 20
    held, digits = load_training(settings.data, 0.1).held, Digits().load("train")
    known = {scan(image[0]) for image in digits.batch(torch.arange(200))}
    assert all(scan(image[0] // 15) in known for image in held.batch())


def test_the_fingerprint_of_a_mix_is_that_of_its_parts_and_shares(folders):
    def of(data):
        data = datasets.parse(data)
        loaded = load_training(data, 0.1)
        assert loaded.fingerprint == data.load("train").fingerprint
        return loaded.fingerprint

    prints = [
        of(mix(pair, *shares)) for pair in (folders, folders[::-1]) for shares in ((), (0.5,))
    ]
    assert len({*prints}) == 4


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "parquet", "size": 6}, r"data.parts.1: shape \(1, 6, 6\), and \(1, 8, 8\) in"),
        ({"name": "parquet", "mode": "RGB"}, r"data.parts.1: shape \(3, 8, 8\)"),
        ({"name": "parquet", "classes": list("abcdefghij")}, "data.parts.1: classes .*'a', 'b'"),
        ({"name": "digits"}, "data.parts.1: levels 16, and 255 in the first part"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(folders, other, words, cembench, tmp_path):
    if other["name"] == "parquet":
        other = {"root": str(folders[1]), "mode": "L", **other}
    data = mix(folders)
    settings = experiment(data={"name": "mix", "parts": [data["parts"][0], other]}, **STANDARD)
    with pytest.raises(CembenchError, match=words):
        train(settings, tmp_path / "run")


def test_a_mix_trains_resumes_evaluates_and_samples(folders, tmp_path, cembench, monkeypatch):
    data = mix(folders, 0.4)
    settings = experiment(data=data, save_every=1e-9, **STANDARD)
    straight = train(settings, tmp_path / "straight")
    for step in (2, 3):  # in the first epoch, and in the second
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "step", stopping_in_step(step))
            train(settings, tmp_path / "cut", resume=True)
    assert train(settings, tmp_path / "cut", resume=True).read_bytes() == straight.read_bytes()
    metadata = read_metadata(straight)
    assert metadata.data == settings.data and metadata.gradients == 300
    assert metadata.fingerprint == settings.data.load("train").fingerprint
    plan = [*NOTHING, "attacks=[{name: pgd, steps: 1}]", "limit=16"]
    result = cembench("eval", straight, *plan)
    assert result.code == 0, result.err
    shown = cembench("show", straight).out
    assert "data          real, 1×8×8 pixels" in shown and "extra data    more" in shown
    sampled = cembench("sample", straight, "-n", 10, "steps=1", "--out", tmp_path / "x.png")
    assert sampled.code == 0, sampled.err


def test_a_folder_of_a_mix_that_only_a_checkpoint_names_is_not_read(
    folders, trained, tmp_path, cembench, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(roots, "_named", set())
    monkeypatch.chdir(tmp_path)
    data = mix(folders)

    def change(values):
        values.update(data=data, fingerprint="")
        values["config"]["data"] = data

    file = rewrite(trained, tmp_path / "foreign" / "m.safetensors", change)
    evaluated = ["eval", file, *NOTHING, "attacks=[{name: pgd, steps: 1}]", "limit=4"]
    sampled = ["sample", file, "-n", 10, "steps=1", "--out", "x.png"]
    real, more = folders
    assert f"give --data-root {real}" in cembench(*evaluated).err
    assert cembench(*evaluated, "--data-root", real).code == 0  # which needs no other part
    result = cembench(*sampled, "--data-root", real)
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert f"images lie in {more}, outside" in result.err
    assert f"start cembench in {more}" in result.err
    monkeypatch.chdir(more)
    assert cembench(*sampled, "--data-root", real).code == 0
