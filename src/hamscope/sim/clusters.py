"""The clusters of the Wolff algorithm, for 64 lattices and over slabs.

A bond is named by its lower site and its axis; across a periodic boundary the lower site is the last one.  The bonds
of all lattices are drawn at once, bit b of a word for lattice b.  Then they become bitmaps of one lattice each
(`sim.bitmaps`), and the clusters grow lattice by lattice: one operation carries a cluster over up to 64 bonds, and
what one lattice needs stays in the cache.

A word of a row is filled along its bonds, and what is new in it goes on to the words beside, before, behind, below
and above it.  A word of `fresh` has the sites of the cluster that have not yet told their neighbours.  Planes are
worked off one after the other, upwards and downwards until nothing waits.

Shape letters: p = planes of the slab with its halo; n1, n2 = sites along axes 1 and 2; N = lattices; W = words of a
row; R = n1 W, words of a plane of a bitmap; S = words of a bitmap, p R and a few more.
"""

import numpy as np
from numba import njit

from hamscope.sim import rng
from hamscope.sim.bernoulli import BLOCK, OUTCOME, ROWS, SITE, UNDECIDED, decide
from hamscope.sim.bitmaps import BITS, row_words
from hamscope.sim.vectors import wide_vectors

# The bitmaps of a lattice: bonds along the three axes, and the cluster.
CLUSTER = 3
_0, _1, _2, _3, _64 = (np.uint64(k) for k in (0, 1, 2, 3, BITS))
_BLOCK = np.uint64(BLOCK)


