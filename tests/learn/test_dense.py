"""A band of windows against one window at a time."""

import dataclasses

import numpy as np
import pytest
from bundles import WINDOW, blobs, small_bundle

from hamscope.data.instrument import condition
from hamscope.data.levels import Levels, Threshold
from hamscope.data.parts import band_part
from hamscope.data.results import NO_PATTERN, sample_windows
from hamscope.data.symmetry import majority_up, reduce
from hamscope.learn import dense, parameters, trust
from hamscope.learn.bundle import read_bundle
from hamscope.learn.dense import classify_band
from hamscope.learn.network import outputs, predict

NEARLY = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read_bundle(small_bundle(tmp_path_factory.mktemp("bundles") / "bundle"))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A bundle whose network asks for what is known of the microscope."""
    return read_bundle(small_bundle(tmp_path_factory.mktemp("bundles") / "bundle", kind="invariant"))


def frame() -> np.ndarray:
    """40 x 30 pixels, of which a part is uniform."""
    image = blobs((40, 30), 4)
    image[:, :20] = 1
    return image


@pytest.mark.parametrize("reading", ["componentwise", "euclidean"])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_band_is_its_windows_one_by_one(bundle, stride, reading):
    """Logits, classes, flags and distances of each window are those of that window alone.

    Seen to fail with rows and columns of the grid exchanged, and with the flag taken in the other reading.
    """
    image = frame()
    start, stop = 2, (len(image) - WINDOW) // stride
    band = classify_band(image, bundle, stride, start, stop, reading)
    assert band.classes.shape == (stop - start, (30 - WINDOW) // stride + 1)
    patterns = 0
    for r, c in np.ndindex(band.classes.shape):
        y, x = (start + r) * stride, c * stride
        window = image[y : y + WINDOW, x : x + WINDOW]
        if window.all():
            assert band.classes[r, c] == NO_PATTERN and band.flags[r, c] == 0
            assert np.isnan(band.logits[r, c]).all() and np.isnan(band.distance[r, c]).all()
            continue
        patterns += 1
        logits = predict(bundle.network, reduce(window[None]))
        np.testing.assert_allclose(band.logits[r, c], logits[0], **NEARLY)
        assert band.classes[r, c] == logits[0].argmax()
        assert band.flags[r, c] == bundle.clouds.confident(logits, logits.argmax(1), reading)[0]
        np.testing.assert_allclose(band.distance[r, c], bundle.clouds.distance(logits, "euclidean")[0], **NEARLY)
    assert 0 < patterns < band.classes.size
    assert len(np.unique(band.classes)) > 3
    assert 0 < band.flags.sum() < patterns


def test_all_sixteen_images_of_a_frame_are_seen_alike(bundle):
    """The map of a turned, mirrored or inverted frame is the turned, mirrored map; seen to fail without `reduce`."""
    image = blobs((24, 24), 8)
    rows = len(image) - WINDOW + 1
    classes = classify_band(image, bundle, 1, 0, rows, "euclidean").classes
    for turns in range(4):
        for seen, expected in ((np.rot90(image, turns), np.rot90(classes, turns)),
                               (np.rot90(image, turns).T, np.rot90(classes, turns).T)):  # fmt: skip
            for levels in (seen, 1 - seen):
                found = classify_band(np.ascontiguousarray(levels), bundle, 1, 0, rows, "euclidean").classes
                np.testing.assert_array_equal(found, expected)


def test_a_uniform_band_has_no_pattern(bundle):
    """The network is not asked about it."""
    band = classify_band(np.ones((20, 20), np.uint8), bundle, 2, 0, 3, "euclidean")
    assert (band.classes == NO_PATTERN).all() and not band.flags.any() and np.isnan(band.logits).all()


@pytest.mark.parametrize("score", ["default", "mahalanobis", "energy", "nearest", "euclidean"])
def test_what_the_bundle_knows_is_asked_of_every_window(seeing, score):
    """Probabilities exp(x / T) over their sum, parameter and flag of each window, under a condition, one by one.

    Seen to fail with the temperature left out, with the condition not passed on, with the majority taken after the
    windows were prepared (none is down then), and with the flag of another score or the limit of another.
    """
    image = frame()
    image[20:] ^= 1  # so that the majority is down in some windows
    image[20:] &= blobs((20, 30), 7, 0.5)
    known = condition(1.5, True)
    name = "cloud" if score == "default" else score
    limits = seeing.card["rejection"]["limits"] | {"cloud": 3.0, "mahalanobis": 6.1, "energy": -3.15, "nearest": 2.9}
    card = seeing.card | {"rejection": seeing.card["rejection"] | {"limits": limits}}
    band = classify_band(image, dataclasses.replace(seeing, card=card), 3, 0, 9, score, known)
    rejection, temperature = card["rejection"], seeing.card["calibration"]["temperature"]
    assert rejection["score"] == "cloud" and abs(temperature - 1) > 0.05
    flips = 0
    for r, c in zip(*np.nonzero(band.classes != NO_PATTERN)):
        window = image[None, 3 * r : 3 * r + WINDOW, 3 * c : 3 * c + WINDOW]
        said = outputs(seeing.network, majority_up(window), known[None])
        odds = np.exp(said.logits[0].astype(float) / temperature)
        np.testing.assert_allclose(band.probabilities[r, c], odds / odds.sum(), rtol=1e-3, atol=1e-5)
        assert band.classes[r, c] == said.logits.argmax()
        own = trust.score(name, said.logits, said.hidden, seeing.gauss, seeing.clouds)[0]
        limit = rejection["limits"][name]
        assert band.flags[r, c] == (own <= limit) or abs(own - limit) < 1e-3 * abs(limit)
        flipped = np.array([window.sum() < WINDOW**2 / 2])
        flips += flipped[0] and band.classes[r, c] > 3  # of percolation, where it matters
        state = {key[11:]: array for key, array in seeing.statistics.items() if key.startswith("parameters.")}
        expected = parameters.predict(state, said.hidden, said.logits.argmax(1), flipped)
        found = band.parameter[r, c], band.half68[r, c], band.half90[r, c]
        np.testing.assert_allclose(found, np.ravel(expected), rtol=1e-3, atol=1e-4)
    assert flips > 2 and 0 < band.flags.sum() < (band.classes != NO_PATTERN).sum()


def test_without_a_condition_nothing_is_known(seeing):
    """None is the condition of an unknown width and a fixed threshold, and another one changes the answer."""
    image = frame()
    none, unknown, told = (
        classify_band(image, seeing, 3, 0, 5, "default", known).probabilities
        for known in (None, condition(None, False), condition(3.0, False))
    )
    np.testing.assert_array_equal(none, unknown)
    assert np.nanmax(np.abs(none - told)) > 0.01


@pytest.mark.parametrize("pixels", [22 * 22, 2**19])
def test_a_part_is_added_up_tile_by_tile(seeing, monkeypatch, pixels):
    """Maps, sums and sampled logits of a part are those of the band as a whole, cut into tiles of 22 pixels or not.

    A frame of 70 x 62 has 55 x 47 windows, of which a part is uniform; asked are its rows 7 to 42, and a grid of all is
    sampled.  Seen to fail with the sample of a tile taken by its place in the tile and not among its patterns, with
    rows counted from the frame, and with the sums of the last tile alone.
    """
    image = blobs((70, 62), 4)
    image[:, :30] = 1
    grid, start, stop = (55, 47), 7, 43
    known = condition(1.0, False)
    whole = classify_band(image, seeing, 1, start, stop, "default", known)
    monkeypatch.setattr(dense, "TILE_PIXELS", pixels)
    levels = Levels(Threshold(np.float32(0), False), False, np.zeros(2, np.float32), image, 0.5)
    tiles = list(dense.classified_tiles(image, seeing, 1, start, stop, "default", known))
    assert (len(tiles) > 20) == (pixels < 2**19)
    part = band_part(iter(tiles), levels, grid, start, stop)
    np.testing.assert_array_equal(part.classes, whole.classes)
    np.testing.assert_array_equal(part.flags, whole.flags)
    rows, columns = np.divmod(sample_windows(grid), grid[1])
    inside = (rows >= start) & (rows < stop)
    expected = whole.logits[rows[inside] - start, columns[inside]]
    assert 0 < np.isnan(expected[:, 0]).sum() < len(expected) > 100
    np.testing.assert_allclose(part.sample, expected, **NEARLY)
    for name in ("logits", "distance"):
        total = np.nansum(getattr(whole, name), (0, 1), dtype=float)
        np.testing.assert_allclose(getattr(part, f"{name}_sum"), total, rtol=1e-4)
    np.testing.assert_allclose(part.probability_sum, np.nansum(whole.probabilities, (0, 1)), rtol=1e-4, atol=1e-4)
    for name, values in (("parameter", whole.parameter), ("half68", whole.half68), ("half90", whole.half90)):
        total = [np.nansum(values[whole.classes == k]) for k in range(7)]
        np.testing.assert_allclose(getattr(part, f"{name}_sum"), total, rtol=1e-3)
