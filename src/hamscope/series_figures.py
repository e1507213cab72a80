"""Domains and series as PNG files: cluster sizes, outlines, C(r), the hysteresis loop, distance with error bars.

Style and colours are those of figures.py.  Lines are drawn within the range of their fit only, faint where the fit is
marked as doubtful, and there is none where no exponent is known.  Text is fixed: no name from a file is drawn.

Shape letters: F = frames.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from hamscope.correlations import Correlation
from hamscope.domains import Phase
from hamscope.figures import COLOURS, FAINT, INK, STYLE, WIDTH, save
from hamscope.hysteresis import Loop, branches
from hamscope.power_laws import Binned, Exponent
from hamscope.separated import Closest

# Two phases, and two directions, that stay apart in grey as well.
PHASE_STYLE = {"up": ("#1F2A36", "o"), "down": ("#C8772B", "s")}
WARM, COLD = "#BB4430", "#3A6EA5"


def number(exponent: Exponent) -> str:
    """An exponent as text: value +- error with two digits of the error, or a dash."""
    if not np.isfinite(exponent.value):
        return "no fit"
    return _value(exponent.value, exponent.error) + (" (curved)" if exponent.reason else "")


def cluster_sizes(phases: dict[str, Phase], path: str | Path) -> None:
    """n(s) of both phases with error bars and the fitted power laws, {"up": Phase, "down": Phase}."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH * 0.62, 4.4), layout="constrained")
        axis = figure.subplots()
        for name, phase in phases.items():
            colour, marker = PHASE_STYLE[name]
            sizes, tau = phase.sizes, phase.tau
            # On a logarithmic axis a bar that reaches zero would have no end.
            low = np.minimum(sizes.error, 0.9 * sizes.density)
            axis.errorbar(
                sizes.size, sizes.density, (low, sizes.error), fmt=marker, markersize=4.5, linewidth=1, capsize=2,
                color=colour, label=f"{name}: \u03c4 = {number(tau)}",
            )  # fmt: skip
            if np.isfinite(tau.value):
                inside = (sizes.size >= tau.low) & (sizes.size <= tau.high)
                # The height of the line is that of the points, weighted by their counts.
                weight = np.sqrt(sizes.count[inside])
                height = np.average(np.log(sizes.density[inside] * sizes.size[inside] ** tau.value), weights=weight)
                _power(axis, tau, np.exp(height), -tau.value, colour)
        axis.set(xlabel="size s of a cluster (pixels)", ylabel="clusters per pixel and size, n(s)")
        _logarithmic(axis)
        axis.legend(fontsize=9)
        save(figure, path)


def outlines(phases: dict[str, Phase], path: str | Path) -> None:
    """Pixels, hull and accessible perimeter of the clusters against their radius of gyration, with the fitted lines."""
    shown = (
        ("volume", "pixels s", "d_v"), ("hull", "hull h (sides of pixels)", "d_h"),
        ("perimeter", "accessible perimeter p (sides)", "d_p"),
    )  # fmt: skip
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.9), layout="constrained")
        for axis, (kind, title, symbol) in zip(figure.subplots(1, 3), shown):
            for name, phase in phases.items():
                exponent: Exponent = getattr(phase, kind)
                _scaling(axis, getattr(phase, f"{kind}_points"), exponent, name, symbol)
            axis.set(xlabel="radius of gyration R (pixels)", ylabel=title)
            _logarithmic(axis)
            axis.legend(fontsize=8)
        save(figure, path)


def _scaling(axis, points: Binned, exponent: Exponent, name: str, symbol: str) -> None:
    colour, marker = PHASE_STYLE[name]
    bars = points.y * np.expm1(np.minimum(points.error, 3))  # of the logarithm; a larger one leaves the picture
    label = f"{name}: {symbol} = {number(exponent)}"
    axis.errorbar(
        points.x, points.y, (points.y * -np.expm1(-points.error), bars), fmt=marker, markersize=4.5, linewidth=1,
        capsize=2, color=colour, label=label,
    )  # fmt: skip
    if np.isfinite(exponent.value):
        inside = (points.x >= exponent.low) & (points.x <= exponent.high)
        height = np.mean(np.log(points.y[inside] / points.x[inside] ** exponent.value))
        _power(axis, exponent, np.exp(height), exponent.value, colour)


def _power(axis, exponent: Exponent, amplitude: float, slope: float, colour: str) -> None:
    x = np.array([exponent.low, exponent.high])
    axis.plot(x, amplitude * x**slope, color=colour, linewidth=1.3, alpha=0.45 if exponent.reason else 1.0)


def _logarithmic(axis) -> None:
    """Logarithmic axes with plain numbers where the range is short; without a cluster, a line that says so."""
    if not any(len(line.get_xdata()) for line in axis.get_lines()):
        axis.set(xticks=[], yticks=[])
        axis.text(0.5, 0.5, "no cluster lies wholly within", transform=axis.transAxes, ha="center", color=FAINT)
        return
    axis.set(xscale="log", yscale="log")
    for scale in (axis.xaxis, axis.yaxis):
        low, high = scale.get_view_interval()
        if high < 3e3 * low:
            scale.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
            scale.set_major_formatter(lambda value, _: f"{value:g}")
        scale.set_minor_locator(LogLocator(subs=np.arange(2, 10)))
        scale.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)


