"""Frames in TIFF, BigTIFF, OME-TIFF and ImageJ's stacks: every plane of one channel is a frame.

A file with one channel and one series is one source.  Where OME-XML or ImageJ declares more, each series and channel
is a source of its own ("series0/channel1"), its frames in the order of time and then depth.  Thumbnails and levels of
a pyramid are no frames, and a page in colour is refused.  Of an OME set of several files each file gives its own
planes; the names of files in its XML are not followed.

Listing walks the chain of pages first and reads tags only, so a chain without an end, pages that share a few bytes and
tiles larger than the page are refused at once.  Rows of an uncompressed page are mapped from the file; of a compressed
one the strips or tiles that hold them are decoded, and LZW, which tifffile does not have by itself, by Pillow whole.

References: TIFF 6.0 (Adobe, 1992); OME-TIFF, docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html.
"""

import json
import logging
import math
import struct
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from hamscope.data.declared import DEFLATE_RATIO, MAX_FRAMES, Declared, check, check_inflated, check_piece
from hamscope.data.formats_ome import ome_groups, stack_groups
from hamscope.errors import FrameError

_DEFLATE, _LZW, _LZMA = (8, 32946, 50013), 5, 34925
_CODECS = (1, _LZW, *_DEFLATE, _LZMA, 32773)  # the last is PackBits
_BEST_RATIO = 10_000  # more than LZW, LZMA or PackBits make of a byte
_FEW_PAGES, _LEAST_PAGE_BYTES = 5_000, 400  # a file of more pages than the first has the second for each of them
_SLACK = 2**24  # bytes of tags that pages may share


class Place(NamedTuple):
    """Where a frame lies: its page's number and offset in the chain, and the offset of its pixels if it has no page."""

    index: int
    ifd: int
    pixels: int | None = None


class _Complaints(logging.Handler):
    """What tifffile logs as errors: it leaves out the tags it cannot read and goes on."""

    def __enter__(self):
        self.messages = []
        tifffile.logger().addHandler(self)
        return self.messages

    def __exit__(self, *_):
        tifffile.logger().removeHandler(self)

    def emit(self, record):
        self.messages.append(record.getMessage())


def list_tiff(path: Path) -> list[Declared]:
    """The frames of a TIFF file, from its tags.

    Raises
    ------
    FrameError
        A page is in colour, of an unknown compression, absurdly large or truncated; the chain of pages is damaged.
    """
    stat = Path(path).stat()
    return [frame for frame, _ in _scan(str(path), stat.st_mtime_ns, stat.st_size).values()]


def read_tiff(path: str, array: str, page: int, rows: slice) -> np.ndarray:
    """Rows of one frame; a memory map where the page is in one piece and not compressed."""
    stat = Path(path).stat()
    _, place = _scan(path, stat.st_mtime_ns, stat.st_size)[array, page]
    with tifffile.TiffFile(path) as file:
        tags = _page(file, place)
        start, stop, _ = rows.indices(tags.shape[0])
        inverted = tags.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        if tags.is_final:
            dtype = tags.dtype.newbyteorder(file.byteorder)
            offset = tags.dataoffsets[0] if place.pixels is None else place.pixels
            raw = np.memmap(path, dtype, "r", offset, tags.shape)[start:stop]
        elif _needs_pillow(tags):
            raw = _pillow_rows(path, place.index, start, stop)
        else:
            raw = _decoded_rows(file, tags, start, stop)
        if inverted and raw.dtype.kind in "bu":
            return ~raw if raw.dtype.kind == "b" else raw.dtype.type((1 << tags.bitspersample) - 1) - raw
        return raw


@lru_cache(maxsize=4)
def _scan(path: str, changed: int, size: int) -> dict[tuple[str, int], tuple[Declared, Place]]:
    """(array, page) -> the frame and where it lies; kept, since each frame is read by itself."""
    with _Complaints(logging.ERROR) as complaints, tifffile.TiffFile(path) as file:
        chain = [Place(index, offset) for index, offset in enumerate(_offsets(path, file, size))]
        shapes = {}
        for place in chain:
            page = _page(file, place)
            if not page.is_reduced:  # a thumbnail, or a level of a pyramid
                _check_page(path, place.index, page, size)
                shapes[place] = (page.shape, page.dtype.name)
        if complaints:
            raise FrameError(f"{path}: truncated or damaged ({complaints[0]}); save it again or leave it out")
        groups = _groups(path, file, list(shapes), size)
    frames = {}
    for array, places in groups.items():
        for page, place in enumerate(places):
            shape, dtype = shapes[place._replace(pixels=None)]
            frames[array, page] = Declared(array, page, shape, dtype), place
    return frames


