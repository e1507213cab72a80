"""Preparation, as functions over arrays, against light, noise and switches that are known."""

import numpy as np
import pytest

from hamscope.data import prepare
from hamscope.data.windows import two_levels
from hamscope.errors import UserError


def test_uneven_light_is_undone():
    """light x scene + dark, corrected by light x 120 + dark, is the scene times the mean of the light.

    Seen to fail with the gain inverted, and with the dark frame left in the flat field.
    """
    rng = np.random.default_rng(0)
    scene, light = rng.uniform(80, 200, (30, 40)), rng.uniform(0.4, 1.6, (30, 40))
    dark = rng.uniform(5, 15, (30, 40))
    gain = prepare.flat_gain(light * 120 + dark, dark)
    corrected = (light * scene + dark - dark) * gain
    np.testing.assert_allclose(corrected, scene * light.mean(), rtol=1e-5)
    assert np.ptp((light * 120) * gain) < 1e-3


def test_a_flat_field_that_is_dark_somewhere_is_refused():
    """The line counts the pixels and names the first."""
    flat = np.full((4, 5), 100.0)
    flat[2, 3] = flat[3, 1] = 10
    with pytest.raises(UserError, match=r"2 of 20 pixels are not brighter than --dark, the first at row 2, column 3"):
        prepare.flat_gain(flat, np.full((4, 5), 10.0))


def test_neighbours_stay_within_one_direction_and_centred():
    """Five neighbours of a sweep of six frames up and four down: fewer at the ends, the frame always in the middle.

    Seen to fail with windows that are cut at the ends of the sweep, and with averages across its turn.
    """
    stretches = prepare.directions(np.array([1] * 6 + [-1] * 4))
    assert stretches == [range(0, 6), range(6, 10)]
    found = [list(prepare.neighbours(k, stretch, 5)) for stretch in stretches for k in stretch]
    assert found == [
        [0], [0, 1, 2], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [3, 4, 5], [5], [6], [6, 7, 8], [7, 8, 9], [9],
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_a_level_makes_the_two_levels_that_classify_makes(seed):
    """Median and Otsu as numbers above which pixels are bright: ties at the median fall to the same side.

    Seen to fail with ties at the median always dark.
    """
    grey = np.random.default_rng(seed).integers(0, 4 + seed, (12, 13)).astype(np.float32)
    for threshold in ("median", "otsu", 2.0):
        bright = grey > prepare.level_of(grey.ravel(), threshold)
        np.testing.assert_array_equal(bright, two_levels(grey, threshold), err_msg=threshold)


def test_otsu_of_a_histogram_lies_between_the_levels():
    """Three parts at 100 and one at 140, noise 3: the threshold is between them and the contrast is 40."""
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(100, 3, 30_000), rng.normal(140, 3, 10_000)])
    counts, edges = np.histogram(values, prepare.BINS)
    level, contrast = prepare.histogram_level(counts, edges[0], edges[-1])
    assert 109 < level < 131 and abs(contrast - 40) < 0.5


def traces(switch, frames, noise, contrast=20.0, low=100.0, seed=4):
    """Traces (F, P) that are bright from frame `switch` (P,) on."""
    rng = np.random.default_rng(seed)
    bright = np.arange(frames)[:, None] >= switch
    return low + contrast * bright + noise * contrast * rng.standard_normal(bright.shape)


@pytest.mark.parametrize("sign", [1, -1])
def test_every_switch_is_found_at_its_frame(sign):
    """20,000 pixels, noise of 10 % of the contrast, switches from frame 1 to the last: every one exact, either sign.

    A frame would be wrong where the noise of one frame exceeds half the contrast, 5 sigma: 0.01 expected of 20,000.
    Seen to fail with the cut one frame early, with the first frame of the sweep forgotten, and without n / k (n - k).
    """
    switch = np.random.default_rng(3).integers(1, 60, 20_000)
    grey = 110 + sign * (traces(switch, 60, 0.1) - 110)
    steps = prepare.trace_steps(grey, range(5, 65), 110, 20)
    np.testing.assert_array_equal(steps.frame, switch + 5)
    assert (steps.before == (sign < 0)).all() and (steps.after == (sign > 0)).all()
    for frame in (5, 30, 64):
        expected = (frame - 5 >= switch) == (sign > 0)
        np.testing.assert_array_equal(steps.image(frame), expected)


