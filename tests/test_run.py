"""The whole way on tiny.toml, as a user runs it: one command, then the same again, then with a change."""

import json
import re
import signal
import time

import pytest
from engines import ROOT, hamscope
from killing import MANIFESTS, Job, until

from hamscope.data.results import read_results
from hamscope.data.slices import read_slices

TINY = ROOT / "configs" / "tiny.toml"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The finished first run: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("run") / "out"
    done = hamscope("run", str(TINY), "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder, done


def stamps(folder) -> dict[str, int]:
    """When each output was written."""
    names = ("slices.h5", "bundle/bundle.json", "frames/random-field.tif", "results.h5", "report/index.html")
    return {name: (folder / name).stat().st_mtime_ns for name in names}


def test_the_whole_way(first):
    """Every stage leaves its whole output, and the last lines are the verdict with the truth, and the page."""
    folder, done = first
    assert len(read_slices(folder / "slices.h5").images) > 700
    assert (folder / "bundle" / "learning_curve.png").exists() and (folder / "bundle" / "log.jsonl").exists()
    results = read_results(folder / "results.h5")
    assert len(results.fractions) == 4 and (results.n_windows > 0).any()
    lines = done.stdout.splitlines()
    assert re.match(r"random-field\.tif: .*; truth: RF-2D$", lines[-2])
    assert lines[-1] == f"report: {folder}/report/index.html"
    assert [
        path.name for path in folder.iterdir() if path.name.startswith(".") or path.suffix in (".parts", ".train")
    ] == []


def test_what_is_done_is_skipped_and_said(first):
    """The same command again writes nothing and says of each stage that there was nothing to do."""
    folder, _ = first
    before = stamps(folder)
    again = hamscope("run", str(TINY), "--out", str(folder))
    assert again.returncode == 0, again.stderr
    assert stamps(folder) == before
    for stage in ("simulate", "train", "film", "classify", "report"):
        assert re.search(rf"{stage}: .*nothing to do", again.stderr), (stage, again.stderr)


def test_a_change_redoes_what_depends_on_it_and_no_more(first, tmp_path):
    """Another stride classifies and reports again; another number of epochs trains again too; neither simulates."""
    folder, _ = first
    before = stamps(folder)
    changed = tmp_path / "tiny.toml"
    changed.write_text(TINY.read_text().replace("stride = 16", "stride = 8"))
    assert hamscope("run", str(changed), "--out", str(folder)).returncode == 0
    after = stamps(folder)
    assert {name for name in before if after[name] != before[name]} == {"results.h5", "report/index.html"}
    changed.write_text(TINY.read_text().replace("stride = 16", "stride = 8").replace("epochs = 2", "epochs = 1"))
    assert hamscope("run", str(changed), "--out", str(folder)).returncode == 0
    last = stamps(folder)
    assert {name for name in last if after[name] != last[name]} == {
        "bundle/bundle.json", "results.h5", "report/index.html",
    }  # fmt: skip


def test_a_folder_of_another_config_is_refused(first, tmp_path):
    """A run folder belongs to the name of its config; a folder of other things is not taken over."""
    folder, _ = first
    other = tmp_path / "other.toml"
    other.write_text(TINY.read_text().replace('name = "tiny"', 'name = "other"'))
    refused = hamscope("run", str(other), "--out", str(folder))
    assert refused.returncode == 2 and "belongs to the config 'tiny'" in refused.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    refused = hamscope("run", str(TINY), "--out", str(tmp_path / "mine"))
    assert refused.returncode == 2 and "was not made by `hamscope run`" in refused.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_record_of_the_run_is_beside_the_result(first):
    folder, _ = first
    record = json.loads((folder / "slices.run.json").read_text())
    assert record["ranks"] >= 1 and record["seconds"] > 0


def test_a_stop_while_simulating_is_passed_to_the_ranks(tmp_path):
    """SIGTERM to `hamscope run`: 75, the work is kept, and the same command goes on from it.

    Seen to fail with SIGTERM sent on to mpiexec, which kills the ranks (status 1).
    """
    config, folder = tmp_path / "long.toml", tmp_path / "out"
    config.write_text(TINY.read_text().replace("thermalization_sweeps = 100\n", "thermalization_sweeps = 200_000\n"))
    work = folder / "slices.h5.work"
    command = ["run", str(config), "--out", str(folder), "--ranks", "2"]
    job = Job(1, *command)
    assert until(lambda: (work / "lock").exists(), job)
    job.process.send_signal(signal.SIGTERM)
    status, err = job.wait(60)
    assert status == 75 and "the same command goes on" in err, err
    assert any(work.glob(MANIFESTS))
    job = Job(1, *command)
    assert until(lambda: (work / "lock").exists(), job)
    time.sleep(1.0)
    job.process.send_signal(signal.SIGTERM)
    status, err = job.wait(60)
    assert status == 75 and f"going on from {work}" in err, err
