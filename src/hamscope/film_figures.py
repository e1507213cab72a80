"""A series of frames as plots: shares of the classes and distance to the clouds against temperature, where known.

Heating and cooling are told apart: two panels of shares, solid and dashed lines of distances.  Each plot is drawn wide
or narrow (for a telephone), and returns where every frame stands in the picture, so that a page can mark the frame that
it shows.

Shape letters: n = frames of the series.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from hamscope.data.results import Results
from hamscope.figures import COLOURS, FAINT, INK, STYLE, WIDTH, darker, save
from hamscope.models import CLASS_NAMES
from hamscope.verdict import MIDDLE, middle_frames

NARROW = 4.4  # inches; shown on 360 pixels its letters are as large as the page's small print
BRANCHES = {1: "heating", -1: "cooling", 0: ""}
_TEMPERATURE = "temperature (K)"
_MANY = 60  # frames from which bars stand without a gap


@dataclass(frozen=True)
class Axis:
    """Where the frames of a series stand: `x` (n,), the title of the axis, and (name, places) of each branch."""

    x: np.ndarray
    title: str
    branches: list[tuple[str, np.ndarray]]

    @property
    def columns(self) -> list["Axis"]:
        """This axis, or one a branch, left to right, where the gap between two is wider than both: a major loop."""
        if len(self.branches) == 2:
            ends = sorted((self.x[own].min(), self.x[own].max(), k) for k, (_, own) in enumerate(self.branches))
            (low, inner, first), (outer, high, second) = ends
            if outer - inner > (inner - low) + (high - outer):
                return [Axis(self.x, self.title, [self.branches[k]]) for k in (first, second)]
        return [self]


def series_axis(results: Results, rows: list[int]) -> Axis:
    """Temperature where it is known of all frames and no two of a branch share one; else the number of the frame."""
    direction, kelvin = results.direction[rows], results.temperature[rows]
    here = [(name, direction == sign) for sign, name in BRANCHES.items()]
    branches = [(name, np.flatnonzero(own)) for name, own in here if own.any()]
    if np.isfinite(kelvin).all() and all(len(np.unique(kelvin[own])) == len(own) for _, own in branches):
        return Axis(kelvin, _TEMPERATURE, branches)
    index = np.asarray(results.index)[rows]
    x = index if (np.diff(index) > 0).all() else np.arange(1, len(rows) + 1)
    return Axis(x.astype(float), "frame", [("", np.arange(len(rows)))])


def fractions(results: Results, rows: list[int], path: str | Path, narrow: bool = False) -> list[list[float]]:
    """Shares of the classes in every frame, stacked: bright where confident, dark where not (Figs. 7, 9).

    Returns
    -------
    list of [x, top, bottom]
        The place of every frame as parts of the picture's width and height, from its left upper corner.
    """
    where = series_axis(results, rows)
    with matplotlib.rc_context(STYLE):
        width, height = (NARROW, 2.3) if narrow else (WIDTH, 2.5)
        figure = Figure((width, height * len(where.branches) + (1.3 if narrow else 0.8)), layout="constrained")
        shared = len(where.columns) == 1
        axes = figure.subplots(len(where.branches), 1, sharex=shared, squeeze=False)[:, 0]
        for axis, (name, own) in zip(axes, where.branches):
            _stacked(axis, results, [rows[place] for place in own], where.x[own])
            axis.set_title(name, loc="left", fontsize=9, fontweight="bold")
            axis.set(ylim=(0, 1.09), yticks=np.arange(0, 1.1, 0.25), ylabel="share of the windows")
            axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
            if where.title == "frame":
                axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes[-1].set_xlabel(where.title)
        figure.legend(handles=_share_handles(results, rows), loc="outside lower center", ncols=3 if narrow else 9,
                      handlelength=1.2, columnspacing=1.2)  # fmt: skip
        save(figure, path)
    return _places(where, {own[0]: axis for axis, (_, own) in zip(axes, where.branches)})


def distances(
    results: Results, rows: list[int], path: str | Path, model: str | None = None, error: np.ndarray | None = None,
    narrow: bool = False,
) -> list[list[float]]:  # fmt: skip
    """Mean distance of the windows to each class's cloud, and the share up, against temperature or frame (Fig. 11).

    Parameters
    ----------
    model : str, optional
        The class that is drawn strongly; by default the one that is nearest on the average.
    error : ndarray, shape (F, 7), optional
        Standard errors of the distances of all frames of the file, NaN where not known.

    Returns
    -------
    list of [x, top, bottom]
        As `fractions`.
    """
    distance, where = results.cloud_distance[rows], series_axis(results, rows)
    known = np.isfinite(distance).any(axis=0)
    model = model or _nearest(distance)
    with matplotlib.rc_context(STYLE):
        figure = Figure((NARROW, 6.0) if narrow else (WIDTH, 5.0), layout="constrained")
        columns = where.columns
        axes = figure.subplots(2, len(columns), sharex="col", sharey="row", height_ratios=(3, 1), squeeze=False)
        for part, upper, lower in zip(columns, *axes):
            for k, name in sorted(enumerate(CLASS_NAMES), key=lambda item: item[1] == model):
                style = {"linewidth": 1.1, "alpha": 0.6, "markersize": 0}
                if name == model:
                    style = {"linewidth": 2.2, "markersize": 5}
                half = None if error is None else error[rows, k]
                _lines(upper, part, distance[:, k], half, color=COLOURS[name], **style)
            _distance_scale(upper, distance)
            upper.axhline(1, color=FAINT, linewidth=0.8, linestyle=":")
            _lines(lower, part, results.up_fraction[rows], None, color=INK, linewidth=1.2, markersize=3)
            lower.axhspan((1 - MIDDLE) / 2, (1 + MIDDLE) / 2, color="#EDEAE2", zorder=0)
            lower.set(xlabel=where.title, ylim=(0, 1))
            lower.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
            if len(columns) > 1:
                upper.set_title(part.branches[0][0], loc="left", fontsize=9, fontweight="bold")
            lower.xaxis.set_major_locator(MaxNLocator(8 // len(columns), integer=where.title == "frame"))
        axes[0, 0].set(ylabel="distance to the cloud (sigma)")
        axes[1, 0].set(ylabel="share up")
        place = {"loc": "outside lower center", "ncols": 3} if narrow else {"loc": "outside right upper"}
        figure.legend(handles=_line_handles(known, model, where, error is not None), **place)
        save(figure, path)
    panels = {own[0]: upper for part, upper in zip(columns, axes[0]) for _, own in part.branches}
    places = _places(where, panels)
    bottom = 1 - axes[1, 0].get_position().y0
    return [[x, top, bottom] for x, top, _ in places]


def _stacked(axis, results: Results, rows: list[int], x: np.ndarray) -> None:
    """The bars of one branch, each as wide as half the way to its neighbours; triangles mark the middle frames."""
    left, width = _bars(x)
    share, sure = (np.nan_to_num(values[rows]) for values in (results.fractions, results.confident_fractions))
    edge = {"linewidth": 0.4, "edgecolor": "white"} if len(rows) <= _MANY else {}
    bottom = np.zeros(len(rows))
    for k, name in enumerate(CLASS_NAMES):
        for height, colour in ((sure[:, k], COLOURS[name]), (share[:, k] - sure[:, k], darker(COLOURS[name]))):
            axis.bar(left, height, width, bottom=bottom, align="edge", color=colour, **edge)
            bottom += height
    if len(rows) <= 20:
        for place in x[np.asarray(results.n_windows)[rows] == 0]:
            axis.text(place, 0.5, "no pattern", rotation=90, ha="center", va="center", fontsize=8, color=FAINT)
    middle = middle_frames(results)[rows]
    axis.scatter(x[middle], np.full(middle.sum(), 1.045), marker="v", s=16, color=INK, clip_on=False)


def _bars(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left edges and widths of bars at x (n,), in its order; a gap of the series stays a gap."""
    if len(x) == 1:
        return x - 0.5, np.ones(1)
    order = np.argsort(x)
    gaps = np.diff(x[order])
    half = np.minimum(gaps, 1.5 * np.median(gaps)) / 2
    left, right = np.empty(len(x)), np.empty(len(x))
    left[order] = x[order] - np.concatenate([half[:1], half])
    right[order] = x[order] + np.concatenate([half, half[-1:]])
    air = 0.07 if len(x) <= _MANY else 0.0
    return left + air * (right - left), (1 - 2 * air) * (right - left)


