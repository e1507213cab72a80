"""Observables against sums by hand, direct sums over pairs, hand-made clusters and distributions of known truth."""

import numpy as np
import pytest
from scipy import stats

from hamscope import observables
from hamscope.models import CLASS_NAMES
from hamscope.sim.lattice import Lattice, Slab, exchange_energy
from hamscope.slices_measure import periodic_axes


def test_means_within_lattices():
    """Lattices in any order, of unequal numbers of rows; a lattice with many rows counts once.

    Seen to fail with the rows taken as sorted.
    """
    lattice = np.array([7, 2, 7, 2, 2, 5])
    values = np.array([1.0, 3.0, 5.0, 4.0, 8.0, 9.0])
    np.testing.assert_allclose(observables.lattice_means(values, lattice), [5, 9, 3])
    both = observables.lattice_means(np.stack([values, -2 * values], axis=1), lattice)
    np.testing.assert_allclose(both, [[5, -10], [9, -18], [3, -6]])


def test_mean_and_error_by_hand():
    """1, 2, 3, 6: mean 3, sum of squares 14, error sqrt(14 / 12).  One lattice: NaN and not zero."""
    mean, error = observables.mean_and_error(np.array([1.0, 2, 3, 6]))
    assert (mean, error) == (3, pytest.approx(np.sqrt(14 / 12)))
    mean, error = observables.mean_and_error(np.array([[4.0, 5]]))
    assert list(mean) == [4, 5] and np.isnan(error).all()


def test_jackknife_by_hand():
    """Of a mean it is the standard error.  Binder cumulant of the moments (1, 2) and (2, 5):

    of both 1 - 3.5 / 6.75 = 13/27, without the first 1 - 5/12 = 7/12, without the second 1 - 2/3 = 1/3; so
    2 x 13/27 - 11/24 = 109/216 +- 1/8.  Seen to fail with the factor (n - 1) / n left out, and without the bias.
    """
    values = np.array([[1.0], [2], [3], [6]])
    assert observables.jackknife(lambda mean: mean[0], values) == pytest.approx((3, np.sqrt(14 / 12)))
    moments = np.array([[1.0, 2], [2, 5]])
    assert observables.jackknife(observables.binder_cumulant, moments) == pytest.approx((109 / 216, 1 / 8))
    value, error = observables.jackknife(observables.binder_cumulant, moments[:1])
    assert value == pytest.approx(1 / 3) and np.isnan(error)


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_error_bars_cover_the_truth_as_often_as_they_should(spread):
    """1000 sets of 12 lattices with 10 measurements each, whose lattices differ by `spread` times their noise.

    A bar of one standard error of n lattices covers with the probability of Student's t, 66 % for n = 12; the
    binomial standard deviation is 1.5 %.  Planted fault: the error of all 120 measurements as if independent covers
    as often without a spread between lattices, and 24 % with it.
    """
    random = np.random.default_rng(7)
    sets, n, each = 1000, 12, 10
    lattice = np.repeat(np.arange(n), each)
    values = spread * random.normal(size=(n, sets)).repeat(each, axis=0) + random.normal(size=(n * each, sets))
    expected = 1 - 2 * stats.t.sf(1, n - 1)
    mean, error = observables.mean_and_error(observables.lattice_means(values, lattice))
    assert abs(np.mean(np.abs(mean) < error) - expected) < 4 * np.sqrt(expected * (1 - expected) / sets)
    mean, error = observables.mean_and_error(values)
    naive = np.mean(np.abs(mean) < error)
    assert naive < 0.35 if spread else abs(naive - 0.683) < 0.06


def test_binder_cumulant_and_its_bar_have_the_truth():
    """m uniform in (-1, 1): <m^2> = 1/3, <m^4> = 1/5, U = 0.4.  500 sets of 30 lattices, two measurements each.

    The mean of U over the sets is within 4 of its own errors (0.002) of 0.4, and the bars cover in 60 to 74 % of the
    sets.  Planted fault: bars from the 60 measurements as if independent, where the two of a lattice are equal, cover
    in 51 % and fail.
    """
    random = np.random.default_rng(3)
    m = random.uniform(-1, 1, (500, 30)).repeat(2, axis=1)
    lattice = np.repeat(np.arange(30), 2)
    found = []
    for own in m:
        moments = observables.lattice_means(np.stack([own**2, own**4], axis=1), lattice)
        found.append(observables.jackknife(observables.binder_cumulant, moments))
    value, error = np.array(found).T
    assert abs(value.mean() - 0.4) < 4 * value.std() / np.sqrt(500)
    assert 0.60 < np.mean(np.abs(value - 0.4) < error) < 0.74


