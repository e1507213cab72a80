"""The instrument: threshold gives the pattern back, width and profile of the blur, strength and keys of the noise."""

import numpy as np
import pytest
from scipy.special import ndtr

from hamscope.data.instrument import LEVELS, MIDDLE, observe, point_spread
from hamscope.data.windows import binarize

DARK, BRIGHT = LEVELS


@pytest.fixture(scope="module")
def patterns():
    """Three patterns of 40 x 56 sites, uint8, of 30, 50 and 90 % bright sites."""
    share = np.array([0.3, 0.5, 0.9])[:, None, None]
    return (np.random.default_rng(3).random((3, 40, 56)) < share).astype(np.uint8)


def test_a_perfect_instrument_changes_nothing(patterns):
    """Without blur and noise there are the two levels alone, and the middle between them gives the pattern back.

    Seen to fail with dark and bright exchanged, and with a blur of 0.5 pixels where 0 was asked for.
    """
    grey = observe(patterns, 0, 0, seed=1)
    assert grey.dtype == np.uint8 and set(np.unique(grey)) == {DARK, BRIGHT}
    for image, seen in zip(patterns, grey):
        np.testing.assert_array_equal(binarize(seen, MIDDLE, "bright"), image)
    assert set(np.unique(observe(patterns, 0, 0, 1, levels=(10, 20)))) == {10, 20}


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
def test_second_moment_of_the_point_spread(sigma):
    """A bright pixel spreads by sigma along rows and along columns: <r^2> = 2 sigma^2; its weight stays 1.

    0.7 % are left for the cut at four sigma and for the sampling.  Seen to fail with sigma as the full width at half
    maximum (<r^2> 5.5 times too small), and with a blur along the rows alone.
    """
    image = np.zeros((65, 65), np.uint8)
    image[32, 32] = 1
    spread = point_spread(image, sigma)
    offset = np.arange(65) - 32
    assert spread.sum() == pytest.approx(1, abs=1e-12)
    assert np.sum(spread * offset**2) == pytest.approx(sigma**2, rel=0.007)
    assert np.sum(spread * offset[:, None] ** 2) == pytest.approx(sigma**2, rel=0.007)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_wall_becomes_an_error_function(periodic):
    """Grey values across straight walls are dark + contrast Phi(x / sigma) to one level; the edge wraps or mirrors.

    Seen to fail with sigma off by 5 %, with wrap and reflect exchanged, and with frames blurred into each other.
    """
    sigma, image = 2.0, np.zeros((1, 32, 64), np.uint8)
    image[:, :, 32:] = 1
    grey = observe(np.concatenate([image, 1 - image]), sigma, 0, 1, periodic).astype(float)
    x = np.arange(64) - 31.5
    profile = ndtr(x / sigma)
    if periodic:
        # The second wall, half at each edge: bright on its left, dark on its right.
        profile += ndtr((-x - 32) / sigma) - ndtr((x - 32) / sigma)
    assert np.abs(grey[0] - (DARK + (BRIGHT - DARK) * profile)).max() <= 1
    assert np.abs(grey[1] - (BRIGHT - (BRIGHT - DARK) * profile)).max() <= 1


@pytest.mark.parametrize("periodic", [True, False])
def test_blur_conserves_the_mean(patterns, periodic):
    """Light is moved and not lost: the mean signal is that of the pattern, to rounding.

    Seen to fail with the pattern continued by dark beyond its edges.
    """
    for image in patterns:
        assert point_spread(image, 3.0, periodic).mean() == pytest.approx(image.mean(), abs=1e-12)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_noise_is_in_units_of_the_contrast(noise):
    """Mean and standard deviation of 4 x 10^5 pixels, within 4 standard errors; neighbours are uncorrelated.

    Rounding to grey levels adds a variance of 1/12; at noise 0.2 both levels are 4 sigma from the ends of the scale.
    Seen to fail with noise 1 % stronger, with one random row for all rows, and with one frame for all frames.
    """
    images = np.stack([np.zeros((450, 450), np.uint8), np.ones((450, 450), np.uint8)])
    error = observe(images, 0, noise, seed=5) - np.array(LEVELS, float)[:, None, None]
    expected = np.hypot(noise * (BRIGHT - DARK), np.sqrt(1 / 12))
    assert abs(error.mean()) < 4 * expected / np.sqrt(error.size)
    assert abs(error.std() / expected - 1) < 4 / np.sqrt(2 * error.size)
    for neighbour in (np.roll(error, 1, 1), np.roll(error, 1, 2), error[::-1]):
        assert abs(np.mean(error * neighbour)) < 4 * expected**2 / np.sqrt(error.size / 2)


def test_noise_belongs_to_the_frame(patterns):
    """The same seed gives the same film; a frame does not depend on the frames behind it; seeds and frames differ.

    The noise does not depend on the blur: both films of a flat pattern are equal.  Seen to fail with the number of
    frames in the key, with the frame left out of the key, and with the blur in the key.
    """
    grey = observe(patterns, 1.0, 0.1, seed=7)
    np.testing.assert_array_equal(grey, observe(patterns, 1.0, 0.1, seed=7))
    np.testing.assert_array_equal(grey[:2], observe(patterns[:2], 1.0, 0.1, seed=7))
    assert np.mean(grey != observe(patterns, 1.0, 0.1, seed=8)) > 0.8
    flat = np.zeros((2, 40, 56), np.uint8)
    np.testing.assert_array_equal(observe(flat, 0, 0.1, -7), observe(flat, 2, 0.1, -7))
    assert np.mean(np.diff(observe(flat, 0, 0.1, 7).astype(int), axis=0) != 0) > 0.8


def test_strong_noise_is_rounded_and_clipped():
    """Shares of black and of white pixels by the normal law; 10^6 pixels, 4 standard errors.

    Seen to fail without the clip (the values wrap around), and with the fraction cut off where rounding is due.
    """
    grey = observe(np.zeros((1, 1000, 1000), np.uint8), 0, 1.0, 1).astype(int)
    for level, low, high in ((0, -np.inf, 0.5), (255, 254.5, np.inf)):
        share = ndtr((high - DARK) / (BRIGHT - DARK)) - ndtr((low - DARK) / (BRIGHT - DARK))
        assert abs(np.mean(grey == level) - share) < 4 * np.sqrt(share * (1 - share) / grey.size)


@pytest.mark.parametrize(
    "images, blur, noise", [(np.zeros((8, 8)), 0, 0), (np.zeros((1, 8, 8)), -1, 0), (np.zeros((1, 8, 8)), 0, -1)]
)
def test_impossible_instruments_are_refused(images, blur, noise):
    """A single image where a stack is due, negative blur, negative noise."""
    with pytest.raises(ValueError):
        observe(images, blur, noise, 1)
