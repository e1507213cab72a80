"""What a field sweep tells once its flip fields F are known: stable states and the sizes of the avalanches.

Both count values of F over all slabs.  An order statistic is found digit by digit, by histograms of the bits of F:
exact, the same on any number of ranks, and without a sorted copy of the lattice.
"""

import numpy as np
from numba import njit

from hamscope.models import AVALANCHE_BINS
from hamscope.sim.lattice import Slab

# Bits of F that are told apart in one pass, from the top: 6 passes for 64 bits.
_DIGIT = 11
# Share of the sites from which on it pays to go on with a copy of those alone that have one of the digits sought.
_FEW = 1 / 8
# Sites, of the whole lattice, whose F are sorted at a time.
_CHUNK = 2**24


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
    n_sites = slab.lattice.n_sites
    fields, up = select(slab, flips, sites_up(n_sites, targets))
    return fields, 2 * up / n_sites - 1


def sites_up(n_sites: int, targets: np.ndarray) -> np.ndarray:
    """How many of `n_sites` sites are up, at least one, in a state at or past each magnetization; shape (n,), int64."""
    # Half a spin of tolerance would be too much, none would let rounding ask for one spin more than the target.
    return np.maximum(np.ceil(n_sites * (np.asarray(targets) + 1) / 2 - 1e-6), 1).astype(np.int64)


def select(slab: Slab, flips: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `ranks`-th smallest F (1 = the least) of the whole lattice, and how many F are not above each.

    Returns two arrays, shape (<= n,), float64 and int64, ascending, equal values once; collective over the slabs.
    """
    keys = np.ascontiguousarray(flips).reshape(-1).view(np.uint64)
    ranks = np.sort(ranks)
    # The digits of each value sought that are known so far, how many F are below them, and which of these a rank is in.
    prefixes, below, group = np.zeros(1, np.uint64), np.zeros(1, np.int64), np.zeros(len(ranks), np.int64)
    for shift in reversed(range(0, 64, _DIGIT)):
        counts = np.zeros((len(prefixes), 2**_DIGIT), np.int64)
        _histogram(keys, prefixes, shift, counts)
        up_to = np.cumsum(np.column_stack([below, slab.sum(counts)]), axis=1)
        digits = np.array([np.searchsorted(up_to[g, 1:], rank) for g, rank in zip(group, ranks)], np.int64)
        known = (prefixes[group] << np.uint64(_DIGIT)) | digits.astype(np.uint64)
        prefixes, first, inverse = np.unique(known, return_index=True, return_inverse=True)
        below, not_above = up_to[group[first], digits[first]], up_to[group[first], digits[first] + 1]
        group = inverse
        if np.sum(not_above - below) < _FEW * slab.lattice.n_sites:
            keys = _matching(keys, prefixes, shift)
    return _from_ordered(prefixes), not_above


def avalanche_counts(slab: Slab, flips: np.ndarray) -> np.ndarray:
    """Sizes of all avalanches of the sweep, shape (48,), int64: bin b counts those of 2**b to 2**(b + 1) - 1 sites.

    An avalanche is the set of sites that share one F, so its size is a count of equal numbers, wherever they are.  The
    ranks go through F range by range and share out each range by value, so that none holds more than a part of it.
    `flips`, shape (P, n1, n2), float64, from `flip_fields`; sites that were up at the start are in no avalanche.
    Collective over the slabs, the same on all ranks.
    """
    n_sites = slab.lattice.n_sites
    flat = np.ascontiguousarray(flips).reshape(-1)
    chunks = -(-n_sites // _CHUNK)
    edges = np.array([-np.inf, np.inf])
    if chunks > 1:
        # An avalanche larger than a chunk is an edge itself, and is never collected.
        inner, _ = select(slab, flips, np.arange(1, chunks) * n_sites // chunks)
        edges = np.concatenate([[-np.inf], inner[inner > -np.inf], [np.inf]])
    counts = np.zeros(AVALANCHE_BINS, np.int64)
    for low, high in zip(edges, edges[1:]):
        values = flat[(flat > low) & (flat < high)]
        values, sizes = slab.share_out(*np.unique(values, return_counts=True))
        counts += _by_size(_add_equal(values, sizes))
    counts = slab.sum(counts)
    at_edges = slab.sum(np.array([np.count_nonzero(flat == edge) for edge in edges[1:-1]], np.int64))
    return counts + _by_size(at_edges)


def _by_size(sizes: np.ndarray) -> np.ndarray:
    """How many of the sizes fall into each bin, shape (48,), int64; a size of 0 in none."""
    return np.bincount(np.frexp(sizes[sizes > 0])[1] - 1, minlength=AVALANCHE_BINS)


def _add_equal(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The sums of the sizes that have equal values."""
    _, group = np.unique(values, return_inverse=True)
    return np.bincount(group, weights=sizes).astype(np.int64)


_SIGN = np.uint64(1 << 63)


@njit(inline="always")
def _ordered(bits):
    """The bits of a float made to ascend with the floats: the sign inverted, and all bits of a negative one."""
    return bits ^ (np.uint64(np.int64(bits) >> 63) | _SIGN)


@njit(cache=True, nogil=True)
def _matching(keys, prefixes, shift):
    """The keys whose digits from `shift` on are one of the prefixes."""
    place = np.uint64(shift)
    found = np.empty(keys.size, np.bool_)
    for k in range(keys.size):
        key = _ordered(keys[k]) >> place
        found[k] = False
        for prefix in prefixes:
            found[k] |= key == prefix
    return keys[found]


@njit(cache=True, nogil=True)
def _histogram(keys, prefixes, shift, counts):
    """Count the digit at `shift` of those keys, bits of floats, whose digits above are one of the prefixes."""
    mask, digit, place = np.uint64(counts.shape[1] - 1), np.uint64(_DIGIT), np.uint64(shift)
    for bits in keys:
        key = _ordered(bits) >> place
        for k in range(prefixes.size):
            if key >> digit == prefixes[k]:
                counts[k, np.int64(key & mask)] += 1


def _from_ordered(keys: np.ndarray) -> np.ndarray:
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)
