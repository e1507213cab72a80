"""Exact answers of the clean Ising model that the samplers are held against; J = k_B = 1.

Lattices are those of `hamscope.sim.lattice`: a periodic axis of length 2 has two bonds between its two sites.
"""

import numpy as np
from numba import njit

# Onsager, doi:10.1103/PhysRev.65.117; and Ferrenberg, Xu and Landau, Kc = 0.221654626(5),
# doi:10.1103/PhysRevE.97.043301.
TC_2D = 2 / np.log1p(np.sqrt(2))
TC_3D = 1 / 0.221654626
# Site percolation on the square lattice, doi:10.1103/PhysRevE.78.031136, and on the simple cubic lattice,
# doi:10.1103/PhysRevE.87.052107.
PC_2D, PC_3D = 0.592746, 0.311608
_MOST_SITES = 16


def kaufman_energy(n: int, m: int, temperature: float) -> float:
    """Energy per site of the n x m periodic square lattice at T/J [1]_, [2]_.

    With K = 1/T, cosh g_q = cosh 2K coth 2K - cos(pi q / n) and g_0 = 2K + ln tanh K,

        Z = (2 sinh 2K)**(n m / 2) (C_odd + S_odd + C_even + S_even) / 2,

    where C and S are the products of 2 cosh(m g_q / 2) and 2 sinh(m g_q / 2) over the n odd or even q < 2n.
    The energy is -d(ln Z)/dK / (n m).  The products are kept as logarithms.

    References
    ----------
    .. [1] Kaufman, doi:10.1103/PhysRev.76.1232.
    .. [2] Ferdinand and Fisher, doi:10.1103/PhysRev.185.832, for the derivative.
    """
    k = 1 / temperature
    sinh, cosh = np.sinh(2 * k), np.cosh(2 * k)
    slope = 2 * cosh * (1 - 1 / sinh**2)
    logs, slopes, signs = [], [], []
    for first in (1, 0):
        q = np.arange(first, 2 * n, 2)
        g = np.arccosh(np.maximum(cosh * cosh / sinh - np.cos(np.pi * q / n), 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            dg = slope / np.sinh(g)
        if first == 0:
            # The one g that changes its sign, at Tc.
            g[0], dg[0] = 2 * k + np.log(np.tanh(k)), 2 + 2 / sinh
        half = m * np.abs(g) / 2
        logs.append(np.sum(half + np.log1p(np.exp(-2 * half))))
        slopes.append(np.sum(m * dg / 2 * np.tanh(m * g / 2)))
        signs.append(1.0)
        # S without its first factor, so that g_0 = 0 needs no quotient.
        rest = np.sum(half[1:] + np.log(-np.expm1(-2 * half[1:])))
        rest_slope = np.sum(m * dg[1:] / 2 / np.tanh(half[1:]))
        logs.append(rest + half[0])
        signs.append(np.sign(g[0]) * -np.expm1(-2 * half[0]))
        slopes.append((m * dg[0] / 2 * (1 + np.exp(-2 * half[0])), rest_slope))
    weights = np.exp(np.array(logs) - max(logs))
    total = derivative = 0.0
    for weight, d, sign in zip(weights, slopes, signs):
        total += weight * sign
        derivative += weight * (d[0] + sign * d[1] if isinstance(d, tuple) else d)
    return -(cosh / sinh + derivative / total / (n * m))


def state_energies(shape, periodic) -> np.ndarray:
    """Energies of all states of a lattice of N <= 16 sites, shape (2**N,).

    Bit k of the number of a state is the spin of site k, in the order of C; 1 = up.  Raises ValueError for more sites.
    """
    n_sites = int(np.prod(shape))
    if n_sites > _MOST_SITES:
        raise ValueError(f"{shape} has {n_sites} sites; at most {_MOST_SITES} can be enumerated")
    states = np.arange(2**n_sites, dtype=np.uint32)
    sites = np.arange(n_sites).reshape(shape)
    energies = np.zeros(states.size)
    for axis, (length, wraps) in enumerate(zip(shape, periodic)):
        others = np.roll(sites, -1, axis)
        for site, other in zip(sites.ravel(), others.ravel()):
            inside = site // int(np.prod(shape[axis + 1 :])) % length < length - 1
            if inside or (wraps and length > 1):
                energies += 2.0 * (((states >> np.uint32(site)) ^ (states >> np.uint32(other))) & 1) - 1
    return energies


def enumerate_ising(shape, periodic, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Boltzmann probabilities and energies of all states, each of shape (2**N,); states as in `state_energies`."""
    energies = state_energies(shape, periodic)
    weights = np.exp(-(energies - energies.min()) / temperature)
    return weights / weights.sum(), energies


def layered_energy(planes: int, width: int, temperature: float) -> float:
    """Energy per site of (planes, width, width) at T/J, open along axis 0, periodic along axes 1 and 2; width <= 4.

    From the transfer matrix between planes, ln Z differentiated numerically in K = 1/T (error below 1e-9).
    """
    k, step = 1 / temperature, 3e-4

    def log_z(coupling: float) -> float:
        root = _half_plane(width, coupling)
        v, scale = _transfer(root, root, coupling, planes - 1)
        return scale + np.log(np.sum(v * root))

    slope = 8 * (log_z(k + step) - log_z(k - step)) - (log_z(k + 2 * step) - log_z(k - 2 * step))
    return -slope / (12 * step) / (planes * width * width)


def cube_energy(width: int, temperature: float) -> float:
    """Energy per site of the periodic cube of 2 or 4 sites a side at T/J.

    A plane is in state s with probability (T**width)_ss / Z, T the transfer matrix.  As T is symmetric, the diagonal
    element is the square of T**(width / 2) e_s; one state of every class of equivalent states is enough.  The bonds
    inside the planes are two thirds of all bonds, which are equivalent in a cube.
    """
    if width % 2:
        raise ValueError(f"width = {width}: the trace is taken for even widths; try {width + 1}")
    k = 1 / temperature
    root = _half_plane(width, k)
    states, sizes = _state_classes(width)
    logs = np.empty(states.size)
    for number, state in enumerate(states):
        v, scale = _transfer(np.eye(1, root.size, state)[0], root, k, width // 2)
        logs[number] = np.log(sizes[number]) + 2 * scale + np.log(np.sum(v * v))
    probabilities = np.exp(logs - logs.max())
    energies = state_energies((width, width), (True, True))[states]
    return 1.5 * (probabilities @ energies) / probabilities.sum() / width**2


def _half_plane(width: int, k: float) -> np.ndarray:
    """V^(1/2), the square root of the Boltzmann weight of the bonds inside a plane, for all of its states."""
    return np.exp(-k / 2 * state_energies((width, width), (True, True)))


def _transfer(v: np.ndarray, root: np.ndarray, k: float, times: int) -> tuple[np.ndarray, float]:
    """T**times v = exp(scale) v', with T = V^(1/2) W V^(1/2) and W the bonds between two planes."""
    scale = 0.0
    for _ in range(times):
        v = root * v
        _join_planes(v, np.exp(k), np.exp(-k))
        largest = v.max()
        v, scale = root * v / largest, scale + np.log(largest)
    return v, scale


@njit(cache=True)
def _join_planes(v, equal, opposite):
    """Multiply v in place by the matrix (equal, opposite; opposite, equal) of every site."""
    stride = 1
    while stride < v.size:
        for first in range(0, v.size, 2 * stride):
            for state in range(first, first + stride):
                down, up = v[state], v[state + stride]
                v[state] = equal * down + opposite * up
                v[state + stride] = opposite * down + equal * up
        stride *= 2


def _state_classes(width: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest state of every class under the symmetries of a periodic plane, and the sizes of the classes."""
    n_sites = width * width
    states = np.arange(2**n_sites, dtype=np.int64)
    sites = np.arange(n_sites).reshape(width, width)
    lowest = states.copy()
    turned = [np.rot90(flipped, turns) for flipped in (sites, sites.T) for turns in range(4)]
    for image in (np.roll(t, (dy, dx), (0, 1)) for t in turned for dy in range(width) for dx in range(width)):
        moved = np.zeros_like(states)
        for site, other in zip(sites.ravel(), image.ravel()):
            moved |= ((states >> site) & 1) << other
        lowest = np.minimum(lowest, np.minimum(moved, 2**n_sites - 1 - moved))
    return np.unique(lowest, return_counts=True)
