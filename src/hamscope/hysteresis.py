"""The loop of a film: magnetization against temperature (or field), coercive points, width and area.

    m = 2 up - 1,        coercive point: where m = 0,        area = integral of |m_cooling - m_heating| dx,

with x the temperature in kelvin, or whatever drives the sample (the area has a sign: negative where the sample runs
ahead).  A branch is a run of frames of one direction.  Without
noise m rises (or falls) steadily along a branch; a measured branch is made steady by isotonic regression [1]_, the
nearest steady curve in least squares, so that it crosses zero once whatever the noise does.  The error of the crossing
has three parts, added in squares: dx / sqrt(12) from the distance dx of the two frames about it, in which nothing was
measured; the error of m over the slope; and half the distance between the first and the last crossing of the raw curve.

The error of m is that of another place on the sample (`magnetization_error`).  The frames of a film show one place, so
along a branch it is common to all of them: it moves the coercive point and does not roughen the curve.

The area is that of the range of x that both branches have; a square loop has area = 2 width.  Where the branches do
not meet at the ends of that range the loop is open, and the area is that of the part that was measured.  Its error is
that of m, taken as common to all frames of a branch, and that of the steps: within a step of the sizes dx and dm the
curve lies anywhere in their rectangle.

Shape letters: F = frames; B = those of a branch.

References
----------
.. [1] Barlow et al., Statistical Inference under Order Restrictions (Wiley, 1972); `scipy.optimize`.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

HEATING, COOLING = 1, -1
OPEN = 0.1  # difference in m at an end of the loop, above which it is open
_NAN = float("nan")


class Coercive(NamedTuple):
    """Where a branch crosses m = 0: x and its standard error, how often the raw curve does; why there is none."""

    value: float
    error: float
    crossings: int = 0
    reason: str = ""


class Loop(NamedTuple):
    """One loop: the coercive points of its two branches, width and area with their standard errors.

    Width (heating less cooling) and area are positive where the sample lags behind, and NaN where they are not known.
    `gaps` are m of the heating branch less m of the cooling one at the lower and the upper end of their common range,
    `rows` the places of the frames of the two branches, and `reason` says what is missing or open.
    """

    heating: Coercive
    cooling: Coercive
    width: float
    width_error: float
    area: float
    area_error: float
    gaps: tuple[float, float]
    rows: tuple[np.ndarray, np.ndarray]
    reason: str = ""


def branches(direction: np.ndarray, least: int = 2) -> list[np.ndarray]:
    """Runs of frames of one direction (F,), +1, -1 or 0 where it is not known: their places, `least` frames each."""
    direction = np.asarray(direction)
    runs = np.split(np.arange(len(direction)), np.flatnonzero(np.diff(direction)) + 1)
    return [run for run in runs if len(run) >= least]


def magnetization_error(image: np.ndarray, mask: np.ndarray | None = None, blocks: int = 4) -> float:
    """Standard error of the magnetization of a two-level frame (H, W), 1 = up, from blocks x blocks parts of it.

    By the spread of their means, each weighted by its pixels of the sample; too small where a domain is larger than a
    block, NaN with fewer than two parts.
    """
    spins = np.where(np.asarray(image) != 0, 1.0, -1.0)
    sample = np.ones(spins.shape) if mask is None else 1.0 - np.asarray(mask, bool)
    cuts = [np.linspace(0, side, blocks + 1).astype(int)[:-1] for side in spins.shape]
    sums, counts = (
        np.add.reduceat(np.add.reduceat(v, cuts[0], 0), cuts[1], 1).ravel() for v in (spins * sample, sample)
    )
    used = counts > 0
    n = int(used.sum())
    if n < 2:
        return _NAN
    weight = counts[used] / counts.sum()
    means = sums[used] / counts[used]
    spread = np.sum(weight**2 * (means - weight @ means) ** 2)
    return float(np.sqrt(spread * n / (n - 1)))


def steady(x: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A branch (B,) in the order of x, one point an x, and m as the nearest curve that only rises, or only falls."""
    x, m = np.asarray(x, float), np.asarray(m, float)
    known = np.isfinite(x) & np.isfinite(m)
    places, own, count = np.unique(x[known], return_inverse=True, return_counts=True)
    if not len(places):
        return places, places
    means = np.bincount(own, m[known]) / count
    fits = [isotonic_regression(means, weights=count, increasing=rises).x for rises in (True, False)]
    return places, min(fits, key=lambda fit: np.sum(count * (fit - means) ** 2))


def coercive_point(x: np.ndarray, m: np.ndarray, error: np.ndarray | None = None) -> Coercive:
    """Where the branch x, m (B,) crosses m = 0, with the errors of m (B,) where they are known."""
    x, m = np.asarray(x, float), np.asarray(m, float)
    places, smooth = steady(x, m)
    if len(places) < 2:
        return Coercive(_NAN, _NAN, reason="fewer than two frames with a known temperature and magnetization")
    if smooth.min() > 0 or smooth.max() < 0:
        ends = sorted((smooth[0], smooth[-1]))
        return Coercive(_NAN, _NAN, reason=f"m goes from {ends[0]:.2f} to {ends[1]:.2f} and does not cross zero")
    value, below, above, slope = _crossing(places, smooth)
    raw = _raw_crossings(x, m)
    noise = 0.0
    if error is not None:
        known = np.isfinite(x) & np.isfinite(error)
        if known.any():
            order = np.argsort(x[known])
            noise = np.interp(value, x[known][order], np.asarray(error, float)[known][order])
    parts = ((above - below) / np.sqrt(12), noise / abs(slope), np.ptp(raw) / 2 if len(raw) > 1 else 0.0)
    return Coercive(value, float(np.sqrt(np.sum(np.square(parts)))), len(raw))


