"""Series of images of known truth: one parameter goes through the critical value of a model.

    T   C-2D, C-3D      equilibrium at T/J, from a random start
    R   RF-2D, RF-3D    the state nearest to m = 0 of an upward field sweep at T = 0
    H   RF-2D, RF-3D    states of an upward sweep at fixed R: the values are magnetizations, 0 is the coercive field
    p   P-2D, P-3D      coins; a plane of a three-dimensional lattice is noise, and knows nothing of its threshold

Two-dimensional samples are shown whole, three-dimensional ones by the plane in the middle of z or, in series of that
name, by their surface z = 0, where domains are smaller.  Samples in three dimensions have 32 planes, open in z and
periodic in x and y, which rounds a transition as soon as xi reaches about 10 sites.  In the H series the sample is
larger than the image, as under a microscope: four times its side in 2D, twice in 3D.

The critical disorder of the adiabatic sweep is 2.16 in 3D [1]_.  In 2D it is 0.54 for the infinite sample [2]_ and
larger the smaller the sample is: for a field of view of 100 sites [3]_ takes 1, which is what is used here.

Column k of every series is one independent lattice a value, but in the H series, where it is one sample swept through
all values.  So columns, and only they, may be drawn anew for error bars.

Shape letters: n = values of the parameter; k = images of each; S = size, their side; M = moments of an image.

References
----------
.. [1] Perkovic, Dahmen and Sethna, Phys. Rev. B 59, 6106 (1999), doi:10.1103/PhysRevB.59.6106.
.. [2] Spasojevic, Janicevic and Knezevic, Phys. Rev. Lett. 106, 175701 (2011), doi:10.1103/PhysRevLett.106.175701.
.. [3] Basak et al. (2022), doi:10.48550/arXiv.2211.01490.
"""

from typing import NamedTuple

import numpy as np

from hamscope.assess import lengths
from hamscope.errors import UserError
from hamscope.sim import percolation, rfim, rng
from hamscope.sim.branch import sites_up
from hamscope.sim.exact import PC_2D, PC_3D, TC_2D, TC_3D
from hamscope.sim.ising import LATTICES, IsingBatch
from hamscope.sim.lattice import Lattice, Slab

PLANES = 32
# From a random start.  Below Tc the cluster updates are what takes two-phase states apart.
_SWEEPS, _UPDATES = {2: 1000, 3: 400}, {2: 1000, 3: 100}
_TIMES_LARGER = {2: 4, 3: 2}


class Plan(NamedTuple):
    """A series before it is drawn.

    `model` is the class whose cloud is measured against; `symbol` T, R, H or p; `critical` the critical value and
    `band` how far a minimum may lie from it on a sample of 100 sites; `trained` the range of Table I; `values` (n,) the
    parameter; `disorder` R/J of an H series; `surface` says which plane of a three-dimensional sample is shown.
    """

    model: str
    symbol: str
    critical: float
    band: float
    trained: tuple[float, float]
    values: np.ndarray
    disorder: float = 0.0
    surface: bool = False


