"""Drift against known shifts below a pixel, while the domains, the brightness and the contrast change."""

import numpy as np
import pytest
from experiment import experiment

from hamscope.data.drift import common_view, estimate_drift, moved

FRAMES = 20
SHARES = np.linspace(0.15, 0.85, FRAMES)
WANDER = np.cumsum(np.random.default_rng(5).normal(0, 0.4, (FRAMES, 2)), 0)
DRIFT = WANDER - WANDER[0] + np.linspace(0, 1, FRAMES)[:, None] * np.array([6.3, -8.7])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_known_shifts_are_recovered_while_the_contrast_changes(seed):
    """Shifts of up to 9 pixels within 0.3, and 0.12 in the root mean square, in frames of 140 x 140 pixels.

    Between the first frame and the last 70 % of the film switch and the lamp fades to 60 %; noise is 10 % of the
    contrast.  The shifts are those of the made-up sample.  Unbroken: at most 0.25, and 0.104 in the mean.  Seen to fail
    without the fit, with its slopes negated, without its weights, with flat pixels fitted too, without the Hann window,
    with the first frame the only keyframe, and with every frame a keyframe.
    """
    made = experiment(SHARES, DRIFT, gain=np.linspace(1, 0.6, FRAMES), seed=seed)
    found = estimate_drift(iter(made.raw / made.light))
    error = found.shift + DRIFT
    assert found.found.all() and 1 < len(set(found.keyframe.tolist())) < 6
    assert np.abs(error).max() < 0.3 and np.sqrt((error**2).mean()) < 0.12


def test_a_film_that_does_not_change_is_followed_to_a_few_hundredths():
    """Without switching domains what is left is the noise; the correlation alone has steps of 1 / 20 pixel."""
    made = experiment(np.full(6, 0.5) + np.linspace(0, 1e-9, 6), DRIFT[::4][:5].repeat(2, 0)[:6], noise=0.05)
    found = estimate_drift(iter(made.raw / made.light))
    assert np.abs(found.shift + made.drift).max() < 0.04


def test_a_frame_that_shows_nothing_is_put_between_its_neighbours():
    """A frame of noise alone and one of a single grey are named, interpolated, and never a keyframe."""
    drift = np.linspace(0, 1, 9)[:, None] * np.array([4.0, 6.0])
    raw = experiment(np.linspace(0.4, 0.6, 9), drift).raw
    raw[3] = 100 + 10 * np.random.default_rng(0).standard_normal(raw[3].shape)
    raw[4] = 100
    found = estimate_drift(iter(raw))
    assert found.found.tolist() == [True] * 3 + [False] * 2 + [True] * 4
    assert not {3, 4} & set(found.keyframe.tolist())
    assert np.abs(found.shift + drift).max() < 0.3
    np.testing.assert_allclose(np.diff(found.shift[2:6], axis=0, n=2), 0, atol=1e-9)


def test_a_whole_shift_moves_pixels_and_the_view_leaves_out_what_is_made_up():
    """The common view of shifts (2, -1) and (-0.5, 0.25) of a 20 x 30 frame is rows 2 to 18 and columns 1 to 28.

    Whatever the frames showed beyond it is not there in one of them.  Seen to fail with the first row rounded down, and
    with the sign of a shift ignored.
    """
    grey = np.random.default_rng(1).random((20, 30)).astype(np.float32)
    np.testing.assert_allclose(moved(grey, np.array([2.0, -1.0]))[2:, :-1], grey[:-2, 1:], atol=1e-5)
    view = common_view(np.array([[0, 0], [2, -1], [-0.5, 0.25]]), grey.shape)
    assert view == (slice(2, 19), slice(1, 29))
