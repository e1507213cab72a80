"""Raw frames of an experiment made ready: uneven light, noise, masks, and two levels by one rule or another.

Flat field    (frame - dark) / (flat - dark), times the mean of (flat - dark): grey levels stay what they were.
Average       of 2 h + 1 neighbours within one direction of the sweep.  Near its ends h is smaller, so that the mean
              temperature is always that of the frame in the middle.
Threshold     per frame (Otsu, median, a value), one for the whole series (Otsu), or for each pixel the moment when its
              time trace jumps, `trace_steps`.  Bright is 1.  Masked pixels are never asked.

The jump of a trace g_1 ... g_n within one direction of the sweep is its least-squares step: the cut k that explains
most of the variance [1]_,

    S(k) = k (n - k) / n (mean of the last n - k  -  mean of the first k)^2,       1 <= k < n.

It counts as a switch where the difference of the means is at least half the contrast of the film, and

    S(k) (n - 2) / (sum of squares about the two means) >= 25,

five standard errors.  A pixel without such a jump has one level in this direction: bright where the mean of its trace
is above the threshold of the series.  The contrast is the distance between the mean grey of the two levels that this
threshold makes.  So a pixel that never switches is compared with the rest of the film, and needs even light; one that
switches is compared with itself.

Shape letters: F = frames; H, W = rows and columns of a frame; n = frames of one direction; P = pixels.

References
----------
.. [1] Hinkley, Biometrika 57, 1 (1970), doi:10.1093/biomet/57.1.1.
"""

from typing import NamedTuple

import numpy as np
from skimage.filters import threshold_otsu

from hamscope.data.windows import has_two_levels, two_levels
from hamscope.errors import UserError

FEWEST = 4  # frames of one direction, for time traces
SURE = 25.0  # S(k) over the variance about the two means
BINS = 256  # of the histogram of a series, as Otsu's threshold has of a frame
VARIATION = 0.15  # of the contrast, by which the threshold panel moves the threshold


def flat_gain(flat: np.ndarray, dark: np.ndarray | None) -> np.ndarray:
    """What a frame, less `dark`, is multiplied by: float32 (H, W), so that `flat` (H, W) itself becomes uniform.

    Raises
    ------
    UserError
        The flat field is not brighter than the dark frame everywhere.
    """
    light = flat.astype(np.float64) - (0 if dark is None else dark)
    bad = np.argwhere(light <= 0)
    if len(bad):
        than = "zero" if dark is None else "--dark"
        raise UserError(
            f"--flat: {len(bad)} of {light.size} pixels are not brighter than {than}, the first at row {bad[0][0]}, "
            f"column {bad[0][1]}; take a reference frame that is lit everywhere"
        )
    return (light.mean() / light).astype(np.float32)


def directions(direction: np.ndarray) -> list[range]:
    """The frames of each stretch of equal `direction` (F,), in order."""
    cuts = np.flatnonzero(np.diff(direction)) + 1
    return [range(a, b) for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(direction)])]


def neighbours(frame: int, stretch: range, count: int) -> range:
    """The frames whose average stands for `frame`: `count` of them, fewer at the ends of the stretch."""
    half = min(count // 2, frame - stretch.start, stretch.stop - 1 - frame)
    return range(frame - half, frame + half + 1)


def level_of(grey: np.ndarray, threshold: str | float) -> float:
    """The grey value above which pixels are bright, from the pixels `grey` (P,) that are part of the sample.

    The same rule as `hamscope.data.windows.binarize` follows: frames of two levels keep them.
    """
    if has_two_levels(grey):
        return 0.0
    if threshold == "otsu":
        return float(threshold_otsu(grey))
    if threshold == "median":
        middle = np.median(grey).astype(grey.dtype)
        bright = two_levels(grey, "median")
        # Pixels of the median itself may count as bright, so the level is the next number below.
        return float(np.nextafter(middle, -np.inf, dtype=grey.dtype) if bright[grey == middle].any() else middle)
    return float(threshold)


def histogram_level(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Otsu's threshold of a histogram of equal bins from `low` to `high`, and the contrast of the two levels."""
    edges = np.linspace(low, high, len(counts) + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    level = float(threshold_otsu(hist=(counts, centres)))
    bright = centres > level
    return level, float(np.average(centres[bright], weights=counts[bright])
                        - np.average(centres[~bright], weights=counts[~bright]))  # fmt: skip


def contrast_of(grey: np.ndarray, level: float) -> float:
    """Distance between the mean grey of the pixels (P,) above `level` and of the others; 0 with one level only."""
    bright = grey > level
    return float(grey[bright].mean() - grey[~bright].mean()) if 0 < bright.sum() < bright.size else 0.0


class Steps(NamedTuple):
    """Of each pixel: bright `before` and `after` its switch, bool; `frame`, the first one after it.

    A pixel that does not switch has `before` equal to `after`, and the first frame of the stretch.
    """

    frame: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def image(self, frame: int) -> np.ndarray:
        """The pixels in one frame of the stretch, uint8, 1 = bright."""
        return np.where(frame < self.frame, self.before, self.after).astype(np.uint8)


def trace_steps(grey: np.ndarray, stretch: range, level: float, contrast: float) -> Steps:
    """When each pixel switches within one direction of the sweep; the rule is at the head of this file.

    Parameters
    ----------
    grey : ndarray, shape (n, ...), float
        The traces, a frame a row.
    stretch : range
        The numbers of these frames.
    level, contrast : float
        Threshold and contrast of the series.
    """
    trace = np.asarray(grey, np.float64)
    n = len(trace)
    sums = trace.cumsum(0)
    total = sums[-1]
    k = np.arange(1, n).reshape(-1, *[1] * (trace.ndim - 1))
    explained = (sums[:-1] - k / n * total) ** 2 * (n / (k * (n - k)))
    best = explained.argmax(0)
    share = np.take_along_axis(explained, best[None], 0)[0]
    first = np.take_along_axis(sums, best[None], 0)[0]
    step = (total - first) / (n - 1 - best) - first / (best + 1)
    rest = np.maximum(((trace - total / n) ** 2).sum(0) - share, 0)
    switches = (np.abs(step) >= contrast / 2) & (share * (n - 2) >= SURE * rest) & (share > 0)
    still = total / n > level
    return Steps(
        np.where(switches, stretch.start + best + 1, stretch.start).astype(np.int32),
        np.where(switches, step < 0, still),
        np.where(switches, step > 0, still),
    )


def up_fraction(image: np.ndarray, sample: np.ndarray) -> float:
    """Share of the pixels of the `sample` (H, W) bool that are up in a two-level `image` (H, W)."""
    return float(image[sample].mean())


def neighbour_correlation(image: np.ndarray, sample: np.ndarray) -> float:
    """Mean of s s' over the pairs of neighbours that are both part of the sample, s = +1 or -1; nothing is subtracted.

    NaN where there are no such pairs.
    """
    spins = np.where(sample, 2 * image.astype(np.int8) - 1, 0)
    pairs = [(spins[1:], spins[:-1]), (spins[:, 1:], spins[:, :-1])]
    count = sum(np.count_nonzero(a * b) for a, b in pairs)
    return sum(int((a * b).sum(dtype=np.int64)) for a, b in pairs) / count if count else np.nan


def clear_windows(mask: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Which windows of the grid hold no masked pixel: bool (R, C); see `hamscope.data.windows`."""
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    mask.cumsum(0, dtype=np.int64).cumsum(1, out=table[1:, 1:])
    masked = table[window:, window:] - table[:-window, window:] - table[window:, :-window] + table[:-window, :-window]
    return masked[::stride, ::stride] == 0
