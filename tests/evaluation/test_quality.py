"""Figures of samples against closed forms and against torch-fidelity."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from cembench.data.store.memory import MemoryStore
from cembench.evaluation.extractors.features import Features, ImageFeatures
from cembench.evaluation.measures.density import calibration
from cembench.evaluation.measures.outside import ood_scores
from cembench.evaluation.metrics import functional as quality
from cembench.evaluation.statistics import mean_std


def normal(count, dimension, shift=0.0, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, dimension, generator=generator).double()


def test_the_distance_of_gaussians_has_a_closed_form():
    """|μ₁ − μ₂|² + Σ (σ₁ − σ₂)² for diagonal covariances, exact on whitened samples."""
    white = normal(5000, 4)
    white = white - white.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T))).T
    scales = torch.tensor([1.0, 2.0, 0.5, 3.0]).double()
    expected = 4 * 0.7**2 + float((scales - 1).square().sum())
    assert quality.frechet_distance(white * scales + 0.7, white) == pytest.approx(expected)
    assert quality.frechet_distance(white, white) == pytest.approx(0, abs=1e-6)


def test_the_distance_of_few_images_is_torch_fidelitys():
    fake, real = normal(30, 40, 0.2, seed=1), normal(35, 40, scale=1.3, seed=2)
    statistics = [fid_features_to_statistics(part) for part in (fake, real)]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert quality.frechet_distance(fake, real) == pytest.approx(theirs, rel=1e-6)


def test_the_score_of_one_hot_predictions_is_the_number_of_classes():
    logits = 1000 * torch.eye(7).repeat(30, 1)
    assert quality.inception_score(logits, 1)[0] == pytest.approx(7)
    assert quality.inception_score(torch.zeros(70, 7), 1)[0] == pytest.approx(1)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_kid_is_torch_fidelitys_on_one_subset_of_everything(shift):
    fake, real = normal(60, 16, shift, seed=1), normal(60, 16, seed=2)
    theirs = kid_features_to_metric(
        fake, real, kid_subsets=1, kid_subset_size=60, verbose=False, rng_seed=0
    )
    ours = quality.kid(fake, real).value
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9, abs=1e-12)


def test_kid_does_not_depend_on_blocks_and_takes_unequal_counts(monkeypatch):
    fake, real = normal(50, 8, 0.3, seed=1), normal(70, 8, seed=2)
    whole = quality.kid(fake, real)
    monkeypatch.setattr(quality, "BLOCK", 300)
    parts = quality.kid(fake, real)
    assert parts.value == pytest.approx(whole.value) and parts.error == pytest.approx(whole.error)


def test_the_jackknife_leaves_out_one_member_at_a_time():
    fake, real = normal(12, 4, 0.5, seed=1), normal(9, 4, seed=2)
    estimate = quality.kid(fake, real)
    for row in (0, 5):
        rest = torch.arange(12) != row
        assert estimate.without_fake[row] == pytest.approx(quality.kid(fake[rest], real).value)
        rest = torch.arange(9) != row % 9
        assert estimate.without_real[row] == pytest.approx(quality.kid(fake, real[rest]).value)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """KID of two draws from one distribution is 0, and so is the gain of one over another."""
    held, gained = 0, 0
    for trial in range(100):
        fake, other, real = (normal(40, 6, seed=1000 * k + trial) for k in range(1, 4))
        estimate = quality.kid(fake, real)
        low, high = estimate.interval
        held += low <= 0 <= high
        low, high = quality.kid(other, real).minus(estimate).interval
        gained += low <= 0 <= high
    assert held >= 85 and gained >= 85


def test_the_gain_of_a_set_over_itself_is_nothing():
    fake, real = normal(30, 5, 0.4, seed=1), normal(30, 5, seed=2)
    gain = quality.kid(fake, real).minus(quality.kid(fake, real))
    assert gain.value == 0 and gain.error == 0


def test_precision_and_recall_see_what_is_missing():
    real = torch.cat([normal(50, 4, 10, seed=1), normal(50, 4, -10, seed=2)]).float()
    half = normal(100, 4, 10, seed=3).float()
    precision, recall = quality.precision_recall(half, real)
    assert precision > 0.7 and recall <= 0.5
    assert quality.precision_recall(real, real) == (1.0, 1.0)
    assert quality.precision_recall(half + 100, real) == (0.0, 0.0)


def test_precision_and_recall_are_torch_fidelitys_in_any_blocks(monkeypatch):
    fake, real = normal(90, 5, 0.4, seed=1).float(), normal(70, 5, seed=2).float()
    theirs = prc_features_to_metric(
        fake, real, prc_neighborhood=3, prc_batch_size=50, save_cpu_ram=True, verbose=False
    )
    for rows in (1000, 30):
        monkeypatch.setattr(quality, "ROWS", rows)
        ours = quality.precision_recall(fake, real)
        assert ours == quality.precision_recall(fake, real, 3, quality.ball_radii(real, 3))
        assert ours == (theirs["precision"], theirs["recall"])


def test_what_is_known_of_real_images_changes_no_figure():
    fake, real = normal(40, 8, 0.3, seed=1), normal(50, 8, seed=2)
    known = quality.kid(fake, real, quality.kernel_sums(real))
    again = quality.kid(fake, real)
    assert known.value == again.value and known.error == again.error


def test_many_features_have_the_same_gaussian_in_parts(monkeypatch):
    features = normal(2500, 6, 0.3, seed=1).float()
    whole = quality.gaussian_of(features)
    monkeypatch.setattr(quality, "MOST", 100)
    parts = quality.gaussian_of(features)
    for key in ("mu", "sigma"):
        np.testing.assert_allclose(parts[key], whole[key], rtol=1e-10, atol=1e-12)


def test_pairs_are_of_at_most_so_many_images_the_same_ones_each_time(monkeypatch):
    images = MemoryStore(torch.zeros(300, 1, 2, 2, dtype=torch.uint8))
    features = Features(normal(300, 4).float())
    every = ImageFeatures(images, torch.zeros(300).long(), features, unit=False)
    assert torch.equal(every.points, features.pool)
    monkeypatch.setattr(quality, "MOST", 120)
    some = ImageFeatures(images, torch.zeros(300).long(), features, unit=True)
    assert some.points.shape == (120, 4) and torch.equal(some.points, some.points)
    assert torch.allclose(some.points.norm(dim=1), torch.ones(120))
    assert len(some.radii(3)) == 120 and some.images.shape == (300, 1, 2, 2)


def test_calibration_is_the_gap_between_confidence_and_accuracy():
    import pandas as pd

    sure = pd.Series([0.95] * 10 + [0.55] * 10 + [1.0])
    right = pd.Series([True] * 7 + [False] * 3 + [True] * 5 + [False] * 5 + [True])
    found = calibration(sure, right, 10)
    gap = abs(sure[right.index >= 0][:10].sum() + 1 - 8) + abs(5.5 - 5)
    assert found.ece == pytest.approx(gap / 21)
    counts = [row.images for row in found.bins]
    assert counts == [0, 0, 0, 0, 0, 10, 0, 0, 0, 11] and found.bins[0].accuracy is None


def test_separation_of_normals_has_a_closed_form():
    """AUROC of N(d, 1) against N(0, 1) is Φ(d/√2); FPR at 95 % TPR is Φ(1.645 − d)."""
    import pandas as pd
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    found = ood_scores(pd.Series(rng.normal(1.5, 1, 20000)), pd.Series(rng.normal(0, 1, 20000)))
    assert found.auroc == pytest.approx(norm.cdf(1.5 / 2**0.5), abs=0.01)
    assert found.fpr95 == pytest.approx(norm.cdf(1.6449 - 1.5), abs=0.02)
    perfect = ood_scores(pd.Series([2.0, 3.0]), pd.Series([0.0, 1.0]))
    assert (perfect.auroc, perfect.fpr95) == (1.0, 0.0)


def test_a_spread_is_mean_and_deviation():
    found = mean_std(pd.Series([1.0, 3.0]))
    assert (found.mean, found.std, found.images) == (2.0, 1.0, 2)
