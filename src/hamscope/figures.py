"""The figures of the paper as PNG files: learning curve, confusion, clouds, frames with their class maps.

Figure numbers are those of doi:10.48550/arXiv.2211.01490.  Every class has one colour everywhere, from the "bright"
scheme of Paul Tol's technical note SRON/EPS/TN/09-002, which stays apart for the colour-blind.  Bright means
confident, the darker shade of the same colour means not.  Text is fixed: no name from a file is drawn, since
matplotlib would read a `$` in it as mathematics.  Figures are drawn without pyplot, so there is no state to share.

Shape letters: F = frames of the results file, S = windows of a sample, n = training points of a class (NaN-filled).
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from hamscope.data.results import NO_PATTERN, Results
from hamscope.data.windows import MASKED, OUTSIDE
from hamscope.models import CLASS_NAMES
from hamscope.provenance import whole_file
from hamscope.verdict import frame_verdicts, percent

COLOURS = dict(
    zip(("C-2D", "C-3D", "RF-2D", "RF-3D", "P-2D", "P-3D", "P*"),
        ("#4477AA", "#66CCEE", "#EE6677", "#AA3377", "#228833", "#CCBB44", "#BBBBBB"))
)  # fmt: skip
EMPTY = "#F3F1EC"
UP, DOWN = "#1F2A36", "#FBFAF7"
HIDDEN = "#C9C5BC"  # what a mask takes out of a frame
INK, FAINT = "#222222", "#8A8A8A"
WIDTH = 10.5  # inches; at 150 dots an inch sharp on a page 1000 pixels wide
DPI = 150
PICTURES = 6  # frames shown as pictures; series show all
POINTS = 400  # windows drawn over the clouds; more would hide them
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT,
    "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.8, "legend.frameon": False, "figure.facecolor": "white",
}  # fmt: skip


def darker(colour: str) -> tuple[float, float, float]:
    """The shade of a class colour that stands for windows that are not confident."""
    return tuple(0.5 * part for part in to_rgb(colour))


def learning_curve(epochs: list[dict], path: str | Path) -> None:
    """Loss and error against the epoch (Fig. 5); `epochs` are the lines of the training log."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.6), layout="constrained")
        loss, error = figure.subplots(1, 2)
        x = [line["epoch"] for line in epochs]
        for part, colour, marker in (("train", "#4477AA", "o"), ("validation", "#EE6677", "s")):
            style = {"color": colour, "marker": marker, "markersize": 4, "label": {"train": "training"}.get(part, part)}
            loss.plot(x, [line[f"{part}_loss"] for line in epochs], **style)
            error.plot(x, [100 * (1 - line[f"{part}_accuracy"]) for line in epochs], **style)
        # An error of exactly zero happens, so the axis is linear close to it.
        error.set_yscale("symlog", linthresh=0.1)
        error.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        loss.set(ylabel="loss (cross-entropy)", title="Loss")
        error.set(title="Share of images in the wrong class")
        for axis in (loss, error):
            axis.set(xlabel="epoch", ylim=(0, None))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.3)
        loss.legend()
        save(figure, path)


def confusion_matrix(matrix: np.ndarray, path: str | Path) -> None:
    """Counts (7, 7): rows are the truth, columns what the network said; coloured by the share of the row."""
    matrix = np.asarray(matrix)
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    with matplotlib.rc_context(STYLE):
        figure = Figure((6.4, 5.6), layout="constrained")
        axis = figure.subplots()
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*matrix.shape):
            if matrix[row, column]:
                text = f"{matrix[row, column]:,}\n{percent(share[row, column])}"
                ink = "white" if share[row, column] > 0.5 else INK
                axis.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
        axis.set(xticks=range(7), yticks=range(7), xticklabels=CLASS_NAMES, yticklabels=CLASS_NAMES)
        axis.set(xlabel="the network says", ylabel="truth", title="Validation images")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.hlines(np.arange(0.5, 6), -0.5, 6.5, color="#DDDDDD", linewidth=0.6)
        axis.vlines(np.arange(0.5, 6), -0.5, 6.5, color="#DDDDDD", linewidth=0.6)
        save(figure, path)


