"""Does the distance of the logits to the training cloud measure closeness to criticality, as [1]_ conjectures?

Series of known truth (`assess.critical_series`) go through a network; each image gets its distance to the nearest
training point of the class that drew it, in sigmas of that cloud, and each value of the parameter the mean of it.

The rule, which does not look at results.  The conjecture *holds* on a series if

1.  the 90 % interval of the place of the least mean distance reaches into the critical value +- the band of the
    series, which allows for the shift on a finite sample, and
2.  the rank correlation (Spearman) of the mean distance with |t| = |x - x_c| / x_c is above 0.8 on both sides of x_c.

Otherwise it *does not hold*.  Beside |t| stands a length that is measured from the images, the yardstick, whose
logarithm has to fall as the distance rises.  Beside both stands the trivial alternative, that images are near to the
cloud if they look like training images: the distance |x - c| to the centre c of the range that was trained on.
Where a range is centred on the critical value the two cannot be told apart, and that is said.  P-3D is the control:
a plane of it is plain noise, which is the same on both sides of the threshold, so a minimum there can only come from
the training range.

Intervals are percentiles of a bootstrap over images: columns are drawn anew, the same ones for distance and length.

Shape letters: n = values; k = images of each; B = bootstrap samples.

References
----------
.. [1] Basak et al. (2022), IV and V, doi:10.48550/arXiv.2211.01490.
"""

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from scipy.stats import rankdata

from hamscope.assess.critical_series import PLANS, Series, series
from hamscope.data.symmetry import prepare
from hamscope.figures import COLOURS, FAINT, INK, STYLE, WIDTH, save
from hamscope.learn.bundle import Bundle
from hamscope.learn.network import predict
from hamscope.models import CLASS_NAMES

__all__ = ["PLANS", "Result", "Series", "assess", "distances", "figure", "judge", "series"]

SAMPLES = 1000
LEAST_RANK = 0.8
# Orders of the values as alike as this are one order.
ONE_ORDER = 0.95
_SHORTEST = 0.1
_LIMITS = (5, 95)


class Result(NamedTuple):
    """A series, its distances (n, k), and what `judge` finds."""

    series: Series
    distance: np.ndarray
    findings: dict


def assess(
    bundle: Bundle, names=tuple(PLANS), seed: int = 1, size: int | None = None, images: int = 24
) -> list[Result]:
    """All series through a bundle; images have the size of its window unless `size` is given."""
    results = []
    for name in names:
        drawn = series(name, seed, size or bundle.window, images)
        distance = distances(bundle, drawn)
        results.append(Result(drawn, distance, judge(distance, drawn)))
    return results


def distances(bundle: Bundle, drawn: Series) -> np.ndarray:
    """Distance of every image to the cloud of the class that drew it, shape (n, k), in sigmas of the cloud."""
    n, k, size, _ = drawn.images.shape
    images = drawn.images.reshape(n * k, size, size)
    logits = predict(bundle.network, prepare(images, bundle.network.arguments["symmetry"]))
    own = bundle.clouds.distance(logits)[:, CLASS_NAMES.index(drawn.plan.model)]
    return own.astype(float).reshape(n, k)


def judge(distance: np.ndarray, drawn: Series, seed: int = 1, samples: int = SAMPLES) -> dict:
    """Whether the conjecture holds on a series, by the rule of the module.

    Parameters
    ----------
    distance : ndarray, shape (n, k)
        Of every image to the cloud.
    drawn : Series
    seed, samples
        Of the bootstrap.

    Returns
    -------
    dict
        Numbers with an interval are (value, low, high), 90 %; x_c itself counts on both sides.

        minimum : where the mean distance is least; at_critical : whether rule 1 is met
        below, above : {"t", "xi"}, rank correlation of the distance with |t| and with -log(length) on that side
        whole : {"t", "xi", "centre"}, the same over all values, and with |x - c|
        lead : whole["t"] - whole["centre"]
        yardstick : (below, above), rank correlation of -log(length) with |t|: is the yardstick one?
        explains : "criticality", "training range", "neither leads", or "one order" (not to be told apart)
        verdict : "holds" or "does not hold"

    Raises
    ------
    ValueError
        Distances of another shape than the images.
    """
    distance = np.asarray(distance, float)
    if distance.shape != drawn.images.shape[:2]:
        raise ValueError(f"distances of shape {distance.shape} for images of shape {drawn.images.shape[:2]}")
    k = distance.shape[1]
    # Row 0 is the data themselves.
    columns = np.concatenate([np.arange(k)[None], np.random.default_rng(seed).integers(0, k, (samples, k))])
    mean = distance[:, columns].mean(axis=2).T
    # Without a pattern there is no length: the shortest.
    shortness = -np.log(np.nan_to_num(drawn.length(columns), nan=_SHORTEST))
    t, x = drawn.reduced, drawn.parameter
    centre = np.abs(x - np.mean(drawn.plan.trained))
    minimum = _interval(x[mean.argmin(axis=1)])
    found = {"minimum": minimum}
    low, high = drawn.critical - drawn.plan.band, drawn.critical + drawn.plan.band
    found["at_critical"] = bool(minimum[1] <= high and minimum[2] >= low)
    sides = {"below": x <= drawn.critical + 1e-9, "above": x >= drawn.critical - 1e-9}
    # The states of a sweep stop at m = 0 only nearly.
    if drawn.plan.symbol == "H":
        middle = np.abs(x) == np.abs(x).min()
        sides = {name: side | middle for name, side in sides.items()}
    for name, side in sides.items():
        found[name] = {
            "t": _interval(rank_correlation(mean[:, side], t[side])),
            "xi": _interval(rank_correlation(mean[:, side], shortness[:, side])),
        }
    found["yardstick"] = tuple(float(rank_correlation(shortness[:1, side], t[side])[0]) for side in sides.values())
    with_t, with_centre = rank_correlation(mean, t), rank_correlation(mean, centre)
    found["whole"] = {
        "t": _interval(with_t), "xi": _interval(rank_correlation(mean, shortness)), "centre": _interval(with_centre),
    }  # fmt: skip
    found["lead"] = _interval(with_t - with_centre)
    found["explains"] = _leader(found["lead"], float(rank_correlation(t[None], centre)[0]))
    ranks = [found[name]["t"][0] for name in sides]
    found["verdict"] = "holds" if found["at_critical"] and min(ranks) > LEAST_RANK else "does not hold"
    return found


