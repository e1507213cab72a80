"""The instrument: threshold gives the pattern back, width and profile of the blur, strength and keys of the noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from hamscope.config import Instrument
from hamscope.data.instrument import LEVELS, MIDDLE, Views, condition, draw, look, observe, point_spread, spread
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


MANY = np.arange(20000)


def of_one(count: int, **given) -> Views:
    """The same microscope for `count` images; by default one that changes nothing."""
    values = {"psf_px": 0.0, "airy": False, "noise": 0.0, "threshold": 0, "pixel": 1.0, "told": False} | given
    return Views(**{name: np.full(count, value) for name, value in values.items()})


def assert_share(found: np.ndarray, expected: float) -> None:
    """A share of independent events, within 4 standard errors."""
    assert abs(found.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(found))


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Mean and variance of a uniform distribution within 4 standard errors; no value outside."""
    u = (values - low) / (high - low)
    assert (u >= 0).all() and (u <= 1).all()
    assert abs(u.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / len(u))
    assert abs(np.mean((u - 1 / 2) ** 2) - 1 / 12) < 4 * np.sqrt(1 / 180 / len(u))


def test_microscopes_are_drawn_in_the_shares_of_the_config():
    """Every share and every range, of 20000 images, within 4 standard errors: a share off by 1.5 % would be seen.

    Seen to fail with sharp images that get noise, with median and Otsu not in equal parts, with a uniform pixel size
    for a log-uniform one, and with one random number for two choices (shares of pairs).
    """
    instrument = Instrument(
        sharp=0.2, psf_px=(0.5, 2.5), airy=0.3, noisy=0.6, noise=(0.05, 0.2), adaptive=0.4, rescaled=0.25,
        pixel_sites=(0.5, 2.0), told=0.7,
    )  # fmt: skip
    views = draw(instrument, 3, 5, MANY)
    sharp = (views.psf_px == 0) & (views.noise == 0) & (views.pixel == 1) & (views.threshold == 0) & ~views.airy
    assert_share(sharp, 0.2)
    np.testing.assert_array_equal(sharp, views.psf_px == 0)
    seen = Views(*(column[~sharp] for column in views))
    for found, expected in (
        (seen.airy, 0.3), (seen.noise > 0, 0.6), (seen.threshold > 0, 0.4), (seen.pixel != 1, 0.25),
        (seen.threshold == 1, 0.2), (seen.threshold == 2, 0.2), (views.told, 0.7), (views.told[sharp], 0.7),
        (seen.airy & (seen.noise > 0), 0.18), (seen.told & (seen.threshold > 0), 0.28),
        ((seen.psf_px > 1.5) & (seen.noise > 0.125), 0.15), (seen.airy & (seen.pixel != 1), 0.075),
    ):  # fmt: skip
        assert_share(found, expected)
    assert_uniform(seen.psf_px, 0.5, 2.5)
    assert_uniform(seen.noise[seen.noise > 0], 0.05, 0.2)
    assert_uniform(np.log(seen.pixel[seen.pixel != 1]), np.log(0.5), np.log(2.0))


def test_a_microscope_belongs_to_image_and_epoch_and_not_to_the_batch():
    """In another order, alone or among others: the same microscope and the same noise.  Other keys: others.

    Seen to fail with the place in the batch in the key, and with the epoch or the seed left out of it.
    """
    random = np.random.default_rng(0)
    images, numbers = random.integers(0, 2, (6, 32, 32), np.uint8), np.array([7, 3, 90000, 4, 0, 12])
    instrument = Instrument(sharp=0.0, noisy=1.0, noise=(0.3, 0.4))

    def seen(order, seed=1, epoch=2):
        views = draw(instrument, seed, epoch, numbers[order])
        return views, look(images[order], views, seed, epoch, numbers[order])

    whole = np.arange(6)
    views, shown = seen(whole)
    for order in (whole[::-1], np.array([4]), np.array([2, 0])):
        some, part = seen(order)
        np.testing.assert_array_equal(part, shown[order])
        for a, b in zip(some, views):
            np.testing.assert_array_equal(a, b[order])
    for other in ({"epoch": 3}, {"seed": 2}):
        assert not np.isin(seen(whole, **other)[0].psf_px, views.psf_px).any()
    flat = look(np.zeros((6, 32, 32), np.uint8), of_one(6, noise=1.0), 1, 2, numbers)
    other = look(np.zeros((6, 32, 32), np.uint8), of_one(6, noise=1.0), 1, 3, numbers)
    assert 0.2 < np.mean(flat != other) < 0.6 and len({image.tobytes() for image in flat}) == 6
    assert draw(instrument, 1, 2, numbers[:0]).condition.shape == (0, 3)


