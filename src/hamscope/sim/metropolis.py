"""Metropolis sweeps of 64 Ising lattices in the bits of words.

Flipping a site with n neighbours, a of them antiparallel, costs dE = 2 (n - 2 a) + 2 s H.  The counts a of all 64
lattices come from a bit-sliced adder [1]_.  A flip is accepted with probability min(1, exp(-dE/T)).

References
----------
.. [1] Jacobs and Rebbi, J. Comput. Phys. 41, 203 (1981), doi:10.1016/0021-9991(81)90089-9.
"""

import numpy as np
from numba import njit

from hamscope.sim.bernoulli import (
    BLOCK,
    CODE,
    OUTCOME,
    ROWS,
    SITE,
    UNDECIDED,
    binary_digits,
    choose,
    choose_of_16,
    decide,
)  # fmt: skip
from hamscope.sim.vectors import wide_vectors

_0, _1, _2 = (np.uint64(k) for k in range(3))
_B1, _B2, _B3 = (np.uint64(k * BLOCK) for k in (1, 2, 3))
_BLOCK = np.uint64(BLOCK)


def acceptance_tables(temperatures: np.ndarray, fields: np.ndarray | None = None) -> np.ndarray:
    """Digits of min(1, exp(-dE/T)) for n = 0..6 neighbours, uint64, as `binary_digits` gives them.

    Without a field, shape (7, 3, 1 + DIGITS): a = 0, 1, 2 antiparallel neighbours.  With a >= 3 no flip costs energy,
    for any n.  With a field H/J a lattice, shape (7, 16, 1 + DIGITS): number a + 8 for spins up, a for spins down.
    """
    n, a = np.arange(7)[:, None, None], np.arange(3 if fields is None else 16)[:, None]
    cost = 2.0 * (n - 2 * (a % 8))
    if fields is not None:
        cost = cost + np.where(a >= 8, 2.0, -2.0) * fields
    return binary_digits(np.exp(-np.maximum(cost, 0) / temperatures))


@njit(nogil=True, cache=True)
def half_sweep(words, parity, start, n0, periodic, tables, active, key, item, step):
    """Offer a flip to the sites of one colour: (local plane + i1 + i2) % 2 == parity, planes counted from 0.

    A neighbour that is missing at a free surface is replaced by the site itself: never antiparallel, and not counted
    in n.  `start` is the global number of the first plane, n0 the planes of the whole lattice.  The sites of many rows
    make a block, as long as they have equally many neighbours and the same upper counter.
    """
    p, n1, n2 = words.shape
    flat, block = words.reshape(-1), np.zeros(ROWS * BLOCK, np.uint64)
    line = np.empty(n2 + 2, np.uint64)
    plane, planes = n1 * n2, max(2**32 // (n1 * n2), 1)
    sites, neighbours, high, shift = _0, 0, _0, _0
    for i in range(1, p - 1):
        z = start + i - 1
        below = -plane if periodic[0] or z > 0 else 0
        above = plane if periodic[0] or z + 1 < n0 else 0
        for j in range(n1):
            row = i * plane + j * n2
            back = -n2 if j > 0 else plane - n2 if periodic[1] and n1 > 1 else 0
            front = n2 if j < n1 - 1 else n2 - plane if periodic[1] and n1 > 1 else 0
            _pad(line, flat, row, n2, periodic[2])
            n = (below != 0) + (above != 0) + (back != 0) + (front != 0)
            x = (i - 1 + j + parity) % 2
            while x < n2:
                left, right = periodic[2] or x > 0, periodic[2] or x < n2 - 1
                # The ends of an open row have fewer neighbours, so another table.
                inner = n2 if periodic[2] else n2 - 1
                count = (inner - x + 1) // 2 if left and right else 1
                if sites > _0 and (sites == _BLOCK or n + left + right != neighbours or np.uint64(z // planes) != high):
                    _flip(flat, block, sites, shift, tables[neighbours], key, item, step, high)
                    sites = _0
                neighbours, high = n + left + right, np.uint64(z // planes)
                first = np.uint64(z % planes * plane + j * n2)
                shift = np.uint64(row) - first
                count = min(np.uint64(count), _BLOCK - sites)
                around = (np.uint64(row + below), np.uint64(row + above), np.uint64(row + back), np.uint64(row + front))
                if tables.shape[1] == 3:
                    _count(block, sites, flat, line, around, np.uint64(x), count, first, tables[neighbours], active)
                else:
                    _count_in_field(
                        block, sites, flat, line, around, np.uint64(x), count, first, tables[neighbours], active
                    )
                sites += count
                x += 2 * np.int64(count)
    if sites > _0:
        _flip(flat, block, sites, shift, tables[neighbours], key, item, step, high)


@njit(inline="always")
def _pad(line, flat, row, n2, periodic):
    """Copy a row between its two outer neighbours, or itself at open ends."""
    for x in range(n2):
        line[x + 1] = flat[row + x]
    line[0] = flat[row + n2 - 1] if periodic else line[1]
    line[n2 + 1] = flat[row] if periodic else line[n2]


@njit(nogil=True, cache=True)
def _flip(flat, block, sites, shift, table, key, item, step, high):
    """Decide the sites of the block and flip those that are accepted."""
    decide(block, sites, table, key, item, step, high)
    for k in range(sites):
        flat[block[SITE + k] + shift] ^= block[OUTCOME + k]


@njit(inline="always")
def _antiparallel(flat, line, around, x):
    """The spin at x of a row, and the three binary digits of its number of antiparallel neighbours."""
    below, above, back, front = around
    s = line[x + _1]
    p, q, r = s ^ flat[below + x], s ^ flat[above + x], s ^ flat[back + x]
    sum_1, carry_1 = p ^ q ^ r, p & q | r & (p ^ q)
    p, q, r = s ^ flat[front + x], s ^ line[x], s ^ line[x + _2]
    sum_2, carry_2 = p ^ q ^ r, p & q | r & (p ^ q)
    ones, carry_3 = sum_1 ^ sum_2, sum_1 & sum_2
    return s, ones, carry_1 ^ carry_2 ^ carry_3, carry_1 & carry_2 | carry_3 & (carry_1 ^ carry_2)


@njit(nogil=True, cache=True)
def _count(block, sites, flat, line, around, x, count, first, table, active):
    """Append the sites x, x + 2, ... of a row to the block: undecided are lattices with 0, 1 or 2 antiparallel."""
    wide_vectors()
    p0, p1, p2 = table[0, 0], table[1, 0], table[2, 0]
    for k in range(count):
        here = x + _2 * k
        _, ones, twos, fours = _antiparallel(flat, line, around, here)
        sure = fours | ones & twos | choose(twos, p2, choose(ones, p1, p0))
        n = sites + k
        block[UNDECIDED + n], block[OUTCOME + n] = active & ~sure, active & sure
        block[SITE + n] = first + here
        block[CODE + n], block[CODE + _B1 + n] = ones, twos


@njit(nogil=True, cache=True)
def _count_in_field(block, sites, flat, line, around, x, count, first, table, active):
    """As `_count`, with a probability for each number of antiparallel neighbours and each spin."""
    wide_vectors()
    for k in range(count):
        here = x + _2 * k
        s, ones, twos, fours = _antiparallel(flat, line, around, here)
        sure = choose_of_16((ones, twos, fours, s), table, _0)
        n = sites + k
        block[UNDECIDED + n], block[OUTCOME + n] = active & ~sure, active & sure
        block[SITE + n] = first + here
        block[CODE + n], block[CODE + _B1 + n] = ones, twos
        block[CODE + _B2 + n], block[CODE + _B3 + n] = fours, s
