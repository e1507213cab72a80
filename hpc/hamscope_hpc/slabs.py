"""A lattice cut into slabs over the ranks of a communicator, which is passed in.  All lattice communication is here.

Rank r of P holds planes [start(r), stop(r)) of axis 0, start(r) = r n0 // P unless the cuts are given.
"""

import functools
import time

import numpy as np
from mpi4py import MPI

from hamscope.errors import ConfigError
from hamscope.sim.lattice import Lattice, Slab


def _timed(method):
    """Add what a method takes to the seconds of communication of its slab."""

    @functools.wraps(method)
    def timed(self, *arguments):
        begin = time.perf_counter()
        try:
            return method(self, *arguments)
        finally:
            self.seconds += time.perf_counter() - begin

    return timed


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

    @_timed
    def exchange(self, field: np.ndarray) -> None:
        """Send the outermost own planes to both neighbours and receive theirs into the halo."""
        if self.comm.size == 1:
            return super().exchange(field)
        self.comm.Sendrecv(field[1], self.below, 0, field[-1], self.above, 0)
        self.comm.Sendrecv(field[-2], self.above, 1, field[0], self.below, 1)

    @_timed
    def any(self, flag: bool) -> bool:
        return bool(self.comm.allreduce(bool(flag), MPI.LOR)) if self.comm.size > 1 else bool(flag)

    @_timed
    def sum(self, values):
        return self.comm.allreduce(values, MPI.SUM) if self.comm.size > 1 else values

    @_timed
    def max(self, value: float) -> float:
        return self.comm.allreduce(value, MPI.MAX) if self.comm.size > 1 else value

    @_timed
    def gather(self, part: np.ndarray) -> list[np.ndarray] | None:
        """The parts of all slabs in order, on the first of them; None on the others."""
        return self.comm.gather(part, 0) if self.comm.size > 1 else [part]

    @_timed
    def swap(self, below: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.comm.size == 1:
            return super().swap(below, above)
        sent = [self.comm.Isend([below, MPI.BYTE], self.below, 2), self.comm.Isend([above, MPI.BYTE], self.above, 3)]
        received = self._receive(self.below, 3, below.dtype), self._receive(self.above, 2, below.dtype)
        MPI.Request.Waitall(sent)
        return received

    def _receive(self, source: int, tag: int, dtype: np.dtype) -> np.ndarray:
        """An array of a length that the sender knows."""
        status = MPI.Status()
        message = self.comm.Mprobe(source, tag, status)
        array = np.empty(status.Get_count(MPI.BYTE) // dtype.itemsize, dtype)
        message.Recv([array, MPI.BYTE])
        return array

    @_timed
    def share_out(self, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.comm.size == 1:
            return values, counts
        # A few bits of a product with a large odd number spread the values evenly over the ranks.
        owner = (values.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)) % np.uint64(self.comm.size)
        order = np.argsort(owner, kind="stable")
        to = np.bincount(owner.astype(np.int64), minlength=self.comm.size)
        come = np.empty_like(to)
        self.comm.Alltoall(to, come)
        mine = np.empty(come.sum()), np.empty(come.sum(), np.int64)
        for own, received in zip((values[order], counts[order]), mine):
            self.comm.Alltoallv([own, to], [received, come])
        return mine