def _offsets(path: str, file: tifffile.TiffFile, size: int) -> list[int]:
    """The offset of every page, from the links alone.

    Raises
    ------
    FrameError
        The chain goes in a circle or out of the file, or its pages and tags are more than the file has room for.
    """
    tiff, handle, offsets, seen, tag_bytes = file.tiff, file.filehandle, [], set(), 0
    offset = file.pages.first.offset
    while offset:
        page = len(offsets)
        if offset in seen:
            raise FrameError(f"{path}: damaged, its page {page} leads back to an earlier one; save it again")
        if page >= MAX_FRAMES or (page > _FEW_PAGES and page * _LEAST_PAGE_BYTES > size):
            raise FrameError(f"{path}: declares more than {page:,} pages in {size:,} bytes, which is absurd")
        handle.seek(offset)
        (count,) = struct.unpack(tiff.tagnoformat, _exactly(path, page, handle, tiff.tagnosize))
        tags = _exactly(path, page, handle, count * tiff.tagsize)
        (following,) = struct.unpack(tiff.offsetformat, _exactly(path, page, handle, tiff.offsetsize))
        for _, kind, number, _ in struct.iter_unpack(tiff.tagheaderformat, tags):
            tag_bytes += number * struct.calcsize(tifffile.TIFF.DATA_FORMATS.get(kind, "1B"))
        if tag_bytes > 4 * size + _SLACK:
            raise FrameError(f"{path}: damaged, the tags of its pages are larger than the file; save it again")
        offsets.append(offset)
        seen.add(offset)
        offset = following
    return offsets


def _exactly(path: str, page: int, handle, count: int) -> bytes:
    """The next bytes of the file, all of them."""
    data = handle.read(count)
    if len(data) < count:
        raise FrameError(f"{path}: truncated or damaged, page {page} is not all there; save it again or leave it out")
    return data


def _page(file: tifffile.TiffFile, place: Place) -> tifffile.TiffPage:
    file.filehandle.seek(place.ifd)
    return tifffile.TiffPage(file, index=place.index)


def _check_page(path: str, index: int, page: tifffile.TiffPage, size: int) -> None:
    """Refuse a page in colour, or one that cannot be read, or whose pixels are not all there."""
    where = f"page {index}"
    check(path, where, page.shape, np.dtype(page.dtype or "V1"))
    if page.samplesperpixel != 1 or page.photometric == tifffile.PHOTOMETRIC.PALETTE or page.ndim != 2:
        raise FrameError(f"{path}, {where}: is in colour or has {page.samplesperpixel} channels; convert it to grey")
    inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if (
        page.compression not in _CODECS
        or page.bitspersample not in (1, 8, 16, 32, 64)
        or (_needs_pillow(page) and inverted)  # Pillow inverts some of them by itself
    ):
        kind = f"{getattr(page.compression, 'name', page.compression)}{', white is zero' if inverted else ''}"
        raise FrameError(
            f"{path}, {where}: {page.bitspersample} bits a pixel, compression {kind}, are not read here; save 8 or 16 "
            "bits, uncompressed or with deflate"
        )
    piece = math.prod(_piece(page)) * page.dtype.itemsize
    check_piece(path, where, piece, page.nbytes)
    offsets, counts = np.asarray(page.dataoffsets, np.uint64), np.asarray(page.databytecounts, np.uint64)
    stored = int(counts.sum())
    # A part without data or beyond the end of the file would silently be read as zeros.
    if (
        not len(offsets) == len(counts) == math.prod(page.chunked)
        or counts.min() == 0
        or offsets.max() > size
        or (offsets + counts).max() > size
        or stored > size
        or (page.compression == 1 and page.bitspersample > 1 and stored < page.nbytes)
    ):
        raise FrameError(f"{path}, {where}: truncated, its pixels are not all there; save it again")
    ratio = DEFLATE_RATIO if page.compression in _DEFLATE else _BEST_RATIO
    if stored * ratio < page.nbytes:
        raise FrameError(
            f"{path}, {where}: declares {page.shape[0]} x {page.shape[1]} pixels in {stored:,} bytes, which cannot be"
        )


