"""The parent lives whatever its child does, and no mutated file is called good unless it holds the same."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import h5py
import numpy as np
import pytest
from checked import mutate, simulate_small, targets

import hamscope.check
from hamscope import child
from hamscope.data import slices

# The whole number in CI takes about a minute.
MUTANTS = int(os.environ.get("HAMSCOPE_MUTANTS", "1500"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small slices file as the simulation writes it."""
    return simulate_small(tmp_path_factory.mktemp("good"))


def test_no_mutant_is_good_unless_it_holds_the_same(good, tmp_path):
    """Flipped, overwritten, cut, copied and swapped bytes, at random and where the structure of HDF5 stands.

    Whatever is called good is read again by h5py and has every image and column of the original.  The HDF5 library
    crashes on some mutants and never returns from others, which has to end as "bad" like the rest.

    Seen to fail, at 600 mutants, with the content hash not compared.
    """
    data, places = good.read_bytes(), targets(good)
    with h5py.File(good) as file:
        original = {name: file[name][:] for name in slices.CONTRACT}
    counts = Counter()
    for start in range(0, MUTANTS, 300):
        seeds = range(start, min(start + 300, MUTANTS))
        for seed in seeds:
            (tmp_path / f"{seed}.h5").write_bytes(mutate(data, places, seed))
        paths = [tmp_path / f"{seed}.h5" for seed in seeds]
        for path, outcome in zip(paths, child.check(paths, seconds=0.3)):
            counts[outcome.verdict, outcome.end] += 1
            assert outcome.verdict in ("good", "bad"), outcome
            assert outcome.lines and str(path) in outcome.lines[0], outcome
            if outcome.verdict == "good":
                with h5py.File(path) as file:
                    for name, values in original.items():
                        np.testing.assert_array_equal(file[name][:], values, err_msg=f"{path.name} {name}")
            path.unlink()
    print(dict(counts))
    assert sum(counts.values()) == MUTANTS and counts["bad", "done"] > MUTANTS / 2


def hang_in_python(_):
    while True:
        pass


def hang_in_c(_):
    time.sleep(1000)


def crash(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def eat_memory(_):
    return "good", [bytes(2**29)], "done"


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(_):
    os._exit(0)


def flood(_):
    return "bad", ["x" * 10**6 + "\n"] * 1000, "done"


def mistake(_):
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize(
    "behaviour, verdict, end, reason",
    [
        (hang_in_python, "bad", "time", "could not be read within"),
        (hang_in_c, "bad", "time", "could not be read within"),
        (crash, "bad", "crash", "SIGSEGV"),
        (eat_memory, "bad", "memory", "asks for more than 64 MB"),
        (killed, "unknown", "failure", "SIGKILL"),
        (leave, "unknown", "failure", "no answer"),
        (flood, "bad", "done", "and more"),
        (mistake, "unknown", "failure", "ZeroDivisionError('planted')"),
    ],
)
def test_whatever_a_child_does_is_an_outcome(monkeypatch, tmp_path, behaviour, verdict, end, reason):
    """A real child that hangs, crashes, eats memory, is killed, says nothing or too much, or fails by our mistake.

    What the file did is "bad", what we did is "unknown".  The limit is 64 MB for 512, so this is no matter of timing.
    Seen to fail without RLIMIT_AS: the memory is eaten and no line says so.
    """
    monkeypatch.setattr(hamscope.check, "check_path", behaviour)
    outcome = child._outcome(str(tmp_path / "file"), 0.2, 2**26)
    assert (outcome.verdict, outcome.end) == (verdict, end)
    assert reason in outcome.lines[-1] and len(outcome.lines) <= child.MAX_LINES + 1
    assert all(len(line) <= child.MAX_LINE and "\n" not in line for line in outcome.lines)


def test_limits_are_those_of_the_child_alone(monkeypatch, tmp_path):
    """The child has limits of address space, CPU time, file size and core dumps; its parent keeps its own."""
    names = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_CORE")

    def limits(_):
        return "bad", [json.dumps([resource.getrlimit(getattr(resource, name))[0] for name in names])], "done"

    before = [resource.getrlimit(getattr(resource, name)) for name in names]
    monkeypatch.setattr(hamscope.check, "check_path", limits)
    space, seconds, size, core = json.loads(child._outcome(str(tmp_path / "file"), 5, 2**26).lines[0])
    assert 2**26 < space < 2**40 and seconds == 6 and (size, core) == (0, 0)
    assert [resource.getrlimit(getattr(resource, name)) for name in names] == before


def test_a_limit_of_time_ends_a_real_check(good):
    """The same file is good with time and bad without.  Seen to fail without the timers of the child."""
    assert [outcome.verdict for outcome in child.check([good])] == ["good"]
    (outcome,) = child.check([good], seconds=1e-4)
    assert (outcome.verdict, outcome.end) == ("bad", "time")


def test_time_grows_with_the_bytes_on_the_disk(tmp_path):
    """A sparse file that declares 2^40 bytes is given no more time than an empty one."""
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    assert child._seconds(tmp_path / "sparse") == pytest.approx(child.SECONDS, abs=1)
    with open(tmp_path / "full", "wb") as file:
        file.write(os.urandom(4 * child.BYTES_A_SECOND))
        os.fsync(file.fileno())  # some file systems count the blocks only then
    assert child._seconds(tmp_path / "full") == pytest.approx(child.SECONDS + 4, abs=1)


def test_the_parent_imports_no_hdf5_and_nothing_from_the_folder(good, tmp_path):
    """The check of a file in a folder with a json.py and an h5py.py runs neither of them, and the parent has no h5py.

    Seen to fail without -P in the command of the worker.
    """
    for name in ("json", "h5py", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w'); raise SystemExit")
    code = (
        "import sys; from hamscope import child; [outcome] = child.check([sys.argv[1]]); "
        "print(outcome.verdict, [name for name in ('h5py', 'numpy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(good)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "good []", done.stderr
    assert not (tmp_path / "ran").exists()
