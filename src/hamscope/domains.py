"""Domains of a two-level frame as the field counts them: clusters, their sizes and outlines, spanning [1]_ [2]_.

A cluster is a set of pixels of one phase that are joined by one of four neighbours.  Of each,

    s      pixels
    R      radius of gyration, R^2 = mean of |x - mean x|^2 over its pixels
    h      hull: sides of its pixels that face the outside, where the outside passes between diagonal neighbours
    p      accessible perimeter [3]_: likewise, where it does not, so that narrow fjords are closed
    a      filled area: s and the holes, which are what the outside of the hull does not reach

    n(s) ~ s^-tau,      s ~ R^d_v,      h ~ R^d_h,      p ~ R^d_p.

The border.  A cluster that touches the border of the frame, or a masked pixel, goes on where nobody looks: neither its
size nor its outline is known.  It is flagged and counts for spanning and for the largest cluster, but in no
distribution.  Large clusters touch more often, so leaving them out would make tau too large.  A cluster with a
bounding box of a x b pixels fits without touching into (H - 1 - a)(W - 1 - b) places of a frame of H x W, so

    n(s) = sum over the clusters of size s that do not touch of 1 / (number of places)

is the number per pixel of an endless sample, whatever the size of the frame (the estimator of Horvitz and Thompson
[4]_).  With a mask, a cluster is left out when its box touches, and the places are counted one by one.

Shape letters: H, W = sides of the frame; n = clusters.

References
----------
.. [1] Phillabaum, Carlson and Dahmen, Nat. Commun. 3, 915 (2012), doi:10.1038/ncomms1920.
.. [2] Liu et al., Phys. Rev. Lett. 116, 036401 (2016), doi:10.1103/PhysRevLett.116.036401.
.. [3] Grossman and Aharony, J. Phys. A 20, L1193 (1987), doi:10.1088/0305-4470/20/17/011.
.. [4] Horvitz and Thompson, J. Am. Stat. Assoc. 47, 663 (1952), doi:10.1080/01621459.1952.10483446.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy import ndimage

from hamscope.observables import label_clusters, size_centres, size_counts
from hamscope.power_laws import Binned, Exponent, binned, scaling_exponent, size_exponent

PHASES = ("up", "down")
LEAST_OUTLINE, FULL_RADIUS = 8, 2.0  # pixels: smaller clusters have no outline measured, and none has a larger R
LEAST_SIZE = 32  # pixels; the sizes of smaller clusters show the lattice
LEAST_RADIUS = 3.0  # pixels; likewise
LARGEST_RADIUS = 1 / 12  # of the side of the sample
_FOUR, _EIGHT = ndimage.generate_binary_structure(2, 1), ndimage.generate_binary_structure(2, 2)


class Clusters(NamedTuple):
    """The clusters of one phase, all arrays (n,), in the order of their first pixel.

    `size` and filled `area` in pixels, `radius` in pixels, `hull` and `perimeter` in sides of pixels, `touches` bool.
    `area`, `hull` and `perimeter` are NaN for clusters that touch and for those of fewer than 8 pixels.  `density` is
    the number of such clusters per pixel of the sample that each stands for, 0 where it touches.  `pixels` is the
    number of pixels of the sample, `side` the root of that of the smallest frame.
    """

    size: np.ndarray
    radius: np.ndarray
    touches: np.ndarray
    density: np.ndarray
    area: np.ndarray
    hull: np.ndarray
    perimeter: np.ndarray
    pixels: int
    side: float


class Sizes(NamedTuple):
    """n(s) in bins of a factor of two, all (B,): the place of each bin, clusters per pixel and size, error, count."""

    size: np.ndarray
    density: np.ndarray
    error: np.ndarray
    count: np.ndarray


class Spanning(NamedTuple):
    """Whether one cluster reaches from the first row to the last, and from the first column to the last.

    Rows and columns that are masked altogether do not count.
    """

    rows: bool
    columns: bool

    @property
    def either(self) -> bool:
        """In one of the two directions at least."""
        return self.rows or self.columns


class Phase(NamedTuple):
    """What is found of one phase.

    `largest` is the share of the sample that its largest cluster has; `volume`, `hull` and `perimeter` are d_v, d_h and
    d_p.  The scaling plots are those of all clusters that do not touch, whatever the range of the fit.
    """

    clusters: Clusters
    sizes: Sizes
    spanning: Spanning
    largest: float
    tau: Exponent
    volume: Exponent
    hull: Exponent
    perimeter: Exponent
    volume_points: Binned
    hull_points: Binned
    perimeter_points: Binned


def domain_statistics(image: np.ndarray, mask: np.ndarray | None = None) -> dict[str, Phase]:
    """The domains of both phases, {"up": Phase, "down": Phase}, of a two-level frame (H, W), 1 = up.

    `mask` (H, W) bool is True where a pixel is no part of the sample.
    """
    image = np.asarray(image) != 0
    sample = np.ones(image.shape, bool) if mask is None else ~np.asarray(mask, bool)
    return {name: phase_statistics(phase & sample, sample) for name, phase in zip(PHASES, (image, ~image))}


def phase_statistics(phase: np.ndarray, sample: np.ndarray) -> Phase:
    """One phase of a frame: where it is, and where the sample is; both (H, W) bool."""
    labels = label_clusters(phase)
    clusters = measure_clusters(labels, sample)
    largest = clusters.size.max(initial=0) / max(clusters.pixels, 1)
    return summarize(clusters, spanning(labels, sample), float(largest))


def summarize(clusters: Clusters, across: Spanning, largest: float) -> Phase:
    """The exponents of measured clusters, of one frame or pooled, within the ranges of `fit_ranges`."""
    sizes, radii = fit_ranges(clusters)
    inside = ~clusters.touches
    radius, size, weights = clusters.radius[inside], clusters.size[inside], clusters.density[inside]
    measures = [size, clusters.hull[inside], clusters.perimeter[inside]]
    exponents = [scaling_exponent(radius, values, *radii, weights) for values in measures]
    points = [binned(radius, values, weights, FULL_RADIUS, radius.max(initial=0.0)) for values in measures]
    tau = size_exponent(size, *sizes, weights)
    return Phase(clusters, size_distribution(clusters), across, largest, tau, *exponents, *points)


def pool(several: list[Clusters]) -> Clusters:
    """The clusters of several frames as those of one; `density` is then per pixel of all frames together.

    Frames of one place show many of its clusters again: their errors are too small.
    """
    pixels = sum(one.pixels for one in several)
    names = [name for name in Clusters._fields if name not in ("density", "pixels", "side")]
    joined = {name: np.concatenate([getattr(one, name) for one in several]) for name in names}
    density = np.concatenate([one.density * (one.pixels / pixels) for one in several])
    return Clusters(**joined, density=density, pixels=pixels, side=min(one.side for one in several))


def measure_clusters(labels: np.ndarray, sample: np.ndarray) -> Clusters:
    """The clusters of one phase from their numbers (H, W), 0 elsewhere, and where the sample is (H, W) bool."""
    number = labels[labels > 0] - 1
    count = int(labels.max(initial=0))
    size = np.bincount(number, minlength=count)
    radius2 = np.zeros(count)
    for place in np.nonzero(labels):
        mean = np.bincount(number, place, count) / size
        radius2 += np.bincount(number, (place - mean[number]) ** 2, count) / size
    start, stop = _boxes(labels, count)
    places = _places(start, stop, sample)
    area, hull, perimeter = np.full((3, count), np.nan)
    for k in np.flatnonzero((places > 0) & (size >= LEAST_OUTLINE)):
        box = labels[start[k, 0] : stop[k, 0], start[k, 1] : stop[k, 1]]
        area[k], hull[k], perimeter[k] = outline(box == k + 1)
    density = np.divide(1.0, places, out=np.zeros(count), where=places > 0)
    pixels = int(sample.sum())
    return Clusters(size, np.sqrt(radius2), places == 0, density, area, hull, perimeter, pixels, float(np.sqrt(pixels)))


def outline(cluster: np.ndarray) -> tuple[int, int, int]:
    """Filled area, hull and accessible perimeter of one cluster that just fits its array, bool (a, b)."""
    padded = np.zeros((cluster.shape[0] + 2, cluster.shape[1] + 2), bool)
    padded[1:-1, 1:-1] = cluster
    reached = [ndimage.label(~padded, structure)[0] == 1 for structure in (_EIGHT, _FOUR)]
    hull, perimeter = (_sides(padded, outside) for outside in reached)
    return int(np.count_nonzero(~reached[0])), hull, perimeter


@njit(cache=True)
def _sides(cluster, outside):
    """Sides of pixels of the cluster that face the outside; both (a, b) bool with a border of outside."""
    count = 0
    for i in range(1, cluster.shape[0] - 1):
        for j in range(1, cluster.shape[1] - 1):
            if cluster[i, j]:
                count += int(outside[i - 1, j]) + outside[i + 1, j] + outside[i, j - 1] + outside[i, j + 1]
    return count


@njit(cache=True)
def _boxes(labels, count):
    """First and last row and column of every cluster, the last exclusive; two arrays (n, 2)."""
    start, stop = np.full((count, 2), max(labels.shape)), np.zeros((count, 2), np.int64)
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            k = labels[i, j] - 1
            if k >= 0:
                start[k, 0], start[k, 1] = min(start[k, 0], i), min(start[k, 1], j)
                stop[k, 0], stop[k, 1] = max(stop[k, 0], i + 1), max(stop[k, 1], j + 1)
    return start, stop


def _places(start: np.ndarray, stop: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Into how many places of the sample the bounding box of each cluster fits without touching; 0 if it touches."""
    # One pixel more on every side: what a cluster must not touch.
    start, stop, shape = start - 1, stop + 1, np.array(sample.shape)
    inside = ((start >= 0) & (stop <= shape)).all(axis=1)
    if sample.all():
        return np.where(inside, (shape + 1 - (stop - start)).clip(0).prod(axis=1), 0)
    table = np.zeros(shape + 1, np.int64)
    np.cumsum(np.cumsum(~sample, axis=0), axis=1, out=table[1:, 1:])
    (top, left), (bottom, right) = start.clip(0).T, np.minimum(stop, shape).T
    inside &= table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left] == 0
    kinds, own = np.unique((stop - start)[inside], axis=0, return_inverse=True)
    found = np.zeros(len(start), np.int64)
    found[inside] = np.array([_count_places(table, a, b) for a, b in kinds], np.int64)[own.ravel()]
    return found


