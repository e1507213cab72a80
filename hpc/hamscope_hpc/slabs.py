"""A lattice cut into slabs over the ranks of a communicator, which is passed in.  All lattice communication is here.

Rank r of P holds planes [start(r), stop(r)) of axis 0, start(r) = r n0 // P unless the cuts are given.
"""

import time

import numpy as np
from mpi4py import MPI

from hamscope.errors import ConfigError
from hamscope.sim.lattice import Lattice, Slab


class MpiSlab(Slab):
    """The slab of this rank: the methods of `hamscope.sim.lattice.Slab`, collective over `comm`.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the lattice.
    cuts : sequence of int, optional
        First plane of every rank and, last, n0; for uneven slabs.  Raises ConfigError where a rank would hold none.

    Attributes
    ----------
    seconds : float
        Spent in communication so far, waiting for the other ranks included.
    """

    def __init__(self, comm: MPI.Comm, lattice: Lattice, cuts=None):
        n0 = lattice.shape[0]
        if cuts is None:
            cuts = [rank * n0 // comm.size for rank in range(comm.size + 1)]
        if len(cuts) != comm.size + 1 or any(a >= b for a, b in zip(cuts, cuts[1:])):
            raise ConfigError(f"{comm.size} ranks cannot share {n0} planes; use at most {n0} ranks a lattice")
        super().__init__(lattice, cuts[comm.rank], cuts[comm.rank + 1])
        self.comm = comm
        self.seconds = 0.0
        self.cuts = tuple(cuts)
        wrap = lattice.periodic[0]
        self.below = comm.rank - 1 if comm.rank else comm.size - 1 if wrap else MPI.PROC_NULL
        self.above = comm.rank + 1 if comm.rank + 1 < comm.size else 0 if wrap else MPI.PROC_NULL

    def exchange(self, field: np.ndarray) -> None:
        """Send the outermost own planes to both neighbours and receive theirs into the halo."""
        if self.comm.size == 1:
            return super().exchange(field)
        begin = time.perf_counter()
        self.comm.Sendrecv(field[1], self.below, 0, field[-1], self.above, 0)
        self.comm.Sendrecv(field[-2], self.above, 1, field[0], self.below, 1)
        self.seconds += time.perf_counter() - begin

    def any(self, flag: bool) -> bool:
        return bool(self._reduce(bool(flag), MPI.LOR))

    def sum(self, values):
        return self._reduce(values, MPI.SUM)

    def max(self, value: float) -> float:
        return self._reduce(value, MPI.MAX)

    def gather(self, part: np.ndarray) -> list[np.ndarray] | None:
        """The parts of all slabs in order, on the first of them; None on the others."""
        if self.comm.size == 1:
            return [part]
        begin = time.perf_counter()
        parts = self.comm.gather(part, 0)
        self.seconds += time.perf_counter() - begin
        return parts

    def _reduce(self, values, operation):
        if self.comm.size == 1:
            return values
        begin = time.perf_counter()
        total = self.comm.allreduce(values, operation)
        self.seconds += time.perf_counter() - begin
        return total
