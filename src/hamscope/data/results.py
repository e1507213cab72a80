"""The results contract: what the network saw in every frame, a row a frame, in one HDF5 file.

The report needs nothing but this file.  Per-class columns follow the order of the root's `classes`.  The root's
`content_sha256` is the hash of all values, whatever the layout of the file.

    fractions, confident_fractions   (F, 7)       share of the windows that have a pattern; of them, confident too
    logits_mean, cloud_distance      (F, 7)       means over those windows; distance to the nearest point of the cloud
                                                  of each class, in units of that cloud's sigma (Euclidean)
    probabilities                    (F, 7)       mean over those windows of the calibrated probabilities
    parameter                        (F, 7)       T/J, R/J or p: mean over the windows of each class, NaN without any
    parameter_half68, _half90        (F, 7)       likewise, half widths of its 68 and 90 % intervals for one window;
                                                  infinite where no width can be promised
    n_windows, n_independent         (F,)         windows with a pattern; how many of them do not overlap
    up_fraction                      (F,)         share of pixels that are up
    logits_sample                    (F, 512, 7)  windows on a regular grid, NaN-filled
    preview                          (F, h, w)    the two-level frame, h, w <= 512; 254 masked, 255 outside the frame
    frame                            (F,)         source (file name) and index (page within it)
    temperature, direction           (F,)         kelvin, NaN if unknown; +1 heating, -1 cooling, 0 unknown
    psf_px, adaptive                 (F,)         what the network was told: width of the point-spread function, NaN if
                                                  not known; 1 where the threshold was taken from the frame itself
    /maps/<row>/class, flag          a window each: class index, 255 = no pattern in the window; 1 = confident
    cloud_sample                     (7, 512, 7)  training logits of every class, NaN-filled
    quarantined                      (Q,)         only where Q > 0: source, index and reason of the frames that were
                                                  given up; they have no row
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hamscope.data.screen import ANY, Declared, blocks, damage, open_hdf5, root_attributes, screen, screen_groups
from hamscope.errors import ContractError
from hamscope.models import CLASS_NAMES
from hamscope.provenance import canonical_json, whole_file

SCHEMA = "hamscope-results"
SCHEMA_VERSION = 2
NO_PATTERN = 255
SAMPLE = 512

UNITS = {
    "fractions": "1", "confident_fractions": "1", "logits_mean": "1", "cloud_distance": "sigma of the cloud",
    "probabilities": "1", "parameter": "1", "parameter_half68": "1", "parameter_half90": "1",
    "n_windows": "1", "n_independent": "1", "up_fraction": "1", "logits_sample": "1", "preview": "1",
    "temperature": "K", "direction": "1", "psf_px": "pixel", "adaptive": "1", "cloud_sample": "1",
}  # fmt: skip
BY_CLASS = (
    "fractions", "confident_fractions", "logits_mean", "cloud_distance", "probabilities", "parameter",
    "parameter_half68", "parameter_half90",
)  # fmt: skip
_FLOAT, _INTEGER, _CLASSES = ("f8", "f4"), ("i8", "i4"), len(CLASS_NAMES)
FRAME = np.dtype([("source", h5py.string_dtype()), ("index", "i8")])
QUARANTINED = np.dtype([("source", h5py.string_dtype()), ("index", "i8"), ("reason", h5py.string_dtype())])
_QUARANTINED = {"quarantined": Declared(QUARANTINED, ("Q",), "1")}
PICTURES = {"logits_sample": "f4", "preview": "u1"}  # what is too large to be held for all frames at once
CONTRACT = {
    name: Declared(dtype, shape, UNITS[name], ANY)
    for names, dtype, shape in (
        (BY_CLASS, _FLOAT, ("F", _CLASSES)),
        (("n_windows", "n_independent"), _INTEGER, ("F",)),
        (("up_fraction", "temperature", "psf_px"), _FLOAT, ("F",)),
        (("direction",), ("i1",), ("F",)),
        (("adaptive",), ("u1",), ("F",)),
        (("logits_sample",), _FLOAT, ("F", SAMPLE, _CLASSES)),
        (("preview",), ("u1",), ("F", "h", "w")),
        (("cloud_sample",), _FLOAT, (_CLASSES, SAMPLE, _CLASSES)),
    )
    for name in names
} | {"frame": Declared(FRAME, ("F",), "1")}
MAPS = {"class": Declared("u1", ("R", "C"), "1", ANY), "flag": Declared("u1", ("R", "C"), "1", ANY)}
_MAKE, _AGAIN = "make it with `hamscope classify FRAMES --bundle B --out results.h5`", "classify again"


class Quarantined(NamedTuple):
    """A frame that was given up: `source` and `index` as in `frame`, and the reason, one line."""

    source: str
    index: int
    reason: str


class Frame(NamedTuple):
    """A row of the results: its `columns` by their names, `frame`, and the maps of its windows.

    A preview may be smaller than those of other frames.
    """

    source: str
    index: int
    columns: dict
    class_map: np.ndarray
    flag_map: np.ndarray


@dataclass(frozen=True)
class Results:
    """A results file in memory; arrays as the module says, `attributes` of the root with JSON texts decoded."""

    fractions: np.ndarray
    confident_fractions: np.ndarray
    logits_mean: np.ndarray
    cloud_distance: np.ndarray
    probabilities: np.ndarray
    parameter: np.ndarray
    parameter_half68: np.ndarray
    parameter_half90: np.ndarray
    n_windows: np.ndarray
    n_independent: np.ndarray
    up_fraction: np.ndarray
    logits_sample: np.ndarray
    preview: np.ndarray
    temperature: np.ndarray
    direction: np.ndarray
    psf_px: np.ndarray
    adaptive: np.ndarray
    cloud_sample: np.ndarray
    source: list[str]
    index: np.ndarray
    class_maps: list[np.ndarray]
    flag_maps: list[np.ndarray]
    attributes: dict = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)


def write_results(path: str | Path, results: Results) -> None:
    """Write a results file, whole or not at all."""
    names = [name for name in UNITS if name != "cloud_sample"]
    frames = (
        Frame(source, index, {name: getattr(results, name)[row] for name in names}, classes, flags)
        for row, (source, index, classes, flags) in enumerate(
            zip(results.source, results.index, results.class_maps, results.flag_maps)
        )
    )
    shape = np.shape(results.preview)[1:]
    write_frames(
        path, frames, len(results.source), shape, results.cloud_sample, results.attributes, results.quarantined
    )


def write_frames(
    path: str | Path,
    frames: Iterable[Frame],
    count: int,
    preview: tuple[int, int],
    cloud_sample: np.ndarray,
    attributes: dict,
    quarantined: Iterable[Quarantined] = (),
) -> None:
    """Write a results file from its `count` frames, one after the other, whole or not at all.

    One frame is in memory at a time, and some hundred numbers of each of the others.  `preview` is the shape (h, w)
    that holds the preview of every frame.
    """
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        named, columns = _write_pictures(file, frames, count, preview)
        for name in UNITS.keys() - PICTURES.keys():
            values = np.asarray(cloud_sample) if name == "cloud_sample" else _column(name, columns)
            _create(file, name, values.shape, values.dtype, values)
        for name, table in (("frame", np.array(named, FRAME)),
                            ("quarantined", np.array([tuple(one) for one in quarantined], QUARANTINED))):  # fmt: skip
            if name == "frame" or len(table):
                file.create_dataset(name, data=table).attrs["units"] = "1"
        file.attrs["schema"], file.attrs["schema_version"] = SCHEMA, SCHEMA_VERSION
        file.attrs["classes"] = list(CLASS_NAMES)
        for name, value in attributes.items():
            file.attrs[name] = value if isinstance(value, str | int | float) else canonical_json(value)
        file.attrs["content_sha256"] = _hash_of(file)
        file.flush()
        file.attrs["complete"] = True


def _write_pictures(file: h5py.File, frames: Iterable[Frame], count: int, preview: tuple[int, int]):
    """Write what is large of every frame as it comes; return the names of the frames, and what is small of them."""
    shapes, named, columns = {"logits_sample": (SAMPLE, _CLASSES), "preview": preview}, [], []

    def create_pictures(dtypes):
        for name in PICTURES:
            _create(file, name, (count, *shapes[name]), dtypes[name], chunks=(1, *shapes[name]))

    for row, frame in enumerate(frames):
        if not row:
            create_pictures({name: frame.columns[name].dtype for name in PICTURES})
        file["logits_sample"][row] = frame.columns["logits_sample"]
        file["preview"][row] = _filled(frame.columns["preview"], preview)
        for name, values in (("class", frame.class_map), ("flag", frame.flag_map)):
            _create(file, f"maps/{row:06d}/{name}", values.shape, values.dtype, values)
        named.append((frame.source, frame.index))
        columns.append({name: value for name, value in frame.columns.items() if name not in PICTURES})
    if not named:
        create_pictures(PICTURES)
    return named, columns


def _create(file: h5py.File, name: str, shape, dtype, values=None, chunks=None) -> h5py.Dataset:
    """Make a dataset.  Small tables stay plain; a filter needs chunks, which cost more than they save there."""
    filtered = math.prod(shape) > 4096 or "/" in name
    filters = {"compression": "gzip", "fletcher32": True, "chunks": chunks or True} if filtered else {}
    dataset = file.create_dataset(name, shape, dtype, values, **filters)
    dataset.attrs["units"] = UNITS.get(name, "1")
    return dataset


def _filled(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An image filled up at the right and at the bottom."""
    return np.pad(image, [(0, side - own) for side, own in zip(shape, image.shape)], constant_values=NO_PATTERN)


