"""Means over the windows of a frame with error bars that overlapping windows cannot make too small.

Windows of side L at a stride below L share pixels, so their number says nothing about how sure a mean is.  The grid of
windows is taken apart into k x k sub-grids, k = ceil(L / stride), one for each offset; the windows of a sub-grid do not
overlap.  With n_o windows that have a value and s_o their standard deviation (n_o - 1 in the denominator),

    mean  = mean over all windows,        error^2 = mean over the offsets o of  s_o^2 / n_o.

Each s_o^2 / n_o estimates the variance of the mean of one sub-grid without bias (it is that of the jackknife over its
windows); their mean is the same number with less noise.  The mean over all windows is at least as sure, so the error is
rather too large than too small.  Windows side by side are independent only where the correlation length is small
against L: at a critical point the error is too small all the same.

`results.h5` keeps the class of every window, and the logits of at most 512 on a regular grid, whose stride is a
multiple of that of the windows.  Distances of these are taken to the points of the clouds that the file keeps, at most
512 a class; with fewer points the distances are larger and so is their spread.  So the mean distance is that of the
file, over all windows and the whole cloud, and only its error comes from the sample.

Shape letters: R, C = rows and columns of windows; K = 7 classes; F = frames of the file; V = values of a window.
"""

from typing import NamedTuple

import numpy as np

from hamscope.data.results import NO_PATTERN, Results, sample_windows
from hamscope.learn.confidence import Clouds

FEWEST = 3  # windows that do not overlap, below which there is no error


class Separated(NamedTuple):
    """Means and standard errors of V values, both (V,), and how many windows do not overlap (mean over the offsets).

    `reason` says why there is no error, "" otherwise.
    """

    mean: np.ndarray
    error: np.ndarray
    windows: float
    reason: str = ""


def separated(values: np.ndarray, stride: int, window: int) -> Separated:
    """Mean over a grid of windows (R, C) or (R, C, V), NaN where a window has no value, with the error of the module.

    Parameters
    ----------
    values : ndarray, shape (R, C) or (R, C, V)
        A window without any value, NaN throughout, does not count; one NaN of several makes a window one without.
    stride, window : int
        Distance of neighbouring windows, and their side, in pixels.
    """
    values = np.asarray(values, float)
    values = values[..., None] if values.ndim == 2 else values
    known = np.isfinite(values).all(axis=-1)
    nothing = np.full(values.shape[-1], np.nan)
    if not known.any():
        return Separated(nothing, nothing, 0.0, "no window has a value")
    apart = -(-window // stride)
    variances, counts = [], []
    for i in range(min(apart, values.shape[0])):
        for j in range(min(apart, values.shape[1])):
            own = values[i::apart, j::apart][known[i::apart, j::apart]]
            counts.append(len(own))
            if len(own) >= FEWEST:
                variances.append(own.var(axis=0, ddof=1) / len(own))
    mean, count = values[known].mean(axis=0), float(np.mean(counts))
    if not variances:
        return Separated(mean, nothing, count, f"fewer than {FEWEST} windows do not overlap")
    return Separated(mean, np.sqrt(np.mean(variances, axis=0)), count)


def fractions(results: Results, row: int) -> Separated:
    """Share of the windows of a frame in each class (K,) with its error, from the map of classes."""
    classes = np.asarray(results.class_maps[row])
    hot = (classes[..., None] == np.arange(len(results.cloud_sample))).astype(float)
    hot[classes == NO_PATTERN] = np.nan
    return separated(hot, *_grid(results))


def cloud_distances(results: Results, row: int) -> Separated:
    """Mean distance of the windows of a frame to the cloud of each class (K,), in sigmas, and its error."""
    classes = np.asarray(results.class_maps[row])
    logits, step = sampled_grid(results.logits_sample[row], classes.shape)
    stride, window = _grid(results)
    known = np.isfinite(logits).all(axis=-1)
    found = np.full(logits.shape, np.nan)
    found[known] = sampled_clouds(results).distance(logits[known])
    # A class without a cloud is infinitely far from everything, and must not cost the others their windows.
    some = ~np.isinf(found).any(axis=(0, 1))
    own = separated(found[..., some], step * stride, window)
    error = np.full(len(some), np.nan)
    error[some] = own.error
    return Separated(np.asarray(results.cloud_distance[row], float), error, own.windows, own.reason)


def sampled_grid(sample: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, int]:
    """The sampled windows (512, K) of a map of `shape` as the grid they are, (r, c, K), and its step in windows."""
    chosen = sample_windows(shape)
    rows, columns = np.unique(chosen // shape[1]), np.unique(chosen % shape[1])
    longer = max(rows, columns, key=len)
    step = int(longer[1] - longer[0]) if len(longer) > 1 else 1
    return np.asarray(sample)[: len(chosen)].reshape(len(rows), len(columns), -1), step


def sampled_clouds(results: Results) -> Clouds:
    """The clouds of the sampled training logits; a class without any is infinitely far from everything."""
    points = np.asarray(results.cloud_sample)
    return Clouds([own[np.isfinite(own).all(axis=1)] for own in points])


def _grid(results: Results) -> tuple[int, int]:
    return int(results.attributes["stride"]), int(results.attributes["window"])


class Closest(NamedTuple):
    """The frame of least distance: its place, and the places of all frames that are not further by two errors."""

    place: int
    alike: np.ndarray


def closest_approach(distance: np.ndarray, error: np.ndarray) -> Closest | None:
    """Where a series of mean distances (F,) with errors (F,) is least, and where it may as well be; None without any.

    A frame may as well be the closest if its distance is larger by at most twice the error of the difference, with the
    two frames taken as independent.  They show one place, which makes the range rather too wide.  A frame without an
    error has that of the least distance.
    """
    distance = np.where(np.isfinite(distance), distance, np.inf)
    if not np.isfinite(distance).any():
        return None
    place = int(distance.argmin())
    error = np.asarray(error, float)
    own = error[place]
    both = np.hypot(np.where(np.isfinite(error), error, own), own)
    alike = np.flatnonzero(distance - distance[place] <= 2 * np.nan_to_num(both))
    return Closest(place, alike)
