"""simulate.sbatch on a real SLURM: preempted, cancelled, on a node that goes down, with a failing rank.

Each time the file is that of one process that nobody disturbs, byte for byte, or it is not there.
"""

import json
import os
import signal

import pytest
from engines import simulated
from killing import MANIFESTS
from slurm_cluster import Cluster, events

from hamscope.provenance import sha256_file

SCRIPT = "slurm/simulate.sbatch"
# Work in many items: on two ranks 5 s of an idle machine, so that they can be met half-way.
CONFIG = """
name = "slurm"
[simulate]
seed = 5
image_size = 32
C-2D = {temperature = [2.25, 2.6], lattices = 1024, measurements = 3, thermalization_sweeps = 20000, thermalization_wolff = 2000}
RF-2D = {disorder = [1.0, 1.19], lattices = 900, snapshots = 4}
RF-3D = {disorder = [2.25, 2.29], lattices = 120, snapshots = 4}
"""  # noqa: E501

JOB = """#!/usr/bin/env bash
set -euo pipefail
source "$HAMSCOPE_HOME/slurm/common.sh"
begin simulate "$1"
run_step -- bash -c '[ "$SLURM_PROCID" = 1 ] || { sleep 1; exit 1; }; trap "exit 75" TERM; sleep 60 & wait'
finish "$status"
"""
# A step that is launched late: srun itself knows nothing of a signal that comes before.
LATE = """#!/usr/bin/env bash
set -euo pipefail
source "$HAMSCOPE_HOME/slurm/common.sh"
begin simulate "$1"
srun() { trap "" USR1; touch "$out/late"; sleep 2; command srun "$@"; }
run_step -- bash -c 'trap "exit 75" TERM; sleep 60 & wait'
finish "$status"
"""
# The ranks cannot answer, so SLURM has to kill them.
DEAF = """#!/usr/bin/env bash
set -euo pipefail
source "$HAMSCOPE_HOME/slurm/common.sh"
begin simulate "$1"
run_step -- bash -c 'touch "$0/$SLURM_PROCID.up"; trap "" TERM USR1; exec sleep 20' "$1"
finish "$status"
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A config, and the hash of the file of one process."""
    config, slices = simulated(tmp_path_factory.mktemp("undisturbed"), CONFIG)
    return config, sha256_file(slices)


def submit(cluster, config, out, *options, **environment):
    return cluster.sbatch("-w", "n1", "--ntasks-per-node=2", "--mem-per-cpu=100", *options, SCRIPT, config, str(out),
                          "--ranks-per-lattice", "1", **environment)  # fmt: skip


def begun(out):
    """True once an item is stored."""
    return lambda: any((out / "slices.h5.work").glob(MANIFESTS))


def log_of(out, job):
    return (out / "logs" / f"simulate.{job}.out").read_text()


def test_preempted_requeued_once_and_finished(cluster, undisturbed, tmp_path):
    config, expected = undisturbed
    job = submit(cluster, config, tmp_path)
    cluster.until(begun(tmp_path))
    cluster.take_nodes("n1")
    done = cluster.wait(job)
    assert (done["JobState"], done["Restarts"]) == ("COMPLETED", "1"), log_of(tmp_path, job)
    assert sha256_file(tmp_path / "slices.h5") == expected
    assert events(tmp_path) == [
        ("simulate", "started", None), ("simulate", "requeued", 75), ("simulate", "started", None),
        ("simulate", "ended", 0),
    ]  # fmt: skip
    assert json.loads((tmp_path / "slices.run.json").read_text())["resumed"]


def test_preempted_where_steps_get_sigterm_and_the_shell_nothing(undisturbed, tmp_path):
    """As on a cluster without preempt_send_user_signal."""
    config, expected = undisturbed
    with Cluster(more="") as plain:
        job = submit(plain, config, tmp_path)
        plain.until(begun(tmp_path))
        plain.take_nodes("n1")
        done = plain.wait(job)
    assert (done["JobState"], done["Restarts"]) == ("COMPLETED", "1"), log_of(tmp_path, job)
    assert "stopped (SIGTERM to the step), requeued" in log_of(tmp_path, job)
    assert sha256_file(tmp_path / "slices.h5") == expected


def test_scancel_leaves_no_process_and_no_requeue(cluster, tmp_path):
    """Seen to fail without the look at the job's state: the job that the user ended was requeued and completed."""
    config = tmp_path / "long.toml"
    config.write_text(CONFIG.replace("lattices = 1024", "lattices = 20480"))
    job = submit(cluster, str(config), tmp_path)
    cluster.until(begun(tmp_path))
    assert cluster.processes(job)
    cluster.call("scancel", job)
    done = cluster.wait(job)
    assert (done["JobState"], done["Restarts"]) == ("CANCELLED", "0")
    cluster.until(lambda: not cluster.processes(job), 30)
    assert events(tmp_path) == [("simulate", "started", None), ("simulate", "ended", 75)]
    assert not (tmp_path / "slices.h5").exists()


