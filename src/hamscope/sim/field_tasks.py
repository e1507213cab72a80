"""The field sweeps of random-field lattices as tasks: adiabatic at T = 0, driven at T > 0."""

import numpy as np

from hamscope.config import RandomField
from hamscope.models import BY_NAME
from hamscope.sim import rfim, rng
from hamscope.sim.branch import sites_up
from hamscope.sim.lattice import Slab, exchange_energy
from hamscope.sim.rfim_thermal import HeatBath
from hamscope.sim.tasks import BITE, Avalanches, Item, LatticeTask, Sample, Task, spread, uniforms

# Nanoseconds per site of one adiabatic sweep, and of one sweep of a heat bath.
_COST_FIELD, _COST_HEAT = 130.0, 4.0


def field_cost(name: str, section: RandomField) -> float:
    """Nanoseconds per site of one field sweep."""
    return DriveSchedule(name, section).expected * _COST_HEAT if section.temperature else _COST_FIELD


class FieldSweepTask(LatticeTask):
    """Adiabatic field sweeps at T = 0; of each the first stable state at or past every target magnetization."""

    def __init__(self, item: Item, section: RandomField, seed: int, slab: Slab):
        super().__init__(item, section, seed, slab)
        self.disorder = spread(section, (section.disorder,), seed, item.name)
        self.sweep: rfim.FieldSweep | None = None
        # A large lattice is swept in several bites, by the share of its sites that flip in one.
        self.bite = BITE / (slab.lattice.n_sites * 1e-9 * _COST_FIELD)

    def advance(self) -> list[Sample]:
        if self.sweep is None:
            self.sweep = rfim.FieldSweep(self.slab, self._fields())
        before = self.sweep.share
        while not self.sweep.done and self.sweep.share - before < self.bite:
            self.sweep.advance()
        if self.sweep.done:
            return super().advance()
        self._count(self.next)
        return []

    def draw(self, lattice: int) -> list[Sample]:
        section, slab, flips = self.section, self.slab, self.sweep.flips
        disorder, direction = self.disorder[lattice], field_direction(section, lattice)
        targets = magnetization_targets(section, self.seed, self.item.name, lattice)
        samples = []
        for snapshot, (field, magnetization) in enumerate(zip(*rfim.stable_states(slab, flips, targets))):
            spins = ((flips <= field) if direction == 1 else (flips > field)).astype(np.uint8)
            samples.append(Sample(lattice, snapshot, disorder, direction * field, direction, direction * magnetization,
                                  exchange_energy(slab, spins), 0, spins))  # fmt: skip
        self.avalanches.append(Avalanches(lattice, disorder, direction, rfim.avalanche_counts(slab, flips)))
        self.sweep = None
        return samples

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        if self.sweep is None:
            return super().state()
        return {"flips": self.sweep.flips}, {"next": self.next, "edge": self.sweep.edge, "width": self.sweep.width}

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict) -> None:
        self.next = numbers["next"]
        if arrays:
            self.sweep = rfim.FieldSweep.resume(
                self.slab, self._fields(), arrays["flips"], numbers["edge"], numbers["width"]
            )
        self._count(self.next)

    def _fields(self) -> rfim.Gaussian:
        """The random fields of the next lattice; a sweep downwards is the upward sweep of the opposite fields."""
        disorder = field_direction(self.section, self.next) * self.disorder[self.next]
        return rfim.Gaussian(disorder, rng.stream_key(self.seed, self.item.name, "fields"), self.next)

    def _count(self, following: int) -> None:
        super()._count(following)
        if self.sweep is not None:
            self.share += self.sweep.share / (self.item.last - self.item.first)


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
        self.bite = max(1, int(BITE / (slab.lattice.n_sites * 1e-9 * _COST_HEAT)))
        self._begin(item.first)
        self._count()

    def _begin(self, lattice: int) -> None:
        """Go to lattice number `lattice` of the class, saturated, or to the end where the item has no more."""
        self.lattice = lattice
        if lattice == self.item.last:
            return
        section, slab, seed, name = self.section, self.slab, self.seed, self.item.name
        self.direction = field_direction(section, lattice)
        keys = [rng.stream_key(seed, name, use) for use in ("fields", "heat bath")]
        fields = self.direction * rfim.random_fields(slab, self.disorder[lattice], keys[0], lattice)
        self.bath = HeatBath(slab, fields, section.temperature, keys[1], lattice)
        targets = magnetization_targets(section, seed, name, lattice)
        self.wanted = sites_up(slab.lattice.n_sites, targets)
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


def field_direction(section: RandomField, lattice: int) -> int:
    """+1 where the field of this lattice rises, -1 where it falls; on a grid each value gets both."""
    if section.directions != "both":
        return 1 if section.directions == "up" else -1
    return 1 if lattice // (section.grid or 1) % 2 == 0 else -1


def magnetization_targets(section: RandomField, seed: int, name: str, lattice: int) -> np.ndarray:
    """Magnetizations at which a field sweep is looked at, shape (snapshots,): one drawn from each equal stratum."""
    share = uniforms(rng.stream_key(seed, name, "targets"), section.snapshots, lattice)
    strata = (np.arange(section.snapshots) + share) / section.snapshots
    return section.max_magnetization * (2 * strata - 1)