def test_what_a_perfect_microscope_shows_is_the_image(patterns):
    """Whatever the threshold, so that the density stays; and the images given stay as they are."""
    images = patterns[:, :40, :40]
    given = images.copy()
    for threshold in (0, 1, 2):
        np.testing.assert_array_equal(look(images, of_one(3, threshold=threshold), 1, 1, np.arange(3)), images)
    look(images, of_one(3, psf_px=2.0, noise=0.2), 1, 1, np.arange(3))
    np.testing.assert_array_equal(images, given)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_the_gaussian_is_that_of_scipy(sigma):
    """A wide enough kernel, sampled in space, has the same transfer: within 1e-4 of the contrast from 1.5 px on.

    At 0.8 px 0.02 is left, of noise: the sampled kernel lets the highest frequencies through, 4 % of them instead of
    2 %.  Seen to fail with sigma off by 1 %.
    """
    image = np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8)
    expected = gaussian_filter(image.astype(float), sigma, mode="wrap", truncate=8)
    error = np.abs(spread(image, sigma, airy=False) - expected).max()
    assert error < (0.02 if sigma < 1 else 1e-4)


def airy_transfer(f: float, sigma: float) -> float:
    """By the area that two circles of radius 1/2 and distance v share, over the area of one; by counting points."""
    v = f / (1.0290 / (2.3548 * sigma))
    x, y = np.meshgrid(*[(np.arange(2000) + 0.5) / 2000 - 0.5] * 2)
    first, second = x**2 + y**2 < 0.25, (x - v) ** 2 + y**2 < 0.25
    return (first & second).sum() / first.sum()


@pytest.mark.parametrize("airy", [False, True])
@pytest.mark.parametrize("rows, columns", [(3, 0), (0, 5), (4, 7), (12, 9)])
def test_a_wave_is_weakened_by_the_transfer_function(airy, rows, columns):
    """Of a cosine of some periods along rows and columns the amplitude is that of the law, the mean is kept.

    The Airy disc's is the autocorrelation of its pupil, counted on a grid (1e-3).  Seen to fail with pi^2 for the
    2 pi^2 of the Gaussian, with the cut-off 2 % off, and with the rows left out.
    """
    side, sigma = 64, 1.2
    phase = 2 * np.pi * (rows * np.arange(side)[:, None] + columns * np.arange(side)[None]) / side
    found = spread(0.5 + 0.25 * np.cos(phase), sigma, airy)
    f = np.hypot(rows, columns) / side
    transfer = airy_transfer(f, sigma) if airy else np.exp(-2 * np.pi**2 * sigma**2 * f**2)
    assert np.abs(found - 0.5 - 0.25 * transfer * np.cos(phase)).max() < (1e-3 if airy else 1e-5)


def half_width(profile: np.ndarray, middle: int) -> float:
    """Full width at half maximum of a symmetric profile, by straight lines between the pixels."""
    right = profile[middle:] / profile[middle]
    last = int(np.argmax(right < 0.5))
    return 2 * (last - (0.5 - right[last]) / (right[last - 1] - right[last]))


