"""A synthetic experiment of known truth: frames of one model through a microscope, as TIFF with a CSV beside.

A random-field film is one sample, swept up in its field at T = 0.  Frame k shows the state at H_k, in equal steps
from the first stable state with m >= -0.85 to the first with m >= 0.85, and kelvin rises linearly with H: the sample
is heated through its transition.  In a film of another model each frame is a lattice of its own, and its parameter
goes from one end of the range to the other.

Two-dimensional models show a whole periodic lattice, three-dimensional ones the free surface z = 0 of a sample that
is periodic in x and y.  Random numbers are keyed by the film's seed and its model, so two films that differ in the
instrument alone show the same pattern.

Shape letters: F = frames; S = size, the side of a frame in sites and pixels.
"""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from hamscope import provenance
from hamscope.config import Film
from hamscope.data.instrument import LEVELS, observe
from hamscope.errors import UserError
from hamscope.models import BY_NAME
from hamscope.sim import percolation, rfim, rng
from hamscope.sim.ising import LATTICES, IsingBatch
from hamscope.sim.lattice import Lattice, Slab

MAX_MAGNETIZATION = 0.85
# From a random start; `_clean` says what they are worth.
_SWEEPS = {2: 500, 3: 200}
_UPDATES = {2: 400, 3: 40}
# Along the open z of a clean three-dimensional sample, since every sweep goes through all of them.
_MOST_PLANES = 32


class FilmData(NamedTuple):
    """The frames of a film, and what is known of each of them.

    `grey` is uint8 of shape (F, S, S); the others are float64 of shape (F,), `direction` int64: the sample temperature
    in `kelvin`, `direction` (+1 heating), the model's `parameter` (T/J, R/J or p), the `field` H/J (0 where the model
    has none) and the `magnetization` per site of the pattern that is shown, before the instrument.
    """

    grey: np.ndarray
    kelvin: np.ndarray
    direction: np.ndarray
    parameter: np.ndarray
    field: np.ndarray
    magnetization: np.ndarray


def make_film(film: Film) -> FilmData:
    """Draw the film of a config's section.

    Raises
    ------
    UserError
        A random-field sample whose disorder is so weak that one avalanche turns all of it: it has no states between.
    """
    draw = {"clean": _clean, "random-field": _random_field, "percolation": _percolation}[BY_NAME[film.model].family]
    images, parameter, field = draw(film)
    return FilmData(
        grey=observe(images, film.blur_px, film.noise, int(_key(film, "noise")), periodic=True),
        kelvin=_steps(*film.kelvin, film.frames),
        direction=np.ones(film.frames, np.int64),
        parameter=parameter,
        field=field,
        magnetization=2 * images.mean((1, 2)) - 1,
    )


def _key(film: Film, use: str) -> np.uint64:
    return rng.stream_key(film.seed, "film", film.model, use)


def _steps(first: float, last: float, count: int) -> np.ndarray:
    """Equal steps from first to last, shape (count,); a single frame stands in the middle."""
    return np.linspace(first, last, count) if count > 1 else np.array([(first + last) / 2])


