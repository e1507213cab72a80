"""Jobs of MPI ranks that tests start, watch, signal and kill: every process of a job, by its id."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from engines import ROOT, missing

MANIFESTS = "*.[0-9][0-9][0-9][0-9].json"  # of the items in a work folder, one for each that is begun and stored


class Job:
    """`hamscope *arguments` on MPI ranks, in the background; on one rank without mpiexec."""

    def __init__(self, ranks: int, *arguments: str, script: str | None = None):
        program = [sys.executable, *([script] if script else ["-m", "hamscope_hpc.cli"]), *arguments]
        if ranks > 1:
            starter = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
            if starter is None:
                missing("mpiexec", "apt-get install openmpi-bin libopenmpi-dev")
            program = [starter, "-n", str(ranks), "--oversubscribe", *program]
        self.process = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            start_new_session=True,
            env=dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1"),
        )  # fmt: skip
        self.ranks = ranks

    def pids(self) -> list[int]:
        """The process and all that descend from it, the youngest first."""
        children = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(
                    int(stat.parent.name)
                )
            except OSError:
                continue  # it ended meanwhile
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found[::-1]

    def rank_pids(self) -> list[int]:
        """The processes of the ranks."""
        return self.pids()[:-1] if self.ranks > 1 else [self.process.pid]

    def listening(self) -> set[str]:
        """The addresses on which its processes listen."""
        found = [c for pid in self.pids() for c in psutil.Process(pid).net_connections("inet")]
        return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}

    def kill(self) -> None:
        """SIGKILL to every process of the job, and wait until none is left."""
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate()
        deadline = time.monotonic() + 20
        while any(_alive(pid) for pid in pids):
            assert time.monotonic() < deadline, "a killed process is still there"
            time.sleep(0.01)

    def wait(self, timeout: float = 240) -> tuple[int, str]:
        """Exit status and stderr."""
        try:
            _, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.process.returncode, err

    def running(self) -> bool:
        return self.process.poll() is None


def until(condition, job: Job, timeout: float = 60) -> bool:
    """Wait until `condition()` holds: True; False where the job ended first."""
    deadline = time.monotonic() + timeout
    while not condition():
        if not job.running():
            return False
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
    return True


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
