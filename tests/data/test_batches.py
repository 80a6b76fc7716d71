"""Everything that touches data keeps to batches: memory does not grow with the number of images."""

import pytest
import torch
from safetensors.torch import load_file

import cembench.evaluation.measures.nearest as searching
import cembench.evaluation.measures.reference as reference
from cembench.data.digits import Digits
from cembench.data.resize import Resized, resized
from cembench.data.split import Split
from cembench.data.store.memory import MemoryStore
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures.nearest import nearest
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record.files import load_record
from cembench.evaluation.verify import verify_record
from cembench.samplers.draw import target_rows
from cembench.training.train import train
from tests.conftest import experiment
from tests.support.stores import BoundedDigits, small_bounds

STARTS = ["gaussian", "outside", "buffer"]
UNLABELLED = [{"name": "infonce", "start": "cluster"}]
LARGER = {"name": "bounded-digits"}
PROTOCOL = {
    "name": "all",
    "limit": 130,
    "batch_size": 64,
    "attacks": [{"name": "pgd", "steps": 2}],
    "density": {"steps": 1, "outside": ["noise", LARGER]},
    "curve": {"factors": [0.5, 1.0], "attack": {"name": "pgd", "steps": 1}},
    "sanity": {"images": 20, "steps": 1, "queries": 5},
    "samples": {
        "count": 130,
        "batch_size": 64,
        "extractor": {"name": "lite0", "size": 32},
        "metrics": ["density", "coverage"],
        "samplers": [
            *({"name": "rcs", "steps": 1, "start": s, "outside": LARGER} for s in STARTS),
            *({**sampler, "steps": 1} for sampler in UNLABELLED),
        ],
    },
}
JEM = {"name": "jem", "negatives": {"name": "sgld", "steps": 1, "buffer": 200}}


@pytest.fixture
def bounded(monkeypatch):
    small_bounds(monkeypatch)
    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 300)


def test_training_evaluation_sampling_and_verification_keep_to_batches(bounded, tmp_path):
    model = {"name": "small_cnn", "width": 4, "norm": "none"}
    common = {"model": model, "epochs": 1, "batch_size": 64, "method": JEM}
    checkpoint = train(experiment(data="bounded-digits", **common), tmp_path / "bounded")
    record, path = evaluate(
        checkpoint, Protocol.parse(PROTOCOL), save_samples=True, save_adversarial=True
    )
    failed = [one.error for one in record.generation.samplers.values() if one.error]
    assert not failed and record.error is None and load_record(path).density is not None
    assert [row for row in verify_record(path, checkpoint) if not row.agrees] == []


def test_the_same_images_give_the_same_weights_and_buffer_from_any_store(bounded, tmp_path):
    common = {"model": {"name": "small_cnn", "width": 4}, "epochs": 1, "method": JEM}
    files = {}
    for name in ("digits", "bounded-digits"):
        checkpoint = train(experiment(data=name, batch_size=64, **common), tmp_path / name)
        weights = {key: value.numpy().tobytes() for key, value in load_file(checkpoint).items()}
        files[name] = weights, (tmp_path / name / "buffer.safetensors").read_bytes()
    assert files["digits"] == files["bounded-digits"]


def test_methods_without_labels_and_probes_keep_to_batches(bounded, tmp_path):
    common = {"data": "bounded-digits", "epochs": 1, "batch_size": 64}
    base = train(experiment(method="infonce", **common), tmp_path / "infonce")
    start = {"checkpoint": str(base), "frozen": True}
    train(experiment(method="knn", pretrained=start, **common), tmp_path / "knn")


@pytest.mark.parametrize(("queries", "block"), [(1 << 30, 1 << 24), (64 * 4 * 7, 64 * 11)])
def test_the_nearest_image_is_found_in_any_blocks(monkeypatch, queries, block):
    from cembench.data import split as splits

    training, test = Digits().load("train"), Digits().load("test")
    images = Resized(test, test.shape)
    monkeypatch.setattr(searching, "QUERY_BYTES", queries)
    monkeypatch.setattr(splits, "BATCH_BYTES", block)
    some = images.chosen(torch.arange(40))
    distances, rows = nearest(some, training)
    apart = some.batch(torch.arange(40)).float().div(255).flatten(1).double()[:, None]
    apart = (apart - training.pixels().flatten(1).double()).norm(dim=2)
    torch.testing.assert_close(distances.double(), apart.min(1).values, atol=1e-5, rtol=1e-5)
    assert torch.equal(rows, apart.argmin(1))


def test_images_are_resized_alike_when_they_are_read_and_before():
    digits = Digits().load("test")
    before = resized(digits, (3, 12, 10))
    read = Split(Resized(digits, (3, 12, 10)), digits.labels, digits.classes)
    assert isinstance(before.store, MemoryStore) and before.fingerprint == read.fingerprint


def test_random_target_images_do_not_depend_on_how_many_numbers_are_drawn_at_once(monkeypatch):
    from types import SimpleNamespace

    from cembench.samplers import draw, samplers

    images = SimpleNamespace(data=Digits().load("train"))
    y = torch.arange(30) % 10
    sampler = samplers.parse({"name": "rcs", "start": "data"})
    rows = target_rows(sampler, y, images, 0)
    monkeypatch.setattr(draw, "SCORES", 5000)
    assert torch.equal(target_rows(sampler, y, images, 0), rows)
    assert torch.equal(images.data.labels[rows], y)


def test_bounded_digits_are_digits(bounded):
    assert BoundedDigits().load("test").fingerprint == Digits().load("test").fingerprint