def test_z_score():
    """2, 2, 4, 4, 3 less 1, 1, 1, 1, 1: mean 2, error sqrt(4 / 20); no z of four lattices or without spread."""
    values = np.array([2.0, 2, 4, 4, 3])
    assert observables.z_score(values, np.ones(5)) == pytest.approx(2 / np.sqrt(0.2))
    assert np.isnan(observables.z_score(values[:4], np.ones(4)))
    assert np.isnan(observables.z_score(np.ones(9), np.zeros(9)))


def test_groups_of_a_grid_and_bins_of_a_range():
    """Equal values together; bins of neighbours, as many as the rule says, none across two ranges.

    Seen to fail with the bins cut from all ranges together.
    """
    grid = observables.groups(np.array([2.0, 1.0, 2.0, 1.0, 2.0]), True, np.zeros(5, int))
    assert [(g.low, g.high, list(g.members)) for g in grid] == [(1, 1, [1, 3]), (2, 2, [0, 2, 4])]
    random = np.random.default_rng(2)
    section = np.arange(60) % 2
    parameter = random.uniform(0, 1, 60) + 0.9 * section
    bins = observables.groups(parameter, False, section)
    assert [len(g.members) for g in bins] == [10] * 6
    assert sorted(k for g in bins for k in g.members) == list(range(60))
    assert all(len(set(section[g.members])) == 1 for g in bins)
    assert len(observables.groups(parameter[:7], False, np.zeros(7, int))) == 1
    assert len(observables.groups(random.uniform(size=500), False, np.zeros(500, int))) == 8


@pytest.mark.parametrize("periodic", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("length", [5, 8])
def test_correlations_are_the_direct_sums(periodic, length):
    """Every pair of sites at distance r along an axis, one by one.

    Seen to fail with open axes divided by all L^2 sites, with the padding left out, and with the axes exchanged.
    """
    images = np.random.default_rng(4).integers(0, 2, (3, length, length), np.uint8)
    found = observables.axis_correlation(images, periodic)
    spins = 2.0 * images - 1
    for image, own in zip(spins, found):
        for r in range(length // 2 + 1):
            parts = []
            for axis in (0, 1):
                pairs = []
                for place in np.ndindex(length, length):
                    other = list(place)
                    other[axis] += r
                    if other[axis] < length or periodic[axis]:
                        pairs.append(image[place] * image[other[0] % length, other[1] % length])
                parts.append(np.mean(pairs))
            assert own[r] == pytest.approx(np.mean(parts), abs=1e-12)


def test_neighbour_correlation_is_the_exchange_energy():
    """C(1) of a periodic 2D lattice is -E / (2 N), with E of the simulation's own count of bonds."""
    image = np.random.default_rng(5).integers(0, 2, (10, 10), np.uint8)
    energy = exchange_energy(Slab(Lattice.of_dimension(2, 10)), image[:, None, :])
    assert observables.axis_correlation(image[None], (True, True))[0, 1] == pytest.approx(-energy / 2, abs=1e-12)


def test_which_axis_of_an_image_is_open():
    """Slices across x and y of an open 3D lattice have z as their rows, and are open there; all others wrap."""
    assert [periodic_axes("RF-3D", axis, "open") for axis in (0, 1, 2)] == [(True, True), (False, True), (False, True)]
    assert periodic_axes("C-3D", 1, "periodic") == periodic_axes("C-2D", 1, "open") == (True, True)
    assert len(CLASS_NAMES) == 7


@pytest.mark.parametrize("periodic", [(True, True), (False, True)])
def test_independent_sites_have_no_correlation(periodic):
    """<G(r)> = -4 p (1 - p) / L^2 for every r > 0, whether a pair reaches round the border or not; p = 0.3, L = 16.

    4000 images, errors 0.0006 against -0.0033, so that C(r) less the square of the mean m of all images would fail.
    """
    images = (np.random.default_rng(6).random((4000, 16, 16)) < 0.3).astype(np.uint8)
    m = 2 * images.mean(axis=(1, 2)) - 1
    connected = observables.axis_correlation(images, periodic) - m[:, None] ** 2
    mean, error = observables.mean_and_error(connected)
    assert mean[0] == pytest.approx(np.mean(1 - m**2))
    assert (np.abs(mean[1:] + 4 * 0.3 * 0.7 / 256) < 4 * error[1:]).all()
    assert (mean[1:] < 0).all()


PATTERN = np.array([
    [1, 0, 0, 1, 0, 1],
    [0, 0, 0, 1, 0, 0],
    [1, 1, 0, 0, 0, 1],
    [0, 1, 0, 1, 1, 0],
    [0, 0, 0, 1, 0, 0],
    [0, 1, 1, 0, 0, 1],
], np.uint8)  # fmt: skip


@pytest.mark.parametrize(
    "periodic, sizes",
    [
        # Open: corners and diagonals do not join.
        ((False, False), [1, 1, 1, 1, 2, 2, 3, 3]),
        # Rows wrap: the right column's top and bottom.
        ((True, False), [1, 1, 2, 2, 2, 3, 3]),
        # Columns wrap: the top corners, and (2, 5) with (2, 0).
        ((False, True), [1, 2, 2, 2, 3, 4]),
        ((True, True), [2, 2, 3, 3, 4]),
    ],
)
def test_clusters_of_a_pattern(periodic, sizes):
    """Counted by hand.  Seen to fail with diagonal neighbours, and with one of the two borders not joined."""
    labels = observables.label_clusters(PATTERN, periodic)
    assert sorted(observables.cluster_sizes(labels)) == sizes
    assert (labels > 0).tolist() == (PATTERN == 1).tolist()


def test_clusters_that_wrap_twice_and_none_at_all():
    """A cross over both borders is one cluster; full, empty and one-site images."""
    cross = np.zeros((5, 5), np.uint8)
    cross[2, [0, 1, 3, 4]] = cross[[0, 1, 3, 4], 2] = 1
    assert sorted(observables.cluster_sizes(observables.label_clusters(cross))) == [2, 2, 2, 2]
    assert sorted(observables.cluster_sizes(observables.label_clusters(cross, (True, True)))) == [4, 4]
    for image, sizes in ((np.ones((4, 4)), [16]), (np.zeros((4, 4)), []), (np.eye(4) * np.eye(1, 4), [1])):
        for periodic in ((False, False), (True, True)):
            assert list(observables.cluster_sizes(observables.label_clusters(image, periodic))) == sizes


def test_spanning_is_from_the_first_row_to_the_last():
    """A winding path spans; cut anywhere it does not, nor does a row.  Seen to fail with columns in place of rows."""
    path = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]], np.uint8)
    assert observables.spans(observables.label_clusters(path))
    assert not observables.spans(observables.label_clusters(path * (1 - np.eye(3, dtype=np.uint8))))
    assert not observables.spans(observables.label_clusters(np.array([[0] * 3, [1] * 3, [0] * 3])))