def rank_correlation(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rho of each row of `values` (B, n) with `others`, (n,) or (B, n); shape (B,).

    0 where one of them does not vary.
    """
    one = rankdata(values, axis=1)
    two = rankdata(np.broadcast_to(others, values.shape), axis=1)
    one, two = one - one.mean(axis=1, keepdims=True), two - two.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.sum(one**2, axis=1) * np.sum(two**2, axis=1))
    return np.divide(np.sum(one * two, axis=1), scale, out=np.zeros(len(one)), where=scale > 0)


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """The first of the values (1 + B,), that of the data, and the limits of the rest."""
    low, high = np.percentile(values[1:], _LIMITS, method="inverted_cdf")
    return float(values[0]), float(low), float(high)


def _leader(lead: tuple[float, float, float], alike: float) -> str:
    """Which of |t| and |x - c| orders the distances better; `alike` is their own rank correlation."""
    if alike > ONE_ORDER:
        return "one order"
    if lead[1] > 0:
        return "criticality"
    return "training range" if lead[2] < 0 else "neither leads"


def table(results: list[Result]) -> list[list[str]]:
    """One line a series under a line of titles: the findings as text."""
    rows = [["series", "critical", "trained", "minimum", "rho |t| below", "above", "rho xi below", "above",
             "rho centre", "rho |t|", "explains", "verdict"]]  # fmt: skip
    for drawn, _, found in results:
        sides = [_text(found[side][name]) for name in ("t", "xi") for side in ("below", "above")]
        low, high = drawn.plan.trained
        rows.append([drawn.name, f"{drawn.critical:.3g}", f"{low:g} to {high:g}", _text(found["minimum"]), *sides,
                     _text(found["whole"]["centre"]), _text(found["whole"]["t"]), found["explains"],
                     found["verdict"]])  # fmt: skip
    return rows


def _text(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


_AXES = {"T": "T/J", "R": "R/J", "H": "magnetization of the sample", "p": "p"}


def figure(results: list[Result], path: str | Path) -> None:
    """Mean distance and length against the parameter, a panel a series, as a PNG file."""
    columns = 3
    rows = -(-(len(results) + 1) // columns)
    with matplotlib.rc_context(STYLE):
        drawing = Figure((WIDTH, 2.9 * rows), layout="constrained")
        grid = drawing.subplots(rows, columns, squeeze=False).ravel()
        for axis, result in zip(grid, results):
            _draw(axis, result)
        for axis in grid[len(results) :]:
            axis.set_axis_off()
        grid[len(results)].legend(handles=_handles(), loc="center", fontsize=9)
        save(drawing, path)


def _draw(axis, result: Result) -> None:
    drawn, distance, found = result
    x = drawn.parameter
    picks = np.random.default_rng(1).integers(0, distance.shape[1], (SAMPLES, distance.shape[1]))
    low, high = np.percentile(distance[:, picks].mean(axis=2), _LIMITS, axis=1)
    colour = COLOURS[drawn.plan.model]
    axis.axvspan(*drawn.plan.trained, color="#EFEBDD", zorder=0)
    axis.axvline(drawn.critical, color=INK, linestyle="--", linewidth=0.9)
    axis.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
    axis.plot(x, distance.mean(axis=1), color=colour, marker="o", markersize=3, linewidth=1.3, zorder=3)
    axis.set(yscale="log", xlabel=_AXES[drawn.plan.symbol], ylabel="distance (sigma)")
    axis.set_title(f"{drawn.name}: {found['verdict']}")
    other = axis.twinx()
    other.plot(x, drawn.length(), color=FAINT, marker="s", markersize=2.5, linewidth=0.9)
    other.set(yscale="log", ylabel="length (px)")
    for ticks in (axis.yaxis, other.yaxis):
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ticks.set_major_formatter(StrMethodFormatter("{x:g}"))
        ticks.set_minor_formatter(NullFormatter())
    other.spines["right"].set_visible(True)
    other.tick_params(colors=FAINT)
    other.yaxis.label.set_color(FAINT)


def _handles() -> list:
    line = {"markersize": 4, "linewidth": 1.2}
    return [
        Line2D([], [], color=INK, marker="o", label="mean distance to the cloud, 90 %", **line),
        Line2D([], [], color=FAINT, marker="s", label="length measured from the images", **line),
        Line2D([], [], color=INK, linestyle="--", linewidth=0.9, label="critical value"),
        Patch(color="#EFEBDD", label="range trained on"),
    ]
