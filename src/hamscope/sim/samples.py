"""From one table of the config to states of its model: what is drawn, in which order, with which parameter.

A *work item* is what one group of processes computes at once: 64 lattices of a clean Ising model (the bits of a
word), one field sweep of a random-field model, one lattice of percolation.  Everything random is keyed by the seed,
the class and the item, so items can be drawn by anyone in any order.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

from hamscope.config import CleanIsing, Percolation, RandomField
from hamscope.models import BY_NAME
from hamscope.sim import percolation, rfim, rng
from hamscope.sim.ising import IsingBatch
from hamscope.sim.lattice import Lattice, Slab

BATCH = 64
# Nanoseconds per site: one sweep of a batch, one Wolff update of a batch, one field sweep, one coin.  They weigh
# work items against each other and feed the time left; no result depends on them.
_COST_SWEEP, _COST_WOLFF, _COST_FIELD, _COST_COIN = 20.0, 80.0, 700.0, 5.0
_CHUNKS = 50


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
    sweep: int
    spins: np.ndarray


def work_items(name: str, section, length: int) -> list[Item]:
    """The work items of one class for lattices of `length` sites a side, in the order of their numbers."""
    sites = Lattice.of_dimension(BY_NAME[name].dimension, length).n_sites * 1e-9
    if isinstance(section, CleanIsing):
        measured = section.measurements - 1
        sweeps = section.thermalization_sweeps + measured * section.sweeps_between
        updates = section.thermalization_wolff + measured * section.wolff_between
        size, cost = BATCH, sites * (sweeps * _COST_SWEEP + updates * _COST_WOLFF)
    else:
        size, cost = 1, sites * (_COST_FIELD if isinstance(section, RandomField) else _COST_COIN)
    firsts = range(0, section.lattices, size)
    return [Item(name, k, first, min(first + size, section.lattices), cost) for k, first in enumerate(firsts)]


def draw(
    item: Item, section, seed: int, slab: Slab, tick: Callable[[float], None] = lambda _: None
) -> Iterator[Sample]:
    """Draw the states of a work item on a slab, in an order that depends on nothing but the config.

    `tick` is called with each finished share of the item's work; the shares sum to 1.
    """
    kind = {CleanIsing: _clean, RandomField: _random_field, Percolation: _percolation}[type(section)]
    return kind(item, section, seed, slab, tick)


def _clean(item: Item, section: CleanIsing, seed: int, slab: Slab, tick) -> Iterator[Sample]:
    """S2: thermalise with Metropolis sweeps and Wolff updates, then measure every few of both."""
    temperatures = spread((section.temperature,), section.lattices, seed, item.name)[item.first : item.last]
    batch = IsingBatch(slab, temperatures, rng.stream_key(seed, item.name, "chain"), item.number)
    total = section.thermalization_sweeps + (section.measurements - 1) * section.sweeps_between
    done = np.linspace(0, 1, _CHUNKS + 1)
    sweeps = (done * section.thermalization_sweeps).astype(int)
    updates = (done * section.thermalization_wolff).astype(int)
    for chunk in range(_CHUNKS):
        batch.run(int(sweeps[chunk + 1] - sweeps[chunk]), int(updates[chunk + 1] - updates[chunk]))
        tick((sweeps[chunk + 1] - sweeps[chunk]) / total)
    for measurement in range(section.measurements):
        if measurement:
            batch.run(section.sweeps_between, section.wolff_between)
            tick(section.sweeps_between / total)
        for bit, magnetization in enumerate(batch.magnetizations()):
            yield Sample(
                item.first + bit, measurement, temperatures[bit], 0.0, 0, magnetization, batch.sweeps, batch.spins(bit)
            )


def _random_field(item: Item, section: RandomField, seed: int, slab: Slab, tick) -> Iterator[Sample]:
    """One adiabatic field sweep at T = 0; the first stable state at or past each target magnetization."""
    disorder = spread((section.disorder,), section.lattices, seed, item.name)[item.first]
    direction = 1 if item.number % 2 == 0 else -1
    fields = direction * rfim.random_fields(slab, disorder, rng.stream_key(seed, item.name, "fields"), item.number)
    flips = rfim.flip_fields(slab, fields)
    share = uniforms(rng.stream_key(seed, item.name, "targets"), section.snapshots, item.number)
    strata = (np.arange(section.snapshots) + share) / section.snapshots
    targets = section.max_magnetization * (2 * strata - 1)
    tick(1.0)
    for snapshot, (field, magnetization) in enumerate(zip(*rfim.stable_states(slab, flips, targets))):
        spins = (flips <= field) if direction == 1 else (flips > field)
        yield Sample(
            item.first,
            snapshot,
            disorder,
            direction * field,
            direction,
            direction * magnetization,
            0,
            spins.astype(np.uint8),
        )


def _percolation(item: Item, section: Percolation, seed: int, slab: Slab, tick) -> Iterator[Sample]:
    """A biased coin for every site."""
    p = spread(section.probability, section.lattices, seed, item.name)[item.first]
    key = rng.stream_key(seed, item.name, "sites")
    spins = percolation.sites(slab.lattice, p, key, item.number, slab.start, slab.stop)
    magnetization = 2 * slab.sum(int(spins.sum())) / slab.lattice.n_sites - 1
    tick(1.0)
    yield Sample(item.first, 0, p, 0.0, 0, magnetization, 0, spins)


def spread(ranges: tuple[tuple[float, float], ...], count: int, seed: int, name: str) -> np.ndarray:
    """Parameters of `count` lattices, shape (count,): lattice k takes range k % len(ranges), one number a stratum."""
    share = uniforms(rng.stream_key(seed, name, "parameter"), count, 0)
    values = np.empty(count)
    for k, (low, high) in enumerate(ranges):
        mine = slice(k, None, len(ranges))
        n = len(values[mine])
        values[mine] = low + (high - low) * (np.arange(n) + share[mine]) / max(n, 1)
    return values


@njit(cache=True)
def uniforms(key, count, item):
    """`count` uniform numbers in (0, 1), shape (count,), of one work item."""
    values = np.empty(count)
    for k in range(count):
        values[k] = rng.uniform(key, item, 0, k)
    return values
