"""The verdict against the assumed resolution as one picture and a table; what it shows is in `hamscope.learn.sweep`."""

import csv
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from hamscope.figures import COLOURS, FAINT, INK, STYLE, WIDTH, save
from hamscope.models import CLASS_NAMES
from hamscope.provenance import whole_file

_NOT_TOLD = -0.35  # where the answers of a network that is not told are drawn
_SHOWN = 0.02  # classes that never reach this probability are left out


def sweep_picture(sweeps: list[dict], span: tuple[float, float], path: str | Path) -> None:
    """Probabilities of the classes, and the confident share, against the assumed width; a panel a source.

    Parameters
    ----------
    sweeps : list of dict
        As in the results: `psf_px` (P,), None where the network is not told, `probabilities` (P, 7), `confident` (P,),
        `told`, the width that the user gave or None.
    span : (float, float)
        Widths that the network was trained for; others are shaded.
    """
    columns = min(len(sweeps), 2)
    rows = -(-len(sweeps) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.1 * rows + 0.8), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        shown = set()
        for number, (axis, one) in enumerate(zip(axes, sweeps), 1):
            shown |= _panel(axis, one, span)
            if len(sweeps) > 1:
                axis.set_title(f"source {number}", fontsize=9)
        for axis in axes[len(sweeps) :]:
            axis.set_visible(False)
        handles = [Line2D([], [], color=COLOURS[k], linewidth=2, label=k) for k in CLASS_NAMES if k in shown]
        handles.append(Line2D([], [], color=INK, linestyle=":", label="confident share"))
        if any(one["told"] is not None for one in sweeps):
            handles.append(Line2D([], [], color=INK, linewidth=0.8, label="width given"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.2)
        save(figure, path)


def _panel(axis, one: dict, span: tuple[float, float]) -> set[str]:
    """Draw one source; the classes that are drawn."""
    widths = np.array([np.nan if width is None else width for width in one["psf_px"]])
    chances, sure = np.array(one["probabilities"]), np.array(one["confident"])
    known, top = np.isfinite(widths), widths[np.isfinite(widths)].max()
    # The leading class as a stripe on top.
    step = np.diff(widths[known]).min() if known.sum() > 1 else 1
    for width, own in zip(np.where(known, widths, _NOT_TOLD), chances):
        axis.bar(width, 0.05, step, bottom=1.03, color=COLOURS[CLASS_NAMES[int(own.argmax())]])
    drawn = set()
    for k, name in enumerate(CLASS_NAMES):
        if chances[:, k].max() >= _SHOWN:
            drawn.add(name)
            axis.plot(widths[known], chances[known, k], color=COLOURS[name], linewidth=2)
            axis.plot(np.full((~known).sum(), _NOT_TOLD), chances[~known, k], "o", color=COLOURS[name], markersize=6)
    axis.plot(widths[known], sure[known], color=INK, linestyle=":")
    axis.plot(np.full((~known).sum(), _NOT_TOLD), sure[~known], "o", markerfacecolor="none", color=INK, markersize=6)
    for left, right in ((0, span[0]), (span[1], top)):
        if right > left:
            axis.axvspan(left, right, color="#EDEAE2", zorder=0)
    if one["told"] is not None:
        axis.axvline(one["told"], color=INK, linewidth=0.8)
    axis.axvline(_NOT_TOLD / 2, color=FAINT, linewidth=0.6)
    ticks = np.arange(0, top + 0.01, 0.5)
    axis.set(xticks=[_NOT_TOLD, *ticks], xticklabels=["not\ntold", *(f"{tick:g}" for tick in ticks)])
    axis.set(xlabel="assumed width of the point-spread function (pixels)", ylabel="probability")
    axis.set(xlim=(2 * _NOT_TOLD, max(top, one["told"] or 0) + 0.15), ylim=(0, 1.09), yticks=np.arange(0, 1.1, 0.25))
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axis.grid(alpha=0.3)
    return drawn


def write_sweep_table(sweeps: dict[str, dict], path: str | Path) -> None:
    """A CSV with a line a source and assumed width; an empty width is a network that is not told."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["source", "psf_px", "leads", *CLASS_NAMES, "confident", "windows"])
        for source, one in sweeps.items():
            for width, chances, sure in zip(one["psf_px"], one["probabilities"], one["confident"]):
                leads = CLASS_NAMES[int(np.argmax(chances))]
                table.writerow(
                    [source, "" if width is None else width, leads, *chances, sure, one["windows"]],
                )
