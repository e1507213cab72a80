"""The slider over frames: what the page shows of each frame, as texts that are ready to be put in place.

The numbers are made into text here and nowhere else; the page's script (templates/viewer.js) only puts them where they
belong.  Images go into the page while all of them together are small, else into a folder beside it.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hamscope.data.results import Results
from hamscope.figures import COLOURS
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.panels import KINDS, cut_preview, map_box, panel_images
from hamscope.verdict import FrameVerdict, frame_verdicts, percent, share_interval

ONE_FILE = 16_000_000  # bytes of panels; with more the page would open slowly, and they go beside it
FOLDER = "panels"
FACTS = (
    "Source", "Frame", "Temperature", "Direction", "Up", "Leading class", "Share", "95 %", "Confident", "Windows",
    "Side by side",
)  # fmt: skip
DIRECTIONS = {1: "heating", -1: "cooling"}
UNKNOWN = "-"


@dataclass(frozen=True)
class Frames:
    """Every frame of the page: `inside` tells whether the images are base64 texts or paths, `rows` has a dict a row."""

    inside: bool
    rows: list[dict]


def all_frames(results: Results, folder: Path, more=None) -> Frames:
    """What the page shows of every frame; images that are too many are written below `folder`.

    `more(row)` gives further pairs of a name and a text for a frame.
    """
    images = [panel_images(results, row) for row in range(len(results.source))]
    inside = sum(len(image) for panel in images for image in panel.values()) <= ONE_FILE
    if not inside:
        (folder / FOLDER).mkdir()
    verdicts, rows = frame_verdicts(results), []
    for row, panel in enumerate(images):
        frame = frame_texts(results, verdicts[row], more(row) if more else ())
        rows.append(frame | {kind: _place(panel[kind], folder, f"{row:06d}-{kind}.png", inside) for kind in KINDS})
    return Frames(inside, rows)


def _place(image: bytes, folder: Path, name: str, inside: bool) -> str:
    """An image as base64, or written as a file and its path relative to the page."""
    if inside:
        return base64.b64encode(image).decode()
    (folder / FOLDER / name).write_bytes(image)
    return f"{FOLDER}/{name}"


def frame_texts(results: Results, frame: FrameVerdict, more=()) -> dict:
    """The texts of one frame.

    Returns
    -------
    dict
        `label` for the slider, `facts` in the order of FACTS and `more` as pairs, `colour` of the leading class,
        `classes` with a list a class (share, 95 %, confident, probability, distance, parameter, and the widths of the
        bright and the dark bar in per cent), `aspect` and `box` (map_box) of the panel, `alt` of its three images.
    """
    row = frame.row
    kelvin = results.temperature[row]
    heat = f"{kelvin:.2f} K" if np.isfinite(kelvin) else UNKNOWN
    direction = DIRECTIONS.get(int(results.direction[row]), UNKNOWN)
    number = str(int(results.index[row]))
    up = percent(results.up_fraction[row])
    facts = (
        results.source[row], number, heat, direction, up, frame.model or "no pattern", percent(frame.share),
        interval(frame.low, frame.high), percent(frame.confident_share), f"{int(results.n_windows[row]):,}",
        str(int(results.n_independent[row])),
    )  # fmt: skip
    known = [text for text in (heat, direction) if text != UNKNOWN]
    label = ", ".join([f"frame {number}", *known])
    height, width = cut_preview(results.preview[row]).shape
    says = f"leading class {frame.model}, {facts[6]} of the windows" if frame.model else "no window has a pattern"
    sure = f"{percent(np.nansum(results.confident_fractions[row]))} of the windows are confident"
    return {
        "label": label, "facts": facts, "more": [list(pair) for pair in more],
        "colour": COLOURS[frame.model] if frame.model else None,
        "classes": [_class_texts(results, row, k) for k in range(len(CLASS_NAMES))],
        "aspect": f"{width} / {height}", "box": [round(100 * part, 3) for part in map_box(results, row)],
        "alt": [f"{label}: the two-level frame, {up} up", f"{label}: class map, {says}", f"{label}: flags, {sure}"],
    }  # fmt: skip


def _class_texts(results: Results, row: int, k: int) -> list[str]:
    """The cells of one class of a frame."""
    share, sure = results.fractions[row, k], results.confident_fractions[row, k]
    if not np.isfinite(share):
        return [UNKNOWN] * 6 + ["0", "0"]
    distance = results.cloud_distance[row, k]
    return [
        percent(share), interval(*share_interval(share, results.n_independent[row])), percent(sure),
        percent(results.probabilities[row, k]), f"{distance:.2f}" if np.isfinite(distance) else UNKNOWN,
        parameter(results, row, k), f"{100 * sure:.2f}", f"{100 * max(share - sure, 0):.2f}",
    ]  # fmt: skip


def parameter(results: Results, row: int, k: int) -> str:
    """The parameter that the network reads off the windows of one class, with the half width of its 68 % interval."""
    value, half = results.parameter[row, k], results.parameter_half68[row, k]
    if not np.isfinite(value):
        return UNKNOWN
    return f"{BY_NAME[CLASS_NAMES[k]].parameter} {value:.2f}" + (f" ± {half:.2f}" if np.isfinite(half) else "")


def interval(low: float, high: float) -> str:
    """An interval of shares as text."""
    return f"{percent(low, sign=False)} to {percent(high)}" if np.isfinite(low) else UNKNOWN


def first_shown(results: Results, rows: list[int]) -> int:
    """The place in `rows` of the frame nearest to half up among those with a pattern; 0 where none has one."""
    uneven = np.where(results.n_windows[rows] > 0, np.abs(2 * results.up_fraction[rows] - 1), np.inf)
    return int(np.argmin(uneven))
