"""What a network still tells apart under a given microscope: from its confusions to the classes a verdict may name.

The bundle holds how often the network gave answer A to simulated images of class c, seen through a point-spread
function of each of some widths and one of three thresholds, told of the width or not: N(A | c).  With every class
equally likely beforehand, an answer A is of a class in the group G with probability

    P(G | A) = sum_{c in G} P(A | c) / sum_c P(A | c),        P(A | c) = N(A | c) / sum_B N(B | c).

Where P({A} | A) is below `LEVEL` the verdict names the smallest group that holds A and reaches it: the family (the
dimension stays open), the dimension (the disorder stays open), all Ising models.  None does: nothing is decided.

A known width takes the confusions of the nearest width, told.  An unknown one takes those that were not told,
averaged over the range of widths that the network was trained for, each width alike: the prior under which the network
itself learned not to know.  The worst width of the range would merge everything always, since at 3 px little is left
to be told apart; the best one would trust every blurred image.  So the average decides, and `certain_up_to` says for
which widths, were they known, the class alone would stand.

Everything here is of one window.  Many windows of one sample share its parameter and its microscope, so their
mistakes are alike, and pooling does not remove them.

Shape letters: S = widths; T = 3 thresholds (fixed, median, otsu); K = classes.
"""

from typing import NamedTuple

import numpy as np

from hamscope.models import CLASS_NAMES, MODELS

LEVEL = 0.9  # with less than this an answer does not stand for its class
THRESHOLDS = ("fixed", "median", "otsu")


class Group(NamedTuple):
    """Classes that a verdict names together: what it then says, and what stays open."""

    classes: tuple[str, ...]
    words: str
    open: str


def _named(words: str, left_open: str, wanted) -> Group:
    return Group(tuple(model.name for model in MODELS if wanted(model)), words, left_open)


# Smallest first; P-2D and P* are drawn in two dimensions, but noise has none, so no dimension is named for them.
GROUPS = (
    _named("clean Ising", "dimension", lambda m: m.family == "clean"),
    _named("random field", "dimension", lambda m: m.family == "random-field"),
    _named("Ising in two dimensions", "disorder", lambda m: m.name in ("C-2D", "RF-2D")),
    _named("Ising in three dimensions", "disorder", lambda m: m.name in ("C-3D", "RF-3D")),
    _named("percolation", "which kind", lambda m: m.family == "percolation"),
    _named("Ising", "dimension and disorder", lambda m: m.family != "percolation"),
)


class Separation(NamedTuple):
    """What an answer stands for.

    `alone` is P({A} | A); `group` is the group that has to be named instead and `together` its P(G | A); both are None
    where the class stands alone, or where not even a group reaches the level (`nothing` is True then).
    """

    alone: float
    group: Group | None = None
    together: float | None = None
    nothing: bool = False


def answers(resolution: dict, span: tuple[float, float], psf_px: float, threshold: str) -> np.ndarray | None:
    """P(A | c), shape (K, K), rows the truth, under one microscope; rows of classes without images are NaN.

    Parameters
    ----------
    resolution : dict
        `psf_px` (S,) and `counts` (S, T, 2, K, K) of the bundle.
    span : (float, float)
        Widths that the network was trained for, in pixels.
    psf_px : float
        Width of the point-spread function in pixels; NaN where it is not known.
    threshold : {"fixed", "median", "otsu"}
    """
    counts = np.asarray(resolution["counts"], float)[:, THRESHOLDS.index(threshold)]
    total = counts.sum(-1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    widths = np.asarray(resolution["psf_px"], float)
    if np.isfinite(psf_px):
        return shares[np.abs(widths - psf_px).argmin(), 1]
    return np.tensordot(_weights(widths, span), shares[:, 0], 1)


def _weights(widths: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """How much of the range `span` lies nearest to each of the widths, (S,); the widths are not equally spaced."""
    borders = np.concatenate([[-np.inf], (widths[1:] + widths[:-1]) / 2, [np.inf]])
    part = np.clip(borders[1:], *span) - np.clip(borders[:-1], *span)
    if part.sum() <= 0:  # a range of one width
        part = (np.arange(len(widths)) == np.abs(widths - span[0]).argmin()).astype(float)
    return part / part.sum()


def posterior(table: np.ndarray, answer: str) -> np.ndarray | None:
    """P(c | A) (K,), every class equally likely before; None where this answer was never given."""
    column = np.nan_to_num(table[:, CLASS_NAMES.index(answer)])
    return column / column.sum() if column.sum() > 0 else None


def separate(table: np.ndarray, answer: str) -> Separation | None:
    """What `answer` stands for where P(A | c) is `table` (K, K); None where nothing is known of this answer."""
    chances = posterior(table, answer)
    if chances is None:
        return None
    alone = float(chances[CLASS_NAMES.index(answer)])
    if alone >= LEVEL:
        return Separation(alone)
    own = [(group, float(sum(chances[CLASS_NAMES.index(name)] for name in group.classes)))
           for group in GROUPS if answer in group.classes]  # fmt: skip
    reached = [(len(group.classes), -chance, group) for group, chance in own if chance >= LEVEL]
    if not reached:
        return Separation(alone, nothing=True)
    _, chance, group = min(reached, key=lambda item: item[:2])
    return Separation(alone, group, -chance)


def certain_up_to(resolution: dict, answer: str, threshold: str) -> float | None:
    """The largest width in pixels up to which, known, the answer stands for its class alone; None if not even sharp."""
    widths, largest = resolution["psf_px"], None
    for width in widths:
        chances = posterior(answers(resolution, (0, 0), width, threshold), answer)
        if chances is None or chances[CLASS_NAMES.index(answer)] < LEVEL:
            break
        largest = float(width)
    return largest
