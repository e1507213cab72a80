"""The network on every window of a band of a two-level frame: class, probabilities, confidence, parameter, distance.

A band is cut into tiles.  The windows of a tile share what they can (`hamscope.learn.tile`); where they hardly overlap,
or the network pads each of them, they go through it one by one, in batches.  Either way they are prepared as the
training images were.

Shape letters: R, C = rows and columns of the band in the grid of windows; W = windows; L = side of a window;
K = classes; H = width of the hidden layer.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hamscope.data.results import NO_PATTERN
from hamscope.data.symmetry import elements, majority_down, prepare
from hamscope.data.windows import patterned, window_grid
from hamscope.errors import UserError
from hamscope.learn import calibration, parameters, tile, trust
from hamscope.learn.bundle import Bundle
from hamscope.learn.confidence import NORMS
from hamscope.learn.network import Outputs, last_layer, outputs

BATCH = 256
TILE_PIXELS = 2**18  # with its windows some 0.7 GB
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
    image: np.ndarray, bundle: Bundle, stride: int, start: int, stop: int, score: str, condition=None, mask=None
) -> Band:
    """Classify the windows in rows `start` to `stop` - 1 of the grid of a two-level frame.

    Parameters
    ----------
    image : ndarray, shape (H, W), uint8
        The whole frame, 1 = up.  Only the rows of pixels that the band covers are read.
    score : str
        Which of the scores of `hamscope.learn.trust` makes a window confident; "default" is that of the bundle.
    condition : ndarray, shape (3,), optional
        What is known of the microscope; see `hamscope.data.instrument`.
    mask : ndarray, shape (H, W), bool, optional
        Pixels that are not part of the sample; a window with any of them has no pattern.
    """
    rows, columns = stop - start, window_grid(image.shape, bundle.window, stride)[1]
    classes = len(bundle.clouds.points)
    band = Band(
        np.full((rows, columns), NO_PATTERN, np.uint8), np.zeros((rows, columns), np.uint8),
        *(np.full((rows, columns, classes), np.nan, dtype) for dtype in (np.float32, np.float32, np.float64)),
        *(np.full((rows, columns), np.nan) for _ in range(3)),
    )  # fmt: skip
    for part, chosen, values in classified_tiles(image, bundle, stride, start, stop, score, condition, mask):
        for name, value in values.items():
            getattr(band, name)[part][chosen] = value
    return band


def classified_tiles(
    image: np.ndarray, bundle: Bundle, stride: int, start: int, stop: int, score: str, condition=None, mask=None
) -> Iterator[tuple[tuple[slice, slice], np.ndarray, dict[str, np.ndarray]]]:
    """The same tile by tile, for those who cannot hold a whole Band: a window takes some 140 bytes there.

    Yields
    ------
    part : (slice, slice)
        The rows and columns of the band that the tile is.
    chosen : ndarray (r, c), bool
        Its windows that have a pattern.
    values : dict of ndarray
        The columns of a Band for these W windows, in their order: (W,) or (W, K).
    """
    columns = window_grid(image.shape, bundle.window, stride)[1]
    for part in tiles(stop - start, columns, bundle.window, stride):
        covered = tuple(
            slice((first + own.start) * stride, (first + own.stop - 1) * stride + bundle.window)
            for first, own in zip((start, 0), part)
        )
        masked = None if mask is None else mask[covered]
        yield part, *_classify_tile(image[covered], bundle, stride, score, condition, masked)


def tiles(rows: int, columns: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """The grid of a band cut into tiles of at most TILE_PIXELS pixels, as slices of its rows and columns.

    Tiles are cut as square as can be, since each needs the pixels of its last windows beyond its grid.
    """
    side = max(1, (int(TILE_PIXELS**0.5) - window) // stride + 1)
    height = min(rows, side)
    width = max(1, (TILE_PIXELS // ((height - 1) * stride + window) - window) // stride + 1)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield slice(top, min(top + height, rows)), slice(left, min(left + width, columns))


def _classify_tile(pixels: np.ndarray, bundle: Bundle, stride: int, score: str, condition, mask):
    """Which windows of a tile have a pattern, bool (R, C), and the columns of a Band for these, in their order."""
    chosen = patterned(pixels, bundle.window, stride, mask)
    operations = elements(pixels, bundle.window, stride, bundle.network.arguments["symmetry"])
    n_elements = len(np.unique(operations[chosen]))
    # Each element that some window needs costs the whole tile once; a window by itself costs its own pixels.
    if tile.shares(bundle.network) and n_elements * pixels.size < chosen.sum() * bundle.window**2:
        hidden = tile.hidden_layer(bundle.network, pixels, stride, operations, chosen, condition)
        said = Outputs(last_layer(bundle.network, hidden), hidden)
    else:
        said = _one_by_one(bundle, pixels, stride, chosen, condition)
    best = said.logits.argmax(1)
    flipped = majority_down(pixels, bundle.window, stride)[chosen]
    predicted = parameters.predict(bundle.parameters, said.hidden, best, flipped)
    distance = bundle.clouds.distance(said.logits, "euclidean")
    return chosen, {
        "classes": best, "flags": confident(bundle, said, score, distance), "logits": said.logits,
        "distance": distance, "probabilities": probabilities(bundle, said),
    } | dict(zip(Band._fields[-3:], predicted))  # fmt: skip


def _one_by_one(bundle: Bundle, pixels: np.ndarray, stride: int, chosen: np.ndarray, condition) -> Outputs:
    """The chosen windows of a tile, each through the network by itself, in batches."""
    views = sliding_window_view(pixels, (bundle.window, bundle.window))[::stride, ::stride]
    rows, columns = np.nonzero(chosen)
    found = [ask(bundle, views[:0, 0], condition)]
    for first in range(0, len(rows), BATCH):
        # Overlapping windows hold a pixel up to L * L times, so no more than a batch of them is copied at once.
        batch = slice(first, first + BATCH)
        found.append(ask(bundle, views[rows[batch], columns[batch]], condition))
    return Outputs(*(np.concatenate(parts) for parts in zip(*found)))


def ask(bundle: Bundle, windows: np.ndarray, condition=None) -> Outputs:
    """What the network says of `windows` (W, L, L) uint8 as they were cut from a frame."""
    return outputs(bundle.network, prepare(windows, bundle.network.arguments["symmetry"]), condition, BATCH)


def score_name(bundle: Bundle, score: str) -> str:
    """The score that is meant by a name, "default" among them."""
    return bundle.card["rejection"]["score"] if score == DEFAULT else score


def confident(bundle: Bundle, said: Outputs, score: str, distance: np.ndarray | None = None) -> np.ndarray:
    """Which windows look like training images by a score of `hamscope.learn.trust`, bool (W,).

    They do up to the limit of the card; for the two readings of the paper's flag that is 1.  `distance` (W, K) is what
    `Clouds.distance` says of the logits, where that is known already.
    """
    name, best = score_name(bundle, score), said.logits.argmax(1)
    if name in NORMS:  # with a bound on the search, which is faster than the distances
        return bundle.clouds.confident(said.logits, best, name)
    limits = bundle.card["rejection"]["limits"]
    if name not in limits:
        raise UserError(f"--confidence {name}: this bundle knows {', '.join(limits)} only; take one of these")
    limit = limits[name]
    if not len(said.logits):
        return np.zeros(0, bool)
    if name == "cloud" and distance is not None:
        return np.take_along_axis(distance, best[:, None], 1)[:, 0] <= limit
    return trust.score(name, said.logits, said.hidden, bundle.gauss, bundle.clouds) <= limit


def probabilities(bundle: Bundle, said: Outputs) -> np.ndarray:
    """Calibrated probabilities of the classes, (W, K) float64."""
    return calibration.probabilities(said.logits, bundle.card["calibration"]["temperature"])