def test_ranks_that_slurm_has_to_kill_are_a_stop(cluster, tmp_path):
    """They hear no signal, as in a long call; a process that SIGSTOP holds does not do, SLURM wakes it first.

    Seen to fail without the look at the job's state: srun returned 0, and the event was that of a whole output.
    """
    script = tmp_path / "job.sh"
    script.write_text(DEAF)
    job = cluster.sbatch("-w", "n1", "-n2", "-o", "/dev/null", "--mem-per-cpu=100", str(script), str(tmp_path))
    cluster.until(lambda: len(list(tmp_path.glob("*.up"))) == 2)
    cluster.call("scancel", job)
    done = cluster.wait(job)
    assert (done["JobState"], done["Restarts"]) == ("CANCELLED", "0"), log_of(tmp_path, job)
    cluster.until(lambda: not cluster.processes(job), 60)
    told = events(tmp_path)[1:]  # nothing where SLURM killed the shell as well before it could
    assert told in ([], [("simulate", "ended", 75)]), log_of(tmp_path, job)


def test_a_stop_before_the_step_is_launched(cluster, tmp_path):
    """The step ends as soon as it is there, and the job is requeued.

    Seen to fail without the mark that the step looks for: it slept on.
    """
    script = tmp_path / "job.sh"
    script.write_text(LATE)
    job = cluster.sbatch("-w", "n1", "-n1", "-o", "/dev/null", "--mem-per-cpu=100", str(script), str(tmp_path))
    cluster.until((tmp_path / "late").exists)
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    cluster.until(lambda: cluster.fields(job)["Restarts"] == "1", 40, lambda: log_of(tmp_path, job))
    assert events(tmp_path)[1] == ("simulate", "requeued", 75)
    cluster.call("scancel", job)


def test_a_rank_that_fails_fails_the_job(cluster, undisturbed, tmp_path):
    """One of two ranks is killed: the job says so, is not requeued, writes no file, and the next one goes on."""
    config, expected = undisturbed
    job = submit(cluster, config, tmp_path)
    cluster.until(begun(tmp_path))
    ranks = cluster.ranks(job)
    assert len(ranks) == 2
    os.kill(ranks[0], signal.SIGKILL)
    done = cluster.wait(job)
    assert (done["JobState"], done["ExitCode"], done["Restarts"]) == ("FAILED", "137:0", "0"), log_of(tmp_path, job)
    assert events(tmp_path)[-1] == ("simulate", "ended", 137)
    assert not (tmp_path / "slices.h5").exists()
    again = submit(cluster, config, tmp_path)
    assert cluster.wait(again)["JobState"] == "COMPLETED"
    assert sha256_file(tmp_path / "slices.h5") == expected


def test_the_status_of_a_job_is_that_of_the_rank_that_failed(cluster, tmp_path):
    """srun ends the others, and they say 75, the larger: such a job is not requeued.

    Seen to fail where the status of srun was taken.
    """
    script = tmp_path / "job.sh"
    script.write_text(JOB)
    job = cluster.sbatch("-w", "n1", "-n2", "-o", "/dev/null", "--mem-per-cpu=100", str(script), str(tmp_path))
    done = cluster.wait(job)
    assert (done["JobState"], done["ExitCode"], done["Restarts"]) == ("FAILED", "1:0", "0"), log_of(tmp_path, job)


def test_a_node_that_goes_down_under_the_job(cluster, undisturbed, tmp_path):
    """SLURM itself requeues the job, and it is finished once the node is back."""
    config, expected = undisturbed
    job = submit(cluster, config, tmp_path)
    cluster.until(begun(tmp_path))
    cluster.call("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    cluster.until(lambda: cluster.fields(job)["Restarts"] == "1")
    cluster.until(lambda: not cluster.processes(job), 30)
    cluster.resume("n1")
    done = cluster.wait(job)
    assert (done["JobState"], done["Restarts"]) == ("COMPLETED", "1"), log_of(tmp_path, job)
    assert sha256_file(tmp_path / "slices.h5") == expected
    assert [event for _, event, _ in events(tmp_path)][-3:] == ["requeued", "started", "ended"]


def test_starts_that_store_nothing_come_to_an_end(cluster, undisturbed, tmp_path):
    """A job that is stopped before it can store anything is requeued a few times, then it fails and says why."""
    config, _ = undisturbed
    job = submit(cluster, config, tmp_path, HAMSCOPE_FRUITLESS_STARTS="1")
    cluster.until(lambda: events(tmp_path))
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    done = cluster.wait(job)
    assert (done["JobState"], done["ExitCode"], done["Restarts"]) == ("FAILED", "1:0", "1"), log_of(tmp_path, job)
    assert "1 starts in a row stored nothing new" in log_of(tmp_path, job)


def test_an_array_and_its_merge_give_the_file_of_a_single_job(cluster, undisturbed, tmp_path):
    """Three parts; the last, whose plain id is that of the whole array, is stopped and requeued alone.

    Seen to fail with the plain id: all three were requeued.
    """
    config, expected = undisturbed
    array = submit(cluster, config, tmp_path, "--array=1-3", "--ntasks-per-node=1")
    cluster.until(begun(tmp_path))
    cluster.call("scancel", "--batch", "--signal=USR1", f"{array}_3")
    merge = submit(cluster, config, tmp_path, f"--dependency=afterok:{array}")
    assert cluster.wait(merge)["JobState"] == "COMPLETED", log_of(tmp_path, merge)
    restarts = [cluster.fields(f"{array}_{k}")["Restarts"] for k in (1, 2, 3)]
    assert restarts == ["0", "0", "1"]
    assert sha256_file(tmp_path / "slices.h5") == expected
