"""The CSV beside a file of frames: what the experimenter knows of each frame and the pixels do not say.

    frame          number of the frame in its file, from 0; the only column that must be there
    temperature    kelvin
    direction      heating or cooling towards this frame, or a number: its sign
    time           seconds, from any moment on
    pixel_size     edge of a pixel in nanometres
    psf_px         standard deviation of the point-spread function in pixels

A field may be empty: not known.  Each frame is named once; other columns are ignored.
"""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from hamscope.errors import FrameError

_DIRECTIONS = {"": 0, "heating": 1, "cooling": -1}
_COLUMNS = ("temperature", "direction", "time", "pixel_size", "psf_px")


def with_sidecar(refs: list, path: Path) -> list:
    """Give the frames `refs` of one file what the CSV at `path` says, if there is one.

    Raises
    ------
    FrameError
        It does not name every frame of every source once, or a field is no number of its unit.
    """
    if not path.is_file():
        return refs
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in table.fieldnames or []]
            if "frame" not in header or not set(_COLUMNS) & set(header):
                raise FrameError(
                    f"{path}: its header is {','.join(header)}; write frame,{','.join(_COLUMNS)} (what is known of "
                    "them), or rename it"
                )
            table.fieldnames, rows = header, list(table)
        known = {int(row["frame"]): _fields(row) for row in rows}
    except (OSError, UnicodeDecodeError, ValueError, TypeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise FrameError(
            f"{path}: {reason}; write in each row the number of a frame from 0, and empty fields or numbers in kelvin, "
            "seconds, nanometres and pixels, and heating or cooling"
        ) from None
    for array in dict.fromkeys(ref.array for ref in refs):
        count = sum(ref.array == array for ref in refs)
        if len(rows) != count or sorted(known) != list(range(count)):
            where = f"array {array} of {path.stem}" if array else path.stem
            raise FrameError(
                f"{path}: {len(rows)} rows for the {count} frames of {where}; name each once, 0 to {count - 1}"
            )
    return [replace(ref, **known[ref.page]) for ref in refs]


def _fields(row: dict) -> dict:
    """What a row says, checked."""
    pixel_size = _number(row, "pixel_size", "nanometres")
    if pixel_size == 0:
        raise ValueError(f"pixel_size = {row['pixel_size']}: is not in nanometres")
    return {
        "temperature": _number(row, "temperature", "kelvin"),
        "direction": _direction(row.get("direction")),
        "time": _number(row, "time", "seconds", least=-math.inf),
        "pixel_size": pixel_size,
        "psf_px": _number(row, "psf_px", "pixels"),
    }


def _number(row: dict, name: str, unit: str, least: float = 0) -> float:
    """A field as a number; NaN where it is empty or there is no such column."""
    text = (row.get(name) or "").strip()
    number = float(text) if text else math.nan
    if number < least or math.isinf(number):
        raise ValueError(f"{name} = {text}: is not in {unit}")
    return number


def _direction(text: str | None) -> int:
    text = (text or "").strip().lower()
    return _DIRECTIONS[text] if text in _DIRECTIONS else int(np.sign(float(text)))
