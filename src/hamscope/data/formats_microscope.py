"""Frames in the formats of microscopes, read lazily by RosettaSciIO (the extra `microscopes` of this package).

    .dm3 .dm4   Gatan DigitalMicrograph           .emd    Berkeley and Thermo Fisher Velox
    .mrc        cryo microscopes and detectors    .hspy   HyperSpy         .nxs   NeXus, of synchrotrons

These are the formats of images that it reads without loading a file whole.  It believes what a file declares, so the
declared pixels are compared with the size of the file, or with what the datasets of HDF5 hold, before it makes plans
for them.  Spectra, maps of spectra and diffraction patterns in four dimensions are no frames.

Reference: RosettaSciIO, hyperspy.org/rosettasciio, doi:10.5281/zenodo.8011666.
"""

import importlib
import math
from pathlib import Path

import h5py
import numpy as np

from hamscope.data.declared import Declared, check, pages, rows_of
from hamscope.data.formats_hdf5 import check_whole
from hamscope.errors import FrameError

_READERS = {
    ".dm3": "digitalmicrograph", ".dm4": "digitalmicrograph", ".mrc": "mrc",
    ".emd": "emd", ".hspy": "hspy", ".nxs": "nexus",
}  # fmt: skip
SUFFIXES = tuple(_READERS)
_HDF5 = (".emd", ".hspy", ".nxs")
_SMALL = 2**20  # elements of a dataset that may be anything


def list_microscope(path: Path) -> list[Declared]:
    """The frames of every image and stack of images in a file; several are sources called image0, image1, ...

    Raises
    ------
    FrameError
        RosettaSciIO is not installed; the file holds no grey images, or declares more pixels than it has.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _HDF5:
        _check_hdf5(path)
    images = _images(path, chunks=-1)  # one chunk: planning millions for an absurd size would take minutes
    for index, data in images.items():
        check(path, f"image {index}", data.shape, data.dtype)
        declared = math.prod(data.shape) * data.dtype.itemsize
        if suffix not in _HDF5 and declared > Path(path).stat().st_size:
            raise FrameError(f"{path}, image {index}: truncated, it declares {data.shape}; save it again")
    if not images:
        raise FrameError(f"{path}: holds no image or stack of images; save one, or export it as TIFF")
    return [frame for name, data in _named(images).items() for frame in pages(name, data.shape, data.dtype)]


def read_microscope(path: str, array: str, page: int, rows: slice) -> np.ndarray:
    """Rows of one frame."""
    lazy = rows_of(_named(_images(path))[array], page, rows)
    return np.asarray(lazy.compute(scheduler="synchronous"))  # type: ignore[attr-defined]  # an array of dask


def _named(images: dict) -> dict:
    """Array -> data: one image is the file's, several are numbered."""
    return {f"image{index}" if len(images) > 1 else "": data for index, data in images.items()}


def _images(path: str | Path, chunks="auto") -> dict:
    """Number in the file -> lazy array (H, W) or (F, H, W) of what is an image."""
    suffix = Path(path).suffix.lower()
    try:
        read = importlib.import_module(f"rsciio.{_READERS[suffix]}").file_reader
    except ModuleNotFoundError:
        raise FrameError(
            f"{path}: {suffix} files need RosettaSciIO; pip install 'hamscope[microscopes]', or export it as TIFF"
        ) from None
    options = {} if suffix in _HDF5 else {"chunks": chunks}
    if suffix == ".mrc":
        options["metadata_file"] = None  # else it looks for other files, of names like this one's
    signals = enumerate(read(str(path), lazy=True, **options))
    return {index: signal["data"] for index, signal in signals if _is_image(signal)}


def _is_image(signal: dict) -> bool:
    """If the pixels of a signal lie along two axes, and at most one more tells its frames apart."""
    across = [axis for axis in signal["axes"] if not axis.get("navigate")]
    spectrum = signal["metadata"].get("Signal", {}).get("signal_type") not in (None, "", "Signal2D")
    return signal["data"].ndim in (2, 3) and len(across) in (2, signal["data"].ndim) and not spectrum


def _check_hdf5(path: Path) -> None:
    """Refuse datasets that lie elsewhere, have absurd chunks or were not written whole."""

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and math.prod(item.shape or ()) > _SMALL:
            check_whole(path, name, item)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
