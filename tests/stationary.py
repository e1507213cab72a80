"""Chi-square test of the stationary distribution of a sampler against the exact sum over all states.

A lattice of 16 sites has 65,536 states.  64 lattices at one temperature are measured every few updates, far apart
compared with their memory, which makes the samples independent.  Two statistics are tested: the pair (energy,
|magnetization|), which has few bins and so sees small errors of the temperature, and the state itself, which sees
sites that are not treated alike.

On the 4 x 4 lattice 36 states, such as stripes of width 1, have two antiparallel neighbours at every site.  There
every flip is free and so is always taken: a checkerboard of Metropolis alone passes through these states in a fixed
cycle for ever.  As the Boltzmann weights are stationary, nothing enters the cycle either.  So Metropolis alone is
compared with the sum over the other states, for lattices that started in one of these; Wolff updates know no such
cycle.  (At random, a lattice of L x L sites starts there with a probability of about 2**(-L * L).)
"""

import numpy as np
from scipy import stats

from hamscope.sim import rng
from hamscope.sim.exact import enumerate_ising, state_energies
from hamscope.sim.ising import IsingBatch

SQUARE = ((4, 1, 4), (True, False, True), 3.0)
OPEN = ((4, 2, 2), (False, True, True), 4.0)
ALL_OPEN = ((2, 2, 4), (False, False, False), 2.6)
METROPOLIS, WOLFF = (20, 0), (0, 8)
_FEWEST = 10


def sampled_states(batch: IsingBatch, updates: tuple[int, int], n_measurements: int) -> np.ndarray:
    """Numbers of the states met, shape (n_measurements, n_lattices): bit k of a number is the spin of site k."""
    slab, n_lattices = batch.slab, batch.temperatures.size
    first = slab.start * slab.lattice.shape[1] * slab.lattice.shape[2]
    bits = np.arange(n_lattices, dtype=np.uint64)
    batch.run(20 * updates[0], 20 * updates[1])
    states = np.zeros((n_measurements, n_lattices), np.uint32)
    places = np.arange(batch.words[1:-1].size, dtype=np.uint64)[:, None] + np.uint64(first)
    for row in states:
        batch.run(*updates)
        row[:] = (((batch.words[1:-1].reshape(-1, 1) >> bits) & np.uint64(1)) << places).sum(0)
    return slab.sum(states)


def p_values(states: np.ndarray, shape, periodic, temperature, metropolis_alone: bool) -> tuple[float, float]:
    """p of the chi-square test for (energy, |magnetization|) and for the states themselves."""
    probabilities, energies = enumerate_ising(shape, periodic, temperature)
    if metropolis_alone:
        caught = free_states(shape, periodic)
        states = states[:, ~caught[states[0]]]
        probabilities = np.where(caught, 0, probabilities)
        probabilities /= probabilities.sum()
    everything = np.arange(probabilities.size)
    ups = sum((everything >> k) & 1 for k in range(16))
    pairs = np.unique(np.column_stack([energies, abs(ups - 8)]), axis=0, return_inverse=True)[1].ravel()
    counts = np.bincount(states.ravel(), minlength=probabilities.size)
    return tuple(_chi_square(counts, probabilities, labels) for labels in (pairs, everything))


def p_values_in_field(states: np.ndarray, shape, periodic, temperature, field) -> tuple[float, float]:
    """p for (energy, magnetization) and for the states, in a uniform field H/J, by the sum over all 65,536 states."""
    energies, everything = state_energies(shape, periodic), np.arange(65536)
    moments = 2 * sum((everything >> k) & 1 for k in range(16)) - 16
    exponents = -(energies - field * moments) / temperature
    probabilities = np.exp(exponents - exponents.max())
    probabilities /= probabilities.sum()
    pairs = np.unique(np.column_stack([energies, moments]), axis=0, return_inverse=True)[1].ravel()
    counts = np.bincount(states.ravel(), minlength=65536)
    return tuple(_chi_square(counts, probabilities, labels) for labels in (pairs, everything))


def free_states(shape, periodic) -> np.ndarray:
    """The states in which a flip of any site costs nothing, shape (65536,), bool."""
    energies = state_energies(shape, periodic)
    states = np.arange(energies.size)
    return np.all([energies[states ^ (1 << site)] == energies for site in range(16)], axis=0)


def field_statistics(states, shape, periodic, temperature, fields) -> dict[str, float]:
    """How well states agree with the Boltzmann distribution in the field H + h_i of every site.

    `fields` has the shape of the lattice, `states` one column a chain.  Returns p of the chi-square test for the energy
    ("p_energies", in 40 bins of equal probability, as the energies of all states differ) and for the states
    themselves ("p_states"); and by how many standard errors, from the spread of the chains, the mean energy and the
    magnetization are off ("z_energy", "z_magnetization").
    """
    everything, energies = np.arange(2**16), state_energies(shape, periodic)
    spins = 2.0 * ((everything[:, None] >> np.arange(16)) & 1) - 1
    energies -= spins @ fields.ravel()
    weights = np.exp(-(energies - energies.min()) / temperature)
    probabilities = weights / weights.sum()
    order = np.argsort(energies)
    bins = np.empty(order.size, int)
    bins[order] = np.minimum(40 * np.cumsum(probabilities[order]), 39).astype(int)
    counts = np.bincount(states.ravel(), minlength=probabilities.size)
    found = {
        f"p_{name}": _chi_square(counts, probabilities, k) for name, k in (("energies", bins), ("states", everything))
    }
    for name, values in (("energy", energies), ("magnetization", spins.sum(1))):
        chains = values[states].mean(0)
        found[f"z_{name}"] = (chains.mean() - probabilities @ values) / (chains.std(ddof=1) / np.sqrt(chains.size))
    return found


def _chi_square(counts, probabilities, labels) -> float:
    expected = counts.sum() * np.bincount(labels, probabilities)
    observed = np.bincount(labels, counts)
    # Bins with too few expected events make one bin together.
    order = np.argsort(expected)
    bins = np.empty(order.size, int)
    bins[order] = np.maximum.accumulate(np.floor(np.cumsum(expected[order]) / _FEWEST).astype(int))
    large = expected >= _FEWEST
    bins[large] = bins.max() + 1 + np.arange(large.sum())
    _, bins = np.unique(bins, return_inverse=True)
    expected, observed = np.bincount(bins, expected), np.bincount(bins, observed)
    keep = expected > _FEWEST / 2
    return float(stats.chisquare(observed[keep], expected[keep] * observed[keep].sum() / expected[keep].sum()).pvalue)


def batch_of_64(slab, temperature: float, seed: int, kind=IsingBatch) -> IsingBatch:
    return kind(slab, [temperature] * 64, rng.stream_key(seed, "stationary"), 0)
