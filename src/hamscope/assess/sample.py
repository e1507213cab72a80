"""Windows of known truth to measure a bundle with, and what the bundle says of them.

Shape letters: N = windows; L = their side; H = width of the hidden layer.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hamscope.config import Train
from hamscope.data.instrument import Views, condition, draw, look
from hamscope.data.slices import read_slices
from hamscope.data.symmetry import majority_is_down
from hamscope.errors import UserError
from hamscope.learn.bundle import Bundle
from hamscope.learn.dense import ask
from hamscope.learn.trust import Images
from hamscope.models import CLASS_NAMES

_BLOCK = 2048  # windows; as grey images they take 160 MB


class Sample(NamedTuple):
    """`images` (N, L, L) uint8, and per window, shape (N,): class, parameter, lattice, whether a free surface."""

    images: np.ndarray
    label: np.ndarray
    value: np.ndarray
    lattice: np.ndarray
    surface: np.ndarray

    def of(self, chosen: np.ndarray) -> "Sample":
        """Some of the windows."""
        return Sample(*(column[chosen] for column in self))


class Seen(NamedTuple):
    """What a bundle says of windows through their microscopes: `views`, `flipped` (N,), `logits` (N, 7), `hidden`."""

    views: Views | None
    flipped: np.ndarray
    logits: np.ndarray
    hidden: np.ndarray

    def known(self, sample: Sample) -> Images:
        """What is known of the windows, as `hamscope.learn.trust` takes it."""
        return Images(sample.label, sample.value, self.flipped, sample.lattice)


def load(path: str | Path, window: int, most: int) -> Sample:
    """Windows of a slices file, at most so many of a class, spread evenly over its lattices.

    Slices that are larger than the window are cut into as many windows as fit side by side.

    Raises
    ------
    UserError
        Slices smaller than the window.
    """
    slices = read_slices(path)
    side = slices.images.shape[1]
    if side < window:
        raise UserError(f"{path}: slices of {side} pixels a side, the bundle needs {window}; simulate larger ones")
    per = side // window
    whole = slices.images[:, : per * window, : per * window]
    images = whole.reshape(-1, per, window, per, window).swapaxes(2, 3).reshape(-1, window, window)
    names = {"label": "model", "value": "parameter", "lattice": "lattice", "surface": "plane_surface"}
    columns = {name: np.repeat(slices.columns[column], per * per) for name, column in names.items()}
    chosen = []
    for k in range(len(CLASS_NAMES)):
        mine = np.flatnonzero(columns["label"] == k)
        chosen.append(thinned(mine, most))
    numbers = np.concatenate(chosen)
    label = columns.pop("label")[numbers].astype(np.int64)
    return Sample(images[numbers], label, **{name: column[numbers] for name, column in columns.items()})


def thinned(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the `numbers` (N,), spread evenly over them."""
    taken = min(most, len(numbers))
    return numbers[np.arange(taken) * len(numbers) // max(taken, 1)]


def section(bundle: Bundle) -> Train:
    """How the bundle was trained."""
    return Train.model_validate(bundle.card["training"])


def draw_views(bundle: Bundle, count: int, seed: int) -> Views | None:
    """Microscopes as in the training of the bundle, but others; None where it was trained on sharp images."""
    instrument = section(bundle).instrument
    return draw(instrument, seed, 0, np.arange(count)) if instrument else None


def see(bundle: Bundle, images: np.ndarray, views: Views | None = None, seed: int = 0) -> Seen:
    """Show windows (N, L, L) to a bundle, each through its microscope; without `views` they are sharp."""
    parts = [
        _see(bundle, images, views, seed, np.arange(first, min(first + _BLOCK, len(images))))
        for first in range(0, len(images), _BLOCK)
    ]
    return Seen(views, *(np.concatenate(column) for column in zip(*parts)))


def _see(bundle: Bundle, images: np.ndarray, views: Views | None, seed: int, numbers: np.ndarray):
    """`flipped`, `logits` and `hidden` of the windows with these numbers."""
    seen, known = images[numbers], condition(None, False)
    if views is not None:
        own = Views(*(column[numbers] for column in views))
        seen, known = look(seen, own, seed, 0, numbers), own.condition
    return majority_is_down(seen), *ask(bundle, seen, known)
