"""The clusters of the Wolff algorithm, for 64 lattices at once and over slabs.

A bond is named by its lower site and its axis; across a periodic boundary the lower site is the last one.  Bit b of
the word of a bond says whether it is active in lattice b.  A word of the cluster says which lattices have the site in
their cluster, a word of `fresh` which of them have not yet told its neighbours.

The three bonds of a site and its word of the cluster lie side by side in a *record*, so that one look at the memory
serves them all.  Planes are worked off one after the other, upwards and downwards until nothing waits: what is used
stays in the cache, and lattices that reach a site on different ways often wait for each other and go on together.

Shape letters: p = planes of the slab with its halo; n1, n2 = sites along axes 1 and 2.
"""

import numpy as np
from numba import njit

from hamscope.sim import rng
from hamscope.sim.bernoulli import BLOCK, OUTCOME, ROWS, SITE, UNDECIDED, decide
from hamscope.sim.vectors import wide_vectors

CLUSTER = 3
_0, _1, _2, _3, _4 = (np.uint64(k) for k in range(5))
_BLOCK = np.uint64(BLOCK)


@njit(nogil=True, cache=True)
def active_bonds(records, words, start, n0, periodic, table, active, key, item, step):
    """Write into records[..., 0:3] which bonds join equal spins and are active; bonds that leave an open end never are.

    Axis 0 has the bonds of planes 0 to p - 2, the lower halo among them, and axes 1 and 2 those of the planes of the
    slab.

    Parameters
    ----------
    records : ndarray, shape (p, n1, n2, 4), uint64
        Zeros before the first call.
    words : ndarray, shape (p, n1, n2), uint64
        The spins, with the halo exchanged.
    start, n0 : int
        Global number of the first plane of the slab, and planes of the whole lattice.
    table : ndarray, shape (1, 1 + DIGITS), uint64
        The probabilities, as `binary_digits` gives them.
    active : uint64
        The bits that have a lattice.
    """
    p, n1, n2 = words.shape
    flat, out, block = words.reshape(-1), records.reshape(-1), np.zeros(ROWS * BLOCK, np.uint64)
    line = np.empty(n2, np.uint64)
    plane, planes = n1 * n2, max(2**32 // (n1 * n2), 1)
    sites, high, shift = _0, _0, _0
    for axis in range(3):
        for i in range(0 if axis == 0 else 1, p - 1):
            z = start + i - 1
            if axis == 0 and not periodic[0] and (z < 0 or z == n0 - 1):
                continue
            # The halo below plane 0 of a periodic lattice is its last plane.
            z %= n0
            for j in range(n1):
                if axis == 1 and ((j == n1 - 1 and not periodic[1]) or n1 == 1):
                    continue
                row = (i * n1 + j) * n2
                length = n2 - 1 if axis == 2 and not periodic[2] else n2
                if axis == 2:
                    for x in range(n2 - 1):
                        line[x] = flat[row + x + 1]
                    line[n2 - 1] = flat[row]
                else:
                    above = row + plane if axis == 0 else row + n2 if j < n1 - 1 else row + n2 - plane
                    for x in range(n2):
                        line[x] = flat[above + x]
                x = 0
                while x < length:
                    upper = np.uint64(3 * (z // planes) + axis)
                    first = np.uint64(z % planes * plane + j * n2)
                    if sites > _0 and (sites == _BLOCK or upper != high or np.uint64(row) - first != shift):
                        _keep(out, block, sites, shift, table, key, item, step, high)
                        sites = _0
                    high, shift = upper, np.uint64(row) - first
                    count = min(np.uint64(length - x), _BLOCK - sites)
                    _offer(block, sites, flat, line, np.uint64(row), np.uint64(x), count, first, table, active)
                    sites += count
                    x += np.int64(count)
        if sites > _0:
            _keep(out, block, sites, shift, table, key, item, step, high)
            sites = _0


@njit(nogil=True, cache=True)
def _offer(block, sites, flat, line, row, x, count, first, table, active):
    """Append `count` bonds of a row to the block, undecided where they join equal spins."""
    wide_vectors()
    sure = table[0, 0]
    for k in range(count):
        equal = active & ~(flat[row + x + k] ^ line[x + k])
        n = sites + k
        block[UNDECIDED + n], block[OUTCOME + n] = equal & ~sure, equal & sure
        block[SITE + n] = first + x + k


@njit(nogil=True, cache=True)
def _keep(out, block, sites, shift, table, key, item, step, high):
    """Decide the bonds of the block, and write them into the records."""
    decide(block, sites, table, key, item, step, high)
    axis = high % np.uint64(3)
    for k in range(sites):
        out[np.uint64(4) * (block[SITE + k] + shift) + axis] = block[OUTCOME + k]


@njit(nogil=True, cache=True)
def plant_seeds(records, fresh, queue, waiting, start, n_sites, n_lattices, key, item, step):
    """Empty the clusters, and put one random site of every lattice into its cluster, where it lies on the slab."""
    p, n1, n2 = fresh.shape
    plane = np.uint64(n1 * n2)
    records[..., CLUSTER] = 0
    for bit in range(n_lattices):
        site = np.int64(rng.uniform(key, item, step, bit) * n_sites)
        i = site // (n1 * n2) - start + 1
        if 1 <= i <= p - 2:
            _join(
                records.reshape(-1), fresh.reshape(-1), queue.reshape(-1), waiting, np.uint64(i), plane,
                np.uint64(site % (n1 * n2)), np.uint64(1) << np.uint64(bit),
            )  # fmt: skip


@njit(forceinline=True)
def _join(records, fresh, queue, waiting, i, plane, site, lattices):
    """Put a site of plane i into the cluster of `lattices`, and into the queue of its plane unless it is there.

    The arrays are flat and the indices unsigned: so a step costs a fifth of what four-dimensional indices cost.
    """
    at = i * plane + site
    new = lattices & ~records[_4 * at + _3]
    if new != _0:
        records[_4 * at + _3] |= new
        old = fresh[at]
        fresh[at] = old | new
        if old == _0:
            queue[i * plane + waiting[i]] = np.uint32(site)
            waiting[i] += _1


@njit(nogil=True, cache=True)
def grow(records, fresh, queue, waiting):
    """Follow the active bonds from the sites that wait to everything they reach on the slab; return the sites seen.

    Parameters
    ----------
    fresh : ndarray, shape (p, n1, n2), uint64
    queue : ndarray, shape (p, n1 n2), uint32, with `waiting`, shape (p,), uint64
        The sites of every plane that wait.  No site waits twice, so the queue never overflows.
    """
    # Arrays that come as arguments are not counted as references at every step.
    return _grow(
        records.reshape(-1), fresh.reshape(-1), queue.reshape(-1), waiting, np.uint64(fresh.shape[0]),
        np.uint64(fresh.shape[1]), np.uint64(fresh.shape[2]),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _grow(rec, new_of, line, waiting, p, n1, n2):
    plane, upwards, seen, busy = n1 * n2, True, 0, True
    while busy:
        busy = False
        for q in range(p - _2):
            i = _1 + q if upwards else p - _2 - q
            base = i * plane
            while waiting[i] > _0:
                busy = True
                seen += 1
                waiting[i] -= _1
                site = np.uint64(line[base + waiting[i]])
                x = np.uint64(np.uint32(site) % np.uint32(n2))
                at = base + site
                new = new_of[at]
                new_of[at] = _0
                up, down = at + plane, at - plane
                back = base + (site - n2 if site >= n2 else site + plane - n2)
                front = base + (site + n2 if site < plane - n2 else x)
                left = at - _1 if x > _0 else at + n2 - _1
                right = at + _1 if x < n2 - _1 else at - x
                # All six looks at the memory before the first decision: they wait for it together.  The bond of an
                # open end to the other end is never active, nor are those along an axis of one site.
                to_down = new & rec[_4 * down] & ~rec[_4 * down + _3]
                to_up = new & rec[_4 * at] & ~rec[_4 * up + _3]
                to_back = new & rec[_4 * back + _1] & ~rec[_4 * back + _3]
                to_front = new & rec[_4 * at + _1] & ~rec[_4 * front + _3]
                to_left = new & rec[_4 * left + _2] & ~rec[_4 * left + _3]
                to_right = new & rec[_4 * at + _2] & ~rec[_4 * right + _3]
                if to_down != _0 and i > _1:
                    _join(rec, new_of, line, waiting, i - _1, plane, site, to_down)
                if to_up != _0 and i < p - _2:
                    _join(rec, new_of, line, waiting, i + _1, plane, site, to_up)
                if to_back != _0:
                    _join(rec, new_of, line, waiting, i, plane, back - base, to_back)
                if to_front != _0:
                    _join(rec, new_of, line, waiting, i, plane, front - base, to_front)
                if to_left != _0:
                    _join(rec, new_of, line, waiting, i, plane, left - base, to_left)
                if to_right != _0:
                    _join(rec, new_of, line, waiting, i, plane, right - base, to_right)
        upwards = not upwards
    return seen


@njit(nogil=True, cache=True)
def enter_from_halo(edges, records, fresh, queue, waiting):
    """Carry the clusters of the neighbouring slabs over the bonds to this one; return whether a site waits.

    edges : ndarray, shape (4, n1, n2): the cluster in the halo below, in the outer planes of the slab, in that above.
    """
    plane, top = np.uint64(fresh.shape[1] * fresh.shape[2]), np.uint64(fresh.shape[0] - 2)
    _enter(edges.reshape(-1), records.reshape(-1), fresh.reshape(-1), queue.reshape(-1), waiting, plane, top)
    return waiting[1] + waiting[top] > _0


@njit(nogil=True, cache=True)
def _enter(edge, rec, new_of, line, waiting, plane, top):
    for site in range(plane):
        _join(rec, new_of, line, waiting, _1, plane, site, edge[site] & rec[_4 * site])
        above = edge[_3 * plane + site] & rec[_4 * (top * plane + site)]
        _join(rec, new_of, line, waiting, top, plane, site, above)


@njit(nogil=True, cache=True)
def flip(words, records, accepted):
    """Flip the clusters of the `accepted` lattices on the planes of the slab."""
    for i in range(1, words.shape[0] - 1):
        for j in range(words.shape[1]):
            for x in range(words.shape[2]):
                words[i, j, x] ^= records[i, j, x, CLUSTER] & accepted


@njit(nogil=True, cache=True)
def cluster_magnetizations(words, records):
    """Sum of the spins of the cluster of every lattice on this slab, shape (64,), int64."""
    totals = np.zeros(64, np.int64)
    for i in range(1, words.shape[0] - 1):
        for j in range(words.shape[1]):
            for x in range(words.shape[2]):
                cluster = records[i, j, x, CLUSTER]
                if cluster != 0:
                    for bit in range(64):
                        member = np.int64(cluster >> np.uint64(bit) & np.uint64(1))
                        totals[bit] += member * (2 * np.int64(words[i, j, x] >> np.uint64(bit) & np.uint64(1)) - 1)
    return totals
