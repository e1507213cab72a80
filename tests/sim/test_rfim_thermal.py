"""The random field at T > 0 against exact sums over all states, a naive heat bath, and the adiabatic sweep."""

import numpy as np
import pytest
from stationary import field_statistics

from hamscope.config import RandomField
from hamscope.errors import ConfigError
from hamscope.sim import field_tasks, rng, samples
from hamscope.sim.exact_rfim import brute_force_sweep, local_fields
from hamscope.sim.lattice import Lattice, Slab
from hamscope.sim.rfim import random_fields
from hamscope.sim.rfim_thermal import HeatBath

KEY = rng.stream_key(31, "thermal")
SQUARE = ((4, 1, 4), (True, False, True))
OPEN = ((4, 2, 2), (False, True, True))
SHAPES = [
    SQUARE,
    OPEN,
    ((2, 1, 2), (True, False, True)),
    ((1, 1, 7), (False, False, False)),
    ((6, 1, 1), (True, False, False)),
    ((4, 3, 5), (False, False, False)),
    ((5, 4, 26), (False, True, True)),
    ((4, 2, 9), (True, True, False)),
    ((2, 2, 2), (True, True, True)),
]


def sampled_states(shape, periodic, temperature, h, field, sweeps, chains=64, measurements=1500):
    """Numbers of the states met at H = `field`, shape (measurements, chains): bit k of a number is the spin of k."""
    places = np.arange(16, dtype=np.uint32).reshape(shape)
    states = np.zeros((measurements, chains), np.uint32)
    for chain in range(chains):
        bath = HeatBath(Slab(Lattice(shape, periodic)), h, temperature, KEY, chain)
        for _ in range(10 * sweeps):
            bath.sweep(field)
        for row in states:
            for _ in range(sweeps):
                bath.sweep(field)
            row[chain] = np.sum((bath.spins[1:-1] > 0).astype(np.uint32) << places)
    return states


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("case", [SQUARE, OPEN], ids=["4x4", "2x2x4-open"])
def test_stationary_distribution_is_boltzmann(case, seed):
    """96,000 samples of all states, from 64 chains in one random field, against the exact sum.

    The chi-square tests are passed, and the mean energy and magnetization lie within 4 standard errors, which come
    from the spread of the chains.  The power is shown on every run: for T off by 1 % the energy of the same samples is
    more than 4 standard errors from the exact one (5.0 to 8.3), for H off by 0.02 the magnetization (9 to 15), and for
    h of the wrong sign the chi-square test fails.  Seen to fail with T off by 1 % and H by 0.02 in the sampler, with a
    bond too many at the open surface, with too tight a bound before the exponential, and with the sweep left out of
    the random key.
    """
    shape, periodic = case
    temperature, field, sweeps = (3.5, 0.4, 5) if case is SQUARE else (5.0, 0.4, 6)
    h = random_fields(Slab(Lattice(shape, periodic)), 1.5, rng.stream_key(seed, "fields"), 0)
    states = sampled_states(shape, periodic, temperature, h, field, sweeps)
    right = field_statistics(states, shape, periodic, temperature, field + h)
    assert min(right["p_energies"], right["p_states"]) > 1e-3
    assert max(abs(right["z_energy"]), abs(right["z_magnetization"])) < 4
    assert abs(field_statistics(states, shape, periodic, 1.01 * temperature, field + h)["z_energy"]) > 4
    assert abs(field_statistics(states, shape, periodic, temperature, field + 0.02 + h)["z_magnetization"]) > 4
    assert field_statistics(states, shape, periodic, temperature, field - h)["p_states"] < 1e-6


