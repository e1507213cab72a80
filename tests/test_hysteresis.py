"""Coercive points and loops by hand, under noise, and of a random-field sample that is the same up and down."""

import numpy as np
import pytest

from hamscope import hysteresis
from hamscope.sim import rfim, rng
from hamscope.sim.lattice import Lattice, Slab


def test_branches_are_runs_of_one_direction():
    """Heating, a single frame that counts as none, cooling, unknown."""
    direction = np.array([1, 1, 1, -1, 1, -1, -1, 0, 0])
    assert [list(run) for run in hysteresis.branches(direction)] == [[0, 1, 2], [5, 6], [7, 8]]
    assert [len(run) for run in hysteresis.branches(direction, least=1)] == [3, 1, 1, 2, 2]
    assert hysteresis.branches(np.zeros(0)) == []


@pytest.mark.parametrize("rises", [1, -1])
@pytest.mark.parametrize("backwards", [False, True])
def test_coercive_point_by_hand(rises, backwards):
    """Between m = -0.2 at 340 and +0.6 at 344 it is 341; error 4 / sqrt(12), and with 0.1 of m half a kelvin more.

    Frames without a temperature do not count.  Seen to fail without the sign of the slope.
    """
    x, m = np.array([338, 340, np.nan, 344, 345.0]), rises * np.array([-0.5, -0.2, 0.9, 0.6, 0.9])
    error = np.array([0.1, 0.1, 9, 0.1, 0.1])
    if backwards:
        x, m, error = x[::-1], m[::-1], error[::-1]
    found = hysteresis.coercive_point(x, m)
    assert found[:3] == pytest.approx((341, 4 / np.sqrt(12), 1)) and not found.reason
    found = hysteresis.coercive_point(x, m, error)
    assert found.error == pytest.approx(np.hypot(4 / np.sqrt(12), 0.1 / 0.2))


def test_coercive_point_on_a_frame_and_between_frames_of_no_magnetization():
    """m = 0 exactly: at that frame, or in the middle of several."""
    assert hysteresis.coercive_point([1, 2, 3], [-1, 0, 1]).value == 2
    assert hysteresis.coercive_point([1, 2, 3, 4], [-1, 0, 0, 1]).value == 2.5
    assert hysteresis.coercive_point([1, 2, 4], [-1, -0.5, 0]).value == 4


def test_no_coercive_point_says_why():
    for x, m, reason in (
        ([1, 2, 3], [0.2, 0.4, 0.9], "from 0.20 to 0.90 and does not cross zero"),
        ([1], [0.2], "fewer than two"),
        ([np.nan, np.nan], [-1, 1], "fewer than two"),
        ([1, 1], [-1, 1], "fewer than two"),
    ):
        found = hysteresis.coercive_point(x, m)
        assert np.isnan(found.value) and np.isnan(found.error) and reason in found.reason


def test_noise_does_not_move_the_coercive_point():
    """m = tanh((x - 341.3) / 3) with noise of 0.3 at 41 places half a kelvin apart, 400 times.

    The raw curve crosses zero many times.  Mean within 4 standard errors, and one error covers 60 to 95 % (68 %
    would be that of a Gaussian one; the range of the raw crossings is rather more).  Seen to fail with the first raw
    crossing in place of the steady one, and with neither noise nor crossings in the error.
    """
    random, x, found = np.random.default_rng(1), np.linspace(331, 351, 41), []
    for _ in range(400):
        m = np.tanh((x - 341.3) / 3) + 0.3 * random.normal(size=41)
        found.append(hysteresis.coercive_point(x, m, np.full(41, 0.3)))
    value, error, crossings = np.array([one[:3] for one in found]).T
    assert abs(value.mean() - 341.3) < 4 * value.std() / 20
    assert 0.60 < np.mean(np.abs(value - 341.3) < error) < 0.95
    assert crossings.max() > 3


def square(low: float, high: float, rises: int = 1):
    """A square loop: m jumps at `high` on heating and at `low` on cooling, within 0.01."""
    x = np.array([330, high - 0.01, high, 360, 360, low, low - 0.01, 330.0])
    m = rises * np.array([-1, -1, 1, 1, 1, 1, -1, -1.0])
    return x, m, np.repeat([1, -1], 4)


