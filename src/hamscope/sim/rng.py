"""Counter-based random numbers: a number belongs to a site, a bond or an image, never to a process.

Philox4x32-10 [1]_ is a keyed bijection of a 128-bit counter.  The key is made from the seed and from what the numbers
are for (`stream_key`); the counter holds (site or bond, step, work item).  So a number does not depend on which rank
asks for it, in which order, or after how many restarts.

References
----------
.. [1] Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC'11, doi:10.1145/2063384.2063405.
"""

import hashlib

import numpy as np
from numba import njit

from hamscope.sim.vectors import swap_halves

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(0xFFFFFFFF00000000)
_32 = np.uint64(32)


def stream_key(seed: int, *purpose) -> np.uint64:
    """A 64-bit key for the numbers of one purpose, e.g. stream_key(seed, "C-2D", "metropolis")."""
    text = repr((int(seed), *purpose)).encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


@njit(inline="always")
def philox(c0, c1, c2, c3, key):
    """Philox4x32-10: four random 32-bit words (each in a uint64) of a counter of four 32-bit words and a 64-bit key."""
    k0, k1 = key & _LOW, key >> _32
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@njit(inline="always")
def random_words(key, item, step, site):
    """Two random 64-bit words for (work item, step, site); item and step below 2**32, site below 2**64."""
    s = np.uint64(site)
    a, b, c, d = philox(s & _LOW, s >> _32, np.uint64(step), np.uint64(item), key)
    return a | (b << _32), c | (d << _32)


@njit(inline="always")
def short_words(key, item, step, low, high):
    """Two random 64-bit words for four 32-bit counters, by Philox4x32-7: the fewest rounds that pass BigCrush [1]_.

    For the many words of the multi-spin kernels.  The words are (r0 << 32 | r1, r2 << 32 | r3).  The upper halves of
    the state are left dirty between the rounds, since the multiplications read the lower ones alone.
    """
    c0, c1, c2, c3 = low, high, step, item
    k0, k1 = key & _LOW, key >> _32
    for _ in range(6):
        p0, p1 = _M0 * (c0 & _LOW), _M1 * (c2 & _LOW)
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1, (p0 >> _32) ^ c3 ^ k1, p0
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    p0, p1 = _M0 * (c0 & _LOW), _M1 * (c2 & _LOW)
    return p1 ^ (swap_halves(c1) & _HIGH) ^ (k0 << _32), p0 ^ (swap_halves(c3) & _HIGH) ^ (k1 << _32)


@njit(inline="always")
def uniform(key, item, step, site):
    """A uniform number in (0, 1), never 0 or 1, with 53 random bits, for (work item, step, site)."""
    word, _ = random_words(key, item, step, site)
    return (np.float64(word >> np.uint64(12)) + 0.5) * 2.0**-52


@njit(inline="always")
def normal(key, item, step, site):
    """A standard normal number for (work item, step, site), by Box and Muller, doi:10.1214/aoms/1177706645."""
    word, other = random_words(key, item, step, site)
    u = (np.float64(word >> np.uint64(12)) + 0.5) * 2.0**-52
    v = (np.float64(other >> np.uint64(12)) + 0.5) * 2.0**-52
    return np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