def _column(name: str, rows: list[dict]) -> np.ndarray:
    """One of the columns as an array; without rows, of the type and shape of the contract."""
    declared = CONTRACT[name]
    dtype = declared.dtype[0] if isinstance(declared.dtype, tuple) else declared.dtype
    return np.array([row[name] for row in rows]) if rows else np.empty((0, *declared.shape[1:]), dtype)


def _hash_of(file: h5py.File) -> str:
    """The content hash of a file that is written, read back block by block."""
    frame = file["frame"][:]
    source = [name.decode() for name in frame["source"]]

    def maps(name):
        return (file[f"maps/{row:06d}/{name}"] for row in range(len(frame)))

    return content_hash(file, source, frame["index"], maps("class"), maps("flag"), read_quarantined(file))


def read_quarantined(file: h5py.File) -> list[Quarantined]:
    """The frames that were given up; none where the file has no such table."""
    if "quarantined" not in file:
        return []
    return [Quarantined(one["source"].decode(), int(one["index"]), one["reason"].decode())
            for one in file["quarantined"][:]]  # fmt: skip


def add_attribute(path: str | Path, name: str, value) -> None:
    """Give a results file that is there one more root attribute, or another value of it; whole or not at all."""
    with whole_file(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            file.attrs[name] = canonical_json(value)


def _hash(digest, name: str, values: np.ndarray | h5py.Dataset) -> None:
    """Add an array to the content hash: its name, shape and type, then its little-endian bytes, block by block."""
    dtype = values.dtype.newbyteorder("<")
    digest.update(f"{name} {values.shape} {dtype.str} ".encode())
    for block in blocks(values):
        digest.update(np.ascontiguousarray(block, dtype).tobytes())


def _hash_frames(digest, source: list[str], index: np.ndarray) -> None:
    digest.update(canonical_json(list(source)).encode())
    _hash(digest, "index", np.asarray(index, np.int64))


def sample_windows(shape: tuple[int, int]) -> np.ndarray:
    """The windows of a map of `shape` whose logits are kept: flat indices of a regular grid of at most 512."""
    step = 1
    while -(-shape[0] // step) * -(-shape[1] // step) > SAMPLE:
        step += 1
    rows, columns = np.arange(0, shape[0], step), np.arange(0, shape[1], step)
    return (rows[:, None] * shape[1] + columns).ravel()


def content_hash(tables, source: list[str], index: np.ndarray, class_maps, flag_maps, quarantined=()) -> str:
    """The hash over all values: `tables` maps the names of UNITS to arrays or datasets, the maps are in row order."""
    digest = hashlib.sha256()
    for name in UNITS:
        _hash(digest, name, tables[name])
    _hash_frames(digest, source, index)
    for row, (classes, flags) in enumerate(zip(class_maps, flag_maps)):
        _hash(digest, f"maps/{row:06d}/class", classes)
        _hash(digest, f"maps/{row:06d}/flag", flags)
    if quarantined:
        digest.update(canonical_json([list(one) for one in quarantined]).encode())
    return digest.hexdigest()


def read_attributes(path: str | Path) -> dict:
    """The root attributes of a complete results file; raises ContractError as `read_results` does."""
    with open_results(path) as (_, attributes):
        return attributes


def read_results(path: str | Path, pictures: bool = True) -> Results:
    """Read a results file; raises ContractError where it is missing, damaged, not ours, not complete or altered.

    Without `pictures` the maps, previews and sampled logits are left out and nothing is hashed: a verdict needs none
    of them, and they are nearly all of the file.
    """
    left_out = () if pictures else tuple(PICTURES)
    with open_results(path) as (file, attributes):
        try:
            values = {name: file[name][: 0 if name in left_out else None] for name in UNITS}
            frame = file["frame"][:]
            rows = range(len(frame) if pictures else 0)
            maps = {name: [file[f"maps/{row:06d}/{name}"][:] for row in rows] for name in MAPS}
            source = [name.decode() for name in frame["source"]]
            quarantined = read_quarantined(file)
        except (KeyError, OSError, ValueError) as error:
            raise ContractError(f"{path}: damaged or not whole ({error}); classify again") from None
    maps = maps["class"], maps["flag"]
    if pictures and content_hash(values, source, frame["index"], *maps, quarantined) != attributes["content_sha256"]:
        raise ContractError(f"{path}: its content does not agree with its content_sha256; classify again")
    return Results(
        **values,
        source=source,
        index=frame["index"],
        class_maps=maps[0],
        flag_maps=maps[1],
        attributes=attributes,
        quarantined=quarantined,
    )


@contextmanager
def open_results(path: str | Path) -> Iterator[tuple[h5py.File, dict]]:
    """A complete results file whose structure is that of the contract, and its root attributes; no data are read.

    Raises ContractError.
    """
    with open_hdf5(path, _MAKE, _AGAIN) as file:
        with damage(path, _AGAIN):
            attributes = _attributes(file, path)
        contract = CONTRACT | (_QUARANTINED if file.id.links.exists(b"quarantined") else {})
        rows = screen(file, path, contract, _AGAIN, also=("maps",))["F"]
        if rows:
            screen_groups(file, path, "maps", rows, MAPS, _AGAIN)
        yield file, attributes


def _attributes(file: h5py.File, path: str | Path) -> dict:
    attributes = root_attributes(file, path)
    if attributes.get("schema") != SCHEMA or attributes.get("schema_version") != SCHEMA_VERSION:
        raise ContractError(f"{path}: is not a results file of this version; give one made by `hamscope classify`")
    if not attributes.get("complete", False):
        raise ContractError(f"{path}: is not complete, its writer was stopped; classify again")
    if not isinstance(attributes.get("content_sha256"), str):
        raise ContractError(f"{path}: its attribute content_sha256 is missing or no text; classify again")
    for name, value in attributes.items():
        if isinstance(value, str) and value[:1] in "[{":
            attributes[name] = json.loads(value)
    attributes["classes"] = list(attributes["classes"])
    return attributes
