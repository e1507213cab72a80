"""The two routes of the set-up: Debian's MPI with a parallel HDF5, and, without root, all from PyPI.

The first is the one that the suite runs in.  Here the second is set up in an environment of its own and draws the
same content.
"""

import os
import shutil
import subprocess
import time

import h5py
import pytest
from engines import ROOT, hamscope, missing, mpiexec

from hamscope.data.slices import read_slices

CONFIG = """
name = "routes"
[simulate]
seed = 5
image_size = 16
C-3D = {temperature = [4.45, 4.65], lattices = 5, measurements = 2, thermalization_sweeps = 9, thermalization_wolff = 5}
RF-2D = {disorder = [1.0, 1.19], lattices = 40, snapshots = 4}
P-2D = {probability = [0.57, 0.61], lattices = 1200}
"""


@pytest.fixture(scope="module")
def laptop_python():
    """The Python of the other route's environment, `.venv-pypi`; made the first time, kept after."""
    environment = dict(os.environ, VENV=".venv-pypi", HAMSCOPE_MPI="pypi")
    done = subprocess.run(["hpc/setup.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(ROOT / ".venv-pypi" / "bin" / "python")


@pytest.mark.timeout(1200)
def test_both_routes_give_the_same_content(laptop_python, tmp_path):
    """Three ranks of PyPI's Open MPI with the serial h5py (rank 0 writes what others send) against one process here.

    More images than one block of the writer.  Seen to fail with rank 0 writing its own share only.
    """
    config = tmp_path / "routes.toml"
    config.write_text(CONFIG)
    here = hamscope("simulate", str(config), "--out", str(tmp_path / "here.h5"))
    assert here.returncode == 0, here.stderr
    arguments = ["-m", "hamscope_hpc.cli", "simulate", str(config), "--out", str(tmp_path / "there.h5")]
    there = mpiexec(3, *arguments, python=laptop_python)
    assert there.returncode == 0, there.stderr
    assert '"parallel_hdf5": false' in (tmp_path / "there.run.json").read_text()
    assert read_slices(tmp_path / "there.h5").content_sha256 == read_slices(tmp_path / "here.h5").content_sha256


def test_this_environment_writes_in_parallel():
    """Where Debian's MPI is there, h5py was built against the parallel HDF5."""
    if shutil.which("mpicc") is None:
        missing("a system MPI", "apt-get install libopenmpi-dev libhdf5-openmpi-dev, then make setup")
    assert h5py.get_config().mpi


def test_set_up_once_costs_a_second():
    """A second call finds everything done: no output, next to no time."""
    begin = time.monotonic()
    done = subprocess.run(["hpc/setup.sh"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == ""
    assert time.monotonic() - begin < 5


def test_an_unknown_route_is_refused():
    done = subprocess.run(["hpc/setup.sh"], cwd=ROOT, env=dict(os.environ, HAMSCOPE_MPI="mpich"), capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 2 and "write system or pypi" in done.stderr
