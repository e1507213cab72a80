"""Thresholds, and the sliding windows, against what one would do by hand."""

import numpy as np
import pytest

from hamscope.data.windows import MASKED, bands, binarize, majority, patterned, window_grid, windows_of

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("threshold", ["otsu", "median", 0.5, 400.0])
@pytest.mark.parametrize("level", [1, 255])
def test_two_level_frames_stay_as_they_are(threshold, level):
    """At 3 % up the median of the frame is 0 and a threshold of 400 lies outside: neither may change the frame.

    Seen to fail with {0, 255} taken for grey.
    """
    ups = RNG.random((40, 40)) < 0.03
    for frame in (ups, np.zeros_like(ups), np.ones_like(ups)):
        np.testing.assert_array_equal(binarize(np.float32(frame * level), threshold, "bright"), frame)
        np.testing.assert_array_equal(binarize(np.float32(frame * level), threshold, "dark"), ~frame)


def test_otsu_finds_the_two_levels_of_a_noisy_frame():
    """Levels 50 and 90 with noise of 5: hardly a pixel is on the wrong side of the middle, 4 sigma away."""
    ups = RNG.random((200, 200)) < 0.3
    grey = np.float32(50 + 40 * ups + RNG.normal(0, 5, ups.shape))
    assert (binarize(grey, "otsu", "bright") != ups).mean() < 1e-3
    assert (binarize(grey, "otsu", "dark") == ups).mean() < 1e-3


def test_median_makes_half_of_the_pixels_up():
    """Also where many pixels have the median itself: an overexposed frame, 60 % white, does not become uniform.

    Seen to fail with `grey > median` alone (nothing was up).
    """
    assert binarize(np.float32(RNG.random((50, 50))), "median", "bright").mean() == 0.5
    white = np.where(RNG.permutation(2500).reshape(50, 50) < 1500, 250, RNG.integers(10, 200, (50, 50)))
    np.testing.assert_array_equal(binarize(np.float32(white), "median", "bright"), white == 250)


def test_a_value_is_a_grey_level():
    """Above the value is bright."""
    grey = np.float32([[1, 2], [3, 4]])
    np.testing.assert_array_equal(binarize(grey, 2.0, "bright"), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(binarize(grey, 2.5, "dark"), [[1, 1], [0, 0]])


@pytest.mark.parametrize("threshold", ["otsu", "median", 100.0])
def test_uniform_frames_have_one_level(threshold):
    """Whatever the level, none of its windows has a pattern."""
    for grey in (0, 7, 255, 1000):
        image = binarize(np.full((20, 20), grey, np.float32), threshold, "bright")
        assert len(np.unique(image)) == 1
        assert not patterned(image, 8, 3).any()


@pytest.mark.parametrize("shape, window, stride", [((20, 30), 8, 1), ((20, 30), 8, 3), ((21, 8), 8, 5), ((8, 8), 8, 4)])
def test_the_bands_together_are_all_windows(shape, window, stride):
    """Every position r S, c S that fits, once, in order; with and without a pattern as counted pixel by pixel.

    Seen to fail with one row of windows left out at the end of a band.
    """
    image = np.zeros(shape, np.uint8)
    image[:, shape[1] // 2 :] = RNG.integers(0, 2, (shape[0], shape[1] - shape[1] // 2))
    image[: shape[0] // 3] = 1
    rows, columns = range(0, shape[0] - window + 1, stride), range(0, shape[1] - window + 1, stride)
    expected = [image[r : r + window, c : c + window] for r in rows for c in columns]
    assert window_grid(shape, window, stride) == (len(rows), len(columns))
    for max_windows in (1, 2 * len(columns), 10**6):
        cut = bands(shape, window, stride, max_windows)
        assert max((stop - start) * len(columns) for start, stop in cut) <= max(max_windows, len(columns))
        found = np.concatenate([windows_of(image, window, stride, *band).reshape(-1, window, window) for band in cut])
        np.testing.assert_array_equal(found, expected)
        chosen = patterned(image, window, stride).ravel()
        np.testing.assert_array_equal(chosen, [0 < each.sum() < window * window for each in expected])


def test_windows_are_views():
    """A million windows of a frame take no memory of their own."""
    image = np.zeros((1100, 1100), np.uint8)
    assert np.shares_memory(windows_of(image, 100, 1, 0, 1001), image)


def test_preview_is_the_majority_of_blocks():
    """3 x 3 blocks of a frame of 8 x 6: the last row of blocks repeats the edge of the frame."""
    image = np.zeros((8, 6), np.uint8)
    image[:3, :3] = [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    image[3:6, 3:] = [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    image[7, :3] = 1
    np.testing.assert_array_equal(majority(image, 3), [[1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(majority(image, 1), image)


def test_what_is_masked_has_no_say_in_a_preview():
    """Blocks of 2 x 2: of the pixels that are left the majority, ties up; masked where more than half of it is.

    Seen to fail with masked pixels counted as down, and with half a block enough.
    """
    image = np.array([[1, 0, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1]], np.uint8)
    mask = np.array([[0, 0, 1, 0, 1, 1], [1, 1, 1, 0, 1, 0]], bool)
    np.testing.assert_array_equal(majority(image, 2, mask), [[1, 1, MASKED]])
    np.testing.assert_array_equal(majority(image, 1, mask), np.where(mask, MASKED, image))
    np.testing.assert_array_equal(majority(image, 2, mask & False), majority(image, 2))
