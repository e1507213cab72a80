"""A synthetic experiment of known truth: frames of one model through a microscope, as TIFF with a CSV beside.

The patterns are those of `hamscope.film_samples`, the microscope is that of `hamscope.film_microscope`.  Kelvin is a
linear function of H, T or p, given by the ends of `kelvin` in the film's section; heating takes H and the parameter
from the first end to the second.

Shape letters: F = frames; S = size, the side of a frame in sites and pixels.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from hamscope import film_microscope, provenance
from hamscope.config import Film
from hamscope.data.instrument import LEVELS
from hamscope.errors import UserError
from hamscope.film_samples import draw_states

# Of the truth, a number or a pair a frame.
_PER_FRAME = ("kelvin", "direction", "parameter", "field", "magnetization", "shift")


class FilmData(NamedTuple):
    """The frames of a film, and what is known of each of them.

    `grey` is uint8 of shape (F, S, S); the others are float64 of shape (F,), `direction` int64: the sample temperature
    in `kelvin`, `direction` (+1 heating, -1 cooling), the model's `parameter` (T/J, R/J or p), the `field` H/J (0 where
    the model has none) and the `magnetization` per site of the pattern, before the instrument.  `shift` (F, 2) float64
    is how far the sample has moved since the first frame, in pixels, rows and columns; `mask` (S, S) bool where an
    electrode is in any of the frames.
    """

    grey: np.ndarray
    kelvin: np.ndarray
    direction: np.ndarray
    parameter: np.ndarray
    field: np.ndarray
    magnetization: np.ndarray
    shift: np.ndarray
    mask: np.ndarray


def make_film(film: Film) -> FilmData:
    """Draw the film of a config's section.

    Raises
    ------
    UserError
        A random-field sample whose disorder is so weak that one avalanche turns all of it: it has no states between.
        Or one that turns outside the section's `field`.
    """
    states, shift = draw_states(film), film_microscope.drift(film)
    grey, mask = film_microscope.photograph(film, states.images, shift)
    return FilmData(grey, *states[1:], 2 * states.images.mean((1, 2)) - 1, shift, mask)


def film_path(film: Film, out: str | Path) -> Path:
    """The path of a film's TIFF: `out` where `names_file(out)`, else `<name>.tif` in the folder `out`."""
    return Path(out) if names_file(out) else Path(out) / f"{film.name}.tif"


def names_file(out: str | Path) -> bool:
    """Whether `out` is to be one TIFF and no folder."""
    out = Path(out)
    return out.suffix.lower() in (".tif", ".tiff") and not out.is_dir()


def write_film(film: Film, out: str | Path) -> Path:
    """Make a film and write it, `film_path(film, out)` with a CSV beside; return the path of the TIFF.

    The TIFF has a page a frame; the ImageDescription of the first is JSON: the truth (`model`, for each frame
    `parameter`, `field`, `magnetization`, `kelvin`, `direction`, `shift`; `lamp`), the section, its hash, the hashes
    of the pixels and of the other files, software.  The CSV has the columns frame, temperature (K) and direction (+1
    heating, -1 cooling).  Where the light is uneven or electrodes are in the frames a folder `<stem>.calibration` has
    `flat.tif`, an even sample in that light, and `mask.png`, 255 where an electrode is in any of the frames.  The TIFF
    is written last, so a film whose TIFF is there is whole.  The same section gives the same bytes.

    Raises
    ------
    UserError
        The folder is missing or cannot be written, or something that is no film of ours has the name of the TIFF.
    """
    path = film_path(film, out)
    provenance.check_writable(path)
    if path.exists():
        _read_truth(path)
    data = make_film(film)
    files = _write_beside(film, data, path)
    truth = {
        "model": film.model,
        "film": film.model_dump(mode="json"),
        "section_hash": provenance.section_hash(film),
        "content_sha256": hashlib.sha256(data.grey).hexdigest(),
        "beside_sha256": files,
        "levels": LEVELS,
        "lamp": film_microscope.lamp(film) if film.uneven_light else None,
        "software": provenance.software_versions("numpy", "scipy", "numba", "tifffile", "pillow"),
    } | {name: getattr(data, name).tolist() for name in _PER_FRAME}
    with provenance.whole_file(path) as temporary:
        # Without metadata=None the page would get a second description, of tifffile's own.
        tifffile.imwrite(
            temporary, data.grey, photometric="minisblack", metadata=None, software="hamscope",
            description=provenance.canonical_json(truth),
        )  # fmt: skip
    return path


def _write_beside(film: Film, data: FilmData, path: Path) -> dict[str, str]:
    """Write what belongs to a film but its TIFF; returns the SHA-256 of each file by its path from that of the TIFF."""
    folder = Path(f"{path.stem}.calibration")
    writers: dict[Path, Callable[[Path], object]] = {
        Path(f"{path.stem}.csv"): lambda temporary: temporary.write_bytes(_table(data))
    }
    light = film_microscope.illumination(film)
    if light is not None:
        flat = film_microscope.flat_frame(light)
        writers[folder / "flat.tif"] = lambda temporary: tifffile.imwrite(temporary, flat, metadata=None)
    if film.electrodes:
        mask = Image.fromarray(np.where(data.mask, 255, 0).astype(np.uint8))
        writers[folder / "mask.png"] = lambda temporary: mask.save(temporary, format="PNG")
    for name, write in writers.items():
        (path.parent / name).parent.mkdir(exist_ok=True)
        with provenance.whole_file(path.parent / name) as temporary:
            write(temporary)
    return {name.as_posix(): provenance.sha256_file(path.parent / name) for name in writers}


def _table(data: FilmData) -> bytes:
    """The sidecar of a film."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("frame", "temperature", "direction"))
    table.writerows((k, float(kelvin), int(sign)) for k, (kelvin, sign) in enumerate(zip(data.kelvin, data.direction)))
    return text.getvalue().encode()


def film_is_current(film: Film, path: str | Path) -> bool:
    """Whether TIFF, CSV and calibration are there and are those of this section.

    Raises
    ------
    UserError
        The TIFF is damaged, or no film of ours.
    """
    path = Path(path)
    if not path.exists():
        return False
    truth = _read_truth(path)
    return truth["section_hash"] == provenance.section_hash(film) and all(
        (path.parent / name).is_file() and provenance.sha256_file(path.parent / name) == sha256
        for name, sha256 in truth["beside_sha256"].items()
    )


def _read_truth(path: Path) -> dict:
    """The description of a film's TIFF, after its pixels were held against the hash that it names."""
    try:
        with tifffile.TiffFile(path) as file:
            truth = json.loads(file.pages[0].description)
            grey = np.stack([page.asarray() for page in file.pages])
        whole = truth["content_sha256"] == hashlib.sha256(grey).hexdigest()
        whole = whole and "section_hash" in truth
    except Exception:  # on foreign and damaged files the decoder raises almost anything
        whole = False
    if not whole:
        raise UserError(f"{path}: is damaged, or no film of hamscope; move it away, or give the film another name")
    return truth
