"""Bernoulli variables for 64 lattices at once, each lattice with a probability of its own.

A probability p in [0, 1] is written with one binary digit before the point and DIGITS behind it.  Digit d of the
probabilities of 64 lattices is one word.  A uniform number r < 1 is drawn digit by digit, a random word for each
digit, and a lattice is decided at the first digit where r and p differ: success where p has the 1.  So success has
exactly the probability p rounded to 2**-DIGITS, and p = 1 always succeeds.

Sites are decided in blocks.  Every digit decides half of what is left: after PLAIN digits about one site in five has a
lattice undecided, and only those sites go on.  A site's random words are keyed by the site, so no block changes them.

A block is one array, ROWS rows of BLOCK sites: one array with constant distances lets LLVM vectorise without asking
whether arrays overlap.  Indices are unsigned for the same reason: they cannot wrap.
"""

import numpy as np
from numba import njit

from hamscope.sim import rng
from hamscope.sim.vectors import wide_vectors

DIGITS = 32
# One call of Philox gives two words, so the digits of one comparison take so many steps of the counter.
STEPS = DIGITS // 2
BLOCK = 512
# Rows of a block: lattices undecided, their outcome so far, first counter of the site, and the bits of the code that
# says which probability a lattice takes.
UNDECIDED, OUTCOME, SITE, CODE = (np.uint64(k * BLOCK) for k in range(4))
# The same rows again for the sites that go on, and where in the block they came from.
_TAIL, _ORIGIN = np.uint64(7 * BLOCK), np.uint64(14 * BLOCK)
ROWS = 15
# Digits drawn at once; sites left over are filled up to whole vectors.
_FOUR, _VECTOR = np.uint64(4), np.uint64(8)
_PLAIN = np.uint64(8)
_0, _1, _2, _3 = (np.uint64(k) for k in range(4))
_B1, _B2, _B3 = (np.uint64(k * BLOCK) for k in (1, 2, 3))
_ROW = np.uint64(BLOCK)


def binary_digits(probabilities: np.ndarray) -> np.ndarray:
    """Digits of `probabilities`, shape (..., n <= 64) in [0, 1], as words of shape (..., 1 + DIGITS), uint64.

    Bit b of word d is digit d of probability b; word 0 is the digit before the point, set for p = 1 alone.
    """
    scaled = np.rint(np.asarray(probabilities) * 2.0**DIGITS).astype(np.uint64)
    places = np.arange(DIGITS, -1, -1, dtype=np.uint64)
    digits = (scaled[..., None, :] >> places[:, None]) & np.uint64(1)
    return (digits << np.arange(scaled.shape[-1], dtype=np.uint64)).sum(-1, dtype=np.uint64)


@njit(inline="always")
def choose(bits, ones, zeros):
    """Where `bits` has a 1 the bit of `ones`, elsewhere that of `zeros`."""
    return bits & ones | ~bits & zeros


@njit(inline="always")
def choose_of_16(code, table, d):
    """Digit d of the probability that each lattice takes: number code[0] + 2 code[1] + 4 code[2] + 8 code[3]."""
    a, b, c, e = code
    w0 = choose(b, choose(a, table[3, d], table[2, d]), choose(a, table[1, d], table[0, d]))
    w1 = choose(b, choose(a, table[7, d], table[6, d]), choose(a, table[5, d], table[4, d]))
    w2 = choose(b, choose(a, table[11, d], table[10, d]), choose(a, table[9, d], table[8, d]))
    w3 = choose(b, choose(a, table[15, d], table[14, d]), choose(a, table[13, d], table[12, d]))
    return choose(e, choose(c, w3, w2), choose(c, w1, w0))


@njit(inline="always")
def _compare(undecided, outcome, digit, word):
    return undecided & ~(digit ^ word), choose(undecided, digit, outcome)


@njit(nogil=True, cache=True)
def _digits_of_1(block, at, sites, table, d, key, item, step, high):
    """Compare four digits of one probability; at = 0 or _TAIL."""
    wide_vectors()
    p1, p2, p3, p4 = table[0, d], table[0, d + _1], table[0, d + _2], table[0, d + _3]
    for k in range(sites):
        n = at + k
        r1, r2 = rng.short_words(key, item, step, block[SITE + n], high)
        r3, r4 = rng.short_words(key, item, step + _1, block[SITE + n], high)
        u, v = _compare(block[UNDECIDED + n], block[OUTCOME + n], p1, r1)
        u, v = _compare(u, v, p2, r2)
        u, v = _compare(u, v, p3, r3)
        u, v = _compare(u, v, p4, r4)
        block[UNDECIDED + n], block[OUTCOME + n] = u, v