@pytest.mark.parametrize("rises", [1, -1])
@pytest.mark.parametrize("cooling_first", [False, True])
def test_a_square_loop(rises, cooling_first):
    """Width 6, area 12; positive in both orders and whether m rises or falls.  Seen to fail without either sign."""
    x, m, direction = square(338, 344, rises)
    if cooling_first:
        x, m, direction = x[::-1], m[::-1], direction * -1
        direction = direction[::-1] * -1
    (loop,) = hysteresis.loops(x, m, direction)
    assert loop.heating.value == pytest.approx(343.995) and loop.cooling.value == pytest.approx(337.995)
    assert loop.width == pytest.approx(6) and loop.area == pytest.approx(12)
    assert loop.gaps == (0, 0) and not loop.reason
    assert loop.width_error == pytest.approx(0.01 / np.sqrt(6)) and loop.area_error == pytest.approx(0.02 / np.sqrt(6))
    assert {direction[rows[0]] for rows in loop.rows} == {1, -1} and direction[loop.rows[0][0]] == 1


def test_area_is_that_of_the_common_range_and_open_loops_say_so():
    """Two straight branches 2 apart in x, from 0 to 10 and from 2 to 9 only; slope 0.2, so 0.4 apart in m: 0.4 x 7."""
    heating, cooling = np.arange(11.0), np.arange(9.0, 1, -1)
    x = np.concatenate([heating, cooling])
    m = np.concatenate([0.2 * (heating - 6), 0.2 * (cooling - 4)])
    (loop,) = hysteresis.loops(x, m, np.repeat([1, -1], [11, 8]))
    assert loop.area == pytest.approx(0.4 * 7) and loop.width == pytest.approx(2)
    assert loop.gaps == pytest.approx((-0.4, -0.4)) and "open: at an end the branches differ by 0.40" in loop.reason


def test_loops_of_a_series():
    """Heating, cooling, heating: two loops that share a branch.  One direction, or an unknown one: none.

    A branch without a crossing leaves the width unknown, and the area stands.
    """
    x, m, direction = square(338, 344)
    three = [np.concatenate([part, part[:4]]) for part in (x, m, direction)]
    both = hysteresis.loops(*three)
    assert [loop.width for loop in both] == pytest.approx([6, 6]) and (both[0].rows[1] == both[1].rows[1]).all()
    assert hysteresis.loops(x[:4], m[:4], direction[:4]) == hysteresis.loops(x, m, np.zeros(8)) == []
    (minor,) = hysteresis.loops(x, np.where(direction < 0, 1.0, m), direction)
    assert np.isnan(minor.width) and minor.area == pytest.approx(27.99) and "on cooling" in minor.reason


def test_the_loop_of_a_random_field_sample():
    """2D, R/J = 1.1, 128 x 128: the sweep down of the sample with all fields reversed is that up, turned over.

    So the coercive fields are equal and opposite exactly, width 2 H_c.  H_c itself: by bisection of the flip fields.
    """
    slab = Slab(Lattice.of_dimension(2, 128))
    flips = rfim.flip_fields(slab, rfim.Gaussian(1.1, rng.stream_key(1, "loop"), 0)).ravel()
    grid = np.linspace(-2.5, 2.5, 251)
    up = np.array([2 * np.mean(flips <= field) - 1 for field in grid])
    x, m = np.concatenate([grid, grid[::-1]]), np.concatenate([up, -up])
    (loop,) = hysteresis.loops(x, m, np.repeat([1, -1], 251))
    assert loop.heating.value == pytest.approx(-loop.cooling.value) and loop.width == pytest.approx(
        2 * np.median(flips), abs=0.02
    )
    # The area of m over H is that of H over m: twice the mean flip field, once for each of two units of m.
    assert loop.area == pytest.approx(4 * flips.mean(), abs=3 * loop.area_error + 0.01)


def test_the_error_of_m_is_the_spread_over_places():
    """400 frames of 64 x 48 made of independent tiles of 4 x 4: root mean square error, and spread, to 10 %.

    With a mask over a quarter the errors are larger by 4 / 3 in squares.  Seen to fail without (n - 1).
    """
    random = np.random.default_rng(5)
    mask = np.zeros((64, 48), bool)
    mask[:, :12] = True
    for masked, tiles, blocks in ((None, 192, 2), (mask, 144, 4)):
        own = []
        for _ in range(400):
            image = np.kron(random.random((16, 12)) < 0.3, np.ones((4, 4)))
            m = 2 * image[~mask if masked is not None else ...].mean() - 1
            own.append((m, hysteresis.magnetization_error(image, masked, blocks)))
        value, error = np.array(own).T
        exact = np.sqrt(4 * 0.3 * 0.7 / tiles)
        assert np.sqrt(np.mean(error**2)) == pytest.approx(exact, rel=0.1) == value.std()
    assert np.isnan(hysteresis.magnetization_error(np.ones((8, 8)), np.ones((8, 8))))
