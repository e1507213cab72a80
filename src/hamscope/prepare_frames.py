"""The frames of an experiment on their way to two levels: what `hamscope prepare` does to each of them.

    read -> flat field -> drift -> average of neighbours -> crop -> threshold

A frame is made when it is asked for, so that no more than a few are in memory.  One threshold for a whole series, or
one switch for every pixel, needs all grey frames a second time: they wait for it in a folder beside the output.

Shape letters: F = frames; H, W = rows and columns of a prepared frame.
"""

import math
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hamscope.data import prepare as data
from hamscope.data.drift import Drift, chance, common_view, estimate_drift, moved
from hamscope.data.frames import FrameRef, list_frames, read_frame, read_mask
from hamscope.data.windows import has_two_levels
from hamscope.errors import Failed, UserError

GREY, TWO_LEVELS, SERIES, TRACE = "none", ("otsu", "median"), "series", "trace"
MOST_BYTES = 2**27  # of time traces at once
_SAY_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Options:
    """What is done to the frames; the fields are those of `hamscope prepare`.

    `flat`, `dark` and `mask` are paths; `crop` is (first row, end row, first column, end column); `threshold` is
    "none", "otsu", "median", "series", "trace" or a grey value.
    """

    flat: str | None = None
    dark: str | None = None
    average: int = 1
    drift: bool = False
    crop: tuple[int, int, int, int] | None = None
    mask: str | None = None
    threshold: str | float = GREY


def parse_crop(text: str) -> tuple[int, int, int, int]:
    """ROW0:ROW1,COL0:COL1 as four numbers."""
    found = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    if not found:
        raise UserError(f"--crop {text}: write ROW0:ROW1,COL0:COL1, such as 0:760,40:720")
    return tuple(map(int, found.groups()))


def parse_threshold(text: str) -> str | float:
    """The name of a rule, or a grey value."""
    if text in (GREY, *TWO_LEVELS, SERIES, TRACE):
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"--threshold {text}: write none, otsu, median, series, trace or a number of grey levels")
    return value


