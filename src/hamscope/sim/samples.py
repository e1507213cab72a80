"""From one table of the config to states of its model: what is drawn, in which order, with which parameter.

A *work item* is what one group of processes computes at once: 64 lattices of a clean Ising model (the bits of a
word), some field sweeps of a random-field model, some lattices of percolation.  A *task* is a work item under way.
It advances in bites of a fraction of a second, and between two bites its state is a few arrays over the slab and a
few numbers: stored, and restored on another cut of the lattice, it goes on to the same bits.  Everything random is
keyed by the seed, the class, and the item or lattice, so items can be drawn by anyone in any order.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from hamscope.config import CleanIsing, Percolation, RandomField
from hamscope.models import BY_NAME
from hamscope.sim import percolation, rfim, rng
from hamscope.sim.ising import IsingBatch
from hamscope.sim.lattice import Lattice, Slab, exchange_energy
from hamscope.sim.rfim_thermal import HeatBath

BATCH = 64
# Nanoseconds per site: one sweep of a batch, one Wolff update of a batch, one field sweep, one coin, one sweep of a
# heat bath.  They weigh work items against each other and feed the time left; no result depends on them.
_COST_SWEEP, _COST_WOLFF, _COST_FIELD, _COST_COIN, _COST_HEAT = 13.0, 40.0, 400.0, 5.0, 4.0
# Seconds of one process: about as long as a bite, so about as long as a signal waits, and the least work of an item.
_BITE, _ITEM = 0.1, 0.5


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


def work_items(name: str, section, length: int) -> list[Item]:
    """The work items of one class for lattices of `length` sites a side, in the order of their numbers."""
    sites = Lattice.of_dimension(BY_NAME[name].dimension, length).n_sites * 1e-9
    if isinstance(section, CleanIsing):
        measured = section.measurements - 1
        sweeps = section.thermalization_sweeps + measured * section.sweeps_between
        updates = section.thermalization_wolff + measured * section.wolff_between
        size, each = BATCH, sites * (sweeps * _COST_SWEEP + updates * _COST_WOLFF) / BATCH
    else:
        each = sites * (_field_cost(name, section) if isinstance(section, RandomField) else _COST_COIN)
        size = int(np.clip(_ITEM / each, 1, BATCH))
    spans = [(first, min(first + size, section.lattices)) for first in range(0, section.lattices, size)]
    clean = isinstance(section, CleanIsing)
    # A batch costs the same however many of its bits have a lattice.
    return [Item(name, k, a, b, each * (BATCH if clean else b - a)) for k, (a, b) in enumerate(spans)]


def _field_cost(name: str, section: RandomField) -> float:
    """Nanoseconds per site of one field sweep."""
    return DriveSchedule(name, section).expected * _COST_HEAT if section.temperature else _COST_FIELD


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


class CleanTask(Task):
    """S2: thermalise with Metropolis sweeps and Wolff updates, then measure every few of both."""

    def __init__(self, item: Item, section: CleanIsing, seed: int, slab: Slab):
        super().__init__(item, section, seed, slab)
        self.temperatures = spread(section, (section.temperature,), seed, item.name)[item.first : item.last]
        self.batch = IsingBatch(slab, self.temperatures, rng.stream_key(seed, item.name, "chain"), item.number)
        self.measured = 0
        self.total = section.thermalization_sweeps + (section.measurements - 1) * section.sweeps_between
        self.bite = max(1, int(_BITE / (slab.lattice.n_sites * 1e-9 * _COST_SWEEP)))

    def advance(self) -> list[Sample]:
        s, batch = self.section, self.batch
        if batch.sweeps < s.thermalization_sweeps:
            begin, sweeps, updates = 0, s.thermalization_sweeps, s.thermalization_wolff
        else:
            begin = s.thermalization_sweeps + (self.measured - 1) * s.sweeps_between
            sweeps, updates = s.sweeps_between, s.wolff_between
        for k in range(batch.sweeps - begin, min(batch.sweeps - begin + self.bite, sweeps)):
            batch.sweep()
            for _ in range((k + 1) * updates // sweeps - k * updates // sweeps):
                batch.wolff()
        self._count()
        if batch.sweeps < begin + sweeps:
            return []
        self.measured += 1
        self._count()
        return [
            Sample(self.item.first + bit, self.measured - 1, self.temperatures[bit], s.field, 0, magnetization,
                   energy, batch.sweeps, batch.spins(bit))
            for bit, (magnetization, energy) in enumerate(zip(batch.magnetizations(), batch.energies()))
        ]  # fmt: skip

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        numbers = {"sweeps": self.batch.sweeps, "updates": self.batch.updates, "measured": self.measured}
        return {"words": self.batch.words[1:-1]}, numbers

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict) -> None:
        self.batch.words[1:-1] = arrays["words"]
        self.batch.sweeps, self.batch.updates = numbers["sweeps"], numbers["updates"]
        self.measured = numbers["measured"]
        self._count()

    def _count(self) -> None:
        self.share = self.batch.sweeps / self.total
        self.done = self.measured == self.section.measurements


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


class FieldSweepTask(LatticeTask):
    """Adiabatic field sweeps at T = 0; of each the first stable state at or past every target magnetization."""

    def __init__(self, item: Item, section: RandomField, seed: int, slab: Slab):
        super().__init__(item, section, seed, slab)
        self.disorder = spread(section, (section.disorder,), seed, item.name)

    def draw(self, lattice: int) -> list[Sample]:
        section, slab, name = self.section, self.slab, self.item.name
        disorder, direction = self.disorder[lattice], field_direction(section, lattice)
        fields = direction * rfim.random_fields(slab, disorder, rng.stream_key(self.seed, name, "fields"), lattice)
        flips = rfim.flip_fields(slab, fields)
        share = uniforms(rng.stream_key(self.seed, name, "targets"), section.snapshots, lattice)
        strata = (np.arange(section.snapshots) + share) / section.snapshots
        targets = section.max_magnetization * (2 * strata - 1)
        samples = []
        for snapshot, (field, magnetization) in enumerate(zip(*rfim.stable_states(slab, flips, targets))):
            spins = ((flips <= field) if direction == 1 else (flips > field)).astype(np.uint8)
            samples.append(Sample(lattice, snapshot, disorder, direction * field, direction, direction * magnetization,
                                  exchange_energy(slab, spins), 0, spins))  # fmt: skip
        return samples


class DriveSchedule:
    """How the field of a sweep at T > 0 rises: sweep number k is made at H = `field(k)`.

    Attributes
    ----------
    total : int
        Sweeps from one end of the loop to the other.
    expected : int
        About how many of them it takes to reach the last target: a guess that weighs work and no more.
    """

    def __init__(self, name: str, section: RandomField):
        largest = section.disorder[1]
        self.step, self.sweeps = section.field_step, section.sweeps_per_step
        self.max_field = section.max_field or 2.0 * (BY_NAME[name].dimension + largest)
        # A step that ends the loop but for rounding is the last one.
        self.total = self.sweeps * (1 + int(np.ceil(2 * self.max_field / self.step - 1e-6)))
        self.expected = min(self.total, self.sweeps * int(1 + (self.max_field + largest) / self.step))

    def field(self, sweep: int) -> float:
        """H/J of a sweep."""
        return min(self.max_field, sweep // self.sweeps * self.step - self.max_field)

    def ends_step(self, sweep: int) -> bool:
        """Whether a sweep is the last one at its field."""
        return sweep % self.sweeps == self.sweeps - 1


class ThermalSweepTask(Task):
    """Field sweeps at T > 0; of each the state after the first step at or past every target magnetization.

    The random fields and the targets are those of the adiabatic sweep of the same lattice.  As there, a falling field
    is a rising one with all signs turned.
    """

    def __init__(self, item: Item, section: RandomField, seed: int, slab: Slab):
        super().__init__(item, section, seed, slab)
        self.disorder = spread(section, (section.disorder,), seed, item.name)
        self.schedule = DriveSchedule(item.name, section)
        self.bite = max(1, int(_BITE / (slab.lattice.n_sites * 1e-9 * _COST_HEAT)))
        self._begin(item.first)
        self._count()

    def _begin(self, lattice: int) -> None:
        """Go to lattice number `lattice` of the class, saturated, or to the end where the item has no more."""
        self.lattice = lattice
        if lattice == self.item.last:
            return
        section, slab, seed, name = self.section, self.slab, self.seed, self.item.name
        self.direction = field_direction(section, lattice)
        keys = [rng.stream_key(seed, name, use) for use in ("fields", "heat bath", "targets")]
        fields = self.direction * rfim.random_fields(slab, self.disorder[lattice], keys[0], lattice)
        self.bath = HeatBath(slab, fields, section.temperature, keys[1], lattice)
        strata = (np.arange(section.snapshots) + uniforms(keys[2], section.snapshots, lattice)) / section.snapshots
        targets = section.max_magnetization * (2 * strata - 1)
        # Sites that have to be up; counted as `rfim.stable_states` does.
        self.wanted = np.maximum(np.ceil(slab.lattice.n_sites * (targets + 1) / 2 - 1e-6), 1)
        self.passed = self.taken = 0

    def advance(self) -> list[Sample]:
        samples = []
        for _ in range(self.bite):
            sweep = self.bath.sweeps
            self.bath.sweep(self.schedule.field(sweep))
            if self.schedule.ends_step(sweep):
                samples += self._measure(self.schedule.field(sweep))
            if self.passed == self.wanted.size or self.bath.sweeps == self.schedule.total:
                self._begin(self.lattice + 1)
                break
        self._count()
        return samples

    def _measure(self, field: float) -> list[Sample]:
        """The state as a sample, if it is the first at or past a target."""
        up, slab = self.bath.up(), self.slab
        passed = int(np.searchsorted(self.wanted, up, "right"))
        if passed <= self.passed:
            return []
        self.passed, self.taken = passed, self.taken + 1
        spins = (self.bath.spins[1:-1] == self.direction).astype(np.uint8)
        magnetization = 2 * up / slab.lattice.n_sites - 1
        return [Sample(self.lattice, self.taken - 1, self.disorder[self.lattice], self.direction * field,
                       self.direction, self.direction * magnetization, exchange_energy(slab, spins),
                       self.bath.sweeps, spins)]  # fmt: skip

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        numbers = {"lattice": self.lattice, "sweeps": self.bath.sweeps, "passed": self.passed, "taken": self.taken}
        return {"spins": self.bath.spins[1:-1]}, numbers

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict) -> None:
        self._begin(numbers["lattice"])
        self.bath.spins[1:-1] = arrays["spins"]
        self.bath.sweeps, self.passed, self.taken = numbers["sweeps"], numbers["passed"], numbers["taken"]
        self._count()

    def _count(self) -> None:
        item, self.done = self.item, self.lattice == self.item.last
        under_way = 0 if self.done else min(self.bath.sweeps / self.schedule.expected, 1)
        self.share = (self.lattice - item.first + under_way) / (item.last - item.first)


class PercolationTask(LatticeTask):
    """A biased coin for every site."""

    def __init__(self, item: Item, section: Percolation, seed: int, slab: Slab):
        super().__init__(item, section, seed, slab)
        self.probability = spread(section, section.probability, seed, item.name)

    def draw(self, lattice: int) -> list[Sample]:
        slab, p = self.slab, self.probability[lattice]
        key = rng.stream_key(self.seed, self.item.name, "sites")
        spins = percolation.sites(slab.lattice, p, key, lattice, slab.start, slab.stop)
        magnetization = 2 * slab.sum(int(spins.sum())) / slab.lattice.n_sites - 1
        return [Sample(lattice, 0, p, 0.0, 0, magnetization, exchange_energy(slab, spins), 0, spins)]


def make_task(item: Item, section, seed: int, slab: Slab) -> Task:
    """The task of a work item on a slab, at its start."""
    if isinstance(section, RandomField) and section.temperature:
        return ThermalSweepTask(item, section, seed, slab)
    kind = {CleanIsing: CleanTask, RandomField: FieldSweepTask, Percolation: PercolationTask}[type(section)]
    return kind(item, section, seed, slab)


def field_direction(section: RandomField, lattice: int) -> int:
    """+1 where the field of this lattice rises, -1 where it falls; on a grid each value gets both."""
    if section.directions != "both":
        return 1 if section.directions == "up" else -1
    return 1 if lattice // (section.grid or 1) % 2 == 0 else -1


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
