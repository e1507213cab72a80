"""Errors of means over overlapping windows against the spread of many frames, and what is read from results."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from synthetic import film

from hamscope import separated
from hamscope.data.results import NO_PATTERN, sample_windows
from hamscope.models import CLASS_NAMES


def test_errors_are_the_spread_of_separated_windows():
    """500 frames of 64 x 64 white noise, a window 16 x 16 at stride 4 has the mean of its pixels.

    The mean of a sub-grid of n windows has variance 1 / (256 n) exactly; offset 0 leaves 16 windows, the other offsets
    12 or 9.  The mean of the squared errors is the mean of these to 4 %, and one error covers at least 68 %.  Seen to
    fail with windows 12 apart (error too small), and with all 169 windows as if independent.
    """
    random, found = np.random.default_rng(1), []
    for _ in range(500):
        means = ndimage.uniform_filter(random.normal(size=(64, 64)), 16, mode="wrap")[8:57:4, 8:57:4]
        found.append(separated.separated(means, 4, 16))
    mean, error = np.array([(one.mean[0], one.error[0]) for one in found]).T
    counts = np.outer([4, 3, 3, 3], [4, 3, 3, 3])
    assert found[0].windows == pytest.approx(counts.mean())
    assert np.mean(error**2) == pytest.approx(np.mean(1 / (256 * counts)), rel=0.04)
    assert 0.68 < np.mean(np.abs(mean) < error) < 0.95
    assert mean.std() < np.sqrt(np.mean(error**2))


def test_a_mean_by_hand():
    """Stride 5, window 10: every second window.  Offsets 0 and 1 have (1, 2, 3) and (5, none, 5)."""
    values = np.array([[1.0, 5, 2, np.nan, 3, 5]])
    found = separated.separated(values, 5, 10)
    assert found.mean == pytest.approx([16 / 5]) and found.error == pytest.approx([np.sqrt(1 / 3)])
    assert found.windows == 2.5 and not found.reason
    few = separated.separated(values[:, :4], 5, 10)
    assert few.mean == pytest.approx([8 / 3]) and np.isnan(few.error).all() and "fewer than 3" in few.reason
    none = separated.separated(np.full((3, 3), np.nan), 5, 10)
    assert np.isnan(none.mean).all() and none.reason == "no window has a value"


def test_windows_side_by_side_do_not_overlap():
    """Window 100 at stride 16 are 7 steps, 112 pixels; at stride 100 or more, one."""
    values = np.random.default_rng(2).normal(size=(1, 21))
    offsets = [values[0, k::7].var(ddof=1) / 3 for k in range(7)]
    assert separated.separated(values, 16, 100).error[0] ** 2 == pytest.approx(np.mean(offsets))
    assert separated.separated(values, 100, 100).error[0] ** 2 == pytest.approx(values.var(ddof=1) / 21)


@pytest.mark.parametrize("shape", [(20, 20), (1, 1), (40, 31), (2, 900), (900, 2)])
def test_the_sampled_windows_are_the_grid_they_were_taken_from(shape):
    """Each sampled value is its window's number in the map.  Seen to fail with a step of one whatever the map."""
    chosen = sample_windows(shape)
    sample = np.full((512, 1), np.nan)
    sample[: len(chosen), 0] = chosen
    grid, step = separated.sampled_grid(sample, shape)
    every = np.arange(shape[0] * shape[1]).reshape(shape)
    np.testing.assert_array_equal(grid[..., 0], every[::step, ::step])


def test_what_is_read_from_results():
    """Shares are those of the file, distances its means; a class without a cloud has no error and costs none.

    The error of the distance is that of the sampled windows, of a grid of 20 x 20 at stride 8: 13 steps are 104 pixels.
    """
    results = film("film.tif", n_frames=4)
    for row in (1, 2):
        shares = separated.fractions(results, row)
        assert shares.mean == pytest.approx(results.fractions[row])
        assert shares.windows == pytest.approx(400 / 169)
        found = separated.cloud_distances(results, row)
        assert (found.mean == results.cloud_distance[row]).all() and found.error.shape == (7,)
    # Only offsets with at least three windows have an error.
    distance = separated.sampled_clouds(results).distance(results.logits_sample[2][:400]).reshape(20, 20, 7)
    own = [distance[i::13, j::13].reshape(-1, 7) for i in range(7) for j in range(7)]
    expected = np.sqrt(np.mean([values.var(axis=0, ddof=1) / 4 for values in own], axis=0))
    assert found.error == pytest.approx(expected, rel=1e-5)
    empty = np.array(results.cloud_sample)
    empty[6] = np.nan
    rest = separated.cloud_distances(replace(results, cloud_sample=empty), 2)
    assert np.isnan(rest.error[6]) and rest.error[:6] == pytest.approx(found.error[:6])
    nothing = separated.fractions(results, 0)
    assert (results.class_maps[0] == NO_PATTERN).all() and np.isnan(nothing.mean).all() and nothing.reason
    assert np.isnan(separated.cloud_distances(results, 0).error).all() and len(CLASS_NAMES) == 7


def test_the_closest_frame_and_those_that_may_as_well_be():
    """2.0 +- 0.3 and 1.2 +- 0.3 differ by 1.9 errors of the difference, 2.1 and 1.2 by 2.1; a frame without error.

    Seen to fail with one error in place of two.
    """
    found = separated.closest_approach([np.nan, 2.0, 1.2, 2.1, 1.5], [np.nan, 0.3, 0.3, 0.3, np.nan])
    assert found.place == 2 and list(found.alike) == [1, 2, 4]
    alone = separated.closest_approach([3.0, 1.0], [np.nan, np.nan])
    assert alone.place == 1 and list(alone.alike) == [1]
    assert separated.closest_approach([np.nan], [0.1]) is None