class Series:
    """The frames of an experiment on their way to the threshold; each is made when it is asked for.

    `view` are the rows and columns of the first frame that are kept, `sample` (H, W) bool its pixels there that are
    part of the sample, `drift` the shifts, None without.

    Raises
    ------
    UserError
        Frames, mask, flat field, crop or average that do not fit each other.
    """

    def __init__(self, refs: list[FrameRef], options: Options):
        self.refs, self.options = refs, options
        shape = refs[0].shape
        for ref in refs:
            if ref.shape != shape:
                raise UserError(f"{ref}: is {by(ref.shape)} pixels and the first frame {by(shape)}; prepare them apart")
        self.stretches = data.directions(np.array([ref.direction for ref in refs]))
        _check(options, self.stretches, shape)
        mask = _one(options.mask, "--mask", shape) != 0 if options.mask else np.zeros(shape, bool)
        for ref in {(ref.path, ref.array): ref for ref in refs if ref.masked}.values():
            mask |= read_mask(ref)
        self.dark = _one(options.dark, "--dark", shape) if options.dark else None
        self.gain = data.flat_gain(_one(options.flat, "--flat", shape), self.dark) if options.flat else None
        self.drift = None
        self._registered = lru_cache(maxsize=options.average)(self._register)
        if options.drift:
            self.drift = self._estimate()
        self.view = self._common_view(shape)
        self.sample = ~mask[self.view]
        if not self.sample.any():
            raise UserError("--mask: leaves no pixel of the sample; non-zero pixels are those that are left out")

    def __len__(self) -> int:
        return len(self.refs)

    def grey(self, frame: int) -> np.ndarray:
        """One frame, ready for the threshold: (H, W) float32."""
        stretch = next(stretch for stretch in self.stretches if frame in stretch)
        near = data.neighbours(frame, stretch, self.options.average)
        total = sum(self._registered(one).astype(np.float64) for one in near)
        return (total / len(near)).astype(np.float32)

    def _register(self, frame: int) -> np.ndarray:
        """A frame without drift and with even light, within the view."""
        lit = self._lit(frame)
        return (moved(lit, self.drift.shift[frame]) if self.drift else lit)[self.view]

    def _lit(self, frame: int) -> np.ndarray:
        """A frame as it was read, in even light."""
        raw, options = read_frame(self.refs[frame]), self.options
        if (options.drift or options.average > 1 or self.gain is not None) and has_two_levels(raw):
            raise UserError(
                f"{self.refs[frame]}: has two levels already; flat field, drift and average take grey frames"
            )
        lit = raw if self.dark is None else raw - self.dark
        return lit if self.gain is None else lit * self.gain

    def _estimate(self) -> Drift:
        found = estimate_drift(self._lit(frame) for frame in progress(range(len(self)), "drift"))
        if not found.found[1:].any():
            best, needed = found.quality[1:].max(), chance(self.refs[0].shape)
            raise UserError(
                f"--drift: no frame resembles the one before it (correlation up to {best:.2f}, chance reaches "
                f"{needed:.2f} in frames of this size); leave --drift out"
            )
        return found

    def _common_view(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """What all frames show, within the crop."""
        view = common_view(self.drift.shift, shape) if self.drift else (slice(0, shape[0]), slice(0, shape[1]))
        crop = self.options.crop or (0, shape[0], 0, shape[1])
        found = tuple(slice(max(v.start, a), min(v.stop, b)) for v, a, b in zip(view, crop[::2], crop[1::2]))
        if any(side.stop - side.start < 2 for side in found):
            common = f"rows {view[0].start}:{view[0].stop}, columns {view[1].start}:{view[1].stop}"
            raise UserError(f"nothing is left: all frames share {common}, and --crop takes none of it; choose another")
        return found


def _check(options: Options, stretches: list[range], shape: tuple[int, int]) -> None:
    """UserError where the options do not fit the frames."""
    count, longest = stretches[-1].stop, max(map(len, stretches))
    if options.dark and not options.flat:
        raise UserError("--dark: is used with a flat field; add --flat")
    if options.average < 1 or options.average % 2 == 0:
        raise UserError(
            f"--average {options.average}: has no frame in its middle, whose temperature it has; take an odd number"
        )
    if options.average > longest:
        raise UserError(
            f"--average {options.average}: the longest sweep in one direction has {longest} frames; take less"
        )
    if options.drift and count < 2:
        raise UserError("--drift: there is one frame, which has not drifted; leave it out")
    if options.threshold == TRACE and min(map(len, stretches)) < data.FEWEST:
        short = min(stretches, key=len)
        raise UserError(
            f"--threshold trace: needs {data.FEWEST} frames in one direction of the sweep, and frame {short.start} to "
            f"{short.stop - 1} are {len(short)}; take series or otsu"
        )
    if options.crop:
        a, b, c, d = options.crop
        if not (0 <= a < b <= shape[0] and 0 <= c < d <= shape[1]):
            raise UserError(
                f"--crop {a}:{b},{c}:{d}: is no part of 0:{shape[0]},0:{shape[1]}, the frames; choose another"
            )


def by(shape: tuple[int, int]) -> str:
    """A size in words: "760 x 761"."""
    return f"{shape[0]} x {shape[1]}"


def _one(path: str, option: str, shape: tuple[int, int]) -> np.ndarray:
    """The mean of the frames in a file, of the `shape` of the series."""
    total = np.zeros(shape)
    refs = list_frames([path])
    for ref in refs:
        if ref.shape != shape:
            raise UserError(
                f"{option} {path}: is {by(ref.shape)} pixels and the frames {by(shape)}; give one like them"
            )
        total += read_frame(ref)
    return (total / len(refs)).astype(np.float32)


class Thresholds(NamedTuple):
    """How the grey frames of a series become two levels: `levels` (F,), the grey value of each frame, NaN where traces
    decide, by `steps`, one for each stretch.  `level` and `contrast` are those of the series, where it has them."""

    levels: np.ndarray
    steps: list | None = None
    level: float = np.nan
    contrast: float = np.nan


@contextmanager
def thresholds_of(series: Series, out: Path):
    """Yield what gives the grey frame of a number, and the thresholds of the series."""
    asked, count = series.options.threshold, len(series)
    if asked not in (SERIES, TRACE):
        yield series.grey, Thresholds(np.full(count, np.nan if isinstance(asked, str) else asked))
        return
    shape = (count, *series.sample.shape)
    needed, free = 4 * np.prod(shape, dtype=np.int64), shutil.disk_usage(out.parent).free
    if needed > free:
        raise Failed(f"--threshold {asked}: needs {needed / 1e9:.1f} GB beside {out} and {free / 1e9:.1f} are free")
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".grey", dir=out.parent) as folder,
        h5py.File(Path(folder) / "grey.h5", "w") as spool,
    ):
        grey = spool.create_dataset("grey", shape, np.float32)  # in one piece, for frames and for traces
        ends = []
        for frame in progress(range(count), "grey frames"):
            grey[frame] = image = series.grey(frame)
            ends += [image[series.sample].min(), image[series.sample].max()]
        level, contrast = _series_level(grey, series.sample, float(min(ends)), float(max(ends)))
        if asked == SERIES:
            yield grey.__getitem__, Thresholds(np.full(count, level), None, level, contrast)
        else:
            steps = [_traced(grey, stretch, level, contrast) for stretch in series.stretches]
            yield grey.__getitem__, Thresholds(np.full(count, np.nan), steps, level, contrast)


