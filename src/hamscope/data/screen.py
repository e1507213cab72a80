"""The structure of an HDF5 file against a contract, before any of its data is read.

An HDF5 file can point outside itself (external and soft links, external storage, virtual datasets), name filters that
are loaded from elsewhere, and declare far more than it holds.  What a contract does not name is never opened here, so
neither depth, nor cycles, nor the number of objects cost anything.  Every refusal is one line.

A contract maps the name of each dataset to `Declared`.  In its shapes a letter stands for a size that the file
chooses, the same wherever the letter stands: `screen` gives what they are.
"""

import itertools
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5i, h5l, h5o, h5s, h5t, h5z

from hamscope.errors import ContractError

ANY = "any"  # layout of a dataset that may be contiguous or chunked
FILTERS = (h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32)  # of every chunked dataset, in this order
MAX_CHUNK = 2**24  # bytes: an image of 4096 x 4096
MAX_TEXT = 2**20  # characters of a text attribute; a resolved config has about a thousand
MAX_ATTRIBUTES, MAX_ATTRIBUTE_BYTES = 32, 2**12  # of one object; of one value (of a text: its reference)
_CHECKSUM = 4  # bytes of a fletcher32 behind a stored chunk
_INDEX_ENTRY = 12  # bytes in the file that a chunk takes at least: its address and length
# What h5py raises on damaged files.
DAMAGE = (OSError, ValueError, KeyError, RuntimeError, TypeError, OverflowError, MemoryError, zlib.error)
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link to another file"}
_TYPES = (h5t.TypeIntegerID, h5t.TypeFloatID, h5t.TypeEnumID, h5t.TypeStringID)


class Declared(NamedTuple):
    """A dataset of a contract.

    `dtype` is a numpy type, or a tuple of those allowed; `shape` of numbers and letters; `chunk` is None for a
    contiguous dataset, the shape of a chunk, or ANY.
    """

    dtype: object
    shape: tuple
    units: str
    chunk: tuple | str | None = None


def regular_file(path: str | Path, way_out: str) -> int:
    """The size of a file in bytes; ContractError where it is none, empty, or may not be read.

    A FIFO, a device or a folder is refused without opening it, since that could wait for ever.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise ContractError(f"{path}: {'no such file' if missing else reason}; {way_out}") from None
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise ContractError(f"{path}: is {kind} and no regular file; {way_out}")
    if not os.access(path, os.R_OK):
        raise ContractError(f"{path}: no permission to read it; ask its owner")
    if status.st_size == 0:
        raise ContractError(f"{path}: is empty, so not HDF5; {way_out}")
    return status.st_size


def open_hdf5(path: str | Path, way_out: str, again: str) -> h5py.File:
    """Open an HDF5 file to read; its root attributes are safe to read, its datasets are not screened yet.

    `way_out` says how to make one where there is none, `again` how to make it again.
    """
    regular_file(path, way_out)
    try:
        file = h5py.File(path, "r")
    except DAMAGE:
        raise ContractError(f"{path}: is not HDF5, or truncated; {again}") from None
    try:
        with damage(path, again):
            _screen_attributes(file.id, "the root", path)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def damage(path: str | Path, again: str):
    """Turn what h5py raises on a damaged file into one line of ContractError."""
    try:
        yield
    except MemoryError:
        raise ContractError(f"{path}: asks for more memory than a file like this needs; {again}") from None
    except DAMAGE as error:
        raise ContractError(f"{path}: damaged ({one_line(error)}); {again}") from None


def one_line(error: Exception) -> str:
    """An error in words, on one line and not too long."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def screen(file: h5py.File, path: str | Path, contract: dict[str, Declared], again: str, also=()) -> dict[str, int]:
    """Hold the file against the contract without reading data: the size of every letter of the shapes.

    Checked: which members there are, links, layout, external storage, filters, type, shape, declared against stored
    size, every chunk there, attributes, units.  `also` names members that the root may have, the caller screens them.

    Raises
    ------
    ContractError
        The first thing that is not as declared.
    """
    sizes, seen = {}, {}
    stored = os.stat(path).st_size
    with damage(path, again):
        members = _members(file.id, len(contract) + len(also), "the root", path)
        missing, extra = sorted({*contract} - members), sorted(members - {*contract, *also})
        if missing:
            raise ContractError(f"{path}: has no dataset {', '.join(missing)}; {again}")
        if extra:
            raise ContractError(f"{path}: {extra[0]!r} is not in the contract; {again}")
        for name, declared in contract.items():
            screen_dataset(file.id, name, declared, sizes, seen, path, stored)
    return sizes


