"""Microscope frames: found lazily in files, folders and globs, and read one at a time.

    .tif .tiff          every page a frame            .npy      (H, W) or (F, H, W)
    .png                one frame                     .npz      every 2D array or stack of them is a source
    .h5 .hdf5           every 2D or 3D dataset of numbers is a source

Listing reads headers only, so an absurd declared size is refused before anything is decoded.  A CSV of the same
stem beside a file, with the header frame,temperature,direction, gives the temperature in kelvin of every frame and
whether it was heated (+1, heating) or cooled (-1, cooling) towards it.  A column psf_px, where it has one, gives the
standard deviation of the point-spread function of the microscope in pixels.

Shape letters: F = frames of a source; H, W = rows and columns of a frame.
"""

import csv
import glob
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hamscope.data.formats import FORMATS
from hamscope.errors import FrameError

_DIRECTIONS = {"": 0, "heating": 1, "cooling": -1}


@dataclass(frozen=True)
class FrameRef:
    """Where a frame is: `path`, name of the `array` within it ("" for images), `page`; its `shape` (H, W) in pixels.

    `source` names the file (and array) in results; `temperature` is in kelvin, NaN if unknown; `direction` is +1
    heating, -1 cooling, 0 unknown; `psf_px`, the width of the point-spread function in pixels, NaN if unknown.
    """

    path: str
    array: str
    page: int
    shape: tuple[int, int]
    source: str = ""
    temperature: float = math.nan
    direction: int = 0
    psf_px: float = math.nan

    def __str__(self) -> str:
        return f"{self.path}{f', array {self.array}' if self.array else ''}, page {self.page}"


def list_frames(paths: list[str | Path], window: int = 1) -> list[FrameRef]:
    """Every frame of the files, folders and globs in `paths`: each file once, folders and globs in natural order.

    Raises
    ------
    FrameError
        A line for every file that is missing, of an unknown format, no image, of more than one channel, complex,
        absurdly large, has a side of less than `window` pixels, or a CSV that does not fit its frames.
    """
    files, mistakes, refs = {}, [], []
    for path in paths:
        try:
            files |= dict.fromkeys(_expand(str(path)))
        except FrameError as error:
            mistakes.append(str(error))
    sidecars = {file.with_suffix(".csv") for file in files if file.suffix.lower() in FORMATS}
    for file in files:
        try:
            refs += [] if file in sidecars else _list_file(file, window)
        except FrameError as error:
            mistakes.append(str(error))
    if mistakes:
        raise FrameError("\n".join(mistakes))
    return _with_sources(refs)


def read_frame(ref: FrameRef) -> np.ndarray:
    """The grey values of a frame, shape (H, W) float32.

    Raises
    ------
    FrameError
        The file is damaged, truncated or has changed, or a pixel is NaN, infinite or too large for float32.
    """
    try:
        raw = np.asarray(FORMATS[Path(ref.path).suffix.lower()][1](ref.path, ref.array, ref.page))
    except Exception as error:  # on damaged files the decoders raise almost anything
        raise FrameError(f"{ref}: damaged or truncated ({_one_line(error)}); save it again or leave it out") from None
    if raw.shape != ref.shape:
        raise FrameError(f"{ref}: has the shape {raw.shape} and not {ref.shape}, it was changed; start again")
    with np.errstate(over="ignore"):
        grey = raw.astype(np.float32)
    for values, what in ((raw, "NaN or infinite"), (grey, "larger than float32 holds")):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, column = bad[0]
            raise FrameError(
                f"{ref}: {len(bad)} of {raw.size} pixels are {what}, the first at row {row}, column {column}; "
                "fill or crop them, or leave the frame out"
            )
    return grey


