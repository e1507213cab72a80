"""The slices contract: what was written is read back, and nothing else is."""

import h5py
import numpy as np
import pytest

from hamscope.data import slices
from hamscope.errors import ContractError


def write(path, n=6, size=8, seed=0):
    """A slices file of random images, written with the functions that the simulation uses."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 2, (n, size, size), np.uint8)
    columns = {name: np.zeros(n, "u1" if name == "model" else c.dtype) for name, c in slices.COLUMNS.items()}
    columns["model"][:] = np.arange(n) % 7
    columns["parameter"][:] = random.random(n)
    with h5py.File(path, "w") as file:
        slices.create(file, n, size)
        file["images"][:] = images
        for name, values in columns.items():
            file[name][:] = values
        content = slices.content_hash(slices.image_digests(images), columns, np.zeros(0, slices.AVALANCHES))
        slices.finish(file, "{}", 1, {"hamscope": "0"}, content)
    return images, columns


def test_what_was_written_is_read_back(tmp_path):
    images, columns = write(tmp_path / "a.h5")
    read = slices.read_slices(tmp_path / "a.h5")
    np.testing.assert_array_equal(read.images, images)
    for name, values in columns.items():
        np.testing.assert_array_equal(read.columns[name], values)
    assert read.attributes["software"] == {"hamscope": "0"}


def refused(path, reason):
    with pytest.raises(ContractError, match=reason) as caught:
        slices.read_slices(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_not_slices_are_refused(tmp_path):
    """Each with a line that names the file and the reason."""
    refused(tmp_path / "none.h5", "no such file")
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    refused(tmp_path / "text.h5", "not HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((2, 4, 4))
    refused(tmp_path / "other.h5", "not a slices file")
    write(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.h5", "truncated")


def test_a_file_without_complete_is_refused(tmp_path):
    """A writer that was stopped leaves a readable file without the mark; the reader says so."""
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file.attrs["complete"]
    refused(tmp_path / "a.h5", "not complete")


def test_changed_content_is_refused(tmp_path):
    """An image rewritten through HDF5 (valid checksums), a column changed, a dataset gone."""
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["images"][3, 2, 2] ^= 1
    refused(tmp_path / "a.h5", "content_sha256")
    write(tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["parameter"][1] += 1e-9
    refused(tmp_path / "b.h5", "content_sha256")
    write(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5", "a") as file:
        del file["sweep"]
    refused(tmp_path / "c.h5", "no dataset sweep")
    write(tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file.attrs["schema_version"] = 99
    refused(tmp_path / "d.h5", "schema_version = 99")


def test_flipped_bits_on_the_disk_are_noticed(tmp_path):
    """A bit flipped in the stored bytes of each of 20 images is caught by fletcher32 and becomes one clear line.

    Without the filter the damage reaches the decompressor or goes unseen until the content hash.
    """
    write(tmp_path / "a.h5", n=20)
    with h5py.File(tmp_path / "a.h5") as file:
        places = [file["images"].id.get_chunk_info(k).byte_offset for k in range(20)]
    whole = (tmp_path / "a.h5").read_bytes()
    for place in places:
        damaged = bytearray(whole)
        damaged[place + 5] ^= 4
        (tmp_path / "b.h5").write_bytes(damaged)
        refused(tmp_path / "b.h5", "damaged")
