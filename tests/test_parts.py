"""`hamscope simulate --part K/N`: jobs of different parts side by side in one work folder, and who is refused there."""

import threading

import pytest
from engines import hamscope
from killing import Job, until

from hamscope.config import load_config
from hamscope.errors import UserError
from hamscope.provenance import sha256_file
from hamscope_hpc.claim import Part, claim, job_lock, parse_part
from hamscope_hpc.lock import JobLock
from hamscope_hpc.simulate import all_items
from hamscope_hpc.work import Work, stem

CONFIG = """
name = "parts"
[simulate]
seed = 3
image_size = 16
C-2D = {temperature = [2.25, 2.6], lattices = 70, measurements = 2, thermalization_sweeps = 9, thermalization_wolff = 5}
RF-3D = {disorder = [2.25, 2.29], lattices = 3, snapshots = 4}
P-2D = {probability = [0.57, 0.61], lattices = 300}
"P*" = {probability = [[0.02, 0.2], [0.48, 0.52], [0.8, 0.98]], lattices = 200}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "parts.toml"
    path.write_text(CONFIG)
    return path


def simulate(config, out, *options):
    return hamscope("simulate", str(config), "--out", str(out), *options)


def one_line(done) -> str:
    """The only line of a command that refused."""
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_parts_at_the_same_time_give_the_bytes_of_one_job(config, tmp_path):
    """Three parts, of one rank and of two, start together on an empty folder; the command without --part ends at the
    same bytes.

    Seen to fail with parts that begin with the next item.
    """
    alone, out = tmp_path / "alone.h5", tmp_path / "parts.h5"
    assert simulate(config, alone).returncode == 0
    arguments = ["simulate", str(config), "--out", str(out), "--part"]
    jobs = [Job(ranks, *arguments, f"{k}/4") for k, ranks in ((1, 1), (2, 2), (4, 1))]
    outcomes = [job.wait() for job in jobs]
    assert [status for status, _ in outcomes] == [0, 0, 0], outcomes
    work, items = Work(out), all_items(load_config(config))
    assert [bool(work.manifest(item)) for item in items] == [k % 4 != 2 for k in range(len(items))]
    assert not out.exists() and any("work items are missing" in err for _, err in outcomes)
    last = simulate(config, out, "--part", "3/4")
    assert f"all {len(items)} work items; the same command without --part writes {out}" in last.stderr
    done = simulate(config, out)
    assert done.returncode == 0 and "all computed" in done.stderr, done.stderr
    assert sha256_file(out) == sha256_file(alone)
    assert not work.folder.exists()
    assert "nothing to do" in simulate(config, out, "--part", "1/4").stderr


def test_who_is_refused_where_a_part_works(config, tmp_path):
    """Beside a living part: not the same one, none of another number, no whole job; another one of its own number."""
    config.write_text(CONFIG.replace("thermalization_sweeps = 9", "thermalization_sweeps = 9_000_000"))
    out = tmp_path / "parts.h5"
    job = Job(1, "simulate", str(config), "--out", str(out), "--part", "1/4", "--checkpoint-every", "0.2")
    first = all_items(load_config(config))[0]
    assert until((Work(out).folder / f"{stem(first)}.json").exists, job)
    for options in (["--part", "1/4"], ["--part", "2/5"], []):
        assert "part 1/4 of another job works on it" in one_line(simulate(config, out, *options)), options
    other = tmp_path / "other.toml"
    other.write_text(CONFIG)
    assert "works on it" in one_line(simulate(other, out, "--part", "3/4", "--replace"))
    assert job.running()
    beside = simulate(config, out, "--part", "4/4")
    assert beside.returncode == 0, beside.stderr
    job.kill()
    # Its lock is that of a dead process now: a whole job begins.
    whole = Job(1, "simulate", str(config), "--out", str(out))
    assert until((Work(out).folder / "lock").exists, whole)
    assert "another job works on it" in one_line(simulate(config, out, "--part", "4/4"))
    whole.kill()


def test_many_parts_claim_an_empty_folder_at_once(config, tmp_path):
    """Sixteen parts meet at a folder that is not there, or that a dead job left: all get in, and it is marked once.

    Seen to fail, 3 times of 3, with the folder opened without the lock of a whole job: "in the way and no work folder".
    """
    loaded = load_config(config)
    for round_ in range(4):
        work = Work(tmp_path / f"{round_}.h5")
        if round_ % 2:
            work.folder.mkdir()
            dead = JobLock(work.folder / "lock")
            dead.owner["started"] = "1"
            assert dead._create()
        locks = [job_lock(work, Part(k + 1, 16)) for k in range(16)]
        start, found = threading.Barrier(16), []

        def enter(k, work=work, locks=locks, start=start, found=found):
            start.wait()
            try:
                found.append(claim(work, locks[k], loaded, False, Part(k + 1, 16)))
            except Exception as error:
                found.append(error)

        threads = [threading.Thread(target=enter, args=(k,)) for k in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, found)) == ["False"] + ["True"] * 15, found
        assert {path.name for path in work.folder.iterdir()} == {"run.json", *(lock.path.name for lock in locks)}
        for lock in locks:
            lock.release()


def test_the_end_of_a_whole_job_leaves_the_lock_of_a_newcomer(config, tmp_path):
    """A part that took its lock while a whole job removes the folder keeps it, and the folder.

    Seen to fail with all files but `lock` removed.
    """
    work = Work(tmp_path / "parts.h5")
    whole, part = job_lock(work), job_lock(work, Part(1, 2))
    claim(work, whole, load_config(config), False)
    part.acquire()
    work.remove()
    assert part._is_mine() and not whole.path.exists() and not (work.folder / "run.json").exists()
    part.release()
    work.remove()
    assert not work.folder.exists()
    whole.release()


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "1/2/3", "-1/4", "1/0", " 1/4", "1/99999999999"])
def test_a_part_that_is_none(text):
    with pytest.raises(UserError, match="write K/N with K from 1 to N"):
        parse_part(text)


def test_more_parts_than_items(config, tmp_path):
    """Refused before anything is made, and so is a text that is no part."""
    out = tmp_path / "parts.h5"
    n = len(all_items(load_config(config)))
    assert f"there are {n} work items; choose at most {n} parts" in one_line(simulate(config, out, "--part", "1/999"))
    assert "write K/N" in one_line(simulate(config, out, "--part", "5/4"))
    assert not Work(out).folder.exists()
