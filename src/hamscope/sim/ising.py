"""Equilibrium sampling of the clean Ising model: 64 lattices at a time, Metropolis sweeps and Wolff updates.

    E(s) = - sum_<ij> s_i s_j - H sum_i s_i,        s_i = +1 or -1,        J = k_B = 1

Bit b of the 64-bit word of a site is the spin of lattice b (1 = up), and every lattice has its own temperature.
The kernels are in `sim.metropolis` and `sim.clusters`.

All random words are keyed by what they are for (key, item, step, global site or bond), so the spins depend neither
on the slabs that a lattice is cut into nor on the order in which sites are visited.

Shape letters: P = planes of the slab; p = P + 2 with its halo; n1, n2 = sites along axes 1 and 2.
"""

from time import perf_counter

import numpy as np
from numba import njit

from hamscope.errors import ConfigError
from hamscope.sim import rng
from hamscope.sim.bernoulli import STEPS, binary_digits
from hamscope.sim.bitmaps import empty_bitmaps, row_words, to_bitmaps, to_words
from hamscope.sim.clusters import (
    CLUSTER,
    active_bonds,
    cluster_magnetizations,
    flip,
    grow_from_halo,
    grow_from_seeds,
)  # fmt: skip
from hamscope.sim.lattice import Slab
from hamscope.sim.metropolis import acceptance_tables, half_sweep

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
    fields : array_like of float, shape (n_lattices,), optional
        Uniform field H/J of each lattice; none is faster than zeros.

    Attributes
    ----------
    words : ndarray, shape (p, n1, n2), uint64
        The spins, with halo.  Bits without a lattice stay 0.
    sweeps, updates : int
        How many Metropolis sweeps and Wolff updates were made, below 2**27.  They are part of the random keys: with
        `words`, `sweeps` and `updates` carried over, a new object goes on exactly where the old one stopped.
    seconds : dict
        Wall time spent on this slab in "metropolis" and in "wolff", communication included.
    rounds : int
        How often the last Wolff update grew its clusters before no more crossed a cut.

    Raises
    ------
    ConfigError
        No or too many temperatures, one that is not positive, fields of another shape, or an odd
        periodic length.
    """

    def __init__(self, slab: Slab, temperatures, key, item: int, fields=None):
        self.temperatures = np.asarray(temperatures, np.float64)
        n_lattices = self.temperatures.size
        if self.temperatures.ndim != 1 or not 1 <= n_lattices <= LATTICES:
            raise ConfigError(f"{n_lattices} temperatures: a batch has 1 to {LATTICES} lattices")
        if not np.all(self.temperatures > 0):
            raise ConfigError(f"temperature {self.temperatures.min()}: T/J must be positive")
        self.fields = None if fields is None else np.asarray(fields, np.float64)
        if fields is not None and not (self.fields.shape == (n_lattices,) and np.all(np.isfinite(self.fields))):
            raise ConfigError(f"fields of shape {self.fields.shape}: give one finite H/J for each temperature")
        slab.lattice.check_checkerboard()
        self.slab, self.item = slab, np.uint64(item)
        self.sweeps = self.updates = self.rounds = 0
        self.seconds = {"metropolis": 0.0, "wolff": 0.0}
        self.active = _ALL >> np.uint64(LATTICES - n_lattices)
        self.tables = acceptance_tables(self.temperatures, self.fields)
        self.bond_table = binary_digits(-np.expm1(-2 / self.temperatures))[None]
        self._keys = {use: rng.stream_key(key, use) for use in ("start", "metropolis", "bonds", "seeds", "accept")}
        self.words = slab.zeros(np.uint64)
        self._wolff_space = None
        _hot_start(self.words, slab.start, self.active, self._keys["start"], self.item)

    def sweep(self) -> None:
        """One checkerboard Metropolis sweep of every lattice: each site is offered a flip once."""
        begin = perf_counter()
        for colour in (0, 1):
            self.half_sweep(colour)
        self.sweeps += 1
        self.seconds["metropolis"] += perf_counter() - begin

    def half_sweep(self, colour: int) -> None:
        """Offer a flip to every site with (i0 + i1 + i2) % 2 == colour, in global coordinates."""
        self.slab.exchange(self.words)
        step = np.uint64((2 * self.sweeps + colour) * STEPS)
        lattice = self.slab.lattice
        half_sweep(
            self.words, (colour + self.slab.start) % 2, self.slab.start, lattice.shape[0], lattice.periodic,
            self.tables, self.active, self._keys["metropolis"], self.item, step,
        )  # fmt: skip

    def wolff(self) -> None:
        """One Wolff update of every lattice: flip the cluster of a random site [1]_.

        A bond between equal spins is active with probability 1 - exp(-2/T).  Its random number belongs to the bond,
        so the cluster is the connected component of its seed, whoever finds it in whatever order.

        In a field the cluster, of zero field, is a proposal, accepted with probability min(1, exp(-2 H M/T)), M the
        sum of its spins.  Detailed balance: let E0 be the energy without field, s and s' differ by the flip of C.  The
        probabilities of drawing C satisfy q(s, C) exp(-E0(s)/T) = q(s', C) exp(-E0(s')/T), since the bonds inside C
        are the same and those at its border are left inactive [1]_.  The rest of the weight, exp(H M/T) before and
        exp(-H M/T) after, is what Metropolis' rule balances.  For Metropolis' rule, see `sim.metropolis`.

        References
        ----------
        .. [1] Wolff, Phys. Rev. Lett. 62, 361 (1989), doi:10.1103/PhysRevLett.62.361.
        """
        begin = perf_counter()
        slab, step = self.slab, np.uint64(self.updates * STEPS)
        lattice = slab.lattice
        if self._wolff_space is None:
            self._wolff_space = self._make_wolff_space()
        maps, field, fresh, queue, waiting, edges = self._wolff_space
        slab.exchange(self.words)
        for axis in range(3):
            # An axis of one site has no bonds, but to the site itself.
            if lattice.shape[axis] > 1:
                active_bonds(
                    field, self.words, axis, slab.start, lattice.shape[0], lattice.periodic, self.bond_table,
                    self.active, self._keys["bonds"], self.item, step,
                )  # fmt: skip
                to_bitmaps(maps[axis], field)
        shape, plane = field.shape, edges.shape[2]
        grow_from_seeds(
            maps, fresh, queue, waiting, shape, slab.start, lattice.n_sites, self._keys["seeds"], self.item, step
        )
        self.rounds = 1
        # A whole lattice with open ends has no cut to cross.
        while slab.n_planes < lattice.shape[0] or lattice.periodic[0]:
            edges[1], edges[2] = (
                maps[CLUSTER, :, plane : 2 * plane],
                maps[CLUSTER, :, slab.n_planes * plane : (slab.n_planes + 1) * plane],
            )
            slab.exchange(edges)
            if not slab.any(grow_from_halo(edges, maps, fresh, queue, waiting, shape)):
                break
            self.rounds += 1
        to_words(field, maps[CLUSTER])
        flip(self.words, field, self._accepted(field, step))
        self.updates += 1
        self.seconds["wolff"] += perf_counter() - begin

    def _make_wolff_space(self) -> tuple[np.ndarray, ...]:
        """Bitmaps, a field of words, fresh, queue, waiting, edges, as `sim.clusters` describes them.

        64 lattices take 8 bytes a site and 2048 for every word of a row: 49 bytes a site in rows of 100, 40 in rows
        of 64.  The rest is what one lattice or the outer planes need.
        """
        field = self.slab.zeros(np.uint64)
        p, n1, n2 = field.shape
        n_lattices, plane = self.temperatures.size, n1 * row_words(n2)
        maps = empty_bitmaps(4, n_lattices, field.shape)
        fresh, queue = np.zeros(p * plane, np.uint64), np.empty(p * (plane + 1), np.uint32)
        return maps, field, fresh, queue, np.zeros(p, np.uint64), np.zeros((4, n_lattices, plane), np.uint64)

    def _accepted(self, clusters, step) -> np.uint64:
        """The lattices whose cluster is flipped: all of them without a field."""
        if self.fields is None:
            return _ALL
        moment = self.slab.sum(cluster_magnetizations(self.words, clusters))[: self.temperatures.size]
        shares = uniforms(self._keys["accept"], self.temperatures.size, self.item, step)
        flips = shares < np.exp(np.minimum(-2 * self.fields * moment / self.temperatures, 0))
        return (flips.astype(np.uint64) << np.arange(flips.size, dtype=np.uint64)).sum(dtype=np.uint64)

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
        """Energy per site in units of J, each bond counted once, that in the field left out; shape (n_lattices,)."""
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


@njit(cache=True)
def _hot_start(words, start, active, key, item):
    """Random spins, keyed by the global site."""
    for i in range(words.shape[0] - 2):
        for j in range(words.shape[1]):
            for x in range(words.shape[2]):
                site = ((start + i) * words.shape[1] + j) * words.shape[2] + x
                words[i + 1, j, x] = rng.random_words(key, item, 0, site)[0] & active


@njit(cache=True)
def uniforms(key, count, item, step):
    """Uniform numbers in (0, 1) for the lattices of a batch, shape (count,)."""
    values = np.empty(count)
    for k in range(count):
        values[k] = rng.uniform(key, item, step, k)
    return values


@njit(nogil=True, cache=True)
def _count_bits(words):
    """How many words have each bit set, shape (64,), int64."""
    counts = np.zeros(64, np.int64)
    for word in words.flat:
        for bit in range(64):
            counts[bit] += np.int64((word >> np.uint64(bit)) & np.uint64(1))
    return counts
