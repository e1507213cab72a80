"""What one Ray actor does: read the rows of a band, threshold them, classify their windows, leave a part file.

    KEY.START-STOP.npz      the part of a band         KEY.START-STOP.tries     a line for every time it was begun
    KEY.npz                 the part of a frame        KEY.bad                  why the frame is quarantined
    KEY.levels              the threshold of a frame of several bands, and what else is said of it as a whole

A frame of one band is read once.  Of a larger one no actor holds more than a band: the first that comes to it goes
through its rows for the threshold and leaves that to the others.  (Those that begin on it at the same moment find the
same each.)

Whatever happens to a process, the folder says it.  A band is begun by a line in its file of tries, which goes when the
part is there; a band that was begun three times and has no part quarantines its frame.  So a frame that kills whoever
looks at it is given up like one that cannot be read, and a frame that was in flight when the whole job was killed
loses one of its tries.
"""

import faulthandler
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ray.util.metrics import Counter

from hamscope.config import Classify
from hamscope.data import instrument
from hamscope.data.frames import FrameRef, read_frame, read_mask
from hamscope.data.levels import Levels, frame_levels, read_levels, spins, write_levels
from hamscope.data.parts import PREVIEW, band_part, write_part
from hamscope.data.windows import bands, window_grid
from hamscope.errors import FrameError, UserError
from hamscope.learn.bundle import read_bundle
from hamscope.learn.dense import classified_tiles
from hamscope.provenance import whole_file
from hamscope.stages import stage, taken
from hamscope_hpc.classify_metrics import STAGE_SECONDS

BAND_WINDOWS = 2**18  # whole frames as a rule
BAND_PIXELS = 2**25  # of a band of few windows
TRIES = 3
_PAUSES = (0.2, 1.0)  # seconds before the second and the third try: file systems have bad moments
_LONGEST = 500  # characters of a reason
_TRY, _ERROR, _FATAL = "try", "error", "Fatal Python error: "


def frame_jobs(key: str, ref: FrameRef, window: int, stride: int) -> list[dict]:
    """The bands of a frame as rows for Ray: where its pixels are, which windows, never the pixels themselves."""
    columns = window_grid(ref.shape, window, stride)[1]
    height, width = ref.shape
    return [
        {"key": key, "path": ref.path, "array": ref.array, "page": ref.page, "height": height, "width": width,
         "start": start, "stop": stop, "windows": (stop - start) * columns, "psf_px": ref.psf_px,
         "masked": ref.masked, "adaptive": ref.adaptive}
        for start, stop in bands(ref.shape, window, stride, band_windows(ref.shape, window, stride))
    ]  # fmt: skip


