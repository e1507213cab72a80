"""ray.sh on a real SLURM: two clusters of one user on one node, one over two nodes, a launch that fails."""

import shutil
import stat
from getpass import getuser
from pathlib import Path

import pytest
from engines import ROOT, hamscope
from slurm_cluster import command_line, events

CONFIG = str(ROOT / "configs" / "tiny.toml")


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    path = tmp_path_factory.mktemp("slices") / "slices.h5"
    done = hamscope("simulate", CONFIG, "--out", str(path))
    assert done.returncode == 0, done.stderr
    return path


def train(cluster, slices, out, *options, **environment):
    out.mkdir()
    shutil.copy(slices, out)
    return cluster.sbatch("-w", "n1", "-c2", "--mem-per-cpu=500", *options, "slurm/train.sbatch", CONFIG, str(out),
                          "--set", "epochs=30", **environment)  # fmt: skip


def folder_of(job: str) -> Path:
    return Path("/tmp", getuser(), f"r{job}")


def log_of(out, job):
    return "".join((out / "logs" / f"{name}.{job}.out").read_text() for name in ("train", "ray"))


def test_two_on_one_node_and_scancel(cluster, slices, tmp_path):
    """One is cancelled while both run: its daemons end within 30 s, and the other, over two nodes, ends well.

    The token is the user's alone, in a folder that is too, and stands in no command line.
    """
    one = train(cluster, slices, tmp_path / "one")
    two = train(cluster, slices, tmp_path / "two", "-N", "2", "-w", "n1,n2")
    for job, name in ((one, "one"), (two, "two")):
        cluster.until((tmp_path / name / "bundle.train").exists, 90, lambda: log_of(tmp_path / "two", two))
        token = folder_of(job) / "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600 and stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    secret = token.read_bytes()
    assert len(secret) == 64 and not any(secret in command for command in map(command_line, cluster.processes(two)))
    assert any(b"raylet" in command for command in map(command_line, cluster.processes(one)))
    cluster.call("scancel", one)
    assert cluster.wait(one)["JobState"] == "CANCELLED"
    cluster.until(lambda: not cluster.processes(one), 30, lambda: [command_line(pid) for pid in cluster.processes(one)])
    assert cluster.fields(one)["Restarts"] == "0"
    assert cluster.wait(two)["JobState"] == "COMPLETED", log_of(tmp_path / "two", two)
    assert "2 workers with" in log_of(tmp_path / "two", two)
    cluster.until(lambda: not cluster.processes(two), 30)
    assert not folder_of(two).exists()


def test_a_launch_that_fails_fails_the_job(cluster, slices, tmp_path):
    """Ray refuses an object store of one byte."""
    job = train(cluster, slices, tmp_path / "out", HAMSCOPE_OBJECT_STORE="1")
    done = cluster.wait(job)
    assert (done["JobState"], done["ExitCode"]) == ("FAILED", "1:0"), log_of(tmp_path / "out", job)
    assert "Ray did not start" in log_of(tmp_path / "out", job)
    assert events(tmp_path / "out")[-1] == ("train", "ended", 1)
    cluster.until(lambda: not cluster.processes(job), 30)
