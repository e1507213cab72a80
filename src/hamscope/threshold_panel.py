"""Whether the verdict depends on the threshold: a few frames with it 15 % lower, as it is, and 15 % higher.

    level - 0.15 C,   level,   level + 0.15 C,        C = mean grey of what is bright - mean grey of what is dark

Section IV of [1]_ relies on such a test: what SNIM images show "is insensitive to changes in the threshold within about
15 %".  There the grey values start near zero.  Those of a camera need not, and a share of the threshold itself would
then depend on where its zero is; so it is a share of the contrast C here.

The frames are those whose share of bright pixels is nearest to 30, 50 and 70 %.  Every threshold gets the share of
bright pixels, the mean of s s' over pairs of neighbours (s = +1 bright, -1 dark), and what the network of a bundle says
of the windows at stride 16 that hold no masked pixel.

References
----------
.. [1] Basak et al. (2022), doi:10.48550/arXiv.2211.01490.
"""

from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hamscope.data import instrument
from hamscope.data import prepare as data
from hamscope.data.windows import has_two_levels, window_grid
from hamscope.errors import UserError
from hamscope.figures import COLOURS, DOWN, EMPTY, INK, STYLE, UP, save
from hamscope.learn.bundle import Bundle, default_bundle, read_bundle
from hamscope.learn.dense import classify_band
from hamscope.models import CLASS_NAMES
from hamscope.prepare import write_csv
from hamscope.prepare_frames import GREY, SERIES, TRACE, TWO_LEVELS, Series, Thresholds

SHARES = (0.3, 0.5, 0.7)  # of bright pixels, of the frames that are shown
LOOKED_AT = 60  # frames at most, among which those are chosen
OFFSETS = (-data.VARIATION, 0.0, data.VARIATION)
STRIDE = 16


class Case(NamedTuple):
    """One frame at one threshold: `offset` of the contrast, grey `level`, two-level `image` (H, W), its share of bright
    pixels `up`, its `neighbours` correlation, and how many `windows` the network gave to each class, (7,)."""

    frame: int
    offset: float
    level: float
    image: np.ndarray
    up: float
    neighbours: float
    windows: np.ndarray


class Panel:
    """What `hamscope.prepare.prepare` calls for the panel, with a bundle, or the one that comes with hamscope."""

    def __init__(self, bundle: str | Path | None = None):
        self.bundle = read_bundle(bundle or default_bundle())
        self.key = self.bundle.sha256

    def __call__(self, series: Series, thresholds: Thresholds, out: Path) -> list[str]:
        """Write `<out>.panel.png` and `<out>.panel.csv`; return the lines that say what they show."""
        cases = panel_cases(series, thresholds, self.bundle)
        lines = [line(cases)]
        panel_picture(cases, series.sample, out.with_suffix(".panel.png"))
        write_csv(out.with_suffix(".panel.csv"), table(cases))
        return [*lines, f"panel: {out.with_suffix('.panel.png')}"]


def panel_cases(series: Series, thresholds: Thresholds, bundle: Bundle) -> list[Case]:
    """The cases of some frames, three in a row for each.

    Raises
    ------
    UserError
        The frames have two levels already, so that there is no threshold to vary.
    """
    own = "otsu" if series.options.threshold == GREY else series.options.threshold
    levels, shares = {}, {}
    for frame in sorted({int(n) for n in np.linspace(0, len(series) - 1, LOOKED_AT).round()}):
        grey = series.grey(frame)[series.sample]
        if has_two_levels(grey):
            raise UserError("--panel: the frames have two levels already, whatever the threshold; leave --panel out")
        levels[frame] = thresholds.level if own in (SERIES, TRACE) else data.level_of(grey, own)
        shares[frame] = (grey > levels[frame]).mean()
    chosen = sorted({min(shares, key=lambda frame: abs(shares[frame] - share)) for share in SHARES})
    adaptive = own in TWO_LEVELS
    cases = []
    for frame in chosen:
        grey = series.grey(frame)
        contrast = data.contrast_of(grey[series.sample], levels[frame])
        for offset in OFFSETS:
            level = levels[frame] + offset * contrast
            image = np.where(series.sample, grey > level, 0).astype(np.uint8)
            windows = _windows(image, ~series.sample, bundle, series.refs[frame].psf_px, adaptive)
            cases.append(Case(frame, offset, level, image, data.up_fraction(image, series.sample),
                              data.neighbour_correlation(image, series.sample), windows))  # fmt: skip
    return cases


def _windows(image: np.ndarray, mask: np.ndarray, bundle: Bundle, psf_px: float, adaptive: bool) -> np.ndarray:
    """How many windows at stride 16 are given to each class, int (7,); all zero where no window fits."""
    if min(image.shape) < bundle.window:
        return np.zeros(len(CLASS_NAMES), np.int64)
    rows, _ = window_grid(image.shape, bundle.window, STRIDE)
    band = classify_band(
        image, bundle, STRIDE, 0, rows, bundle.card["rejection"]["score"], instrument.condition(psf_px, adaptive)
    )
    clear = data.clear_windows(mask, bundle.window, STRIDE)
    return np.bincount(band.classes[clear], minlength=256)[: len(CLASS_NAMES)]


