"""Curves and sample images of simulated lattices as PNG files.

What a picture shows is a `Panel` of `Series`: plain numbers, which are drawn here and written to the table of the
report by `series_rows`, so nothing is plotted that is not in the table.  Colours and style are those of figures.py.
"""

from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hamscope.figures import FAINT, INK, STYLE, WIDTH, save, two_levels

_SEQUENCE = matplotlib.colormaps["viridis"]


@dataclass(frozen=True)
class Series:
    """One curve: `x`, `y` and, where there is one, `error` of y, all (K,); `lattices` (K,) behind each point.

    `look` is "points" (with error bars), "mark" (a published value), "dots" (many, small), "line" or "dashed".
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    lattices: np.ndarray | None = None
    look: str = "points"
    colour: str = INK


@dataclass(frozen=True)
class Panel:
    """One set of axes: title, names of the axes, "linear" or "log" scales, and what is drawn."""

    title: str
    x: str
    y: str
    series: list[Series] = field(default_factory=list)
    x_scale: str = "linear"
    y_scale: str = "linear"


def sequence(count: int) -> list[str]:
    """`count` colours from dark to bright, for curves of rising parameter."""
    return [to_hex(_SEQUENCE(place)) for place in np.linspace(0.05, 0.85, max(count, 1))]


def panels(shown: list[Panel], path: str | Path) -> None:
    """The panels side by side, at most three in a row, four as two rows of two."""
    columns = 2 if len(shown) in (2, 4) else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.6 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, panel in zip(grid, shown):
            _draw_panel(axis, panel)
        for axis in grid[len(shown) :]:
            axis.set_axis_off()
        save(figure, path)


def _draw_panel(axis, panel: Panel) -> None:
    for series in panel.series:
        x, y = np.asarray(series.x, float), np.asarray(series.y, float)
        style = {"color": series.colour, "label": series.label or None}
        if series.look == "points":
            error = None if series.error is None else np.nan_to_num(series.error)
            axis.errorbar(x, y, error, fmt="o", markersize=4, linewidth=1.1, capsize=2.5, **style)
        elif series.look == "mark":
            axis.plot(x, y, linestyle="", marker="D", markersize=5, **style)
        elif series.look == "dots":
            axis.plot(x, y, linestyle="", marker="o", markersize=2.2, alpha=0.5, markeredgewidth=0, **style)
        else:
            axis.plot(x, y, linewidth=1.1, linestyle="-" if series.look == "line" else "--", **style)
    # Without a single positive point there is no logarithmic scale.
    points = [np.asarray(series.y, float) for series in panel.series if series.look == "points"]
    positive = np.concatenate([[], *points])
    positive = positive[positive > 0]
    y_scale = panel.y_scale if positive.size else "linear"
    axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, xscale=panel.x_scale, yscale=y_scale)
    axis.grid(alpha=0.3)
    x = np.concatenate([[], *(np.asarray(series.x, float) for series in panel.series)])
    if panel.x_scale == "linear" and x.size and np.ptp(x) < 1e-3 * np.abs(x).max():
        # One value of the parameter: no magnifying glass on the digits in which a published one differs.
        axis.set_xlim(0.99 * x.mean(), 1.01 * x.mean())
    if panel.x_scale == "linear":
        axis.locator_params(axis="x", nbins=6)
    if y_scale == "log":
        # A bar that reaches below zero has no end on this scale, and would stretch it without end.
        axis.set_ylim(positive.min() / 3, positive.max() * 3)
    if any(series.label for series in panel.series):
        axis.legend(fontsize=8, handlelength=1.6, framealpha=0.85, frameon=True, edgecolor="none")


def samples(rows: list[list[np.ndarray]], labels: list[str], names: list[str], path: str | Path) -> None:
    """Two-level images in rows of equal length; `labels` beneath the last row, a name beside each row (Fig. 1)."""
    columns = len(labels)
    side = WIDTH / max(columns, 6)
    with matplotlib.rc_context(STYLE):
        figure = Figure((side * columns + 0.3, side * len(rows) + 0.5), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for own, images, name in zip(grid, rows, names):
            for axis, image in zip(own, images):
                axis.imshow(two_levels(image), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set(visible=True, color=FAINT)
            own[0].set_ylabel(name, fontsize=9)
        for axis, label in zip(grid[-1], labels):
            axis.set_xlabel(label, fontsize=9)
        save(figure, path)


def series_rows(name: str, figure: str, shown: list[Panel]) -> list[list]:
    """Lines of the table: class, figure, panel, series, x, y, error, lattices; what is not known is left empty."""
    rows = []
    for panel in shown:
        for series in panel.series:
            for k, (x, y) in enumerate(zip(series.x, series.y)):
                error = "" if series.error is None or not np.isfinite(series.error[k]) else number(series.error[k])
                count = "" if series.lattices is None else int(series.lattices[k])
                rows.append([name, figure, panel.title, series.label, number(x), number(y), error, count])
    return rows


def number(value: float) -> str:
    """Ten digits, which are more than any of these numbers has."""
    return f"{float(value):.10g}"
