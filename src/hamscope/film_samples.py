"""The patterns of a film: one sample swept through its field, or lattices in equilibrium, heated and cooled again.

A random-field film is one sample at T = 0.  H rises from saturation and, in a loop, falls again: from saturation (the
major loop), or from the state in which the last heated frame left the sample (a minor loop).  The state at H does not
depend on the steps by which H got there (see `hamscope.sim.rfim`), so the frames are those of a real sweep that goes
on through all H between them.  The falling branch is the rising one of -h_i from the opposite state, at -H.

In a film of another model each frame is a lattice of its own.  In equilibrium there is no memory, so the branches of a
loop are equal but for chance, and where the sample drifts its electrodes alone show it from frame to frame.

Two-dimensional models show a whole periodic lattice, three-dimensional ones the free surface z = 0 of a sample that
is periodic in x and y.  Random numbers are keyed by the film's seed and its model, so two films that differ in the
instrument alone show the same pattern.

Shape letters: F = frames, f = those of one branch; S = size, the side of a frame in sites.
"""

from typing import NamedTuple

import numpy as np

from hamscope.config import Film
from hamscope.errors import UserError
from hamscope.models import BY_NAME
from hamscope.sim import percolation, rfim, rng
from hamscope.sim.ising import LATTICES, IsingBatch
from hamscope.sim.lattice import Lattice, Slab

MAX_MAGNETIZATION = 0.85
# From a random start; `_clean` says what they are worth.
_SWEEPS = {2: 500, 3: 200}
_UPDATES = {2: 400, 3: 40}
# Along the open z of a three-dimensional sample.  A clean one goes through all of them in every sweep.
_MOST_PLANES = {"clean": 32, "random-field": 128}


class States(NamedTuple):
    """The patterns of a film, `images` (F, S, S) uint8, 1 = up, and what is known of each, shape (F,).

    The sample temperature in `kelvin`, `direction` (+1 heating, -1 cooling), the model's `parameter` (T/J, R/J or p)
    and the `field` H/J (0 where the model has none).
    """

    images: np.ndarray
    kelvin: np.ndarray
    direction: np.ndarray
    parameter: np.ndarray
    field: np.ndarray


def draw_states(film: Film) -> States:
    """Draw the patterns of a film; UserError where the sample has no states between, or turns beyond `field`."""
    return {"clean": _clean, "random-field": _random_field, "percolation": _percolation}[BY_NAME[film.model].family](
        film
    )


def film_key(film: Film, use: str) -> np.uint64:
    """The key of the random numbers of one use in a film."""
    return rng.stream_key(film.seed, "film", film.model, use)


def _steps(first: float, last: float, count: int) -> np.ndarray:
    """Equal steps from first to last, shape (count,); a single frame stands in the middle."""
    return np.linspace(first, last, count) if count > 1 else np.array([(first + last) / 2])


