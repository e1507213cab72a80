"""`make bench`: ratios of two things timed in one run, both sides printed.  A few minutes on two cores.

Absolute numbers mean little on a shared machine; the ratio of two neighbours in one run does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numba import njit

from hamscope.sim import rfim, rng
from hamscope.sim.exact_rfim import brute_force_sweep
from hamscope.sim.ising import IsingBatch
from hamscope.sim.lattice import Lattice, Slab
from hamscope.sim.vectors import kernel_form, wide_vectors

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
from engines import mpiexec  # noqa: E402

KEY = rng.stream_key(1, "bench")
SCALING = """
name = "bench"
[simulate]
seed = 1
image_size = 100
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


@njit(nogil=True)
def words_alone(words, key, steps):
    """The random words of 2 * steps digits of every site and nothing else: what no kernel of this kind can beat."""
    wide_vectors()
    for k in range(words.shape[0]):
        total = np.uint64(0)
        for step in range(steps):
            first, second = rng.short_words(key, np.uint64(0), np.uint64(step), np.uint64(k), np.uint64(0))
            total ^= first ^ second
        words[k] = total


def metropolis() -> float:
    """64 lattices in the bits of a word, against one spin at a time and against the random words alone."""
    print(f"kernels: {kernel_form()}")
    ours = {}
    for what, side, dimension, sweeps in (
        ("2D 100 x 100", 100, 2, 400),
        ("2D 256 x 256", 256, 2, 60),
        ("3D 100^3", 100, 3, 8),
    ):
        batch = IsingBatch(Slab(Lattice.of_dimension(dimension, side)), np.full(64, 2.3 * dimension - 0.09), KEY, 0)
        batch.run(10, 0)
        ours[what] = 64 * side**dimension * sweeps / seconds(batch.run, sweeps, 0) * 1e-9
    side, sweeps = 256, 20
    spins = np.ones((side, side), np.int8)
    factors = np.exp(-2 * np.maximum(np.arange(-4, 5), 0) / 2.3)

    def plain():
        for _ in range(sweeps):
            plain_sweep(spins, factors)

    other = side**2 * sweeps / seconds(plain) * 1e-9
    # The mean number of digits until all 64 lattices of a site are decided is near 8.
    words = np.zeros(10**6, np.uint64)
    limit = 64 * words.size / seconds(words_alone, words, KEY, 4) * 1e-9
    for what, rate in ours.items():
        show(
            f"Metropolis, {what}, one core", ("64 lattices in a word", rate), ("one spin at a time", other), "spins/ns"
        )
    show(
        "Metropolis, 3D 100^3", ("the kernel", ours["3D 100^3"]), ("random words of 8 digits alone", limit), "spins/ns"
    )
    return ours["2D 256 x 256"]


def packages(ours: float) -> None:
    """Ising packages from PyPI, in an environment of their own, made once."""
    folder = ROOT / ".venv-bench"
    python, script = folder / "bin" / "python", Path(__file__).with_name("others.py")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    from others import PACKAGES

    pip = subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES],
                         capture_output=True, text=True)  # fmt: skip
    if pip.returncode:
        print(f"packages of others: cannot be installed here ({pip.stderr.strip().splitlines()[-1]})")
        return
    for package in PACKAGES:
        environment = dict(os.environ, RAYON_NUM_THREADS="1")
        rate = subprocess.run([python, script, package.partition("=")[0]], capture_output=True, text=True, check=True,
                              env=environment)  # fmt: skip
        show("Metropolis, 2D 256 x 256, one core", ("ours, 64 lattices in a word", ours),
             (package, float(rate.stdout)), "spins/ns")  # fmt: skip


def wolff() -> None:
    """What the Wolff updates of the paper's thermalisation cost beside the sweeps they accompany, over the range of T.

    From a hot start through 150 sweeps and 60 updates in 3D, 2000 and 500 in 2D: large clusters are there by then.
    """
    for dimension, side, span, warm, n in (
        (3, 100, (4.45, 4.65), (150, 60), 6),
        (2, 100, (2.25, 2.64), (2000, 500), 100),
    ):
        batch = IsingBatch(Slab(Lattice.of_dimension(dimension, side)), np.linspace(*span, 64), KEY, 0)
        batch.run(*warm)
        batch.seconds = dict.fromkeys(batch.seconds, 0.0)
        batch.run(10 * n, n)
        show(f"Wolff, 64 lattices of {side}^{dimension}", ("ten sweeps", 1e3 * batch.seconds["metropolis"] / n),
             ("one update", 1e3 * batch.seconds["wolff"] / n), "ms")  # fmt: skip
        print(f"    share of the updates {100 * batch.seconds['wolff'] / sum(batch.seconds.values()):.0f} %")


def field_sweep() -> None:
    """The flip fields of a whole sweep against raising H to the least stable site and relaxing, again and again."""
    small = Slab(Lattice.of_dimension(3, 24))
    fields = rfim.random_fields(small, 2.27, KEY, 0)
    ours = small.lattice.n_sites / seconds(rfim.flip_fields, small, fields) * 1e-6
    other = small.lattice.n_sites / seconds(brute_force_sweep, fields, small.lattice.periodic, repeat=1) * 1e-6
    show("RFIM field sweep, 24^3", ("by windows", ours), ("naive sweep in numpy", other), "sites/us")
    large, targets = Slab(Lattice.of_dimension(3, 100)), np.linspace(-0.6, 0.6, 8)

    def whole():
        flips = rfim.flip_fields(large, rfim.Gaussian(2.27, KEY, 0))
        rfim.stable_states(large, flips, targets)
        rfim.avalanche_counts(large, flips)

    print(f"    100^3 with fields, 8 states and avalanches: {seconds(whole):.3f} s", flush=True)


