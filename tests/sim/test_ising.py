"""The clean Ising model against exact sums, published values and direct counts; every check is shown to have power."""

from types import FunctionType

import numpy as np
import pytest
from numba import njit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from stationary import (
    ALL_OPEN,
    METROPOLIS,
    OPEN,
    SQUARE,
    WOLFF,
    batch_of_64,
    free_states,
    p_values,
    p_values_in_field,
    sampled_states,
)  # fmt: skip

from hamscope.errors import ConfigError
from hamscope.sim import bernoulli, clusters, ising, metropolis, rng
from hamscope.sim.exact import TC_3D, cube_energy, kaufman_energy, layered_energy
from hamscope.sim.ising import IsingBatch
from hamscope.sim.lattice import Lattice, Slab

KEY = rng.stream_key(11, "test")
CUBE_OPEN = Lattice.of_dimension(3, 8)


def chain_energies(lattice, temperatures, updates, n_measurements, key=KEY):
    """Mean energy per site of every chain of a batch, shape (n_lattices,), after a tenth as long for thermalization."""
    batch = IsingBatch(Slab(lattice), temperatures, key, 0)
    batch.run(*(n_measurements // 10 * n for n in updates))
    total = np.zeros(len(temperatures))
    for _ in range(n_measurements):
        batch.run(*updates)
        total += batch.energies()
    return total / n_measurements


def mean_and_error(chains):
    """Mean and standard error from the spread of independent chains."""
    return chains.mean(), chains.std(ddof=1) / np.sqrt(chains.size)


@pytest.mark.parametrize("updates", [METROPOLIS, WOLFF], ids=["metropolis", "wolff"])
@pytest.mark.parametrize("case", [SQUARE, OPEN, ALL_OPEN], ids=["4x4", "2x2x4-open", "2x2x4-all-open"])
def test_stationary_distribution_is_boltzmann(case, updates):
    """640,000 samples of all states pass the chi-square test; the same with T off by 0.5 % fails it.

    So the power is shown on every run.  The planted temperature gave p < 1e-11 in all six cases, the right one p
    between 0.03 and 0.99.  A wrong carry in the adder was seen to fail for Metropolis.
    """
    shape, periodic, temperature = case
    slab, alone = Slab(Lattice(shape, periodic)), updates is METROPOLIS
    states = sampled_states(batch_of_64(slab, temperature, seed=1), updates, 10_000)
    of_pairs, of_states = p_values(states, *case, alone)
    assert of_pairs > 1e-3 and of_states > 1e-3
    states = sampled_states(batch_of_64(slab, 1.005 * temperature, seed=1), updates, 10_000)
    assert p_values(states, *case, alone)[0] < 1e-6


@pytest.mark.parametrize("updates", [METROPOLIS, WOLFF], ids=["metropolis", "wolff"])
@pytest.mark.parametrize("case", [SQUARE, OPEN, ALL_OPEN], ids=["4x4", "2x2x4-open", "2x2x4-all-open"])
def test_stationary_distribution_in_a_field_is_boltzmann(case, updates):
    """256,000 samples at H = 0.15 pass the chi-square test against the exact sum; against H = 0.16 they fail it.

    The right field gave p between 0.07 and 0.97, the other one p < 1e-8.  Here no state is free for ever, so Metropolis
    is compared with all states.
    """
    shape, periodic, temperature = case
    batch = IsingBatch(Slab(Lattice(shape, periodic)), [temperature] * 64, rng.stream_key(3, "f"), 0, [0.15] * 64)
    states = sampled_states(batch, updates, 4_000)
    assert min(p_values_in_field(states, *case, 0.15)) > 1e-3
    assert p_values_in_field(states, *case, 0.16)[0] < 1e-6


def test_faults_in_the_field_are_seen(monkeypatch):
    """Up and down exchanged in the table, and Wolff clusters that are always flipped: both fail the chi-square test."""
    shape, periodic, temperature = SQUARE
    for fault, updates in (("table", METROPOLIS), ("wolff", WOLFF)):
        batch = IsingBatch(Slab(Lattice(shape, periodic)), [temperature] * 64, rng.stream_key(3, "f"), 0, [0.15] * 64)
        if fault == "table":
            batch.tables = np.ascontiguousarray(np.roll(batch.tables, 8, axis=1))
        else:
            monkeypatch.setattr(batch, "_accepted", lambda clusters, step: np.uint64(0xFFFFFFFFFFFFFFFF))
        assert p_values_in_field(sampled_states(batch, updates, 1_000), *SQUARE, 0.15)[0] < 1e-6


def test_a_wrong_acceptance_at_the_free_surface_is_seen():
    """The table of n = 6 neighbours used for n = 5: the chi-square test that the right one passes fails."""
    shape, periodic, temperature = OPEN
    batch = batch_of_64(Slab(Lattice(shape, periodic)), temperature, seed=1)
    batch.tables[5] = batch.tables[6]
    assert p_values(sampled_states(batch, METROPOLIS, 4_000), *OPEN, True)[0] < 1e-6


def test_metropolis_alone_stays_in_the_states_where_every_flip_is_free():
    """36 of the states of the 4 x 4 lattice form closed cycles of the checkerboard; one Wolff update leads out."""
    shape, periodic, temperature = SQUARE
    caught = free_states(shape, periodic)
    assert caught.sum() == 36
    batch = batch_of_64(Slab(Lattice(shape, periodic)), temperature, seed=1)
    batch.words[1:-1] = (np.uint64(0xFFFFFFFFFFFFFFFF) * (np.arange(4) % 2).astype(np.uint64))[None, None]
    before = batch.words.copy()
    for _ in range(50):
        batch.run(1, 0)
        assert np.all(batch.energies() == 0)
    np.testing.assert_array_equal(batch.words[1:-1], before[1:-1])
    batch.run(20, 1)
    assert np.mean(batch.energies() == 0) < 0.5


@pytest.mark.parametrize("length, updates, n", [(16, (10, 0), 2000), (16, (0, 3), 2000), (32, (4, 2), 800)])
def test_energy_is_kaufmans(length, updates, n):
    """2D at four temperatures, 16 independent chains each: within 4 standard errors of the exact finite-size energy.

    What T off by 0.5 % would give lies at least 8 standard errors away at T = 2.3, which the test checks too.
    """
    values = np.array([2.1, 2.3, 2.5, 3.0])
    energies = chain_energies(Lattice.of_dimension(2, length), np.repeat(values, 16), updates, n).reshape(4, 16)
    for temperature, chains in zip(values, energies):
        mean, error = mean_and_error(chains)
        assert abs(mean - kaufman_energy(length, length, temperature)) < 4 * error, temperature
        if temperature == 2.3:
            assert abs(mean - kaufman_energy(length, length, 1.005 * temperature)) > 8 * error


@pytest.mark.parametrize("updates, n", [((10, 0), 2000), ((0, 4), 2000), ((3, 1), 2000)])
def test_energy_of_an_open_block_is_that_of_the_transfer_matrix(updates, n):
    """(6, 4, 4), open along axis 0, at and around Tc(3D): within 4 standard errors, 16 chains a temperature.

    Bonds with the probability of a T lower by 0.5 % were seen to fail, for Wolff alone and for the mixture.
    """
    values = np.array([3.5, TC_3D, 4.7, 6.0])
    energies = chain_energies(Lattice((6, 4, 4), (False, True, True)), np.repeat(values, 16), updates, n)
    for temperature, chains in zip(values, energies.reshape(4, 16)):
        mean, error = mean_and_error(chains)
        assert abs(mean - layered_energy(6, 4, temperature)) < 4 * error, temperature


def test_metropolis_and_wolff_agree_on_open_cubes():
    """8 x 8 x 8, open in z, 64 independent chains each: energies within 4 standard errors, which are below 0.3 %."""
    temperatures = np.full(64, 4.6)
    metropolis, error_1 = mean_and_error(chain_energies(CUBE_OPEN, temperatures, (20, 0), 1000))
    wolff, error_2 = mean_and_error(chain_energies(CUBE_OPEN, temperatures, (0, 5), 1000))
    error = np.hypot(error_1, error_2)
    assert error < 0.003 * abs(wolff)
    assert abs(metropolis - wolff) < 4 * error


def test_energy_at_tc_of_periodic_cubes():
    """L = 4 against the exact energy; L = 8 and 16 extrapolated against the published energy of the infinite lattice.

    L = 4: the transfer matrix.  Infinite: 0.3302022(5) a bond at Kc = 0.22165462, Hasenbusch,
    doi:10.1103/PhysRevB.85.174421; finite lattices differ from it by a L**-1.412625 (3 - 1/nu,
    doi:10.1007/JHEP08(2016)036) with corrections of relative order L**-0.83, hence an allowance of 0.002 beside the
    4 standard errors (L = 4 and 8 extrapolate to within 0.006).  T off by 0.5 % moves the energy of L = 8 by 0.03.
    """
    cubes = {length: Lattice((length,) * 3, (True,) * 3) for length in (4, 8, 16)}
    results = {
        length: mean_and_error(chain_energies(cubes[length], np.full(64, TC_3D), (4, 2), n))
        for length, n in ((4, 2000), (8, 2000), (16, 800))
    }
    mean, error = results[4]
    assert error < 0.003 and abs(mean - cube_energy(4, TC_3D)) < 4 * error
    ratio = 2**1.412625
    infinite = (ratio * results[16][0] - results[8][0]) / (ratio - 1)
    error = np.hypot(ratio * results[16][1], results[8][1]) / (ratio - 1)
    assert error < 0.003
    assert abs(infinite + 3 * 0.3302022) < 4 * error + 0.002


def largest_correlation(n_measurements=400):
    """Largest correlation coefficient of the energies of two of 64 replicas at T = 3, in standard deviations."""
    batch = IsingBatch(Slab(Lattice.of_dimension(2, 16)), np.full(64, 3.0), KEY, 0)
    batch.run(100, 0)
    energies = np.empty((n_measurements, 64))
    for row in energies:
        batch.run(10, 0)
        row[:] = batch.energies()
    r = np.corrcoef(energies.T)[np.triu_indices(64, 1)]
    return np.abs(r).max() * np.sqrt(n_measurements), np.mean(r**2) * n_measurements


def half_sweep_of_one_bit(monkeypatch):
    """The real kernel with the fault planted: the first random bit of every digit is broadcast to all replicas."""
    honest = rng.short_words

    @njit(inline="always")
    def broadcast(key, item, step, low, high):
        first, second = honest(key, item, step, low, high)
        one = np.uint64(1)
        return np.uint64(0) - (first & one), np.uint64(0) - (second & one)

    def again(function, **replaced):
        """Compile a kernel anew in a copy of its module, where some names mean something else."""
        plain = function.py_func
        return njit(FunctionType(plain.__code__, {**plain.__globals__, **replaced}, plain.__name__))

    monkeypatch.setattr(rng, "short_words", broadcast)
    digits = again(bernoulli._digits_of_3)
    four = again(bernoulli._four_digits, _digits_of_3=digits)
    flip = again(metropolis._flip, decide=again(bernoulli.decide, _four_digits=four))
    return again(metropolis.half_sweep, _flip=flip)


def test_replicas_are_independent(monkeypatch):
    """Energies of 2016 pairs of replicas are uncorrelated; with one random bit broadcast to all replicas they are not.

    Independent: the largest |r| sqrt(n) stays below 5 (the bound is passed by chance once in 900 runs), the mean of
    r**2 n is 1 within 0.15.  The broadcast is planted into the real kernel, compiled anew; it gave 8.8 and 42.
    """
    largest, mean_square = largest_correlation()
    assert largest < 5 and abs(mean_square - 1) < 0.15
    monkeypatch.setattr(ising, "half_sweep", half_sweep_of_one_bit(monkeypatch))
    largest, mean_square = largest_correlation()
    assert largest > 7 and mean_square > 3


def variance_ratio(words_alike: bool, n_batches: int = 40) -> float:
    """Variance of the mean energy over 64 replicas, times 64, over that of one replica in independent runs."""
    means, ones = [], []
    for item in range(n_batches):
        batch = IsingBatch(Slab(Lattice.of_dimension(2, 16)), np.full(64, 3.0), KEY, item)
        if words_alike:
            batch.words[:] = np.where(batch.words & np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0))
        batch.run(50, 0)
        energies = batch.energies()
        means.append(energies.mean())
        ones.append(energies)
    return 64 * np.var(means, ddof=1) / np.mean(np.var(ones, axis=0, ddof=1))


def test_the_mean_over_replicas_varies_as_that_of_independent_runs(monkeypatch):
    """The ratio of variances is 1 within 4 standard deviations of a chi-square with 39 degrees of freedom (0.9).

    With one random bit and one start for all replicas it is 64: they are the same lattice.
    """
    assert abs(variance_ratio(False) - 1) < 0.9
    monkeypatch.setattr(ising, "half_sweep", half_sweep_of_one_bit(monkeypatch))
    assert variance_ratio(True) > 10


@pytest.mark.parametrize(
    "shape, periodic",
    [((4, 1, 6), (True, False, True)), ((3, 4, 6), (False, True, True)), ((2, 2, 2), (True, True, True)),
     ((5, 3, 1), (False, False, False)), ((3, 2, 5), (False, True, False))],
)  # fmt: skip
def test_observables_are_direct_sums(shape, periodic):
    """Energies and magnetizations against loops over sites and their neighbours."""
    batch = IsingBatch(Slab(Lattice(shape, periodic)), np.linspace(1, 6, 5), KEY, 0)
    batch.run(3, 2)
    for bit, (energy, magnetization) in enumerate(zip(batch.energies(), batch.magnetizations())):
        s = 2.0 * batch.spins(bit) - 1
        assert s.shape == shape and magnetization == pytest.approx(s.mean())
        total = 0.0
        for site in np.ndindex(shape):
            for axis in range(3):
                other = list(site)
                other[axis] += 1
                if other[axis] == shape[axis]:
                    if not periodic[axis]:
                        continue
                    other[axis] = 0
                total -= s[site] * s[tuple(other)]
        assert energy == pytest.approx(total / s.size)


def test_probability_one_and_zero_are_exact():
    """T = infinity: Metropolis flips every site, and a Wolff cluster is its seed; T = 0.01: free flips alone happen.

    Seen to fail with the digit before the point left out of the tables.
    """
    batch = IsingBatch(Slab(CUBE_OPEN), [np.inf] * 64, KEY, 0)
    before = batch.words[1:-1].copy()
    for _ in range(3):
        batch.sweep()
        before = ~before
        np.testing.assert_array_equal(batch.words[1:-1], before)
    batch.wolff()
    assert all(((batch.words[1:-1] ^ before) >> np.uint64(bit) & np.uint64(1)).sum() == 1 for bit in range(64))
    cold = IsingBatch(Slab(CUBE_OPEN), [0.01] * 64, KEY, 0)
    cold.words[:] = 0
    cold.run(5, 0)
    assert not cold.words.any()


def test_bernoulli_has_the_probability_of_its_digits():
    """Frequencies of 64 probabilities within 4.5 standard deviations of 64 binomials; p is rounded to 2**-32.

    Seen to fail with the digits in the opposite order and with one digit skipped.
    """
    p = np.linspace(0.001, 0.999, 64)
    digits = bernoulli.binary_digits(p)
    assert digits.shape == (33,) and bernoulli.binary_digits(np.array([1.0, 0.0]))[0] == 1
    values = sum(((digits[d] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)) * 2.0**-d for d in range(33))
    np.testing.assert_allclose(values, p, atol=2.0**-33)
    # Every site of a lattice of spins up offers its bonds to all lattices.
    n = 200
    words = np.full((3, n, n), 0xFFFFFFFFFFFFFFFF, np.uint64)
    bonds = np.zeros((2, *words.shape), np.uint64)
    for axis in (1, 2):
        clusters.active_bonds(
            bonds[axis - 1], words, axis, 0, 1, (False, True, True), digits[None], np.uint64(0xFFFFFFFFFFFFFFFF), KEY,
            np.uint64(0), np.uint64(0),
        )  # fmt: skip
    bonds = bonds[:, 1]
    successes = np.array([np.sum((bonds >> np.uint64(bit)) & np.uint64(1)) for bit in range(64)])
    assert np.all(np.abs(successes - p * bonds.size) < 4.5 * np.sqrt(p * (1 - p) * bonds.size))


@pytest.mark.parametrize(
    "shape, periodic",
    [((8, 1, 8), (True, False, True)), ((6, 4, 6), (False, True, True)), ((2, 2, 4), (True, True, True)),
     ((4, 1, 64), (True, False, True)), ((6, 2, 130), (True, True, True)), ((3, 5, 67), (False, False, False)),
     ((128, 1, 1), (True, False, False)), ((3, 3, 2), (False, False, True)), ((1, 1, 190), (False, False, True))],
)  # fmt: skip
def test_a_wolff_cluster_is_a_connected_component(shape, periodic):
    """What flips is one whole component of the graph of active bonds, of equal spins; found by scipy from the bonds.

    From hot lattices and from cold ones, which have long runs of bonds.  Seen to fail with the bonds downwards along
    axis 0 left out, with a carry lost between two words (each direction alone), with the end of a periodic row taken
    for the end of its last word, with one step of the filling of a word left out (any of them), with nothing carried
    in from the halo above, with the bonds there not asked, with clusters not emptied, with words that wait twice,
    and with two random numbers for a bond across the periodic boundary.
    """
    lattice = Lattice(shape, periodic)
    batch = IsingBatch(Slab(lattice), np.linspace(0.5, 8, 64), KEY, 0)
    batch.run(4, 0)
    sites = np.arange(lattice.n_sites).reshape(shape)
    for update in range(10):
        if update == 5:
            batch.words[:] = 0
        before, step = batch.words.copy(), np.uint64(batch.updates * bernoulli.STEPS)
        batch.slab.exchange(before)
        bonds = np.zeros((3, *before.shape), np.uint64)
        for axis in range(3):
            clusters.active_bonds(
                bonds[axis], before, axis, 0, shape[0], periodic, batch.bond_table, batch.active, batch._keys["bonds"],
                batch.item, step,
            )  # fmt: skip
        batch.wolff()
        for bit in range(64):
            flipped = ((batch.words ^ before)[1:-1] >> np.uint64(bit)).ravel() & np.uint64(1) == 1
            active = [(bonds[axis, 1:-1] >> np.uint64(bit)).ravel() & np.uint64(1) == 1 for axis in range(3)]
            ends = [(sites.ravel()[a], np.roll(sites, -1, axis).ravel()[a]) for axis, a in enumerate(active)]
            rows, columns = np.concatenate(ends, axis=1)
            graph = coo_array((np.ones(rows.size), (rows, columns)), (sites.size, sites.size))
            labels = connected_components(graph, directed=False)[1]
            assert flipped.any() and np.array_equal(flipped, labels == labels[flipped][0])
            spins = (before[1:-1] >> np.uint64(bit)).ravel()[flipped] & np.uint64(1)
            assert spins.min() == spins.max()


def test_two_halves_are_the_whole():
    """60 sweeps and 20 updates equal 30 + 10, a new object with the same words and counters, and 30 + 10 more.

    Seen to fail with `updates` not carried over.
    """
    temperatures = np.linspace(4.4, 4.7, 64)
    whole = IsingBatch(Slab(CUBE_OPEN), temperatures, KEY, 5)
    whole.run(60, 20)
    half = IsingBatch(Slab(CUBE_OPEN), temperatures, KEY, 5)
    half.run(30, 10)
    again = IsingBatch(Slab(CUBE_OPEN), temperatures, KEY, 5)
    again.words[:], again.sweeps, again.updates = half.words, half.sweeps, half.updates
    again.run(30, 10)
    np.testing.assert_array_equal(again.words[1:-1], whole.words[1:-1])
    assert (again.sweeps, again.updates) == (60, 20)


def test_a_lattice_does_not_depend_on_the_others():
    """The first 5 of 64 lattices are those of a batch of 5; bits without a lattice stay 0; other items differ."""
    temperatures = np.linspace(2.2, 2.6, 64)
    lattice = Lattice.of_dimension(2, 12)
    full, few, other = (IsingBatch(Slab(lattice), t, KEY, item)
                        for t, item in ((temperatures, 0), (temperatures[:5], 0), (temperatures, 1)))  # fmt: skip
    for batch in (full, few, other):
        batch.run(20, 7)
    for bit in range(5):
        np.testing.assert_array_equal(few.spins(bit), full.spins(bit))
    assert few.energies().shape == few.magnetizations().shape == (5,)
    assert not np.any(few.words >> np.uint64(5))
    assert np.mean([np.mean(full.spins(bit) == other.spins(bit)) for bit in range(64)]) < 0.7
    with pytest.raises(IndexError):
        few.spins(5)


def test_run_spreads_the_updates(monkeypatch):
    """3 updates in 7 sweeps come one at a time, not in a row; none is lost, also without sweeps."""
    batch = IsingBatch(Slab(Lattice.of_dimension(2, 4)), [2.3], KEY, 0)
    calls = []
    monkeypatch.setattr(batch, "sweep", lambda: calls.append("s"))
    monkeypatch.setattr(batch, "wolff", lambda: calls.append("w"))
    batch.run(7, 3)
    assert "".join(calls) == "ssswsswssw"
    calls.clear()
    batch.run(0, 2)
    batch.run(2, 5)
    assert "".join(calls) == "ww" + "swwswww"


@pytest.mark.parametrize(
    "lattice, temperatures, reason",
    [
        (CUBE_OPEN, [2.0, 0.0], "must be positive"),
        (CUBE_OPEN, [np.nan], "must be positive"),
        (CUBE_OPEN, [], "1 to 64"),
        (CUBE_OPEN, [2.0] * 65, "1 to 64"),
        (Lattice((8, 7, 8), (False, True, True)), [2.0], r"try \(8, 8, 8\)"),
    ],
)
def test_mistakes_are_refused(lattice, temperatures, reason):
    with pytest.raises(ConfigError, match=reason):
        IsingBatch(Slab(lattice), temperatures, KEY, 0)
