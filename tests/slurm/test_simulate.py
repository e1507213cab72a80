"""simulate.sbatch on a real SLURM: preempted, out of time, cancelled, on a node that goes down, with a failing rank.

Each time the file is that of one process that nobody disturbs, byte for byte, or it is not there.
"""

import hashlib
import json
import subprocess

import pytest
from engines import ROOT, hamscope
from slurm_cluster import events

SCRIPT = "slurm/simulate.sbatch"
# About ten seconds of work in many items on one rank, so that two ranks can be met half-way.
CONFIG = """
name = "slurm"
[simulate]
seed = 5
image_size = 32
C-2D = {temperature = [2.25, 2.6], lattices = 200, measurements = 3, thermalization_sweeps = 3000, thermalization_wolff = 300}
RF-2D = {disorder = [1.0, 1.19], lattices = 400, snapshots = 4}
RF-3D = {disorder = [2.25, 2.29], lattices = 60, snapshots = 4}
"""  # noqa: E501


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A config, and the hash of the file of one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "config.toml").write_text(CONFIG)
    done = hamscope("simulate", str(folder / "config.toml"), "--out", str(folder / "slices.h5"))
    assert done.returncode == 0, done.stderr
    return str(folder / "config.toml"), sha256(folder / "slices.h5")


def submit(cluster, config, out, *options, **environment):
    return cluster.sbatch("-w", "n1", "--ntasks-per-node=2", "--mem-per-cpu=100", *options, SCRIPT, config, str(out),
                          **environment)  # fmt: skip


def begun(out):
    """True once an item is stored."""
    return lambda: len(list((out / "slices.h5.work").glob("*.json"))) > 1


def log_of(out, job):
    return (out / "logs" / f"simulate.{job}.out").read_text()


def test_preempted_requeued_once_and_finished(cluster, undisturbed, tmp_path):
    config, expected = undisturbed
    job = submit(cluster, config, tmp_path)
    cluster.until(begun(tmp_path))
    cluster.take_nodes("n1")
    done = cluster.wait(job)
    print(log_of(tmp_path, job))
    assert (done["JobState"], done["Restarts"]) == ("COMPLETED", "1"), log_of(tmp_path, job)
    assert sha256(tmp_path / "slices.h5") == expected
    assert events(tmp_path) == [
        ("simulate", "started", None), ("simulate", "requeued", 75), ("simulate", "started", None),
        ("simulate", "ended", 0),
    ]  # fmt: skip
    assert json.loads((tmp_path / "slices.run.json").read_text())["resumed"]
