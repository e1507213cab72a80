"""Memory of `hamscope classify` over many frames: `python classify_memory.py [FRAMES] [FOLDER] [BUNDLE]`.

Every process of the command, the driver, its actors and its Ray, is asked once a second what it holds (RSS; pages that
are shared count in each).  Frames are 256 x 256 at stride 16, a .npy file each, of smoothed noise; the bundle is the
default one unless another is given.  Written into the folder: memory.csv, memory.png, and a line a kind of process on
stdout.  "Growth" is the slope of a straight line through the second half of the frames, where imports and caches are
over.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from scipy import ndimage

matplotlib.use("Agg")
from matplotlib import pyplot

SIDE, STRIDE, ACTORS = 256, 16, 2
MIB = 2**20


def make_frames(folder: Path, count: int) -> None:
    """`count` files of one grey frame each."""
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).normal(size=(SIDE, SIDE))
        smooth = ndimage.gaussian_filter(noise, 2.0, mode="wrap")
        np.save(folder / f"frame-{number:05d}.npy", (128 + 100 * smooth / np.abs(smooth).max()).astype(np.uint8))


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
        except OSError:  # it ended meanwhile
            continue
    found = [pid]
    for one in found:
        found += children[one]
    return found


def kind(pid: int, driver: int) -> str:
    """What a process of the command is."""
    if pid == driver:
        return "driver"
    title = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    if "BandClassifier" in title:
        return f"actor {pid}"
    if title.startswith("ray::"):
        return "other workers of Ray"
    names = {"/raylet/raylet": "raylet", "gcs_server": "gcs_server"}
    return next((name for text, name in names.items() if text in title.split(" ")[0]), "dashboard and agents")


def watch(process: subprocess.Popen, parts: Path) -> list[tuple[float, int, dict[str, float]]]:
    """Seconds since the start, frames done, and MiB by kind of process, once a second until the command ends."""
    begin, samples, page = time.monotonic(), [], os.sysconf("SC_PAGE_SIZE")
    while process.poll() is None:
        held = defaultdict(float)
        for pid in family(process.pid):
            try:
                held[kind(pid, process.pid)] += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / MIB
            except OSError:
                continue
        done = sum(path.name.count(".") == 1 for path in parts.glob("*.npz"))
        samples.append((time.monotonic() - begin, done, dict(held)))
        time.sleep(1.0)
    return samples


def report(samples: list, frames: int, folder: Path) -> None:
    """Table, picture and growth of what was watched; the driver also by its largest value while it writes."""
    names = sorted({name for _, _, held in samples for name in held})
    with open(folder / "memory.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["seconds", "frames", *names])
        table.writerows(
            [f"{t:.1f}", done, *(f"{held.get(name, 0):.1f}" for name in names)] for t, done, held in samples
        )
    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in names:
        line = np.array([(t, done, held[name]) for t, done, held in samples if name in held])
        axis.plot(line[:, 0], line[:, 2], label=name)
        late = line[line[:, 1] >= frames / 2]
        late = late[late[:, 1] < frames]
        text = f"{name}: at most {line[:, 2].max():.0f} MiB"
        if len(late) > 9 and np.ptp(late[:, 1]):
            slope = np.polyfit(late[:, 1], late[:, 2], 1)[0]
            text += f", {late[0, 2]:.0f} after half of the frames, {late[-1, 2]:.0f} at the last, "
            text += f"growth {1000 * slope:.1f} MiB per 1000 frames"
        print(text)
    axis.set(xlabel="seconds", ylabel="MiB resident", title=f"{frames} frames of {SIDE} x {SIDE}, stride {STRIDE}")
    axis.set_ylim(0)
    axis.legend(fontsize=8)
    figure.savefig(folder / "memory.png", dpi=120)


def main(frames: int, folder: Path, bundle: str | None = None) -> None:
    """Make the frames, classify them, and say what that held."""
    if not (folder / "frames").exists():
        make_frames(folder / "frames", frames)
    out = folder / "results.h5"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "hamscope_hpc.cli", "classify", str(folder / "frames"), "--out", str(out),
               "--stride", str(STRIDE), "--actors", str(ACTORS)]  # fmt: skip
    command += ["--bundle", bundle] if bundle else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    samples = watch(process, folder / "results.h5.parts")
    print(f"status {process.returncode}, {samples[-1][0]:.0f} s, {frames} frames")
    report(samples, frames, folder)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]), *sys.argv[3:4])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(count, Path(temporary))
