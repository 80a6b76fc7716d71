"""Scores of many samples: plain formulas in parts, bounded memory, the real side computed once."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cembench.evaluation.extractors import features as module
from cembench.evaluation.extractors import kept
from cembench.evaluation.metrics import functional, metrics
from tests.support.features import normal, pool

COUNT, DIMENSION = 2000, 24
METRICS = [{"name": name} for name in ("density", "coverage", "authpct")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sets(count=COUNT, unit=False):
    fake, real = (normal(count, 0.02 * seed, seed, DIMENSION).features.pool for seed in (1, 2))
    return pool(fake, unit), pool(real, unit)


def plain_kid(fake, real):
    x, y = fake.pool.double(), real.pool.double()

    def mean(a, b, without_own=False):
        kernel = (a @ b.T / DIMENSION + 1) ** 3
        own = kernel.diagonal().sum() if without_own else 0
        return (kernel.sum() - own) / (len(a) * (len(b) - without_own))

    return float(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y))


def plain_radii(points, k):
    return torch.cdist(points, points).kthvalue(k + 1).values


def plain_figures(fake, real):
    """The definitions, with all distances at once."""
    x, y = fake.points.double(), real.points.double()
    apart, five = torch.cdist(x, y), plain_radii(y, 5)
    distance, row = apart.min(1)
    return {
        "kid": plain_kid(fake, real),
        "precision": float((apart <= plain_radii(y, 3)).any(1).double().mean()),
        "recall": float((apart <= plain_radii(x, 3)[:, None]).any(0).double().mean()),
        "density": float((apart < five).sum() / (5 * len(x))),
        "coverage": float((apart < five).any(0).double().mean()),
        "authpct": float((plain_radii(y, 1)[row] < distance).double().mean() * 100),
    }


def figures(fake, real):
    sums = real.known("kernel sums", lambda: functional.kernel_sums(real.pool))
    radii = real.radii(3, torch.float32)
    precision, recall = functional.precision_recall(fake.points, real.points, 3, radii)
    found = {"precision": precision, "recall": recall}
    found["kid"] = functional.kid(fake.pool, real.pool, sums).value
    return found | {m["name"]: metrics.parse(m).finite(fake, real) for m in METRICS}


@pytest.mark.parametrize(("count", "unit"), [(COUNT, False), (400, True)])
def test_figures_are_their_plain_formulas_in_blocks_of_any_size(monkeypatch, count, unit):
    fake, real = sets(count, unit)
    expected = plain_figures(fake, real)
    for rows, block in ((functional.ROWS, functional.BLOCK), (333, 77_000)):
        monkeypatch.setattr(functional, "ROWS", rows)
        monkeypatch.setattr(functional, "BLOCK", block)
        fake, real = sets(count, unit)
        assert figures(fake, real) == pytest.approx(expected, rel=1e-6, abs=1e-6)


class Largest(TorchDispatchMode):
    """The number of values in the largest tensor that an operation returns."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            self.values = max(self.values, one.numel() if isinstance(one, torch.Tensor) else 0)
        return found


def test_no_tensor_grows_with_the_square_of_the_images(monkeypatch):
    monkeypatch.setattr(functional, "ROWS", 50)
    monkeypatch.setattr(functional, "BLOCK", 50 * 300)
    fake, real = sets(300)
    with Largest() as largest:
        figures(fake, real)
        metrics.parse("vendi").finite(fake, real)
    assert largest.values <= 2 * 50 * 300


def test_images_compared_pair_by_pair_are_at_most_so_many(monkeypatch):
    monkeypatch.setattr(functional, "MOST", 100)
    fake, real = sets(400)
    with Largest() as largest:
        for name in ("density", "coverage"):
            metrics.parse(name).finite(fake, real)
        functional.kid(fake.pool, real.pool)
        functional.precision_recall(fake.points, real.points)
    assert largest.values <= 100 * 100


@pytest.mark.parametrize("large", [True, False])
def test_the_real_side_is_computed_once_for_all_sets_and_evaluations(monkeypatch, large):
    monkeypatch.setattr(module, "LARGE", 200 if large else 10_000)
    made = []
    for name in ("ball_radii", "kernel_sums"):
        one = getattr(functional, name)
        counted = lambda x, *k, one=one: made.append(x.sum().item()) or one(x, *k)  # noqa: E731
        monkeypatch.setattr(functional, name, counted)
    fake, real = sets(300)
    first = figures(fake, real)
    of_samples = 2  # a radius for recall, kernel sums
    assert len(made) == 3 + of_samples
    assert figures(sets(300)[0], real) == first and len(made) == 3 + 2 * of_samples
    again = figures(*sets(300))
    assert again == first and len(made) == 3 + 3 * of_samples + (0 if large else 3)
    assert bool(list(kept.cache_folder().glob("figures-*"))) == large


def test_distances_among_real_images_are_computed_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 200)
    asked, nearest = [], functional.nearest
    monkeypatch.setattr(
        functional, "nearest", lambda x, *more: asked.append(len(x)) or nearest(x, *more)
    )
    (_, real), rows = sets(300), torch.tensor([3, 5, 3, 299])
    expected = plain_radii(real.points.double(), 1)
    assert torch.allclose(real.to_nearest(rows), expected[rows])
    assert torch.allclose(real.to_nearest(rows), expected[rows]) and asked == [3]
    (_, again), more = sets(300), torch.arange(6)
    assert torch.allclose(again.to_nearest(more), expected[:6]) and asked == [3, 4]


def test_other_images_or_figures_are_never_taken_for_these(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 200)
    fake, real = sets(300)
    for images, k in ((real, 3), (real, 4), (fake, 3), (pool(real.features.pool, True), 3)):
        expected = plain_radii(images.points.double(), k)
        assert torch.allclose(images.radii(k), expected)


@pytest.mark.parametrize("spoil", [bytes, lambda content: content[:-1]])
def test_a_damaged_cache_is_computed_again(monkeypatch, spoil):
    monkeypatch.setattr(module, "LARGE", 200)
    _, real = sets(300)
    first = real.radii(3)
    (file,) = kept.cache_folder().glob("figures-*")
    file.write_bytes(spoil(file.read_bytes()))
    assert torch.equal(sets(300)[1].radii(3), first)


def test_nothing_mixes_devices():
    """Tensors without values know their device, so no GPU is needed."""
    with FakeTensorMode():
        x, y = (torch.empty(count, 8, device="cuda") for count in (2300, 2100))
        sums = functional.kernel_sums(x)
        found = [sums, *functional._across(x.double(), y.double()), functional.ball_radii(y, 3)]
        found += [*functional.nearest(x, y, 2), functional.distances(x, y)]
        assert {tensor.device.type for tensor in found} == {"cuda"}