def _there_and_back(film: Film, ends: tuple[float, float]) -> np.ndarray:
    """Equal steps from the first to the second of `ends`, in a loop back again; shape (F,)."""
    if film.sweep == "up":
        return _steps(*ends, film.frames)
    heated = _steps(*ends, film.frames // 2)
    return np.concatenate([heated, heated[::-1]])


def _direction(film: Film) -> np.ndarray:
    """+1 for heated frames, -1 for cooled ones; shape (F,), int64."""
    direction = np.ones(film.frames, np.int64)
    if film.sweep != "up":
        direction[film.frames // 2 :] = -1
    return direction


def _lattice(film: Film) -> Lattice:
    """The sample behind a film: S x S periodic sites, in 3D with S / 2 planes along the open z, up to a limit."""
    model = BY_NAME[film.model]
    if model.dimension == 2:
        return Lattice.of_dimension(2, film.size)
    return Lattice((min(film.size // 2, _MOST_PLANES[model.family]), film.size, film.size), (False, True, True))


def _shown(sites: np.ndarray) -> np.ndarray:
    """The plane that the microscope sees, shape (S, S): all of a 2D lattice, the surface z = 0 of a 3D one."""
    return sites[:, 0, :] if sites.shape[1] == 1 else sites[0]


def _random_field(film: Film) -> States:
    """One sample through its field, up and, in a loop, down again."""
    disorder, _ = film.parameter_range
    slab, count = Slab(_lattice(film)), film.frames if film.sweep == "up" else film.frames // 2
    h = rfim.random_fields(slab, disorder, film_key(film, "fields"), 0)
    flips = rfim.flip_fields(slab, h)
    fields = _branch(film, slab, flips, count)
    images = [_shown(flips) <= field for field in fields]
    if film.sweep != "up":
        # In the sample of -h_i at -H, up is what is down here.
        up = flips > fields[-1] if film.sweep == "minor loop" else None
        flips = rfim.flip_fields(slab, np.negative(h, out=h), up)
        falling = -_branch(film, slab, flips, count, -1)
        images += [_shown(flips) > -field for field in falling]
        fields = np.concatenate([fields, falling])
    kelvin = _steps(*film.kelvin, film.frames)
    if film.field is not None:
        kelvin = np.interp(fields, film.field, film.kelvin)
    return States(np.array(images, np.uint8), kelvin, _direction(film), np.full(film.frames, float(disorder)), fields)


def _branch(film: Film, slab: Slab, flips: np.ndarray, count: int, sign: int = 1) -> np.ndarray:
    """The fields of one branch as its sweep sees them, ascending: H, or -H where `sign` is -1; shape (f,)."""
    if film.frames_at == "range":
        return np.sort(sign * _steps(*film.field, count))
    ends, _ = rfim.stable_states(slab, flips, np.array([-MAX_MAGNETIZATION, MAX_MAGNETIZATION]))
    if len(ends) == 1:
        raise UserError(
            f"film {film.name!r}: parameter = {film.parameter:g} is so little disorder that one avalanche turns the "
            f"whole sample of {film.size} x {film.size} sites; give a larger R/J, or another seed or size"
        )
    low, high = np.sort(sign * ends)
    if film.field is not None and not film.field[0] <= low <= high <= film.field[1]:
        raise UserError(
            f"film {film.name!r}: the sample turns from H/J = {low:.4f} to {high:.4f}, which is not within "
            f"field = [{film.field[0]:g}, {film.field[1]:g}]; write a wider field"
        )
    return _steps(*ends, count)


def _clean(film: Film) -> States:
    """Equilibrium lattices, up to 64 in a batch.

    In 2D, 500 sweeps with 400 Wolff updates from a random start: 64 lattices of 256 x 256 at Tc then had 0.7082 +-
    0.0009 per bond (exact: 0.7083), and <m^2> = 0.277 +- 0.013, as after 200 updates.  In 3D the sample has at most 32
    planes and gets 200 sweeps with 40 updates, which keeps a film of 256 x 256 within a minute.  At Tc neighbours on
    the surface then had 0.2756 +- 0.0006 from a random start and 0.2753 +- 0.0005 from an ordered one.  Lattices of
    760 sites a side above Tc (T = 2.30 and 2.33, or 4.53 to 4.65) then had the energies of 4 to 16 times as many
    sweeps within two errors, and their structure factors at long waves within 10 % and 2.3 errors.
    """
    parameter = _there_and_back(film, film.parameter_range)
    slab, dimension = Slab(_lattice(film)), BY_NAME[film.model].dimension
    images = np.empty((film.frames, film.size, film.size), np.uint8)
    for first in range(0, film.frames, LATTICES):
        temperatures = parameter[first : first + LATTICES]
        batch = IsingBatch(slab, temperatures, film_key(film, "chain"), first // LATTICES)
        batch.run(_SWEEPS[dimension], _UPDATES[dimension])
        for bit in range(temperatures.size):
            images[first + bit] = _shown(batch.spins(bit))
    return _without_field(film, images, parameter)


def _percolation(film: Film) -> States:
    """Coins; a plane of a 3D lattice of them is a 2D one."""
    parameter = _there_and_back(film, film.parameter_range)
    lattice, key = Lattice.of_dimension(2, film.size), film_key(film, "sites")
    images = np.stack([_shown(percolation.sites(lattice, p, key, k)) for k, p in enumerate(parameter)])
    return _without_field(film, images, parameter)


def _without_field(film: Film, images: np.ndarray, parameter: np.ndarray) -> States:
    return States(images, _there_and_back(film, film.kelvin), _direction(film), parameter, np.zeros(film.frames))
