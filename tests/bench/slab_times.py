"""One large lattice over the ranks of mpiexec: `mpiexec -n N python slab_times.py`; rank 0 prints seconds as JSON.

Each is the least of a few repetitions, of the slowest rank.
"""

import json
import time

import numpy as np
from mpi4py import MPI

from hamscope.sim import rfim, rng
from hamscope.sim.exact import TC_3D
from hamscope.sim.ising import IsingBatch
from hamscope.sim.lattice import Lattice
from hamscope_hpc.slabs import MpiSlab

CLEAN, FIELD = 200, 256
KEY = rng.stream_key(1, "bench")


def slowest(function, repeat: int) -> float:
    """Seconds of a call that all ranks begin together; the first call, which compiles, is not counted."""
    comm, times = MPI.COMM_WORLD, []
    for _ in range(repeat + 1):
        comm.Barrier()
        begin = time.perf_counter()
        function()
        times.append(comm.allreduce(time.perf_counter() - begin, MPI.MAX))
    return min(times[1:])


def clean(comm: MPI.Comm) -> dict[str, float]:
    """One sweep, one Wolff update and one halo exchange of 64 lattices at Tc."""
    slab = MpiSlab(comm, Lattice.of_dimension(3, CLEAN))
    batch = IsingBatch(slab, np.full(64, TC_3D), KEY, 0)
    batch.run(5, 0)
    found = {"metropolis": slowest(batch.sweep, 8), "exchange": slowest(lambda: slab.exchange(batch.words), 20)}
    batch.run(10, 3)
    return found | {"wolff": slowest(batch.wolff, 4)}


def field(comm: MPI.Comm) -> dict[str, float]:
    """One adiabatic sweep, its random fields drawn on the way."""
    slab = MpiSlab(comm, Lattice.of_dimension(3, FIELD))
    return {"field sweep": slowest(lambda: rfim.flip_fields(slab, rfim.Gaussian(2.27, KEY, 0)), 2)}


if __name__ == "__main__":
    times = clean(MPI.COMM_WORLD) | field(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(times))
