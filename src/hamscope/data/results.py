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
    preview                          (F, h, w)    the two-level frame, h, w <= 512, 255 outside the frame
    frame                            (F,)         source (file name) and index (page within it)
    temperature, direction           (F,)         kelvin, NaN if unknown; +1 heating, -1 cooling, 0 unknown
    psf_px, adaptive                 (F,)         what the network was told: width of the point-spread function, NaN if
                                                  not known; 1 where the threshold was taken from the frame itself
    /maps/<row>/class, flag          a window each: class index, 255 = no pattern in the window; 1 = confident
    cloud_sample                     (7, 512, 7)  training logits of every class, NaN-filled
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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


@dataclass(frozen=True)
class Results:
    """A results file in memory; arrays as the module says, `attributes` of the root with JSON texts decoded.

    To be written, the two kinds of maps may be any iterables: they are gone through once.
    """

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


def write_results(path: str | Path, results: Results) -> None:
    """Write a results file, whole or not at all."""
    digest = hashlib.sha256()
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:

        def write(name, values, units):
            # Small tables stay plain; a filter needs chunks, which cost more than they save there.
            filters = {"compression": "gzip", "fletcher32": True} if values.size > 4096 or "/" in name else {}
            file.create_dataset(name, data=values, **filters).attrs["units"] = units
            _hash(digest, name, values)

        for name, units in UNITS.items():
            write(name, np.asarray(getattr(results, name)), units)
        frame = np.empty(len(results.source), FRAME)
        frame["source"], frame["index"] = results.source, results.index
        file.create_dataset("frame", data=frame).attrs["units"] = "1"
        _hash_frames(digest, results.source, frame["index"])
        for row, (classes, flags) in enumerate(zip(results.class_maps, results.flag_maps)):
            write(f"maps/{row:06d}/class", classes, "1")
            write(f"maps/{row:06d}/flag", flags, "1")
        file.attrs["schema"], file.attrs["schema_version"] = SCHEMA, SCHEMA_VERSION
        file.attrs["classes"] = list(CLASS_NAMES)
        for name, value in results.attributes.items():
            file.attrs[name] = value if isinstance(value, str | int | float) else canonical_json(value)
        file.attrs["content_sha256"] = digest.hexdigest()
        file.flush()
        file.attrs["complete"] = True


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


def content_hash(tables, source: list[str], index: np.ndarray, class_maps, flag_maps) -> str:
    """The hash over all values: `tables` maps the names of UNITS to arrays or datasets, the maps are in row order."""
    digest = hashlib.sha256()
    for name in UNITS:
        _hash(digest, name, tables[name])
    _hash_frames(digest, source, index)
    for row, (classes, flags) in enumerate(zip(class_maps, flag_maps)):
        _hash(digest, f"maps/{row:06d}/class", classes)
        _hash(digest, f"maps/{row:06d}/flag", flags)
    return digest.hexdigest()


def read_attributes(path: str | Path) -> dict:
    """The root attributes of a complete results file; raises ContractError as `read_results` does."""
    with open_results(path) as (_, attributes):
        return attributes


def read_results(path: str | Path) -> Results:
    """Read a results file; raises ContractError where it is missing, damaged, not ours, not complete or altered."""
    with open_results(path) as (file, attributes):
        try:
            values = {name: file[name][:] for name in UNITS}
            frame = file["frame"][:]
            rows = range(len(frame))
            maps = {name: [file[f"maps/{row:06d}/{name}"][:] for row in rows] for name in MAPS}
            source = [name.decode() for name in frame["source"]]
        except (KeyError, OSError, ValueError) as error:
            raise ContractError(f"{path}: damaged or not whole ({error}); classify again") from None
    if content_hash(values, source, frame["index"], maps["class"], maps["flag"]) != attributes["content_sha256"]:
        raise ContractError(f"{path}: its content does not agree with its content_sha256; classify again")
    return Results(
        **values,
        source=source,
        index=frame["index"],
        class_maps=maps["class"],
        flag_maps=maps["flag"],
        attributes=attributes,
    )


@contextmanager
def open_results(path: str | Path) -> Iterator[tuple[h5py.File, dict]]:
    """A complete results file whose structure is that of the contract, and its root attributes; no data are read.

    Raises ContractError.
    """
    with open_hdf5(path, _MAKE, _AGAIN) as file:
        with damage(path, _AGAIN):
            attributes = _attributes(file, path)
        rows = screen(file, path, CONTRACT, _AGAIN, also=("maps",))["F"]
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
