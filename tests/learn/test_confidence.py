"""Distances to clouds of training logits against brute force, and the two readings where they differ."""

import pickle

import numpy as np
import pytest

from hamscope.errors import ContractError
from hamscope.learn.confidence import Clouds

READINGS = ["componentwise", "euclidean"]


def some_points() -> list[np.ndarray]:
    """Seven clouds of different size and place, whose spread differs from class to class and between coordinates."""
    rng = np.random.default_rng(4)
    scales = rng.uniform(0.2, 6, (7, 7))
    return [np.float32(5 * np.eye(7)[k] + scale * rng.normal(size=(40 + 20 * k, 7))) for k, scale in enumerate(scales)]


def some_logits(points: list[np.ndarray], seed: int = 5) -> np.ndarray:
    """Ten outputs near each cloud and 30 far from all."""
    rng = np.random.default_rng(seed)
    near = np.concatenate([cloud[:10] + rng.normal(scale=0.4, size=(10, 7)) * cloud.std(0) for cloud in points])
    return np.float32(np.concatenate([near, rng.normal(scale=30, size=(30, 7))]))


def brute_distance(points: list[np.ndarray], logits: np.ndarray, reading: str) -> np.ndarray:
    """The definition, point by point."""
    distance = np.empty((len(logits), len(points)))
    for k, cloud in enumerate(points):
        centre = cloud.astype(float).mean(0)
        sigma = np.sqrt(((cloud - centre) ** 2).mean(0))
        for w, output in enumerate(logits.astype(float)):
            units = np.abs(output - cloud) / sigma
            lengths = units.max(1) if reading == "componentwise" else np.sqrt((units**2).sum(1))
            distance[w, k] = lengths.min()
    return distance


def unit_clouds() -> list[np.ndarray]:
    """Class k: 100 k and 100 k + 2 in every coordinate together, so sigma is 1 everywhere."""
    return [np.float32([[100 * k] * 7, [100 * k + 2] * 7]) for k in range(7)]


@pytest.mark.parametrize("reading", READINGS)
def test_distance_is_that_of_the_definition(reading):
    """Near and far outputs, all seven clouds, with one thread and with two.

    Seen to fail with the sigma of the next class, with one sigma for all classes, with coordinates left unscaled,
    and with the readings exchanged.
    """
    points = some_points()
    logits = some_logits(points)
    clouds = Clouds(points)
    expected = brute_distance(points, logits, reading)
    for workers in (1, 2):
        found = clouds.distance(logits, reading, workers=workers)
        assert found.shape == (len(logits), 7) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("reading", READINGS)
def test_confident_is_within_one_of_the_own_cloud(reading):
    """Classes are given at random, so the nearest cloud is mostly not the own one.

    Seen to fail with the nearest of all clouds taken, with the sigma of the next class, with coordinates left
    unscaled, and with the readings exchanged.
    """
    points = some_points()
    logits = np.concatenate([some_logits(points, seed) for seed in range(3)])
    classes = np.random.default_rng(6).integers(0, 7, len(logits))
    classes[:70] = np.repeat(np.arange(7), 10)
    own = brute_distance(points, logits, reading)[np.arange(len(logits)), classes]
    assert 10 < (own <= 1).sum() < len(own) - 10 and np.abs(own - 1).min() > 1e-4
    flags = Clouds(points).confident(logits, classes, reading)
    assert flags.dtype == bool
    np.testing.assert_array_equal(flags, own <= 1)


def test_sigma_is_that_of_each_class_about_its_centre():
    """By hand: 0, 0, 3 has the mean 1 and the variance (1 + 1 + 4) / 3; constant offsets do not matter.

    Seen to fail with n - 1 for n, with the spread about zero, and with the sigma of the next class.
    """
    clouds = Clouds([np.float32([[0, 10, 7], [0, 30, 7], [3, 50, 7]]), np.eye(3), 100 + 2 * np.eye(3)])
    np.testing.assert_allclose(clouds.sigma[0, :2], [np.sqrt(2), np.sqrt(800 / 3)])
    np.testing.assert_allclose(clouds.sigma[1:], np.sqrt(2) / 3 * np.array([[1] * 3, [2] * 3]), rtol=1e-6)


