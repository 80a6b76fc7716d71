"""Variety, and distances at several counts: closed forms and definitions."""

import pytest
import torch

from cembench.evaluation.metrics import functional, metrics
from cembench.util.errors import CembenchError
from cembench.util.rng import isolated_rng
from tests.support.features import normal, pool

VENDI, INFINITY = metrics.parse("vendi"), metrics.parse("fd-infinity")


def seeded(metric, fake, real):
    with isolated_rng(0):
        return metric.finite(fake, real)


def test_vendi_counts_different_images():
    real = normal(3)
    assert VENDI.finite(pool([[0.3, 0.4]] * 9), real) == pytest.approx(1)
    for count in (5, 7):
        assert VENDI.finite(pool(torch.eye(count, 8) * 3), real) == pytest.approx(count)
        assert VENDI.finite(pool(torch.eye(count).repeat(4, 1)), real) == pytest.approx(count)


@pytest.mark.parametrize("count", [12, 20, 35])
def test_vendi_is_the_entropy_of_the_whole_kernel_on_either_side(count, monkeypatch):
    samples = normal(count, 0.5, dimension=20)
    unit = samples.points.double() / samples.points.double().norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(unit @ unit.T / count)
    values = values[values > 1e-12]
    expected = float((-(values * values.log()).sum()).exp())
    for rows in (functional.ROWS, 7):
        monkeypatch.setattr(functional, "ROWS", rows)
        assert VENDI.finite(samples, normal(3)) == pytest.approx(expected)


@pytest.mark.parametrize("count", [500, 2000])
def test_fd_infinity_is_nearer_to_the_distance_of_the_distributions(count):
    """N(0.1, 0.5²) and N(0, 1) in 64 dimensions are 64 · (0.1² + 0.5²) apart."""
    truth = 64 * (0.1**2 + 0.5**2)
    for seed in range(3):
        fake = normal(count, 0.1, 2 * seed, dimension=64, scale=0.5)
        real = normal(count, seed=2 * seed + 1, dimension=64)
        plain = functional.frechet_distance(fake.points, real.points)
        assert abs(seeded(INFINITY, fake, real) - truth) < abs(plain - truth) / 3
        assert seeded(INFINITY, fake, real) == seeded(INFINITY, fake, real)


def test_distances_at_a_count_are_of_random_images():
    fake, real = normal(400, 0.3, 1), normal(400, seed=2)
    fd, kid = (metrics.parse({"name": name, "count": 400}) for name in ("fd", "kid"))
    assert (fd.title, kid.title) == ("fd@400", "kid@400")
    whole = functional.frechet_distance(fake.points, real.points)
    assert seeded(fd, fake, real) == pytest.approx(whole)
    whole = functional.kid(fake.points, real.points).value
    assert seeded(kid, fake, real) == pytest.approx(whole)
    few = metrics.parse({"name": "fd", "count": 20})
    assert seeded(few, fake, real) > 2 * seeded(fd, fake, real)


def test_too_few_images_are_said_in_one_line():
    with pytest.raises(CembenchError, match=r"metric fd@50: count is 50, of 30 images"):
        metrics.parse({"name": "fd", "count": 50}).finite(normal(30), normal(40))
    with pytest.raises(CembenchError, match="metric fd-infinity: 2 images are too few"):
        INFINITY.finite(normal(2), normal(40))
    with pytest.raises(CembenchError, match="metric authpct: one training image"):
        metrics.parse("authpct").finite(normal(2), normal(1))
