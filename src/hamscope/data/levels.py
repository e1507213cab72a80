"""What is said of a whole frame: its threshold, its range, its preview; from blocks of its rows, so it need not fit.

    rows --> histogram of its grey levels --> threshold --> rows once more --> preview, share of up pixels

It is bit for bit what `hamscope.data.windows` says of the whole frame as float32.  A frame of whole numbers of 8 or 16
bits is read once for its histogram, which holds all that a threshold asks for.  Any other is read two or three times:
for its range, for the 256 bins of Otsu's threshold between its ends, or, for its median, for the upper and then the
lower half of the bits of the pixel in the middle; and for the pixels above and at the median.

Shape letters: H, W = rows and columns of a frame; h, w = of its preview.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from skimage.filters import threshold_otsu

from hamscope.data.windows import has_two_levels, majority
from hamscope.errors import FrameError
from hamscope.provenance import whole_file

BLOCK_PIXELS = 2**22  # of what is worked on at once: 16 MB as float32
_BINS = 256  # as skimage has them
_HALF = 16  # bits
_SIGN = np.uint32(2**31)

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray | None]]]


class Threshold(NamedTuple):
    """Bright is above `value`, or at it too where it is `inclusive`; compared as float32."""

    value: np.float32
    inclusive: bool


class Levels(NamedTuple):
    """Of a whole frame: its `threshold`; whether that erased its density (`adaptive`); `grey_range`, lowest and highest
    grey value (2,) float32; `preview` (h, w) uint8; `up_fraction`.  What is masked has no say."""

    threshold: Threshold
    adaptive: bool
    grey_range: np.ndarray
    preview: np.ndarray
    up_fraction: float


def frame_levels(shape: tuple[int, int], rows: Callable, threshold: str | float, up: str, side: int) -> Levels:
    """The levels of a frame of `shape` (H, W).

    Parameters
    ----------
    rows : callable
        (start, stop) -> grey values (stop - start, W) in the type they are stored in, and their mask, bool, or None.
    threshold, up
        As in `hamscope.data.windows.binarize`.
    side : int
        Pixels a side of the preview, at most.

    Raises
    ------
    FrameError
        Every pixel is masked.
    """
    block = -(-max(shape) // side)  # pixels a side that become one of the preview
    height = max(1, BLOCK_PIXELS // shape[1] // block) * block
    cuts = [(start, min(start + height, shape[0])) for start in range(0, shape[0], height)]

    def samples():
        for cut in cuts:
            grey, mask = rows(*cut)
            sample = grey.ravel() if mask is None else grey[~mask]
            if sample.size:
                yield sample

    blocks = _counted(samples)
    grey_range, two = _range(blocks)
    found = Threshold(np.float32(0), False) if two else _threshold(blocks, threshold, grey_range)
    ups = pixels = 0
    strips = []
    for cut in cuts:
        grey, mask = rows(*cut)
        image = spins(grey, found, up, mask)
        ups += int(image.sum(dtype=np.int64))
        pixels += image.size if mask is None else int((~mask).sum())
        strips.append(majority(image, block, mask))
    return Levels(found, isinstance(threshold, str) and not two, grey_range, np.concatenate(strips), ups / pixels)


def spins(grey: np.ndarray, threshold: Threshold, up: str, mask: np.ndarray | None = None) -> np.ndarray:
    """Rows of a grey frame (H, W) as uint8, 1 = up, 0 = down or masked; `up` is "bright" or "dark"."""
    image = np.empty(grey.shape, np.uint8)
    height = max(1, BLOCK_PIXELS // grey.shape[1])
    for start in range(0, len(grey), height):
        rows = slice(start, start + height)
        values = grey[rows].astype(np.float32, copy=False)
        bright = values >= threshold.value if threshold.inclusive else values > threshold.value
        image[rows] = bright if up == "bright" else ~bright
    if mask is not None:
        image[mask] = 0
    return image


def write_levels(path: Path, levels: Levels) -> None:
    """Write the levels of a frame, whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **levels._asdict() | levels.threshold._asdict() | {"threshold": 0})


