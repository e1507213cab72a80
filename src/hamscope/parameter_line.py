"""The parameter of the leading class in one line: T/J, R/J or p with its error bar, and what to think of it.

The value is the mean over the windows of the class; the error bar is that of *one* window.  Windows of one sample
share what makes the network err, so their number does not make it smaller.  An interval that reaches an end of the
range trained on is read as open there (`hamscope.learn.parameters.open_ends`).
"""

import numpy as np

from hamscope.data.results import Results
from hamscope.learn.parameters import LEVELS, open_ends
from hamscope.models import BY_NAME, CLASS_NAMES

LEAST_SLOPE = 0.3  # below it most of the difference between two images of a class does not come from its parameter


def parameter_line(results: Results, rows: list[int], model: str, card: dict) -> str | None:
    """Value and error bar of the windows of `model` in `rows`, with remarks; None where there are none.

    `card` is what the results say of the bundle: `trained` and `coverage` are used where they are there.
    """
    k = CLASS_NAMES.index(model)
    weights = np.nan_to_num(results.n_windows[rows] * results.fractions[rows, k])
    rows = np.asarray(rows)[weights > 0]
    if not len(rows) or not np.isfinite(results.parameter[rows, k]).all():
        return None
    columns = results.parameter, results.parameter_half68, results.parameter_half90
    value, *halves = (float(np.average(column[rows, k], weights=weights[weights > 0])) for column in columns)
    symbol = BY_NAME[model].parameter
    if not np.isfinite(halves[0]):
        return f"{symbol} = {value:.2g}, without an error bar: too few lattices stand behind it."
    digits = _digits(halves[0])
    bars = [f"± {half:.{digits}f} ({100 * level:.0f} %)" for level, half in zip(LEVELS, halves) if np.isfinite(half)]
    remarks = _remarks(model, value, halves, digits, card)
    return f"{symbol} = {value:.{digits}f} {', '.join(bars)}{''.join(f'; {remark}' for remark in remarks)}."


def _digits(half: float) -> int:
    """Decimals that leave one figure of an error bar, two where the first is a 1."""
    if half <= 0:
        return 3
    power = int(np.floor(np.log10(half)))
    return max(0, -power + (half < 2 * 10.0**power))


def _remarks(model: str, value: float, halves: list[float], digits: int, card: dict) -> list[str]:
    remarks = []
    low, high = card.get("trained", {}).get(model, (np.nan, np.nan))
    slope = card.get("coverage", {}).get(model, {}).get("slope", np.nan)
    folded = min(value, 1 - value) if BY_NAME[model].family == "percolation" else value
    # Parameters spread evenly over the range lie within 68 % of it around its middle with no image at all.
    if 2 * halves[0] >= LEVELS[0] * (high - low):
        remarks.append(f"this is as wide as the range trained on, {low:.3g} to {high:.3g}: the image does not tell it")
    elif slope < LEAST_SLOPE:
        remarks.append(f"an image of {model} tells little of it (slope {slope:.2f})")
    if not low <= folded <= high and np.isfinite(low):
        remarks.append(f"outside of the range trained on, {low:.3g} to {high:.3g}: an extrapolation")
    # p and 1 - p look alike, and the range is that of the smaller: that of the larger lies the other way round.
    trained = (low, high) if folded == value else (1 - high, 1 - low)
    if BY_NAME[model].family == "percolation" and folded + halves[0] >= 1 - high:
        trained = (low, 1 - low)  # the interval goes over from one of the two ranges to the other: p = 1/2 is no end
    opened = _opened(value, halves, digits, trained)
    return remarks + ([f"this reaches an end of the range trained on, so read {opened}"] if opened else [])


def _opened(value: float, halves: list[float], digits: int, trained: tuple[float, float]) -> str:
    """The intervals in words, "4.55 or above (68 %), any value (90 %)".

    Empty where the first reaches no end of the range, and where it reaches both: then it is said that nothing is told.
    """
    words = []
    for level, half in zip(LEVELS, halves):
        low, high = (float(end) for end in open_ends(value - half, value + half, trained))
        if np.isfinite(low) and np.isfinite(high):
            words.append(f"{low:.{digits}f} to {high:.{digits}f}")
        elif np.isfinite(low):
            words.append(f"{low:.{digits}f} or above")
        else:
            words.append(f"{high:.{digits}f} or below" if np.isfinite(high) else "any value")
        words[-1] += f" ({100 * level:.0f} %)"
        if level == LEVELS[0] and np.isfinite(low) == np.isfinite(high):
            return ""
    return ", ".join(words)