def _lines(axis, where: Axis, y: np.ndarray, half: np.ndarray | None, **style) -> None:
    """A line a branch: heating solid with full points, cooling dashed with open ones; error bars where known."""
    for name, own in where.branches:
        cooling = name == "cooling"
        look = {"linestyle": "--" if cooling else "-", "marker": "o"} | style
        look |= {"markerfacecolor": "white"} if cooling else {}
        own = own[np.argsort(where.x[own], kind="stable")] if where.title == _TEMPERATURE else own
        bars = None if half is None else np.nan_to_num(half[own])
        # On a logarithmic axis a bar that reaches zero would have no end.
        bars = bars if bars is None else (np.minimum(bars, 0.9 * np.nan_to_num(y[own])), bars)
        axis.errorbar(where.x[own], y[own], bars, elinewidth=1.0, capsize=0, **look)


def _distance_scale(axis, distance: np.ndarray) -> None:
    """A logarithmic axis where the distances span more than a factor of 20."""
    finite = distance[np.isfinite(distance) & (distance > 0)]
    if not (finite.size and finite.max() > 20 * finite.min()):
        axis.set_ylim(0, None)
        return
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _nearest(distance: np.ndarray) -> str | None:
    """The class that is nearest on the average over the frames; None where no distance is known."""
    known = np.isfinite(distance)
    if not known.any():
        return None
    mean = np.where(known, distance, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return CLASS_NAMES[int(np.argmin(np.where(known.any(axis=0), mean, np.inf)))]


def _places(where: Axis, panels: dict) -> list[list[float]]:
    """The place of every frame; `panels` has the axis of each branch by the first frame of it."""
    places = [[0.0, 0.0, 0.0]] * len(where.x)
    for _, own in where.branches:
        axis = panels[own[0]]
        box, (low, high) = axis.get_position(), axis.get_xlim()
        for place in own:
            across = box.x0 + (where.x[place] - low) / (high - low) * box.width
            places[place] = [round(float(value), 5) for value in (across, 1 - box.y1, 1 - box.y0)]
    return places


def _share_handles(results: Results, rows: list[int]) -> list:
    """Legend of the classes that occur, of the dark shade and of the triangles."""
    seen = np.nan_to_num(results.fractions[rows]).any(axis=0)
    handles = [Patch(color=COLOURS[name], label=name) for name, here in zip(CLASS_NAMES, seen) if here]
    handles.append(Patch(color="#3A3A3A", label="dark: not confident"))
    return [*handles, Line2D([], [], color=INK, marker="v", linestyle="", markersize=4, label="near the middle")]


def _line_handles(known: np.ndarray, model: str | None, where: Axis, with_error: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=COLOURS[name], linewidth=2.2 if name == model else 1.1, label=name)
        for name, here in zip(CLASS_NAMES, known)
        if here
    ]
    handles.append(Line2D([], [], color=FAINT, linestyle=":", label="1 sigma"))
    if with_error:
        handles.append(Line2D([], [], color=INK, marker="|", markersize=9, linestyle="", label="standard error"))
    if len([name for name, _ in where.branches if name]) > 1:
        handles += [
            Line2D([], [], color=INK, marker="o", markersize=4, label="heating"),
            Line2D([], [], color=INK, marker="o", markersize=4, markerfacecolor="white", linestyle="--",
                   label="cooling"),
        ]  # fmt: skip
    return handles
