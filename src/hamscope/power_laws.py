"""Exponents of power laws with fit range and error, and what makes one doubtful.

Sizes.  A discrete power law between two cut-offs, p(s) ~ s^-tau for s = low ... high, has as its most likely tau [1]_
that with

    sum_s p(s) ln s = sum_c w_c ln s_c / sum_c w_c,

over the objects c (weights w_c = 1 where every object is as likely to be seen).  With d_c = ln s_c less that mean, and
V the variance of ln s under the law, its error is sqrt(sum_c w_c^2 d_c^2) / (V sum_c w_c).  Without weights, and where
the law holds, that is the textbook 1 / sqrt(n V).

Scaling.  y ~ x^D: means of ln x and ln y in logarithmic bins of x, and a straight line through them, every bin with
equal weight: weighted by their errors the many small objects, where lattice effects are, would decide alone.

Both errors take the objects as independent.  Neither knows how far off the law is: the exponents of the lower and of
the upper half of the range (on the logarithmic axis) are given as well.  Where they disagree the line is curved, and
the exponent is that of nothing.  Less than one decade gives no exponent at all.

Shape letters: n = objects; B = bins.

References
----------
.. [1] Clauset, Shalizi and Newman, SIAM Rev. 51, 661 (2009), doi:10.1137/070710111.
"""

from typing import NamedTuple

import numpy as np

DECADE = 10.0
FEWEST = 30  # objects in the range of a fit of sizes, and in each half of it
FEWEST_IN_BIN, FEWEST_BINS = 3, 4
PER_DECADE = 5  # bins of a scaling plot
COVERED = 0.9  # of a decade, which the points of a line have to span with the width of their bins
CURVED = 3.0  # standard errors between the two halves
_NAN = float("nan")


class Exponent(NamedTuple):
    """An exponent: `value` +- `error` (one standard error) from `count` objects within `low` ... `high`.

    `lower` and `upper` are (value, error) of the two halves of the range, NaN where one is too thinly populated.
    `reason` is empty, or says why `value` is NaN, or why it should not be believed.
    """

    value: float
    error: float
    low: float
    high: float
    count: int
    lower: tuple[float, float] = (_NAN, _NAN)
    upper: tuple[float, float] = (_NAN, _NAN)
    reason: str = ""


class Binned(NamedTuple):
    """A scaling plot, all (B,): geometric means of x and y within each bin, the error of ln y, and how many objects."""

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray
    count: np.ndarray


def size_exponent(sizes: np.ndarray, low: float, high: float, weights: np.ndarray | None = None) -> Exponent:
    """tau of p(s) ~ s^-tau, low <= s <= high, of `sizes` (n,) >= 1 by maximum likelihood.

    `weights` (n,) say how many objects each stands for, by default one.
    """
    sizes = np.asarray(sizes, float)
    weights = np.ones(sizes.size) if weights is None else np.asarray(weights, float)
    low, high = (float(np.ceil(low)), float(np.floor(high))) if np.isfinite((low, high)).all() else (_NAN, _NAN)
    inside = (sizes >= low) & (sizes <= high) & (weights > 0)
    count = int(inside.sum())
    reason = _too_little(low, high, count)
    if reason:
        return Exponent(_NAN, _NAN, low, high, count, reason=reason)
    logs, weights = np.log(sizes[inside]), weights[inside]
    value, error = _most_likely(logs, weights, low, high)
    middle = np.floor(np.sqrt(low * high))
    below = logs < np.log(middle + 0.5)
    halves = [_most_likely(logs[own], weights[own], *ends) if own.sum() >= FEWEST else (_NAN, _NAN)
              for own, ends in ((below, (low, middle)), (~below, (middle + 1, high)))]  # fmt: skip
    return Exponent(value, error, low, high, count, *halves, reason=_curved(*halves))


