"""The random-field Ising model at zero temperature, swept adiabatically through its field.

    E(s) = - sum_<ij> s_i s_j - sum_i (H + h_i) s_i,        s_i = +1 or -1,        J = 1,

with h_i Gaussian of width R, drawn once per sample.  H rises from minus infinity with all spins down; a spin flips as
soon as that lowers the energy, and an avalanche runs its course before the field moves [1]_.  With k of its n_i
neighbours up, a spin flips at

    t_i(k) = n_i - h_i - 2 k.

The whole sweep is one array, the *flip field* F_i at which site i flips.  The state at H is the least one that is
stable there (no-passing [2]_: it does not depend on the order of the flips), hence F is the greatest solution of

    F_i = min over k of max( t_i(k), k-th smallest F of the neighbours ),        k = 0 term: t_i(0),

and every member of an avalanche has the F of its trigger, to the last bit.  The solver goes through windows of H in
ascending order.  Within a window it settles sites as Dijkstra's algorithm does, smallest F first; neighbouring slabs
exchange F and correct each other until nothing changes, and only then the next window begins.  The result is made of
comparisons alone, so neither windows nor slabs can change a bit of it.

A downward sweep is the upward sweep of -h, with -H.  Shape letters: P = planes of the slab, p = P + 2 with its halo.

References
----------
.. [1] Sethna et al., Phys. Rev. Lett. 70, 3347 (1993), doi:10.1103/PhysRevLett.70.3347.
.. [2] Middleton, Phys. Rev. Lett. 68, 670 (1992), doi:10.1103/PhysRevLett.68.670.
"""

import heapq

import numpy as np
from numba import njit

from hamscope.sim import rng
from hamscope.sim.lattice import Slab

# Width of the windows of H, in units of J: narrow enough that slabs seldom have to correct much.
_WINDOW = 0.2


def random_fields(slab: Slab, disorder: float, key, item: int) -> np.ndarray:
    """Gaussian fields h_i of width `disorder` (R/J), shape (P, n1, n2), float64, keyed by the global site."""
    fields = np.empty((slab.n_planes, *slab.lattice.shape[1:]))
    _fill_normal(fields.reshape(-1), key, item, slab.start * fields[0].size)
    return disorder * fields


def flip_fields(slab: Slab, fields: np.ndarray, up: np.ndarray | None = None, window: float = _WINDOW) -> np.ndarray:
    """The field at which every site flips in an upward sweep; collective over the slabs of the lattice.

    Parameters
    ----------
    fields : ndarray, shape (P, n1, n2), float64
        The random fields h_i in units of J.
    up : ndarray, shape (P, n1, n2), bool, optional
        The state from which the sweep starts, by default all down.  It has to be stable at some field.
    window : float
        Width of the windows of H; the result does not depend on it.

    Returns
    -------
    ndarray, shape (P, n1, n2), float64
        F in units of J; minus infinity where the site was up at the start.
    """
    neighbours = _neighbours(slab)
    base = neighbours - fields
    flips = slab.zeros(np.float64)
    flips.fill(np.inf)
    flips[1:-1] = base if up is None else np.where(up, -np.inf, base)
    # The halo stays at infinity until the first window, whose exchange then carries all of it across the cuts.
    scratch = np.empty(6)
    if up is not None:
        _correct(flips, base, slab.lattice.periodic, 0, base.shape[0], scratch)
    # No spin flips before its last neighbour would let it, nor after the field that moves it alone.
    first, last = -slab.max(float((2 * neighbours - base).max())), slab.max(float(base.max()))
    # Each window ends at the very number at which the next begins: no value can fall between two of them.
    edges = np.arange(first - window, last + 2 * window, window)
    for low, high in zip(edges, edges[1:]):
        _relax_window(slab, flips, base, low, high, scratch)
    return flips[1:-1].copy()


def _relax_window(slab: Slab, flips, base, low: float, high: float, scratch) -> None:
    """Settle every site whose F lies in (low, high], on all slabs."""
    periodic, last = slab.lattice.periodic, base.shape[0] - 1
    sites = _within(flips, low, high)
    while True:
        _settle(flips, base, periodic, sites, high, scratch)
        below, above = flips[0].copy(), flips[-1].copy()
        slab.exchange(flips)
        # Only the sites beside a halo that fell can fall, and only they need carrying on.
        planes = [plane for plane, old, halo in ((0, below, 0), (last, above, -1)) if np.any(flips[halo] < old)]
        sites = np.concatenate([sites[:0], *(_correct(flips, base, periodic, k, k + 1, scratch) for k in planes)])
        if not slab.any(sites.size > 0):
            return


def stable_states(slab: Slab, flips: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first stable state at or past each target magnetization; collective over the slabs.

    Parameters
    ----------
    flips : ndarray, shape (P, n1, n2), float64
        From `flip_fields`; the state at H is flips <= H.
    targets : ndarray, shape (n,), float64
        Magnetizations per site, -1 to 1.

    Returns
    -------
    fields, magnetizations : ndarrays, shape (<= n,), float64
        The least H of each state and the magnetization there, ascending.  Targets inside one avalanche share the
        state behind it, which is returned once.
    """
    ranked = _ordered(np.sort(flips, axis=None))
    n_sites = slab.lattice.n_sites
    # Half a spin of tolerance would be too much, none would let rounding ask for one spin more than the target.
    wanted = np.maximum(np.ceil(n_sites * (np.asarray(targets) + 1) / 2 - 1e-6), 1).astype(np.int64)
    low, high = np.full(wanted.shape, -(2**63)), np.full(wanted.shape, 2**63 - 1)
    while np.any(low < high):
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        enough = slab.sum(np.searchsorted(ranked, middle, "right")) >= wanted
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    states = np.unique(low)
    up = slab.sum(np.searchsorted(ranked, states, "right"))
    return _from_ordered(states), 2 * up / n_sites - 1


def _ordered(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats: the bits of a float, those below the sign flipped where it is negative."""
    bits = values.view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))


