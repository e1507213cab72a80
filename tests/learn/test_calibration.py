"""Temperature, calibration error, reliability and Wilson intervals against what is known exactly."""

import json

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from hamscope.learn.calibration import (
    cross_entropy,
    ece,
    fit_temperature,
    probabilities,
    reliability,
    wilson,
)


def drawn(n: int, seed: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 7), and labels that are drawn from their softmax at `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=4, size=(n, 7))
    cumulated = softmax(logits / temperature, axis=1).cumsum(1)
    return logits, (rng.random((n, 1)) > cumulated).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_the_temperature_of_the_labels_is_found(temperature):
    """Within 3.5 standard errors, from the Fisher information sum Var_p(z) of 1 / T; 20,000 images know T to 1 %.

    Unbroken |z| < 2.2 in these four.  Seen to fail with 1 / T returned, with T = 1 always, with the search in T from
    0.01 to 2, and with the label of the next image.
    """
    logits, labels = drawn(20_000, 3, temperature)
    p = softmax(logits / temperature, axis=1)
    information = np.sum((p * logits**2).sum(1) - (p * logits).sum(1) ** 2)
    error = temperature**2 / np.sqrt(information)
    assert error < 0.03 * temperature
    assert abs(fit_temperature(logits, labels) - temperature) < 3.5 * error


def test_it_is_the_least_cross_entropy():
    """Both by hand: two classes whose logits differ by 1, of which three in four are right, give T = 1 / log 3.

    There the cross entropy is that of shares of 3/4 and 1/4.  Seen to fail with the sum for the mean and with 1 / T.
    """
    logits = np.float32([[1, 0]] * 8)
    labels = np.array([0, 0, 0, 1] * 2)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(1 / np.log(3), rel=1e-5)
    assert cross_entropy(logits, labels, found) == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    np.testing.assert_allclose(probabilities(logits, found), [[0.75, 0.25]] * 8, rtol=1e-5)


def test_answers_that_are_all_right_have_no_temperature():
    """Seen to fail without that rule: the search ends at its border, 0.01."""
    assert fit_temperature(np.eye(7), np.arange(7)) == 1.0


def test_large_logits_do_not_overflow():
    """Seen to fail with exp(z) / sum exp(z) written out."""
    np.testing.assert_allclose(probabilities(np.float32([[2000, 1000, 0]]), 1.0), [[1, 0, 0]])
    assert cross_entropy(np.float32([[2000, 1000]]), np.array([1])) == pytest.approx(1000)


def calibrated_set() -> tuple[np.ndarray, np.ndarray]:
    """Confidences 0.55, 0.65, ... 0.95, of 20 images each just that share right; two classes."""
    p, labels = [], []
    for confidence in (0.55, 0.65, 0.75, 0.85, 0.95):
        p += [[confidence, 1 - confidence]] * 20
        labels += [0] * round(20 * confidence) + [1] * round(20 * (1 - confidence))
    return np.array(p), np.array(labels)


@pytest.mark.parametrize("equal", ["width", "mass"])
def test_a_calibrated_set_has_no_error(equal):
    """And the same with confidences of 0.04 more has 0.04.  The order of the rows does not matter.

    Seen to fail with the accuracy of the next bin, with the middle of the bin for its mean confidence, with bins
    weighted equally (in the next test), and with probabilities of class 0 for the largest.
    """
    p, labels = calibrated_set()
    order = np.random.default_rng(0).permutation(len(p))
    swapped = p.copy()
    swapped[::2] = p[::2, ::-1]
    flipped = np.where(np.arange(len(p)) % 2 == 0, 1 - labels, labels)
    assert ece(swapped[order], flipped[order], equal=equal) == pytest.approx(0, abs=1e-12)
    too_sure = p + np.array([0.04, -0.04])
    assert ece(too_sure, labels, equal=equal) == pytest.approx(0.04)


def test_bins_count_by_their_images():
    """By hand: 30 images of confidence 0.9, of which 24 right, and 10 of 0.6, of which 9: (30 0.1 + 10 0.3) / 40.

    The two binnings: in one bin of equal width over-confidence and under-confidence cancel, 0.6 in (0.5, 1] beside
    0.9: |33/40 - 0.825| = 0.  Seen to fail with bins weighted equally (0.2), and with the mean of differences with
    their signs.
    """
    p = np.array([[0.9, 0.1]] * 30 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 24 + [1] * 6 + [0] * 9 + [1])
    for equal in ("width", "mass"):
        assert ece(p, labels, 15, equal) == pytest.approx(0.15)
    assert ece(p, labels, 2, "width") == pytest.approx(0)
    rows = reliability(p, labels)
    assert [row["count"] for row in rows] == [10, 30]
    assert [row["accuracy"] for row in rows] == pytest.approx([0.9, 0.8])
    assert [row["confidence"] for row in rows] == pytest.approx([0.6, 0.9])
    assert json.loads(json.dumps(rows)) == rows
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx((0.6269, 0.9050), abs=1e-4)


def test_borders_belong_to_the_bin_below():
    """As in Guo et al., bins are (a, b]: 0.8 and 0.80001 of five bins are apart, 0.79 and 0.8 together.

    Seen to fail with bins [a, b).
    """
    p = np.array([[0.79, 0.21], [0.8, 0.2], [0.80001, 0.19999], [1.0, 0.0]])
    assert [row["count"] for row in reliability(p, np.zeros(4, int), 5)] == [2, 2]


def test_bins_of_equal_mass():
    """1500 different confidences make 15 bins of 100; what is equal stays together, seen to fail with a cut of the
    sorted rows into 15 parts."""
    top = np.linspace(0.99, 0.9999, 1500)
    p = np.stack([top, 1 - top], 1)
    assert [row["count"] for row in reliability(p, np.zeros(1500, int), 15, "mass")] == [100] * 15
    assert len(reliability(p, np.zeros(1500, int), 15, "width")) == 1
    p[200:] = [1.0, 0.0]
    rows = reliability(p, np.zeros(1500, int), 15, "mass")
    assert [row["count"] for row in rows] == [100, 100, 1300] and rows[-1]["confidence"] == 1


def test_a_calibrated_network_is_below_one_per_cent():
    """60,000 labels drawn from the probabilities themselves: ECE below 0.01, and far above at the wrong temperature.

    Of ten seeds the largest was 0.0082, and at a temperature off by 1.3 the least was 0.062.
    """
    logits, labels = drawn(60_000, 8, 1.5)
    for equal in ("width", "mass"):
        assert ece(probabilities(logits, 1.5), labels, equal=equal) < 0.01
        assert ece(probabilities(logits, 1.5 / 1.3), labels, equal=equal) > 0.04


def test_wilson_intervals():
    """Textbook values: 0 of 10 and 10 of 10 (0.2775 = z^2 / (n + z^2)), 81 of 263 (0.2553, 0.3662; Newcombe 1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), arrays of them, nothing, and parts of one.

    Seen to fail with z for z^2, with z^2 / 2 for z^2 / 4, and with the Wald interval.
    """
    low, high = wilson([0, 10, 81], [10, 10, 263])
    np.testing.assert_allclose(low, [0, 1 - 0.2775, 0.2553], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 1, 0.3662], atol=1e-4)
    assert [float(side) for side in wilson(0, 0)] == [0, 1]
    around = [wilson(n / 2, n) for n in (4, 4.5, 5)]
    assert around[0][0] < around[1][0] < around[2][0] and around[0][1] > around[1][1] > around[2][1]
    with pytest.raises(ValueError, match="0 to n"):
        wilson(3, 2)


def test_wilson_intervals_cover():
    """The mean coverage over shares from 0.02 to 0.98 for n = 50, summed exactly: 0.95 within 0.01.

    Seen to fail with z = 1.645 and with the Wald interval.
    """
    hits = np.arange(51)
    low, high = wilson(hits, 50)
    coverage = [binom.pmf(hits[(low <= p) & (p <= high)], 50, p).sum() for p in np.linspace(0.02, 0.98, 193)]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 7\).*\(2,\)"):
        fit_temperature(np.zeros((3, 7)), np.zeros(2, int))
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(np.full((3, 7), np.nan), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"'size'.*width"):
        ece(np.eye(2), np.zeros(2, int), equal="size")