def screen_groups(
    file: h5py.File, path: str | Path, name: str, count: int, contract: dict[str, Declared], again: str
) -> None:
    """Screen a group of `count` groups 000000, 000001, ..., each with the datasets of the contract, sizes its own."""
    seen, stored = {}, os.stat(path).st_size
    with damage(path, again):
        outer = open_member(file.id, name, h5i.GROUP, name, path)
        expected = {f"{row:06d}" for row in range(count)}
        if _members(outer, count, name, path) != expected:
            raise ContractError(f"{path}: {name} does not hold one group a row; {again}")
        for row in sorted(expected):
            where = f"{name}/{row}"
            inner = open_member(outer, row, h5i.GROUP, where, path)
            if _members(inner, len(contract), where, path) != set(contract):
                raise ContractError(f"{path}: {where} does not hold {', '.join(contract)} alone; {again}")
            sizes = {}
            for dataset, declared in contract.items():
                screen_dataset(inner, dataset, declared, sizes, seen, path, stored, f"{where}/{dataset}")


def _members(group, most: int, where: str, path) -> set[str]:
    """Names of the members of a group, refused as soon as there are more than `most` of them."""
    names = set()

    def count(name, *_):
        names.add(name.decode("utf-8", "replace"))
        return True if len(names) > most + 1 else None

    group.links.iterate(count, order=h5py.h5.ITER_NATIVE)
    if len(names) > most + 1:
        raise ContractError(f"{path}: {where} holds more than the {most} members of the contract")
    return names


def open_member(group, name: str, kind: int, where: str, path):
    """Open one member of a group as what it has to be, following no link that is not a hard one."""
    if name.encode() not in group:
        raise ContractError(f"{path}: has no {where}")
    link = group.links.get_info(name.encode())
    if link.type != h5l.TYPE_HARD:
        what = _LINKS.get(link.type, "a link of a foreign type")
        raise ContractError(f"{path}: {where} is {what}, which is not followed; copy its data into the file")
    member = h5o.open(group, name.encode())
    if h5i.get_type(member) != kind:
        raise ContractError(f"{path}: {where} is no {'group' if kind == h5i.GROUP else 'dataset'}")
    return member