def _piece(page: tifffile.TiffPage) -> tuple[int, int]:
    """Rows and columns of a strip or tile."""
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)


def _groups(path: str, file: tifffile.TiffFile, places: list[Place], size: int) -> dict[str, list[Place]]:
    """The frames of each source, in order."""
    if not places:
        return {}
    if file.is_ome:
        groups = ome_groups(file.ome_metadata, Path(path).name, len(places))
        named = [index for indices in groups.values() for index in indices]
        by_index = {place.index: place for place in places}
        if sorted(named) == sorted(by_index):  # else the XML is not about these pages, and their order is as good
            return {array: [by_index[index] for index in indices] for array, indices in groups.items()}
    images, order, sizes = _stacked(file)
    if len(places) == 1 < images:
        places = _without_pages(path, file, places[0], images, size)
    if math.prod(sizes.values()) == len(places):
        groups = stack_groups(order, sizes, range(len(places)))
        return {array: [places[index] for index in indices] for array, indices in groups.items()}
    return {"": places}


def _stacked(file: tifffile.TiffFile) -> tuple[int, str, dict[str, int]]:
    """How many images the first page speaks for; order and sizes of channels, depth and time as ImageJ writes them."""
    if file.is_imagej:
        meta = file.imagej_metadata or {}
        sizes = {letter: int(meta.get(name, 1)) for letter, name in zip("CZT", ("channels", "slices", "frames"))}
        return max(int(meta.get("images", 1)), math.prod(sizes.values())), meta.get("order", "czt").upper(), sizes
    images = 1
    if file.is_shaped:  # tifffile leaves out the other pages where it was told to
        meta = json.loads(file.pages.first.shaped_description)
        images = math.prod(map(int, meta["shape"])) // file.pages.first.size if meta.get("truncated") else 1
    return images, "CZT", {"C": 1, "Z": 1, "T": images}


def _without_pages(path: str, file: tifffile.TiffFile, place: Place, images: int, size: int) -> list[Place]:
    """The frames of a stack that has one page, as ImageJ writes more than 4 GB: pixels of all, one after the other."""
    page = _page(file, place)
    first = page.dataoffsets[0]
    if not page.is_final or images > MAX_FRAMES or first + images * page.nbytes > size:
        raise FrameError(f"{path}: truncated, it declares {images} images and has one page; save it again as BigTIFF")
    return [place._replace(pixels=first + image * page.nbytes) for image in range(images)]


def _needs_pillow(page: tifffile.TiffPage) -> bool:
    """If tifffile needs the large package imagecodecs for it, which is not asked for: LZW, and deltas of floats."""
    return page.compression == _LZW or page.predictor == tifffile.PREDICTOR.FLOATINGPOINT


def _pillow_rows(path: str, index: int, start: int, stop: int) -> np.ndarray:
    with Image.open(path, formats=["TIFF"]) as image:
        image.seek(index)
        return np.asarray(image)[start:stop]


def _decoded_rows(file: tifffile.TiffFile, page: tifffile.TiffPage, start: int, stop: int) -> np.ndarray:
    """Rows of a page in strips or tiles, of which only those that hold them are decoded."""
    high, wide = _piece(page)
    across = page.chunked[1]
    out = np.empty((stop - start, page.imagewidth), page.dtype)
    for index in range(start // high * across, -(-stop // high) * across):
        file.filehandle.seek(int(page.dataoffsets[index]))
        data = file.filehandle.read(int(page.databytecounts[index]))
        if page.compression in (*_DEFLATE, _LZMA):
            method = "lzma" if page.compression == _LZMA else "deflate"
            check_inflated(data, high * wide * page.dtype.itemsize, method)
        piece, (_, _, top, left, _), _ = page.decode(data, index)
        piece = piece[0, :, : page.imagewidth - left, 0]
        low, end = max(start, top), min(stop, top + len(piece))
        out[low - start : end - start, left : left + piece.shape[1]] = piece[low - top : end - top]
    return out
