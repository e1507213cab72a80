"""From one table of the config to its work items and their tasks: what is drawn, and with which parameter."""

import numpy as np

from hamscope.config import CleanIsing, Percolation, RandomField
from hamscope.models import BY_NAME
from hamscope.sim import percolation, rng
from hamscope.sim.field_tasks import FieldSweepTask, ThermalSweepTask, field_cost
from hamscope.sim.ising import IsingBatch
from hamscope.sim.lattice import Lattice, Slab, exchange_energy
from hamscope.sim.tasks import BITE, Item, LatticeTask, Sample, Task, spread

BATCH = 64
# Seconds: the least work of an item, so that there are not too many.
_ITEM = 0.5
# Nanoseconds per site: one sweep of a batch, one coin.  Like those of the Wolff updates below and of the field sweeps
# they weigh work items against each other and feed the time left; no result depends on them.
_COST_SWEEP, _COST_COIN = 8.5, 5.0
_COST_WOLFF = {2: 39.0, 3: 47.0}


def work_items(name: str, section, length: int) -> list[Item]:
    """The work items of one class for lattices of `length` sites a side, in the order of their numbers."""
    dimension = BY_NAME[name].dimension
    sites = Lattice.of_dimension(dimension, length).n_sites * 1e-9
    if isinstance(section, CleanIsing):
        measured = section.measurements - 1
        sweeps = section.thermalization_sweeps + measured * section.sweeps_between
        updates = section.thermalization_wolff + measured * section.wolff_between
        size, each = BATCH, sites * (sweeps * _COST_SWEEP + updates * _COST_WOLFF[dimension]) / BATCH
    else:
        each = sites * (field_cost(name, section) if isinstance(section, RandomField) else _COST_COIN)
        size = int(np.clip(_ITEM / each, 1, BATCH))
    spans = [(first, min(first + size, section.lattices)) for first in range(0, section.lattices, size)]
    clean = isinstance(section, CleanIsing)
    # A batch costs the same however many of its bits have a lattice.
    return [Item(name, k, a, b, each * (BATCH if clean else b - a)) for k, (a, b) in enumerate(spans)]


class CleanTask(Task):
    """S2: thermalise with Metropolis sweeps and Wolff updates, then measure every few of both."""

    def __init__(self, item: Item, section: CleanIsing, seed: int, slab: Slab):
        super().__init__(item, section, seed, slab)
        self.temperatures = spread(section, (section.temperature,), seed, item.name)[item.first : item.last]
        self.batch = IsingBatch(slab, self.temperatures, rng.stream_key(seed, item.name, "chain"), item.number,
                                [section.field] * self.temperatures.size if section.field else None)  # fmt: skip
        self.measured = 0
        self.total = section.thermalization_sweeps + (section.measurements - 1) * section.sweeps_between

    def advance(self) -> list[Sample]:
        s, batch = self.section, self.batch
        if batch.sweeps < s.thermalization_sweeps:
            begin, sweeps, updates = 0, s.thermalization_sweeps, s.thermalization_wolff
        else:
            begin = s.thermalization_sweeps + (self.measured - 1) * s.sweeps_between
            sweeps, updates = s.sweeps_between, s.wolff_between
        wolff = _COST_WOLFF[BY_NAME[self.item.name].dimension] * updates / sweeps
        bite = max(1, int(BITE / (self.slab.lattice.n_sites * 1e-9 * (_COST_SWEEP + wolff))))
        for k in range(batch.sweeps - begin, min(batch.sweeps - begin + bite, sweeps)):
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

    def seconds(self) -> dict[str, float]:
        return self.batch.seconds

    def _count(self) -> None:
        self.share = self.batch.sweeps / self.total
        self.done = self.measured == self.section.measurements


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