def ranks() -> None:
    """Two ranks against one: many lattices (replicas go to ranks), and one large one (cut into slabs)."""
    rates, large = {}, {}
    # The stdout of a rank is a terminal, where colorama would have numba end with an escape sequence.
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING": "1"}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(SCALING)
        for count in (1, 2):
            out = Path(folder) / f"{count}.h5"
            mpiexec(count, "-m", "hamscope_hpc.cli", "simulate", str(config), "--out", str(out), timeout=300)
            spent = json.loads(out.with_suffix(".run.json").read_text())["rank_seconds"]
            rates[count] = count * 64 / sum(v for k, v in spent.items() if k not in ("writing", "metropolis", "wolff"))
            done = mpiexec(count, str(Path(__file__).with_name("slab_times.py")), timeout=300)
            large[count] = json.loads(done.stdout.splitlines()[-1])
    show("many: 64 field sweeps of 100^3", ("two ranks", rates[2]), ("one rank", rates[1]), "lattices/s")
    for what, size in (
        ("metropolis", "64 lattices of 200^3"),
        ("wolff", "64 lattices of 200^3"),
        ("field sweep", "256^3"),
    ):
        show(f"one large: {what}, {size}", ("two ranks", 1 / large[2][what]), ("one rank", 1 / large[1][what]), "1/s")
    print(f"    exchange of both halo planes of 200 x 200 words: {1e6 * large[2]['exchange']:.0f} us on two ranks")


def bare(kind: str, threads: int, epochs: int) -> dict[str, list[float]]:
    """Seconds and CPU seconds of epochs of a plain torch loop in a process of its own, without Ray."""
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS=str(threads))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("train_times.py"), kind, str(threads), str(epochs)],
        env=environment, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def on_ray(kind: str, workers: int, threads: int, epochs: int) -> dict[str, list[float]]:
    """Seconds of epochs in workers of Ray Train, and what they waited for images; starts a Ray unless one is there."""
    import ray.train
    from ray.train.torch import TorchTrainer
    from train_times import program_epochs

    from hamscope_hpc.cluster import start_ray
    from hamscope_hpc.train import WORKER_ENVIRONMENT

    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, start_ray(cpus=workers * threads):
        job = {"kind": kind, "threads": threads, "epochs": epochs, "folder": folder}
        TorchTrainer(
            program_epochs, train_loop_config=job,
            scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": threads}),
            run_config=ray.train.RunConfig(
                name="ray", storage_path=folder, logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),
                worker_runtime_env={
                    "env_vars": WORKER_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)}
                },
            ),
        ).fit()  # fmt: skip
        found = json.loads((Path(folder) / "times.json").read_text())
    found["around"] = time.monotonic() - begin - sum(found["seconds"])
    return found


def training() -> None:
    """Ray Train against a plain torch loop on the same images; images/s; two workers against one; share waited."""
    from train_times import IMAGES

    from hamscope_hpc.cluster import start_ray

    for cores, rest in ((1, "the other core free for Ray"), (2, "none left for Ray")):
        loop, ours = {"seconds": [], "cpu": []}, {"seconds": [], "cpu": [], "waited": []}
        for _ in range(2):  # in turn, since the load of the machine changes
            for times, found in ((loop, bare("bare", cores, 12)), (ours, on_ray("paper", 1, cores, 12))):
                for name in times:
                    times[name] += found[name]
        plain = np.median(loop["seconds"])
        wall, cpu = (100 * (np.median(ours[name]) / np.median(loop[name]) - 1) for name in loop)
        show(f"training, the paper's network, cores: {cores}, {rest}",
             ("Ray Train, one worker", IMAGES / np.median(ours["seconds"])),
             ("plain torch loop", IMAGES / plain), "images/s")  # fmt: skip
        waited = 100 * sum(ours["waited"]) / sum(ours["seconds"])
        print(f"    overhead {wall:.1f} % of the time, {cpu:.1f} % of the CPU time; waited for images {waited:.2f} %")
    print(f"    start, warming up and end: {found['around']:.0f} s more")
    with start_ray(cpus=2):
        single, double = (IMAGES / np.median(on_ray("paper", workers, 1, 3)["seconds"]) for workers in (1, 2))
    show("training, the paper's network, one core a worker", ("two workers", double), ("one worker", single),
         "images/s")  # fmt: skip
    print(f"    scaling efficiency {100 * double / 2 / single:.0f} %")
    invariant = IMAGES / np.median(bare("invariant", 2, 2)["seconds"])
    show("training, two cores, plain loop", ("invariant (16, 32, 64, 64)", invariant),
         ("the paper's", IMAGES / plain), "images/s")  # fmt: skip


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


def dense() -> None:
    """Every window of a frame at once against one by one, and where the time of a frame goes."""
    script = Path(__file__).with_name("dense_times.py")
    subprocess.run([sys.executable, str(script)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    begin = time.monotonic()
    subprocess.run(["uname", "-srm"], check=True)
    packages(metropolis())
    for benchmark in (wolff, field_sweep, ranks, training, dense, writing):
        benchmark()
    print(f"bench: {time.monotonic() - begin:.0f} s")
