"""`make bench`: ratios of two things timed in one run, both sides printed.  A few minutes on two cores.

Absolute numbers mean little on a shared machine; the ratio of two neighbours in one run does.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numba import njit

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

SCALING = """
name = "bench"
[simulate]
seed = 1
image_size = 64
RF-3D = {disorder = [2.25, 2.29], lattices = 64, snapshots = 4}
"""


def seconds(function, *arguments, repeat: int = 3) -> float:
    """Least wall time of a few calls, in seconds; the first call, which compiles, is not counted."""
    function(*arguments)
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - begin)
    return min(times)


def show(what: str, ours: tuple[str, float], other: tuple[str, float], unit: str) -> None:
    """One line: both sides, and how many times ours is better (more of the unit)."""
    print(f"{what}\n    {ours[0]}: {ours[1]:.3g} {unit}\n    {other[0]}: {other[1]:.3g} {unit}", end="")
    print(f"\n    ratio {ours[1] / other[1]:.2f}", flush=True)


@njit(cache=True)
def plain_sweep(spins, factors):
    """The plain way: one spin at a time, numba's generator, a table of acceptances; periodic 2D, both colours."""
    n, m = spins.shape
    for colour in range(2):
        for i in range(n):
            for j in range((i + colour) % 2, m, 2):
                around = spins[i - 1, j] + spins[(i + 1) % n, j] + spins[i, j - 1] + spins[i, (j + 1) % m]
                if np.random.random() < factors[spins[i, j] * around + 4]:
                    spins[i, j] = -spins[i, j]


def metropolis() -> None:
    """64 lattices in the bits of a word against one lattice, one spin at a time."""
    from hamscope.sim import rng
    from hamscope.sim.ising import IsingBatch
    from hamscope.sim.lattice import Lattice, Slab

    side, sweeps = 256, 20
    batch = IsingBatch(Slab(Lattice.of_dimension(2, side)), np.full(64, 2.3), rng.stream_key(1, "bench"), 0)
    spins = np.ones((side, side), np.int8)
    factors = np.exp(-2 * np.maximum(np.arange(-4, 5), 0) / 2.3)
    ours = 64 * side**2 * sweeps / seconds(batch.run, sweeps, 0) * 1e-9

    def plain():
        for _ in range(sweeps):
            plain_sweep(spins, factors)

    other = side**2 * sweeps / seconds(plain) * 1e-9
    show(
        "Metropolis, 2D, one core",
        ("64 lattices in a word", ours),
        ("plain numba, one spin at a time", other),
        "spins/ns",
    )


def field_sweep() -> None:
    """The flip fields of a whole sweep against raising H to the least stable site and relaxing, again and again."""
    from hamscope.sim import rng
    from hamscope.sim.exact_rfim import brute_force_sweep
    from hamscope.sim.lattice import Lattice, Slab
    from hamscope.sim.rfim import flip_fields, random_fields

    small = Slab(Lattice.of_dimension(3, 16))
    fields = random_fields(small, 2.27, rng.stream_key(1, "bench"), 0)
    ours = small.lattice.n_sites / seconds(flip_fields, small, fields) * 1e-6
    other = small.lattice.n_sites / seconds(brute_force_sweep, small.lattice, fields, repeat=1) * 1e-6
    show("RFIM field sweep, 16^3", ("flip fields", ours), ("naive sweep in numpy", other), "sites/us")
    large = Slab(Lattice.of_dimension(3, 100))
    fields = random_fields(large, 2.27, rng.stream_key(1, "bench"), 0)
    print(f"    100^3, snapshots not included: {seconds(flip_fields, large, fields):.2f} s", flush=True)


def ranks() -> None:
    """The same simulation on one rank and on two: many lattices, and every lattice cut in two."""
    from engines import mpiexec

    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(SCALING)
        for name, count, options in (("one rank", 1, []), ("two ranks", 2, []),
                                     ("two ranks a lattice", 2, ["--ranks-per-lattice", "2"])):  # fmt: skip
            out = Path(folder) / f"{name.replace(' ', '')}.h5"
            command = ["-m", "hamscope_hpc.cli", "simulate", str(config), "--out", str(out), *options]
            os.environ["OMP_NUM_THREADS"] = "1"
            mpiexec(count, *command)
            import json

            rates[name] = 64 / json.loads(out.with_suffix(".run.json").read_text())["seconds_computing"]
    for name in ("two ranks", "two ranks a lattice"):
        show("simulate, 64 lattices of 64^3", (name, rates[name]), ("one rank", rates["one rank"]), "lattices/s")


def training() -> None:
    """The paper's network in bfloat16 and in float32, on all cores of this process."""
    import torch

    from hamscope.learn.network import DomainNet
    from hamscope.learn.training import train_epoch

    images = np.random.default_rng(0).integers(0, 2, (256, 100, 100), np.uint8)
    labels = np.random.default_rng(1).integers(0, 7, 256)
    rates = {}
    for precision in ("bfloat16", "float32"):
        network = DomainNet(100)
        optimizer = torch.optim.Adam(network.parameters())

        def epoch(network=network, optimizer=optimizer, precision=precision):
            train_epoch(network, optimizer, images, labels, seed=1, epoch=0, batch_size=64, precision=precision)

        rates[precision] = 256 / seconds(epoch, repeat=2)
    show(
        "training, filters 32 and 64, hidden 256",
        ("bfloat16", rates["bfloat16"]),
        ("float32", rates["float32"]),
        "images/s",
    )


def writing() -> None:
    """A slices file (gzip, checksums) against a plain sequential write of the same bytes."""
    import h5py

    from hamscope.data import slices

    images = (np.random.default_rng(0).random((4096, 100, 100)) < 0.59).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:

        def ours():
            with h5py.File(Path(folder) / "a.h5", "w") as file:
                slices.create(file, len(images), 100)
                file["images"][:] = images

        def plain():
            with open(Path(folder) / "a.bin", "wb") as file:
                file.write(images.tobytes())
                file.flush()
                os.fsync(file.fileno())

        show("writing 41 MB of images", ("slices file, one process", 41 / seconds(ours, repeat=1)),
             ("plain file", 41 / seconds(plain, repeat=1)), "MB/s")  # fmt: skip


if __name__ == "__main__":
    subprocess.run(["uname", "-srm"], check=True)
    for benchmark in (metropolis, field_sweep, ranks, training, writing):
        benchmark()
