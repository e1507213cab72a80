"""The network on every window of a band of a two-level frame: class, probabilities, confidence, parameter, distance.

Each window goes through the network by itself, in batches, prepared as the training images were.

Shape letters: R, C = rows and columns of the band in the grid of windows; W = windows; L = side of a window;
K = classes; H = width of the hidden layer.
"""

from typing import NamedTuple

import numpy as np

from hamscope.data.results import NO_PATTERN
from hamscope.data.symmetry import majority_is_down, prepare
from hamscope.data.windows import patterned, windows_of
from hamscope.learn import calibration, parameters, trust
from hamscope.learn.bundle import Bundle
from hamscope.learn.confidence import NORMS
from hamscope.learn.network import Outputs, outputs

BATCH = 256
DEFAULT = "default"


class Band(NamedTuple):
    """What the network says of each window; windows of one level only have no pattern and are not asked about.

    `classes` (R, C) uint8, 255 without a pattern; `flags` (R, C) uint8, 1 = confident; `logits`, `distance` (R, C, K)
    float32 and `probabilities` (R, C, K) float64, calibrated; `parameter`, `half68`, `half90` (R, C) float64, that of
    the class of the window and the half widths of its intervals.  All of them are NaN without a pattern.  `distance`
    is to the nearest training point of each class, Euclidean in units of the sigma of that class.
    """

    classes: np.ndarray
    flags: np.ndarray
    logits: np.ndarray
    distance: np.ndarray
    probabilities: np.ndarray
    parameter: np.ndarray
    half68: np.ndarray
    half90: np.ndarray


def classify_band(
    image: np.ndarray, bundle: Bundle, stride: int, start: int, stop: int, score: str, condition=None
) -> Band:
    """Classify the windows in rows `start` to `stop` - 1 of the grid of a two-level frame.

    Parameters
    ----------
    image : ndarray, shape (H, W), uint8
        The whole frame, 1 = up.
    score : str
        Which of the scores of `hamscope.learn.trust` makes a window confident; "default" is that of the bundle.
    condition : ndarray, shape (3,), optional
        What is known of the microscope; see `hamscope.data.instrument`.
    """
    chosen = patterned(image, bundle.window, stride, start, stop)
    views = windows_of(image, bundle.window, stride, start, stop)
    rows, columns = np.nonzero(chosen)
    # Overlapping windows hold a pixel up to L * L times, so no more than a batch of them is copied at once.
    batches = [slice(first, first + BATCH) for first in range(0, len(rows), BATCH)]
    found, flipped = [ask(bundle, views[:0, 0], condition)], [np.zeros(0, bool)]
    for batch in batches:
        windows = views[rows[batch], columns[batch]]
        found.append(ask(bundle, windows, condition))
        flipped.append(majority_is_down(windows))
    said = Outputs(*(np.concatenate(parts) for parts in zip(*found)))
    best = said.logits.argmax(1)
    values = {
        "classes": best, "flags": confident(bundle, said, score), "logits": said.logits,
        "distance": bundle.clouds.distance(said.logits, "euclidean"), "probabilities": probabilities(bundle, said),
    } | dict(
        zip(Band._fields[-3:], parameters.predict(bundle.parameters, said.hidden, best, np.concatenate(flipped)))
    )  # fmt: skip
    classes = len(bundle.clouds.points)
    band = Band(
        np.full(chosen.shape, NO_PATTERN, np.uint8), np.zeros(chosen.shape, np.uint8),
        *(np.full((*chosen.shape, classes), np.nan, dtype) for dtype in (np.float32, np.float32, np.float64)),
        *(np.full(chosen.shape, np.nan) for _ in range(3)),
    )  # fmt: skip
    for name, value in values.items():
        getattr(band, name)[chosen] = value
    return band


def ask(bundle: Bundle, windows: np.ndarray, condition=None) -> Outputs:
    """What the network says of `windows` (W, L, L) uint8 as they were cut from a frame."""
    return outputs(bundle.network, prepare(windows, bundle.network.arguments["symmetry"]), condition, BATCH)


def score_name(bundle: Bundle, score: str) -> str:
    """The score that is meant by a name, "default" among them."""
    return bundle.card["rejection"]["score"] if score == DEFAULT else score


def confident(bundle: Bundle, said: Outputs, score: str) -> np.ndarray:
    """Which windows look like training images by a score of `hamscope.learn.trust`, bool (W,).

    They do up to the limit of the card; for the two readings of the paper's flag that is 1.
    """
    name = score_name(bundle, score)
    if name in NORMS:  # with a bound on the search, which is faster than the distances
        return bundle.clouds.confident(said.logits, said.logits.argmax(1), name)
    limit = bundle.card["rejection"]["limits"][name]
    if not len(said.logits):
        return np.zeros(0, bool)
    return trust.score(name, said.logits, said.hidden, bundle.gauss, bundle.clouds) <= limit


def probabilities(bundle: Bundle, said: Outputs) -> np.ndarray:
    """Calibrated probabilities of the classes, (W, K) float64."""
    return calibration.probabilities(said.logits, bundle.card["calibration"]["temperature"])