def read_levels(path: Path) -> Levels:
    """Read what `write_levels` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        threshold = Threshold(arrays["value"][()], bool(arrays["inclusive"]))
        adaptive, up_fraction = bool(arrays["adaptive"]), float(arrays["up_fraction"])
        return Levels(threshold, adaptive, arrays["grey_range"], arrays["preview"], up_fraction)


def _counted(samples: Callable[[], Iterator[np.ndarray]]) -> Blocks:
    """Blocks of float32 values, each with how often they occur, None for once; few grey levels become one block."""
    counts, lowest = 0, 0
    for sample in samples():
        if sample.dtype.kind not in "bui" or sample.dtype.itemsize > 2:
            return lambda: ((one.astype(np.float32, copy=False), None) for one in samples())
        sample = sample.view(np.uint8) if sample.dtype.kind == "b" else sample
        lowest = np.iinfo(sample.dtype).min
        counts = counts + np.bincount(sample.astype(np.int32) - lowest, minlength=2 ** (8 * sample.itemsize))
    occurring = np.flatnonzero(counts)
    if not len(occurring):
        return lambda: iter(())
    return lambda: iter([((occurring + lowest).astype(np.float32), counts[occurring])])


def _range(blocks: Blocks) -> tuple[np.ndarray, bool]:
    """Lowest and highest value; whether there are none but 0 and 1, or 0 and 255 (`has_two_levels`)."""
    ends, two = [], True
    for values, _ in blocks():
        ends.append((values.min(), values.max()))
        two = two and has_two_levels(values)
    if not ends:
        raise FrameError("every pixel is masked; mend the mask, or leave the frame out")
    grey_range = np.array([np.min(ends), np.max(ends)])
    # Blocks of 0 and 1, and of 0 and 255, are no two levels together.
    return grey_range, two and has_two_levels(np.unique(ends))


def _threshold(blocks: Blocks, threshold: str | float, grey_range: np.ndarray) -> Threshold:
    """As `hamscope.data.windows.two_levels` finds it."""
    if threshold == "otsu":
        return Threshold(_otsu(blocks, *grey_range), False)
    if threshold == "median":
        middle = _median(blocks)
        total, above, at = (_sum(blocks, choose) for choose in (
            np.isfinite, lambda values: values > middle, lambda values: values >= middle))  # fmt: skip
        return Threshold(middle, abs(at / total - 0.5) < abs(above / total - 0.5))
    return Threshold(np.float32(threshold), False)


def _sum(blocks: Blocks, choose: Callable) -> int:
    """How many values are chosen."""
    return sum(int((choose(values) if counts is None else counts[choose(values)]).sum()) for values, counts in blocks())


def _otsu(blocks: Blocks, low: np.float32, high: np.float32) -> np.float32:
    """`threshold_otsu` of all values; its bins are float32, as are the values."""
    if low == high:
        return low
    tally = 0
    for values, counts in blocks():
        found, edges = np.histogram(values, _BINS, (low, high), weights=counts)
        tally = tally + found
    return threshold_otsu(hist=(tally, (edges[:-1] + edges[1:]) / 2.0))


def _median(blocks: Blocks) -> np.float32:
    """`np.median` of all values: the one in the middle, or the mean of the two."""
    upper = _tally(blocks, lambda keys: (keys >> _HALF, slice(None)))
    ends, total = upper.cumsum(), int(upper.sum())
    middle = []
    for rank in sorted({(total - 1) // 2, total // 2}):
        top = int(np.searchsorted(ends, rank, "right"))

        def below(keys, top=top):
            chosen = keys >> _HALF == top
            return keys[chosen] & (2**_HALF - 1), chosen

        within = rank - (int(ends[top - 1]) if top else 0)
        bottom = int(np.searchsorted(_tally(blocks, below).cumsum(), within, "right"))
        key = np.uint32(top << _HALF | bottom)
        middle.append((key ^ _SIGN if key & _SIGN else ~key).view(np.float32))
    return np.mean(np.array(middle, np.float32))


def _tally(blocks: Blocks, halves: Callable) -> np.ndarray:
    """How often each half of the keys of the values occurs; keys are whole numbers in the order of the values."""
    tally = np.zeros(2**_HALF, np.int64)
    for values, counts in blocks():
        bits = np.ascontiguousarray(values).view(np.uint32)
        half, chosen = halves(np.where(bits & _SIGN, ~bits, bits | _SIGN))
        weights = None if counts is None else counts[chosen]
        tally += np.bincount(half.astype(np.int64), weights, minlength=2**_HALF).astype(np.int64)
    return tally
