"""`hamscope campaign` on dask workers of this machine: the bytes of `hamscope simulate`, whatever is killed."""

import json
import os
import signal
import time

import psutil
import pytest
from engines import ROOT, hamscope, simulated
from killing import MANIFESTS, Job, until

from hamscope.config import load_config
from hamscope.errors import UserError
from hamscope.provenance import sha256_file
from hamscope_hpc.claim import claim, item_lock, job_lock, remove_dead_item_locks
from hamscope_hpc.simulate import all_items
from hamscope_hpc.work import Work, stem

pytest.importorskip("distributed", reason='dask is missing: pip install "hamscope[campaign]"')

# Some seconds of work on two workers.
CONFIG = """
name = "campaign"
[simulate]
seed = 5
image_size = 32
C-2D = {temperature = [2.25, 2.6], lattices = 128, measurements = 3, thermalization_sweeps = 6000, thermalization_wolff = 600}
RF-3D = {disorder = [2.25, 2.29], lattices = 20, snapshots = 4}
P-2D = {probability = [0.57, 0.61], lattices = 300}
"""  # noqa: E501


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Config and hash of the file of one process of `hamscope simulate`."""
    config, slices = simulated(tmp_path_factory.mktemp("undisturbed"), CONFIG)
    return config, sha256_file(slices)


def start(config, out, *options, script=None) -> Job:
    return Job(1, "campaign", config, "--out", str(out), "--checkpoint-every", "0.2", *options, script=script)


def midway(out):
    """True once an item has a checkpoint but is not done."""

    def found():
        manifests = [json.loads(path.read_text()) for path in Work(out).folder.glob(MANIFESTS)]
        return any(not manifest["done"] for manifest in manifests)

    return found


def busy_workers(out) -> list[int]:
    """The processes that compute an item now, from the locks of the items."""
    found = []
    for path in Work(out).folder.glob("lock.item.*[0-9]"):
        try:
            found.append(json.loads(path.read_text().partition(" ")[2])["pid"])
        except (OSError, ValueError):
            continue
    return found


def test_the_bytes_of_simulate_for_the_tiny_config(tmp_path):
    """configs/tiny.toml, all seven classes, on two workers."""
    config, alone, out = str(ROOT / "configs/tiny.toml"), tmp_path / "alone.h5", tmp_path / "out.h5"
    assert hamscope("simulate", config, "--out", str(alone)).returncode == 0
    done = hamscope("campaign", config, "--out", str(out), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "as there is no --site" in done.stderr and "http://127.0.0.1:" in done.stderr
    assert sha256_file(out) == sha256_file(alone) and not Work(out).folder.exists()
    assert "nothing to do" in hamscope("campaign", config, "--out", str(out)).stderr


def test_a_worker_killed_midway(undisturbed, tmp_path):
    """SIGKILL to a worker in the middle of an item: the campaign goes on to the same bytes; it listens on loopback.

    Seen to fail without the settings of Open MPI in `hamscope campaign`: 0.0.0.0 and ::.
    """
    config, expected = undisturbed
    out = tmp_path / "out.h5"
    job = start(config, out, "--jobs", "2")
    assert until(lambda: midway(out)() and busy_workers(out), job)
    with pytest.raises(UserError, match="another job works on it"):
        claim(Work(out), job_lock(Work(out)), load_config(config), False)
    assert job.listening() == {"127.0.0.1"}
    assert until(lambda: busy_workers(out), job)
    os.kill(busy_workers(out)[0], signal.SIGKILL)
    status, err = job.wait()
    assert status == 0, err
    assert sha256_file(out) == expected


def test_the_campaign_killed_and_started_again(undisturbed, tmp_path):
    """SIGKILL to the campaign alone: its workers end by themselves, and the same command ends at the same bytes."""
    config, expected = undisturbed
    out = tmp_path / "out.h5"
    job = start(config, out, "--jobs", "2")
    assert until(midway(out), job)
    workers = [psutil.Process(pid) for pid in job.pids() if pid != job.process.pid]
    os.kill(job.process.pid, signal.SIGKILL)
    job.process.communicate()
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    status, err = start(config, out, "--jobs", "1").wait()
    assert status == 0 and "going on from" in err, err
    assert sha256_file(out) == expected and not Work(out).folder.exists()


def test_a_signal_stops_with_75(tmp_path):
    """SIGTERM long before the next checkpoint: the workers store what they have, status 75.

    Seen to fail with the workers not told to stop: no checkpoint.
    """
    config, out = tmp_path / "config.toml", tmp_path / "out.h5"
    config.write_text(CONFIG.replace("= 6000", "= 900_000"))
    job = Job(1, "campaign", str(config), "--out", str(out), "--jobs", "2", "--checkpoint-every", "1000")
    assert until(lambda: busy_workers(out), job)
    time.sleep(0.5)
    job.process.send_signal(signal.SIGTERM)
    status, err = job.wait(60)
    assert status == 75 and "the same command goes on" in err, err
    assert midway(out)() and not out.exists() and not busy_workers(out)


POISON = """
import os, signal
from hamscope_hpc import campaign_item

