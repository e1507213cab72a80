"""Rows of very large frames, the channels and series of TIFF, masks beside frames, and stored types."""

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from hamscope.data.declared import Declared
from hamscope.data.formats_ome import ome_groups, stack_groups
from hamscope.data.frames import FrameRef, list_frames, read_frame, read_mask
from hamscope.errors import FrameError

FILM = np.random.default_rng(7).integers(0, 250, (3, 100, 150)).astype(np.uint8)
SIGNED = FILM.astype(np.int16) * 131 - 16_000


def chunked(path, film, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("film", data=film, **options)


def by_pillow(compression):
    def write(path, film):
        pages = [Image.fromarray(page) for page in film]
        pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)

    return write


def tiff(**options):
    return lambda path, film: tifffile.imwrite(path, film, photometric="minisblack", **options)


LAYOUTS = {
    "plain.tif": tiff(),
    "strips.tif": tiff(rowsperstrip=7),
    "big.tif": tiff(bigtiff=True, byteorder=">"),
    "deflate.tif": tiff(compression="zlib", rowsperstrip=7),
    "predicted.tif": tiff(compression="zlib", predictor=True, rowsperstrip=16),
    "tiles.tif": tiff(tile=(32, 48)),
    "deflated-tiles.tif": tiff(tile=(32, 48), compression="zlib"),
    "packbits.tif": by_pillow("packbits"),
    "lzma.tif": tiff(compression="lzma", rowsperstrip=50),
    "lzw.tif": by_pillow("tiff_lzw"),
    "inverse.tif": lambda path, film: tifffile.imwrite(
        path, np.iinfo(film.dtype).max - film, photometric="miniswhite", rowsperstrip=7, compression="zlib"
    ),
    "one-page.tif": tiff(truncate=True),
    "imagej.tif": lambda path, film: tifffile.imwrite(path, film, imagej=True),
    "plain.npy": np.save,
    "fortran.npy": lambda path, film: np.save(path, np.asfortranarray(film)),
    "deflate.npz": lambda path, film: np.savez_compressed(path, film=film),
    "plain.h5": lambda path, film: chunked(path, film),
    "chunks.h5": lambda path, film: chunked(path, film, chunks=(2, 16, 64), compression="gzip", shuffle=True),
    "lzf.h5": lambda path, film: chunked(path, film, chunks=(1, 100, 150), compression="lzf", fletcher32=True),
}  # fmt: skip