@njit(nogil=True, cache=True)
def _digits_of_3(block, at, sites, table, d, key, item, step, high):
    """Compare four digits of three probabilities, numbered by two bits of code."""
    wide_vectors()
    a1, a2, a3, a4 = table[0, d], table[0, d + _1], table[0, d + _2], table[0, d + _3]
    b1, b2, b3, b4 = table[1, d], table[1, d + _1], table[1, d + _2], table[1, d + _3]
    c1, c2, c3, c4 = table[2, d], table[2, d + _1], table[2, d + _2], table[2, d + _3]
    for k in range(sites):
        n = at + k
        r1, r2 = rng.short_words(key, item, step, block[SITE + n], high)
        r3, r4 = rng.short_words(key, item, step + _1, block[SITE + n], high)
        x, y = block[CODE + n], block[CODE + _B1 + n]
        u, v = _compare(block[UNDECIDED + n], block[OUTCOME + n], choose(y, c1, choose(x, b1, a1)), r1)
        u, v = _compare(u, v, choose(y, c2, choose(x, b2, a2)), r2)
        u, v = _compare(u, v, choose(y, c3, choose(x, b3, a3)), r3)
        u, v = _compare(u, v, choose(y, c4, choose(x, b4, a4)), r4)
        block[UNDECIDED + n], block[OUTCOME + n] = u, v


@njit(nogil=True, cache=True)
def _digits_of_16(block, at, sites, table, d, key, item, step, high):
    """Compare four digits of sixteen probabilities, numbered by four bits of code."""
    wide_vectors()
    for k in range(sites):
        n = at + k
        code = block[CODE + n], block[CODE + _B1 + n], block[CODE + _B2 + n], block[CODE + _B3 + n]
        u, v = block[UNDECIDED + n], block[OUTCOME + n]
        r1, r2 = rng.short_words(key, item, step, block[SITE + n], high)
        u, v = _compare(u, v, choose_of_16(code, table, d), r1)
        u, v = _compare(u, v, choose_of_16(code, table, d + _1), r2)
        r1, r2 = rng.short_words(key, item, step + _1, block[SITE + n], high)
        u, v = _compare(u, v, choose_of_16(code, table, d + _2), r1)
        u, v = _compare(u, v, choose_of_16(code, table, d + _3), r2)
        block[UNDECIDED + n], block[OUTCOME + n] = u, v


@njit(nogil=True, cache=True)
def _four_digits(block, at, sites, table, d, key, item, step, high):
    sites = (sites + _VECTOR - _1) // _VECTOR * _VECTOR
    step = step + (d - _1) // _2
    if table.shape[0] == 1:
        _digits_of_1(block, at, sites, table, d, key, item, step, high)
    elif table.shape[0] == 3:
        _digits_of_3(block, at, sites, table, d, key, item, step, high)
    else:
        _digits_of_16(block, at, sites, table, d, key, item, step, high)


@njit(nogil=True, cache=True)
def decide(block, sites, table, key, item, step, high):
    """Draw the variables of the first `sites` columns of a block; row OUTCOME becomes the lattices that succeed.

    Parameters
    ----------
    block : ndarray, shape (ROWS * BLOCK,), uint64
        UNDECIDED: the lattices to draw for.  OUTCOME: the lattices that have succeeded before.  SITE: the counter of
        the site, below 2**32.  CODE and the rows behind it: the number of the probability a lattice takes, bit by bit.
    table : ndarray, shape (1, 3 or 16, 1 + DIGITS), uint64
        The probabilities, as `binary_digits` gives them.  The digit before the point is not looked at: lattices of
        p = 1 are given as decided.
    high : uint64
        Second counter, below 2**32; the random words of a site belong to (key, item, step .. step + STEPS, high, site).
    """
    d = _1
    # Columns up to a whole vector are computed too; they hold whatever was there, and nobody reads them.
    while d <= _PLAIN:
        _four_digits(block, _0, sites, table, d, key, item, step, high)
        d += _FOUR
    left = _0
    for k in range(sites):
        block[_ORIGIN + left] = k
        left += np.uint64(block[UNDECIDED + k] != _0)
    rows = CODE + _ROW * (_0 if table.shape[0] == 1 else _2 if table.shape[0] == 3 else np.uint64(4))
    for row in range(_0, rows, _ROW):
        for k in range(left):
            block[_TAIL + row + k] = block[row + block[_ORIGIN + k]]
    while left > _0 and d < np.uint64(DIGITS):
        _four_digits(block, _TAIL, left, table, d, key, item, step, high)
        d += _FOUR
        going = _0
        for k in range(left):
            origin = block[_ORIGIN + k]
            block[OUTCOME + origin] = block[_TAIL + OUTCOME + k]
            block[UNDECIDED + origin] = block[_TAIL + UNDECIDED + k]
            if block[_TAIL + UNDECIDED + k] != _0:
                block[_ORIGIN + going] = origin
                for row in range(_TAIL, _TAIL + rows, _ROW):
                    block[row + going] = block[row + k]
                going += _1
        left = going
    for k in range(sites):
        block[OUTCOME + k] &= ~block[UNDECIDED + k]