def screen_dataset(group, name, declared: Declared, sizes: dict, seen: dict, path, stored: int, where=None) -> None:
    """Screen one dataset; adds to `sizes` what its letters are, to `seen` where its header is in the file."""
    where = where or name
    dataset = open_member(group, name, h5i.DATASET, where, path)
    address = h5o.get_info(dataset).addr
    if address in seen:
        raise ContractError(f"{path}: {where} and {seen[address]} are the same dataset under two names")
    seen[address] = where
    properties = dataset.get_create_plist()
    # In this order: the layout of a virtual dataset is looked at before its shape, which may open its sources.
    layout = properties.get_layout()
    if layout not in (h5d.CONTIGUOUS, h5d.CHUNKED):
        what = {h5d.COMPACT: "compact", h5d.VIRTUAL: "virtual, its data lie in other files"}.get(
            layout, "of a new kind"
        )
        raise ContractError(f"{path}: {where} is {what}; copy its data into the file")
    if properties.get_external_count():
        raise ContractError(f"{path}: {where} has external storage, its data lie in another file; copy them in")
    _screen_filters(properties, layout, where, path)
    expected = declared.dtype if isinstance(declared.dtype, tuple) else (declared.dtype,)
    if not any(_same_type(dataset.get_type(), np.dtype(dtype)) for dtype in expected):
        raise ContractError(f"{path}: {where} is not of the type {_type_name(expected)}")
    shape = _screen_shape(dataset, declared, sizes, where, path)
    if (layout == h5d.CHUNKED) != (declared.chunk is not None) and declared.chunk != ANY:
        raise ContractError(f"{path}: {where} is {'' if layout == h5d.CHUNKED else 'not '}chunked, unlike the contract")
    if layout == h5d.CHUNKED:
        _screen_chunks(dataset, properties.get_chunk(), shape, declared, sizes, where, path, stored)
    else:
        # A text takes more in the file than the reference to it does in memory.
        size, held = math.prod(shape) * dataset.get_type().get_size(), dataset.get_storage_size()
        if held > stored or held < size or (held > size and not _holds_text(dataset.get_type())):
            raise ContractError(f"{path}: {where} declares {size} bytes and holds {held}, in a file of {stored}")
    _screen_attributes(dataset, where, path)
    if h5a.exists(dataset, b"units") is False or _text(dataset, "units") != declared.units:
        raise ContractError(f"{path}: {where} has not the units {declared.units!r}")


def _screen_filters(properties, layout, where: str, path) -> None:
    """Deflate and then fletcher32 for chunks, nothing else anywhere."""
    codes = tuple(properties.get_filter(k)[0] for k in range(properties.get_nfilters()))
    expected = FILTERS if layout == h5d.CHUNKED else ()
    if codes != expected:
        raise ContractError(f"{path}: {where} has the filters {codes}, not {expected} (gzip and fletcher32)")


def _same_type(stored, dtype: np.dtype) -> bool:
    """Whether a type in the file is exactly the one that h5py writes for `dtype`.  Bounded by the depth of `dtype`."""
    if h5py.check_string_dtype(dtype) is not None:
        return isinstance(stored, h5t.TypeStringID) and stored.is_variable_str()
    if dtype.names and any(h5py.check_string_dtype(dtype[name]) for name in dtype.names):
        return (
            isinstance(stored, h5t.TypeCompoundID)
            and stored.get_nmembers() == len(dtype.names)
            and all(
                stored.get_member_name(k) == name.encode() and _same_type(stored.get_member_type(k), dtype[name])
                for k, name in enumerate(dtype.names)
            )
        )
    return stored == h5t.py_create(dtype, logical=True)


def _holds_text(stored) -> bool:
    return isinstance(stored, h5t.TypeCompoundID) and any(
        isinstance(stored.get_member_type(k), h5t.TypeStringID) for k in range(stored.get_nmembers())
    )


def _type_name(dtypes: tuple) -> str:
    names = [h5py.check_enum_dtype(np.dtype(d)) for d in dtypes]
    return " or ".join(f"enum {', '.join(n)}" if n else str(np.dtype(d)) for n, d in zip(names, dtypes))


def _screen_shape(dataset, declared: Declared, sizes: dict, where: str, path) -> tuple[int, ...]:
    space = dataset.get_space()
    shape = space.get_simple_extent_dims() if space.get_simple_extent_type() == h5s.SIMPLE else ()
    fits = len(shape) == len(declared.shape)
    for given, symbol in zip(shape, declared.shape):
        fits = fits and given == (sizes.setdefault(symbol, given) if isinstance(symbol, str) else symbol)
    if not fits:
        wanted = tuple(sizes.get(symbol, symbol) for symbol in declared.shape)
        raise ContractError(f"{path}: {where} has the shape {shape}, not {wanted}")
    return shape


