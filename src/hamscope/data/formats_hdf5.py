"""Frames in HDF5: every 2D or 3D dataset of numbers is a source, and a dataset `mask` beside them is their mask.

    <group>/<any name>   (H, W) or (F, H, W) numbers       <group>/mask   (H, W), not 0 = not part of the sample

What `hamscope prepare` wrote says in its attribute `adaptive` whether its frames became two levels by thresholds that
were taken from them.

Only what the header, the chunk index and the filters say is looked at before a frame is read, so a dataset that
declares more than the file can hold is refused at once.  Pixels in other files are not followed.

Shape letters: F = frames of a dataset; H, W = rows and columns of a frame.
"""

import math
from pathlib import Path

import h5py
import numpy as np

from hamscope.data.declared import Declared, check, check_inflated, check_piece, needs_look, pages, rows_of
from hamscope.errors import FrameError

MASK = "mask"
PREPARED = "hamscope prepared"
# Filters that make a chunk no smaller than a fixed part of it; all others can make it very small.
_HARMLESS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET)
_GROWTH = 1.1  # of a chunk that does not compress, besides a header
_HEADER = 4096


def list_hdf5(path: Path) -> list[Declared]:
    """The frames of every dataset of numbers below any group, without following links to elsewhere.

    Raises
    ------
    FrameError
        A dataset lies elsewhere, is no grey image, was not written whole, or has absurd chunks; a mask that does not
        fit the frames beside it.
    """
    frames, masks = [], {}

    def visit(name, item):
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biufc":
            return
        group, _, last = name.rpartition("/")
        if last == MASK:
            _check_mask(path, name, item)
            masks[group] = item.shape
        elif item.ndim in (2, 3):
            check(path, f"dataset {name}", item.shape, item.dtype)
            check_whole(path, name, item)
            frames.extend(pages(name, item.shape, item.dtype))

    with h5py.File(path, "r") as file:
        file.visititems(visit)  # meets every object once, and neither soft nor external links
        adaptive = file.attrs.get("schema") == PREPARED and bool(file.attrs["adaptive"])
    if not frames:
        raise FrameError(f"{path}: holds no 2D or 3D dataset of numbers; write the frames as such, without links")
    for name, shape in {(frame.array, frame.shape) for frame in frames}:
        group = name.rpartition("/")[0]
        if masks.get(group, shape) != shape:
            raise FrameError(
                f"{path}: the mask has the shape {masks[group]} and the frames of {name} have {shape}; make them alike"
            )
    return [frame._replace(masked=frame.array.rpartition("/")[0] in masks, adaptive=adaptive) for frame in frames]


def _check_mask(path: str | Path, name: str, item: h5py.Dataset) -> None:
    """Refuse a mask that is none; one that was never written at all is all 0 and well."""
    if item.ndim != 2 or item.dtype.kind not in "bui":
        raise FrameError(
            f"{path}, dataset {name}: shape {item.shape} of {item.dtype} is no mask; write (H, W) of 0 and 1, or "
            "rename it"
        )
    check(path, f"dataset {name}", item.shape, item.dtype)
    (check_whole if item.id.get_storage_size() else check_storage)(path, name, item)


def check_storage(path: str | Path, name: str, item: h5py.Dataset) -> None:
    """Refuse a dataset whose pixels lie elsewhere, or whose chunks or filters are absurd."""
    where = f"dataset {name}"
    if item.is_virtual or item.external:
        raise FrameError(f"{path}, {where}: its pixels lie in other files, which are not followed; copy them in")
    if item.chunks:
        frame_bytes = math.prod(item.shape[-2:]) * item.dtype.itemsize
        chunk_bytes = math.prod(item.chunks) * item.dtype.itemsize
        check_piece(path, where, chunk_bytes, frame_bytes)
        if item.id.get_storage_size() > item.id.get_num_chunks() * (chunk_bytes * _GROWTH + _HEADER):
            raise FrameError(f"{path}, {where}: damaged, its chunks are stored in more bytes than they are")
        if sum(kind not in _HARMLESS for kind in _filters(item)) > 1:
            raise FrameError(f"{path}, {where}: is compressed more than once; write it with one filter")


def check_whole(path: str | Path, name: str, item: h5py.Dataset) -> None:
    """Refuse a dataset of which a part was never written: it would silently be read as the fill value."""
    check_storage(path, name, item)
    needed = math.prod(item.shape) * item.dtype.itemsize
    if item.chunks:
        needed = math.prod(math.ceil(n / chunk) for n, chunk in zip(item.shape, item.chunks))
        stored = item.id.get_num_chunks()
        unit = "chunks"
    else:
        stored, unit = item.id.get_storage_size(), "bytes"
    if stored < needed:
        raise FrameError(
            f"{path}, dataset {name}: declares the shape {item.shape}, but only {stored:,} of {needed:,} {unit} were "
            "written; cut it down to the frames that are there"
        )


def _filters(item: h5py.Dataset) -> list[int]:
    """The filters that the chunks of a dataset pass through, in order."""
    plist = item.id.get_create_plist()
    return [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]


def _check_chunks(item: h5py.Dataset, page: int, rows: slice) -> None:
    """Refuse chunks of the rows to be read that would become more than a chunk is."""
    filters, size = _filters(item), math.prod(item.chunks) * item.dtype.itemsize
    most = int(size * _GROWTH) + _HEADER
    if not filters or not needs_look(most, size):
        return
    start, stop, _ = rows.indices(item.shape[-2])
    lead = (page // item.chunks[0] * item.chunks[0],) if item.ndim == 3 else ()
    high, wide = item.chunks[-2:]
    for row in range(start // high * high, stop, high):
        for column in range(0, item.shape[-1], wide):
            skipped, data = item.id.read_direct_chunk((*lead, row, column))
            if len(data) > most:
                raise FrameError(f"a chunk of {size:,} bytes is stored in {len(data):,}")
            if h5py.h5z.FILTER_DEFLATE in filters and not skipped >> filters.index(h5py.h5z.FILTER_DEFLATE) & 1:
                check_inflated(data, size + _HEADER)


def _rows(item: h5py.Dataset, page: int, rows: slice) -> np.ndarray:
    if item.chunks:
        _check_chunks(item, page, rows)
    return rows_of(item, page, rows)


def read_hdf5(path: str, array: str, page: int, rows: slice) -> np.ndarray:
    """Rows of one frame; of a chunked dataset the chunks that hold them are read and no others."""
    with h5py.File(path, "r") as file:
        item = file[array]
        return _rows(item, page, rows)


def mask_hdf5(path: str, array: str, rows: slice) -> np.ndarray | None:
    """Rows of the mask beside a dataset, bool, or None."""
    with h5py.File(path, "r") as file:
        name = f"{array.rpartition('/')[0]}/{MASK}"
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            return None
        _check_mask(path, name, file[name])
        if not file[name].id.get_storage_size():
            return np.zeros(file[name].shape, bool)[rows]
        return _rows(file[name], 0, rows) != 0
