"""What a file of frames may declare, checked before anything of that size is decoded or set aside.

A few bytes can declare a terabyte.  Deflate reaches 1032 bytes out of one, so a small file can also *be* a gigabyte.
Every format asks here: for the shape and type of its frames, and before inflating a large piece.

Shape letters: F = frames of an array; H, W = rows and columns of a frame.
"""

import lzma
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hamscope.errors import FrameError

MAX_PIXELS = 2**29  # of one frame: 23,170 x 23,170.  More is a damaged or hostile header
MAX_FRAMES = 10**6  # of one array
MAX_PIECE_BYTES = 2**28  # of one chunk, tile or strip decoded at once, unless one frame is larger
DEFLATE_RATIO = 1032  # the most that deflate makes of a byte (zlib Technical Details, zlib.net/zlib_tech.html)
FREE_BYTES = 2**27  # what a piece may become without being looked at first


class Declared(NamedTuple):
    """A frame as a file declares it: its place (`array`, `page`), `shape` (H, W), stored type, if a mask is beside.

    `adaptive`: it has two levels by a threshold that was taken from it, which erased its density.
    """

    array: str
    page: int
    shape: tuple[int, int]
    dtype: str
    masked: bool = False
    adaptive: bool = False


def check(path: str | Path, where: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
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


def check_piece(path: str | Path, where: str, piece_bytes: int, frame_bytes: int) -> None:
    """Refuse chunks, strips and tiles that are larger than any frame needs them."""
    if piece_bytes > max(MAX_PIECE_BYTES, 2 * frame_bytes):
        raise FrameError(
            f"{path}, {where}: declares pieces of {piece_bytes:,} bytes for frames of {frame_bytes:,}, which is "
            "absurd; write smaller chunks, strips or tiles"
        )


def needs_look(stored_bytes: int, piece_bytes: int) -> bool:
    """If so many bytes of deflate can become much more than the piece that is declared."""
    return stored_bytes * DEFLATE_RATIO > max(FREE_BYTES, piece_bytes)


def check_inflated(data: bytes, piece_bytes: int, method: str = "deflate") -> None:
    """Refuse compressed data that would become more than the `piece_bytes` that its header declares.

    Small pieces pass unseen, since they cannot become much; large ones are inflated up to the limit and no further.

    Raises
    ------
    FrameError
        Without the name of the file, which the caller knows.
    """
    if method == "deflate" and not needs_look(len(data), piece_bytes):
        return
    decompressor = zlib.decompressobj() if method == "deflate" else lzma.LZMADecompressor()
    if len(decompressor.decompress(data, piece_bytes + 1)) > piece_bytes:
        raise FrameError(f"{len(data):,} compressed bytes become more than the {piece_bytes:,} that are declared")


def pages(array: str, shape: tuple[int, ...], dtype: np.dtype, masked: bool = False) -> list[Declared]:
    """The frames of an array of shape (H, W) or (F, H, W)."""
    size = tuple(int(n) for n in shape[-2:])
    return [Declared(array, page, size, np.dtype(dtype).name, masked) for page in range(math.prod(shape[:-2]))]


def rows_of(values, page: int, rows: slice) -> np.ndarray:
    """Rows of one frame of an array or dataset of shape (H, W) or (F, H, W)."""
    return values[page, rows] if len(values.shape) == 3 else values[rows]
