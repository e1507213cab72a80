"""simulate.sbatch on a real SLURM that runs out of time; alone in its file, since SLURM is slow to send the signal."""

import pytest
from engines import mpiexec

from hamscope.provenance import sha256_file

LONG = """
name = "long"
[simulate]
seed = 5
image_size = 32
[simulate.C-2D]
temperature = [2.25, 2.6]
lattices = 1024
thermalization_sweeps = 120000
thermalization_wolff = 12000
"""


@pytest.mark.timeout(600)
def test_time_limit_is_used_and_gone_on_from(cluster, tmp_path):
    """The signal that comes before the time limit leads to a checkpoint and a new start, without a human.

    SLURM 22.05 looks every 30 s whether a signal is due, so there is more work than that for one rank:
    about 65 s of an idle core, and 37 s on one that is 1.7 times as fast.
    """
    config, reference = tmp_path / "long.toml", tmp_path / "reference.h5"
    config.write_text(LONG)
    done = mpiexec(2, "-m", "hamscope_hpc.cli", "simulate", str(config), "--out", str(reference), timeout=240)
    assert done.returncode == 0, done.stderr
    job = cluster.sbatch("-w", "n1", "-n1", "--mem-per-cpu=100", "--signal=B:USR1@53", "--time=1",
                         "slurm/simulate.sbatch", str(config), str(tmp_path))  # fmt: skip
    done = cluster.wait(job, 340)
    log = (tmp_path / "logs" / f"simulate.{job}.out").read_text()
    assert done["JobState"] == "COMPLETED" and int(done["Restarts"]) >= 1, log
    assert sha256_file(tmp_path / "slices.h5") == sha256_file(reference)
    assert "stopped (USR1), requeued" in log