def correlations(shown: list[Correlation], labels: list[str], path: str | Path) -> None:
    """C(r) and G(r) / G(0) of a few frames, with error bars and a mark at each correlation length that is known."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, max(len(shown), 1)))
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for one, label, colour in zip(shown, labels, colours):
            _band(left, one.r, one.raw, one.raw_error, colour, label)
            if not one.connected[0] > 0:
                continue
            _band(right, one.r, one.connected / one.connected[0], one.error / one.connected[0], colour, None)
            if np.isfinite(one.efold.value) and not one.efold.reason:
                right.plot(one.efold.value, np.exp(-1), marker="o", color=colour, markersize=6, clip_on=False)
        right.axhline(np.exp(-1), color=FAINT, linewidth=0.8, linestyle=":")
        right.annotate("1/e", (1, np.exp(-1)), xycoords=("axes fraction", "data"), va="bottom", ha="right", fontsize=8)
        for axis, title in ((left, "C(r)"), (right, "G(r) / G(0)")):
            axis.axhline(0, color=FAINT, linewidth=0.8)
            axis.set(xlabel="distance r (pixels)", ylabel=title, xlim=(0, None), ylim=(None, 1.03))
            axis.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize=9)
        save(figure, path)


def _band(axis, r, values, error, colour, label) -> None:
    axis.plot(r, values, color=colour, linewidth=1.5, label=label)
    error = np.nan_to_num(error)
    axis.fill_between(r, values - error, values + error, color=colour, alpha=0.2, linewidth=0)


def hysteresis(
    x: np.ndarray, m: np.ndarray, direction: np.ndarray, found: list[Loop], path: str | Path,
    error: np.ndarray | None = None, title: str = "temperature (K)",
) -> None:  # fmt: skip
    """The magnetization of a series (F,) against x, heating and cooling, with the coercive points of its loops.

    `error` (F,) is that of m; the bar of a coercive point is its own.
    """
    x, m, direction = np.asarray(x, float), np.asarray(m, float), np.asarray(direction)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH * 0.7, 4.2), layout="constrained")
        axis = figure.subplots()
        named = set()
        for run in branches(direction, least=1):
            sign = int(direction[run[0]])
            name, colour, marker = _direction(sign)
            bars = None if error is None else np.nan_to_num(np.asarray(error, float)[run])
            label = None if sign in named else name
            named.add(sign)
            axis.errorbar(x[run], m[run], bars, color=colour, marker=marker, markersize=4, linewidth=1.2, capsize=2,
                          elinewidth=0.8, linestyle="--" if sign < 0 else "-", label=label)  # fmt: skip
        points = [(point, sign) for loop in found for point, sign in ((loop.heating, 1), (loop.cooling, -1))]
        for point, sign in points:
            if np.isfinite(point.value):
                style = {"color": _direction(sign)[1], "marker": "D", "markersize": 8, "markeredgecolor": "white"}
                label = f"{_direction(sign)[0]}: {_value(point.value, point.error)}"
                axis.errorbar(point.value, 0, xerr=point.error, capsize=4, linewidth=1.6, zorder=5, linestyle="",
                              label=label if len(found) == 1 else None, **style)  # fmt: skip
        axis.axhline(0, color=FAINT, linewidth=0.8)
        axis.set(xlabel=title, ylabel="magnetization m = 2 up \u2212 1", ylim=(-1.08, 1.08))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
        save(figure, path)


def _direction(sign: int) -> tuple[str, str, str]:
    return {1: ("heating", WARM, "o"), -1: ("cooling", COLD, "s")}.get(sign, ("direction unknown", INK, "o"))


def _value(value: float, error: float) -> str:
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 4)) if error > 0 else 2
    return f"{value:.{digits}f} \u00b1 {error:.{digits}f}".replace("-", "\u2212")


def distances(
    x: np.ndarray, distance: np.ndarray, error: np.ndarray, direction: np.ndarray, model: str, path: str | Path,
    closest: Closest | None = None, title: str = "temperature (K)",
) -> None:  # fmt: skip
    """Mean distance of the windows of a series to the cloud of `model` (F,), with errors (F,), heating and cooling.

    Shaded: the frames that cannot be told from the closest one.
    """
    x, distance, direction = np.asarray(x, float), np.asarray(distance, float), np.asarray(direction)
    error = np.nan_to_num(np.asarray(error, float))
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH * 0.7, 3.9), layout="constrained")
        axis = figure.subplots()
        for run in branches(direction, least=1):
            sign = int(direction[run[0]])
            style = {"marker": _direction(sign)[2], "linestyle": "--" if sign < 0 else "-"}
            axis.errorbar(x[run], distance[run], error[run], color=COLOURS[model], markersize=4.5, linewidth=1.4,
                          capsize=2.5, elinewidth=1, **style)  # fmt: skip
        if closest is not None:
            axis.plot(x[closest.place], distance[closest.place], marker="o", markersize=11, markerfacecolor="none",
                      markeredgecolor=INK, linestyle="", label="closest")  # fmt: skip
            axis.plot(x[closest.alike], np.full(len(closest.alike), 0.02), "|", color=INK, markersize=9,
                      transform=axis.get_xaxis_transform(), label="as close, within two errors")  # fmt: skip
        axis.axhline(1, color=FAINT, linewidth=0.8, linestyle=":", label="1 sigma")
        for sign in np.unique(direction[np.isfinite(distance)]):
            name, _, marker = _direction(int(sign))
            axis.plot([], [], color=COLOURS[model], marker=marker, linestyle="--" if sign < 0 else "-", label=name)
        axis.set(xlabel=title, ylabel=f"distance to the cloud of {model} (sigma)", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
        save(figure, path)
