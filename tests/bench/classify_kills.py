"""`hamscope classify` over many frames, killed thrice: `python classify_kills.py [FRAMES] [FOLDER]`.

The frames of classify_memory.py and one with a pixel that is no number, stride 16, the default bundle.  After a quarter
of the frames an actor is killed; after half of them the command, whose actors and Ray then end by themselves; after
three quarters every process that descends from it; always by SIGKILL.  Started again each time, the last must end with
status 3.  Counted in what it wrote: frames that are missing, frames that are there twice, and what is quarantined; and
that every hundredth frame was classified as an undisturbed command does.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from classify_memory import ACTORS, STRIDE, family, kind, make_frames

from hamscope.data.results import read_results


def start(frames: list[str], out: Path, log) -> subprocess.Popen:
    """The command, in the background."""
    command = [sys.executable, "-m", "hamscope_hpc.cli", "classify", *frames, "--out", str(out),
               "--stride", str(STRIDE), "--actors", str(ACTORS), "--threshold", "128"]  # fmt: skip
    return subprocess.Popen(command, stdout=log, stderr=log)


def done(parts: Path) -> int:
    """Frames that are stored."""
    return sum(path.name.count(".") == 1 for path in parts.glob("*.npz"))


def wait(process: subprocess.Popen, parts: Path, count: int) -> None:
    """Until so many frames are stored; ends with the command's own end, which would come too soon."""
    while done(parts) < count:
        if process.poll() is not None:
            sys.exit(f"the command ended with status {process.returncode} at {done(parts)} frames")
        time.sleep(0.1)


def kill(pids: list[int], what: str, parts: Path) -> None:
    """SIGKILL to processes of ours."""
    print(f"{done(parts)} frames stored; killed: {what}", flush=True)
    for pid in pids:
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pid, signal.SIGKILL)


def main(count: int, folder: Path) -> None:
    """Make the frames, classify and kill, and count."""
    frames = folder / "frames"
    if not frames.exists():
        make_frames(frames, count)
    # One that is cut short would be refused before anything begins; this is found out when its pixels are read.
    poison = np.load(frames / "frame-00000.npy").astype(np.float32)
    poison[100, 100] = np.nan
    np.save(frames / "poison.npy", poison)
    out, begin = folder / "results.h5", time.monotonic()
    parts = out.with_name("results.h5.parts")
    with open(folder / "log", "w") as log:
        process = start([str(frames)], out, log)
        wait(process, parts, count // 4)
        actor = next(pid for pid in family(process.pid) if kind(pid, process.pid).startswith("actor"))
        kill([actor], "an actor", parts)
        wait(process, parts, count // 2)
        others = [pid for pid in family(process.pid) if pid != process.pid]
        kill([process.pid], "the command", parts)
        process.wait()
        process = start([str(frames)], out, log)
        wait(process, parts, 3 * count // 4)
        left = [pid for pid in others if Path(f"/proc/{pid}").exists()]
        kill(family(process.pid)[::-1], f"every process (of the command before {len(left)} were left)", parts)
        process.wait()
        status = start([str(frames)], out, log).wait()
    results = read_results(out, pictures=False)
    names = Counter(results.source)
    wanted = {f"frame-{number:05d}.npy" for number in range(count)}
    print(f"status {status}, {time.monotonic() - begin:.0f} s; {len(wanted - names.keys())} frames missing, "
          f"{sum(number > 1 for number in names.values())} double, {len(names.keys() - wanted)} not asked for; "
          f"quarantined: {[one.source for one in results.quarantined]}")  # fmt: skip
    some = sorted(wanted)[::100]
    with open(os.devnull, "w") as log:
        start([str(frames / name) for name in some], folder / "some.h5", log).wait()
    alone = read_results(folder / "some.h5", pictures=False)
    rows = [results.source.index(name) for name in alone.source]
    same = [np.array_equal(results.fractions[row], own) for row, own in zip(rows, alone.fractions)]
    print(f"{sum(same)} of {len(some)} frames as an undisturbed command has them")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    if len(sys.argv) > 2:
        Path(sys.argv[2]).mkdir(exist_ok=True)
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(count, Path(temporary))