def test_where_the_two_readings_differ():
    """0.8 sigma off in two coordinates: the length is 1.13, the largest component 0.8.  One point of two is near.

    Seen to fail with the readings exchanged.
    """
    clouds = Clouds(unit_clouds())
    off = np.float32([300.0] * 7)
    off[[1, 4]] -= 0.8
    assert clouds.distance(off[None], "componentwise")[0, 3] == pytest.approx(0.8, rel=1e-4)
    assert clouds.distance(off[None], "euclidean")[0, 3] == pytest.approx(0.8 * np.sqrt(2), rel=1e-4)
    assert clouds.distance(off[None])[0, 3] == pytest.approx(0.8 * np.sqrt(2), rel=1e-4)
    assert clouds.confident(off[None], np.array([3]), "componentwise").all()
    assert not clouds.confident(off[None], np.array([3]), "euclidean").any()
    assert not clouds.confident(off[None], np.array([2]), "componentwise").any()


@pytest.mark.parametrize("reading", READINGS)
def test_one_unit_is_still_near(reading):
    """Exactly 1 and just above, in one coordinate, where both readings agree; seen to fail with `<` for `<=`."""
    clouds = Clouds(unit_clouds())
    outputs = np.repeat(np.float32([[0.0] * 7]), 2, axis=0)
    outputs[0, 2], outputs[1, 2] = -1.0, np.nextafter(np.float32(-1), np.float32(-2))
    np.testing.assert_array_equal(clouds.confident(outputs, np.array([0, 0]), reading), [True, False])


@pytest.mark.parametrize("reading", READINGS)
def test_units_of_a_coordinate_do_not_matter(reading):
    """Each logit in units of its own, by powers of two (exact in binary), and shifted: the same distances.

    Seen to fail with coordinates left unscaled, and with one sigma for all coordinates of a class.
    """
    points = [np.round(cloud * 64) / 64 for cloud in some_points()]
    logits = np.round(some_logits(points) * 64) / 64
    rng = np.random.default_rng(7)
    scale, shift = 2.0 ** rng.integers(-6, 7, 7), rng.integers(-8, 9, 7)
    there = Clouds([cloud * scale + shift * scale for cloud in points])
    expected = Clouds(points).distance(logits, reading)
    np.testing.assert_allclose(there.distance(logits * scale + shift * scale, reading), expected, rtol=1e-5)


@pytest.mark.parametrize("reading", READINGS)
def test_training_points_are_at_distance_zero_and_confident(reading):
    """Also in a cloud of one point, and where a coordinate does not vary: no division by zero, no NaN.

    Seen to fail with sigma left at 0.
    """
    points = some_points()
    points[2] = points[2][:1]
    points[5][:, 3] = 0.0
    clouds = Clouds(points)
    assert (clouds.sigma > 0).all()
    for k, cloud in enumerate(points):
        assert (clouds.distance(cloud, reading)[:, k] == 0).all()
        assert clouds.confident(cloud, np.full(len(cloud), k), reading).all()
    off = points[5].copy()
    off[:, 3] = 0.01
    assert not clouds.confident(off, np.full(len(off), 5), reading).any()
    assert np.isfinite(clouds.distance(off, reading)).all()


def test_class_without_training_images_is_infinitely_far():
    """A bundle may know fewer than seven classes; nothing is confidently one that it never saw.

    Seen to fail with NaN for the sigma of an empty cloud.
    """
    points = some_points()
    points[6] = points[6][:0]
    logits = some_logits(points[:6])
    clouds = Clouds(points)
    distance = clouds.distance(logits)
    assert np.isinf(distance[:, 6]).all()
    np.testing.assert_allclose(distance[:, :6], brute_distance(points[:6], logits, "euclidean"), rtol=1e-5)
    assert not clouds.confident(logits, np.full(len(logits), 6), "componentwise").any()


@pytest.mark.parametrize("used_before", [False, True])
def test_clouds_travel_between_processes(used_before):
    """Pickled before the search trees are built and after, the distances stay; seen to fail with a lambda kept."""
    points = some_points()
    logits = some_logits(points)
    clouds = Clouds(points)
    expected = Clouds(points).distance(logits)
    if used_before:
        clouds.distance(logits)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clouds)).distance(logits), expected)


def test_no_windows_give_no_rows():
    clouds = Clouds(some_points())
    assert clouds.distance(np.empty((0, 7), np.float32)).shape == (0, 7)
    assert clouds.confident(np.empty((0, 7), np.float32), np.empty(0, int), "euclidean").shape == (0,)


def test_bad_clouds_and_readings_are_refused():
    """With the class, what is wrong and what to do."""
    points = some_points()
    with pytest.raises(ValueError, match=r"'manhattan'.*componentwise or euclidean"):
        Clouds(points).distance(points[0], "manhattan")
    with pytest.raises(ContractError, match=r"class 0: shape \(40, 7\).*\(n, 6\)"):
        Clouds(points[:6])
    points[3][5, 2] = np.nan
    with pytest.raises(ContractError, match=r"class 3: .*finite"):
        Clouds(points)
