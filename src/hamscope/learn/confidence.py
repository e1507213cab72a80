"""The confidence of a verdict: is an output of the network near what training images of that class gave?

Section III C of [1]_ takes the outputs of the last layer (logits) over the training images of each class, a cloud of
points, and the standard deviations of the cloud about its centre, one a coordinate.  An output is suspicious if it is
"more than one standard deviation vector from all points in the cluster".

The text leaves open when one vector is further away than another.  With d_j = (x_j - y_j) / sigma_j, the difference to
a training point in units of the sigmas of its class, there are two readings:

    componentwise    max_j |d_j| <= 1            within one standard deviation in every coordinate,
    euclidean        sqrt(sum_j d_j^2) <= 1      within one unit of length.

The second is the stricter: whatever it accepts, the first accepts too.  Neither depends on the units of a coordinate.

Shape letters: K = classes, which is also the number of coordinates; n = points of one cloud; W = windows.

References
----------
.. [1] Basak et al. (2022), doi:10.48550/arXiv.2211.01490.
"""

from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from hamscope.errors import ContractError
from hamscope.stages import stage

NORMS = {"componentwise": np.inf, "euclidean": 2}
ROUNDING = 1e-6  # relative; float32 carries about seven digits, so a smaller spread is none


class Clouds:
    """The training logits of every class, and how far an output is from them.

    Parameters
    ----------
    points : list of K arrays, shape (n_k, K)
        Logits of the training images of each class.  A class without training images has n_k = 0: everything is
        infinitely far from it.

    Attributes
    ----------
    points : list of K ndarrays, shape (n_k, K), float32
    sigma : ndarray, shape (K, K), float64
        Row k: the standard deviation of each coordinate of cloud k about its centre of mass.  A coordinate that does
        not vary gets the rounding error of the cloud's logits instead of 0, so that points like the training points
        stay near and all others are far.  1 for an empty cloud.

    Raises
    ------
    ContractError
        Points of another shape, or not finite.
    """

    def __init__(self, points: list[np.ndarray]):
        self.points = [np.asarray(cloud, np.float32) for cloud in points]
        for k, cloud in enumerate(self.points):
            if cloud.ndim != 2 or cloud.shape[1] != len(points):
                raise ContractError(
                    f"cloud of class {k}: shape {cloud.shape} where (n, {len(points)}) is needed; train again"
                )
            if not np.isfinite(cloud).all():
                raise ContractError(f"cloud of class {k}: its logits are not all finite; train again")
        self.sigma = np.stack([_spread(cloud) for cloud in self.points])

    @cached_property
    def _trees(self) -> list[cKDTree]:
        """The points of each class in units of its sigma; one tree serves both readings."""
        # In seven dimensions leaves of 32 points are a fifth faster than scipy's 16.
        return [cKDTree(cloud / sigma, leafsize=32) for cloud, sigma in zip(self.points, self.sigma)]

    @stage("distances")
    def distance(self, logits: np.ndarray, reading: str = "euclidean", workers: int = 1) -> np.ndarray:
        """Distance of every output to the nearest point of every cloud, in units of the sigma of that cloud.

        Parameters
        ----------
        logits : ndarray, shape (W, K)
        reading : {"euclidean", "componentwise"}
            Length, or largest component, of the difference.
        workers : int
            Threads; -1 takes all cores.

        Returns
        -------
        ndarray, shape (W, K), float32
        """
        logits, norm = np.asarray(logits, np.float64), _norm(reading)
        found = [tree.query(logits / sigma, p=norm, workers=workers)[0] for tree, sigma in zip(self._trees, self.sigma)]
        return np.stack(found, axis=1).astype(np.float32)

    @stage("distances")
    def confident(self, logits: np.ndarray, classes: np.ndarray, reading: str, workers: int = 1) -> np.ndarray:
        """Which outputs lie within one unit of the cloud of the class that they were given; bool (W,).

        Parameters
        ----------
        logits : ndarray, shape (W, K)
        classes : ndarray, shape (W,), int
            The class that was read off each output.
        reading : {"componentwise", "euclidean"}
        workers : int
            Threads; -1 takes all cores.
        """
        logits, norm = np.asarray(logits, np.float64), _norm(reading)
        flags = np.zeros(len(logits), bool)
        # The bound makes far outputs, the slow ones, as fast as near ones; it is exclusive and one unit is still near.
        bound = np.nextafter(1.0, 2.0)
        for k, (tree, sigma) in enumerate(zip(self._trees, self.sigma)):
            own = np.asarray(classes) == k
            nearest, _ = tree.query(logits[own] / sigma, p=norm, distance_upper_bound=bound, workers=workers)
            flags[own] = np.isfinite(nearest)
        return flags


def _spread(cloud: np.ndarray) -> np.ndarray:
    """Row k of `Clouds.sigma`."""
    if not len(cloud):
        return np.ones(cloud.shape[1])
    smallest = ROUNDING * (np.abs(cloud).max() or 1.0)
    return np.maximum(cloud.std(0, dtype=np.float64), smallest)


def _norm(reading: str) -> float:
    if reading not in NORMS:
        raise ValueError(f"reading {reading!r}: write {' or '.join(NORMS)}")
    return NORMS[reading]
