"""Bernoulli variables for 64 lattices at once, each lattice with a probability of its own.

A probability p in [0, 1] is written with one binary digit before the point and DIGITS behind it.  Digit d of the
probabilities of 64 lattices is one word.  A uniform number r < 1 is drawn digit by digit, a random word for each
digit, and a lattice is decided at the first digit where r and p differ: success where p has the 1.  So success has
exactly the probability p rounded to 2**-DIGITS, and p = 1 always succeeds.
"""

import numpy as np
from numba import njit

from hamscope.sim import rng

DIGITS = 32
# One call of Philox gives two words, so the digits of one comparison take so many steps of the counter.
STEPS = DIGITS // 2
# Sites in one comparison: two or more vectors of eight words, few enough that most are decided at the same digit.
CHUNK = 16


def binary_digits(probabilities: np.ndarray) -> np.ndarray:
    """Digits of `probabilities`, shape (..., n <= 64) in [0, 1], as words of shape (..., 1 + DIGITS), uint64.

    Bit b of word d is digit d of probability b; word 0 is the digit before the point, set for p = 1 alone.
    """
    scaled = np.rint(np.asarray(probabilities) * 2.0**DIGITS).astype(np.uint64)
    places = np.arange(DIGITS, -1, -1, dtype=np.uint64)
    digits = (scaled[..., None, :] >> places[:, None]) & np.uint64(1)
    return (digits << np.arange(scaled.shape[-1], dtype=np.uint64)).sum(-1, dtype=np.uint64)


@njit(inline="always")
def bernoulli(scratch, table, key, item, step, counter, stride):
    """Add to scratch[0] the lattices that succeed.

    Parameters
    ----------
    scratch : ndarray, shape (5, CHUNK), uint64
        A column is a site: its accepted lattices, its undecided ones, and those of the undecided that take the
        probability 0, 1 or 2 of the table.
    table : ndarray, shape (3, 1 + DIGITS), uint64
        Three probabilities, as `binary_digits` gives them.
    counter, stride : uint64
        The random words of column k belong to `counter + k stride`, and to the steps [step, step + STEPS).
    """
    for k in range(CHUNK):
        sure = scratch[2, k] & table[0, 0] | scratch[3, k] & table[1, 0] | scratch[4, k] & table[2, 0]
        scratch[0, k] |= sure
        scratch[1, k] &= ~sure
    for d in range(STEPS):
        p0, p1, p2 = table[0, 2 * d + 1], table[1, 2 * d + 1], table[2, 2 * d + 1]
        q0, q1, q2 = table[0, 2 * d + 2], table[1, 2 * d + 2], table[2, 2 * d + 2]
        pending = np.uint64(0)
        for k in range(CHUNK):
            first, second = rng.random_words(key, item, step + np.uint64(d), counter + stride * np.uint64(k))
            undecided = scratch[1, k]
            digit = scratch[2, k] & p0 | scratch[3, k] & p1 | scratch[4, k] & p2
            accepted = undecided & digit & ~first
            undecided &= ~(digit ^ first)
            digit = scratch[2, k] & q0 | scratch[3, k] & q1 | scratch[4, k] & q2
            accepted |= undecided & digit & ~second
            undecided &= ~(digit ^ second)
            scratch[0, k] |= accepted
            scratch[1, k] = undecided
            pending |= undecided
        if pending == 0:
            break