# Denser about the critical value, which is itself a value.  The bands: where xi exceeds a quarter of the image, or of
# the 32 planes; for random fields, by how much the disorder of spanning avalanches moves at L = 100.
PLANS = {
    "C-2D T": Plan("C-2D", "T", TC_2D, 0.06, (2.25, 2.64), np.array(
        [1.90, 2.00, 2.10, 2.16, 2.20, 2.24, TC_2D, 2.32, 2.38, 2.46, 2.56, 2.68, 2.82, 3.00, 3.20])),
    "C-3D T": Plan("C-3D", "T", TC_3D, 0.09, (4.45, 4.65), np.array(
        [4.20, 4.26, 4.32, 4.38, 4.42, 4.46, TC_3D, 4.56, 4.60, 4.66, 4.74, 4.82, 4.92, 5.05, 5.20])),
    "RF-2D R": Plan("RF-2D", "R", 1.0, 0.1, (1.0, 1.19), np.array(
        [0.60, 0.70, 0.78, 0.86, 0.92, 0.96, 1.00, 1.06, 1.12, 1.20, 1.30, 1.45, 1.65, 1.90, 2.20])),
    "RF-3D R": Plan("RF-3D", "R", 2.16, 0.15, (2.25, 2.29), np.array(
        [1.40, 1.60, 1.75, 1.88, 1.98, 2.07, 2.16, 2.22, 2.28, 2.36, 2.48, 2.62, 2.80, 3.05, 3.40])),
    "RF-2D H": Plan("RF-2D", "H", 0.0, 0.15, (-0.6, 0.6), np.array(
        [-0.95, -0.85, -0.75, -0.60, -0.45, -0.30, -0.15, 0.0, 0.15, 0.30, 0.45, 0.60, 0.75, 0.85, 0.95]), 1.1),
    "RF-3D H": Plan("RF-3D", "H", 0.0, 0.15, (-0.6, 0.6), np.array(
        [-0.95, -0.85, -0.75, -0.60, -0.45, -0.30, -0.15, 0.0, 0.15, 0.30, 0.45, 0.60, 0.75, 0.85, 0.95]), 2.27),
    "P-2D p": Plan("P-2D", "p", PC_2D, 0.02, (0.57, 0.61), np.array(
        [0.52, 0.535, 0.55, 0.56, 0.57, 0.58, PC_2D, 0.605, 0.615, 0.625, 0.64, 0.655, 0.67, 0.69])),
    "P-3D p": Plan("P-3D", "p", PC_3D, 0.02, (0.29, 0.33), np.array(
        [0.22, 0.24, 0.255, 0.27, 0.28, 0.29, 0.30, PC_3D, 0.32, 0.33, 0.34, 0.355, 0.37, 0.39])),
}  # fmt: skip


for _name in ("C-3D T", "RF-3D R", "RF-3D H"):
    PLANS[f"{_name} surface"] = PLANS[_name]._replace(surface=True)


class Series(NamedTuple):
    """A drawn series.

    Attributes
    ----------
    name, plan
        As in `PLANS`.
    parameter : ndarray, shape (n,)
        T/J, R/J or p; in an H series the mean magnetization of the samples, +-1 at saturation.
    critical : float
        Its critical value.
    images : ndarray, shape (n, k, S, S), uint8, 1 = up
    moments : ndarray, shape (n, k, M)
        What the length of each image is made of; see `length`.
    field : ndarray, shape (n,)
        Mean H/J, 0 where there is none.
    """

    name: str
    plan: Plan
    parameter: np.ndarray
    critical: float
    images: np.ndarray
    moments: np.ndarray
    field: np.ndarray

    @property
    def reduced(self) -> np.ndarray:
        """|t| = |x - x_c| / x_c, shape (n,); |m| in an H series, where x_c = 0."""
        return np.abs(self.parameter - self.critical) / (self.critical or 1.0)

    def length(self, columns: np.ndarray | None = None) -> np.ndarray:
        """The yardstick in pixels, shape (n,) from all images, (B, n) from the images `columns` (B, k) of each value.

        For coins the connectedness length, else the correlation length; both in `assess.lengths`.
        """
        drawn = np.arange(self.moments.shape[1])[None] if columns is None else columns
        found = []
        for own in self.moments:
            means = own[drawn].mean(axis=1)
            if self.plan.symbol == "p":
                found.append(lengths.moments_to_length(means))
            else:
                found.append(lengths.fit_length(means, self.images.shape[-1], _exponent(self.plan.model)))
        both = np.stack(found, axis=1)
        return both[0] if columns is None else both


def _exponent(model: str) -> float:
    """The exponent a of `assess.lengths` for planes of a model."""
    return (2.0 if model.startswith("RF") else 1.0) - (0.5 if model.endswith("3D") else 0.0)


