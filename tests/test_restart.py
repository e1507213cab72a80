"""Nothing is lost: jobs killed, signalled and starved of disk at any moment go on to the bytes of an undisturbed one.

HAMSCOPE_KILLS and HAMSCOPE_WRITING_KILLS set how many kills the tests make; without them few, for a quick suite.
`make kill-test` makes many.
"""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
from engines import hamscope, missing, mpiexec, simulated
from killing import MANIFESTS, Job, until

from hamscope.config import load_config, parse_config
from hamscope.data.slices import read_slices
from hamscope.errors import ContractError, UserError
from hamscope.provenance import sha256_file
from hamscope_hpc.lock import JobLock
from hamscope_hpc.simulate import all_items, plan
from hamscope_hpc.work import stem

KILLS = int(os.environ.get("HAMSCOPE_KILLS", 3))
WRITING_KILLS = int(os.environ.get("HAMSCOPE_WRITING_KILLS", 4))

# Some seconds of work in every kind of item: two batches of Ising lattices, field sweeps, percolation.
CONFIG = """
name = "kill"
[simulate]
seed = 5
image_size = 32
C-2D = {temperature = [2.25, 2.6], lattices = 70, measurements = 3, thermalization_sweeps = 3000, thermalization_wolff = 300}
C-3D = {temperature = [4.45, 4.65], lattices = 5, measurements = 3, thermalization_sweeps = 1000, thermalization_wolff = 100}
RF-2D = {disorder = [1.0, 1.19], lattices = 150, snapshots = 4}
RF-3D = {disorder = [2.25, 2.29], lattices = 40, snapshots = 4}
P-2D = {probability = [0.57, 0.61], lattices = 300}
"""  # noqa: E501
# Little to compute and much to write.
WRITING = """
name = "write"
[simulate]
seed = 6
image_size = 64
P-2D = {probability = [0.57, 0.61], lattices = 12000}
"""