@pytest.mark.parametrize("rows", [(0, 1), (6, 33), (99, 100), (0, 100)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_are_the_rows_of_the_frame(tmp_path, name, rows):
    """In every layout, over the edges of strips, tiles and chunks, as float32 and in the stored type.

    Seen to fail with the columns of the last tile not cut, and with the rows of page 0 taken for every page.
    """
    film = FILM if name in ("lzw.tif", "packbits.tif", "imagej.tif", "inverse.tif") else SIGNED
    LAYOUTS[name](tmp_path / name, film)
    refs = list_frames([tmp_path / name])
    assert [(ref.shape, ref.dtype) for ref in refs] == [((100, 150), film.dtype.name)] * 3
    for ref, page in zip(refs, film):
        grey, native = read_frame(ref, rows), read_frame(ref, rows, native=True)
        assert (grey.dtype, native.dtype) == (np.float32, film.dtype) and grey.flags.writeable
        np.testing.assert_array_equal(grey, page[slice(*rows)])
        np.testing.assert_array_equal(native, page[slice(*rows)])


@pytest.mark.parametrize("rows", [(-1, 3), (3, 3), (5, 2), (0, 101)])
def test_rows_that_are_not_there_are_refused(tmp_path, rows):
    """numpy would give fewer rows, or count from the end."""
    np.save(tmp_path / "film.npy", FILM)
    ref = list_frames([tmp_path / "film.npy"])[0]
    for read in (read_frame, read_mask):
        with pytest.raises(ValueError, match="of 100: there are none such"):
            read(ref, rows)


def test_stored_types(tmp_path):
    """Whole numbers and truth values stay as they are where asked, also from a big-endian file; floats are float32."""
    for dtype in ("bool", "u1", "i2", ">u2", "u4", "f8", "f4", "f2"):
        np.save(tmp_path / "film.npy", FILM[0].astype(dtype))
        read = read_frame(list_frames([tmp_path / "film.npy"])[0], native=True)
        assert read.dtype == (np.float32 if dtype[0] == "f" else np.dtype(dtype).newbyteorder("="))
        np.testing.assert_array_equal(read, FILM[0].astype(dtype).astype(np.float32))


def test_only_the_rows_asked_for_are_read(tmp_path):
    """Damage below them does no harm in strips, tiles and chunks; and shows when its rows are asked for.

    Seen to fail with the whole page decoded and cut.
    """
    noise = np.random.default_rng(5).integers(0, 256, (400, 300)).astype(np.uint8)
    paths = [tmp_path / name for name in ("strips.tif", "tiles.tif", "chunks.h5")]
    tifffile.imwrite(paths[0], noise, compression="zlib", rowsperstrip=16)
    tifffile.imwrite(paths[1], noise, compression="zlib", tile=(16, 304))
    chunked(paths[2], noise, chunks=(16, 300), compression="gzip", fletcher32=True)
    for path in paths:
        data = bytearray(path.read_bytes())
        if path.suffix == ".tif":
            with tifffile.TiffFile(path) as file:
                place = file.pages[0].dataoffsets[20]
        else:
            with h5py.File(path) as file:
                place = file["film"].id.get_chunk_info_by_coord((320, 0)).byte_offset
        data[place + 1000] ^= 255
        path.write_bytes(data)
        ref = list_frames([path])[0]
        np.testing.assert_array_equal(read_frame(ref, (0, 320)), noise[:320])
        np.testing.assert_array_equal(read_frame(ref, (336, 400)), noise[336:])
        with pytest.raises(FrameError, match="damaged"):
            read_frame(ref, (300, 330))


def test_the_row_of_a_bad_pixel_is_counted_in_the_frame(tmp_path):
    film = FILM[0].astype(float)
    film[50, 7] = np.nan
    np.save(tmp_path / "film.npy", film)
    ref = list_frames([tmp_path / "film.npy"])[0]
    read_frame(ref, (0, 50))
    with pytest.raises(FrameError, match="at row 50, column 7"):
        read_frame(ref, (40, 60))


def test_ome_series_and_channels_are_sources(tmp_path):
    """Each with its planes in the order of time and depth, whatever the order in the file; the shapes can differ.

    Seen to fail with the slowest dimension taken for the fastest, with depth sorted before time, and with the number of
    the plane taken for that of the page.
    """
    rng, path = np.random.default_rng(3), tmp_path / "set.ome.tif"
    first = rng.integers(0, 250, (2, 3, 2, 40, 30)).astype(np.uint8)  # time, depth, channel
    second = rng.integers(0, 60_000, (4, 20, 25)).astype(np.uint16)
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(first, photometric="minisblack", metadata={"axes": "TZCYX"})
        file.write(second, photometric="minisblack", metadata={"axes": "TYX"})
    refs = list_frames([path])
    expected = {
        "series0/channel0": first[:, :, 0].reshape(6, 40, 30),
        "series0/channel1": first[:, :, 1].reshape(6, 40, 30),
        "series1": second,
    }
    assert [(ref.array, ref.page) for ref in refs] == [(a, p) for a, film in expected.items() for p in range(len(film))]
    assert refs[0].source == "set.ome.tif:series0/channel0"
    for ref in refs:
        np.testing.assert_array_equal(read_frame(ref), expected[ref.array][ref.page])


def ome(sizes, blocks, order="XYCZT"):
    attributes = " ".join(f'Size{letter}="{size}"' for letter, size in sizes.items())
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels DimensionOrder="{order}" Type="uint8" SizeX="150" SizeY="100" {attributes}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{blocks}</Pixels></Image></OME>'
    )


def block(plane, page, name):
    return (
        f'<TiffData FirstC="0" FirstZ="0" FirstT="{plane}" IFD="{page}" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
    )


def test_an_ome_set_of_several_files_gives_the_planes_of_each(tmp_path):
    """A file that is missing, or whose name leads elsewhere, is not looked for.  A renamed file is known."""
    one = "".join([block(0, 1, "a.ome.tif"), block(1, 0, "a.ome.tif"), block(2, 0, "../secret.ome.tif")])
    sizes = {"C": 1, "Z": 1, "T": 3}
    assert ome_groups(ome(sizes, one), "a.ome.tif", 2) == {"": [1, 0]}
    alone = "".join(block(plane, plane, "before.ome.tif") for plane in range(3))
    assert ome_groups(ome(sizes, alone), "after.tif", 3) == {"": [0, 1, 2]}
    tifffile.imwrite(
        tmp_path / "a.ome.tif", FILM[:2], photometric="minisblack", description=ome(sizes, one), metadata=None
    )
    for ref, page in zip(list_frames([tmp_path / "a.ome.tif"]), FILM[[1, 0]]):
        np.testing.assert_array_equal(read_frame(ref), page)


@pytest.mark.parametrize(
    "sizes, blocks",
    [
        ({"C": 1, "Z": 1, "T": 10**12}, '<TiffData IFD="0" PlaneCount="1000000000000"/>'),
        ({"C": 1, "Z": 1, "T": 10**6}, '<TiffData IFD="0" PlaneCount="1000000"/>' * 1000),
        ({"C": 1, "Z": 1, "T": 2}, '<TiffData FirstT="7" IFD="0"/>'),
        ({"C": 1, "Z": 1, "T": 3}, '<TiffData IFD="2" PlaneCount="1"/>'),
        ({"C": 1, "Z": 1}, '<TiffData IFD="0"/>'),
        ({"C": 0, "Z": 1, "T": 3}, "<TiffData/>"),
    ],
)
def test_xml_that_is_not_about_the_pages_is_left_alone(tmp_path, sizes, blocks):
    """Absurd, contradictory and incomplete OME-XML: the pages come in their order, and at once."""
    path = tmp_path / "film.ome.tif"
    tifffile.imwrite(path, FILM, photometric="minisblack", description=ome(sizes, blocks), metadata=None)
    for ref, page in zip(list_frames([path]), FILM, strict=True):
        np.testing.assert_array_equal(read_frame(ref), page)


def test_a_run_that_was_stopped_gives_the_planes_that_were_taken(tmp_path):
    """OME-XML that was written for 50 times, of which three came to be."""
    xml = ome({"C": 1, "Z": 1, "T": 50}, "".join(f'<TiffData FirstT="{t}" IFD="{t}"/>' for t in range(50)))
    tifffile.imwrite(tmp_path / "film.ome.tif", FILM, photometric="minisblack", description=xml, metadata=None)
    assert len(list_frames([tmp_path / "film.ome.tif"])) == 3


def test_groups_of_a_stack():
    """By hand: two channels, two depths and two times, the channel fastest, then the time."""
    groups = stack_groups("CTZ", {"C": 2, "Z": 2, "T": 2}, range(8), "series4")
    assert groups == {"series4/channel0": [0, 4, 2, 6], "series4/channel1": [1, 5, 3, 7]}


def test_channels_of_imagej(tmp_path):
    """A hyperstack: the channel is the fastest; one file has pages, the other only the first (as above 4 GB)."""
    stack = np.random.default_rng(3).integers(0, 250, (3, 2, 2, 40, 30)).astype(np.uint8)  # time, depth, channel
    for name, options in (("pages.tif", {"compression": "zlib"}), ("one-page.tif", {})):
        tifffile.imwrite(tmp_path / name, stack, imagej=True, metadata={"axes": "TZCYX"}, **options)
        refs = list_frames([tmp_path / name])
        assert [(ref.array, ref.page) for ref in refs] == [(f"channel{c}", page) for c in (0, 1) for page in range(6)]
        for ref in refs:
            plane = stack[:, :, int(ref.array[-1])].reshape(6, 40, 30)[ref.page]
            np.testing.assert_array_equal(read_frame(ref), plane)


def test_thumbnails_are_no_frames_and_are_not_counted(tmp_path):
    """Pages of a pyramid between frames; the number of a frame does not count them, so a CSV fits."""
    with tifffile.TiffWriter(tmp_path / "film.tif") as file:
        for page in FILM:
            file.write(page, metadata=None)
            file.write(page[::4, ::4], metadata=None, subfiletype=1)
    (tmp_path / "film.csv").write_text("frame,temperature\n0,300\n1,301\n2,302\n")
    refs = list_frames([tmp_path / "film.tif"])
    assert [(ref.page, ref.temperature) for ref in refs] == [(0, 300), (1, 301), (2, 302)]
    for ref, page in zip(refs, FILM):
        np.testing.assert_array_equal(read_frame(ref), page)


def write_masked(path, mask, **frames):
    with h5py.File(path, "w") as file:
        for name, values in {"mask": mask, **frames}.items():
            file[name] = values


def test_a_mask_is_no_source_and_belongs_to_the_frames_beside_it(tmp_path):
    """Seen to fail with the mask of any group taken, and with the mask listed as a frame."""
    mask = FILM[0] > 200
    write_masked(tmp_path / "a.h5", mask.astype(np.uint8) * 255, film=FILM, other=FILM[0], **{"bare/film": FILM[0]})
    refs = list_frames([tmp_path / "a.h5"])
    assert {(ref.array, ref.masked) for ref in refs} == {("film", True), ("other", True), ("bare/film", False)}
    for ref in refs:
        expected = mask if ref.masked else np.zeros_like(mask)
        for read, rows in ((read_mask(ref), slice(None)), (read_mask(ref, (9, 40)), slice(9, 40))):
            assert read.dtype == bool
            np.testing.assert_array_equal(read, expected[rows])
    bare = FrameRef(str(tmp_path / "a.h5"), "film", 1, (100, 150))  # as made from a path and a page elsewhere
    np.testing.assert_array_equal(read_mask(bare), mask)


def test_formats_without_masks_have_none(tmp_path):
    np.save(tmp_path / "film.npy", FILM)
    ref = list_frames([tmp_path / "film.npy"])[1]
    assert not ref.masked and not read_mask(ref).any() and read_mask(ref, (2, 9)).shape == (7, 150)


@pytest.mark.parametrize(
    "mask, expected",
    [
        (np.zeros((100, 149), bool), r"mask has the shape \(100, 149\) and the frames of film have \(100, 150\)"),
        (np.zeros((3, 100, 150), bool), "is no mask"),
        (np.zeros((100, 150)), "of float64 is no mask"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path, mask, expected):
    write_masked(tmp_path / "a.h5", mask, film=FILM)
    with pytest.raises(FrameError, match=expected) as refusal:
        list_frames([tmp_path / "a.h5"])
    assert len(str(refusal.value).splitlines()) == 1


def test_a_mask_elsewhere_is_not_followed(tmp_path):
    """A link named mask to another file is no mask."""
    write_masked(tmp_path / "b.h5", np.ones((100, 150), bool))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["film"], file["mask"] = FILM, h5py.ExternalLink("b.h5", "mask")
    ref = list_frames([tmp_path / "a.h5"])[0]
    assert not ref.masked and not read_mask(ref).any()


def test_a_declared_frame_says_what_it_needs():
    """The fields that other programs plan with."""
    assert Declared("a", 1, (2, 3), "uint8")._asdict() == {
        "array": "a", "page": 1, "shape": (2, 3), "dtype": "uint8", "masked": False, "adaptive": False
    }  # fmt: skip
