"""Ising lattices cut into slabs over the ranks: the same spins, the same statistics, and what a wrong cut would do."""

import numpy as np
import pytest
from mpi4py import MPI
from stationary import METROPOLIS, OPEN, SQUARE, WOLFF, batch_of_64, p_values, sampled_states

from hamscope.sim import rng
from hamscope.sim.ising import IsingBatch
from hamscope.sim.lattice import Lattice
from hamscope_hpc.slabs import MpiSlab

KEY = rng.stream_key(12, "slabs")


def uneven_cuts(n_planes: int, ranks: int) -> list[int]:
    """One plane for every rank but the last, which takes the rest."""
    return [*range(ranks), n_planes]


class LocalColour(IsingBatch):
    """The planted fault: colours count planes from the start of the slab, not of the lattice."""

    def half_sweep(self, colour):
        super().half_sweep((colour + self.slab.start) % 2)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize(
    "shape, periodic",
    [((8, 1, 10), (True, False, True)), ((7, 4, 6), (False, True, True)), ((4, 2, 2), (True, True, True)),
     ((9, 3, 5), (False, False, False)), ((10, 8, 40), (True, True, True)),
     ((6, 4, 70), (False, True, True))],
)  # fmt: skip
def test_same_spins_on_any_number_of_ranks(shape, periodic, uneven):
    """25 sweeps with 12 Wolff updates on all ranks equal those on MPI.COMM_SELF, spin for spin; so do the observables.

    Started on 2, 3 and 4 ranks.  Seen to fail with colours from local coordinates, with random words keyed by local
    sites, with bonds keyed by local planes, without the exchange before the second half sweep, and with the energy of
    an open lattice cut at the end of every slab.  Of the clusters: with one round over the cuts alone, with the outer
    planes exchanged for one another or one plane too deep, with nothing from the slab above, with carries lost
    between two words, and with the end of a periodic row taken for the end of its last word.
    """
    lattice, comm = Lattice(shape, periodic), MPI.COMM_WORLD
    temperatures = np.linspace(1.5, 6, 64)
    alone = IsingBatch(MpiSlab(MPI.COMM_SELF, lattice), temperatures, KEY, 3)
    alone.run(25, 12)
    shared = IsingBatch(
        MpiSlab(comm, lattice, uneven_cuts(shape[0], comm.size) if uneven else None), temperatures, KEY, 3
    )
    shared.run(25, 12)
    planes = np.concatenate(comm.allgather(shared.words[1:-1]))
    np.testing.assert_array_equal(planes, alone.words[1:-1])
    np.testing.assert_array_equal(shared.energies(), alone.energies())
    np.testing.assert_array_equal(shared.magnetizations(), alone.magnetizations())
    np.testing.assert_array_equal(np.concatenate(comm.allgather(shared.spins(7))), alone.spins(7))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("updates", [METROPOLIS, WOLFF], ids=["metropolis", "wolff"])
@pytest.mark.parametrize("case", [SQUARE, OPEN], ids=["4x4", "2x2x4-open"])
def test_stationary_distribution_on_slabs(case, updates):
    """Slabs of 1, 1, 2 planes on three ranks (1, 3 on two, 1, 1, 1, 1 on four): the chi-square test is passed."""
    shape, periodic, temperature = case
    slab = MpiSlab(MPI.COMM_WORLD, Lattice(shape, periodic), uneven_cuts(shape[0], MPI.COMM_WORLD.size))
    states = sampled_states(batch_of_64(slab, temperature, seed=2), updates, 400)
    assert min(p_values(states, *case, updates is METROPOLIS)) > 1e-3


@pytest.mark.mpi(min_size=2)
def test_colours_from_local_coordinates_are_seen():
    """The planted fault updates neighbours on both sides of a cut at once, and the chi-square test fails."""
    shape, periodic, temperature = SQUARE
    slab = MpiSlab(MPI.COMM_WORLD, Lattice(shape, periodic), uneven_cuts(4, MPI.COMM_WORLD.size))
    states = sampled_states(batch_of_64(slab, temperature, seed=2, kind=LocalColour), METROPOLIS, 400)
    assert p_values(states, *SQUARE, True)[0] < 1e-6