def _screen_chunks(dataset, chunk, shape, declared: Declared, sizes: dict, where: str, path, stored: int) -> None:
    """Chunks of the declared shape and a bearable size, as many in the file as the shape needs."""
    if declared.chunk != ANY:
        wanted = tuple(sizes.get(symbol, symbol) for symbol in declared.chunk)
        if chunk != wanted:
            raise ContractError(f"{path}: {where} has chunks of {chunk}, not {wanted}")
    size = math.prod(chunk) * dataset.get_type().get_size()
    if size > MAX_CHUNK:
        raise ContractError(f"{path}: {where} has chunks of {size} bytes; at most {MAX_CHUNK} are read")
    count = math.prod(-(-side // step) for side, step in zip(shape, chunk))
    if count * _INDEX_ENTRY > stored:
        raise ContractError(f"{path}: {where} declares {count} chunks, more than a file of {stored} bytes holds")
    there = dataset.get_num_chunks()
    if there != count or dataset.get_storage_size() > stored:
        raise ContractError(
            f"{path}: {where} holds {there} chunks of {dataset.get_storage_size()} bytes, {count} are declared, "
            f"in a file of {stored} bytes"
        )


def _screen_attributes(owner, where: str, path) -> None:
    """Few and small attributes, each a number or a text or a short list of them, so that reading them is safe."""
    count = h5o.get_info(owner).num_attrs
    if count > MAX_ATTRIBUTES:
        raise ContractError(f"{path}: {where} has {count} attributes; at most {MAX_ATTRIBUTES} are read")
    for index in range(count):
        attribute = h5a.open(owner, index=index)
        name = attribute.name.decode("utf-8", "replace")[:80]
        space = attribute.get_space()
        if not isinstance(attribute.get_type(), _TYPES) or space.get_simple_extent_type() == h5s.NULL:
            raise ContractError(f"{path}: the attribute {name!r} of {where} is neither a number nor a text")
        if attribute.get_storage_size() > MAX_ATTRIBUTE_BYTES or space.get_simple_extent_ndims() > 1:
            raise ContractError(f"{path}: the attribute {name!r} of {where} is larger than {MAX_ATTRIBUTE_BYTES} bytes")


def root_attributes(file: h5py.File, path: str | Path) -> dict:
    """The root attributes, whose texts are all of a bearable length."""
    attributes = dict(file.attrs)
    for name, value in attributes.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise ContractError(
                f"{path}: its attribute {name!r} has {len(value)} characters; at most {MAX_TEXT} are read"
            )
    return attributes


def _text(dataset, name: str):
    return h5py.Dataset(dataset).attrs.get(name)


def screen_chunk_data(dataset: h5py.Dataset, where: str, offsets) -> str | None:
    """What is wrong with the stored bytes of the chunks at `offsets`, or None.

    HDF5 inflates a chunk to whatever size it has.  Here it is inflated to its declared size and no further.
    """
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    for offset in offsets:
        skipped, raw = dataset.id.read_direct_chunk(offset)
        inflater = zlib.decompressobj()
        try:
            length = len(inflater.decompress(raw[:-_CHECKSUM], size + 1))
        except zlib.error as error:
            return f"{where}: the chunk at {offset} is damaged ({one_line(error)})"
        if skipped or length != size or not inflater.eof or inflater.unused_data:
            return f"{where}: the chunk at {offset} does not inflate to exactly the {size} bytes of a chunk"
    return None


def chunk_offsets(dataset: h5py.Dataset) -> Iterator[tuple[int, ...]]:
    """Where the chunks of a dataset begin."""
    return itertools.product(*(range(0, side, step) for side, step in zip(dataset.shape, dataset.chunks)))


def row_blocks(rows: np.ndarray | h5py.Dataset) -> Iterator[slice]:
    """The rows of an array or a dataset cut into blocks of about 4 MB."""
    step = max(1, 2**22 // max(1, rows.dtype.itemsize * math.prod(rows.shape[1:])))
    return (slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


def blocks(rows: np.ndarray | h5py.Dataset) -> Iterator[np.ndarray]:
    """The rows of an array or a dataset, read in blocks of about 4 MB."""
    return (rows[block] for block in row_blocks(rows))