def _most_likely(logs: np.ndarray, weights: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """tau and its error from ln s of the sizes within the range."""
    support = np.log(np.arange(low, high + 1))
    target = np.average(logs, weights=weights)
    tau = 2.0
    for _ in range(50):  # Newton's method on a concave function; five steps are usual
        law = np.exp(-tau * (support - support[0]))
        law /= law.sum()
        mean = law @ support
        variance = law @ (support - mean) ** 2
        step = (mean - target) / variance
        tau += np.clip(step, -1, 1)
        if abs(step) < 1e-9:
            break
    spread = np.sqrt(np.sum(weights**2 * (logs - target) ** 2))
    return float(tau), float(spread / (variance * weights.sum()))


def scaling_exponent(
    x: np.ndarray, y: np.ndarray, low: float, high: float, weights: np.ndarray | None = None
) -> Exponent:
    """D of y ~ x^D within low <= x <= high; `x`, `y` and `weights` are (n,), and what is not positive is left out."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    weights = np.ones(x.size) if weights is None else np.asarray(weights, float)
    inside = (x >= low) & (x <= high) & (y > 0) & (weights > 0)
    count = int(inside.sum())
    reason = _too_little(low, high, count)
    if not reason:
        points = binned(x[inside], y[inside], weights[inside], low, high)
        reason = _too_narrow(points)
    if reason:
        return Exponent(_NAN, _NAN, low, high, count, reason=reason)
    below = points.x <= np.sqrt(low * high)
    halves = [_line(Binned(*(part[own] for part in points))) for own in (below, ~below)]
    return Exponent(*_line(points), low, high, count, *halves, reason=_curved(*halves))


def binned(x: np.ndarray, y: np.ndarray, weights: np.ndarray, low: float, high: float) -> Binned:
    """Five bins a decade of x from low to high, those that hold three objects or more; all (n,), only positive ones."""
    inside = (x >= low) & (x <= high) & (y > 0) & (weights > 0)
    x, y, weights = (np.asarray(values, float)[inside] for values in (x, y, weights))
    if not (x.size and 0 < low < high):
        return Binned(*np.zeros((3, 0)), np.zeros(0, int))
    bins = max(1, round(PER_DECADE * np.log10(high / low)))
    place = np.minimum((np.log(x / low) / np.log(high / low) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    kept = count >= FEWEST_IN_BIN
    # Empty bins are dropped below.
    total = np.where(kept, np.bincount(place, weights, bins), 1.0)
    log_x, log_y = (np.bincount(place, weights * np.log(values), bins) / total for values in (x, y))
    spread = np.bincount(place, weights**2 * (np.log(y) - log_y[place]) ** 2, bins) / total**2
    error = np.sqrt(spread * count / np.maximum(count - 1, 1))
    return Binned(np.exp(log_x[kept]), np.exp(log_y[kept]), error[kept], count[kept])


def _line(points: Binned) -> tuple[float, float]:
    """Slope and error of a straight line through the logarithms, NaN with fewer than two points."""
    if len(points.x) < 2:
        return _NAN, _NAN
    lever = np.log(points.x) - np.log(points.x).mean()
    lever /= np.sum(lever**2)
    return float(lever @ np.log(points.y)), float(np.sqrt(np.sum((lever * points.error) ** 2)))


def _too_little(low: float, high: float, count: int) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return "no range to fit"
    if high < DECADE * low:
        return f"{low:.3g} to {high:.3g} is less than one decade"
    return f"{count} objects are fewer than {FEWEST}" if count < FEWEST else ""


def _too_narrow(points: Binned) -> str:
    """Why the points are no range: bins at the ends may be empty, and a point stands for the width of its bin."""
    if len(points.x) < FEWEST_BINS:
        return f"{len(points.x)} bins with {FEWEST_IN_BIN} objects are fewer than {FEWEST_BINS}"
    covered = points.x[-1] / points.x[0] * 10 ** (1 / PER_DECADE)
    return "" if covered > COVERED * DECADE else f"the points cover a factor of {covered:.2g}, less than one decade"


def _curved(lower: tuple[float, float], upper: tuple[float, float]) -> str:
    apart, error = abs(lower[0] - upper[0]), np.hypot(lower[1], upper[1])
    if not apart > CURVED * error:
        return ""
    return f"curved: {lower[0]:.2f} +- {lower[1]:.2f} in the lower half, {upper[0]:.2f} +- {upper[1]:.2f} in the upper"