@njit(nogil=True, cache=True)
def active_bonds(bonds, words, axis, start, n0, periodic, table, active, key, item, step):
    """Write into `bonds` which bonds along an axis join equal spins and are active; none leaves an open end.

    Axis 0 has the bonds of planes 0 to p - 2, the lower halo among them, and axes 1 and 2 those of the planes of the
    slab; the rest is 0.

    Parameters
    ----------
    bonds : ndarray, shape (p, n1, n2), uint64
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
    flat, out, block = words.reshape(-1), bonds.reshape(-1), np.zeros(ROWS * BLOCK, np.uint64)
    line = np.empty(n2, np.uint64)
    plane, planes = n1 * n2, max(2**32 // (n1 * n2), 1)
    sites, high, shift = _0, _0, _0
    bonds[:] = _0
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
    """Decide the bonds of the block, and write them where they belong."""
    decide(block, sites, table, key, item, step, high)
    for k in range(sites):
        out[block[SITE + k] + shift] = block[OUTCOME + k]


@njit(nogil=True, cache=True)
def grow_from_seeds(maps, fresh, queue, waiting, shape, start, n_sites, key, item, step):
    """Empty the clusters, and grow that of one random site in every lattice, as far as it lies on the slab.

    Parameters
    ----------
    maps : ndarray, shape (4, N, S), uint64
        Bonds along the three axes, and the clusters.
    fresh : ndarray, shape (p R,), uint64
        Zeros before and after.
    queue : ndarray, shape (p (R + 1),), uint32, with `waiting`, shape (p,), uint64
        The words of every plane that wait.  No word waits twice, so the queue never overflows.
    shape : tuple of int
        (p, n1, n2)
    start, n_sites : int
        Global number of the first plane of the slab, and sites of the whole lattice.
    """
    p, n1, n2 = shape
    row = row_words(n2)
    plane = np.uint64(n1 * row)
    for b in range(maps.shape[1]):
        cluster = maps[CLUSTER, b]
        cluster[:] = _0
        site = np.int64(rng.uniform(key, item, step, b) * n_sites)
        i, at = site // (n1 * n2) - start + 1, site % (n1 * n2)
        if 1 <= i <= p - 2:
            word, bit = np.uint64(at // n2 * row + at % n2 // BITS), np.uint64(at % n2 % BITS)
            _join(cluster, fresh, queue, waiting, np.uint64(i), plane, word, _1 << bit)
            _grow(maps, b, fresh, queue, waiting, p, n1, n2)


@njit(nogil=True, cache=True)
def grow_from_halo(edges, maps, fresh, queue, waiting, shape):
    """Carry the clusters of the neighbouring slabs over the bonds to this one, and grow them; return whether any did.

    edges : ndarray, shape (4, N, R), uint64: the clusters in the halo below, the outer planes of the slab, that above.
    """
    p, n1, n2 = shape
    plane, top = np.uint64(n1 * row_words(n2)), np.uint64(p - 2)
    entered = False
    for b in range(maps.shape[1]):
        cluster, bonds, below, above = maps[CLUSTER, b], maps[0, b], edges[0, b], edges[3, b]
        for at in range(plane):
            _join(cluster, fresh, queue, waiting, _1, plane, at, below[at] & bonds[at])
            _join(cluster, fresh, queue, waiting, top, plane, at, above[at] & bonds[top * plane + at])
        if waiting[1] + waiting[top] > _0:
            entered = True
            _grow(maps, b, fresh, queue, waiting, p, n1, n2)
    return entered


@njit(forceinline=True)
def _join(cluster, fresh, queue, waiting, i, plane, word, sites):
    """Put `sites` of a word of plane i into the cluster, and the word into the queue of its plane unless it is there.

    Nobody can foresee whether anything is new, and a wrong guess of the processor costs more than this step: so it is
    always made, and a word that must not wait is written where the next one will be.  The arrays are flat and the
    indices unsigned: so a step costs a fifth of what more dimensions cost.
    """
    at = i * plane + word
    old, new = fresh[at], sites & ~cluster[at]
    cluster[at] |= new
    fresh[at] = old | new
    queue[i * (plane + _1) + waiting[i]] = np.uint32(word)
    waiting[i] += np.uint64((new != _0) & (old == _0))


@njit(forceinline=True)
def _fill(seeds, bonds):
    """All sites of a word that the bonds connect to `seeds`; bit x of `bonds` joins sites x and x + 1.

    Upwards, added seeds are carried along the runs of bonds, as through a string of ones.  Downwards, a site asks for
    the sites 1, 2, 4 .. bonds above it; long runs are rare.
    """
    filled = ((seeds & bonds) + bonds) ^ bonds | seeds
    filled |= bonds & filled >> _1
    bonds &= bonds >> _1
    filled |= bonds & filled >> _2
    bonds &= bonds >> _2
    filled |= bonds & filled >> np.uint64(4)
    bonds &= bonds >> np.uint64(4)
    if bonds != _0:
        filled |= bonds & filled >> np.uint64(8)
        bonds &= bonds >> np.uint64(8)
        filled |= bonds & filled >> np.uint64(16)
        bonds &= bonds >> np.uint64(16)
        filled |= bonds & filled >> np.uint64(32)
    return filled


@njit(nogil=True, cache=True)
def _grow(maps, b, fresh, queue, waiting, p, n1, n2):
    """Follow the active bonds of lattice b from the words that wait to everything they reach on the slab."""
    _follow(
        maps[0, b], maps[1, b], maps[2, b], maps[CLUSTER, b], fresh, queue, waiting, np.uint64(p), np.uint64(n1),
        np.uint64(n2),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _follow(bonds_0, bonds_1, bonds_2, cluster, fresh, queue, waiting, p, n1, n2):
    row = (n2 + _64 - _1) // _64
    # Numbers of the last bit of a word, and of the last word of a row.
    full, end = _64 - _1, (n2 - _1) % _64
    plane, upwards, busy = n1 * row, True, True
    while busy:
        busy = False
        for q in range(p - _2):
            i = _1 + q if upwards else p - _2 - q
            base = i * plane
            while waiting[i] > _0:
                busy = True
                waiting[i] -= _1
                word = np.uint64(queue[base + i + waiting[i]])
                x = np.uint64(np.uint32(word) % np.uint32(row))
                at = base + word
                back = word - row if word >= row else word + plane - row
                front = word + row if word < plane - row else x
                left = word - _1 if x > _0 else word + row - _1
                right = word + _1 if x < row - _1 else word - x
                last, last_left = full if x < row - _1 else end, full if x > _0 else end
                bonds = bonds_2[at]
                # The bond of the last site leads out of the word.
                new = _fill(fresh[at], bonds & ~(_1 << last))
                fresh[at] = _0
                cluster[at] |= new
                # The halo joins nothing.  The bond of an open end to the other end is never active, nor are those
                # along an axis of one site.
                down = bonds_0[at - plane] if i > _1 else _0
                up = bonds_0[at] if i < p - _2 else _0
                _join(cluster, fresh, queue, waiting, i - _1, plane, word, new & down)
                _join(cluster, fresh, queue, waiting, i + _1, plane, word, new & up)
                _join(cluster, fresh, queue, waiting, i, plane, back, new & bonds_1[base + back])
                _join(cluster, fresh, queue, waiting, i, plane, front, new & bonds_1[at])
                _join(cluster, fresh, queue, waiting, i, plane, left, (new & _1) << last_left & bonds_2[base + left])
                _join(cluster, fresh, queue, waiting, i, plane, right, (new & bonds) >> last)
        upwards = not upwards


@njit(nogil=True, cache=True)
def flip(words, clusters, accepted):
    """Flip the clusters of the `accepted` lattices on the planes of the slab; both arrays of shape (p, n1, n2)."""
    for i in range(1, words.shape[0] - 1):
        for j in range(words.shape[1]):
            for x in range(words.shape[2]):
                words[i, j, x] ^= clusters[i, j, x] & accepted


@njit(nogil=True, cache=True)
def cluster_magnetizations(words, clusters):
    """Sum of the spins of the cluster of every lattice on this slab, shape (64,), int64."""
    totals = np.zeros(64, np.int64)
    for i in range(1, words.shape[0] - 1):
        for j in range(words.shape[1]):
            for x in range(words.shape[2]):
                cluster = clusters[i, j, x]
                if cluster != 0:
                    for bit in range(64):
                        member = np.int64(cluster >> np.uint64(bit) & np.uint64(1))
                        totals[bit] += member * (2 * np.int64(words[i, j, x] >> np.uint64(bit) & np.uint64(1)) - 1)
    return totals
