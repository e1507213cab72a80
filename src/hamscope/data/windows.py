"""Grey frames to two levels, and the sliding windows of a two-level frame.

Window (r, c) of the grid covers the pixels r S to r S + L - 1 down and c S to c S + L - 1 across, so the last
pixels of a frame are in no window where the stride S does not divide what is left of it.

Shape letters: H, W = rows and columns of a frame; L = side of a window; S = stride; R, C = rows and columns of the
grid of windows.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from skimage.filters import threshold_otsu

MASKED, OUTSIDE = 254, 255  # in a preview: what is no part of the sample, and of the frame


def binarize(grey: np.ndarray, threshold: str | float, up: str) -> np.ndarray:
    """A grey frame (H, W) as spins: uint8, 1 = up, 0 = down.

    A frame of the values 0 and 1, or 0 and 255, has two levels already and keeps them whatever the threshold says.
    Uniform frames give a single level, which is no pattern.

    Parameters
    ----------
    threshold : "otsu", "median" or a grey value
        Bright is above Otsu's threshold [1]_; above the median (or at it too, where that is nearer to half of the
        pixels); or above the value.
    up : {"bright", "dark"}
        Which of the two is up.

    References
    ----------
    .. [1] Otsu, IEEE Trans. Syst. Man Cybern. 9, 62 (1979), doi:10.1109/TSMC.1979.4310076.
    """
    bright = grey > 0 if has_two_levels(grey) else two_levels(grey, threshold)
    return (bright if up == "bright" else ~bright).astype(np.uint8)


def has_two_levels(grey: np.ndarray) -> bool:
    """Whether a frame holds the values 0 and 1, or 0 and 255, only."""
    return any(np.isin(grey, (0, level)).all() for level in (1, 255))


def two_levels(grey: np.ndarray, threshold: str | float) -> np.ndarray:
    """Which pixels of a grey frame (H, W) are bright, bool; `threshold` as in `binarize`."""
    if threshold == "otsu":
        return grey > threshold_otsu(grey)
    if threshold == "median":
        middle = np.median(grey)
        # Many pixels can have the median itself, all of them white in an overexposed frame.
        return min(grey > middle, grey >= middle, key=lambda choice: abs(choice.mean() - 0.5))
    return grey > threshold


def window_grid(shape: tuple[int, int], window: int, stride: int) -> tuple[int, int]:
    """Rows and columns (R, C) of the grid of windows in a frame of `shape` (H, W)."""
    return tuple((side - window) // stride + 1 for side in shape)


def bands(shape: tuple[int, int], window: int, stride: int, max_windows: int) -> list[tuple[int, int]]:
    """The grid cut into bands of whole rows, (first row, end row) each, of at most `max_windows` windows if possible.

    They depend on nothing else, so any number of processes can share a frame and agree on them.
    """
    rows, columns = window_grid(shape, window, stride)
    height = max(1, max_windows // columns)
    return [(start, min(start + height, rows)) for start in range(0, rows, height)]


def windows_of(image: np.ndarray, window: int, stride: int, start: int, stop: int) -> np.ndarray:
    """The windows in rows `start` to `stop` - 1 of the grid, shape (rows, C, L, L): a view, nothing is copied."""
    pixels = image[start * stride : (stop - 1) * stride + window]
    return sliding_window_view(pixels, (window, window))[::stride, ::stride]


def window_sums(image: np.ndarray, window: int, stride: int) -> np.ndarray:
    """The sum of a uint8 or bool image (H, W) over every window, int64 (R, C), from one table of sums."""
    table = np.zeros((image.shape[0] + 1, image.shape[1] + 1), np.int64)
    image.cumsum(0, dtype=np.int64).cumsum(1, out=table[1:, 1:])
    sums = table[window:, window:] - table[:-window, window:] - table[window:, :-window] + table[:-window, :-window]
    return sums[::stride, ::stride]


def patterned(image: np.ndarray, window: int, stride: int, mask: np.ndarray | None = None) -> np.ndarray:
    """Which windows hold both levels, and no pixel of the `mask` (H, W): bool (R, C)."""
    ups = window_sums(image, window, stride)
    both = (ups > 0) & (ups < window * window)
    return both if mask is None or not mask.any() else both & (window_sums(mask, window, stride) == 0)


def majority(image: np.ndarray, block: int, mask: np.ndarray | None = None) -> np.ndarray:
    """The majority of blocks of `block` x `block` pixels of a two-level image, uint8; its edges are repeated.

    Pixels of the `mask` (H, W) have no say, and a block is MASKED where they are more than half of it.
    """
    if mask is None:
        return (2 * _block_sums(image, block) >= block * block).astype(np.uint8)
    hidden = _block_sums(mask, block)
    blocks = (2 * _block_sums(image.astype(bool) & ~mask, block) >= block * block - hidden).astype(np.uint8)
    blocks[2 * hidden > block * block] = MASKED
    return blocks


def _block_sums(image: np.ndarray, block: int) -> np.ndarray:
    padded = np.pad(image, [(0, -length % block) for length in image.shape], mode="edge")
    rows, columns = (length // block for length in padded.shape)
    return padded.reshape(rows, block, columns, block).sum((1, 3), dtype=np.int64)