def _crossing(x: np.ndarray, m: np.ndarray) -> tuple[float, float, float, float]:
    """Place, the frames about it and the slope there, of a steady curve that reaches zero or crosses it."""
    sign = 1.0 if m[-1] >= m[0] else -1.0
    rising = sign * m
    zero = np.flatnonzero(rising == 0)
    first = max(int(np.searchsorted(rising, 0.0, "left")) - 1, 0)
    last = min(int(np.searchsorted(rising, 0.0, "right")), len(x) - 1)
    # Where several frames have m = 0 the crossing is in their middle.
    if zero.size:
        value = (x[zero[0]] + x[zero[-1]]) / 2
    else:
        value = x[first] - rising[first] * (x[last] - x[first]) / (rising[last] - rising[first])
    slope = (rising[last] - rising[first]) / (x[last] - x[first])
    return float(value), float(x[first]), float(x[last]), float(sign * slope) if slope else _NAN


def _raw_crossings(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Every place where the curve crosses zero in the order of x, by straight lines."""
    known = np.isfinite(x) & np.isfinite(m)
    order = np.argsort(x[known], kind="stable")
    x, m = x[known][order], m[known][order]
    k = np.flatnonzero((m[:-1] < 0) != (m[1:] < 0))
    return x[k] - m[k] * (x[k + 1] - x[k]) / (m[k + 1] - m[k])


def loops(x: np.ndarray, m: np.ndarray, direction: np.ndarray, error: np.ndarray | None = None) -> list[Loop]:
    """A loop for every two branches of opposite direction that follow each other, of a series of F frames, all (F,)."""
    runs = [run for run in branches(direction) if direction[run[0]]]
    pairs = [(one, other) for one, other in zip(runs, runs[1:]) if direction[one[0]] != direction[other[0]]]
    return [_loop(*map(np.asarray, (x, m)), error, *sorted(pair, key=lambda run: -direction[run[0]])) for pair in pairs]


def _loop(x: np.ndarray, m: np.ndarray, error: np.ndarray | None, heating: np.ndarray, cooling: np.ndarray) -> Loop:
    error = np.zeros(len(x)) if error is None else np.nan_to_num(np.asarray(error, float))
    points = [coercive_point(x[run], m[run], error[run]) for run in (heating, cooling)]
    width = points[0].value - points[1].value
    area, area_error, gaps, reason = _area(*((x[run], m[run], error[run]) for run in (heating, cooling)))
    missing = [f"no coercive point on {name}: {point.reason}"
               for name, point in zip(("heating", "cooling"), points) if point.reason]  # fmt: skip
    return Loop(
        *points, float(width), float(np.hypot(points[0].error, points[1].error)), area, area_error, gaps,
        (heating, cooling), "; ".join([*missing, *([reason] if reason else [])]),
    )  # fmt: skip


def _area(heating: tuple, cooling: tuple) -> tuple[float, float, tuple[float, float], str]:
    """Area, its error, the gaps and what is wrong, of two branches (x, m, error)."""
    curves = [_curve(*branch) for branch in (heating, cooling)]
    nothing = _NAN, _NAN, (_NAN, _NAN)
    if min(len(curve[0]) for curve in curves) < 2:
        return *nothing, "a branch has fewer than two known temperatures"
    low, high = max(curve[0][0] for curve in curves), min(curve[0][-1] for curve in curves)
    if not low < high:
        return *nothing, "the branches have no range in common"
    grid = np.unique(np.concatenate([[low, high], *(curve[0] for curve in curves)]).clip(low, high))
    up, down = (np.interp(grid, curve[0], curve[1]) for curve in curves)
    errors = [np.interp(grid, curve[0], curve[2]) for curve in curves]
    rises = 1.0 if sum(curve[1][-1] - curve[1][0] for curve in curves) >= 0 else -1.0
    area = rises * np.trapezoid(down - up, grid)
    steps = sum(np.sum((np.diff(x) * np.diff(y)) ** 2) / 12 for x, y, _ in curves)
    error = np.sqrt(steps + sum(np.trapezoid(one, grid) ** 2 for one in errors))
    gaps = float(up[0] - down[0]), float(up[-1] - down[-1])
    apart = max(map(abs, gaps))
    reason = f"open: at an end the branches differ by {apart:.2f} in m" if apart > OPEN else ""
    return float(area), float(error), gaps, reason


def _curve(x: np.ndarray, m: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A branch in the order of x with the mean of m and of its error where several frames have one x."""
    known = np.isfinite(x) & np.isfinite(m)
    places, own, count = np.unique(x[known], return_inverse=True, return_counts=True)
    return places, *(np.bincount(own, values[known], len(places)) / count for values in (m, error))
