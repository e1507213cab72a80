"""What the observables of simulated lattices are held against: exact results, and published numbers with their DOI.

An exact result holds for the lattice as it was simulated, and a z-score against it is a test.  A published number is
that of an infinite lattice: what separates a finite one from it is physics as well as chance.  J = k_B = 1.
"""

from typing import NamedTuple

import numpy as np

from hamscope.config import CleanIsing, Simulate
from hamscope.models import BY_NAME
from hamscope.sim.exact import PC_2D, TC_2D, TC_3D, kaufman_energy
from hamscope.sim.lattice import Lattice


class Published(NamedTuple):
    """A number from the literature: what it is, its value (and last digits' error), and the source."""

    what: str
    value: float
    error: float
    source: str


KAUFMAN = "Kaufman, doi:10.1103/PhysRev.76.1232"
YANG = "Yang, doi:10.1103/PhysRev.85.808"
SITES = "independent sites"

BINDER_2D = Published(
    "Binder cumulant at Tc, 2D, periodic square", 0.61069, 0.00001,
    "Kamieniarz and Bloete, doi:10.1088/0305-4470/26/2/009",
)  # fmt: skip
BINDER_3D = Published(
    "Binder cumulant at Tc, 3D, periodic cube", 0.46548, 0.00005,
    "Ferrenberg, Xu and Landau, doi:10.1103/PhysRevE.97.043301",
)  # fmt: skip
ENERGY_3D = Published(
    "exchange energy at Tc, 3D: -3 x 0.3302022 J a site", -3 * 0.3302022, 3 * 0.0000005,
    "Hasenbusch, doi:10.1103/PhysRevB.85.174421",
)  # fmt: skip
# C(r) ~ A r^-1/4 at Tc of the infinite square lattice.
CORRELATION_2D = Published(
    "amplitude A of C(r) = A r^-1/4 at Tc, 2D", 0.70338, 0.0,
    "Wu, McCoy, Tracy and Barouch, doi:10.1103/PhysRevB.13.316",
)  # fmt: skip
TAU_ISING_2D = Published(
    "exponent tau of the sizes of geometric clusters at Tc, 2D: 379/187", 379 / 187, 0.0,
    "Stella and Vanderzande, doi:10.1103/PhysRevLett.62.1067",
)  # fmt: skip
TAU_PERCOLATION_2D = Published(
    "Fisher exponent tau of the cluster sizes at p_c, 2D: 187/91", 187 / 91, 0.0,
    "Nienhuis, doi:10.1007/BF01010400; Stauffer, doi:10.1016/0370-1573(79)90060-7",
)  # fmt: skip
CROSSING_2D = Published(
    "probability that a cluster spans the open square at p_c: 1/2", 0.5, 0.0,
    "Cardy, doi:10.1088/0305-4470/25/4/009",
)  # fmt: skip
PERKOVIC = "Perkovic, Dahmen and Sethna, doi:10.1103/PhysRevB.59.6106"
DISORDER_3D = Published("critical disorder R_c of the field sweep, 3D", 2.16, 0.03, PERKOVIC)
FIELD_3D = Published("critical field H_c at R_c, 3D", 1.435, 0.004, PERKOVIC)
TAU_AVALANCHES_3D = Published(
    "exponent tau + sigma beta delta of the avalanche sizes of a whole sweep at R_c, 3D", 2.03, 0.03, PERKOVIC
)

# The published numbers that belong to each class; which are compared depends on what was simulated.
OF_CLASS = {
    "C-2D": (BINDER_2D, CORRELATION_2D, TAU_ISING_2D),
    "C-3D": (BINDER_3D, ENERGY_3D),
    "RF-2D": (),
    "RF-3D": (DISORDER_3D, FIELD_3D, TAU_AVALANCHES_3D),
    "P-2D": (TAU_PERCOLATION_2D, CROSSING_2D),
    "P-3D": (),
    "P*": (),
}
CRITICAL = {"C-2D": TC_2D, "C-3D": TC_3D, "RF-3D": DISORDER_3D.value, "P-2D": PC_2D}
_NU = {"C-2D": 1.0, "C-3D": 0.629912, "P-2D": 4 / 3}
# How far from criticality |x / x_c - 1| L^(1 / nu) may be for a comparison with a published value at x_c.
NEAR = 0.01


def is_near(name: str, parameter: float, length: int) -> bool:
    """Whether a lattice of `length` sites a side at `parameter` is critical to all that its size can tell."""
    if name not in _NU:
        return False
    return abs(parameter / CRITICAL[name] - 1) * length ** (1 / _NU[name]) < NEAR


def bonds_per_site(name: str, config: Simulate) -> float:
    """Bonds of the lattice over its sites; open faces have fewer."""
    lattice = Lattice.of_dimension(BY_NAME[name].dimension, config.image_size, config.boundary)
    return sum((1 if wraps else 1 - 1 / n) for n, wraps in zip(lattice.shape, lattice.periodic) if n > 1)


def exact_energy(name: str, config: Simulate, parameter: np.ndarray) -> tuple[np.ndarray, str] | None:
    """Exchange energy per site at each parameter and its source; None where no exact result is known."""
    section = config.classes[name]
    if BY_NAME[name].family == "percolation":
        return -bonds_per_site(name, config) * (2 * parameter - 1) ** 2, SITES
    if name == "C-2D" and isinstance(section, CleanIsing) and section.field == 0:
        temperatures, place = np.unique(parameter, return_inverse=True)
        length = config.image_size
        return np.array([kaufman_energy(length, length, t) for t in temperatures])[place], KAUFMAN
    return None


def spontaneous_magnetization(temperature: np.ndarray) -> np.ndarray:
    """m = (1 - sinh(2/T)^-4)^(1/8) of the infinite square lattice below Tc, 0 above; doi:10.1103/PhysRev.85.808."""
    return np.maximum(1 - np.sinh(2 / np.asarray(temperature, float)) ** -4, 0) ** 0.125