def band_windows(shape: tuple[int, int], window: int, stride: int) -> int:
    """How many windows a band may have at most, a band being the work of one task.

    Neighbouring bands share `window` rows of pixels less a stride, so a band is at least as high as a window: no more
    than half of the work is done twice.  It depends on nothing but its arguments: results are added up band by band.
    """
    columns = window_grid(shape, window, stride)[1]
    high = (BAND_PIXELS // shape[1] - window) // stride + 1
    return max(min(BAND_WINDOWS, columns * high), columns * -(-window // stride))


def band_path(folder: Path, job: dict) -> Path:
    """The part of a band."""
    return folder / f"{job['key']}.{job['start']}-{job['stop']}.npz"


def frame_path(folder: Path, key: str) -> Path:
    """The part of a frame."""
    return folder / f"{key}.npz"


def levels_path(folder: Path, key: str) -> Path:
    """What is said of a frame of several bands as a whole, for all actors."""
    return folder / f"{key}.levels"


def bad_path(folder: Path, key: str) -> Path:
    """The file that says why a frame is quarantined."""
    return folder / f"{key}.bad"


def reason_of(folder: Path, key: str) -> str | None:
    """Why a frame is quarantined; None where it is not."""
    try:
        return json.loads(bad_path(folder, key).read_text())["reason"]
    except FileNotFoundError:
        return None


def forget_tries(folder: Path) -> None:
    """Forget the tries that were stopped and not failed."""
    for path in folder.glob("*.tries"):
        path.unlink(missing_ok=True)


class BandClassifier:
    """A Ray actor: one network, and what was found of the last frame as a whole.

    Parameters
    ----------
    bundle, sha256 : str
        The folder of a bundle, and what it has to be.
    folder : str
        Where parts go.
    device : {"cpu", "cuda"}
    run : str
        The label of its metrics.
    """

    def __init__(self, bundle: str, sha256: str, options: Classify, folder: str, device: str, run: str):
        self.options, self.folder, self.device = options, Path(folder), device
        self.bundle = read_bundle(bundle, device)
        if self.bundle.sha256 != sha256:
            raise UserError(f"{bundle}: was changed meanwhile; start again")
        self.key, self.levels = "", None
        self.seconds = Counter(STAGE_SECONDS, "Seconds of all actors, by what they did", tag_keys=("run", "stage"))
        self.seconds.set_default_tags({"run": run})

    def __call__(self, job: dict) -> dict:
        """Classify one band; the row that comes back has a `reason` where its frame is quarantined."""
        row = {"key": job["key"], "start": job["start"], "windows": job["windows"], "reason": ""}
        if band_path(self.folder, job).exists():  # by an actor that died before it could say so
            return row
        reason = reason_of(self.folder, job["key"]) or self._try(job)
        for name, seconds in taken().items():
            self.seconds.inc(max(seconds, 1e-9), {"stage": name})  # Ray refuses to add nothing
        return row | {"reason": reason or ""}

    def _try(self, job: dict) -> str | None:
        """Make the part of a band in what is left of its three tries; the reason where that cannot be done."""
        tries = band_path(self.folder, job).with_suffix(".tries")
        while (begun := _begun(tries)) < TRIES:
            if begun and _failed(tries):
                time.sleep(_PAUSES[begun - 1])
            try:
                with _one_try(tries, _ref(job)):
                    self._classify(job)
            except Exception as error:
                self.key = ""
                if self.device != "cpu" and not isinstance(error, FrameError | OSError):
                    os._exit(1)  # what fails on a GPU can leave it unusable to this process; Ray starts another
                continue
            tries.unlink(missing_ok=True)
            return None
        reason = _reason(tries)
        with whole_file(bad_path(self.folder, job["key"])) as temporary:
            temporary.write_text(json.dumps({"reason": reason}))
        tries.unlink(missing_ok=True)
        return reason

    def _classify(self, job: dict) -> None:
        image, mask, levels = self._load(job)
        start, stop, stride = job["start"], job["stop"], self.options.stride
        known = instrument.condition(job["psf_px"], levels.adaptive)
        grid = window_grid((job["height"], job["width"]), self.bundle.window, stride)
        with stage("network"):
            score = self.options.confidence
            tiles = classified_tiles(image, self.bundle, stride, 0, stop - start, score, known, mask)
            part = band_part(tiles, levels, grid, start, stop)
        with stage("write"):
            write_part(band_path(self.folder, job), part)

    def _load(self, job: dict) -> tuple[np.ndarray, np.ndarray | None, Levels]:
        """The two-level rows that the windows of a band cover, their mask if any, and the levels of their frame."""
        stride, shape = self.options.stride, (job["height"], job["width"])
        first, last = job["start"] * stride, (job["stop"] - 1) * stride + self.bundle.window
        alone = (job["start"], job["stop"]) == (0, window_grid(shape, self.bundle.window, stride)[0])
        if alone:  # all that is asked about the frame is asked of what is read once
            grey, mask = _rows(job)
            levels = self._levels(
                shape, lambda *cut: [None if one is None else one[slice(*cut)] for one in (grey, mask)]
            )
            grey, mask = grey[first:last], None if mask is None else mask[first:last]
        else:
            levels = self._shared_levels(job, shape)
            grey, mask = _rows(job, (first, last))
        levels = levels._replace(adaptive=levels.adaptive or job["adaptive"])
        with stage("threshold"):
            return spins(grey, levels.threshold, self.options.up, mask), mask, levels

    def _levels(self, shape: tuple[int, int], rows) -> Levels:
        with stage("threshold"):
            return frame_levels(shape, rows, self.options.threshold, self.options.up, PREVIEW)

    def _shared_levels(self, job: dict, shape: tuple[int, int]) -> Levels:
        """The levels of a frame of several bands, once found by any actor."""
        if self.key != job["key"]:
            path = levels_path(self.folder, job["key"])
            if not path.exists():
                write_levels(path, self._levels(shape, lambda *cut: _rows(job, cut)))
            self.levels, self.key = read_levels(path), job["key"]
        return self.levels


@stage("read")
def _rows(job: dict, rows: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of a frame in the type that they are stored in, and their mask if there is one; all rows by default."""
    ref = _ref(job)
    return read_frame(ref, rows, native=True), read_mask(ref, rows) if job["masked"] else None


@contextmanager
def _one_try(tries: Path, ref: FrameRef):
    """Write down that a try begins and, where it does not end well, why: an exception, or a signal that can be seen."""
    with open(tries, "a") as file:
        print(_TRY, os.getpid(), file=file, flush=True)
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        except Exception as error:
            print(_ERROR, _words(error, ref), file=file, flush=True)
            raise
        finally:
            faulthandler.enable(all_threads=False)  # on stderr, as Ray has it


def _words(error: Exception, ref: FrameRef) -> str:
    """An error on one line; without the place of the frame, but with its kind where it is not of the frame."""
    text = " ".join(str(error).split())
    return text.removeprefix(f"{ref}: ") if isinstance(error, FrameError) else f"{type(error).__name__}: {text}"


def _ref(job: dict) -> FrameRef:
    return FrameRef(job["path"], job["array"], job["page"], (job["height"], job["width"]), masked=job["masked"])


def _lines(tries: Path) -> list[str]:
    try:
        return tries.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _begun(tries: Path) -> int:
    """How often a band was begun."""
    return sum(line.startswith(f"{_TRY} ") for line in _lines(tries))


def _failed(tries: Path) -> bool:
    """Whether the last try failed in a process that went on."""
    return _lines(tries)[-1].startswith(f"{_ERROR} ")


def _reason(tries: Path) -> str:
    """Why the last try did not succeed, one line."""
    lines = _lines(tries)
    last = lines[max(k for k, line in enumerate(lines) if line.startswith(f"{_TRY} ")) + 1 :]
    for line in last:
        if line.startswith(f"{_ERROR} "):
            return line.removeprefix(f"{_ERROR} ")[:_LONGEST]
        if line.startswith(_FATAL):
            return f"its process died each of {TRIES} times, at last by: {line.removeprefix(_FATAL)}"[:_LONGEST]
    return (
        f"its process was killed each of {TRIES} times, at last without a word (SIGKILL), as happens where memory is "
        "short: fewer --actors leave more for each"
    )
