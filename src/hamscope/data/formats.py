"""The formats of microscope frames: which frames a file declares, and the pixels of one of them.

A frame has a place in its file: the name of an array ("" in images) and a page.  Listing reads headers only, so an
absurd declared size is refused before anything is decoded.  What a decoder raises on a damaged file passes through.

Shape letters: F = frames of an array; H, W = rows and columns of a frame.
"""

import logging
import math
import zipfile
from pathlib import Path

import h5py
import numpy as np
import tifffile
from PIL import Image

from hamscope.errors import FrameError

MAX_PIXELS = 2**27  # of one frame: 11,585 x 11,585.  More is a damaged or hostile header
MAX_FRAMES = 10**6  # of one array
MAX_ARRAY_BYTES = 2**32  # of one array in an .npz, which is decompressed whole for each of its frames
_GREY_MODES = ("1", "L", "I", "F")  # of Pillow, besides I;16 and its byte orders


def _check(path: Path, where: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse what is no stack of grey images, from its declared shape (H, W) or (F, H, W) and type."""
    if dtype.kind == "c":
        raise FrameError(f"{path}, {where}: its pixels are complex; save the amplitude, the phase or a real part")
    if dtype.kind not in "biuf" or not 2 <= len(shape) <= 3 or 0 in shape:
        raise FrameError(
            f"{path}, {where}: shape {shape} of {dtype} is no grey image; save (H, W) or (F, H, W) numbers"
        )
    if len(shape) == 3 and shape[-1] in (3, 4):
        raise FrameError(
            f"{path}, {where}: shape {shape} has {shape[-1]} colour channels; convert it to grey, or take one of them"
        )
    if math.prod(shape[-2:]) > MAX_PIXELS or math.prod(shape[:-2]) > MAX_FRAMES:
        raise FrameError(f"{path}, {where}: declares the shape {shape}, which is absurd; crop it or cut it in tiles")


def _pages(array: str, shape: tuple[int, ...]) -> list[tuple[str, int, tuple[int, int]]]:
    """The frames of an array of shape (H, W) or (F, H, W)."""
    return [(array, page, tuple(shape[-2:])) for page in range(math.prod(shape[:-2]))]


def _page_of(values, page: int) -> np.ndarray:
    """One frame of an array or dataset of shape (H, W) or (F, H, W)."""
    return values[page] if len(values.shape) == 3 else values[()]


class _Complaints(logging.Handler):
    """What tifffile logs as errors: it leaves out the pages behind a broken link and goes on."""

    def __enter__(self):
        self.messages = []
        tifffile.logger().addHandler(self)
        return self.messages

    def __exit__(self, *_):
        tifffile.logger().removeHandler(self)

    def emit(self, record):
        self.messages.append(record.getMessage())


def _list_tiff(path: Path):
    size, frames = path.stat().st_size, []
    with _Complaints(logging.ERROR) as complaints, tifffile.TiffFile(path) as file:
        stacked = file.series[0].shape[:-2] if file.is_imagej and file.series else ()
        if math.prod(stacked) > len(file.pages):
            raise FrameError(f"{path}: an ImageJ stack of more than 4 GB; save it as an image sequence or as BigTIFF")
        for index, page in enumerate(file.pages):
            if page.is_reduced:  # a thumbnail, or a level of a pyramid
                continue
            _check(path, f"page {index}", page.shape, np.dtype(page.dtype or "V1"))
            if page.samplesperpixel != 1 or page.photometric == tifffile.PHOTOMETRIC.PALETTE or page.ndim != 2:
                raise FrameError(
                    f"{path}, page {index}: is in colour or has {page.samplesperpixel} channels; convert it to grey"
                )
            # A part without data or beyond the end of the file would silently be read as zeros.
            parts = list(zip(page.dataoffsets, page.databytecounts))
            if not parts or any(count == 0 or offset + count > size for offset, count in parts):
                raise FrameError(f"{path}, page {index}: truncated, its pixels are not all there; save it again")
            frames.append(("", index, page.shape))
    if complaints:
        raise FrameError(f"{path}: truncated or damaged ({complaints[0]}); save it again or leave it out")
    return frames


def _read_tiff(path: str, array: str, page: int) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        tags = file.pages[page]
        inverted = tags.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        try:
            raw = tags.asarray()
        except ValueError:
            # Without the package imagecodecs tifffile has no LZW; Pillow has, but inverts some images by itself.
            if tags.compression != tifffile.COMPRESSION.LZW or inverted:
                raise
            with Image.open(path, formats=["TIFF"]) as image:
                image.seek(page)
                return np.asarray(image)
        if inverted and raw.dtype.kind in "bu":
            return ~raw if raw.dtype.kind == "b" else (1 << tags.bitspersample) - 1 - raw.astype(np.int64)
        return raw


def _list_png(path: Path):
    with Image.open(path, formats=["PNG"]) as image:
        if image.mode not in _GREY_MODES and not image.mode.startswith("I;16"):
            raise FrameError(
                f"{path}: its pixels are {image.mode} (colours, a palette or transparency); convert it to grey"
            )
        _check(path, "page 0", image.size[::-1], np.dtype("u2"))
        return _pages("", image.size[::-1])


def _read_png(path: str, array: str, page: int) -> np.ndarray:
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image)


def _list_npy(path: Path):
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    _check(path, "array", values.shape, values.dtype)
    return _pages("", values.shape)


def _read_npy(path: str, array: str, page: int) -> np.ndarray:
    return _page_of(np.load(path, mmap_mode="r", allow_pickle=False), page)


def _list_npz(path: Path):
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    frames = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
            if len(shape) not in (2, 3) or dtype.kind not in "biufc":
                continue
            _check(path, f"array {name}", shape, dtype)
            if math.prod(shape) * dtype.itemsize > MAX_ARRAY_BYTES:
                raise FrameError(f"{path}, array {name}: shape {shape} is too large for .npz; save it as .npy")
            frames += _pages(name, shape)
    if not frames:
        raise FrameError(f"{path}: holds no 2D or 3D array of numbers; save the frames as such")
    return frames


def _read_npz(path: str, array: str, page: int) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return _page_of(arrays[array], page)


def _list_hdf5(path: Path):
    frames = []

    def visit(name, item):
        if not isinstance(item, h5py.Dataset) or item.ndim not in (2, 3) or item.dtype.kind not in "biufc":
            return
        if item.is_virtual or item.external:
            raise FrameError(
                f"{path}, dataset {name}: its pixels lie in other files, which are not followed; copy them in"
            )
        _check(path, f"dataset {name}", item.shape, item.dtype)
        if item.chunks and math.prod(item.chunks) > MAX_PIXELS:
            raise FrameError(
                f"{path}, dataset {name}: declares chunks of {item.chunks}, which is absurd; write smaller ones"
            )
        frames.extend(_pages(name, item.shape))

    with h5py.File(path, "r") as file:
        file.visititems(visit)  # meets every object once, and neither soft nor external links
    if not frames:
        raise FrameError(f"{path}: holds no 2D or 3D dataset of numbers; write the frames as such, without links")
    return frames


def _read_hdf5(path: str, array: str, page: int) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return _page_of(file[array], page)


# Each suffix has a function that lists (array, page, shape) of the frames from the headers of a file alone, and one
# that reads a frame of (path, array, page).
FORMATS = {
    ".tif": (_list_tiff, _read_tiff), ".tiff": (_list_tiff, _read_tiff), ".png": (_list_png, _read_png),
    ".npy": (_list_npy, _read_npy), ".npz": (_list_npz, _read_npz),
    ".h5": (_list_hdf5, _read_hdf5), ".hdf5": (_list_hdf5, _read_hdf5),
}  # fmt: skip
