"""simulate.sbatch on a real SLURM that runs out of time; alone in its file, since SLURM is slow to send the signal."""

import os
import signal

from engines import simulated
from killing import MANIFESTS

from hamscope.provenance import sha256_file

CONFIG = """
name = "limited"
[simulate]
seed = 5
image_size = 32
[simulate.C-2D]
temperature = [2.25, 2.6]
lattices = 256
thermalization_sweeps = 60000
thermalization_wolff = 6000
"""


def test_time_limit_is_used_and_gone_on_from(cluster, tmp_path):
    """The signal that comes before the time limit leads to a checkpoint and a new start, without a human.

    SLURM 22.05 looks every 30 s whether a signal is due, and the work is that of some seconds, so the rank is held
    half-way until the signal is there.  Seen to fail without the trap for it: it ended the job.
    """
    config, reference = simulated(tmp_path, CONFIG)
    out = tmp_path / "out"
    job = cluster.sbatch("-w", "n1", "-n1", "--mem-per-cpu=100", "--signal=B:USR1@53", "--time=1",
                         "slurm/simulate.sbatch", config, str(out))  # fmt: skip
    cluster.until(lambda: any((out / "slices.h5.work").glob(MANIFESTS)))
    [rank] = cluster.ranks(job)
    os.kill(rank, signal.SIGSTOP)
    cluster.until((out / "logs" / f"simulate.{job}.stop").exists, 60)
    os.kill(rank, signal.SIGCONT)
    done = cluster.wait(job)
    log = (out / "logs" / f"simulate.{job}.out").read_text()
    assert done["JobState"] == "COMPLETED" and int(done["Restarts"]) >= 1, log
    assert sha256_file(out / "slices.h5") == sha256_file(reference)
    assert "stopped (USR1), requeued" in log
