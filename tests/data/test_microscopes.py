"""Formats of microscopes, through RosettaSciIO: files by hand or by its own writers, of known pixels."""

import importlib.util
import struct

import h5py
import numpy as np
import pytest
from engines import missing

from hamscope.data import formats_microscope
from hamscope.data.frames import list_frames, read_frame
from hamscope.errors import FrameError

FILM = np.random.default_rng(3).integers(0, 250, (3, 20, 30)).astype(np.uint16)


@pytest.fixture(autouse=True)
def rosettasciio():
    if importlib.util.find_spec("rsciio") is None:
        missing("RosettaSciIO", "pip install 'hamscope[microscopes]', or make setup")


def mrc(path, film, declared=None):
    """Header of 1024 bytes: sides, mode 6 (uint16), and no extended header."""
    frames, height, width = declared or film.shape
    path.write_bytes(struct.pack("<4i", width, height, frames, 6).ljust(1024, b"\0") + film.tobytes())


def tag(name, body, kind):
    return bytes([kind]) + struct.pack(">H", len(name)) + name.encode() + body


def number(name, value):
    """A tag of one unsigned long, or of a float; the data in the byte order of the file, all else big-endian."""
    kind, data = (6, struct.pack("<f", value)) if isinstance(value, float) else (5, struct.pack("<I", value))
    return tag(name, b"%%%%" + struct.pack(">ii", 1, kind) + data, 21)


def array(name, kind, count, data):
    return tag(name, b"%%%%" + struct.pack(">4i", 3, 20, kind, count) + data, 21)


def group(name, *tags):
    return tag(name, struct.pack(">BBi", 0, 0, len(tags)) + b"".join(tags), 20)


def dm3(path, film, declared=None):
    """The tags of a DM3 file that say where an image of unsigned 16 bits (type 10) lies and how large it is."""
    dimensions = [number("", int(n)) for n in reversed(declared or film.shape)]
    unit = [array("Units", 4, 2, "nm".encode("utf-16-le")), number("Origin", 0.0), number("Scale", 1.0)]
    calibrations = group(
        "Calibrations", group("Brightness", *unit), group("Dimension", *[group("", *unit) for _ in film.shape])
    )
    data = array("Data", 4, film.size, film.astype("<u2").tobytes())
    image = group("ImageData", calibrations, data, number("DataType", 10), group("Dimensions", *dimensions))
    root = struct.pack(">BBi", 0, 0, 1) + group("ImageList", group("", image, group("ImageTags")))
    path.write_bytes(struct.pack(">iii", 3, len(root), 1) + root)


def by_rosettasciio(module):
    def write(path, film):
        axes = [
            {"name": name, "size": size, "scale": 1.0, "offset": 0.0, "units": "nm", "navigate": name == "z",
             "index_in_array": index, "_type": "UniformDataAxis", "is_binned": False}
            for index, (name, size) in enumerate(zip("zyx", film.shape))
        ]  # fmt: skip
        metadata = {"General": {"title": "film"}, "Signal": {"signal_type": ""}}
        signal = {
            "data": film, "axes": axes, "metadata": metadata, "original_metadata": {}, "learning_results": {},
            "models": {}, "package_info": {"package": "", "package_version": ""}, "tmp_parameters": {},
            "attributes": {"_lazy": False, "ragged": False},
        }  # fmt: skip
        importlib.import_module(f"rsciio.{module}").file_writer(str(path), signal)

    return write


WRITERS = {
    "film.mrc": mrc,
    "film.dm3": dm3,
    "film.emd": by_rosettasciio("emd"),
    "film.hspy": by_rosettasciio("hspy"),
    "FILM.NXS": by_rosettasciio("nexus"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_frames_of_a_stack(tmp_path, name):
    """Seen to fail with page 0 read for every page."""
    WRITERS[name](tmp_path / name, FILM)
    refs = list_frames([tmp_path])
    assert [(ref.source, ref.page, ref.shape, ref.dtype) for ref in refs] == [
        (name, p, (20, 30), "uint16") for p in range(3)
    ]
    for ref, page in zip(refs, FILM):
        np.testing.assert_array_equal(read_frame(ref), page)
        native = read_frame(ref, (4, 9), native=True)
        assert native.dtype == np.uint16
        np.testing.assert_array_equal(native, page[4:9])


@pytest.mark.parametrize("name", ["absurd.mrc", "absurd.dm3"])
@pytest.mark.parametrize(
    "declared, expected", [((3, 40, 30), "truncated"), ((2**20, 2**30, 2**30), "absurd|truncated")]
)
def test_more_pixels_than_the_file_has_are_refused(tmp_path, name, declared, expected):
    """By the header alone: seen to fail (listed as frames) with the size of the file not asked for."""
    WRITERS["film" + name[-4:]](tmp_path / name, FILM, declared)
    with pytest.raises(FrameError, match=expected) as refusal:
        list_frames([tmp_path / name])
    assert name in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_datasets_that_were_never_written_are_refused(tmp_path):
    """A .hspy file of which the pixels are replaced by 40 GB of nothing."""
    WRITERS["film.hspy"](tmp_path / "film.hspy", FILM)
    with h5py.File(tmp_path / "film.hspy", "a") as file:
        del file["Experiments/film/data"]
        file.create_dataset("Experiments/film/data", (20_000, 1000, 1000), "u2", chunks=(1, 1000, 1000))
    with pytest.raises(FrameError, match="only 0 of 20,000 chunks were written"):
        list_frames([tmp_path / "film.hspy"])


def test_what_is_no_such_file_is_refused(tmp_path):
    """In one line each, whatever RosettaSciIO raises."""
    for suffix in formats_microscope.SUFFIXES:
        (tmp_path / f"text{suffix}").write_text("hello")
    with pytest.raises(FrameError) as refusal:
        list_frames([tmp_path])
    lines = str(refusal.value).splitlines()
    assert len(lines) == len(formats_microscope.SUFFIXES)
    assert all("is no readable" in line for line in lines)


def test_spectra_are_no_frames():
    """A map of spectra has one axis across; an image or a stack has two, or says nothing of them."""

    def signal(navigate, kind=""):
        return {
            "data": np.zeros((4, 5, 6)[: len(navigate)]),
            "axes": [{"navigate": value} for value in navigate],
            "metadata": {"Signal": {"signal_type": kind}},
        }

    assert formats_microscope._is_image(signal([True, False, False]))
    assert formats_microscope._is_image(signal([False, False]))
    assert formats_microscope._is_image(signal([False, False, False]))
    assert not formats_microscope._is_image(signal([True, True, False]))
    assert not formats_microscope._is_image(signal([True, False]))
    assert not formats_microscope._is_image(signal([False, False, False], "EELS"))


def test_without_rosettasciio_the_line_says_what_to_install(tmp_path, monkeypatch):
    mrc(tmp_path / "film.mrc", FILM)
    monkeypatch.setitem(formats_microscope._READERS, ".mrc", "not_there")
    with pytest.raises(FrameError, match=r"need RosettaSciIO; pip install 'hamscope\[microscopes\]'"):
        list_frames([tmp_path / "film.mrc"])