def write_config(folder, text, name="config.toml"):
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Config and file of one process that nobody disturbs."""
    return simulated(tmp_path_factory.mktemp("undisturbed"), CONFIG)


def work_of(out):
    return out.with_name(out.name + ".work")


def begun(out):
    """True once there is something stored to go on from."""
    return lambda: any(work_of(out).glob(MANIFESTS))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_killed_at_random_moments(undisturbed, tmp_path, ranks):
    """SIGKILL to all processes of a job, or to one rank, again and again: the bytes are those of the undisturbed job.

    Seen to fail with a checkpoint that forgets the number of Wolff updates, and with the images of an unfinished item
    not stored.
    """
    config, reference = undisturbed
    moments, kills, finished = random.Random(ranks), 0, 0
    out = tmp_path / "slices.h5"
    arguments = ["simulate", config, "--out", str(out)]
    while kills < KILLS:
        # Every bite stored, so that items are gone on with in their middle; or, as it is used, few of them.
        job = Job(ranks, *arguments, "--checkpoint-every", "0" if kills % 3 else "0.2")
        until(lambda: work_of(out).exists(), job)
        end = time.monotonic() + moments.uniform(0, 4)
        while job.running() and time.monotonic() < end:
            time.sleep(0.01)
        if not job.running():
            assert sha256_file(out) == sha256_file(reference)
            finished += 1
            out.unlink()
            continue
        if moments.random() < 0.3:
            os.kill(moments.choice(job.rank_pids()), signal.SIGKILL)  # one rank: the launcher ends the others
            time.sleep(0.3)
        job.kill()
        kills += 1
    status, err = Job(ranks, *arguments).wait()
    assert status == 0, err
    assert sha256_file(out) == sha256_file(reference)
    assert not work_of(out).exists()


@pytest.mark.parametrize(
    "before, share, after, number",
    [(2, 2, 3, signal.SIGTERM), (1, 1, 2, signal.SIGUSR1), (4, 1, 1, signal.SIGTERM)],
)
def test_a_signal_stops_with_75_and_another_number_of_ranks_goes_on(
    undisturbed, tmp_path, before, share, after, number
):
    """One rank alone hears the signal; all stop with 75, and another number of ranks ends at the same bytes.

    Where ranks share lattices the state is cut in another way afterwards; where they do not, more than the one that
    heard has work left.  Seen to fail with the pieces of the state read from their
    beginning, and with the stop not told to the other ranks.
    """
    config, reference = undisturbed
    out = tmp_path / "slices.h5"
    job = Job(before, "simulate", config, "--out", str(out), "--checkpoint-every", "0.3",
              "--ranks-per-lattice", str(share))  # fmt: skip
    assert until(begun(out), job)
    os.kill(job.rank_pids()[0], number)
    status, err = job.wait(60)
    assert status == 75, err
    assert err.count("the same command goes on") == 1 and not out.exists()
    stored = items_stored(out)
    phases = plan(all_items(load_config(config)), before, 32, share)
    shares = [[item for phase in phases for item in phase.shares[group]] for group in range(before // share)]
    busy = [not all(stored.get(stem(item), {"done": False})["done"] for item in items) for items in shares]
    assert sum(busy) >= min(2, len(busy)), busy
    status, err = Job(after, "simulate", config, "--out", str(out), "--ranks-per-lattice", str(after)).wait()
    assert status == 0 and "going on from" in err, err
    assert sha256_file(out) == sha256_file(reference)


def test_the_launcher_passes_sigusr1_on(undisturbed, tmp_path):
    """SIGUSR1 to mpiexec itself, as a job script has it: 75 from the whole job."""
    config, _ = undisturbed
    out = tmp_path / "slices.h5"
    job = Job(2, "simulate", config, "--out", str(out), "--checkpoint-every", "0.3")
    assert until(begun(out), job)
    job.process.send_signal(signal.SIGUSR1)
    status, err = job.wait(60)
    assert status == 75, err


def test_another_config_is_refused_with_what_differs(undisturbed, tmp_path):
    """Unfinished work of one config, started with another: exit 2, one line with both values; --replace begins anew."""
    config, _ = undisturbed
    out = tmp_path / "slices.h5"
    job = Job(1, "simulate", config, "--out", str(out), "--checkpoint-every", "0.2")
    assert until(begun(out), job)
    job.kill()
    changed = CONFIG.replace("seed = 5", "seed = 7").replace("snapshots = 4", "snapshots = 3", 1)
    changed = changed.replace("P-2D", "P-3D").replace("[0.57, 0.61], lattices = 300", "[0.29, 0.33], lattices = 3")
    other = write_config(tmp_path, changed)
    refused = hamscope("simulate", other, "--out", str(out))
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    for words in ("simulate.seed = 5 there, 7 here", "simulate.RF-2D.snapshots = 4 there, 3 here",
                  "simulate.P-2D only there", "simulate.P-3D only here"):  # fmt: skip
        assert words in refused.stderr
    assert begun(out)()
    done = hamscope("simulate", other, "--out", str(out), "--replace")
    assert done.returncode == 0, done.stderr
    assert json.loads(read_slices(out).attributes["config"])["seed"] == 7


def test_a_second_job_on_the_same_output_is_refused(tmp_path):
    """While one works another is refused in one line; once it was killed, its lock is known to be dead.

    A process alone listens nowhere: seen to fail with Open MPI left to itself, 0.0.0.0.
    """
    config, out = (
        write_config(tmp_path, CONFIG.replace("_sweeps = 3000", "_sweeps = 9_000_000")),
        tmp_path / "slices.h5",
    )
    job = Job(2, "simulate", config, "--out", str(out), "--checkpoint-every", "0.2")
    assert until(begun(out), job)
    second = mpiexec(2, "-m", "hamscope_hpc.cli", "simulate", config, "--out", str(out))
    assert second.returncode == 2 and second.stderr.count("another job works on it") == 1, second.stderr
    assert job.running()
    job.kill()
    dead = (work_of(out) / "lock").read_text()
    third = Job(1, "simulate", config, "--out", str(out))
    assert until(lambda: (work_of(out) / "lock").exists() and (work_of(out) / "lock").read_text() != dead, third)
    assert third.listening() == set()
    third.kill()


def on_another_host(path, **times) -> JobLock:
    """A lock whose owner says that it runs elsewhere."""
    lock = JobLock(path, **times)
    lock.owner |= {"host": "elsewhere", "kernel": "other"}
    return lock


def test_a_lock_from_another_host(tmp_path):
    """Alive while its counter moves, dead when it stands still, whatever the clocks say; the old owner notices.

    Seen to fail with the age of the file compared with the clock (the mark lies in the future), and with an owner that
    does not look whether the lock is still its own.
    """
    path = tmp_path / "lock"
    living = on_another_host(path, beat=0.05)
    living.acquire()
    mine = JobLock(path, beat=0.05, patience=1.0)
    with pytest.raises(UserError, match="on elsewhere"):
        mine.acquire()
    # It falls silent, as a job on a host that lost its power does.
    living.ended.set()
    living.thread.join()
    os.utime(path, (time.time() + 9999,) * 2)
    mine.acquire()
    assert not living._is_mine() and not mine.lost
    third = on_another_host(path, beat=0.05, patience=1.0)
    with pytest.raises(UserError):
        third.acquire()
    # A job that was believed dead and is not: it sees that the lock is another's.
    awake = on_another_host(tmp_path / "other", beat=0.05)
    awake.acquire()
    (tmp_path / "other").unlink()
    time.sleep(0.3)
    assert awake.lost
    awake.release()
    mine.release()
    assert not path.exists() and not list(tmp_path.glob("lock*"))


def test_a_lock_of_a_number_that_another_process_has_now(tmp_path):
    """The process id of the dead owner belongs to a living process that started later: the lock is dead."""
    path = tmp_path / "lock"
    dead = JobLock(path)
    dead.owner["started"] = "1"
    dead.acquire()
    mine = JobLock(path)
    mine.acquire()
    assert mine._is_mine() and not dead._is_mine()
    mine.release()
    dead.release()


def test_a_dead_lock_is_buried_by_one_job_at_a_time(tmp_path):
    """While one job looks whose lock it is and moves it away, another waits, or it would move that of the first.

    Seen to fail without the lock on the folder.
    """
    dead = JobLock(tmp_path / "lock")
    dead.owner["started"] = "1"
    assert dead._create()
    mine, folder = JobLock(tmp_path / "lock"), os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    thread = threading.Thread(target=mine.acquire)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and dead._is_mine()
    os.close(folder)
    thread.join(30)
    assert mine._is_mine() and not dead._is_mine()
    mine.release()


@pytest.mark.timeout(1800)
def test_killed_while_writing(tmp_path):
    """SIGKILL while the file is written: what bears its name is whole or not there, and the next job makes it.

    The moment is random within the time that an undisturbed write takes.  Seen to fail with the file written under its
    own name.
    """
    config, out = write_config(tmp_path, WRITING), tmp_path / "slices.h5"
    arguments = ["simulate", config, "--out", str(out)]
    assert Job(2, *arguments).wait()[0] == 0
    reference = sha256_file(out)
    duration = json.loads(out.with_suffix(".run.json").read_text())["rank_seconds"]["writing"]
    moments, kills, early = random.Random(1), 0, 0
    out.unlink()
    while kills < WRITING_KILLS:
        job = Job(2, *arguments)
        part = work_of(out) / "slices.h5.part"
        assert until(part.exists, job)
        time.sleep(moments.uniform(0, duration))
        job.kill()
        kills += 1
        if out.exists():
            assert sha256_file(out) == reference
            out.unlink()
            shutil.rmtree(work_of(out), ignore_errors=True)
        else:
            early += 1
            with pytest.raises(ContractError):
                read_slices(out)
    assert early > 0
    status, err = Job(2, *arguments).wait()
    assert status == 0, err
    assert sha256_file(out) == reference


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB of its own, and the way to make it read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "hamscope-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        missing("a small file system", "run as root, where tmpfs can be mounted")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def one_line(err: str) -> str:
    """The one line of ours among what mpiexec and the progress print."""
    ours = [line for line in err.splitlines() if line.startswith("hamscope:")]
    assert len(ours) == 1 and "Traceback" not in err, err
    return ours[0]


def items_stored(out) -> dict[str, dict]:
    """The manifests in a work folder, each of which names files that can be read."""
    found = {}
    for path in work_of(out).glob(MANIFESTS):
        manifest = json.loads(path.read_text())
        for kind in ("rows", "bits", "avalanches"):
            np.load(path.with_name(f"{path.stem}.{manifest['generation']}.{kind}.npy"))
        found[path.stem] = manifest
    return found


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_full_disk(undisturbed, small_disk, ranks):
    """The disk fills up half-way: status 1, one line, the last checkpoint intact; with room again it goes on."""
    config, reference = undisturbed
    out, ballast = small_disk / "slices.h5", small_disk / "ballast"
    job = Job(ranks, "simulate", config, "--out", str(out), "--checkpoint-every", "0.1",
              "--ranks-per-lattice", str(ranks))  # fmt: skip
    assert until(begun(out), job)
    try:
        with open(ballast, "wb") as file:
            while True:
                file.write(b"\1" * 4096)
                file.flush()
    except OSError:
        pass
    status, err = job.wait(60)
    assert status == 1
    assert "disk" in one_line(err) or "free" in one_line(err)
    assert items_stored(out) and not out.exists()
    ballast.unlink()
    status, err = Job(ranks, "simulate", config, "--out", str(out)).wait()
    assert status == 0, err
    assert sha256_file(out) == sha256_file(reference)


def failing_disk(folder, ranks: str, calls: str) -> str:
    """A program like `hamscope` whose disk is full on some ranks from some call of the writer of arrays on."""
    script = folder / "full.py"
    script.write_text(
        "import errno, os\n"
        "from mpi4py import MPI\n"
        "from hamscope_hpc import cli, work\n"
        "save, calls, rank = work._save_array, [], MPI.COMM_WORLD.rank\n"
        "def full(path, array):\n"
        "    calls.append(path)\n"
        f"    if rank in {ranks} and {calls}:\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    save(path, array)\n"
        "work._save_array = full\n"
        "cli.main()\n"
    )
    return str(script)


def test_one_rank_that_cannot_write(undisturbed, tmp_path):
    """The third checkpoint fails on rank 1 of 3 that share a lattice: one line, status 1, and it goes on afterwards.

    Seen to fail with the error raised on the rank alone that met it.
    """
    config, reference = undisturbed
    out = tmp_path / "slices.h5"
    arguments = ["simulate", config, "--out", str(out), "--checkpoint-every", "0", "--ranks-per-lattice", "3"]
    status, err = Job(3, *arguments, script=failing_disk(tmp_path, "(1,)", "len(calls) == 3")).wait(60)
    assert status == 1 and "the disk is full" in one_line(err)
    assert items_stored(out)
    status, err = Job(1, "simulate", config, "--out", str(out)).wait()
    assert status == 0, err
    assert sha256_file(out) == sha256_file(reference)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_stop_that_cannot_be_stored_is_no_stop(undisturbed, tmp_path, ranks):
    """A signal comes and the disk is full: status 1 and the reason, not 75 and "all is kept".

    A scheduler would start a job that ends with 75 again and again.  Seen to fail with the failure not told where the
    ranks were stopping already.
    """
    config, _ = undisturbed
    out, full = tmp_path / "slices.h5", tmp_path / "full"
    script = failing_disk(tmp_path, "range(9)", f"os.path.exists({str(full)!r})")
    job = Job(ranks, "simulate", config, "--out", str(out), "--ranks-per-lattice", str(ranks), script=script)
    assert until((work_of(out) / "lock").exists, job)
    time.sleep(1.0)
    full.touch()
    os.kill(job.rank_pids()[0], signal.SIGTERM)
    status, err = job.wait(60)
    assert status == 1 and "the disk is full" in one_line(err), err


def test_no_room_for_the_file_itself(tmp_path, small_disk):
    """All is computed and the file does not fit: said before the write, and nothing is lost."""
    config = write_config(tmp_path, WRITING.replace("12000", "2500"))
    out = small_disk / "slices.h5"
    status, err = Job(2, "simulate", config, "--out", str(out)).wait(60)
    assert status == 1 and "all is computed and safe" in one_line(err)
    stored = items_stored(out)
    assert sum(manifest["images"] for manifest in stored.values()) == 2500


def test_a_folder_that_becomes_read_only(undisturbed, small_disk):
    """Half-way: status 1 and one line.  From the start: status 2 and one line.  Writable again: it goes on."""
    config, reference = undisturbed
    out = small_disk / "slices.h5"
    job = Job(2, "simulate", config, "--out", str(out), "--checkpoint-every", "0.2")
    assert until(begun(out), job)
    while subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], capture_output=True).returncode:
        time.sleep(0.01)  # busy while a file is open for writing
    status, err = job.wait(60)
    assert status == 1 and "read-only" in one_line(err)
    assert items_stored(out)
    status, err = Job(2, "simulate", config, "--out", str(out)).wait(60)
    assert status == 2 and str(small_disk) in one_line(err)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    status, err = Job(2, "simulate", config, "--out", str(out)).wait()
    assert status == 0, err
    assert sha256_file(out) == sha256_file(reference)


def test_an_output_folder_that_is_removed(undisturbed, tmp_path):
    """Half-way: status 1 and one line that says so, and nothing is made anew behind the user's back."""
    config, _ = undisturbed
    folder = tmp_path / "results"
    folder.mkdir()
    out = folder / "slices.h5"
    job = Job(2, "simulate", config, "--out", str(out), "--checkpoint-every", "0.2")
    assert until(begun(out), job)
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    status, err = job.wait(60)
    assert status == 1 and "removed" in one_line(err)
    assert not folder.exists()


def test_the_states_are_those_of_the_config(undisturbed):
    """The reference of all these tests holds what the config asks for, so equal bytes are not equally empty."""
    _, out = undisturbed
    slices = read_slices(out)
    assert json.loads(slices.attributes["config"])["seed"] == 5
    counts = np.bincount(slices.columns["model"], minlength=7)
    assert counts[0] == 210 and counts[1] == 13 * 15 and counts[4] == 300 and min(counts[2:4]) > 200
    assert parse_config({"name": "kill", "simulate": json.loads(slices.attributes["config"])})