def test_sizes_fall_into_bins_of_a_factor_of_two():
    """1 | 2, 3 | 4 to 7 | 8 to 15, and densities over the sizes of a bin; a size beyond the last bin is not lost."""
    counts = observables.size_counts(np.array([1, 2, 3, 3, 4, 7, 8, 15]), 5)
    assert list(counts) == [1, 3, 2, 2, 0]
    np.testing.assert_allclose(observables.size_density(counts, 10), [0.1, 0.15, 0.05, 0.025, 0])
    assert list(observables.size_counts(np.array([2**40 - 1, 2**40]), 48)[39:41]) == [1, 1]
    s = np.arange(64, 128)
    assert observables.size_centres(8)[6] ** -2.0 == pytest.approx(np.mean(s**-2.0), rel=1e-3)


def test_exponent_of_a_known_distribution():
    """Sizes from Zipf's law with tau = 2.05 in 40 lattices of 20,000: within 3 errors, of 0.02, of 2.05.

    Seen to fail with counts in place of densities.  A range with empty bins, or of two bins, gives no exponent.
    """
    random = np.random.default_rng(9)
    sizes = random.zipf(2.05, (40, 20000))
    counts = np.array([observables.size_counts(np.minimum(own, 2**40), 41) for own in sizes])
    value, error = observables.size_exponent(counts, 4, 256)
    assert abs(value - 2.05) < 3 * error and 0.003 < error < 0.02
    assert np.isnan(observables.size_exponent(counts, 2**20, 2**30)).all()
    assert np.isnan(observables.size_exponent(counts, 16, 64)).all()


@pytest.mark.parametrize("direction", [1, -1])
def test_coercive_field_by_hand(direction):
    """Between m = -0.2 at 1.0 and +0.6 at 1.4 it is 1.1, and the states are 0.4 apart; the mirror image gives the same.

    Seen to fail without the sign of the direction.  No crossing, or one state, gives none.
    """
    field, m = np.array([1.4, 0.9, 1.0, 1.5]), np.array([0.6, -0.5, -0.2, 0.9])
    found = observables.coercive_field(direction * field, direction * m, direction)
    assert found == pytest.approx((1.1, 0.4))
    for few in (slice(1, 3), slice(0, 1)):
        assert np.isnan(observables.coercive_field(direction * field[few], direction * m[few], direction)).all()
