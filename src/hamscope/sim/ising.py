"""Equilibrium sampling of the clean Ising model: 64 lattices at a time, Metropolis sweeps and Wolff updates.

    E(s) = - sum_<ij> s_i s_j,        s_i = +1 or -1,        J = k_B = 1

Bit b of the 64-bit word of a site is the spin of lattice b (1 = up), and every lattice has its own temperature.
Flipping a site with n neighbours, a of them antiparallel, costs dE = 2 (n - 2 a).  The counts a of all 64 lattices
come from a bit-sliced adder [1]_.  A probability is a column of binary digits, most significant first; its digits in
64 lattices are words, and comparing them with random words one digit at a time draws 64 Bernoulli variables at once:
each lattice gets a fresh random bit at every digit, and is decided at the first digit that differs.

All random words are keyed by what they are for (key, item, step, global site or bond), so the spins depend neither
on the slabs that a lattice is cut into nor on the order in which sites are visited.

Shape letters: P = planes of the slab; p = P + 2 with its halo; n1, n2 = sites along axes 1 and 2.

References
----------
.. [1] Jacobs and Rebbi, J. Comput. Phys. 41, 203 (1981), doi:10.1016/0021-9991(81)90089-9.
"""

import numpy as np
from numba import njit

from hamscope.errors import ConfigError
from hamscope.sim import rng
from hamscope.sim.bernoulli import CHUNK, STEPS, bernoulli, binary_digits
from hamscope.sim.clusters import active_bonds, enter_from_halo, grow, plant_seeds
from hamscope.sim.lattice import Slab

LATTICES = 64
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


