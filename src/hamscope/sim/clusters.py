"""The clusters of the Wolff algorithm, for 64 lattices at once and over slabs.

A bond is named by its lower site and its axis; across a periodic boundary the lower site is the last one.  Bit b of
the word of a bond says whether it is active in lattice b.  A word of `cluster` says which lattices have the site in
their cluster, a word of `fresh` which of them have not yet told its neighbours.

Shape letters: p = planes of the slab with its halo; n1, n2 = sites along axes 1 and 2.
"""

import numpy as np
from numba import njit

from hamscope.sim import rng
from hamscope.sim.bernoulli import CHUNK, bernoulli


@njit(cache=True)
def active_bonds(words, start, n0, periodic, table, active, key, item, step):
    """Which bonds join equal spins and are active, shape (3, p, n1, n2), uint64.

    Axis 0 has the bonds of planes 0 to p - 2, the lower halo among them, and axes 1 and 2 those of the planes of the
    slab.  The other words, and those of bonds that would leave an open end, are 0.

    Parameters
    ----------
    words : ndarray, shape (p, n1, n2), uint64
        The spins, with the halo exchanged.
    start, n0 : int
        Global number of the first plane of the slab, and planes of the whole lattice.
    table : ndarray, shape (1 + DIGITS,), uint64
        The probabilities, as `binary_digits` gives them.
    active : uint64
        The bits that have a lattice.
    """
    p, n1, n2 = words.shape
    bonds = np.zeros((3, p, n1, n2), np.uint64)
    tables = np.zeros((3, table.shape[0]), np.uint64)
    tables[0] = table
    scratch = np.zeros((5, CHUNK), np.uint64)
    for axis in range(3):
        for i in range(0 if axis == 0 else 1, p - 1):
            z = start + i - 1
            if axis == 0 and not periodic[0] and (z < 0 or z == n0 - 1):
                continue
            for j in range(n1):
                if axis == 1 and not periodic[1] and j == n1 - 1:
                    continue
                row = words[i, j]
                above = words[i + 1, j] if axis == 0 else words[i, (j + 1) % n1] if axis == 1 else row
                last = n2 - 1 if axis == 2 and not periodic[2] else n2
                # The halo below plane 0 of a periodic lattice is its last plane.
                first = np.uint64((z % n0 * n1 + j) * n2)
                for x in range(0, last, CHUNK):
                    count = min(CHUNK, last - x)
                    for k in range(count):
                        other = above[(x + k + 1) % n2] if axis == 2 else above[x + k]
                        scratch[1, k] = active & ~(row[x + k] ^ other)
                        scratch[2, k] = scratch[1, k]
                    scratch[0] = 0
                    scratch[1, count:] = 0
                    counter = np.uint64(3) * (first + np.uint64(x)) + np.uint64(axis)
                    bernoulli(scratch, tables, key, item, step, counter, np.uint64(3))
                    bonds[axis, i, j, x : x + count] = scratch[0, :count]
    return bonds


@njit(cache=True)
def plant_seeds(cluster, fresh, queue, start, n_sites, n_lattices, key, item, step):
    """Put one random site of every lattice into its cluster, where it lies on the slab; return the sites queued."""
    p, n1, n2 = cluster.shape
    waiting = 0
    for bit in range(n_lattices):
        site = np.int64(rng.uniform(key, item, step, bit) * n_sites)
        i, j, x = site // (n1 * n2) - start + 1, site // n2 % n1, site % n2
        if 1 <= i <= p - 2:
            waiting = _join(cluster, fresh, queue, 0, waiting, i, j, x, np.uint64(1) << np.uint64(bit))
    return waiting


@njit(inline="always")
def _join(cluster, fresh, queue, head, waiting, i, j, x, lattices):
    """Put a site into the cluster of `lattices`, and into the queue unless it is there; return the sites queued."""
    new = lattices & ~cluster[i, j, x]
    if new != 0:
        cluster[i, j, x] |= new
        if fresh[i, j, x] == 0:
            # A ring: no site is queued twice, so it never overflows.
            queue[(head + waiting) % queue.shape[0]] = (i * cluster.shape[1] + j) * cluster.shape[2] + x
            waiting += 1
        fresh[i, j, x] |= new
    return waiting


@njit(cache=True)
def grow(cluster, fresh, queue, waiting, bonds):
    """Follow the active bonds from the first `waiting` sites of the queue to everything they reach on the slab."""
    p, n1, n2 = cluster.shape
    head = 0
    while waiting > 0:
        site = queue[head]
        head = head + 1 if head + 1 < queue.shape[0] else 0
        waiting -= 1
        i, j, x = site // (n1 * n2), site // n2 % n1, site % n2
        new = fresh[i, j, x]
        fresh[i, j, x] = 0
        back, front = j - 1 if j > 0 else n1 - 1, j + 1 if j < n1 - 1 else 0
        left, right = x - 1 if x > 0 else n2 - 1, x + 1 if x < n2 - 1 else 0
        if i > 1:
            waiting = _join(cluster, fresh, queue, head, waiting, i - 1, j, x, new & bonds[0, i - 1, j, x])
        if i < p - 2:
            waiting = _join(cluster, fresh, queue, head, waiting, i + 1, j, x, new & bonds[0, i, j, x])
        # The bond of an open end to the other end is never active.
        if n1 > 1:
            waiting = _join(cluster, fresh, queue, head, waiting, i, back, x, new & bonds[1, i, back, x])
            waiting = _join(cluster, fresh, queue, head, waiting, i, front, x, new & bonds[1, i, j, x])
        waiting = _join(cluster, fresh, queue, head, waiting, i, j, left, new & bonds[2, i, j, left])
        waiting = _join(cluster, fresh, queue, head, waiting, i, j, right, new & bonds[2, i, j, x])


@njit(cache=True)
def enter_from_halo(cluster, fresh, queue, bonds):
    """Carry the clusters of the neighbouring slabs over the bonds to this one; return the sites queued, from 0 on."""
    p, n1, n2 = cluster.shape
    waiting = 0
    for j in range(n1):
        for x in range(n2):
            waiting = _join(cluster, fresh, queue, 0, waiting, 1, j, x, cluster[0, j, x] & bonds[0, 0, j, x])
            above = cluster[p - 1, j, x] & bonds[0, p - 2, j, x]
            waiting = _join(cluster, fresh, queue, 0, waiting, p - 2, j, x, above)
    return waiting