def _from_ordered(keys: np.ndarray) -> np.ndarray:
    return (keys ^ ((keys >> 63) & np.int64(2**63 - 1))).view(np.float64)


def _neighbours(slab: Slab) -> np.ndarray:
    """Number of neighbours of every site, shape (P, n1, n2): one less at each free surface."""
    shape = slab.lattice.shape
    counts = np.zeros((slab.n_planes, *shape[1:]), np.int64)
    for axis, (length, periodic) in enumerate(zip(shape, slab.lattice.periodic)):
        site = np.arange(length)
        along = 2 * np.ones(length, np.int64) if periodic else (site > 0).astype(int) + (site < length - 1)
        if axis == 0:
            along = along[slab.start : slab.stop]
        counts += along.reshape([-1 if k == axis else 1 for k in range(3)])
    return counts


@njit(cache=True)
def _fill_normal(values, key, item, first):
    for k in range(values.shape[0]):
        values[k] = rng.normal(key, item, 0, first + k)


@njit(inline="always")
def _neighbour(shape, periodic, i, j, x, direction):
    """Halo coordinates of one of the six neighbours; plane -1 where there is none."""
    _, n1, n2 = shape
    if direction == 0:
        return i - 1, j, x
    if direction == 1:
        return i + 1, j, x
    if direction == 2:
        return (i, j - 1, x) if j > 0 else ((i, n1 - 1, x) if periodic[1] else (-1, j, x))
    if direction == 3:
        return (i, j + 1, x) if j < n1 - 1 else ((i, 0, x) if periodic[1] else (-1, j, x))
    if direction == 4:
        return (i, j, x - 1) if x > 0 else ((i, j, n2 - 1) if periodic[2] else (-1, j, x))
    return (i, j, x + 1) if x < n2 - 1 else ((i, j, 0) if periodic[2] else (-1, j, x))


@njit(inline="always")
def _evaluate(flips, alone, periodic, i, j, x, sorted_flips):
    """min over k of max(t(k), k-th smallest F of the neighbours) with t(k) = alone - 2 k."""
    n = 0
    for direction in range(6):
        a, b, c = _neighbour(flips.shape, periodic, i, j, x, direction)
        if a < 0:
            continue
        value = flips[a, b, c]
        k = n
        while k > 0 and sorted_flips[k - 1] > value:
            sorted_flips[k] = sorted_flips[k - 1]
            k -= 1
        sorted_flips[k] = value
        n += 1
    best = alone
    for k in range(n):
        if sorted_flips[k] >= best:
            break
        best = min(best, max(alone - 2.0 * (k + 1), sorted_flips[k]))
    return best


@njit(cache=True)
def _within(flips, low, high):
    """The own sites with F in (low, high], as flat indices into the slab with its halo."""
    found = [np.int64(0) for _ in range(0)]
    p, n1, n2 = flips.shape
    for i in range(1, p - 1):
        for j in range(n1):
            for x in range(n2):
                if low < flips[i, j, x] <= high:
                    found.append(np.int64((i * n1 + j) * n2 + x))
    return np.array(found)


@njit(cache=True)
def _correct(flips, base, periodic, first, last, scratch):
    """Evaluate the sites of own planes [first, last) again; return those whose F fell, as flat indices."""
    fallen = [np.int64(0) for _ in range(0)]
    _, n1, n2 = flips.shape
    for i in range(first + 1, last + 1):
        for j in range(n1):
            for x in range(n2):
                value = _evaluate(flips, base[i - 1, j, x], periodic, i, j, x, scratch)
                if value < flips[i, j, x]:
                    flips[i, j, x] = value
                    fallen.append(np.int64((i * n1 + j) * n2 + x))
    return np.array(fallen)


@njit(cache=True)
def _settle(flips, base, periodic, sites, high, scratch):
    """Carry the F of `sites` to their neighbours, smallest first, and on from there up to `high`.

    An avalanche, whose sites share one F, runs over a stack; only its trigger goes through the heap.
    """
    p, n1, n2 = flips.shape
    heap = [(flips.flat[site], site) for site in sites if flips.flat[site] <= high]
    heapq.heapify(heap)
    avalanche = np.empty((p - 2) * n1 * n2, np.int64)
    while heap:
        value, trigger = heapq.heappop(heap)
        if value > flips.flat[trigger]:
            continue
        avalanche[0], size = trigger, 1
        while size > 0:
            size -= 1
            site = avalanche[size]
            i, j, x = site // (n1 * n2), site // n2 % n1, site % n2
            for direction in range(6):
                a, b, c = _neighbour(flips.shape, periodic, i, j, x, direction)
                if a < 1 or a > p - 2 or flips[a, b, c] <= value:
                    continue
                new = _evaluate(flips, base[a - 1, b, c], periodic, a, b, c, scratch)
                if new < flips[a, b, c]:
                    flips[a, b, c] = new
                    other = np.int64((a * n1 + b) * n2 + c)
                    if new == value:
                        avalanche[size] = other
                        size += 1
                    elif new <= high:
                        heapq.heappush(heap, (new, other))
