"""A band of windows against one window at a time."""

import numpy as np
import pytest
from bundles import WINDOW, blobs, small_bundle

from hamscope.data.results import NO_PATTERN
from hamscope.data.symmetry import reduce
from hamscope.learn.bundle import read_bundle
from hamscope.learn.dense import classify_band
from hamscope.learn.network import predict

NEARLY = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read_bundle(small_bundle(tmp_path_factory.mktemp("bundles") / "bundle"))


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
