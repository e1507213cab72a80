"""What one Ray actor does: read a frame, threshold it, classify a band of its windows, leave a part file.

    KEY.START-STOP.npz      the part of a band         KEY.START-STOP.tries     a line for every time it was begun
    KEY.npz                 the part of a frame        KEY.bad                  why the frame is quarantined

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
from hamscope.data.frames import FrameRef, read_frame
from hamscope.data.parts import band_part, write_part
from hamscope.data.windows import bands, binarize, has_two_levels, window_grid
from hamscope.errors import FrameError, UserError
from hamscope.learn.bundle import read_bundle
from hamscope.learn.dense import classify_band
from hamscope.provenance import whole_file
from hamscope.stages import stage, taken
from hamscope_hpc.classify_metrics import STAGE_SECONDS

BAND_WINDOWS = 2**18  # whole frames as a rule; a window takes some 400 bytes until its band is written
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
         "start": start, "stop": stop, "windows": (stop - start) * columns, "psf_px": ref.psf_px}
        for start, stop in bands(ref.shape, window, stride, band_windows(ref.shape, window, stride))
    ]  # fmt: skip


def band_windows(shape: tuple[int, int], window: int, stride: int) -> int:
    """How many windows a band may have at most, a band being the work of one task.

    Neighbouring bands share `window` rows of pixels less a stride, so a band is at least as high as a window: no more
    than half of the work is done twice.  It depends on nothing but its arguments: results are added up band by band.
    """
    columns = window_grid(shape, window, stride)[1]
    return max(BAND_WINDOWS, columns * -(-window // stride))


def band_path(folder: Path, job: dict) -> Path:
    """The part of a band."""
    return folder / f"{job['key']}.{job['start']}-{job['stop']}.npz"


def frame_path(folder: Path, key: str) -> Path:
    """The part of a frame."""
    return folder / f"{key}.npz"


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


def is_adaptive(grey: np.ndarray, threshold: str | float) -> bool:
    """Whether the threshold was taken from the frame itself, which erases its density."""
    return isinstance(threshold, str) and not has_two_levels(grey)


class BandClassifier:
    """A Ray actor: one network, and the last frame that it read.

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
        self.key, self.grey, self.image, self.adaptive = "", None, None, False
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
        self._load(job)
        start, stop, stride = job["start"], job["stop"], self.options.stride
        known = instrument.condition(job["psf_px"], self.adaptive)
        with stage("network"):
            band = classify_band(self.image, self.bundle, stride, start, stop, self.options.confidence, known)
        grid = window_grid(self.image.shape, self.bundle.window, stride)
        with stage("write"):
            part = band_part(band, self.image, self.grey, self.adaptive, grid, start)
            write_part(band_path(self.folder, job), part)

    def _load(self, job: dict) -> None:
        """Read and threshold the frame, unless the last band was of the same."""
        if self.key == job["key"]:
            return
        self.key = ""
        with stage("read"):
            self.grey = read_frame(_ref(job))
        with stage("threshold"):
            self.image = binarize(self.grey, self.options.threshold, self.options.up)
            self.adaptive = is_adaptive(self.grey, self.options.threshold)
        self.key = job["key"]


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
    return FrameRef(job["path"], job["array"], job["page"], (job["height"], job["width"]))


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
