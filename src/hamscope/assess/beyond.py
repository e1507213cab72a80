"""The parameter beyond the trained range: do its intervals still cover the truth, and how wide are they?

The series of `critical_series` in T, R or p, taken as of the class that drew them, sharp.  A value between the ends of
the trained range was trained on or lies between values that were; one beyond them was not.
"""

import numpy as np

from hamscope.assess.critical_series import Series
from hamscope.assess.sample import see
from hamscope.learn import parameters
from hamscope.learn.bundle import Bundle
from hamscope.models import CLASS_NAMES

PLACES = ("below", "inside", "above")


def covered(bundle: Bundle, drawn: Series) -> dict:
    """Of the values below, inside and above the trained range: {place: {"windows", "in68", "in90", "sigma68", ...}}.

    "sigma68" is the median half width of the 68 % interval, "off" the mean of estimate minus truth, "answered" the
    share of the windows that the network gives to the class that drew them, and "open68" and "open90" the shares within
    intervals that are open where they reach an end of the trained range.  An infinite width, none promised, is None.
    """
    n, k, size, _ = drawn.images.shape
    truth, class_ = np.repeat(drawn.parameter, k), CLASS_NAMES.index(drawn.plan.model)
    seen = see(bundle, drawn.images.reshape(n * k, size, size))
    value, half68, half90 = parameters.predict(bundle.parameters, seen.hidden, np.full(n * k, class_), seen.flipped)
    low, high = drawn.plan.trained
    places = (truth < low, (truth >= low) & (truth <= high), truth > high)
    table = {}
    for place, mine in zip(PLACES, places):
        if mine.any() and np.isfinite(value[mine]).all():
            width = float(np.median(half68[mine]))
            table[place] = {
                "windows": int(mine.sum()),
                "in68": parameters.coverage(value[mine], half68[mine], truth[mine]),
                "in90": parameters.coverage(value[mine], half90[mine], truth[mine]),
                "open68": _within(value[mine], half68[mine], truth[mine], drawn.plan.trained),
                "open90": _within(value[mine], half90[mine], truth[mine], drawn.plan.trained),
                "sigma68": width if np.isfinite(width) else None, "off": float((value - truth)[mine].mean()),
                "answered": float((seen.logits[mine].argmax(1) == class_).mean()),
            }  # fmt: skip
    return table


def _within(value: np.ndarray, half: np.ndarray, truth: np.ndarray, trained: tuple[float, float]) -> float:
    """Share of windows whose true parameter lies within value +- half with open ends."""
    low, high = parameters.open_ends(value - half, value + half, trained)
    return float(((low <= truth) & (truth <= high)).mean())