def test_an_airy_disc_is_as_wide_at_half_maximum_as_the_gaussian():
    """Of a bright point, within one per cent; and that of the Gaussian is 2.3548 sigma.  The Airy disc has rings.

    Seen to fail with the cut-off 3 % off.
    """
    sigma, point = 8.0, np.zeros((256, 256), np.uint8)
    point[128, 128] = 1
    widths = [half_width(spread(point, sigma, airy)[128], 128) for airy in (False, True)]
    assert widths[0] == pytest.approx(2.3548 * sigma, rel=0.005)
    assert widths[1] == pytest.approx(widths[0], rel=0.01)
    # The first dark ring of [J1(v)/v]^2 lies at 1.22 / f_c, 1.186 times its full width at half maximum.
    dark = 128 + round(1.22 / 1.0290 * 2.3548 * sigma)
    airy = spread(point, sigma, True)[128]
    assert airy[dark] < 2e-3 * airy[128] < airy[dark + 8]


@pytest.mark.parametrize("airy", [False, True])
def test_light_is_moved_and_not_lost(patterns, airy):
    image = patterns[0, :40, :40]
    for sigma, pixel in ((0, 1.5), (0.3, 1), (2.5, 1.3), (3, 0.7)):
        assert spread(image, sigma, airy, pixel).mean() == pytest.approx(image.mean(), abs=1e-6)


def test_a_wide_pixel_collects_the_light_of_its_square():
    """Pixels of two sites: the mean over the square around each, of a wave of 16 sites; of domains, the majority.

    `spread` gives the integral over the square, sites being points of a smooth wave; the sum over blocks of 40 x 40
    subpixels equals it to 1e-4.  Seen to fail without the factor of the pixel, and with rows alone.
    """
    side, pixel, fine = 32, 2.0, 40

    def wave(x, y):
        return 0.5 + 0.2 * np.cos(2 * np.pi * 2 * x / side) + 0.2 * np.sin(2 * np.pi * (x + 2 * y) / side)

    site = np.arange(side)
    found = spread(wave(site[:, None], site[None]), 0, False, pixel)
    offset = ((np.arange(fine) + 0.5) / fine - 0.5) * pixel
    x, y = site[:, None, None, None] + offset[:, None], site[None, :, None, None] + offset[None, :]
    assert np.abs(found - wave(x, y).mean((2, 3))).max() < 1e-4
    stripes = np.zeros((1, 32, 32), np.uint8)
    stripes[:, :, :16] = 1
    seen = look(stripes, of_one(1, pixel=2.0), 1, 1, np.arange(1))[0]
    # Two periods of 8 pixels each come into view; only the pixels on a wall may be of either kind.
    expected = np.tile(np.repeat([1, 0], 8), 2)
    inside = np.arange(32) % 8
    assert (seen[:, (inside > 0) & (inside < 7)] == expected[(inside > 0) & (inside < 7)]).all()


@pytest.mark.parametrize("threshold, word", [(0, 0.5), (1, "median"), (2, "otsu")])
def test_thresholds_are_those_of_real_frames(patterns, threshold, word):
    """What is seen equals `binarize` of the grey image.  Seen to fail with median and Otsu exchanged."""
    images = np.ascontiguousarray(patterns[:, :40, :40])
    seen = look(images, of_one(3, psf_px=1.1, threshold=threshold), 1, 1, np.arange(3))
    for image, found in zip(images, seen):
        np.testing.assert_array_equal(found, binarize(spread(image, 1.1, False), word, "bright"))
    if word == "median":
        assert np.abs(seen.mean((1, 2)) - 0.5).max() < 0.01


def test_a_network_is_told_three_numbers():
    """Known or not, how wide, threshold of its own or not.  Nothing leaks of what it is not told.

    Seen to fail with the width told in any case.
    """
    views = of_one(2, psf_px=1.5, threshold=1)._replace(told=np.array([True, False]))
    np.testing.assert_array_equal(views.condition, [[1, 1.5, 1], [0, 0, 1]])
    assert views.condition.dtype == np.float32
    np.testing.assert_array_equal(condition(None, False), [0, 0, 0])
    np.testing.assert_array_equal(condition(0.0, True), [1, 0, 1])
    np.testing.assert_array_equal(condition(np.array([np.nan, 2]), np.array([True, False])), [[0, 0, 1], [1, 2, 0]])