@njit(cache=True)
def _count_places(table, a, b):
    """Windows of a x b pixels without a masked one; `table` sums the mask over all rows above and columns before."""
    count = 0
    for i in range(table.shape[0] - a):
        for j in range(table.shape[1] - b):
            count += int(table[i + a, j + b] - table[i, j + b] - table[i + a, j] + table[i, j] == 0)
    return count


def size_distribution(clusters: Clusters) -> Sizes:
    """n(s) per pixel in bins of a factor of two, those of clusters that do not touch; empty bins are left out."""
    size, weight = clusters.size[~clusters.touches], clusters.density[~clusters.touches]
    n_bins = int(np.frexp(float(size.max(initial=1)))[1])
    width = 2.0 ** np.arange(n_bins)
    count = size_counts(size, n_bins)
    density = size_counts(size, n_bins, weight) / width
    error = np.sqrt(size_counts(size, n_bins, weight**2)) / width
    kept = count > 0
    return Sizes(size_centres(n_bins)[kept], density[kept], error[kept], count[kept])


def fit_ranges(clusters: Clusters) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of size and of radius of the exponents: from where the lattice is no longer seen to the border.

    A cluster reaches over some 3.5 R, so of those with R = 1/12 of the side of the sample half touch its border.  The
    range of R ends there, and that of s with the largest cluster of such a radius; NaN without clusters.
    """
    inside = ~clusters.touches
    radius, size = clusters.radius[inside], clusters.size[inside]
    fits = radius <= LARGEST_RADIUS * clusters.side
    if not fits.any():
        return (float(LEAST_SIZE), np.nan), (LEAST_RADIUS, np.nan)
    return (float(LEAST_SIZE), float(size[fits].max())), (LEAST_RADIUS, float(radius[fits].max()))


def spanning(labels: np.ndarray, sample: np.ndarray) -> Spanning:
    """Whether a cluster spans the sample, from the numbers of `label_clusters`."""
    if not sample.any():
        return Spanning(False, False)
    cut = labels[np.ix_(sample.any(axis=1), sample.any(axis=0))]
    ends = ((cut[0], cut[-1]), (cut[:, 0], cut[:, -1]))
    return Spanning(*(bool(np.intersect1d(one[one > 0], other).size) for one, other in ends))
