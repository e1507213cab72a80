"""Observables of two-level images and of the lattices they were cut from, with error bars from independent lattices.

States of one lattice are correlated (one chain, one field sweep, slices of one cube), so an observable is first
averaged within each lattice, and only then over the n lattices of equal parameter:

    mean = sum_k x_k / n,      error = sqrt(sum_k (x_k - mean)^2 / (n (n - 1))),      x_k the mean within lattice k.

One lattice has no error bar: it is NaN, never zero.  What is not linear in the averages, as the Binder cumulant
U = 1 - <m^4> / (3 <m^2>^2), has its error from the jackknife over lattices.  Spins s are +1 (up, 1) and -1 (down, 0).

Shape letters: N = rows (images), n = independent lattices, L = sites a side, B = bins of size, R = L // 2 + 1.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MOST_BINS, FEWEST_LATTICES = 8, 8


class Group(NamedTuple):
    """Lattices that are averaged together: the least and the largest of their parameters, and their places."""

    low: float
    high: float
    members: np.ndarray


def lattice_means(values: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Mean of `values` (N, ...) within each lattice, shape (n, ...), in the order of the sorted `lattice` (N,)."""
    order = np.argsort(lattice, kind="stable")
    _, first, count = np.unique(lattice[order], return_index=True, return_counts=True)
    total = np.add.reduceat(np.asarray(values)[order], first, axis=0, dtype=float)
    return total / count.reshape(-1, *[1] * (total.ndim - 1))


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the first axis, one entry a lattice; the error of a single one is NaN."""
    values = np.asarray(values, float)
    mean = values.mean(axis=0)
    if len(values) < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, values.std(axis=0, ddof=1) / np.sqrt(len(values))


def jackknife(statistic, values: np.ndarray) -> tuple[float, float]:
    """`statistic` of the means over the lattices of `values` (n, k), less its bias of order 1/n, and its error [1]_.

    `statistic` takes the means, shape (k,), to a number.  With t the value of all lattices and t_j that without
    lattice j, the value is n t - (n - 1) mean(t_j), and the error sqrt((n - 1) / n sum (t_j - mean(t_j))^2).

    References
    ----------
    .. [1] Efron and Stein, Ann. Stat. 9, 586 (1981), doi:10.1214/aos/1176345462.
    """
    values = np.asarray(values, float)
    n, total = len(values), values.sum(axis=0)
    whole = float(statistic(total / n))
    if n < 2:
        return whole, np.nan
    left_out = np.array([statistic((total - own) / (n - 1)) for own in values])
    error = np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2))
    return float(n * whole - (n - 1) * left_out.mean()), float(error)


def binder_cumulant(moments: np.ndarray) -> float:
    """U = 1 - <m^4> / (3 <m^2>^2) of the moments (<m^2>, <m^4>); NaN where m is always zero."""
    square, fourth = moments
    return 1 - fourth / (3 * square**2) if square > 0 else np.nan


def z_score(values: np.ndarray, exact: np.ndarray) -> float:
    """Mean of `values` - `exact` (n,) over its own standard error; NaN for fewer than five lattices, or equal ones.

    The difference is taken lattice by lattice, so that lattices of different parameters may be averaged together.
    """
    mean, error = mean_and_error(np.asarray(values) - exact)
    return float(mean / error) if len(values) >= 5 and error > 0 else np.nan


def groups(parameter: np.ndarray, grid: bool, section: np.ndarray) -> list[Group]:
    """Lattices of equal `parameter` (n,) where it lies on a grid, else bins of as many neighbours in the parameter.

    A bin never reaches over two ranges (`section` (n,) numbers them).  A range of n lattices has min(8, n // 8) bins,
    at least one: with eight lattices an error bar is itself known to 1 / sqrt(2 * 7) = 27 %, and more than eight bins
    would show no more of the curves.  The spread within a bin counts the change with the parameter as well, so that
    the error of a bin mean is rather too large than too small.
    """
    parts = []
    for own in (np.flatnonzero(section == k) for k in np.unique(section)):
        own = own[np.argsort(parameter[own], kind="stable")]
        if grid:
            parts += np.split(own, np.flatnonzero(np.diff(parameter[own]) > 0) + 1)
        else:
            parts += np.array_split(own, max(1, min(MOST_BINS, len(own) // FEWEST_LATTICES)))
    found = [Group(float(parameter[own[0]]), float(parameter[own[-1]]), np.sort(own)) for own in parts]
    return sorted(found, key=lambda group: (group.low, group.high))


def axis_correlation(images: np.ndarray, periodic: tuple[bool, bool]) -> np.ndarray:
    """C(r) = <s(x) s(x + r)> of each image at r = 0 ... L // 2 along its two axes, their mean; shape (N, R).

    Nothing is subtracted.  `periodic` says for each axis of `images` (N, L, L) whether pairs reach across the border;
    where they do not, only the L - r pairs a line that are inside are counted.  By FFT along one axis at a time.
    """
    spins = 2.0 * images - 1
    length = images.shape[-1]
    r = np.arange(length // 2 + 1)
    both = []
    for axis, wraps in ((1, periodic[0]), (2, periodic[1])):
        size = length if wraps else 2 * length
        power = np.sum(np.abs(fft.rfft(spins, size, axis=axis)) ** 2, axis=3 - axis)
        pairs = fft.irfft(power, size, axis=1)[:, r]
        both.append(pairs / (length * (length if wraps else length - r)))
    return (both[0] + both[1]) / 2


def label_clusters(image: np.ndarray, periodic: tuple[bool, bool] = (False, False)) -> np.ndarray:
    """Clusters of up sites that are joined by one of four neighbours: their numbers from 1, 0 = down; shape (L, L)."""
    return join_borders(ndimage.label(image)[0], periodic)


def join_borders(labels: np.ndarray, periodic: tuple[bool, bool]) -> np.ndarray:
    """Clusters of `label_clusters` without periodic axes, made one where they meet across a periodic border."""
    count = int(labels.max())
    borders = [(labels[0], labels[-1])] * periodic[0] + [(labels[:, 0], labels[:, -1])] * periodic[1]
    if not borders or not count:
        return labels
    one, other = (np.concatenate(side) for side in zip(*borders))
    joined = (one > 0) & (other > 0)
    graph = coo_array((np.ones(joined.sum()), (one[joined], other[joined])), (count + 1, count + 1))
    _, roots = connected_components(graph, directed=False)
    numbers = np.unique(roots, return_inverse=True)[1]
    # 0 is a component of its own and the first one met.
    return numbers[labels]


def cluster_sizes(labels: np.ndarray) -> np.ndarray:
    """Number of sites of each cluster of `label_clusters`, in the order of their numbers."""
    return np.bincount(labels.ravel())[1:]


def spans(labels: np.ndarray) -> bool:
    """Whether a cluster reaches from the first row to the last."""
    return bool(np.intersect1d(labels[0][labels[0] > 0], labels[-1]).size)


def size_counts(sizes: np.ndarray, n_bins: int, weights: np.ndarray | None = None) -> np.ndarray:
    """How many of the `sizes` (>= 1) lie in 2^b ... 2^(b + 1) - 1, b = 0 ... n_bins - 1; larger ones are an error.

    With `weights`, one a size, their sums instead.
    """
    return np.bincount(np.frexp(np.asarray(sizes, float))[1] - 1, weights, minlength=n_bins)


def size_density(counts: np.ndarray, sites: int) -> np.ndarray:
    """Number of objects of one size per site from `counts` (..., B): over the 2^b sizes of bin b, and over `sites`."""
    return counts / (2.0 ** np.arange(np.shape(counts)[-1]) * sites)


def size_centres(n_bins: int) -> np.ndarray:
    """Where to draw each bin: the geometric mean of its borders 2^b - 1/2 and 2^(b + 1) - 1/2; 1 for the first.

    For a density ~ s^-2 of continuous s that is the place where the density equals its mean over the bin.
    """
    low = 2.0 ** np.arange(n_bins)
    return np.where(low == 1, 1, np.sqrt((low - 0.5) * (2 * low - 0.5)))


def size_exponent(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """tau of a density ~ s^-tau and its jackknife error, from `counts` (n, B) of each lattice.

    A straight line is laid through the logarithms of the bins that lie within `low` <= s < `high`, each with equal
    weight.  NaN with fewer than three such bins, or where a bin is empty without one of the lattices.
    """
    counts = np.asarray(counts, float)
    edge = 2.0 ** np.arange(counts.shape[1])
    used = np.flatnonzero((edge >= low) & (2 * edge <= high))
    rest = counts.sum(axis=0) - counts
    if len(used) < 3 or (rest[:, used] <= 0).any():
        return np.nan, np.nan
    x = np.log(size_centres(counts.shape[1])[used])
    return jackknife(lambda mean: -np.polyfit(x, np.log(mean[used] / edge[used]), 1)[0], counts)


def coercive_field(field: np.ndarray, magnetization: np.ndarray, direction: int) -> tuple[float, float]:
    """Where m changes its sign in a sweep, times `direction`, and how far apart the two states about it are in H.

    Linear between the last recorded state before and the first at or past m = 0; NaN where one is missing.
    """
    order = np.argsort(direction * field, kind="stable")
    h, m = direction * field[order], direction * magnetization[order]
    past = int(np.searchsorted(m, 0.0))
    if past in (0, len(m)):
        return np.nan, np.nan
    (h0, h1), (m0, m1) = h[past - 1 : past + 1], m[past - 1 : past + 1]
    return float(h0 - m0 * (h1 - h0) / (m1 - m0)), float(h1 - h0)
