"""What a simulation consists of: work items, tasks that compute them bite by bite, and the samples that they give.

A *work item* is what one group of processes computes at once: 64 lattices of a clean Ising model (the bits of a
word), some field sweeps of a random-field model, some lattices of percolation.  A *task* is a work item under way.
It advances in bites of a fraction of a second, and between two bites its state is a few arrays over the slab and a
few numbers: stored, and restored on another cut of the lattice, it goes on to the same bits.  Everything random is
keyed by the seed, the class, and the item or lattice, so items can be drawn by anyone in any order.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from hamscope.sim import rng
from hamscope.sim.lattice import Slab

# Seconds of one process: about as long as a bite, so about as long as a signal waits.
BITE = 0.1


class Item(NamedTuple):
    """One piece of work: class, number of the item within it, its lattices [first, last), and its weight (s)."""

    name: str
    number: int
    first: int
    last: int
    cost: float


class Sample(NamedTuple):
    """One state of one lattice, as a slab holds it: spins (n_planes, n1, n2) uint8, 1 = up; the rest as in COLUMNS."""

    lattice: int
    measurement: int
    parameter: float
    field: float
    direction: int
    magnetization: float
    energy: float
    sweep: int
    spins: np.ndarray


class Avalanches(NamedTuple):
    """The avalanches of one field sweep: a row of AVALANCHES in the slices contract, less the class."""

    lattice: int
    parameter: float
    direction: int
    counts: np.ndarray


class Task:
    """A work item under way on a slab; all methods are collective over the slabs of the lattice.

    Attributes
    ----------
    share : float
        How much of the work is done, 0 to 1.
    done : bool
        Whether all of it is.
    avalanches : list of Avalanches
        One for each field sweep at T = 0 that was finished since the list was last emptied.
    """

    share = 0.0
    done = False

    def __init__(self, item: Item, section, seed: int, slab: Slab):
        self.item, self.section, self.seed, self.slab = item, section, seed, slab
        self.avalanches: list[Avalanches] = []

    def advance(self) -> list[Sample]:
        """Do the next bite of work; the samples that it finished, in an order that depends on the config alone."""
        raise NotImplementedError

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """Arrays over the own planes of the slab, shape (n_planes, n1, n2), and numbers, equal on all slabs."""
        raise NotImplementedError

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict) -> None:
        """Go back to a state, the arrays cut as this slab is."""
        raise NotImplementedError

    def seconds(self) -> dict[str, float]:
        """What each kind of update took so far, where there are several."""
        return {}


class LatticeTask(Task):
    """Lattices one after another, each of them a bite; `draw` makes the samples of one."""

    def __init__(self, item: Item, section, seed: int, slab: Slab):
        super().__init__(item, section, seed, slab)
        self.next = item.first

    def advance(self) -> list[Sample]:
        samples = self.draw(self.next)
        self._count(self.next + 1)
        return samples

    def draw(self, lattice: int) -> list[Sample]:
        """The samples of lattice number `lattice` of the class."""
        raise NotImplementedError

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        return {}, {"next": self.next}

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict) -> None:
        self._count(numbers["next"])

    def _count(self, following: int) -> None:
        self.next = following
        self.share = (self.next - self.item.first) / (self.item.last - self.item.first)
        self.done = self.next == self.item.last


def spread(section, ranges: tuple[tuple[float, float], ...], seed: int, name: str) -> np.ndarray:
    """Parameters of all lattices of a class, shape (lattices,): lattice k takes range k % len(ranges).

    On a grid it takes the next of its equally spaced values, else a number drawn from a stratum of its own.
    """
    share = uniforms(rng.stream_key(seed, name, "parameter"), section.lattices, 0)
    values = np.empty(section.lattices)
    for k, (low, high) in enumerate(ranges):
        mine = slice(k, None, len(ranges))
        n = len(values[mine])
        if section.grid:
            values[mine] = np.linspace(low, high, section.grid)[np.arange(n) % section.grid]
        else:
            values[mine] = low + (high - low) * (np.arange(n) + share[mine]) / max(n, 1)
    return values


@njit(cache=True)
def uniforms(key, count, item):
    """`count` uniform numbers in (0, 1), shape (count,), of one work item or lattice."""
    values = np.empty(count)
    for k in range(count):
        values[k] = rng.uniform(key, item, 0, k)
    return values