def _expand(path: str) -> list[Path]:
    """The files that a path, folder or glob stands for."""
    given = Path(path)
    if given.is_dir():
        found, empty = given.iterdir(), f"{path}: the folder holds no frames ({', '.join(FORMATS)})"
    elif not given.exists() and glob.has_magic(path):
        found, empty = map(Path, glob.glob(path, recursive=True)), f"{path}: no frames match this pattern"
    elif given.is_file():
        return [given.absolute()]
    else:
        raise FrameError(f"{path}: no such file or folder; give the path of a frame, a folder or a quoted glob")
    files = [file.absolute() for file in found if file.suffix.lower() in FORMATS and file.is_file()]
    if not files:
        raise FrameError(f"{empty}; give another path")
    return sorted((file for file in files if not file.name.startswith(".")), key=_natural)


def _natural(path: Path) -> list:
    """Sort key that puts frame-2 before frame-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _list_file(path: Path, window: int) -> list[FrameRef]:
    """The frames of one file, checked by their headers alone."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise FrameError(f"{path}: unknown format {suffix or '(no suffix)'}; write one of {', '.join(FORMATS)}")
    try:
        refs = [FrameRef(str(path), array, page, shape) for array, page, shape in FORMATS[suffix][0](path)]
    except FrameError:
        raise
    except Exception as error:  # on damaged files the decoders raise almost anything
        raise FrameError(
            f"{path}: is no readable {suffix} file ({_one_line(error)}); save it again or leave it out"
        ) from None
    for ref in refs:
        if min(ref.shape) < window:
            raise FrameError(
                f"{ref}: {ref.shape[0]} x {ref.shape[1]} pixels are smaller than a window of {window} x {window}; "
                "give a larger field of view, or a bundle trained on smaller windows"
            )
    return _with_temperatures(refs, path.with_suffix(".csv"))


def _with_sources(refs: list[FrameRef]) -> list[FrameRef]:
    """Name every source by its file, and by as many folders as tell equal names apart."""
    files = sorted({ref.path for ref in refs})
    names = {file: Path(file).name for file in files}
    depth = 1
    while len(set(names.values())) < len(files):
        depth += 1
        double = {name for name, count in Counter(names.values()).items() if count > 1}
        names |= {file: "/".join(Path(file).parts[-depth:]) for file in files if names[file] in double}
    return [replace(ref, source=names[ref.path] + (f":{ref.array}" if ref.array else "")) for ref in refs]


def _with_temperatures(refs: list[FrameRef], path: Path) -> list[FrameRef]:
    """Give the frames of one file what its CSV says; FrameError where it does not name every frame once."""
    if not path.is_file():
        return refs
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            header, rows = table.fieldnames or [], list(table)
        if not {"frame", "temperature"} <= set(header):
            raise FrameError(
                f"{path}: its header is {','.join(header)}; write frame,temperature,direction, or rename it"
            )
        known = {
            int(row["frame"]): {
                "temperature": _not_negative(row["temperature"], "temperature", "kelvin"),
                "direction": _direction(row.get("direction")),
                "psf_px": _not_negative(row.get("psf_px"), "psf_px", "pixels"),
            }
            for row in rows
        }
    except (OSError, UnicodeDecodeError, ValueError, TypeError, csv.Error) as error:
        raise FrameError(
            f"{path}: {_one_line(error)}; write a number of a frame from 0, kelvin, and heating or cooling in each row"
        ) from None
    for array in dict.fromkeys(ref.array for ref in refs):
        count = sum(ref.array == array for ref in refs)
        if len(rows) != count or sorted(known) != list(range(count)):
            where = f"array {array} of {path.stem}" if array else path.stem
            raise FrameError(
                f"{path}: {len(rows)} rows for the {count} frames of {where}; name each once, 0 to {count - 1}"
            )
    return [replace(ref, **known[ref.page]) for ref in refs]


def _not_negative(text: str | None, name: str, unit: str) -> float:
    number = float(text) if (text or "").strip() else math.nan
    if number < 0 or math.isinf(number):
        raise ValueError(f"{name} = {text}: is not in {unit}")
    return number


def _direction(text: str | None) -> int:
    text = (text or "").strip().lower()
    return _DIRECTIONS[text] if text in _DIRECTIONS else int(np.sign(float(text)))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
