"""Words of 64 lattices (bit b = lattice b, one word a site) turned into bitmaps of one lattice each, and back.

A row of n2 sites along the last axis takes W = ceil(n2 / 64) words of a bitmap: site x is bit x % 64 of word x // 64,
and the bits behind the last site are 0.  So one operation on words serves 64 neighbouring sites of one lattice, and a
lattice of a million sites has bitmaps that stay in the cache.

Words become bitmaps by transposing square blocks of 64 x 64 bits: quarters that lie opposite each other across the
diagonal change places, in the block, in its quarters, and so on down to single bits.

Shape letters: p = planes of the slab with its halo; n1, n2 = sites along axes 1 and 2; N = lattices, 1 to 64;
S = words of one bitmap, p n1 W and a few more.
"""

import numpy as np
from numba import njit

from hamscope.sim.vectors import wide_vectors

BITS = 64
_SIDE = np.uint64(8)
_LINE = 8
# Blocks that are transposed before their bitmaps are written.
_GROUP = 32


@njit(nogil=True, cache=True)
def row_words(n2: int) -> int:
    """Words W of a row of n2 sites."""
    return (n2 + BITS - 1) // BITS


def empty_bitmaps(kinds: int, n_lattices: int, shape) -> np.ndarray:
    """Bitmaps of zeros for fields of `shape` (p, n1, n2), shape (kinds, N, S), uint64.

    A bitmap takes an odd number of cache lines.  Else the same word of 64 lattices could compete for the same few
    places in the cache, and transposing, which writes them all, would be several times slower.
    """
    p, n1, n2 = shape
    lines = -(-p * n1 * row_words(n2) // _LINE) | 1
    return np.zeros((kinds, n_lattices, lines * _LINE), np.uint64)


@njit(forceinline=True)
def _swap_quarters(block, at, mask, width, distance):
    """In 64 words from `at` on, exchange the upper `width` bits of words k with the lower ones of words k + `distance`.

    `mask` has those lower bits.  Distances are 8, 16 and 32, so that whole vectors meet.
    """
    for k in range(np.uint64(0), np.uint64(64), np.uint64(2) * distance):
        for n in range(at + k, at + k + distance):
            lower, upper = block[n], block[n + distance]
            different = (lower >> width ^ upper) & mask
            block[n], block[n + distance] = lower ^ different << width, upper ^ different


@njit(nogil=True, cache=True)
def _transpose(block, at):
    """Transpose the 64 words block[0:64]; word k of the result is block[at + 8 (k % 8) + k // 8]."""
    wide_vectors()
    _0 = np.uint64(0)
    _swap_quarters(block, _0, np.uint64(0x00000000FFFFFFFF), np.uint64(32), np.uint64(32))
    _swap_quarters(block, _0, np.uint64(0x0000FFFF0000FFFF), np.uint64(16), np.uint64(16))
    _swap_quarters(block, _0, np.uint64(0x00FF00FF00FF00FF), np.uint64(8), np.uint64(8))
    # Words 4, 2 and 1 apart lie in one vector.  In this order they are 32, 16 and 8 apart.
    for k in range(_SIDE):
        for m in range(_SIDE):
            block[at + _SIDE * m + k] = block[_SIDE * k + m]
    _swap_quarters(block, at, np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(4), np.uint64(32))
    _swap_quarters(block, at, np.uint64(0x3333333333333333), np.uint64(2), np.uint64(16))
    _swap_quarters(block, at, np.uint64(0x5555555555555555), np.uint64(1), np.uint64(8))


@njit(nogil=True, cache=True)
def to_bitmaps(maps, words):
    """Write the words of a field, shape (p, n1, n2), into bitmaps, shape (N, S); all uint64."""
    n2, row, side = np.uint64(words.shape[2]), np.uint64(row_words(words.shape[2])), np.uint64(BITS)
    total = np.uint64(words.shape[0] * words.shape[1]) * row
    flat, out, block = words.reshape(-1), maps.reshape(-1), np.zeros((1 + _GROUP) * BITS, np.uint64)
    lattices, size, first = np.uint64(maps.shape[0]), np.uint64(maps.shape[1]), np.uint64(0)
    # Bitmaps are written some cache lines at a time: 64 places at once are too many for the memory to foresee.
    while first < total:
        group = min(np.uint64(_GROUP), total - first)
        for g in range(group):
            r, w = (first + g) // row, (first + g) % row
            site, count = r * n2 + side * w, min(n2 - side * w, side)
            for k in range(count):
                block[k] = flat[site + k]
            for k in range(count, side):
                block[k] = np.uint64(0)
            _transpose(block, side + side * g)
        for b in range(lattices):
            at, of = b * size + first, side + _SIDE * (b % _SIDE) + b // _SIDE
            for g in range(group):
                out[at + g] = block[of + side * g]
        first += group


@njit(nogil=True, cache=True)
def to_words(words, maps):
    """Write bitmaps, shape (N, S), into the words of the field, shape (p, n1, n2); bits without a lattice are 0."""
    n2, row, side = np.uint64(words.shape[2]), np.uint64(row_words(words.shape[2])), np.uint64(BITS)
    flat, of, block = words.reshape(-1), maps.reshape(-1), np.zeros(2 * BITS, np.uint64)
    lattices, size = np.uint64(maps.shape[0]), np.uint64(maps.shape[1])
    for r in range(np.uint64(words.shape[0] * words.shape[1])):
        for w in range(row):
            site, count, at = r * n2 + side * w, min(n2 - side * w, side), r * row + w
            for b in range(lattices):
                block[b] = of[at + b * size]
            for b in range(lattices, side):
                block[b] = np.uint64(0)
            _transpose(block, side)
            for k in range(count):
                flat[site + k] = block[side + _SIDE * (k % _SIDE) + k // _SIDE]
