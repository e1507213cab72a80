"""Uncorrelated site percolation: every site is up with probability p, whatever the others are.

Near p_c = 0.592746 (square lattice) and 0.311608 (simple cubic) clusters of up sites span the lattice.
"""

import numpy as np
from numba import njit

from hamscope.sim import rng
from hamscope.sim.lattice import Lattice


def sites(lattice: Lattice, p: float, key, item: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Planes start..stop of a lattice, shape (stop - start, n1, n2), uint8, 1 = up; keyed by the global site."""
    stop = lattice.shape[0] if stop is None else stop
    spins = np.empty((stop - start, *lattice.shape[1:]), np.uint8)
    _toss(spins.reshape(-1), p, key, item, start * lattice.shape[1] * lattice.shape[2])
    return spins


@njit(cache=True)
def _toss(spins, p, key, item, first):
    for k in range(spins.shape[0]):
        spins[k] = rng.uniform(key, item, 0, first + k) < p
