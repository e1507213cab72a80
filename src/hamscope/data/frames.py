"""Microscope frames: found lazily in files, folders and globs, and read one at a time or a few rows at a time.

    .tif .tiff          TIFF, BigTIFF, OME-TIFF, ImageJ: every page a frame, every series and channel a source
    .png                one frame
    .npy                (H, W) or (F, H, W)
    .npz .h5 .hdf5      every 2D or 3D array of numbers is a source; in HDF5 a dataset `mask` beside it is its mask
    .dm3 .dm4 .mrc .emd .hspy .nxs     as RosettaSciIO reads them (the extra `microscopes`)

Listing reads headers only, so an absurd declared size is refused before anything is decoded.  A CSV of the same stem
beside a file gives the temperature, direction, time, pixel size and point-spread function of every frame
(hamscope.data.sidecar has its columns).

Shape letters: F = frames of a source; H, W = rows and columns of a frame.
"""

import glob
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hamscope.data.formats import FORMATS, MASKS
from hamscope.data.sidecar import with_sidecar
from hamscope.errors import FrameError


@dataclass(frozen=True)
class FrameRef:
    """Where a frame is: `path`, name of the `array` within it ("" for images), `page`; its `shape` (H, W) in pixels.

    `source` names the file (and array) in results; `temperature` is in kelvin, NaN if unknown; `direction` is +1
    heating, -1 cooling, 0 unknown; `psf_px`, the width of the point-spread function in pixels, `time` in seconds and
    `pixel_size` in nanometres are NaN if unknown.  `masked` says that a mask lies beside the frame (`read_mask`),
    `adaptive` that it has two levels by a threshold that was taken from it, which erased its density, and `dtype` names
    the type in which its pixels are stored, "" if unknown.
    """

    path: str
    array: str
    page: int
    shape: tuple[int, int]
    source: str = ""
    temperature: float = math.nan
    direction: int = 0
    psf_px: float = math.nan
    time: float = math.nan
    pixel_size: float = math.nan
    masked: bool = False
    adaptive: bool = False
    dtype: str = ""

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


def read_frame(ref: FrameRef, rows: tuple[int, int] | None = None, native: bool = False) -> np.ndarray:
    """The grey values of a frame, or of its rows start to stop.

    Of an uncompressed TIFF, .npy and HDF5 only these rows are read; of compressed TIFF and chunked HDF5 the strips,
    tiles or chunks that hold them; PNG, LZW in TIFF and .npz are decoded up to the last of them.

    Parameters
    ----------
    ref : FrameRef
    rows : (start, stop), optional
        0 <= start < stop <= H; all rows without it.
    native : bool
        Leave whole numbers and truth values in the type they are stored in (in the byte order of this machine), one
        byte a pixel for most cameras.  The array can then be a read-only map of the file.

    Returns
    -------
    ndarray, shape (stop - start, W), float32, or the stored type of whole numbers with `native`

    Raises
    ------
    FrameError
        The file is damaged, truncated or has changed, or a pixel is NaN, infinite or too large for float32.
    ValueError
        There are no such rows.
    """
    start, stop = _checked_rows(ref, rows)
    try:
        raw = np.asarray(FORMATS[Path(ref.path).suffix.lower()][1](ref.path, ref.array, ref.page, slice(start, stop)))
    except Exception as error:  # on damaged files the decoders raise almost anything
        raise FrameError(f"{ref}: damaged or truncated ({_one_line(error)}); save it again or leave it out") from None
    expected = (stop - start, ref.shape[1])
    if raw.shape != expected:
        raise FrameError(f"{ref}: has the shape {raw.shape} and not {expected}, it was changed; start again")
    if raw.dtype.kind in "bui":
        return raw.astype(raw.dtype.newbyteorder("="), copy=False) if native else raw.astype(np.float32)
    with np.errstate(over="ignore"):
        grey = raw.astype(np.float32, copy=not raw.flags.writeable)  # the caller gets no map of the file
    _check_finite(ref, raw, grey, start)
    return grey


def read_mask(ref: FrameRef, rows: tuple[int, int] | None = None) -> np.ndarray:
    """Which pixels of a frame, or of its rows start to stop, are not part of the sample: (stop - start, W) bool.

    All False where no mask lies beside the frame.  FrameError where the mask cannot be read or does not fit.
    """
    start, stop = _checked_rows(ref, rows)
    find = MASKS.get(Path(ref.path).suffix.lower(), lambda *_: None)
    try:
        mask = find(ref.path, ref.array, slice(start, stop))
    except Exception as error:
        raise FrameError(f"{ref}: its mask is damaged ({_one_line(error)}); write it again") from None
    expected = (stop - start, ref.shape[1])
    if mask is not None and mask.shape != expected:
        raise FrameError(f"{ref}: its mask has the shape {mask.shape} and not {expected}; write it again")
    return np.zeros(expected, bool) if mask is None else mask


def _checked_rows(ref: FrameRef, rows: tuple[int, int] | None) -> tuple[int, int]:
    start, stop = rows or (0, ref.shape[0])
    if not 0 <= start < stop <= ref.shape[0]:
        raise ValueError(f"rows {start} to {stop} of {ref.shape[0]}: there are none such; take 0 <= start < stop <= H")
    return start, stop


def _check_finite(ref: FrameRef, raw: np.ndarray, grey: np.ndarray, start: int) -> None:
    """Refuse pixels that are no numbers; extremes tell without an array as large as the frame."""
    for values, what in ((raw, "NaN or infinite"), (grey, "larger than float32 holds")):
        if np.isfinite(values.min()) and np.isfinite(values.max()):
            continue
        bad = np.argwhere(~np.isfinite(values))
        row, column = bad[0]
        part = "" if len(raw) == ref.shape[0] else f" of rows {start} to {start + len(raw) - 1}"
        first = f"row {row + start}, column {column}"
        raise FrameError(
            f"{ref}: {len(bad)} of {raw.size} pixels{part} are {what}, the first at {first}; "
            "fill or crop them, or leave the frame out"
        )


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
        declared = FORMATS[suffix][0](path)
        refs = [FrameRef(str(path), **frame._asdict()) for frame in declared]
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
    return with_sidecar(refs, path.with_suffix(".csv"))


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
