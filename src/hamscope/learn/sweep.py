"""The verdict against the assumed resolution: the same windows, with the network told one width after another.

Nothing of the image changes, only what the network is told of the microscope.  Where the answer depends on that, the
resolution has to be known before it is believed.

Shape letters: P = assumed widths; W = windows; K = classes; L = side of a window.
"""

from typing import NamedTuple

import numpy as np

from hamscope.data.instrument import condition
from hamscope.data.symmetry import prepare
from hamscope.data.windows import patterned
from hamscope.errors import UserError
from hamscope.learn.bundle import Bundle
from hamscope.learn.dense import confident, probabilities
from hamscope.learn.network import PaperNet, outputs

WIDTHS = (np.nan, *np.arange(0, 3.01, 0.25))  # pixels; NaN for a network that is not told
MOST_WINDOWS = 500  # of one source
_PIXELS = 2**22  # of a frame that are looked at at once


class Sweep(NamedTuple):
    """Of each assumed width `psf_px` (P,): `probabilities` (P, K) calibrated, and `shares` (P, K), means over `windows`
    windows; `confident` (P,), the share of them that look like training images."""

    psf_px: np.ndarray
    probabilities: np.ndarray
    shares: np.ndarray
    confident: np.ndarray
    windows: int


def check_takes_condition(bundle: Bundle) -> None:
    """Raise UserError where the network of the bundle asks for no condition."""
    if bundle.network.arguments["kind"] == PaperNet.kind:
        raise UserError(
            "--sweep-psf: the network of this bundle (kind 'paper') is not told of the microscope, so its verdict does "
            "not depend on it; take a bundle of an 'invariant' network"
        )


def some_windows(image: np.ndarray, mask: np.ndarray | None, window: int, most: int) -> np.ndarray:
    """At most `most` windows (W, L, L) of a two-level frame, drawn from those that are classified, always the same."""
    views = np.lib.stride_tricks.sliding_window_view(image, (window, window))
    # A band of rows at a time, since the tables of sums of a large frame would not fit.
    height = max(1, _PIXELS // image.shape[1])
    asked = np.concatenate([
        patterned(image[first : first + height + window - 1], window, 1,
                  None if mask is None else mask[first : first + height + window - 1])
        for first in range(0, len(views), height)
    ])  # fmt: skip
    ends = asked.sum(axis=1).cumsum()
    drawn = np.sort(np.random.default_rng(0).choice(ends[-1], min(most, ends[-1]), replace=False, shuffle=False))
    rows = np.searchsorted(ends, drawn, "right")
    columns = [np.flatnonzero(asked[row])[rank - ends[row]] for row, rank in zip(rows, drawn)]  # from the row's end
    return views[rows, np.array(columns, int)]


def sweep(frames: list[tuple[np.ndarray, bool]], bundle: Bundle, score: str) -> Sweep:
    """Tell the network of a bundle each of WIDTHS for windows of some frames of one source.

    Parameters
    ----------
    frames : list of (ndarray (W, L, L) uint8, bool)
        Windows of each frame, and whether its threshold was taken from the frame.
    score : str
        What makes a window confident; see `hamscope.learn.dense.confident`.

    Raises
    ------
    UserError
        A network that asks for no condition.
    """
    check_takes_condition(bundle)
    adaptive = np.repeat([erased for _, erased in frames], [len(own) for own, _ in frames])
    windows = prepare(np.concatenate([own for own, _ in frames]), bundle.network.arguments["symmetry"])
    rows = []
    for width in WIDTHS:
        said = outputs(bundle.network, windows, condition(np.full(len(windows), width), adaptive))
        counts = np.bincount(said.logits.argmax(1), minlength=said.logits.shape[1])
        rows.append((probabilities(bundle, said).mean(0), counts / len(windows), confident(bundle, said, score).mean()))
    return Sweep(np.array(WIDTHS), *map(np.array, zip(*rows)), len(windows))
