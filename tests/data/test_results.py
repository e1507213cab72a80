"""The results contract: written frame by frame, read whole or without its pictures."""

import dataclasses
import weakref

import numpy as np
import pytest
from synthetic import film

from hamscope import check
from hamscope.data import results
from hamscope.data.results import PICTURES, UNITS, Frame, Quarantined, read_results, write_frames, write_results
from hamscope.errors import ContractError

GIVEN_UP = [Quarantined("b.tif", 3, "1 of 4096 pixels are NaN"), Quarantined("c \u00b5.tif", 0, "its process died")]


def test_what_was_written_is_read_back(tmp_path):
    """Every column, map and quarantined frame; without pictures all but those."""
    made = dataclasses.replace(film("a.tif", 5), quarantined=GIVEN_UP)
    write_results(tmp_path / "r.h5", made)
    read, light = read_results(tmp_path / "r.h5"), read_results(tmp_path / "r.h5", pictures=False)
    for name in UNITS:
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
        if name not in PICTURES:
            np.testing.assert_array_equal(getattr(light, name), getattr(made, name))
    for row in range(5):
        np.testing.assert_array_equal(read.class_maps[row], made.class_maps[row])
        np.testing.assert_array_equal(read.flag_maps[row], made.flag_maps[row])
    assert read.quarantined == light.quarantined == GIVEN_UP
    assert light.class_maps == [] and len(light.preview) == len(light.logits_sample) == 0
    found, summary = check.check_file(tmp_path / "r.h5")
    assert not found and "5 frames, 2 quarantined" in summary


def test_quarantined_frames_are_content(tmp_path):
    """Another reason gives another hash, none leaves the file as it was; a changed one is found.

    Seen to fail with the table left out of the hash.
    """
    hashes = set()
    for number, given_up in enumerate(([], GIVEN_UP, GIVEN_UP[:1])):
        path = tmp_path / f"{number}.h5"
        write_results(path, dataclasses.replace(film("a.tif", 2), quarantined=given_up))
        hashes.add(read_results(path).attributes["content_sha256"])
    assert len(hashes) == 3
    with results.h5py.File(tmp_path / "1.h5", "a") as file:
        file["quarantined"][0] = ("b.tif", 3, "another reason")
    with pytest.raises(ContractError, match="does not agree"):
        read_results(tmp_path / "1.h5")
    assert any("content_sha256" in line for line in check.check_file(tmp_path / "1.h5")[0])
    with results.h5py.File(tmp_path / "2.h5", "a") as file:
        del file["quarantined"]
        file["quarantined"] = results.h5py.SoftLink("/frame")
    with pytest.raises(ContractError, match="is a soft link"):
        read_results(tmp_path / "2.h5")


def test_one_frame_is_held_at_a_time(tmp_path):
    """40 frames are written as they come: no more than two previews live at once, and they differ in size.

    Seen to fail with the columns of the frames kept together with their pictures.
    """
    made, alive, most = film("a.tif", 1), [], []

    class Picture(np.ndarray):
        """An array that can be watched."""

    def frames():
        for row in range(40):
            columns = {name: getattr(made, name)[0] for name in UNITS if name != "cloud_sample"}
            columns["preview"] = np.full((20 + row, 30), row % 2, np.uint8).view(Picture)
            alive.append(weakref.ref(columns["preview"]))
            most.append(sum(one() is not None for one in alive))
            yield Frame("a.tif", row, columns, made.class_maps[0], made.flag_maps[0])
            del columns

    write_frames(tmp_path / "r.h5", frames(), 40, (59, 30), made.cloud_sample, made.attributes)
    assert max(most) <= 2
    preview = read_results(tmp_path / "r.h5").preview
    for row in range(40):
        assert (preview[row, : 20 + row] == row % 2).all() and (preview[row, 20 + row :] == 255).all()
