"""The panel of a frame as three small PNG images, and where the map lies on the frame.

    frame   the two-level preview: up dark, down pale, masked grey
    map     the class of every window, bright where confident and dark where not, transparent without pattern
    flags   the confidence flag of every window

A window is drawn at its centre.  With windows of w pixels and a stride of s the map of R x C windows begins (w - s) / 2
pixels inside the frame and is R s high and C s wide, so that it lies on the frame pixel by pixel.

Shape letters: h, w = preview without its padding; R, C = windows of a frame.
"""

import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from hamscope.data.parts import PREVIEW
from hamscope.data.results import NO_PATTERN, Results
from hamscope.data.windows import MASKED, OUTSIDE
from hamscope.figures import COLOURS, DOWN, EMPTY, HIDDEN, UP, darker
from hamscope.models import CLASS_NAMES

MOST_SIDE = 512  # pixels; a larger map is drawn with every k-th window
FLAGS = {"confident": "#1F5C7A", "not confident": "#F0B455", "no pattern": EMPTY}
_BLANK = 2 * len(CLASS_NAMES)
_MAP_COLOURS = [rgb for name in CLASS_NAMES for rgb in (to_rgb(COLOURS[name]), darker(COLOURS[name]))] + [to_rgb(EMPTY)]
KINDS = ("frame", "map", "flags")


def panel_images(results: Results, row: int) -> dict[str, bytes]:
    """The three PNG images of a frame, by the names of KINDS; equal input gives equal bytes."""
    classes, flags = results.class_maps[row], results.flag_maps[row]
    step = -(-max(classes.shape) // MOST_SIDE)
    classes, flags = classes[::step, ::step], flags[::step, ::step]
    blank = classes == NO_PATTERN
    index = np.where(blank, _BLANK, 2 * classes.astype(int) + (flags != 1))
    trust = np.where(blank, 2, flags != 1)
    return {
        "frame": _frame(cut_preview(results.preview[row])),
        "map": _png(index, _MAP_COLOURS, bits=4, transparency=_BLANK),
        "flags": _png(trust, [to_rgb(colour) for colour in FLAGS.values()], bits=2, transparency=2),
    }


def _frame(preview: np.ndarray) -> bytes:
    index = np.where(preview == MASKED, 2, preview == 1)
    return _png(index, [to_rgb(DOWN), to_rgb(UP), to_rgb(HIDDEN)], bits=2 if (index == 2).any() else 1)


def cut_preview(preview: np.ndarray) -> np.ndarray:
    """A preview without its padding, shape (h, w); one that is padding all over stays as it is."""
    inside = preview != OUTSIDE
    if not inside.any():
        return preview
    return preview[: inside.any(axis=1).sum(), : inside.any(axis=0).sum()]


def map_box(results: Results, row: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of the map as parts of the frame; all of it where window or stride are not known."""
    window, stride = (results.attributes.get(name) for name in ("window", "stride"))
    if not window or not stride:
        return 0.0, 0.0, 1.0, 1.0
    shape = np.array(results.class_maps[row].shape)
    drawn = np.array(cut_preview(results.preview[row]).shape)
    frame = np.maximum(drawn * block_side(results, row), (shape - 1) * stride + window)
    (top, left), (height, width) = (window - stride) / 2 / frame, shape * stride / frame
    return float(left), float(top), float(width), float(height)


def block_side(results: Results, row: int) -> int:
    """How many pixels of the frame one of its preview stands for along each side; 1 where that is not known.

    The preview is the majority of square blocks.  The windows reach to less than a stride before the end of the frame,
    and of the sides that leaves, the first one fits that makes a preview of this size.
    """
    window, stride = (results.attributes.get(name) for name in ("window", "stride"))
    if not window or not stride:
        return 1
    reach = (max(results.class_maps[row].shape) - 1) * stride + window
    drawn = max(cut_preview(results.preview[row]).shape)
    sides = ((side, -(-side // PREVIEW)) for side in range(reach, reach + stride))
    return next((block for side, block in sides if -(-side // block) == drawn), max(1, round(reach / drawn)))


def _png(index: np.ndarray, colours: list, bits: int, **options) -> bytes:
    """An image of palette indices as PNG."""
    image = Image.fromarray(index.astype(np.uint8), "P")
    image.putpalette(np.round(255 * np.array(colours)).astype(np.uint8).ravel().tolist())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, bits=bits, **options)
    return file.getvalue()
