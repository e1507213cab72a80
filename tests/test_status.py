"""`hamscope status`: a folder as runs and jobs leave it, told from its files alone."""

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
from engines import ROOT, hamscope
from killing import Job, until

from hamscope.errors import UserError
from hamscope_hpc.progress import Progress, counted, speed
from hamscope_hpc.status import last_lines, lines, read_status

TINY = ROOT / "configs" / "tiny.toml"


def told(folder) -> dict[str, tuple[str, str]]:
    """State and details of every stage."""
    return {one.stage: (one.state, "; ".join(one.details)) for one in read_status(folder)[0]}


def made_older(folder, seconds: float) -> None:
    """Let the files of a folder be as old as that."""
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def events(folder, *rows) -> None:
    """jobs.jsonl as the job scripts write it: (job, stage, event, status[, time]) a line, then half a line."""
    names = ("job", "stage", "event", "status", "time")
    text = "".join(json.dumps(dict(zip(names, row)) | {"log": f"{folder}/{row[0]}.out"}) + "\n" for row in rows)
    (folder / "jobs.jsonl").write_text(text + '{"job": "9')


def test_a_simulation_is_followed_stopped_and_done(tmp_path):
    """A real run, seen while it computes, after SIGUSR1, gone on with, after SIGKILL and after its end.

    Seen to fail where the simulation does not write its progress (no share is told), where an unfinished output
    counts as done because a results file lies beside it, and where the stop is not written (it was "running" for
    two minutes more).
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
    state, details = told(tmp_path)["simulate"]
    assert state == "unfinished" and " s ago (SIGUSR1)" in details and "stopped" in details and "left" not in details
    made_older(work, 300)
    state, details = told(tmp_path)["simulate"]
    assert state == "unfinished" and "stopped 5 min" in details
    job = Job(1, "simulate", str(config), "--out", str(tmp_path / "slices.h5"))
    until(lambda: "stopped" not in (work / "progress.json").read_text(), job)
    assert told(tmp_path)["simulate"][0] == "running"
    job.kill()
    made_older(work, 300)
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


@pytest.mark.parametrize(("event", "status"), [("requeued", 75), ("ended", 75), ("ended", 1)])
@pytest.mark.parametrize("output", ["slices.h5.work", "bundle.train", "results.h5.parts"])
def test_what_a_job_has_left_does_not_run(tmp_path, output, event, status):
    """Its event comes seconds after its last word; of two parts of an array one may still run, or a start by hand.

    Seen to fail where the events are not looked at, where one job that has ended is enough, and where the work folder
    of a new start counts as left.
    """
    stage = {"slices.h5.work": "simulate", "bundle.train": "train", "results.h5.parts": "classify"}[output]
    work = tmp_path / output
    work.mkdir()
    (work / "progress.json").write_text("{}")
    made_older(work, 9)

    def at(ago):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago))

    events(tmp_path, ("7", stage, "submitted", None, at(99)), ("7", stage, "started", None, at(90)))
    state, details = told(tmp_path)[stage]
    assert state == "running" and details.startswith("job 7 started 1 min 3")
    left = [("7", stage, "started", None, at(90)), ("7", stage, event, status, at(8))]
    events(tmp_path, *left)
    state, details = told(tmp_path)[stage]
    assert state == "unfinished" and details.startswith("no word for ")
    events(tmp_path, *left, ("8", stage, "started", None, at(90)))
    assert told(tmp_path)[stage][0] == "running"
    events(tmp_path, *left)
    made_older(work, 1)
    assert told(tmp_path)[stage][0] == "running"


def test_a_job_that_has_nothing_to_tell_yet_is_told(tmp_path):
    """A training starts with half a minute of Ray; seen to fail where it was "waiting" and nothing else."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 90))
    events(tmp_path, ("7", "train", "started", None, now), ("8", "classify", "submitted", None, now))
    state, details = told(tmp_path)["train"]
    assert state == "starting" and details.startswith("job 7 started 1 min 3")
    assert told(tmp_path)["classify"] == ("waiting", "")


def test_one_is_not_many_and_no_rate_is_told_before_there_is_one(tmp_path):
    """Seen to fail with a plain "ranks", with the rate 0.0, with 0.0 for forty lattices an hour, and where a start
    leaves the word of an earlier one until its first bite of work is done.
    """
    assert [counted(n, "class", "classes") for n in (0, 1, 1024)] == ["0 classes", "1 class", "1,024 classes"]
    assert speed(0, 3.0, "lattices") == ""
    assert [speed(*now, "lattices") for now in ((1, 90.0), (1, 5.0), (246, 2.0), (52000, 10.0), (1, 36000.0))] == [
        "40.0 lattices/h", "0.2 lattices/s", "123 lattices/s", "5,200 lattices/s", "0.1 lattices/h",
    ]  # fmt: skip
    config = tmp_path / "c.toml"
    config.write_text(
        'name = "one"\n[simulate]\nseed = 1\nimage_size = 32\nP-2D = {probability = [0.57, 0.61], lattices = 1}\n'
    )
    said = hamscope("simulate", str(config), "--out", str(tmp_path / "slices.h5")).stderr
    assert "simulate: 1 lattice of 1 class on 1 rank, up to one lattice or batch" in said and " 1 image in " in said
    assert "done" in told(tmp_path)["simulate"] and told(tmp_path)["simulate"][1].startswith("1 image;")
    work = tmp_path / "next" / "slices.h5.work"
    work.mkdir(parents=True)
    Progress(SimpleNamespace(rank=0), 374, 10.0, work / "progress.json").before(0, 0.0)
    assert told(work.parent)["simulate"] == ("running", "0/374 lattices, 0 %")


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
    assert [line.split(None, 2)[2] for line in text if line[:1] in "5678" and line[1:2] == " "] == [
        "started, start 2; in the queue: RUNNING on n1", "done but for quarantined frames", "failed with status 1",
        "stopped; submitted again, it goes on",
    ]  # fmt: skip
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