def test_noisy_switches_are_off_as_often_as_theory_says():
    """At noise of 25 % of the contrast, 94.9 to 95.5 % are exact (40,000 pixels, 200 frames, switch at 100).

    The cut moves by j frames where the mean noise of j frames exceeds half the contrast, with probability
    P(N > 2 sqrt(j)).  Either side alone, independently: at least 1 - (1 - 0.02275)^2 are off; all of them added, at
    most 2 (0.02275 + 0.00234 + 0.00027 + ...) = 0.0508.  One standard error is 0.11 %.
    """
    steps = prepare.trace_steps(traces(np.full(40_000, 100), 200, 0.25), range(200), 110, 20)
    exact = (steps.frame == 100).mean()
    assert 0.9492 - 0.0033 < exact < 0.9550 + 0.0033


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_pixels_that_never_switch_have_one_level(noise):
    """20,000 dark and 20,000 bright pixels: at most 3 switch, and the others are as bright as they are.

    A noise of 30 % is beyond half the contrast in one frame of twenty; beyond five standard errors (two sides, 59 cuts,
    most of which depend on each other) some 0.5 of 40,000 are expected.  At 10 % half of them also darken slowly, by a
    third of the contrast, as a film does without any transition: a sure step, and too small.  Seen to fail
    without either of the two rules, and with the level of still pixels inverted.
    """
    switch = np.repeat([60, 0], 20_000)
    grey = traces(switch, 60, noise)
    if noise == 0.1:
        grey[:, ::2] -= np.linspace(-10 / 3, 10 / 3, 60)[:, None]
    steps = prepare.trace_steps(grey, range(60), 110, 20)
    assert (steps.before != steps.after).sum() <= 3
    assert (steps.before != (switch == 0)).sum() + (steps.after != (switch == 0)).sum() <= 3


def test_a_trace_without_noise():
    """Constant traces do not switch, and a clean step does, in blocks of any shape."""
    grey = np.full((6, 2, 2), 100.0)
    grey[4:, 0, 1] = 140
    steps = prepare.trace_steps(grey, range(6), 120, 40)
    assert steps.image(3).tolist() == [[0, 0], [0, 0]] and steps.image(4).tolist() == [[0, 1], [0, 0]]


def test_numbers_of_the_panel():
    """A half plane of 10 x 10: half is up; of 180 pairs 10 differ, (170 - 10) / 180.  Masked pixels do not count.

    Seen to fail with masked pixels counted as down.
    """
    image = np.zeros((10, 10), np.uint8)
    image[:, 5:] = 1
    sample = np.ones((10, 10), bool)
    assert prepare.up_fraction(image, sample) == 0.5
    assert prepare.neighbour_correlation(image, sample) == pytest.approx(160 / 180)
    sample[:, 5] = False  # no pair across the wall is left
    assert prepare.up_fraction(image, sample) == pytest.approx(40 / 90)
    assert prepare.neighbour_correlation(image, sample) == 1
    assert np.isnan(prepare.neighbour_correlation(image, np.eye(10, dtype=bool)))


def test_contrast_is_the_distance_of_the_levels():
    """Mean above the level less mean below; nothing with one level."""
    grey = np.array([1.0, 3.0, 10.0, 14.0])
    assert prepare.contrast_of(grey, 5.0) == 10
    assert prepare.contrast_of(grey, 20.0) == 0


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_that_touch_the_mask_are_known(stride):
    """Against counting in every window.  Seen to fail with the stride forgotten."""
    mask = np.random.default_rng(6).random((17, 23)) < 0.02
    found = prepare.clear_windows(mask, 5, stride)
    rows, columns = range(0, 17 - 4, stride), range(0, 23 - 4, stride)
    expected = [[not mask[r : r + 5, c : c + 5].any() for c in columns] for r in rows]
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < found.size
