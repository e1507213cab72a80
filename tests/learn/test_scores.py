"""Scores of foreignness against closed forms of Gaussians, and against the definitions worked out point by point."""

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.spatial.distance import cdist
from scipy.special import softmax

from hamscope.learn import scores
from hamscope.learn.confidence import Clouds

D = 6


def gaussian_classes(n: int, seed: int = 1):
    """Classes 0, 1, 3 and 4 of 5 in six dimensions, n images each: points, labels, true means and covariance."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(D, D)) + 2 * np.eye(D)
    means = 40 + 60 * rng.normal(size=(5, D))
    labels = np.repeat([0, 1, 3, 4], n)
    return means[labels] + rng.normal(size=(4 * n, D)) @ root.T, labels, means, root @ root.T


def test_energy_is_the_log_of_the_sum():
    """Seven equal logits c give -(c + ln 7); by hand for ln 1, ln 2, ln 5; logits of 1000 do not overflow.

    Seen to fail with the sign turned, with the sum over windows, and with log(sum(exp)) as it stands.
    """
    np.testing.assert_allclose(scores.energy(np.full((3, 7), [[-2.0], [0], [1000]])), -np.log(7) - [-2, 0, 1000])
    np.testing.assert_allclose(scores.energy(np.log([[1, 2, 5]])), -np.log(8))


def test_largest_logit_and_probability():
    """By hand: the odds 1 : 2 : 5 give p = 5/8.  Odds of e^-50 still count, where 1 - p is rounded to 0.

    Seen to fail with the sign turned and with -log(softmax.max()), which gives 0 for the last.
    """
    logits = np.log([[1, 2, 5], [5, 1, 2]])
    np.testing.assert_allclose(scores.max_logit(logits), [-np.log(5)] * 2)
    np.testing.assert_allclose(scores.max_softmax(logits), [-np.log(5 / 8)] * 2)
    np.testing.assert_allclose(scores.max_softmax([[50.0, 0, 0]]), [2 * np.exp(-50)])
    random = np.random.default_rng(1).normal(scale=3, size=(50, 7))
    np.testing.assert_allclose(scores.max_softmax(random), -np.log(softmax(random, 1).max(1)))


def test_baselines_are_larger_for_the_undecided():
    """A window without a clear answer is more foreign, for all three.  Seen to fail with each sign turned."""
    own, foreign = [[12.0, 0, 1]], [[1.0, 0.5, 1]]
    for score in (scores.energy, scores.max_logit, scores.max_softmax):
        assert score(foreign) > score(own), score.__name__


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_gauss_by_hand(ridge):
    """Points m +- (3, 0) and m +- (0, 1) of two classes: the covariance is diag(4.5, 0.5), its mean 2.5.

    Seen to fail with the scatter about the common mean, with N - K for N, with the ridge not in units of the mean
    variance, and with variances for their roots in the whitening.
    """
    cross = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]])
    gauss = scores.fit_gauss(np.concatenate([cross + [10, 20], cross + [70, 20]]), np.repeat([0, 2], 4), 3, ridge)
    np.testing.assert_allclose(gauss.means, [[10, 20], [np.nan] * 2, [70, 20]])
    np.testing.assert_allclose(
        np.linalg.inv(gauss.white @ gauss.white.T), np.diag([4.5, 0.5]) + 2.5 * ridge * np.eye(2), rtol=1e-5, atol=1e-6
    )
    assert gauss.means.dtype == gauss.white.dtype == np.float32
    wide, narrow = 4.5 + 2.5 * ridge, 0.5 + 2.5 * ridge
    expected = [2 / np.sqrt(wide), 1 / np.sqrt(narrow), np.sqrt(4 / wide + 9 / narrow)]
    np.testing.assert_allclose(scores.mahalanobis(gauss, [[12, 20], [70, 21], [68, 17]]), expected, rtol=1e-5)
    far = np.array([[68, 17]]) - [10, 20]
    np.testing.assert_allclose(
        gauss.distances([[68, 17]]), [[np.sqrt((far**2 / [wide, narrow]).sum()), np.nan, expected[2]]], rtol=1e-5
    )


def test_mahalanobis_of_a_gaussian_is_chi_distributed():
    """Fitted on 4 x 50,000 points, 20,000 fresh ones of one class: chi with six degrees, Kolmogorov-Smirnov.

    The classes are many sigmas apart, so the nearest mean is the own one.  Unbroken p > 0.2 for seeds 2 to 6; a
    ridge of 0.003 gives p < 0.002.  Seen to fail with the covariance about the common mean and with the whitening
    transposed.
    """
    points, labels, means, covariance = gaussian_classes(50_000)
    gauss = scores.fit_gauss(points, labels, 5, ridge=1e-6)
    fresh = np.random.default_rng(2).multivariate_normal(means[3], covariance, 20_000)
    assert stats.kstest(scores.mahalanobis(gauss, fresh), stats.chi(D).cdf).pvalue > 0.01
    inverse = np.linalg.inv(covariance)
    expected = cdist(fresh[:200], means, "mahalanobis", VI=inverse)
    expected[:, 2] = np.nan  # no training images
    np.testing.assert_allclose(gauss.distances(fresh[:200]), expected, rtol=0.02)


def test_auroc_of_mahalanobis_is_that_of_shifted_gaussians():
    """Foreign windows one Mahalanobis distance of 2.5 off a class: P(ncx2(6, 6.25) > chi2(6)), integrated.

    20,000 windows each have a standard error below 0.003.  Seen to fail with the distance to another class, and with
    the mean over the classes for the nearest.
    """
    points, labels, means, covariance = gaussian_classes(20_000)
    gauss = scores.fit_gauss(points, labels, 5, ridge=1e-6)
    rng = np.random.default_rng(3)
    off = np.linalg.cholesky(covariance) @ (2.5 * np.eye(D)[4])
    own, foreign = (rng.multivariate_normal(means[0] + shift, covariance, 20_000) for shift in (0 * off, off))
    expected, _ = integrate.quad(lambda x: stats.chi2.pdf(x, D) * stats.ncx2.sf(x, D, 6.25), 0, 100)
    assert 0.8 < expected < 0.9
    found = scores.auroc(scores.mahalanobis(gauss, own), scores.mahalanobis(gauss, foreign))
    assert found == pytest.approx(expected, abs=0.012)


def test_relative_takes_off_the_distance_to_all():
    """One dimension by hand: classes at 0 +- 1 and 10 +- 1; all images have the mean 5 and the variance 26.

    At x the score is min((x - m)^2) - (x - 5)^2 / 26.  Seen to fail with lengths for squares and with the sum for
    the difference.
    """
    points = np.array([[-1.0], [1], [9], [11]])
    gauss = scores.fit_gauss(points, [0, 0, 1, 1], 2, ridge=0)
    background = scores.fit_background(points, ridge=0)
    found = scores.relative_mahalanobis(gauss, background, [[0.0], [5], [12]])
    np.testing.assert_allclose(found, [-25 / 26, 25, 4 - 49 / 26], rtol=1e-5)


def test_each_class_has_a_metric_of_its_own():
    """One dimension: 0 +- 1, none, 10 +- 4.  At 3 the wide class is nearer: 7 / 4 against 3; at 1 the other.

    Seen to fail with one covariance for all, and with the class without images left in.
    """
    gausses = scores.fit_each(np.array([[-1.0], [1], [6], [14]]), [0, 0, 2, 2], 3, ridge=0)
    assert len(gausses) == 2
    np.testing.assert_allclose(scores.mahalanobis_each(gausses, [[3.0], [1], [-2]]), [7 / 4, 1, 2], rtol=1e-5)


def test_units_that_never_fire_do_not_break_the_fit():
    """Of two units one is always 0: the ridge is its variance, r (4 + 0) / 2; with no ridge the fit is refused.

    Seen to fail without the refusal.
    """
    points = np.array([[1.0, 0], [5, 0]])
    gauss = scores.fit_gauss(points, [0, 0], 1, ridge=0.01)
    np.testing.assert_allclose(scores.mahalanobis(gauss, [[3.0, 1]]), 1 / np.sqrt(0.02), rtol=1e-5)
    with pytest.raises(ValueError, match=r"smallest variance 0, ridge 0; .*larger ridge"):
        scores.fit_gauss(points, [0, 0], 1, ridge=0)


@pytest.mark.parametrize("k", [1, 4, 300])
def test_nearest_is_that_of_the_definition(k, monkeypatch):
    """All distances, sorted; in one block and in blocks of two windows.

    Seen to fail with the k + 1-th, with the squared distance, with |y|^2 for |y|^2 / 2 and with the last block lost.
    """
    rng = np.random.default_rng(4)
    training, points = 100 + rng.normal(size=(300, 20)), 100 + rng.normal(scale=2, size=(31, 20))
    expected = np.sort(cdist(points, training), axis=1)[:, k - 1]
    np.testing.assert_allclose(scores.nearest(training, points, k), expected, rtol=1e-5)
    monkeypatch.setattr(scores, "_BLOCK", 600)
    np.testing.assert_allclose(scores.nearest(training, points, k), expected, rtol=1e-5)
    assert scores.nearest(training, points[:0], k).shape == (0,)


def test_nearest_in_units_and_in_the_metric():
    """Unit vectors of (3, 4) and (0, 2) are sqrt(0.36 + 0.04) apart; whitened distances are those of Mahalanobis.

    Seen to fail with the training left unscaled, with a NaN for the vector of zeros, and with the whitening
    transposed.
    """
    found = scores.nearest_unit([[3.0, 4]], [[0.0, 2], [30, 40], [0, 0]], 1)
    np.testing.assert_allclose(found, [np.sqrt(0.4), 0, 1], atol=1e-7, rtol=1e-6)
    points, labels, _, _ = gaussian_classes(100)
    gauss = scores.fit_gauss(points, labels, 5)
    inverse = (gauss.white @ gauss.white.T).astype(float)
    expected = np.sort(cdist(points[::9] + 3, points, "mahalanobis", VI=inverse), axis=1)[:, 6]
    np.testing.assert_allclose(scores.nearest_white(gauss, points, points[::9] + 3, 7), expected, rtol=1e-3)


def test_cloud_is_the_flag_of_the_paper_as_a_number():
    """Clouds of class k at 100 k and 100 k + 2 in every coordinate, sigma 1.  The largest logit is the first of ties.

    Window 0 is 0.8 off in two coordinates of the cloud of class 0: length 1.13, component 0.8.  Window 1 is the same
    but answered as class 1, 100 off.  Seen to fail with the nearest of all clouds and with the readings exchanged.
    """
    clouds = Clouds([np.float32([[100 * k] * 3, [100 * k + 2] * 3]) for k in range(3)])
    logits = np.float32([[0, -0.8, -0.8], [0, 0.8, 0]])
    np.testing.assert_allclose(scores.cloud(clouds, logits, "euclidean"), [0.8 * 2**0.5, _length(100, 99.2, 100)])
    np.testing.assert_allclose(scores.cloud(clouds, logits, "componentwise"), [0.8, 100])
    for reading in ("euclidean", "componentwise"):
        flags = clouds.confident(logits, logits.argmax(1), reading)
        np.testing.assert_array_equal(scores.cloud(clouds, logits, reading) <= 1, flags)


def _length(*differences):
    return np.sqrt(np.square(differences).sum())


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
def test_auroc_and_acceptance_of_two_normals(shift):
    """AUROC = Phi(d / sqrt 2), false acceptance at 95 % true = Phi(1.645 - d), threshold 1.645; 100,000 windows each.

    Standard errors are below 0.0013, 0.0016 (with that of the threshold) and 0.0066.  Seen to fail with 5 for 95 %,
    and, where there is a shift, with own and foreign exchanged.
    """
    own, foreign = np.random.default_rng(5).normal(size=(2, 100_000)) + [[0], [shift]]
    assert scores.auroc(own, foreign) == pytest.approx(stats.norm.cdf(shift / np.sqrt(2)), abs=0.006)
    threshold, accepted = scores.accepted_at(own, foreign)
    assert threshold == pytest.approx(stats.norm.ppf(0.95), abs=0.025)
    assert accepted == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.95) - shift), abs=0.008)
    assert (own <= threshold).mean() >= 0.95


def test_ties_count_a_half():
    """Small integers against all pairs; of equal scores the AUROC is 1/2.  Infinite scores are the largest.

    Seen to fail with ties counted as won, as lost, and with ranks from 0.
    """
    rng = np.random.default_rng(6)
    own, foreign = rng.integers(0, 5, 40), rng.integers(1, 7, 30)
    pairs = (foreign[:, None] > own).mean() + (foreign[:, None] == own).mean() / 2
    assert scores.auroc(own, foreign) == pytest.approx(pairs, rel=1e-12)
    assert scores.auroc([3, 3], [3.0]) == 0.5
    assert scores.auroc([0.0, np.inf], [np.inf]) == 0.75


def test_threshold_is_a_score_that_accepts_enough():
    """19 of 20 own scores are 95 %: the threshold is the 19th, and a foreign score at it is accepted.

    Seen to fail with a threshold between the scores and with < for <=.
    """
    assert scores.accepted_at(np.arange(1, 21), [19.0, 19.5, 3, 40]) == (19.0, 0.5)
    assert scores.accepted_at(np.arange(1, 21), [1.0, 2], true=0.05) == (1.0, 0.5)


def test_what_cannot_be_scored_is_refused():
    """With the value, the reason and the way out."""
    with pytest.raises(ValueError, match=r"foreign: 0 scores"):
        scores.auroc([1.0], [])
    with pytest.raises(ValueError, match=r"own: 2 scores, 1 of them NaN"):
        scores.accepted_at([1.0, np.nan], [1.0])
    with pytest.raises(ValueError, match=r"k = 3 of 2 training points; give 1 to 2"):
        scores.nearest(np.eye(2), np.eye(2), 3)
    with pytest.raises(ValueError, match=r"one of 0\.\.1"):
        scores.fit_gauss(np.eye(2), [0, 2], 2)
    with pytest.raises(ValueError, match=r"all finite"):
        scores.fit_gauss(np.array([[np.inf, 0]]), [0], 2)
