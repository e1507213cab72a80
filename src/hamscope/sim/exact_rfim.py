"""Exact and deliberately naive answers of the zero-temperature random field that `rfim` is held against; J = 1.

The hysteresis of a chain is known in closed form (Shukla).  On any other lattice the answer is a sweep that does to
the letter what `rfim` says in words: it looks at every site, again and again.  Neither shares code with `rfim`.
"""

import numpy as np
from scipy.special import ndtr


def chain_magnetization(field, disorder: float):
    """Magnetization per site of an infinite chain, swept up from all down to the field H/J, at R/J > 0 [1]_.

    With p_k the probability that a site with k of its two neighbours up has h_i >= 2 - 2 k - H, a neighbour of a
    site that is still down is up with the probability P*, and the two neighbours are independent of each other:

        P* = p_1 P* + p_0 (1 - P*),                  hence  P* = p_0 / (1 - p_1 + p_0),
        P(up) = p_0 (1 - P*)^2 + 2 p_1 P* (1 - P*) + p_2 P*^2,       m = 2 P(up) - 1.

    `field` is a number or an array; the result has its shape.

    References
    ----------
    .. [1] Shukla, Physica A 233, 235 (1996); reviewed in arXiv:cond-mat/0401252.
    """
    p0, p1, p2 = (ndtr((np.asarray(field) + 2 * k - 2) / disorder) for k in range(3))
    # 1 - p_1 written as a tail: at small R it is far below the rounding of p_1.
    up_beside = p0 / (ndtr(-np.asarray(field) / disorder) + p0)
    up = p0 * (1 - up_beside) ** 2 + 2 * p1 * up_beside * (1 - up_beside) + p2 * up_beside**2
    return 2 * up - 1


def local_fields(up: np.ndarray, fields: np.ndarray, periodic) -> np.ndarray:
    """The sum of the neighbouring spins and h_i at every site, shape of `up`, in units of J; H is not in it.

    A site is stable at H where its spin has the sign of H plus this.

    Parameters
    ----------
    up : ndarray, shape (n0, n1, n2), bool
    fields : ndarray, shape (n0, n1, n2), float64
        The random fields h_i.
    periodic : three bools
        Boundary condition of each axis.
    """
    spins = np.where(up, 1, -1)
    sums = np.zeros(up.shape, np.int64)
    for axis, wraps in enumerate(periodic):
        for step in (1, -1):
            others = np.roll(spins, step, axis)
            if not wraps:
                np.moveaxis(others, axis, 0)[0 if step == 1 else -1] = 0
            sums += others
    return fields + sums


def relax(up: np.ndarray, fields: np.ndarray, periodic, field: float, generator) -> np.ndarray:
    """The stable state that is reached from `up` at H = `field`, one flip at a time, the next site drawn at random.

    Spins flip up only: `up` has to come from a lower field.  Shapes as in `local_fields`.
    """
    up = up.copy()
    while True:
        unstable = np.flatnonzero(~up & (local_fields(up, fields, periodic) + field >= 0))
        if unstable.size == 0:
            return up
        up.flat[generator.choice(unstable)] = True


def brute_force_sweep(fields: np.ndarray, periodic, up: np.ndarray | None = None) -> np.ndarray:
    """The field at which every site flips: H rises to the site that is nearest to flipping, whose avalanche runs out.

    Parameters and shapes as in `local_fields`; the sweep starts from all down, or from the state `up`.  Returns F,
    shape (n0, n1, n2), float64, in units of J: minus infinity where the site was up at the start.
    """
    up = np.zeros(fields.shape, bool) if up is None else up.copy()
    flips = np.where(up, -np.inf, np.inf)
    while not up.all():
        field = np.where(up, np.inf, -local_fields(up, fields, periodic)).min()
        while (new := ~up & (-local_fields(up, fields, periodic) <= field)).any():
            up |= new
            flips[new] = field
    return flips
