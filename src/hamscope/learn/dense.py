"""The network on every window of a band of a two-level frame: logits, class, confidence, distance to the clouds.

Each window goes through the network by itself, in batches, after the same symmetry reduction as the training images.

Shape letters: R, C = rows and columns of the band in the grid of windows; L = side of a window; K = classes.
"""

from typing import NamedTuple

import numpy as np

from hamscope.data.results import NO_PATTERN
from hamscope.data.symmetry import prepare
from hamscope.data.windows import patterned, windows_of
from hamscope.learn.bundle import Bundle
from hamscope.learn.network import predict

BATCH = 256


class Band(NamedTuple):
    """What the network says of each window; windows of one level only have no pattern and are not asked about.

    `classes` (R, C) uint8, 255 without a pattern; `flags` (R, C) uint8, 1 = confident; `logits` and `distance`
    (R, C, K) float32, NaN without a pattern.  `distance` is to the nearest training point of each class, Euclidean in
    units of the sigma of that class.
    """

    classes: np.ndarray
    flags: np.ndarray
    logits: np.ndarray
    distance: np.ndarray


def classify_band(
    image: np.ndarray, bundle: Bundle, stride: int, start: int, stop: int, reading: str, condition=None
) -> Band:
    """Classify the windows in rows `start` to `stop` - 1 of the grid of a two-level frame.

    Parameters
    ----------
    image : ndarray, shape (H, W), uint8
        The whole frame, 1 = up.
    reading : {"componentwise", "euclidean"}
        How "within one standard deviation vector" of the cloud of its class is read for the flag.
    """
    chosen = patterned(image, bundle.window, stride, start, stop)
    views = windows_of(image, bundle.window, stride, start, stop)
    rows, columns = np.nonzero(chosen)
    # Overlapping windows hold a pixel up to L * L times, so no more than a batch of them is copied at once.
    batches = [slice(first, first + BATCH) for first in range(0, len(rows), BATCH)]
    symmetry = bundle.network.arguments["symmetry"]
    found = [
        predict(bundle.network, prepare(views[rows[batch], columns[batch]], symmetry), condition) for batch in batches
    ]
    classes = len(bundle.clouds.points)
    logits = np.concatenate(found) if found else np.empty((0, classes), np.float32)
    best = logits.argmax(1).astype(np.uint8)
    band = Band(
        np.full(chosen.shape, NO_PATTERN, np.uint8), np.zeros(chosen.shape, np.uint8),
        np.full((*chosen.shape, classes), np.nan, np.float32), np.full((*chosen.shape, classes), np.nan, np.float32),
    )  # fmt: skip
    if len(rows):
        band.classes[chosen], band.logits[chosen] = best, logits
        band.flags[chosen] = bundle.clouds.confident(logits, best, reading)
        band.distance[chosen] = bundle.clouds.distance(logits, "euclidean")
    return band
