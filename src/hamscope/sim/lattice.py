"""Lattices, the slabs they are cut into, and the planes that become images.

A lattice is always three-dimensional, shape (n0, n1, n2), and is cut along axis 0:

    3D sample   (L, L, L)   axis 0 = z, open (both faces free); axes 1, 2 = y, x, periodic
    2D sample   (L, 1, L)   axes 0, 2 = y, x, periodic; axis 1 has one site and no bonds
    chain       (N, 1, 1)

So one kernel serves all: a site has two neighbours on a periodic axis, one at the end of an open axis.  A periodic
axis of length 2 has two bonds between the same two sites (as every code with wrap-around neighbours has).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hamscope.errors import ConfigError


@dataclass(frozen=True)
class Lattice:
    """A lattice of `shape` (n0, n1, n2) with a boundary condition for each axis (True = periodic)."""

    shape: tuple[int, int, int]
    periodic: tuple[bool, bool, bool]

    @classmethod
    def of_dimension(cls, dimension: int, length: int, boundary: str = "open") -> "Lattice":
        """The sample geometry of S2: 2D periodic; 3D open in z (or "periodic") and periodic in x and y."""
        if dimension == 2:
            return cls((length, 1, length), (True, False, True))
        return cls((length, length, length), (boundary == "periodic", True, True))

    @property
    def n_sites(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def check_checkerboard(self, name: str = "shape") -> None:
        """Raise ConfigError unless both colours alternate across every periodic boundary."""
        bad = [n for n, periodic in zip(self.shape, self.periodic) if periodic and n % 2]
        if bad:
            even = tuple(n + n % 2 if periodic else n for n, periodic in zip(self.shape, self.periodic))
            raise ConfigError(f"{name} = {self.shape}: the checkerboard needs even periodic lengths; try {even}")


class Slab:
    """Planes start..stop of a lattice as one process holds them; here the whole lattice in one process.

    `hamscope_hpc.slabs.MpiSlab` has the same methods over the ranks of a communicator.  A field over the slab is an
    array of shape (stop - start + 2, n1, n2): its first and last plane are the halo.
    """

    def __init__(self, lattice: Lattice, start: int = 0, stop: int | None = None):
        self.lattice = lattice
        self.start = start
        self.stop = lattice.shape[0] if stop is None else stop

    @property
    def n_planes(self) -> int:
        return self.stop - self.start

    def zeros(self, dtype) -> np.ndarray:
        """A field of zeros over the slab and its halo, shape (n_planes + 2, n1, n2)."""
        return np.zeros((self.n_planes + 2, *self.lattice.shape[1:]), dtype)

    def exchange(self, field: np.ndarray) -> None:
        """Fill the halo planes of `field` from the neighbouring slabs; at an open end the halo is left as it is."""
        if self.lattice.periodic[0]:
            field[0], field[-1] = field[-2], field[1]

    def any(self, flag: bool) -> bool:
        """True where `flag` is true on any slab of the lattice."""
        return bool(flag)

    def sum(self, values):
        """Sum of numbers or arrays over the slabs."""
        return values

    def max(self, value: float) -> float:
        """Largest of a number over the slabs."""
        return value

    def swap(self, below: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Send arrays of any length, shape (n,), to the slabs below and above; return what came from there.

        All of one type; empty from an open end.
        """
        return (above, below) if self.lattice.periodic[0] else (below[:0], above[:0])

    def share_out(self, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of a float64 and an int64, shapes (n,), sorted by rank: those of equal value end up in one place."""
        return values, counts


def exchange_energy(slab: Slab, spins: np.ndarray) -> float:
    """- sum over bonds of s_i s_j, per site of the lattice, in units of J; collective over the slabs.

    `spins` (n_planes, n1, n2), 1 = up.  Fields are not in it, so it is known for every model, and of uncorrelated
    sites it is (2 p - 1)**2 times that of the ground state.
    """
    field = slab.zeros(np.uint8)
    field[1:-1] = spins
    slab.exchange(field)
    lattice, own = slab.lattice, field[1:-1]
    antiparallel = n_bonds = 0
    for axis, (length, periodic) in enumerate(zip(lattice.shape, lattice.periodic)):
        above = field[2:] if axis == 0 else np.roll(own, -1, axis)
        ends_here = not periodic and (axis != 0 or slab.stop == length)
        bonds = tuple(slice(-1 if k == axis and ends_here else None) for k in range(3))
        antiparallel += int(np.count_nonzero((own != above)[bonds]))
        n_bonds += lattice.n_sites // length * (length if periodic else length - 1)
    return (2 * slab.sum(antiparallel) - n_bonds) / lattice.n_sites


class Plane(NamedTuple):
    """One plane of a lattice: all sites with coordinate `position` on `axis`; `surface` where the face is free."""

    axis: int
    position: int
    surface: bool


def image_planes(lattice: Lattice) -> tuple[Plane, ...]:
    """The planes that become images, in order: the one of a 2D sample, or the 13 of a 3D one (S2).

    Five equally spaced along the open z with both free faces, four equally spaced along each periodic axis.  So a 3D
    lattice that is periodic in z too has 12.
    """
    n0, n1, n2 = lattice.shape
    if n1 == 1:
        return (Plane(1, 0, False),)
    if lattice.periodic[0]:
        along_z = [Plane(0, k * n0 // 4, False) for k in range(4)]
    else:
        along_z = [Plane(0, int(z), int(z) in (0, n0 - 1)) for z in np.round(np.linspace(0, n0 - 1, 5))]
    along_y = [Plane(1, k * n1 // 4, False) for k in range(4)]
    along_x = [Plane(2, k * n2 // 4, False) for k in range(4)]
    return (*along_z, *along_y, *along_x)
