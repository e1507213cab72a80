"""Memory and time of `hamscope classify` on one large frame: `python large_frame.py [SIDE] [STRIDE] [ROWS] [SECONDS]`.

Writes a uint8 TIFF of synthetic domains, ROWS x SIDE pixels (SIDE x SIDE by default), block by block; classifies it
with the default bundle; and sums twice a second the proportional set size (PSS: shared pages count once in all) of the
command and all that descend from it.  Prints the peak, what held it, and the time; ended after SECONDS, it says how far
it came and what the whole would take.  A strip of a few hundred ROWS at stride 1 says what a whole frame would take.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import tifffile
from classify_memory import family, kind
from scipy import ndimage

MIB, BLOCK = 2**20, 500


def write_frame(path: Path, rows: int, side: int) -> None:
    """Smoothed noise with two levels and grain, BLOCK rows at a time."""
    frame = tifffile.memmap(path, shape=(rows, side), dtype=np.uint8, photometric="minisblack")
    for start in range(0, rows, BLOCK):
        block = frame[start : start + BLOCK]
        noise = np.random.default_rng(start).normal(size=block.shape).astype(np.float32)
        block[:] = 70 + 100 * (ndimage.gaussian_filter(noise, 3.0) > 0) + 10 * noise
    frame.flush()


def held(pid: int) -> dict[str, float]:
    """MiB by kind of process."""
    found = defaultdict(float)
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            found[kind(one, pid)] += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
        except OSError:  # it ended meanwhile
            continue
    return dict(found)


def main(side: int, stride: int, rows: int, limit: float) -> None:
    """Make the frame, classify it, and say what that took."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_frame(folder / "frame.tif", rows, side)
        out = folder / "results.h5"
        command = [sys.executable, "-m", "hamscope_hpc.cli", "classify", str(folder / "frame.tif"), "--out", str(out),
                   "--stride", str(stride)]  # fmt: skip
        begin, peak, log = time.monotonic(), {}, folder / "log"
        with open(log, "w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        while process.poll() is None:
            if time.monotonic() - begin > limit:
                os.kill(process.pid, signal.SIGTERM)
                limit = float("inf")
            peak = max(peak, held(process.pid), key=lambda one: sum(one.values()))
            time.sleep(0.5)
        bands = sorted(path.name for path in folder.glob("results.h5.parts/*.npz"))
        print(f"{rows} x {side} pixels at stride {stride}: status {process.returncode}, "
              f"{time.monotonic() - begin:.0f} s, peak {sum(peak.values()):.0f} MiB PSS")  # fmt: skip
        print({name: round(mib) for name, mib in peak.items()}, f"{len(bands)} bands kept")
        print(*log.read_text().replace("\r", "\n").splitlines()[-12:], sep="\n")
        if out.exists():
            print(f"results.h5 {out.stat().st_size / MIB:.0f} MiB")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    side, stride = (*given, *(20_000, 16)[len(given) :])[:2]
    main(side, stride, given[2] if len(given) > 2 else side, given[3] if len(given) > 3 else float("inf"))
