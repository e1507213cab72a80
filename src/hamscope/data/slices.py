"""The slices contract: simulated images with what is known of each, in one HDF5 file.

    /images                 uint8 0/1 (N, L, L), 1 = spin up = metal; one image a chunk, gzip + fletcher32
    /model, /parameter ...  one row an image: see COLUMNS
    /avalanches             one row a field sweep at T = 0: see AVALANCHES
    root attributes         schema, schema_version, config, config_sha256, seed, software, content_sha256, complete

`complete` is written last.  `content_sha256` does not depend on the layout of the file, so the parallel and the
serial HDF5 library agree on it.  The file can be made by all ranks of a parallel HDF5 at once: `create` and `finish`
are collective there.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hamscope.data.screen import Declared, blocks, damage, open_hdf5, root_attributes, screen
from hamscope.errors import ContractError
from hamscope.models import AVALANCHE_BINS, CLASS_NAMES
from hamscope.provenance import canonical_json, sha256_text

SCHEMA = "hamscope-slices"
SCHEMA_VERSION = 2
_MODEL = h5py.enum_dtype({name: k for k, name in enumerate(CLASS_NAMES)}, basetype="u1")


class Column(NamedTuple):
    """A one-dimensional dataset with an entry for every image."""

    dtype: object
    units: str
    description: str


COLUMNS = {
    "model": Column(_MODEL, "1", "class of Table I"),
    "parameter": Column("f8", "J/k_B (C), J (RF), 1 (P)", "temperature T, disorder width R or probability p"),
    "field": Column("f8", "J", "uniform field H at which the state was taken; 0 without one"),
    "direction": Column("i1", "1", "of the field sweep: +1 upwards, -1 downwards, 0 without one"),
    "magnetization": Column("f8", "1 (per site)", "of the image, -1 to 1"),
    "lattice_magnetization": Column("f8", "1 (per site)", "of the whole lattice, -1 to 1"),
    "lattice_energy": Column("f8", "J (per site)", "exchange energy of the whole lattice, -sum over bonds s_i s_j / N"),
    "plane_axis": Column("i1", "1", "axis normal to the slice: 0 = z (open), 1 = y, 2 = x; 1 for 2D lattices"),
    "plane_position": Column("i4", "lattice spacings", "coordinate of the slice on that axis"),
    "plane_surface": Column("u1", "1", "1 where the slice is a free surface"),
    "lattice": Column("i8", "1", "independent sample within its class"),
    "sweep": Column("i8", "Monte Carlo sweeps", "since the start of the chain; 0 without one"),
}


AVALANCHES = np.dtype([("model", _MODEL), ("lattice", "<i8"), ("parameter", "<f8"), ("direction", "i1"),
                       ("counts", "<i8", (AVALANCHE_BINS,))])  # fmt: skip

CONTRACT = {
    "images": Declared("u1", ("N", "L", "L"), "1", chunk=(1, "L", "L")),
    **{name: Declared(column.dtype, ("N",), column.units) for name, column in COLUMNS.items()},
    "avalanches": Declared(AVALANCHES, ("A",), "1"),
}
_MAKE, _AGAIN = "make it with `hamscope simulate CONFIG --out slices.h5`", "simulate again"


@dataclass(frozen=True)
class Slices:
    """A slices file in memory.

    `images` (N, L, L) uint8, `columns` name -> (N,), `avalanches` (A,) of type AVALANCHES, `attributes` of the root.
    """

    images: np.ndarray
    columns: dict[str, np.ndarray]
    avalanches: np.ndarray
    attributes: dict

    @property
    def content_sha256(self) -> str:
        return self.attributes["content_sha256"]


def create(file: h5py.File, n_images: int, image_size: int, n_sweeps: int = 0) -> None:
    """Make the empty datasets of the contract; collective where `file` is open on several ranks."""
    images = file.create_dataset(
        "images", (n_images, image_size, image_size), "u1", chunks=(1, image_size, image_size),
        compression="gzip", compression_opts=4, fletcher32=True,
    )  # fmt: skip
    images.attrs["units"] = "1"
    images.attrs["description"] = "two-level image: 1 = spin up = metal, 0 = spin down = insulator"
    for name, column in COLUMNS.items():
        dataset = file.create_dataset(name, (n_images,), column.dtype)
        dataset.attrs["units"] = column.units
        dataset.attrs["description"] = column.description
    avalanches = file.create_dataset("avalanches", (n_sweeps,), AVALANCHES)
    avalanches.attrs["units"] = "1"
    avalanches.attrs["description"] = "avalanches of each field sweep at T = 0: bin b counts sizes 2^b to 2^(b+1) - 1"


def finish(file: h5py.File, config_json: str, seed: int, software: dict, content_sha256: str) -> None:
    """Write the root attributes, `complete` last; collective where `file` is open on several ranks."""
    file.attrs["schema"] = SCHEMA
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["config"] = config_json
    file.attrs["config_sha256"] = sha256_text(config_json)
    file.attrs["seed"] = seed
    file.attrs["software"] = canonical_json(software)
    file.attrs["content_sha256"] = content_sha256
    file.flush()
    file.attrs["complete"] = True


def image_digests(images: np.ndarray) -> np.ndarray:
    """SHA-256 of each image, shape (N, 32) uint8."""
    digests = [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def content_hash(
    digests: Iterable[np.ndarray],
    columns: Mapping[str, np.ndarray | h5py.Dataset],
    avalanches: np.ndarray | h5py.Dataset,
) -> str:
    """SHA-256 over the digests of all images in order, every column (name, little-endian bytes), and the avalanches.

    `digests` (N, 32), or an iterable of parts of it; the tables may be datasets, which are read in blocks.
    """
    total = hashlib.sha256()
    for part in digests:
        total.update(np.ascontiguousarray(part))
    for name in sorted(COLUMNS):
        dtype = "u1" if name == "model" else COLUMNS[name].dtype
        total.update(name.encode())
        for values in blocks(columns[name]):
            total.update(np.ascontiguousarray(values).astype(np.dtype(dtype).newbyteorder("<")).tobytes())
    total.update(b"avalanches")
    for values in blocks(avalanches):
        total.update(np.ascontiguousarray(values, AVALANCHES).tobytes())
    return total.hexdigest()


def read_attributes(path: str | Path) -> dict:
    """The root attributes of a complete slices file; raises ContractError as `read_slices` does."""
    with open_slices(path) as (_, attributes):
        return attributes


def read_slices(path: str | Path) -> Slices:
    """Read a slices file and check it against the contract and against its own content hash.

    Raises
    ------
    ContractError
        The file is missing, truncated, not ours, not complete, damaged, points outside itself, or does not hold what
        its hash says.
    """
    with open_slices(path) as (file, attributes):
        try:
            images = file["images"][:]
            columns = {name: file[name][:] for name in COLUMNS}
            avalanches = file["avalanches"][:].astype(AVALANCHES)
        except (OSError, ValueError) as error:
            raise ContractError(f"{path}: damaged, a checksum does not agree ({error}); simulate again") from None
    if content_hash(image_digests(images), columns, avalanches) != attributes["content_sha256"]:
        raise ContractError(f"{path}: its content does not agree with its content_sha256; simulate again")
    return Slices(images, columns, avalanches, attributes)


@contextmanager
def open_slices(path: str | Path) -> Iterator[tuple[h5py.File, dict]]:
    """A complete slices file whose structure is that of the contract, and its root attributes; no data are read.

    Raises ContractError.
    """
    with open_hdf5(path, _MAKE, _AGAIN) as file:
        with damage(path, _AGAIN):
            attributes = _attributes(file, path)
        screen(file, path, CONTRACT, _AGAIN)
        yield file, attributes


def _attributes(file: h5py.File, path: str | Path) -> dict:
    attributes = root_attributes(file, path)
    if attributes.get("schema") != SCHEMA:
        raise ContractError(
            f"{path}: is not a slices file (no schema = {SCHEMA}); give one made by `hamscope simulate`"
        )
    if attributes.get("schema_version") != SCHEMA_VERSION:
        raise ContractError(
            f"{path}: schema_version = {attributes.get('schema_version')}, this hamscope reads {SCHEMA_VERSION}; "
            "simulate again"
        )
    if not attributes.get("complete", False):
        raise ContractError(f"{path}: is not complete, its writer was stopped; simulate again")
    for name in ("config", "config_sha256", "software", "content_sha256"):
        if not isinstance(attributes.get(name), str):
            raise ContractError(f"{path}: its attribute {name} is missing or no text; simulate again")
    attributes["software"] = json.loads(attributes["software"])
    return attributes