def naive_sweep(up, h, periodic, field, temperature, direction, key, item, sweeps):
    """One heat-bath sweep in place, site by site in plain Python, of `up` (n0, n1, n2), bool.

    With `direction` -1 the random numbers decide about down where they else decide about up.  The sites of one colour
    in a row share numbers: the two words of site k of the first half serve it and site k of the second half.
    """
    n0, n1, n2 = up.shape
    for colour in (0, 1):
        drives = 2 * direction * (local_fields(up, h, periodic) + field) / temperature
        for i, j in np.ndindex(n0, n1):
            sites = [x for x in range(n2) if (i + j + x) % 2 == colour]
            half = (len(sites) + 1) // 2
            for k, x in enumerate(sites):
                site = (i * n1 + j) * n2 + sites[k % half]
                word = int(rng.random_words(key, np.uint64(item), np.uint64(2 * sweeps + colour), site)[k // half])
                u = ((word >> 12) + 0.5) / 2**52
                up[i, j, x] = (u < 1 / (1 + np.exp(-drives[i, j, x]))) == (direction == 1)


@pytest.mark.parametrize("temperature", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("shape, periodic", SHAPES)
def test_every_spin_against_a_naive_heat_bath(shape, periodic, temperature):
    """30 sweeps in a rising field on chains, squares and blocks, periodic and free: the same spins after each.

    Seen to fail with the ends of an open axis 0, 1 or 2 joined, with h of a neighbour, without the halo exchange, with
    the same colour twice, with the random number not mirrored, and with CERTAIN at 8 ln 2.
    """
    h = random_fields(Slab(Lattice(shape, periodic)), 1.3, KEY, 1)
    bath, up = HeatBath(Slab(Lattice(shape, periodic)), h, temperature, KEY, 7), np.zeros(shape, bool)
    for sweep, field in enumerate(np.linspace(-1, 1.5, 30)):
        bath.sweep(field)
        naive_sweep(up, h, periodic, field, temperature, 1, KEY, 7, sweep)
        np.testing.assert_array_equal(bath.spins[1:-1], np.where(up, 1, -1))


def drawn(section, name, length, seed=5, lattices=1):
    """The samples of the first lattices of a class, from its first task."""
    item = samples.work_items(name, section, length)[0]._replace(last=lattices)
    task = samples.make_task(item, section, seed, Slab(Lattice.of_dimension(2 if "2D" in name else 3, length)))
    found = []
    while not task.done:
        found += task.advance()
    return found


def targets_of(section, name, seed, lattice):
    share = [rng.uniform(rng.stream_key(seed, name, "targets"), lattice, 0, k) for k in range(section.snapshots)]
    return section.max_magnetization * (2 * (np.arange(section.snapshots) + share) / section.snapshots - 1)


@pytest.mark.parametrize("directions", ["up", "down"])
@pytest.mark.parametrize("name, length, disorder", [("RF-2D", 12, 1.5), ("RF-3D", 6, 2.6)])
def test_samples_are_those_of_a_naive_drive(name, length, disorder, directions):
    """Spins, H, m, sweep and number of every sample: the naive heat bath in a field that really rises or falls.

    A falling field of the task is a rising one of -h with all spins turned; here it is neither.  Seen to
    fail with the direction left out of the fields or of the spins, with the fields of another lattice, with the state
    before the end of a step, and with doubles kept.
    """
    section = RandomField(lattices=1, disorder=disorder_range(disorder), snapshots=6, directions=directions,
                          temperature=0.7, field_step=0.07, sweeps_per_step=2, max_field=3.0)  # fmt: skip
    lattice, sign = Lattice.of_dimension(2 if name == "RF-2D" else 3, length), 1 if directions == "up" else -1
    h = random_fields(Slab(lattice), disorder, rng.stream_key(5, name, "fields"), 0)
    waiting = list(targets_of(section, name, 5, 0))
    up, sweeps, expected = np.full(lattice.shape, sign < 0), 0, []
    for step in range(87):
        field = sign * min(0.07 * step - 3.0, 3.0)
        for _ in range(2):
            naive_sweep(up, h, lattice.periodic, field, 0.7, sign, rng.stream_key(5, name, "heat bath"), 0, sweeps)
            sweeps += 1
        m = 2 * up.mean() - 1
        if waiting and sign * m >= waiting[0] - 1e-9:
            waiting = [t for t in waiting if t > sign * m + 1e-9]
            expected.append((field, m, sweeps, up.copy()))
    found = drawn(section, name, length)
    assert len(found) == len(expected) > 2
    for number, (sample, (field, m, sweeps, up)) in enumerate(zip(found, expected)):
        assert (sample.lattice, sample.measurement, sample.parameter) == (0, number, disorder)
        assert (sample.direction, sample.sweep) == (sign, sweeps)
        assert sample.field == pytest.approx(field, abs=1e-12)
        assert sample.magnetization == pytest.approx(m, abs=1e-12)
        np.testing.assert_array_equal(sample.spins, up)


def disorder_range(value):
    return (value, value)


@pytest.mark.parametrize("directions", ["up", "down"])
@pytest.mark.parametrize("name, length, disorder", [("RF-2D", 20, 2.2), ("RF-3D", 8, 3.5)])
def test_a_cold_slow_sweep_is_the_adiabatic_one(name, length, disorder, directions):
    """Every site between the states that the adiabatic sweep of the same sample has at H - x and H + x.

    The heat bath is a sweep at T = 0 under a noise below x = 18.4 T (53 random bits), so no-passing puts its state
    between the two exactly: above the lower one once a step is long enough to relax, below the upper one always.
    At T = 0.002 half of the snapshots and more are an adiabatic state to the last spin.  Seen to fail with another
    sign of h, with the fields of another lattice, with H off by 0.02, with a bond too many at a free surface,
    with one sweep a step, and with the direction left out of the fields or of the spins.
    """
    section = RandomField(lattices=1, disorder=disorder_range(disorder), snapshots=12, directions=directions,
                          temperature=0.002, field_step=0.02, sweeps_per_step=60)  # fmt: skip
    slab = Slab(Lattice.of_dimension(2 if name == "RF-2D" else 3, length))
    sign = 1 if directions == "up" else -1
    h = sign * random_fields(slab, disorder, rng.stream_key(5, name, "fields"), 0)
    flips, x = brute_force_sweep(h, slab.lattice.periodic), 0.5 * 0.002 * 53 * np.log(2)
    found, same = drawn(section, name, length), 0
    assert len(found) >= 4
    for sample in found:
        up = sample.spins == (sign == 1)
        assert np.all(up >= (flips <= sign * sample.field - x))
        assert np.all(up <= (flips <= sign * sample.field + x))
        same += np.array_equal(up, flips <= sign * sample.field)
    assert 3 * same > len(found)


def test_a_slower_drive_lags_less():
    """16 lattices at T = 0.5: the field at which m passes 0 falls with the rate of the drive: 1.14, 0.80, 0.56 J.

    Each is at least 4 standard errors, from the spread of the lattices, below the one before and above 0, where
    equilibrium has it.
    """
    means, errors = [], []
    for sweeps in (1, 5, 25):
        section = RandomField(lattices=16, disorder=(1.1, 1.1), snapshots=1, directions="up", max_magnetization=1e-3,
                              temperature=0.5, field_step=0.02, sweeps_per_step=sweeps, max_field=2.0)  # fmt: skip
        fields = [sample.field for sample in drawn(section, "RF-2D", 16, lattices=16)]
        means.append(np.mean(fields))
        errors.append(np.std(fields, ddof=1) / 4)
    assert means[0] - means[1] > 4 * np.hypot(*errors[:2])
    assert means[1] - means[2] > 4 * np.hypot(*errors[1:])
    assert means[2] > 4 * errors[2]


@pytest.mark.parametrize("name, length", [("RF-2D", 12), ("RF-3D", 6)])
def test_two_halves_are_the_whole(name, length):
    """Stopped after every bite and gone on with in a new task: the same samples.

    Seen to fail with the sweeps, the number of targets passed, or the spins not restored.
    """
    section = RandomField(lattices=3, disorder=(1.0, 2.3), snapshots=5, temperature=0.5, field_step=0.05,
                          sweeps_per_step=4)  # fmt: skip
    whole = drawn(section, name, length, lattices=3)
    item = samples.work_items(name, section, length)[0]._replace(last=3)
    slab, found, state, shares = Slab(Lattice.of_dimension(2 if "2D" in name else 3, length)), [], None, [0.0]
    while True:
        task = samples.make_task(item, section, 5, slab)
        task.bite = 37
        if state:
            task.restore(*state)
            assert task.share == shares[-1]
        if task.done:
            break
        found += task.advance()
        arrays, numbers = task.state()
        state = {key: array.copy() for key, array in arrays.items()}, dict(numbers)
        assert shares[-1] <= task.share <= 1
        shares.append(task.share)
    assert len(shares) > 20 and shares[-1] == 1
    assert len(found) == len(whole)
    for mine, reference in zip(found, whole):
        assert mine[:-1] == reference[:-1]
        np.testing.assert_array_equal(mine.spins, reference.spins)


def test_a_loop_ends_at_its_maximum():
    """Targets beyond `max_field` have no state; the task is done all the same, and the next lattice begins anew."""
    section = RandomField(lattices=2, disorder=(1.0, 1.0), snapshots=9, directions="up", temperature=0.3,
                          field_step=0.1, sweeps_per_step=2, max_field=0.5)  # fmt: skip
    assert drawn(section, "RF-2D", 16, lattices=2) == []
    schedule = field_tasks.DriveSchedule("RF-2D", section)
    fields = [schedule.field(sweep) for sweep in range(schedule.total)]
    np.testing.assert_allclose(fields, np.repeat(np.linspace(-0.5, 0.5, 11), 2), atol=1e-12)


@pytest.mark.parametrize(
    "lattice, temperature, reason",
    [(Lattice.of_dimension(2, 8), 0.0, "must be positive"), (Lattice.of_dimension(2, 8), np.nan, "must be positive"),
     (Lattice((8, 7, 8), (False, True, True)), 1.0, r"try \(8, 8, 8\)")],
)  # fmt: skip
def test_mistakes_are_refused(lattice, temperature, reason):
    with pytest.raises(ConfigError, match=reason):
        HeatBath(Slab(lattice), np.zeros(lattice.shape), temperature, KEY, 0)