def series(name: str, seed: int = 1, size: int = 100, images: int = 24, planes: int = PLANES) -> Series:
    """Draw one of `PLANS`; all of them take about a minute and a half of one core.

    Parameters
    ----------
    seed : int
        The same seed draws the same series; another one an independent one.
    size : int
        Side of the images, even; `planes` is the thickness of samples in three dimensions.
    images : int
        Images of each value.

    Raises
    ------
    UserError
        No series of that name, fewer than two images, or an odd size.
    """
    if name not in PLANS:
        raise UserError(f"series {name!r}: is none; write one of {', '.join(PLANS)}")
    if images < 2 or size < 8 or size % 2:
        raise UserError(
            f"series of {images} images of side {size}: two images and an even side of 8 or more are needed"
        )
    plan, key = PLANS[name], rng.stream_key(seed, "critical series", name)
    larger = _TIMES_LARGER[_dimension(plan)] if plan.symbol == "H" else 1
    if _dimension(plan) == 2 or plan.symbol == "p":
        lattice = Lattice.of_dimension(2, size * larger)
    else:
        lattice = Lattice((planes, size * larger, size * larger), (False, True, True))
    draw = {"T": _thermal, "R": _disordered, "H": _driven, "p": _coins}[plan.symbol]
    shown, parameter, field = draw(plan, lattice, key, size, images)
    flat = shown.reshape(-1, size, size)
    moments = lengths.cluster_moments(flat) if plan.symbol == "p" else lengths.spectrum(flat)
    moments = moments.reshape(*shown.shape[:2], -1)
    return Series(name, plan, parameter, plan.critical, shown, moments, field)


def _dimension(plan: Plan) -> int:
    return int(plan.model[-2])


def _shown(plan: Plan, sites: np.ndarray, size: int) -> np.ndarray:
    """The plane that is seen, shape (size, size): a corner of a 2D lattice, or of one plane of a 3D one."""
    if sites.shape[1] == 1:
        return sites[:size, 0, :size]
    return sites[0 if plan.surface else sites.shape[0] // 2, :size, :size]


def _thermal(plan: Plan, lattice: Lattice, key, size: int, images: int):
    temperatures = np.repeat(plan.values, images)
    shown = np.empty((len(temperatures), size, size), np.uint8)
    dimension = _dimension(plan)
    for first in range(0, len(temperatures), LATTICES):
        batch = IsingBatch(Slab(lattice), temperatures[first : first + LATTICES], key, first // LATTICES)
        batch.run(_SWEEPS[dimension], _UPDATES[dimension])
        for bit in range(batch.temperatures.size):
            shown[first + bit] = _shown(plan, batch.spins(bit), size)
    n = len(plan.values)
    return shown.reshape(n, images, size, size), plan.values.copy(), np.zeros(n)


def nearest_state(flips: np.ndarray, target: float) -> tuple[np.ndarray, float]:
    """The stable state of a sweep whose magnetization is nearest to `target`, bool, and a field H/J at which it stands.

    `flips` are the flip fields of a whole lattice.  A target inside an avalanche has a state before and one behind.
    """
    rank = int(sites_up(flips.size, np.array([target]))[0])
    trigger = np.partition(flips.ravel(), rank - 1)[rank - 1]
    states = flips < trigger, flips <= trigger
    away = [abs(2 * state.mean() - 1 - target) for state in states]
    return states[int(np.argmin(away))], float(trigger)


def _disordered(plan: Plan, lattice: Lattice, key, size: int, images: int):
    shown = np.empty((len(plan.values), images, size, size), np.uint8)
    field = np.zeros((len(plan.values), images))
    slab = Slab(lattice)
    for j, k in np.ndindex(field.shape):
        flips = rfim.flip_fields(slab, rfim.Gaussian(plan.values[j], key, j * images + k))
        state, field[j, k] = nearest_state(flips, 0.0)
        shown[j, k] = _shown(plan, state, size)
    return shown, plan.values.copy(), field.mean(axis=1)


def _driven(plan: Plan, lattice: Lattice, key, size: int, images: int):
    shown = np.empty((len(plan.values), images, size, size), np.uint8)
    field, reached = np.zeros((2, len(plan.values), images))
    slab = Slab(lattice)
    for k in range(images):
        flips = rfim.flip_fields(slab, rfim.Gaussian(plan.disorder, key, k))
        for j, target in enumerate(plan.values):
            state, field[j, k] = nearest_state(flips, target)
            reached[j, k] = 2 * state.mean() - 1
            shown[j, k] = _shown(plan, state, size)
    return shown, reached.mean(axis=1), field.mean(axis=1)


def _coins(plan: Plan, lattice: Lattice, key, size: int, images: int):
    shown = np.empty((len(plan.values), images, size, size), np.uint8)
    for j, k in np.ndindex(shown.shape[:2]):
        shown[j, k] = _shown(plan, percolation.sites(lattice, plan.values[j], key, j * images + k), size)
    return shown, plan.values.copy(), np.zeros(len(plan.values))
