"""Field sweeps on lattices that are cut into slabs over the ranks: the same bits as in one process."""

import numpy as np
import pytest
from mpi4py import MPI

from hamscope.sim import rng
from hamscope.sim.lattice import Lattice
from hamscope.sim.rfim import flip_fields, random_fields, stable_states
from hamscope_hpc.slabs import MpiSlab

KEY = rng.stream_key(21, "slabs")
# Shape, periodic axes, disorder, number of samples.
SHAPES = [
    ((24, 1, 20), (True, False, True), 0.9, 1),
    ((12, 10, 11), (False, True, True), 2.0, 1),
    ((9, 5, 6), (False, False, False), 1.0, 1),
    ((6, 1, 1), (True, False, False), 2.0, 16),
    ((200, 1, 1), (True, False, False), 0.3, 1),
]


def slabs(shape, periodic, uneven):
    """The lattice in one process, and over all ranks: in equal slabs, or with one plane on every rank but the last."""
    comm, lattice = MPI.COMM_WORLD, Lattice(shape, periodic)
    cuts = [*range(comm.size), shape[0]] if uneven else None
    return MpiSlab(MPI.COMM_SELF, lattice), MpiSlab(comm, lattice, cuts)


def gathered(field):
    """The planes of all ranks."""
    return np.concatenate(MPI.COMM_WORLD.allgather(field))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("shape, periodic, disorder, samples", SHAPES)
def test_same_sweep_on_any_number_of_ranks(shape, periodic, disorder, samples, uneven):
    """Random fields, flip fields and stable states are those of MPI.COMM_SELF, to the last bit.

    Started on 2, 3 and 4 ranks.  Seen to fail on 3 with the correction after the halo exchange dropped (also with one
    side of it, with the corrected sites not carried on, and with the first halo not carried across the cuts), and with
    random fields keyed by local sites.  With counts
    of one slab in `stable_states` the ranks disagree on the end of the bisection, and the test hangs until its timeout.
    """
    alone, shared = slabs(shape, periodic, uneven)
    for item in range(samples):
        h_alone, h_shared = (random_fields(slab, disorder, KEY, item) for slab in (alone, shared))
        np.testing.assert_array_equal(gathered(h_shared), h_alone)
        alone_flips, flips = flip_fields(alone, h_alone), flip_fields(shared, h_shared)
        np.testing.assert_array_equal(gathered(flips), alone_flips)
        targets = np.linspace(-0.6, 0.6, 7)
        for mine, reference in zip(stable_states(shared, flips, targets), stable_states(alone, alone_flips, targets)):
            np.testing.assert_array_equal(mine, reference)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("shape, periodic, disorder, samples", SHAPES)
def test_same_minor_loop_on_any_number_of_ranks(shape, periodic, disorder, samples, uneven):
    """Down from saturation to H and up again, which starts from a state with spins up on both sides of every cut.

    Seen to fail on 3 with the neighbours of the up spins not evaluated, and with the correction dropped.
    """
    alone, shared = slabs(shape, periodic, uneven)
    for item in range(samples):
        h_alone, h_shared = (random_fields(slab, disorder, KEY, item) for slab in (alone, shared))
        down = flip_fields(alone, -h_alone)
        up = down > np.quantile(down, 0.4)
        # Wide windows: fewer exchanges, each with more to correct.
        flips = flip_fields(shared, h_shared, up=up[shared.start : shared.stop], window=2.0)
        np.testing.assert_array_equal(gathered(flips), flip_fields(alone, h_alone, up=up))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("window", [0.05, 50.0])
def test_windows_of_any_width_on_slabs(window):
    """One window for the whole sweep, so that slabs run far ahead of each other, or very many: the same bits."""
    alone, shared = slabs((9, 8, 8), (False, True, True), uneven=True)
    reference = flip_fields(alone, random_fields(alone, 2.0, KEY, 0))
    flips = flip_fields(shared, random_fields(shared, 2.0, KEY, 0), window=window)
    np.testing.assert_array_equal(gathered(flips), reference)
