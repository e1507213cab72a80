"""`hamscope status`: a folder as runs and jobs leave it, told from its files alone."""

import json
import os
import signal
import time

import pytest
from engines import ROOT, hamscope
from killing import Job, until

from hamscope.errors import UserError
from hamscope_hpc.status import last_lines, lines, read_status

TINY = ROOT / "configs" / "tiny.toml"


def told(folder) -> dict[str, tuple[str, str]]:
    """State and details of every stage."""
    return {one.stage: (one.state, "; ".join(one.details)) for one in read_status(folder)[0]}


def events(folder, *rows) -> None:
    """jobs.jsonl as the job scripts write it: (job, stage, event, status) a line, then half a line."""
    names = ("job", "stage", "event", "status")
    text = "".join(json.dumps(dict(zip(names, row)) | {"log": f"{folder}/{row[0]}.out"}) + "\n" for row in rows)
    (folder / "jobs.jsonl").write_text(text + '{"job": "9')


def test_a_simulation_is_followed_stopped_and_done(tmp_path):
    """A real run, seen while it computes, after SIGUSR1 and after its end.

    Seen to fail where the simulation does not write its progress (no share is told), and where an unfinished output
    counts as done because a results file lies beside it.
    """
    (tmp_path / "run.json").write_text('{"name": "tiny"}')
    config = tmp_path / "c.toml"
    config.write_text(TINY.read_text().replace("thermalization_sweeps = 200", "thermalization_sweeps = 400000"))
    job = Job(1, "simulate", str(config), "--out", str(tmp_path / "slices.h5"), "--checkpoint-every", "0.2")
    work = tmp_path / "slices.h5.work"
    until(lambda: (work / "progress.json").exists() and list(work.glob("C-3D*.json")), job)
    state, details = told(tmp_path)["simulate"]
    assert state == "running" and "/374 lattices" in details and "%" in details and "last checkpoint" in details
    assert told(tmp_path)["train"] == ("waiting", "") and told(tmp_path)["report"] == ("waiting", "")
    os.kill(job.process.pid, signal.SIGUSR1)
    assert job.wait()[0] == 75
    for path in work.iterdir():
        os.utime(path, (time.time() - 300, time.time() - 300))
    state, details = told(tmp_path)["simulate"]
    assert state == "unfinished" and "no word for 5 min" in details
    assert hamscope("simulate", str(TINY), "--out", str(tmp_path / "slices.h5"), "--replace").returncode == 0
    state, details = told(tmp_path)["simulate"]
    assert state == "done" and "888 images" in details


def test_parts_that_are_done_are_not_told(tmp_path):
    """Of an array's parts those are told that gave word of late; all of them where none did.

    Seen to fail where old ones are told beside new ones.
    """
    work = tmp_path / "slices.h5.work"
    work.mkdir()
    word = {"done": "1/4 lattices", "share": 0.25, "rate": "0.5 lattices/s", "left": 6.0}
    for part in ("1-of-3", "2-of-3"):
        (work / f"progress.{part}.json").write_text(json.dumps(word))
    old = time.time() - 900
    os.utime(work / "progress.1-of-3.json", (old, old))
    assert told(tmp_path)["simulate"] == ("running", "part 2-of-3: 1/4 lattices, 25 %, 0.5 lattices/s, 6 s left")
    os.utime(work / "progress.2-of-3.json", (old, old))
    state, details = told(tmp_path)["simulate"]
    assert state == "unfinished" and "part 1-of-3" in details and "part 2-of-3" in details


def test_a_training_tells_epochs_rate_and_time_left(tmp_path):
    """Three of ten epochs at 20 s, half of the fourth: 6.5 epochs or 2 min 10 s are left."""
    work = tmp_path / "bundle.train"
    work.mkdir()
    epoch = {"seconds": 20.0, "images_per_second": 150.0, "validation_accuracy": 0.875}
    (work / "log.jsonl").write_text("".join(json.dumps(epoch | {"epoch": k}) + "\n" for k in (1, 2, 3)))
    (work / "progress.json").write_text(json.dumps({"epoch": 4, "epochs": 10, "share": 0.5, "seconds": 10.0}))
    state, details = told(tmp_path)["train"]
    assert state == "running"
    assert details == "3/10 epochs done, 50 % of the next, 2 min 10 s left; 150 images/s, validation accuracy 87.5 %"


def test_jobs_by_their_last_event_and_the_end_of_the_log_of_what_failed(tmp_path):
    """A requeued job that goes on is no failure, status 75 and 3 are none; status 1 is, and its last lines are shown.

    Seen to fail where the first event of a job counts, and where 75 counts as failed.
    """
    (tmp_path / "8.out").write_text("\n".join(f"line {k}" for k in range(100)) + "\nthe disk is full\n\n")
    events(
        tmp_path,
        ("7", "simulate", "started", None), ("7", "simulate", "ended", 75), ("7", "simulate", "requeued", None),
        ("7", "simulate", "started", None), ("6", "classify", "ended", 3), ("8", "train", "started", None),
        ("8", "train", "ended", 1), ("5", "train", "ended", 75),
    )  # fmt: skip
    stages, jobs = read_status(tmp_path, {"7": "RUNNING on n1"})
    assert [(job.job, job.event, job.status, job.starts, job.failed) for job in jobs] == [
        ("7", "started", None, 2, False), ("6", "ended", 3, 0, False), ("8", "ended", 1, 1, True),
        ("5", "ended", 75, 0, False),
    ]  # fmt: skip
    text = lines(stages, jobs)
    assert any("start 2; in the queue: RUNNING on n1" in line for line in text)
    assert text[-1] == "  the disk is full" and text[-8] == "  line 93" and text[-9].startswith("job 8, train, failed")
    assert not any("line 92" in line for line in text)


def test_a_log_that_is_gone_is_said(tmp_path):
    """A failed job whose log cannot be read is still told, with the reason."""
    assert last_lines(tmp_path / "none") == ["(cannot be read: No such file or directory)"]
    (tmp_path / "empty").touch()
    assert last_lines(tmp_path / "empty") == ["(the log is empty)"]


@pytest.mark.parametrize("name, reason", [("none", "is no folder"), ("", "holds nothing of hamscope")])
def test_a_folder_of_something_else_is_refused(tmp_path, name, reason):
    """One line that says what to give instead."""
    with pytest.raises(UserError, match=reason):
        read_status(tmp_path / name)


def test_the_command_needs_no_engine(tmp_path):
    """`hamscope status` works where MPI, Ray and torch cannot be imported, and gives JSON."""
    (tmp_path / "run.json").write_text('{"name": "tiny"}')
    for name in ("mpi4py", "ray", "torch"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not on a login node')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = hamscope("status", str(tmp_path), "--json", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert [stage["state"] for stage in json.loads(done.stdout)["stages"]] == ["waiting"] * 4