def _lattice(film: Film, most_planes: int | None = None) -> Lattice:
    """The sample behind a film: S x S periodic sites, in 3D with half as many planes along the open z."""
    if BY_NAME[film.model].dimension == 2:
        return Lattice.of_dimension(2, film.size)
    planes = min(film.size // 2, most_planes or film.size)
    return Lattice((planes, film.size, film.size), (False, True, True))


def _shown(sites: np.ndarray) -> np.ndarray:
    """The plane that the microscope sees, shape (S, S): all of a 2D lattice, the surface z = 0 of a 3D one."""
    return sites[:, 0, :] if sites.shape[1] == 1 else sites[0]


def _random_field(film: Film) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (F, S, S) uint8, parameter (F,) and field (F,) of one sample in its upward sweep."""
    disorder, _ = film.parameter_range
    slab = Slab(_lattice(film))
    flips = rfim.flip_fields(slab, rfim.random_fields(slab, disorder, _key(film, "fields"), 0))
    ends, _ = rfim.stable_states(slab, flips, np.array([-MAX_MAGNETIZATION, MAX_MAGNETIZATION]))
    if len(ends) == 1:
        raise UserError(
            f"film {film.name!r}: parameter = {disorder:g} is so little disorder that one avalanche turns the whole "
            f"sample of {film.size} x {film.size} sites; give a larger R/J, or another seed or size"
        )
    fields = _steps(ends[0], ends[1], film.frames)
    images = (_shown(flips) <= fields[:, None, None]).astype(np.uint8)
    return images, np.full(film.frames, float(disorder)), fields


def _clean(film: Film) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (F, S, S) uint8, parameter (F,) and field (F,) of equilibrium lattices, up to 64 in a batch.

    In 2D, 500 sweeps with 400 Wolff updates from a random start: 64 lattices of 256 x 256 at Tc then had 0.7082 +-
    0.0009 per bond (exact: 0.7083), and <m^2> = 0.277 +- 0.013, as after 200 updates.  In 3D the sample has at most 32
    planes and gets 200 sweeps with 40 updates, which keeps a film of 256 x 256 within a minute.  At Tc neighbours on
    the surface then had 0.2756 +- 0.0006 from a random start and 0.2753 +- 0.0005 from an ordered one.
    """
    parameter = _steps(*film.parameter_range, film.frames)
    slab, dimension = Slab(_lattice(film, _MOST_PLANES)), BY_NAME[film.model].dimension
    images = np.empty((film.frames, film.size, film.size), np.uint8)
    for first in range(0, film.frames, LATTICES):
        temperatures = parameter[first : first + LATTICES]
        batch = IsingBatch(slab, temperatures, _key(film, "chain"), first // LATTICES)
        batch.run(_SWEEPS[dimension], _UPDATES[dimension])
        for bit in range(temperatures.size):
            images[first + bit] = _shown(batch.spins(bit))
    return images, parameter, np.zeros(film.frames)


def _percolation(film: Film) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (F, S, S) uint8, parameter (F,) and field (F,); a plane of a 3D lattice of coins is a 2D one."""
    parameter = _steps(*film.parameter_range, film.frames)
    lattice, key = Lattice.of_dimension(2, film.size), _key(film, "sites")
    images = np.stack([_shown(percolation.sites(lattice, p, key, k)) for k, p in enumerate(parameter)])
    return images, parameter, np.zeros(film.frames)


def write_film(film: Film, folder: str | Path) -> Path:
    """Make a film and write `<name>.tif` and `<name>.csv` into `folder`; return the path of the TIFF.

    The TIFF has a page a frame; the ImageDescription of the first is JSON: the truth (`model`, and for each frame
    `parameter`, `field`, `magnetization`), the section, its hash, the hashes of the pixels and of the CSV, software.
    The CSV has the columns frame, temperature (K) and direction (+1 heating).  It is written first, so a film whose
    TIFF is there is whole.  The same section gives the same bytes.

    Raises
    ------
    UserError
        The folder is missing or cannot be written, or something that is no film of ours has the name of the TIFF.
    """
    path = Path(folder) / f"{film.name}.tif"
    provenance.check_writable(path)
    if path.exists():
        _read_truth(path)
    data = make_film(film)
    table = _table(data)
    truth = {
        "model": film.model,
        "film": film.model_dump(mode="json"),
        "section_hash": provenance.section_hash(film),
        "content_sha256": hashlib.sha256(data.grey).hexdigest(),
        "csv_sha256": hashlib.sha256(table).hexdigest(),
        "levels": LEVELS,
        "parameter": data.parameter.tolist(),
        "field": data.field.tolist(),
        "magnetization": data.magnetization.tolist(),
        "software": provenance.software_versions("numpy", "scipy", "numba", "tifffile"),
    }
    with provenance.whole_file(path.with_suffix(".csv")) as temporary:
        temporary.write_bytes(table)
    with provenance.whole_file(path) as temporary:
        # Without metadata=None the page would get a second description, of tifffile's own.
        tifffile.imwrite(
            temporary, data.grey, photometric="minisblack", metadata=None, software="hamscope",
            description=provenance.canonical_json(truth),
        )  # fmt: skip
    return path


def _table(data: FilmData) -> bytes:
    """The sidecar of a film."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("frame", "temperature", "direction"))
    table.writerows((k, float(kelvin), int(sign)) for k, (kelvin, sign) in enumerate(zip(data.kelvin, data.direction)))
    return text.getvalue().encode()


def film_is_current(film: Film, path: str | Path) -> bool:
    """Whether TIFF and CSV are there and are those of this section.

    Raises
    ------
    UserError
        The TIFF is damaged, or no film of ours.
    """
    path = Path(path)
    if not path.exists():
        return False
    truth, table = _read_truth(path), path.with_suffix(".csv")
    return (
        truth["section_hash"] == provenance.section_hash(film)
        and table.is_file()
        and truth["csv_sha256"] == provenance.sha256_file(table)
    )


def _read_truth(path: Path) -> dict:
    """The description of a film's TIFF, after its pixels were held against the hash that it names."""
    try:
        with tifffile.TiffFile(path) as file:
            truth = json.loads(file.pages[0].description)
            grey = np.stack([page.asarray() for page in file.pages])
        whole = truth["content_sha256"] == hashlib.sha256(grey).hexdigest()
        whole = whole and {"section_hash", "csv_sha256"} <= truth.keys()
    except Exception:  # on foreign and damaged files the decoder raises almost anything
        whole = False
    if not whole:
        raise UserError(f"{path}: is damaged, or no film of hamscope; move it away, or give the film another name")
    return truth
