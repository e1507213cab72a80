"""The formats of microscope frames: which frames a file declares, and rows of one of them.

A frame has a place in its file: the name of an array ("" where there is only one) and a page.  Listing reads headers
only, so an absurd declared size is refused before anything is decoded.  What a decoder raises on a damaged file passes
through.  PNG and numpy's own formats are here; TIFF, HDF5 and the formats of microscopes have modules of their own.

Shape letters: F = frames of an array; H, W = rows and columns of a frame.
"""

import math
import warnings
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from hamscope.data.declared import Declared, check, pages, rows_of
from hamscope.data.formats_hdf5 import list_hdf5, mask_hdf5, read_hdf5
from hamscope.data.formats_microscope import SUFFIXES, list_microscope, read_microscope
from hamscope.data.formats_tiff import list_tiff, read_tiff
from hamscope.errors import FrameError

_GREY_MODES = ("1", "L", "I", "F")  # of Pillow, besides I;16 and its byte orders
_MAX_ARRAYS = 10_000  # in one .npz
_MAX_WHOLE = 2**30  # bytes of an array in an .npz of which no frame lies in one piece


def list_png(path: Path) -> list[Declared]:
    """The frame of a PNG file."""
    with warnings.catch_warnings(), Image.open(path, formats=["PNG"]) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # above twice its limit Pillow raises
        if image.mode not in _GREY_MODES and not image.mode.startswith("I;16"):
            raise FrameError(
                f"{path}: its pixels are {image.mode} (colours, a palette or transparency); convert it to grey"
            )
        dtype = {"1": np.dtype(bool), "L": np.dtype("u1")}.get(image.mode, np.dtype("u2"))
        check(path, "page 0", image.size[::-1], dtype)
        return pages("", image.size[::-1], dtype)


def read_png(path: str, array: str, page: int, rows: slice) -> np.ndarray:
    """Rows of a PNG, which is always decoded whole."""
    with warnings.catch_warnings(), Image.open(path, formats=["PNG"]) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return np.asarray(image)[rows]


def list_npy(path: Path) -> list[Declared]:
    """The frames of a .npy file."""
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    check(path, "array", values.shape, values.dtype)
    return pages("", values.shape, values.dtype)


def read_npy(path: str, array: str, page: int, rows: slice) -> np.ndarray:
    """Rows of a frame, as a memory map."""
    return rows_of(np.load(path, mmap_mode="r", allow_pickle=False), page, rows)


def _npz_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, if in Fortran order, and type of the array in an open member of an .npz."""
    versions = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return versions[np.lib.format.read_magic(file)](file)


def list_npz(path: Path) -> list[Declared]:
    """The frames of every 2D and 3D array of numbers in an .npz file."""
    frames = []
    with zipfile.ZipFile(path) as archive:
        if len(archive.infolist()) > _MAX_ARRAYS:
            raise FrameError(f"{path}: declares {len(archive.infolist()):,} arrays, which is absurd; save it as .npy")
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FrameError(f"{path}, array {name}: is not compressed as numpy does it; save it with np.savez")
            with archive.open(member) as file:
                shape, fortran, dtype = _npz_header(file)
                start = file.tell()
            if len(shape) not in (2, 3) or dtype.kind not in "biufc":
                continue
            check(path, f"array {name}", shape, dtype)
            if member.file_size != start + math.prod(shape) * dtype.itemsize:
                raise FrameError(f"{path}, array {name}: truncated, it is not as long as its shape {shape} says")
            if fortran and math.prod(shape) * dtype.itemsize > _MAX_WHOLE:
                raise FrameError(f"{path}, array {name}: shape {shape} in Fortran order is too large; save it as .npy")
            frames += pages(name, shape, dtype)
    if not frames:
        raise FrameError(f"{path}: holds no 2D or 3D array of numbers; save the frames as such")
    return frames


def read_npz(path: str, array: str, page: int, rows: slice) -> np.ndarray:
    """Rows of a frame: what lies before them is inflated and dropped; only arrays in Fortran order are held whole."""
    with zipfile.ZipFile(path) as archive, archive.open(array + ".npy") as file:
        shape, fortran, dtype = _npz_header(file)
        *_, height, width = shape
        if fortran:
            whole = np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype)
            return rows_of(whole.reshape(shape, order="F"), page, rows)
        start, stop, _ = rows.indices(height)
        file.seek((page * height + start) * width * dtype.itemsize, 1)
        return np.frombuffer(file.read((stop - start) * width * dtype.itemsize), dtype).reshape(stop - start, width)


# Each suffix has a function that lists the frames from the headers of a file alone, and one that reads rows of a
# frame of (path, array, page, slice of rows) in the type they are stored in.
FORMATS = {
    ".tif": (list_tiff, read_tiff), ".tiff": (list_tiff, read_tiff), ".png": (list_png, read_png),
    ".npy": (list_npy, read_npy), ".npz": (list_npz, read_npz),
    ".h5": (list_hdf5, read_hdf5), ".hdf5": (list_hdf5, read_hdf5),
} | dict.fromkeys(SUFFIXES, (list_microscope, read_microscope))  # fmt: skip

# Formats in which a mask can lie beside the frames: the mask of (path, array), or None.
MASKS = {".h5": mask_hdf5, ".hdf5": mask_hdf5}