def cloud_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seven orthonormal axes of logit space, those that tell the centres of the clouds apart first.

    Principal axes of the class centres: seven centres span at most six dimensions, so six axes hide nothing of how
    they lie.  Each points to the side of its largest component.

    Returns
    -------
    origin : ndarray, shape (7,)
        Mean of the centres.
    axes : ndarray, shape (7, 7)
        One axis a row.
    weights : ndarray, shape (7,)
        Share of the scatter of the centres along each axis; adds up to 1.
    """
    cloud = [own[np.isfinite(own).all(axis=1)] for own in points]
    centres = np.array([own.mean(axis=0) for own in cloud if len(own)])
    origin = centres.mean(axis=0)
    _, singular, axes = np.linalg.svd(centres - origin, full_matrices=True)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    weights = np.zeros(7)
    weights[: len(singular)] = singular**2
    return origin, axes * np.sign(largest), weights / max(weights.sum(), 1e-30)


def clouds(points: np.ndarray, path: str | Path, sample: np.ndarray | None = None, confident=None) -> None:
    """Training logits of each class in three planes that together span their centres (Figs. 6, 8).

    Parameters
    ----------
    points : ndarray, shape (7, n, 7)
        Training logits of every class, NaN-filled.
    sample : ndarray, shape (S, 7), optional
        Logits of windows, drawn on top: filled black where `confident` (S,), else open.  NaN rows are left out.
    """
    points = np.asarray(points, float)
    origin, axes, weights = cloud_axes(points)
    filled = np.isfinite(points).all(axis=2)
    projected = {n: (own[k] - origin) @ axes.T for n, own, k in zip(CLASS_NAMES, points, filled) if k.any()}
    if sample is not None:
        sample = np.asarray(sample, float)
        known = np.isfinite(sample).all(axis=1)
        flags = np.ones(known.sum(), bool) if confident is None else np.asarray(confident, bool)[known]
        shown = np.array(evenly_spaced(range(len(flags)), POINTS), int)
        sample, flags = (sample[known][shown] - origin) @ axes.T, flags[shown]
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 4.1), layout="constrained")
        for axis, (i, j) in zip(figure.subplots(1, 3), ((0, 1), (2, 3), (4, 5))):
            for name, x in projected.items():
                axis.scatter(x[:, i], x[:, j], s=5, color=COLOURS[name], alpha=0.35, linewidths=0, rasterized=True)
            if sample is not None:
                x, y = sample[:, i], sample[:, j]
                axis.scatter(
                    x[~flags], y[~flags], s=12, facecolors="none", edgecolors="#555555", linewidths=0.6, alpha=0.8
                )
                axis.scatter(x[flags], y[flags], s=6, color="black", alpha=0.8, linewidths=0)
            for name, x in projected.items():
                halo = [withStroke(linewidth=2.5, foreground="white")]
                axis.text(*x[:, (i, j)].mean(axis=0), name, ha="center", va="center", fontsize=9, path_effects=halo)
            axis.set(xlabel=_axis_name(i, axes, weights), ylabel=_axis_name(j, axes, weights))
            axis.grid(alpha=0.3)
        handles = [_dot(COLOURS[name], name) for name in projected]
        if sample is not None:
            handles += [_dot("black", "window, confident"), _dot("none", "window, not confident", "#555555")]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.1, columnspacing=1.2
        )
        save(figure, path)


def frames_and_maps(results: Results, rows: list[int], path: str | Path) -> None:
    """At most six two-level frames, evenly spaced, and below each the class of every window (Fig. 7)."""
    shown = evenly_spaced(rows, PICTURES)
    verdicts = frame_verdicts(results)
    labels, title = _frame_labels(results, shown)
    unit = " K" if title.endswith("(K)") else ""
    # A single frame stands beside its map, several stand above theirs; no picture is wider than a third of the page.
    shape = (1, 2) if len(shown) == 1 else (2, len(shown))
    side = WIDTH / max(shape[1], 3)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, shape[0] * side + 0.95), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False).reshape(2, -1)
        for column, (row, label) in enumerate(zip(shown, labels)):
            upper, lower = grid[:, column]
            _draw_frame(upper, results.preview[row])
            _draw_centres(upper, results, row)
            name = f"{label}{unit}" if unit else f"frame {label}"
            upper.set_title(f"{name}\n{percent(results.up_fraction[row])} up", fontsize=9)
            lower.imshow(class_picture(results.class_maps[row], results.flag_maps[row]), interpolation="nearest")
            own = verdicts[row]
            text = f"{own.model} {percent(own.share)} ({percent(own.confident_share)})" if own.model else "no pattern"
            lower.set_xlabel(text, fontsize=9)
            for axis in (upper, lower):
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set(visible=True, color=FAINT)
        handles = _shade_handles(_classes_in(results, shown))
        handles.append(Patch(facecolor=EMPTY, edgecolor=FAINT, label="no pattern"))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), handlelength=1.2, columnspacing=1.2
        )
        save(figure, path)


def class_picture(classes: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """The map of a frame as colours, shape (h, w, 3): bright where confident, dark where not, pale without pattern."""
    bright = np.array([to_rgb(COLOURS[name]) for name in CLASS_NAMES])
    dark = np.array([darker(COLOURS[name]) for name in CLASS_NAMES])
    index = np.where(classes == NO_PATTERN, 0, classes)
    picture = np.where((flags == 1)[..., None], bright[index], dark[index])
    picture[classes == NO_PATTERN] = to_rgb(EMPTY)
    return picture


def evenly_spaced(rows: list[int], most: int) -> list[int]:
    """At most `most` of the rows, first and last among them."""
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]


def _frame_positions(results: Results, rows: list[int]) -> tuple[np.ndarray, str]:
    """Where the frames stand on the horizontal axis, and its title: temperature where all are known, else index."""
    temperature = results.temperature[rows]
    if np.isfinite(temperature).all():
        return temperature, "temperature (K)"
    return np.asarray(results.index)[rows], "frame"


def _frame_labels(results: Results, rows: list[int]) -> tuple[list[str], str]:
    x, title = _frame_positions(results, rows)
    return [f"{value:.1f}" if title != "frame" else f"{value}" for value in x], title


def _draw_frame(axis, preview: np.ndarray) -> None:
    """A two-level preview without its padding: up dark, down pale, masked grey."""
    inside = preview != OUTSIDE
    cut = preview[np.ix_(inside.any(axis=1), inside.any(axis=0))]
    axis.imshow(two_levels(cut), interpolation="nearest")


def two_levels(image: np.ndarray) -> np.ndarray:
    """A two-level image as colours, shape (h, w, 3): up (1) dark, down pale, MASKED grey."""
    picture = np.where((image == 1)[..., None], to_rgb(UP), to_rgb(DOWN))
    picture[image == MASKED] = to_rgb(HIDDEN)
    return picture


def _draw_centres(axis, results: Results, row: int) -> None:
    """A dashed line round the part of the frame in which windows have their centres: what the map below covers."""
    window, stride = (results.attributes.get(name) for name in ("window", "stride"))
    if not window or not stride:
        return
    inside = results.preview[row] != OUTSIDE
    drawn = np.array([inside.any(axis=1).sum(), inside.any(axis=0).sum()])
    spread = (np.array(results.class_maps[row].shape) - 1) * stride
    height, width = spread / (spread + window) * drawn
    margin = window / 2 / (spread + window) * drawn
    style = {"fill": False, "edgecolor": "#EE6677", "linestyle": "--", "linewidth": 0.9}
    axis.add_patch(Rectangle((margin[1] - 0.5, margin[0] - 0.5), width, height, **style))


def _classes_in(results: Results, rows: list[int]) -> list[str]:
    """The classes that any of the rows has windows of."""
    return [name for k, name in enumerate(CLASS_NAMES) if np.nan_to_num(results.fractions[rows])[:, k].any()]


def _shade_handles(names: list[str]) -> list[Patch]:
    """Legend of the class colours, and of what the dark shade means."""
    handles = [Patch(color=COLOURS[name], label=name) for name in names]
    return handles + [Patch(color="#3A3A3A", label="dark: not confident")]


def _dot(colour: str, label: str, edge: str | None = None) -> Line2D:
    edge = edge or colour
    return Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, markeredgecolor=edge, label=label)


def _axis_name(k: int, axes: np.ndarray, weights: np.ndarray) -> str:
    """The classes whose logits an axis sets against each other, and its share of the scatter of the centres."""
    plus, minus = CLASS_NAMES[int(axes[k].argmax())], CLASS_NAMES[int(axes[k].argmin())]
    return f"axis {k + 1}: {minus} to {plus} ({100 * weights[k]:.0f} %)"


def save(figure: Figure, path: str | Path) -> None:
    """Write the PNG whole or not at all; equal input gives equal bytes."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
