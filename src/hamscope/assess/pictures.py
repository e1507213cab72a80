"""The pictures of `hamscope assess`, in the style of `hamscope.figures`."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hamscope.assess.baselines import KINDS
from hamscope.assess.blur import MERGED, balanced
from hamscope.figures import INK, STYLE, WIDTH, save
from hamscope.models import CLASS_NAMES

LINES = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#222222")
BASELINES = KINDS


def blur(found: dict, path: str | Path) -> None:
    """Mean accuracy over the classes against the width, one panel a threshold."""
    counts = {name: np.array(table) for name, table in found["confusions"].items()}
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 4.4), layout="constrained")
        axes = figure.subplots(1, len(found["thresholds"]), sharey=True)
        for t, (axis, threshold) in enumerate(zip(axes, found["thresholds"])):
            colours = {}
            for name, table in counts.items():
                # A baseline has one colour, whatever it was trained on.
                base = name.removesuffix(", sharp") if name.startswith(BASELINES) else name
                style = {"color": colours.setdefault(base, LINES[len(colours) % len(LINES)]), "lw": 1.6}
                dashed = "-" if not name.startswith(BASELINES) else "--" if name == base else "-."
                axis.plot(found["psf_px"], 100 * balanced(table[:, t]), dashed, marker="o", ms=3, label=name, **style)
                if threshold != "fixed":
                    axis.plot(found["psf_px"], 100 * balanced(table[:, t], MERGED), ":", color=style["color"], lw=0.9)
            axis.set(title=f"{threshold} threshold", xlabel="width of the point-spread function (px)", ylim=(0, 101))
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("right, mean over the classes (%)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        save(figure, path)


def confusions(found: dict, name: str, path: str | Path, widths=(0.0, 0.7, 1.5, 3.0)) -> None:
    """Confusion matrices of one bundle at some widths, fixed threshold, in per cent of the truth."""
    table = np.array(found["confusions"][name])[:, 0].astype(float)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.3), layout="constrained")
        for axis, width in zip(figure.subplots(1, len(widths)), widths):
            share = table[found["psf_px"].index(width)]
            share = 100 * share / np.maximum(share.sum(1, keepdims=True), 1)
            axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
            for i, j in zip(*np.nonzero(share >= 0.5)):
                colour = "white" if share[i, j] > 55 else INK
                axis.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=7, color=colour)
            axis.set(title=f"{width:g} px", xticks=range(7), yticks=range(7), xlabel="answer")
            axis.set_xticklabels(CLASS_NAMES, rotation=90, fontsize=7)
            axis.set_yticklabels(CLASS_NAMES if width == widths[0] else [], fontsize=7)
        figure.axes[0].set_ylabel("truth")
        save(figure, path)


def reliability(calibrations: dict, path: str | Path) -> None:
    """Accuracy against confidence of each bundle, with 95 % intervals, and how many windows there are."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=INK, lw=0.8)
        for number, (name, found) in enumerate(calibrations.items()):
            rows, colour = found["reliability"], LINES[number % len(LINES)]
            x, y = ([row[key] for row in rows] for key in ("confidence", "accuracy"))
            low, high = ([abs(row[key] - row["accuracy"]) for row in rows] for key in ("low", "high"))
            label = f"{name}: ECE {100 * found['ece']:.2f} %"
            left.errorbar(x, y, (low, high), fmt="o-", ms=4, lw=1, color=colour, label=label)
            right.plot(x, [row["count"] for row in rows], "o-", ms=4, lw=1, color=colour)
        left.set(xlabel="probability of the answer", ylabel="share of right answers")
        left.legend(fontsize=8)
        right.set(xlabel="probability of the answer", ylabel="windows", yscale="log")
        save(figure, path)


def learning(logs: dict, path: str | Path) -> None:
    """Validation error of each bundle against the epoch and against the time spent."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 4.2), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for number, (name, log) in enumerate(logs.items()):
            error = [100 * (1 - line["validation_accuracy"]) for line in log]
            seconds = np.cumsum([line["seconds"] for line in log])
            for axis, x in zip(axes, ([line["epoch"] for line in log], seconds)):
                axis.plot(x, error, "o-", ms=3, lw=1.2, color=LINES[number % len(LINES)], label=name)
        axes[0].set(xlabel="epoch", ylabel="validation images in the wrong class (%)")
        axes[0].set_yscale("symlog", linthresh=0.1)
        axes[1].set(xlabel="seconds of training", xscale="log")
        axes[0].legend(fontsize=8)
        for axis in axes:
            axis.grid(alpha=0.3)
        save(figure, path)


def rejection(found: dict, path: str | Path) -> None:
    """AUROC of every score (rows) on every family (columns), in per cent."""
    table = 100 * np.array([row["auroc"] for row in found["scores"].values()])
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 4.2), layout="constrained")
        axis = figure.subplots()
        axis.imshow(table, cmap="RdYlGn", vmin=30, vmax=100, aspect="auto")
        for i, j in np.ndindex(table.shape):
            axis.text(j, i, f"{table[i, j]:.0f}", ha="center", va="center", fontsize=8)
        axis.set_xticks(range(table.shape[1]), [name.replace("_", " ") for name in found["families"]], rotation=60)
        axis.set_yticks(range(len(table)), list(found["scores"]))
        save(figure, path)
