"""`classify` where processes are killed and frames are poison: none is missing, none counts twice, the rest goes on.

Kills are real: SIGKILL and SIGSEGV from outside, to an actor, to the command, and to every process of the job.
"""

import filecmp
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bundles import blobs, small_bundle
from killing import Job, until

from hamscope.config import Classify
from hamscope.data.frames import list_frames
from hamscope.data.results import read_results
from hamscope.learn.bundle import read_bundle
from hamscope_hpc import classify as program
from hamscope_hpc import cli
from hamscope_hpc.classify import classify, part_keys
from hamscope_hpc.status import read_status

OPTIONS = Classify(stride=1)
FRAMES = 30

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, bundle) -> tuple[Path, Path]:
    """A film of 30 frames, and its results from a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("film")
    np.save(folder / "film.npy", 40 + 100 * blobs((FRAMES, 40, 40), 6))
    return folder / "film.npy", classify([str(folder / "film.npy")], bundle, folder / "results.h5", OPTIONS)


def actors_of_this_process() -> list:
    """The processes below this one that classify."""
    import psutil  # it comes with Ray, on the path once Ray is imported

    below = psutil.Process().children(recursive=True)
    return [process for process in below if "BandClassifier" in "".join(process.cmdline()[:1])]


@contextmanager
def beside(function):
    """Run `function(end)` in a thread until the block ends and sets the event `end`."""
    end = threading.Event()
    thread = threading.Thread(target=function, args=(end,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(10)


def test_a_killed_actor_costs_nothing_but_time(tmp_path, bundle, undisturbed):
    """SIGKILL of an actor in the middle: Ray starts another, and the results are the same bytes.

    Seen to fail with actors that may not be restarted.
    """
    film, expected = undisturbed
    parts, killed = tmp_path / "results.h5.parts", []

    def kill(end):
        while not killed and not end.is_set():
            if len(list(parts.glob("*.npz"))) > 2:
                for actor in actors_of_this_process()[:1]:
                    actor.kill()
                    killed.append(actor.pid)
            time.sleep(0.01)

    with beside(kill):
        found = classify([str(film)], bundle, tmp_path / "results.h5", OPTIONS)
    assert killed
    assert filecmp.cmp(found, expected, shallow=False)


def frames_done(parts: Path) -> dict[str, tuple[int, int]]:
    """Which file holds the part of each frame that is done, and when it was written."""
    found = {}
    for path in parts.glob("*.npz"):
        try:
            status = path.stat()
        except FileNotFoundError:  # the part of its only band became that of the frame
            return frames_done(parts)
        found[path.name.split(".")[0]] = status.st_ino, status.st_mtime_ns
    return found


def test_a_stopped_command_goes_on_where_it_was(tmp_path, bundle, undisturbed, monkeypatch, capfd):
    """SIGKILL of the command, of the whole job with its Ray, then SIGTERM (status 75), then to the end: the same bytes.

    Every command starts a Ray of its own, as a user's does.  No part that was there at a kill was written again, and
    at the end there is one a frame.  Seen to fail with parts that every run names anew, and with an interrupt that
    passes through.
    """
    film, expected = undisturbed
    out, parts = tmp_path / "results.h5", tmp_path / "results.h5.parts"
    command = ["classify", str(film), "--bundle", str(bundle), "--out", str(out), "--actors", "1"]
    kept = {}
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_") and "niceness" not in name]:
            patch.delenv(name)
        for stop in (
            lambda job: os.kill(job.process.pid, signal.SIGKILL),
            Job.kill,
            lambda job: job.process.terminate(),
        ):
            job = Job(1, *command)
            wanted = len(kept) + 3
            assert until(lambda wanted=wanted: len(frames_done(parts)) >= wanted, job, 270), job.wait(10)
            at_the_stop = frames_done(parts)
            stop(job)
            status, said = job.wait(60) if stop is not Job.kill else (job.process.returncode, "")
            assert not out.exists() and "Traceback" not in said
            now = frames_done(parts)
            assert kept.items() <= at_the_stop.items() <= now.items()
            kept = now
    assert status == 75 and "the same command goes on" in said
    assert [one.state for one in read_status(tmp_path)[0]] == ["unfinished"]  # not "running" until it was long silent
    assert 9 <= len(kept) < FRAMES

    def write(*arguments):
        done = frames_done(parts)
        assert kept.items() <= done.items() and len(done) == FRAMES
        assert len({path.name for path in parts.glob("*.npz") if path.name.count(".") == 1}) == FRAMES
        return written(*arguments)

    written = program.write_frames
    monkeypatch.setattr(program, "write_frames", write)
    classify([str(film)], bundle, out, OPTIONS)
    assert f"{(FRAMES - len(kept)) * 25 * 25:,} windows of 16 x 16" in capfd.readouterr().err
    assert filecmp.cmp(out, expected, shallow=False)
    assert not parts.exists()


def hamscope(*arguments: str) -> int:
    """The exit status of the command, run in this process so that it finds its Ray."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    before, sys.argv = sys.argv, ["hamscope", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def test_poison_is_quarantined_and_the_rest_goes_on(tmp_path, bundle, undisturbed, capfd):
    """A frame of NaN, and one on which every process that opens it gets SIGKILL, SIGKILL, SIGSEGV: three tries each.

    The film between them is classified as without them; status 3, and all that is said names both.  Again: nothing to
    do, still 3.  With --replace: the two are tried again and no other; the second, left alone, has results.
    """
    film, expected = undisturbed
    np.save(tmp_path / "poison.npy", 40 + 100 * blobs((200, 200), 8))
    np.save(tmp_path / "holes.npy", np.full((40, 40), np.nan))
    frames = [str(tmp_path / "poison.npy"), str(film), str(tmp_path / "holes.npy")]
    out, parts, killed = tmp_path / "results.h5", tmp_path / "results.h5.parts", []
    loaded = read_bundle(bundle)
    key = part_keys(list_frames(frames[:1]), loaded, OPTIONS)[0]
    signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV]

    def kill(end):
        while not end.wait(0.002):
            for tries in parts.glob(f"{key}.*.tries"):
                try:
                    pid = int(tries.read_text().split()[-1])
                except (OSError, ValueError, IndexError):
                    continue
                if pid not in killed:
                    os.kill(pid, signals[len(killed)])
                    killed.append(pid)

    command = ["classify", *frames, "--bundle", str(bundle), "--out", str(out), "--actors", "2"]
    with beside(kill):
        assert hamscope(*command) == 3
    assert len(killed) == 3
    said, reference = capfd.readouterr(), read_results(expected)
    results = read_results(out)
    assert [(one.source, one.index) for one in results.quarantined] == [("poison.npy", 0), ("holes.npy", 0)]
    reasons = [one.reason for one in results.quarantined]
    assert reasons[0] == "its process died each of 3 times, at last by: Segmentation fault"
    assert "1600 of 1600 pixels are NaN or infinite" in reasons[1]
    for text, where in (
        (said.out, "poison.npy, frame 0: quarantined: its process"), (said.out, "holes.npy, frame 0: quarantined"),
        (said.err, "2 of 32 frames quarantined"), (said.err, "poison.npy, page 0: quarantined: its"),
    ):  # fmt: skip
        assert where in text
    assert results.source == reference.source and list(results.index) == list(reference.index)
    np.testing.assert_array_equal(results.logits_mean, reference.logits_mean)
    for found, wanted in zip(results.class_maps, reference.class_maps):
        np.testing.assert_array_equal(found, wanted)
    before = out.stat().st_mtime_ns
    assert hamscope(*command) == 3
    assert out.stat().st_mtime_ns == before and "nothing to do" in capfd.readouterr().err
    assert hamscope(*command, "--replace") == 3
    assert "2 frames to do" in capfd.readouterr().err
    results = read_results(out)
    assert results.source == ["poison.npy", *reference.source]
    assert [one.source for one in results.quarantined] == ["holes.npy"]
