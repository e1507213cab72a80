"""The whole way on a real SLURM and a real Ray, undisturbed and preempted in every stage: the same results."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from engines import ROOT, hamscope
from slurm_cluster import events

from hamscope.data.results import read_results
from hamscope.provenance import sha256_file

TINY = (ROOT / "configs" / "tiny.toml").read_text()
FRAMES = 41
SMALL = {"HAMSCOPE_SIMULATE": "--ntasks-per-node=1 --mem-per-cpu=100", "HAMSCOPE_TRAIN": "-c2 --mem-per-cpu=500",
         "HAMSCOPE_CLASSIFY": "-c2 --mem-per-cpu=500", "HAMSCOPE_PARTS": "2"}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """configs/tiny.toml with so many epochs, frames and windows that every stage can be met half-way."""
    path = tmp_path_factory.mktemp("config") / "config.toml"
    text = TINY
    for few, many in (("epochs = 2", "epochs = 60"), ("frames = 4", "frames = 40"), ("size = 64", "size = 128"),
                      ("stride = 16", "stride = 1")):  # fmt: skip
        assert few in text
        text = text.replace(few, many)
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def frames(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    done = hamscope("film", config, "--out", str(folder / "frames"))
    assert done.returncode == 0, done.stderr
    np.save(folder / "frames" / "holes.npy", np.full((40, 40), np.nan))  # will be quarantined
    return folder / "frames"


@pytest.fixture(scope="module")
def whole_way(cluster, config, frames, tmp_path_factory):
    """OUT of a pipeline that nobody disturbs, its job ids, and what pipeline.sh said."""
    out = tmp_path_factory.mktemp("whole") / "out"
    said = cluster.call("slurm/pipeline.sh", config, str(frames), str(out), **SMALL)
    jobs = [line.split()[2].rstrip(",") for line in said.splitlines() if ": job " in line]
    for job in jobs:
        cluster.wait(job, 150)
    return out, jobs, said


def logs(out: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((out / "logs").glob("*.out")))


def content(results: Path) -> str:
    """The hash of all values of a results file."""
    return read_results(results).attributes["content_sha256"]


def test_the_whole_way(cluster, whole_way):
    """One job after the other, all files where `hamscope run` puts them, an event a line, no daemon left.

    The simulation is an array of two and a job that writes the file.

    One frame is quarantined: the line of the job says 3, the report is there, and what waits for the job may run.  The
    logs say nothing of Ray's inner workings; a warning of core_worker.cc was there before Ray was told to be quiet.
    """
    out, jobs, said = whole_way
    assert [cluster.state(job) for job in jobs] == ["COMPLETED"] * 4, logs(out)
    for name in ("run.json", "slices.h5", "bundle/weights.safetensors", "results.h5", "report/index.html"):
        assert (out / name).exists(), logs(out)
    ends = [("simulate", 0)] * 3 + [("train", 0), ("classify", 3)]
    assert sorted(events(out), key=str) == sorted(
        [(stage, "submitted", None) for stage in ("simulate", "simulate", "train", "classify")]
        + [(stage, "started", None) for stage, _ in ends]
        + [(stage, "ended", status) for stage, status in ends], key=str)  # fmt: skip
    assert f"squeue --jobs={','.join(jobs)}" in said and f"hamscope status {out}" in said
    assert "ssh -N -L 8265:127.0.0.1:" in logs(out)
    assert not any(cluster.processes(job) for job in jobs)
    assert not [noise for noise in ("core_worker", "Terminated", "User defined signal") if noise in logs(out)]


@pytest.mark.parametrize("stage", ["train", "classify"])
def test_preempted_half_way_it_gives_the_same(cluster, whole_way, config, frames, tmp_path, stage):
    """Preempted while Ray works: requeued once, and the weights or the results are those of the undisturbed way.

    Seen to fail where a command that SIGTERM ended, after the requeue, ended the script: a line `ended` with 143.
    """
    whole, _, _ = whole_way
    shutil.copy(whole / "slices.h5", tmp_path / "slices.h5")
    arguments = [config, str(tmp_path)]
    if stage == "classify":
        shutil.copytree(whole / "bundle", tmp_path / "bundle")
        arguments.insert(1, str(frames))
    job = cluster.sbatch("-w", "n1", "-c2", "--mem-per-cpu=500", f"slurm/{stage}.sbatch", *arguments)
    stored = "bundle.train/state.pt" if stage == "train" else "results.h5.parts/*.npz"
    cluster.until(lambda: any(tmp_path.glob(stored)), 120)
    cluster.take_nodes("n1")
    done = cluster.wait(job, 120)
    assert (done["JobState"], done["Restarts"]) == ("COMPLETED", "1"), logs(tmp_path)
    assert [event for _, event, _ in events(tmp_path)] == ["started", "requeued", "started", "ended"]
    assert events(tmp_path)[-1][2] == (0 if stage == "train" else 3)
    assert not cluster.processes(job)
    if stage == "train":
        assert re.search(r"goes on after epoch [1-9]\d? of 60", logs(tmp_path))
        name = "bundle/weights.safetensors"
        assert sha256_file(tmp_path / name) == sha256_file(whole / name)
    else:
        first, second = (int(done) for done in re.findall(rf"{FRAMES} frames, (\d+) of them done", logs(tmp_path)))
        assert first == 0 < second < FRAMES
        assert content(tmp_path / "results.h5") == content(whole / "results.h5")