def pooled(cases: list[Case]) -> list[np.ndarray]:
    """Windows of each class over all frames, (7,), for each of the three thresholds."""
    return [sum(case.windows for case in cases if case.offset == offset) for offset in OFFSETS]


def line(cases: list[Case]) -> str:
    """One line: whether the leading class is the same at all three thresholds."""
    counts = pooled(cases)
    if not all(count.sum() for count in counts):
        return "threshold panel: no verdict at one of the thresholds, no window of the bundle's size has a pattern"
    leads = [_lead(count) for count in counts]
    where = ("at -15 %", "at the threshold", "at +15 %")
    said = ", ".join(f"{lead} {count.max() / count.sum():.0%} {at}" for lead, count, at in zip(leads, counts, where))
    change = "does not change" if len(set(leads)) == 1 else "CHANGES"
    frames = dict.fromkeys(case.frame for case in cases)
    moody = [n for n in frames if len({_lead(case.windows) for case in cases if case.frame == n}) > 1]
    alone = f"; it changes in frame {', '.join(map(str, moody))} alone" if moody and len(set(leads)) == 1 else ""
    return f"threshold panel: the verdict {change} within 15 % of the contrast: {said}{alone}"


def _lead(windows: np.ndarray) -> str:
    """The class of most windows, "" without windows."""
    return CLASS_NAMES[int(windows.argmax())] if windows.sum() else ""


def table(cases: list[Case]) -> list[list]:
    """The panel as rows, the header first; the last three pool the windows of all frames."""
    header = ["frame", "offset", "threshold", "up_fraction", "neighbour_correlation", "leads", "windows", *CLASS_NAMES]
    rows = [
        [case.frame, f"{case.offset:+.2f}", f"{case.level:.6g}", f"{case.up:.6f}", f"{case.neighbours:.6f}",
         *_shares(case.windows)]
        for case in cases
    ]  # fmt: skip
    rows += [["all", f"{o:+.2f}", "", "", "", *_shares(count)] for o, count in zip(OFFSETS, pooled(cases))]
    return [header, *rows]


def _shares(windows: np.ndarray) -> list:
    """Leading class, number of windows, and the share of each class; empty without windows."""
    total = int(windows.sum())
    if not total:
        return ["", 0, *[""] * len(windows)]
    return [_lead(windows), total, *(f"{share:.4f}" for share in windows / total)]


def panel_picture(cases: list[Case], sample: np.ndarray, path: str | Path) -> None:
    """The two-level images, a frame a row and a threshold a column, with what was measured; masked pixels are pale."""
    frames = list(dict.fromkeys(case.frame for case in cases))
    side = 3.2
    tall = side * sample.shape[0] / sample.shape[1]
    with matplotlib.rc_context(STYLE):
        figure = Figure((3 * side + 0.4, len(frames) * (tall + 0.6) + 1.0), layout="constrained")
        axes = figure.subplots(len(frames), 3, squeeze=False)
        for row, frame in enumerate(frames):
            for axis, case in zip(axes[row], (case for case in cases if case.frame == frame)):
                shown = np.where(sample, case.image, 2)  # bright is light here, as in the grey frames
                axis.imshow(shown, ListedColormap([UP, DOWN, EMPTY]), vmin=0, vmax=2, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                if row == 0:
                    name = f"threshold {case.offset:+.0%} of the contrast" if case.offset else "threshold"
                    axis.set_title(name, pad=16)
                axis.spines[["top", "right"]].set_visible(True)
                axis.set_xlabel(_caption(case), fontsize=8.5)
                _bar(axis, case.windows)
            axes[row][0].set_ylabel(f"frame {frame}")
        seen = sum(case.windows for case in cases) > 0
        handles = [Patch(color=COLOURS[name], label=name) for name, some in zip(CLASS_NAMES, seen) if some]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        figure.suptitle("\n".join(wrap(line(cases), 110)), fontsize=10, color=INK)
        save(figure, path)


def _caption(case: Case) -> str:
    total = case.windows.sum()
    verdict = f"{_lead(case.windows)} {case.windows.max() / total:.0%}" if total else "no verdict"
    return f"grey {case.level:.4g}, bright {case.up:.1%}, neighbours {case.neighbours:+.3f}\n{verdict}, {total} windows"


def _bar(axis, windows: np.ndarray) -> None:
    """The shares of the classes as a strip of their colours above an image."""
    total, left = windows.sum(), 0.0
    for name, count in zip(CLASS_NAMES, windows):
        if count:
            axis.barh(1.02, count / total, 0.03, left, color=COLOURS[name], transform=axis.transAxes, clip_on=False)
            left += count / total
