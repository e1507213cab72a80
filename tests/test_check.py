"""`hamscope check` and the readers refuse what is not as the contract says, each hostile kind made for real."""

import os
import shutil
import zlib

import h5py
import numpy as np
import pytest
from checked import deep, fletcher32, refused, rehash, simulate_small
from engines import hamscope

from hamscope import check, child
from hamscope.config import Simulate
from hamscope.data import slices
from hamscope.errors import ContractError
from hamscope.models import CLASS_NAMES
from hamscope.provenance import section_json

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small slices file as the simulation writes it."""
    return simulate_small(tmp_path_factory.mktemp("good"))


@pytest.fixture
def copy(good, tmp_path):
    """A copy of it to be spoilt."""
    return shutil.copy(good, tmp_path / "copy.h5")


def replace(path, name, make) -> None:
    """Put what `make(file, name, old)` makes in the place of a dataset, with its units."""
    with h5py.File(path, "a") as file:
        old = file[name][:]
        del file[name]
        make(file, name, old)
        hard = isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset)
        if hard and "units" not in file[name].attrs:
            file[name].attrs["units"] = slices.CONTRACT[name].units


def external_link(file, name, old, to="secret.h5"):
    file[name] = h5py.ExternalLink(to, name)


def link_upwards(file, name, old):
    external_link(file, name, old, "../secret.h5")


def soft_link(file, name, old):
    file[name] = h5py.SoftLink("/lattice")


def external_storage(file, name, old):
    raw = os.path.join(os.path.dirname(file.filename), "secret.raw")
    old.tofile(raw)
    file.create_dataset(name, old.shape, old.dtype, external=[("secret.raw", 0, old.nbytes)])


def virtual(file, name, old):
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[:] = h5py.VirtualSource("secret.h5", name, old.shape)
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize(
    "make, reason",
    [
        (external_link, "is an external link to another file"),
        (link_upwards, "is an external link to another file"),
        (soft_link, "is a soft link"),
        (external_storage, "has external storage"),
        (virtual, "is virtual, its data lie in other files"),
    ],
)
def test_pointers_out_of_the_file_are_not_followed(good, copy, monkeypatch, make, reason):
    """The five kinds in a file that h5py itself reads as if all were well; the reader of `train` refuses them too.

    The file pointed to is there and holds the right data, so that nothing but the pointer is wrong.  Seen to fail, each
    its own kind: without the look at the type of a link, at the external count, at the layout.
    """
    monkeypatch.chdir(copy.parent)
    for name in ("secret.h5", "../secret.h5"):
        shutil.copy(good, copy.parent / name)
    replace(copy, "sweep", make)
    refused(copy, f"sweep {reason}")
    with pytest.raises(ContractError, match=reason):
        slices.read_slices(copy)


def with_filters(**filters):
    def make(file, name, old):
        file.create_dataset(name, data=old, chunks=(1, *old.shape[1:]), **filters)

    return make


def foreign_filter(file, name, old):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, *old.shape[1:]))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # Zstandard, a plugin
    properties.set_fletcher32()
    space = h5py.h5s.create_simple(old.shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_U8LE, space, properties)


@pytest.mark.parametrize(
    "make",
    [
        with_filters(compression="lzf", fletcher32=True),
        with_filters(scaleoffset=0),
        with_filters(compression="gzip", shuffle=True, fletcher32=True),
        with_filters(compression="gzip"),
        with_filters(),
        foreign_filter,
    ],
    ids=["lzf", "scaleoffset", "shuffle", "no checksum", "none", "plugin"],
)
def test_filters_other_than_those_of_the_contract_are_refused(copy, make):
    """Seen to fail without the look at the filters: all but the plugin are read and called good."""
    replace(copy, "images", make)
    refused(copy, "images has the filters")
    with pytest.raises(ContractError, match="has the filters"):
        slices.read_slices(copy)


def huge_and_empty(file, name, old):
    shape = (10**12, 16, 16)
    file.create_dataset(name, shape, "u1", chunks=(1, 16, 16), compression="gzip", fletcher32=True)


def wide_chunks(file, name, old):
    side = 2**15
    file.create_dataset(name, (1, side, side), "u1", chunks=(1, side, side), compression="gzip", fletcher32=True)


def chunk_bomb(file, name, old):
    """One chunk holds 256 MB of zeros behind its first image, deflated to 260 kB."""
    filters = {"compression": "gzip", "compression_opts": 4, "fletcher32": True}
    images = file.create_dataset(name, data=old, chunks=(1, 16, 16), **filters)
    bomb = zlib.compress(old[3].tobytes() + bytes(2**28), 9)
    images.id.write_direct_chunk((3, 0, 0), bomb + fletcher32(bomb).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "make, reason",
    [
        (huge_and_empty, "declares 1000000000000 chunks, more than a file of"),
        (wide_chunks, "has chunks of 1073741824 bytes"),
        (chunk_bomb, "does not inflate to exactly the 256 bytes"),
    ],
)
def test_bombs_are_refused_in_little_memory(copy, make, reason):
    """The child needs less than 64 MB above its start, a limit that the system holds it to.

    Seen to fail without the bounded inflation: HDF5 inflates the bomb, and runs out of memory or calls the file good.
    """
    replace(copy, "images", make)
    rehash(copy) if make is chunk_bomb else None
    outcome = refused(copy, reason, 64 * MEGABYTE, lambda path, *limits: child.check([path], *limits)[0])
    assert outcome.peak < 160 * MEGABYTE


def test_a_large_file_is_read_in_bounded_memory(tmp_path):
    """A good file of 100 MB of pixels is read to its end by a child that may take 48 MB more than it starts with.

    Seen to fail with the images read at once.
    """
    n, side = 1600, 256
    images, known = np.zeros((n, side, side), np.uint8), {"parameter": 0.5, "magnetization": -1, "plane_axis": 1}
    known |= {"lattice": np.arange(n), "model": CLASS_NAMES.index("P*")}
    config = Simulate.model_validate({"P*": {"lattices": n, "probability": [0, 1]}, "image_size": side, "seed": 1})
    with h5py.File(tmp_path / "large.h5", "w") as file:
        slices.create(file, n, side)
        file["images"][:] = images
        for name in slices.COLUMNS:
            file[name][:] = known.get(name, 0)
        content = slices.content_hash(slices.image_digests(images), file, file["avalanches"])
        slices.finish(file, section_json(config), 1, {"hamscope": "0"}, content)
    (outcome,) = child.check([tmp_path / "large.h5"], memory=48 * MEGABYTE)
    assert outcome.verdict == "good", outcome


def cycle(file, name, old):
    file[name] = file["/"]


def twice(file, name, old):
    file[name] = file["lattice"]


def references(file, name, old):
    file.create_dataset(name, data=np.full(len(old), file["images"].ref, h5py.ref_dtype), dtype=h5py.ref_dtype)


def texts(file, name, old):
    file.create_dataset(name, data=["x" * 1000] * len(old), dtype=h5py.string_dtype())


def sequences(file, name, old):
    file.create_dataset(name, (len(old),), h5py.vlen_dtype("i8"))


def big_endian(file, name, old):
    file.create_dataset(name, data=old.astype(">i8"))


def two_dimensional(file, name, old):
    file.create_dataset(name, data=old[:, None])


def too_long(file, name, old):
    file.create_dataset(name, data=np.append(old, old))


def unwritten(file, name, old):
    file.create_dataset(name, old.shape, old.dtype)


def compact(file, name, old):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(old.shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_I64LE, space, properties)


@pytest.mark.parametrize(
    "make, reason",
    [
        (deep, "is no dataset"), (cycle, "is no dataset"), (twice, "are the same dataset under two names"),
        (references, "is not of the type int64"), (texts, "is not of the type int64"),
        (sequences, "is not of the type int64"), (big_endian, "is not of the type int64"),
        (two_dimensional, "has the shape"), (too_long, "has the shape"), (unwritten, "and holds 0"),
        (compact, "is compact"),
    ],
)  # fmt: skip
def test_a_column_that_is_something_else_is_refused(copy, make, reason):
    """Groups 10,000 deep, cycles, references, texts, other types and shapes in the place of `sweep`."""
    replace(copy, "sweep", make)
    refused(copy, "sweep ", memory=64 * MEGABYTE)
    refused(copy, reason)


def extra(name, value):
    def make(file):
        file[name] = value if value is not None else file["/"]

    return make


def attribute(name, value):
    def make(file):
        file.attrs.create(name, value)

    return make


def many_groups(file):
    for k in range(20_000):
        file.create_group(f"g{k}")


def many_attributes(file):
    for k in range(2000):
        file.attrs[f"a{k}"] = k


def other_enum(file):
    old = file["model"][:]
    del file["model"]
    codes = {name: k for k, name in enumerate(reversed(CLASS_NAMES))}
    file.create_dataset("model", data=old, dtype=h5py.enum_dtype(codes, basetype="u1")).attrs["units"] = "1"


@pytest.mark.parametrize(
    "make, reason",
    [
        (extra("more", 1.0), "'more' is not in the contract"),
        (extra("\x1b[31m", 1.0), r"'\x1b[31m' is not in the contract"),
        (extra("root", None), "'root' is not in the contract"),
        (many_groups, "holds more than the"),
        (many_attributes, "attributes; at most"),
        (attribute("note", np.zeros(8000)), "is larger than"),
        (attribute("note", "x" * 2 * MEGABYTE), "characters; at most"),
        (attribute("note", h5py.Empty("f4")), "neither a number nor a text"),
        (
            lambda file: file["images"].attrs.create("note", file.ref, dtype=h5py.ref_dtype),
            "neither a number nor a text",
        ),
        (lambda file: file["sweep"].attrs.create("units", "hours"), "sweep has not the units"),
        (lambda file: file["sweep"].attrs.__delitem__("units"), "sweep has not the units"),
        (lambda file: file.__delitem__("sweep"), "has no dataset sweep"),
        (other_enum, "model is not of the type enum C-2D"),
        (lambda file: file.attrs.create("schema", "x"), "has the schema 'x'"),
        (lambda file: file.attrs.create("schema", [1, 2]), "has the schema"),
        (lambda file: file.attrs.create("schema_version", 99), "schema_version = 99"),
        (lambda file: file.attrs.__delitem__("complete"), "is not complete"),
        (lambda file: file.attrs.create("config", "[" * 100_000), "is no JSON"),
        (lambda file: file.attrs.create("config", "{}"), "config: seed: Field required"),
        (lambda file: file.attrs.create("software", "{"), "damaged"),
    ],
)
def test_what_surrounds_the_data_is_bounded_and_known(copy, make, reason):
    """Members, attributes, units, classes, schema and config, each wrong in one way."""
    with h5py.File(copy, "a") as file:
        make(file)
    refused(copy, reason, memory=64 * MEGABYTE)


def change(name, row, value):
    def make(file):
        file[name][row] = value

    return make


def change_avalanches(field, value):
    """One field of the first field sweep; of `counts` the first bin."""

    def make(file):
        rows = file["avalanches"][:]
        if field == "counts":
            rows["counts"][0, 0] += 10**6
        else:
            rows[field][0] = value
        file["avalanches"][:] = rows

    return make


def swap_lattices(file):
    """The two lattices of P-3D, whole: everything is right but the order."""
    for name in ("images", *slices.COLUMNS):
        values = file[name][:]
        third = np.flatnonzero(file["plane_axis"][:] != 1)[0]
        file[name][:] = np.concatenate(
            [values[:third], values[third + 13 : third + 26], values[third : third + 13], values[third + 26 :]]
        )


@pytest.mark.parametrize(
    "make, reason",
    [
        (change("images", (3, 2, 2), 2), "images, row 3: is 2, expected 0 and 1 alone"),
        (change("magnetization", 5, 0.125001), "magnetization, row 5: is 0.125001, expected that of the image"),
        (change("magnetization", 5, np.nan), "magnetization, row 5: is nan"),
        (change("model", 2, 1), "model, row 2: is 1, expected a class of the config"),
        (change("model", 2, 200), "model, row 2: is 200, expected a class of the config"),
        (change("parameter", 0, 3.0), "parameter, row 0: is 3.0, expected 2.25 to 2.64 for C-2D"),
        (change("parameter", -1, 0.5), "expected 0.02 to 0.2 or 0.8 to 0.98 for P*"),
        (change("field", 1, np.inf), "field, row 1: is inf"),
        (change("direction", 0, 1), "direction, row 0: is 1, expected 0 for C-2D"),
        (change("lattice", -1, 4), "lattice, row"),
        (change("lattice", 0, -1), "lattice, row 0: is -1"),
        (change("lattice_magnetization", 0, -1.5), "lattice_magnetization, row 0: is -1.5"),
        (change("plane_position", -6, 7), "expected one of the planes"),
        (change("plane_surface", -6, 2), "plane_surface, row"),
        (change("sweep", slice(0, 8), 0), "a measurement once"),
        (swap_lattices, "rows by class and lattice"),
        (change_avalanches("counts", 0), "cannot sum to the"),
        (change_avalanches("lattice", 5), "a row for each swept lattice"),
        (lambda file: file.attrs.create("seed", 6), "seed is 6, the config says 5"),
        (lambda file: file.attrs.create("config_sha256", "0" * 64), "config_sha256 is 0000"),
    ],
)
def test_rows_that_the_config_does_not_give_are_found(copy, make, reason):
    """With a content hash that agrees, so that nothing but the rule itself can notice.

    Seen to fail, each kind with its rule taken out of `check`.
    """
    with h5py.File(copy, "a") as file:
        make(file)
    rehash(copy)
    found, _ = check.check_file(copy)
    assert any(reason in line for line in found), found


def test_content_is_held_against_its_hash(copy):
    """A change that breaks no rule, and valid checksums: the content hash alone says so."""
    with h5py.File(copy, "a") as file:
        file["lattice_magnetization"][4] += 1e-9
    refused(copy, "content_sha256 is")


def test_a_file_that_changes_while_it_is_read_is_not_good(copy, monkeypatch):
    """A writer that is still at work, as a growing file shows."""
    whole = slices.content_hash

    def grow(*arguments):
        with open(copy, "ab") as file:
            file.write(bytes(8))
        return whole(*arguments)

    monkeypatch.setattr(slices, "content_hash", grow)
    found, _ = check.check_file(copy)
    assert len(found) == 1 and "was changed while it was read" in found[0]


def test_what_is_no_file_is_refused_without_waiting(tmp_path, good, monkeypatch):
    """A FIFO and a device are not opened, which could wait for ever; folders, empty, cut, missing files are named."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no HDF5")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with open(tmp_path / "sparse", "wb") as file:
        file.write(good.read_bytes()[:5000])
        file.truncate(2**40)
    kinds = {
        tmp_path / "fifo": "is a FIFO", tmp_path / "link": "is a FIFO", "/dev/zero": "is a device",
        tmp_path / "folder": "is no bundle", tmp_path / "empty": "is empty", tmp_path / "none": "no such file",
        tmp_path / "text": "is not HDF5", tmp_path / "cut": "is not HDF5, or truncated", tmp_path / "sparse": "",
        "/proc/self/mem": "is empty",
    }  # fmt: skip
    for path, reason in kinds.items():
        refused(path, reason)
    with pytest.raises(ContractError, match="embedded null"):
        check.check_file("nul\0")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ContractError, match="no permission"):
        check.check_file(good)


def test_the_command_says_good_or_one_line(good, copy, tmp_path):
    """Exit 0 and a line on stdout; exit 2 and a line on stderr that is safe to print, whatever the name."""
    done = hamscope("check", str(good))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "good: slices, 42 images of 16 x 16, C-2D 8, RF-2D 4, P-3D 26, P* 4" in done.stdout
    with h5py.File(copy, "a") as file:
        del file.attrs["complete"]
    odd = tmp_path / "a\x1b[31m\nb.h5"
    os.rename(copy, odd)
    done = hamscope("check", str(odd), str(good))
    assert done.returncode == 2 and "good: slices" in done.stdout
    assert done.stderr.count("\n") == 1 and "is not complete" in done.stderr and "\x1b" not in done.stderr