def _series_level(grey, sample: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Otsu's threshold of all pixels of the sample in all frames, and the contrast."""
    if low == high:
        raise UserError(f"all pixels of all frames are {low:g}: no threshold makes two levels of them; choose others")
    counts = np.zeros(data.BINS, np.int64)
    for frame in progress(range(len(grey)), "histogram"):
        counts += np.histogram(grey[frame][sample], data.BINS, (low, high))[0]
    return data.histogram_level(counts, low, high)


def _traced(grey, stretch: range, level: float, contrast: float) -> data.Steps:
    """When each pixel switches in one direction of the sweep, some rows of pixels at a time."""
    _, height, width = grey.shape
    rows = max(1, MOST_BYTES // (8 * 4 * len(stretch) * width))
    parts = [
        data.trace_steps(grey[stretch.start : stretch.stop, row : row + rows], stretch, level, contrast)
        for row in progress(range(0, height, rows), "traces")
    ]
    return data.Steps(*(np.concatenate(part) for part in zip(*parts)))


def two_levels(series: Series, thresholds: Thresholds, frame: int, grey: np.ndarray) -> tuple[np.ndarray, float]:
    """One frame of two levels, uint8 with 0 where masked, and the grey value of its threshold (NaN for traces)."""
    asked = series.options.threshold
    if thresholds.steps is not None:
        stretch = next(k for k, stretch in enumerate(series.stretches) if frame in stretch)
        image, level = thresholds.steps[stretch].image(frame), np.nan
    else:
        level = thresholds.levels[frame] if asked == SERIES else data.level_of(grey[series.sample], asked)
        image = (grey > level).astype(np.uint8)
    return np.where(series.sample, image, 0).astype(np.uint8), float(level)


def progress(numbers: range, what: str):
    """The numbers, one by one; a line on stderr every ten seconds says how far it is."""
    begin = shown = time.monotonic()
    for done, number in enumerate(numbers):
        now = time.monotonic()
        if now - shown > _SAY_EVERY:
            left = (now - begin) / done * (len(numbers) - done)
            print(f"prepare: {what}, {done} of {len(numbers)}, {left:.0f} s left", file=sys.stderr)
            shown = now
        yield number
