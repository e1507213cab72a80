"""Ising packages from PyPI, timed in an environment of their own: `python others.py NAME` prints spin updates a ns.

Two-dimensional periodic lattices of 256 x 256 at T = 2.3, Metropolis, one thread.  `bench.py` makes the environment.
"""

import sys
import time

SIDE, SWEEPS = 256, 200
PACKAGES = ("peapods==0.2.0", "mcising==1.1.0")


def peapods():
    """A function that makes some sweeps of one lattice with peapods (Rust)."""
    import numpy as np
    from peapods import Ising

    model = Ising((SIDE, SIDE), temperatures=np.array([2.3]))
    return lambda n: model.sample(n, sweep_mode="metropolis", sequential=True, warmup_ratio=0.9)


def mcising():
    """The same with mcising (Rust)."""
    from mcising import LatticeConfig, Simulation, SimulationConfig

    simulation = Simulation(SimulationConfig(lattice=LatticeConfig(size=SIDE), temperatures=(2.3,)))
    return lambda n: simulation.sweep(n, temperature=2.3)


if __name__ == "__main__":
    sweep = {"peapods": peapods, "mcising": mcising}[sys.argv[1]]()
    sweep(10)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        sweep(SWEEPS)
        times.append(time.perf_counter() - begin)
    print(SIDE * SIDE * SWEEPS / min(times) * 1e-9)