class IsingBatch:
    """Up to 64 independent lattices of one shape on a slab; collective over the slabs of the lattice.

    Parameters
    ----------
    slab : Slab
        What this process holds of the lattice, with its halo exchange.
    temperatures : array_like of float, shape (n_lattices,)
        T/J of each lattice, 1 to 64 of them.
    key : int
        Random stream, from `rng.stream_key`.
    item : int
        Number of the batch within that stream, below 2**32.

    Attributes
    ----------
    words : ndarray, shape (p, n1, n2), uint64
        The spins, with halo.  Bits without a lattice stay 0.
    sweeps, updates : int
        How many Metropolis sweeps and Wolff updates were made, below 2**27.  They are part of the random keys: with
        `words`, `sweeps` and `updates` carried over, a new object goes on exactly where the old one stopped.

    Raises
    ------
    ConfigError
        No or too many temperatures, one that is not positive, or an odd periodic length.
    """

    def __init__(self, slab: Slab, temperatures, key, item: int):
        self.temperatures = np.asarray(temperatures, np.float64)
        if self.temperatures.ndim != 1 or not 1 <= self.temperatures.size <= LATTICES:
            raise ConfigError(f"{self.temperatures.size} temperatures: a batch has 1 to {LATTICES} lattices")
        if not np.all(self.temperatures > 0):
            raise ConfigError(f"temperature {self.temperatures.min()}: T/J must be positive")
        slab.lattice.check_checkerboard()
        self.slab, self.item = slab, np.uint64(item)
        self.sweeps = self.updates = 0
        self.active = _ALL >> np.uint64(LATTICES - self.temperatures.size)
        self.tables = metropolis_tables(self.temperatures)
        self.bond_table = binary_digits(-np.expm1(-2 / self.temperatures))
        self._keys = {use: rng.stream_key(key, use) for use in ("start", "metropolis", "bonds", "seeds")}
        self.words = slab.zeros(np.uint64)
        _hot_start(self.words, slab.start, self.active, self._keys["start"], self.item)

    def sweep(self) -> None:
        """One checkerboard Metropolis sweep of every lattice: each site is offered a flip once."""
        for colour in (0, 1):
            self.half_sweep(colour)
        self.sweeps += 1

    def half_sweep(self, colour: int) -> None:
        """Offer a flip to every site with (i0 + i1 + i2) % 2 == colour, in global coordinates."""
        self.slab.exchange(self.words)
        step = np.uint64((2 * self.sweeps + colour) * STEPS)
        lattice = self.slab.lattice
        _metropolis(
            self.words, (colour + self.slab.start) % 2, self.slab.start, lattice.shape[0], lattice.periodic,
            self.tables, self.active, self._keys["metropolis"], self.item, step,
        )  # fmt: skip

    def wolff(self) -> None:
        """One Wolff update of every lattice: flip the cluster of a random site, doi:10.1103/PhysRevLett.62.361.

        A bond between equal spins is active with probability 1 - exp(-2/T).  Its random number belongs to the bond,
        so the cluster is the connected component of its seed, whoever finds it in whatever order.
        """
        slab, step = self.slab, np.uint64(self.updates * STEPS)
        lattice = slab.lattice
        slab.exchange(self.words)
        bonds = active_bonds(
            self.words, slab.start, lattice.shape[0], lattice.periodic, self.bond_table, self.active,
            self._keys["bonds"], self.item, step,
        )  # fmt: skip
        cluster, fresh = slab.zeros(np.uint64), slab.zeros(np.uint64)
        queue = np.empty(slab.n_planes * lattice.shape[1] * lattice.shape[2], np.int64)
        waiting = plant_seeds(
            cluster, fresh, queue, slab.start, lattice.n_sites, self.temperatures.size, self._keys["seeds"],
            self.item, step,
        )  # fmt: skip
        while True:
            grow(cluster, fresh, queue, waiting, bonds)
            slab.exchange(cluster)
            waiting = enter_from_halo(cluster, fresh, queue, bonds)
            if not slab.any(waiting > 0):
                break
        self.words[1:-1] ^= cluster[1:-1]
        self.updates += 1

    def run(self, sweeps: int, wolff: int) -> None:
        """Make `sweeps` Metropolis sweeps with `wolff` Wolff updates spread evenly between them."""
        if not sweeps:
            for _ in range(wolff):
                self.wolff()
        for k in range(sweeps):
            self.sweep()
            for _ in range((k + 1) * wolff // sweeps - k * wolff // sweeps):
                self.wolff()

    def magnetizations(self) -> np.ndarray:
        """Magnetization per site of every lattice, shape (n_lattices,)."""
        up = self.slab.sum(_count_bits(self.words[1:-1]))
        return (2 * up / self.slab.lattice.n_sites - 1)[: self.temperatures.size]

    def energies(self) -> np.ndarray:
        """Energy per site of every lattice in units of J, each bond counted once, shape (n_lattices,)."""
        self.slab.exchange(self.words)
        lattice, own = self.slab.lattice, self.words[1:-1]
        antiparallel, n_bonds = np.zeros(LATTICES, np.int64), 0
        for axis, (length, periodic) in enumerate(zip(lattice.shape, lattice.periodic)):
            above = self.words[2:] if axis == 0 else np.roll(own, -1, axis)
            last = self.slab.stop == length if axis == 0 else True
            keep = tuple(slice(-1 if k == axis and last and not periodic else None) for k in range(3))
            antiparallel += _count_bits((own ^ above)[keep])
            n_bonds += lattice.n_sites // length * (length if periodic else length - 1)
        energy = (2 * self.slab.sum(antiparallel) - n_bonds) / lattice.n_sites
        return energy[: self.temperatures.size]

    def spins(self, bit: int) -> np.ndarray:
        """Spins of one lattice on this slab, shape (P, n1, n2), uint8, 1 = up."""
        if not 0 <= bit < self.temperatures.size:
            raise IndexError(f"lattice {bit} of a batch of {self.temperatures.size}")
        return ((self.words[1:-1] >> np.uint64(bit)) & np.uint64(1)).astype(np.uint8)


def metropolis_tables(temperatures: np.ndarray) -> np.ndarray:
    """Digits of min(1, exp(-2 (n - 2 a) / T)) for n = 0..6 neighbours, a = 0, 1, 2 of them antiparallel.

    Shape (7, 3, 1 + digits), uint64, as `binary_digits` gives them.  With a >= 3 no flip costs energy, for any n.
    """
    n, a = np.arange(7)[:, None, None], np.arange(3)[:, None]
    cost = np.maximum(2.0 * (n - 2 * a), 0)
    return binary_digits(np.exp(-cost / temperatures))


@njit(cache=True)
def _hot_start(words, start, active, key, item):
    """Random spins, keyed by the global site."""
    for i in range(words.shape[0] - 2):
        for j in range(words.shape[1]):
            for x in range(words.shape[2]):
                site = ((start + i) * words.shape[1] + j) * words.shape[2] + x
                words[i + 1, j, x] = rng.random_words(key, item, 0, site)[0] & active


@njit(cache=True)
def _metropolis(words, parity, start, n0, periodic, tables, active, key, item, step):
    """Offer a flip to the sites of one colour: (local plane + i1 + i2) % 2 == parity, planes counted from 0.

    A neighbour that is missing at a free surface is replaced by the site itself: never antiparallel, and not counted
    in n.  `start` is the global number of the first plane, n0 the planes of the whole lattice.
    """
    _, n1, n2 = words.shape
    scratch = np.zeros((5, CHUNK), np.uint64)
    for i in range(1, words.shape[0] - 1):
        below = i - 1 if periodic[0] or start + i - 1 > 0 else i
        above = i + 1 if periodic[0] or start + i < n0 else i
        for j in range(n1):
            back = j - 1 if j > 0 else n1 - 1 if periodic[1] else j
            front = j + 1 if j < n1 - 1 else 0 if periodic[1] else j
            n = (below != i) + (above != i) + (back != j) + (front != j)
            x = (i - 1 + j + parity) % 2
            while x < n2:
                left, right = periodic[2] or x > 0, periodic[2] or x < n2 - 1
                # The ends of an open row have fewer neighbours, so another table: they go alone.
                inner = n2 if periodic[2] else n2 - 1
                count = min(CHUNK, (inner - x + 1) // 2) if left and right else 1
                neighbours = (words[below, j], words[above, j], words[i, back], words[i, front])
                _load(scratch, words[i, j], neighbours, x, count, periodic[2], active)
                site = np.uint64(((start + i - 1) * n1 + j) * n2 + x)
                bernoulli(scratch, tables[n + left + right], key, item, step, site, np.uint64(2))
                for k in range(count):
                    words[i, j, x + 2 * k] ^= scratch[0, k]
                x += 2 * count


@njit(inline="always")
def _load(scratch, row, neighbours, x, count, periodic, active):
    """Sort the lattices of `count` sites x, x + 2, ... by their number of antiparallel neighbours.

    scratch[0] becomes the lattices with 3 or more, which flip; scratch[1] the others; scratch[2:5] those with 0, 1, 2.
    """
    below, above, back, front = neighbours
    last = row.shape[0] - 1
    for k in range(count):
        here = x + 2 * k
        left = here - 1 if here > 0 else last if periodic else here
        right = here + 1 if here < last else 0 if periodic else here
        s = row[here]
        p, q, r = s ^ below[here], s ^ above[here], s ^ back[here]
        sum_1, carry_1 = p ^ q ^ r, p & q | r & (p ^ q)
        p, q, r = s ^ front[here], s ^ row[left], s ^ row[right]
        sum_2, carry_2 = p ^ q ^ r, p & q | r & (p ^ q)
        ones, carry_3 = sum_1 ^ sum_2, sum_1 & sum_2
        twos = carry_1 ^ carry_2 ^ carry_3
        fours = carry_1 & carry_2 | carry_3 & (carry_1 ^ carry_2)
        scratch[2, k] = active & ~(ones | twos | fours)
        scratch[3, k] = active & ones & ~(twos | fours)
        scratch[4, k] = active & twos & ~(ones | fours)
        scratch[1, k] = scratch[2, k] | scratch[3, k] | scratch[4, k]
        scratch[0, k] = active & ~scratch[1, k]
    scratch[:, count:] = 0


@njit(cache=True)
def _count_bits(words):
    """How many words have each bit set, shape (64,), int64."""
    counts = np.zeros(64, np.int64)
    for word in words.flat:
        for bit in range(64):
            counts[bit] += np.int64((word >> np.uint64(bit)) & np.uint64(1))
    return counts