class Deadly(campaign_item.ItemRun):
    def finish(self):
        if self.item.name == "RF-3D":
            os.kill(os.getpid(), signal.SIGKILL)
        super().finish()

def compute_item(*arguments):
    campaign_item.ItemRun = Deadly
    return campaign_item.compute_item(*arguments)
"""


def test_an_item_that_kills_every_worker(undisturbed, tmp_path, monkeypatch):
    """It is given up, in one line, with status 1; all other items are computed, and without the poison it goes on.

    Seen to fail where an item that a dying worker had finished was computed again: its state is no more.
    """
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.replace("lattices = 20", "lattices = 1").replace("= 6000", "= 60"))
    (tmp_path / "poison.py").write_text(POISON)
    (tmp_path / "main.py").write_text(
        "import poison\nfrom hamscope_hpc import campaign, cli\ncampaign.compute_item = poison.compute_item\n"
        "if __name__ == '__main__':\n    cli.main()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    out = tmp_path / "out.h5"
    status, err = start(str(config), out, "--jobs", "2", script=str(tmp_path / "main.py")).wait(60)
    assert status == 1 and "Traceback" not in err, err
    assert "campaign: RF-3D.0000 killed every worker that computed it" in err
    work = Work(out)
    done = {stem(item): bool(work.manifest(item)) for item in all_items(load_config(config))}
    assert not done.pop("RF-3D.0000") and all(done.values()), done
    again = hamscope("campaign", str(config), "--out", str(out))
    assert again.returncode == 0, again.stderr


def test_a_worker_that_outlives_its_campaign(tmp_path):
    """`simulate` is refused while one computes; a campaign goes in, as its workers wait for that item.

    Seen to fail with the locks of items not looked at.
    """
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    config, work = load_config(path), Work(tmp_path / "out.h5")
    work.folder.mkdir()
    worker = item_lock(work, all_items(config)[0])
    worker.acquire()
    whole = job_lock(work)
    with pytest.raises(UserError, match=r"item C-2D\.0000 of another job works on it"):
        claim(work, whole, config, False)
    whole.release()
    second = job_lock(work)
    claim(work, second, config, False, campaign=True)
    second.release()
    remove_dead_item_locks(work)
    assert worker._is_mine()
    worker.release()
    dead = item_lock(work, all_items(config)[1])
    dead.owner["started"] = "1"
    dead.acquire()
    remove_dead_item_locks(work)
    assert not dead.path.exists()
    dead.release()


@pytest.mark.parametrize("text, words", [("partition = ", "is not TOML"), ("cores = 0", "cores = 0"),
                                         ("queue = 'debug'", "the keys are partition"),
                                         ("memory = 'much'", "memory = much")])  # fmt: skip
def test_a_site_file_that_is_none(tmp_path, text, words):
    (tmp_path / "site.toml").write_text(text)
    done = hamscope("campaign", "any.toml", "--out", str(tmp_path / "o.h5"), "--site", str(tmp_path / "site.toml"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr


def test_without_dask(tmp_path):
    """One line that says what to install."""
    (tmp_path / "main.py").write_text(
        "import sys\nsys.modules['dask_jobqueue'] = None\nfrom hamscope_hpc import cli\ncli.main()\n"
    )
    job = Job(1, "campaign", str(ROOT / "configs/tiny.toml"), "--out", str(tmp_path / "o.h5"),
              script=str(tmp_path / "main.py"))  # fmt: skip
    status, err = job.wait()
    assert status == 2 and 'pip install "hamscope[campaign]"' in err and err.count("\n") == 1, err
