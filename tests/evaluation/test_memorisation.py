"""Figures beside training images: whether samples are copies of them."""

import pytest
import torch

import cembench.evaluation.measures.reference as reference
from cembench.data.digits import Digits
from cembench.data.resize import eight_bit
from cembench.data.split import subset
from cembench.evaluation.extractors import extractors
from cembench.evaluation.extractors.features import FeatureReader, cache_folder
from cembench.evaluation.measures.reference import ReferenceSet
from cembench.evaluation.metrics import functional, metrics
from cembench.evaluation.sections.samples import SamplesConfig
from tests.support.features import normal, pool

AUTHPCT, FD_TRAIN = metrics.parse("authpct"), metrics.parse("fd-train")


def by_hand(samples, known):
    """The definition, sample by sample."""
    x, y = known.points.double(), samples.points.double()
    authentic = 0
    for one in y:
        apart = (x - one).norm(dim=1)
        row = int(apart.argmin())
        others = (x - x[row]).norm(dim=1)
        others[row] = torch.inf
        authentic += bool(others.min() < apart[row])
    return 100 * authentic / len(y)


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_authpct_is_its_definition_in_any_blocks(shift, monkeypatch):
    samples, known = normal(40, shift, 1), normal(55, seed=2)
    for rows in (functional.ROWS, 7):
        monkeypatch.setattr(functional, "ROWS", rows)
        assert AUTHPCT.finite(samples, known) == pytest.approx(by_hand(samples, known))


def test_copies_are_not_authentic_and_other_real_images_are_as_often_as_not():
    known = normal(2000, seed=1)
    assert AUTHPCT.finite(pool(known.points[:300]), known) == 0
    assert AUTHPCT.finite(normal(2000, seed=2), known) == pytest.approx(50, abs=5)
    assert AUTHPCT.finite(normal(100, shift=50), known) == 100
    half = pool(torch.cat([known.points[:50], known.points[:50] + 100]))
    assert AUTHPCT.finite(half, known) == 50


def test_lengths_do_not_hide_copies_where_the_extractor_says_so():
    known = pool(normal(50, seed=1).points, unit=True)
    longer = pool(known.features.pool[:20] * 3, unit=True)
    assert AUTHPCT.finite(longer, known) == 0
    assert AUTHPCT.finite(pool(longer.features.pool), pool(known.features.pool)) > 50


def test_nearest_are_those_of_all_distances(monkeypatch):
    points, known = normal(30, seed=1).points, normal(45, seed=2).points
    monkeypatch.setattr(functional, "ROWS", 8)
    found, rows = functional.nearest(points, known, 3)
    expected = torch.cdist(points.double(), known.double()).topk(3, largest=False)
    assert torch.allclose(found, expected.values) and torch.equal(rows, expected.indices)


def test_fd_to_training_images_has_the_bias_of_fd():
    """It is of as many training images as there are samples, however many there are."""
    samples, known, other = (normal(n, seed=n, dimension=40) for n in (100, 3000, 101))
    found = FD_TRAIN.finite(samples, known)
    equal = functional.frechet_distance(samples.points, other.points)
    assert found == pytest.approx(equal, rel=0.1)
    assert found > 1.5 * functional.frechet_distance(samples.points, known.points)
    assert FD_TRAIN.finite(samples, samples) == pytest.approx(0, abs=1e-6)


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 100)
    train, test = (subset(Digits().load(split), 150)[0] for split in ("train", "test"))
    return train, test


def reference_of(digits, **changes):
    wanted = {"samplers": ["rcs"], "count": 50, "metrics": ["authpct", "fd-train"]}
    config = SamplesConfig.parse({**wanted, "extractor": {"size": 32}, **changes})
    reader = FeatureReader(extractors.parse({"name": "lite0", "size": 32}), torch.device("cpu"))
    train, test = digits
    return ReferenceSet(config, reader, test, train)


def further(found, images):
    return found.scores(images, None)[0].metrics


@pytest.mark.parametrize("split", ["test", "train"])
def test_real_images_are_judged_beside_training_images_that_they_are_not_of(digits, split):
    """Where the floor is of training images, the reference stands in for it."""
    found = reference_of(digits, reference=split)
    held_out = found.real if split == "test" else found.floor
    expected = [AUTHPCT.finite(held_out, found.training), FD_TRAIN.finite(held_out, found.training)]
    assert list(further(found, found.floor).values()) == expected
    assert expected[0] > 40
    copies = eight_bit(found.train.take(torch.arange(50)))
    copied = found.features_of(copies, torch.zeros(50).long())
    assert further(found, copied)["authpct"] < 1


def test_training_images_are_read_once_for_the_metrics_that_ask_for_them(digits, monkeypatch):
    plain = reference_of(digits, metrics=["coverage"])
    further(plain, plain.floor)
    assert "training" not in vars(plain)
    found = reference_of(digits)
    first = further(found, found.floor)
    files = set(cache_folder().iterdir())
    monkeypatch.setattr(FeatureReader, "read", None)
    again = reference_of(digits)
    assert further(again, again.floor) == first
    assert set(cache_folder().iterdir()) == files and found.training.features.logits is None


def test_a_bounded_number_of_training_images_are_read(digits, monkeypatch):
    monkeypatch.setattr(reference, "TRAINING_IMAGES", 90)
    found = reference_of(digits)
    assert len(found.training.features) == 90
    again = reference_of(digits)
    assert torch.equal(found.training.features.pool, again.training.features.pool)
