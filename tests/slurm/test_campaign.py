"""`hamscope campaign` on a real SLURM: its jobs come and go, one is killed, and the bytes are those of `simulate`."""

import signal
import subprocess
import sys

import pytest
from engines import ROOT, hamscope, simulated

from hamscope.provenance import sha256_file
from hamscope_hpc.work import Work

pytest.importorskip("dask_jobqueue", reason='dask-jobqueue is missing: pip install "hamscope[campaign]"')

# Twenty seconds of work for one core of 2026, in items of seconds: one can be met half done on faster cores too.
CONFIG = """
name = "campaign"
[simulate]
seed = 5
image_size = 32
C-2D = {temperature = [2.25, 2.6], lattices = 192, measurements = 3, thermalization_sweeps = 60_000, thermalization_wolff = 6000}
RF-3D = {disorder = [2.25, 2.29], lattices = 30, snapshots = 4}
"""  # noqa: E501
SITE = 'partition = "low"\nwalltime = "00:10:00"\ncores = 1\nmemory = "500MB"\ninterface = "lo"\n'


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> str:
    """The digest of the file that one process of `simulate` writes."""
    return sha256_file(simulated(tmp_path_factory.mktemp("alone"), CONFIG)[1])


def start(cluster, config, out, site, *options):
    """The command, in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "hamscope_hpc.cli", "campaign", str(config), "--out", str(out), "--site", str(site),
         *options],
        cwd=ROOT, env=cluster.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def computing(cluster, process, out) -> list[str]:
    """Wait until an item is half done; the jobs that run then."""
    jobs: list[str] = []

    def computes() -> bool:
        assert process.poll() is None, process.communicate()
        jobs[:] = cluster.call("squeue", "-h", "-t", "R", "-o", "%i").split()
        return bool(jobs and list(Work(out).folder.glob("C-2D.*.words.*")))

    cluster.until(computes, 60)
    return jobs


def test_a_job_killed_midway(cluster, expected, tmp_path):
    """A job of the campaign is killed with its worker while it computes: another comes, and the file is the same."""
    config, site, out = (tmp_path / name for name in ("config.toml", "site.toml", "out.h5"))
    config.write_text(CONFIG)
    site.write_text(SITE)
    process = start(cluster, config, out, site, "--jobs", "2", "--checkpoint-every", "0.2")
    try:
        job = computing(cluster, process, out)[0]
        cluster.call("scancel", "--signal=KILL", "--full", job)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert cluster.state(job) in ("FAILED", "CANCELLED")
    assert "up to 2 SLURM jobs" in err and "Traceback" not in err, err
    assert sha256_file(out) == expected


def test_the_campaign_itself_killed(cluster, expected, tmp_path):
    """SIGKILL to it and its scheduler: its job of two workers ends, and the same command gives the same bytes.

    Seen to fail where dask limited the memory of the workers in the jobs: they were ended time and again.
    """
    config, site, out = (tmp_path / name for name in ("config.toml", "site.toml", "out.h5"))
    config.write_text(CONFIG)
    site.write_text(SITE.replace("cores = 1", "cores = 2"))
    process = start(cluster, config, out, site, "--jobs", "1", "--checkpoint-every", "0.2")
    try:
        before = computing(cluster, process, out)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL and cluster.fields(before[0])["NumCPUs"] == "2"
    process = start(cluster, config, out, site, "--jobs", "1")
    try:
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in err, err
    assert sha256_file(out) == expected
    cluster.until(lambda: not cluster.call("squeue", "-h"), 60)


def test_a_signal_ends_the_jobs_too(cluster, tmp_path):
    """SIGTERM to the campaign: status 75, and no job of it is left in the queue."""
    config, site, out = (tmp_path / name for name in ("config.toml", "site.toml", "out.h5"))
    config.write_text(CONFIG.replace("= 60_000", "= 900_000"))
    site.write_text(SITE)
    process = start(cluster, config, out, site)
    try:
        cluster.until(lambda: process.poll() is not None or list(Work(out).folder.glob("lock.item.*")), 60)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, err
    assert list(Work(out).folder.glob("C-2D.*.words.*"))
    cluster.until(lambda: not cluster.call("squeue", "-h"), 20)


def test_a_partition_that_is_none(cluster, tmp_path):
    """Refused at once, with what SLURM says.  (SBATCH_PARTITION would win over the site file.)"""
    (tmp_path / "site.toml").write_text(SITE.replace("low", "nowhere"))
    environment = {name: value for name, value in cluster.environment.items() if name != "SBATCH_PARTITION"}
    done = hamscope("campaign", str(ROOT / "configs/tiny.toml"), "--out", str(tmp_path / "out.h5"),
                    "--site", str(tmp_path / "site.toml"), **environment)  # fmt: skip
    assert done.returncode == 2 and "SLURM refuses the jobs" in done.stderr and "partition" in done.stderr, done.stderr
