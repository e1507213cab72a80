"""The random-field Ising model at a temperature, driven through its field by heat-bath sweeps.

    E(s) = - sum_<ij> s_i s_j - sum_i (H + h_i) s_i,        s_i = +1 or -1,        J = k_B = 1,

with h_i drawn once per sample, as `rfim.random_fields` does.  A site forgets its spin and takes a new one [1]_:

    P(s_i = +1) = 1 / (1 + exp(-2 f_i / T)),        f_i = sum over neighbours of s_j + H + h_i.

The sites of one colour of the checkerboard do not interact, so they may be updated in any order, and on different
slabs at once.  Every site has its own f_i, so there is no table of probabilities; but nearly always the exponential
can be avoided, and where |2 f_i / T| exceeds what 53 random bits can tell from certainty, the random number too.

Heat bath rather than Metropolis: a checkerboard of Metropolis is not ergodic where a flip is free (4 x 4, h = 0), and
the heat bath is monotone.  Its rule can be written s_i = sign(f_i + x), x = (T / 2) ln(u / (1 - u)), |x| < 18.4 T: a
sweep at T = 0 under a noise that is bounded.  By no-passing [2]_ a rising sweep therefore stays below the state
that the adiabatic sweep of the same sample has at H + 18.4 T and, once relaxed, above its state at H - 18.4 T.

Shape letters: P = planes of the slab; p = P + 2 with its halo; n1, n2 = sites along axes 1 and 2.

References
----------
.. [1] Glauber, J. Math. Phys. 4, 294 (1963), doi:10.1063/1.1703954.
.. [2] Middleton, Phys. Rev. Lett. 68, 670 (1992), doi:10.1103/PhysRevLett.68.670.
"""

import numpy as np
from numba import njit

from hamscope.errors import ConfigError
from hamscope.sim import rng
from hamscope.sim.lattice import Slab

# The smallest random number is 2**-53: what is less probable than exp(-CERTAIN) does not happen.
CERTAIN = 53 * np.log(2)


class HeatBath:
    """One lattice in its random field, on a slab, at first all down; collective over the slabs of the lattice.

    Parameters
    ----------
    slab : Slab
        What this process holds of the lattice, with its halo exchange.
    fields : ndarray, shape (P, n1, n2), float64
        The random fields h_i in units of J.
    temperature : float
        T/J.
    key : int
        Random stream, from `rng.stream_key`.
    item : int
        Number of the lattice within that stream, below 2**32.

    Attributes
    ----------
    spins : ndarray, shape (p, n1, n2), int8
        +1 or -1, with halo; 0 in a halo beyond a free surface.
    sweeps : int
        How many sweeps were made, below 2**31.  It is part of the random keys: with `spins` and `sweeps` carried over,
        a new object goes on exactly where the old one stopped.

    Raises
    ------
    ConfigError
        A temperature that is not positive, or an odd periodic length.
    """

    def __init__(self, slab: Slab, fields: np.ndarray, temperature: float, key, item: int):
        if not temperature > 0:
            raise ConfigError(f"temperature {temperature}: T/J of a heat bath must be positive")
        slab.lattice.check_checkerboard()
        self.slab, self.fields, self.temperature = slab, fields, temperature
        self.key, self.item = key, np.uint64(item)
        self.sweeps = 0
        self.spins = slab.zeros(np.int8)
        self.spins[1:-1] = -1

    def sweep(self, field: float) -> None:
        """Give every site a new spin once, in the uniform field H = `field`."""
        for colour in (0, 1):
            self.half_sweep(field, colour)
        self.sweeps += 1

    def half_sweep(self, field: float, colour: int) -> None:
        """Give the sites with (i0 + i1 + i2) % 2 == colour, in global coordinates, a new spin."""
        self.slab.exchange(self.spins)
        start, periodic = self.slab.start, self.slab.lattice.periodic
        _half_sweep(
            self.spins, self.fields, (colour + start) % 2, start, periodic, float(field), 2 / self.temperature,
            self.key, self.item, np.uint64(2 * self.sweeps + colour),
        )  # fmt: skip

    def up(self) -> int:
        """Number of sites of the whole lattice that are up."""
        return int(self.slab.sum(int(np.count_nonzero(self.spins[1:-1] > 0))))


@njit(cache=True, nogil=True)
def _half_sweep(spins, fields, parity, start, periodic, field, beta, key, item, step):
    """New spins for the sites of one colour: (local plane + i1 + i2) % 2 == parity, planes counted from 0.

    `beta` is 2 / T, so that a spin is up with probability 1 / (1 + exp(-beta f)).
    """
    _, n1, n2 = spins.shape
    nothing, sums = np.zeros(n2, np.int8), np.empty(n2, np.int8)
    drives, words = np.empty(n2 // 2 + 1), np.empty(n2 // 2 + 2, np.uint64)
    for i in range(1, spins.shape[0] - 1):
        for j in range(n1):
            row, h = spins[i, j], fields[i - 1, j]
            back = spins[i, j - 1] if j > 0 else spins[i, n1 - 1] if periodic[1] else nothing
            front = spins[i, j + 1] if j < n1 - 1 else spins[i, 0] if periodic[1] else nothing
            _sum_neighbours(sums, row, spins[i - 1, j], spins[i + 1, j], back, front, periodic[2])
            first = (i - 1 + j + parity) % 2
            count, unsure, suspects = (n2 - first + 1) // 2, 0, 0
            for k in range(count):
                drives[k] = beta * (sums[first + 2 * k] + (field + h[first + 2 * k]))
            for k in range(count):
                row[first + 2 * k] = 1 if drives[k] > 0 else -1
            for k in range(count):
                unsure += abs(drives[k]) < CERTAIN
            if unsure == 0:
                continue
            site = np.uint64(((start + i - 1) * n1 + j) * n2 + first)
            half = (count + 1) // 2
            for k in range(half):
                words[k], words[half + k] = rng.random_words(key, item, step, site + np.uint64(2 * k))
            for k in range(count):
                suspects += _may_go_against(drives[k], words[k])
            if suspects:
                for k in range(count):
                    if _goes_against(drives[k], words[k]):
                        row[first + 2 * k] = -row[first + 2 * k]


@njit(inline="always")
def _sum_neighbours(sums, row, below, above, back, front, periodic):
    """The sum of the six neighbouring spins of every site of a row; missing neighbours are 0."""
    last = row.shape[0] - 1
    for x in range(last + 1):
        sums[x] = below[x] + above[x] + back[x] + front[x]
    for x in range(last):
        sums[x] += row[x + 1]
    for x in range(last):
        sums[x + 1] += row[x]
    if periodic:
        sums[0] += row[last]
        sums[last] += row[0]


@njit(inline="always")
def _chance(drive, word):
    """The random number of a site, in (0, 1), mirrored where its field is up.

    So the number decides alike whichever sign `drive` has: up where u < 1 / (1 + exp(-drive)).
    """
    return (np.float64((~word if drive > 0 else word) >> np.uint64(12)) + 0.5) * 2.0**-52


@njit(inline="always")
def _may_go_against(drive, word):
    """Whether the spin possibly goes against its field: (1 + y/8)**8 < exp(y) is cheap and nearly always says no."""
    bound = 1.0 + 0.125 * abs(drive)
    bound *= bound
    bound *= bound
    return _chance(drive, word) * bound * bound < 1.0


@njit(inline="always")
def _goes_against(drive, word):
    """Whether the spin goes against its field: true with probability 1 / (1 + exp(|drive|))."""
    return _may_go_against(drive, word) and _chance(drive, word) * (1.0 + np.exp(abs(drive))) < 1.0
