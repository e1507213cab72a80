"""Which model made the pattern, how surely, and what would change the answer: pure functions over `Results`.

A frame's verdict is the class with the largest share of its windows.  The verdict of a source (one file: a film, a
scan) pools the windows of its *middle* frames,

    share_k = sum_f n_f x_fk / sum_f n_f      over the frames f with n_f > 0 and |m_f| <= 0.6,   m_f = 2 up_f - 1,

with n_f the windows of frame f that have a pattern, x_fk the share of class k among them and up_f its share of up
pixels.  |m| <= 0.6 is the range in which the random-field classes are trained; nearly uniform frames hold little
information, and the paper sets them aside as well (sections IV and V, doi:10.48550/arXiv.2211.01490).

Windows overlap and frames of a film show one place, so a share is as sure as that of its *independent* windows: its
interval is the 95 % Wilson interval with their number, and more than half has to be sure before a verdict is decided.
One window, however clear, is a small sample.

What the class of a verdict stands for is asked of the network's own confusions (`hamscope.separable`): classes that it
cannot tell apart under this microscope are named together.

Shape letters: F = frames of the file.
"""

from dataclasses import dataclass, replace

import numpy as np

from hamscope import separable
from hamscope.data.results import Results
from hamscope.learn.calibration import wilson
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.parameter_line import parameter_line

MIDDLE = 0.6  # largest |m| of a middle frame; the range of the training snapshots of the random-field classes
MAJORITY = 2 / 3  # a smaller share is undecided between the two largest
FEW_CONFIDENT = 1 / 3  # with a smaller confident share the pattern counts as none of the seven
SURE = 1 / 2  # the lower end of the interval of the share has to be above
FEW_INDEPENDENT = 5  # fewer windows that do not overlap than this are a small sample
_ROUNDING = 1e-9

DECIDED, UNDECIDED, UNLIKE, NO_PATTERN = "decided", "undecided", "unlike all seven", "no pattern"
SMALL, INSEPARABLE = "too small a sample", "not told apart"


@dataclass(frozen=True)
class FrameVerdict:
    """One frame: its row in the file, the class with the largest share (None: no pattern) and its shares.

    `low` and `high` are the 95 % interval of the share, by the number of independent windows.
    """

    row: int
    model: str | None
    share: float
    confident_share: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """One source.  Shares are of the pooled windows that have a pattern, 0 to 1; NaN where there are none.

    `model` leads, whatever `kind` says, and is None without a pattern.  `separation` says whether it stands alone or
    for a group of classes, None where nothing is known of that; `share`, its 95 % interval `low` to `high` and
    `confident_share` belong to the class or group, `any_confident_share` to all classes together, and `runner_up` leads
    outside of it.  `probabilities` (7,) are the mean calibrated ones.  `rows_used` are the frames that were pooled.
    `n_independent` counts places on the sample: the most windows that do not overlap in any one frame.  The frames of
    a film show the same place again, so they do not add up.  `parameters` are lines of (class, text).  `warnings` say
    that the microscope is none that the network was trained for, `reasons` what else limits the verdict.
    """

    source: str
    kind: str
    model: str | None
    share: float
    low: float
    high: float
    confident_share: float
    any_confident_share: float
    runner_up: str | None
    runner_up_share: float
    shares: np.ndarray
    confident_shares: np.ndarray
    probabilities: np.ndarray
    separation: separable.Separation | None
    erased: bool
    n_frames: int
    rows_used: tuple[int, ...]
    n_windows: int
    n_independent: int
    parameters: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def frames_used(self) -> int:
        """How many frames were pooled."""
        return len(self.rows_used)

    @property
    def group(self) -> separable.Group | None:
        """The classes that are named together, None where one stands alone."""
        return self.separation.group if self.separation else None

    @property
    def name(self) -> str:
        """The class or the group that leads."""
        return self.group.words if self.group else self.model

    @property
    def named(self) -> str:
        """The classes that the share counts."""
        return " or ".join(self.group.classes) if self.group else self.model

    @property
    def left_open(self) -> str:
        """What a group leaves open, and why."""
        erased = self.erased and BY_NAME[self.model].family == "percolation"
        return f"{self.group.open} undecided {'(the threshold erases the density)' if erased else 'at this resolution'}"

    @property
    def share_text(self) -> str:
        """The share with its interval."""
        windows = "window" if self.n_independent == 1 else "windows"
        return (
            f"{percent(self.share)} ({percent(self.low, sign=False)} to {percent(self.high)}, from "
            f"{self.n_independent} independent {windows})"
        )

    @property
    def headline(self) -> str:
        """The verdict in two to ten words."""
        if self.kind == DECIDED:
            return f"{self.name}, {self.left_open}" if self.group else self.model
        if self.kind == SMALL:
            return f"probably {self.name}, too small a sample to decide"
        if self.kind == INSEPARABLE:
            return f"undecided at this resolution (nearest: {self.model})"
        if self.kind == UNDECIDED:
            return f"undecided between {self.name} and {self.runner_up}"
        if self.kind == UNLIKE:
            return f"none of the seven (nearest: {self.model})"
        return "no pattern, no verdict"

    @property
    def sentence(self) -> str:
        """The verdict as one sentence, without the name of the source."""
        if self.kind == NO_PATTERN:
            return "No window of it has a pattern, so there is no verdict."
        shares = f"{self.share_text} of {self.n_windows:,} windows say {self.named}"
        sure = f"{percent(self.confident_share)} are {self.named} and look like training images"
        if self.kind == UNLIKE:
            return (
                f"Few windows ({percent(self.any_confident_share)}) look like anything the network was trained on: "
                f"treat as none of the seven, although {shares}."
            )
        if self.kind == INSEPARABLE:
            return f"Undecided: at this resolution an answer {self.model} is too often another class; {shares}; {sure}."
        if self.kind == SMALL:
            return f"Probably {self.name}, but the sample is too small to decide: {shares}; {sure}."
        if self.kind == UNDECIDED:
            return (
                f"Undecided between {self.name} and {self.runner_up}: {shares}, "
                f"{percent(self.runner_up_share)} {self.runner_up}; {sure}."
            )
        if self.group:
            return f"{self.name[0].upper()}{self.name[1:]}, {self.left_open}: {shares}; {sure}."
        return f"{self.model} ({BY_NAME[self.model].describe}): {shares}; {sure}."


def percent(share: float, sign: bool = True) -> str:
    """A share as text: whole per cent, but 0 and 100 only where it is exactly that; no line breaks before the sign."""
    if not np.isfinite(share):
        return "-"
    number = "< 1" if 0 < share < 0.005 else "> 99" if 0.995 <= share < 1 else f"{100 * share:.0f}"
    return f"{number} %".replace(" ", "\u00a0") if sign else number


def source_rows(results: Results) -> dict[str, list[int]]:
    """The rows of each source, sources in order of appearance, rows by frame index."""
    rows = {}
    for row, source in enumerate(results.source):
        rows.setdefault(source, []).append(row)
    return {source: sorted(own, key=lambda row: results.index[row]) for source, own in rows.items()}


def frame_verdicts(results: Results) -> list[FrameVerdict]:
    """The verdict of every frame, in the order of the file."""
    verdicts = []
    for row, n_windows in enumerate(results.n_windows):
        if n_windows == 0:
            verdicts.append(FrameVerdict(row, None, *[float("nan")] * 4))
            continue
        best = int(np.argmax(results.fractions[row]))
        shares = results.fractions[row, best], results.confident_fractions[row, best]
        interval = share_interval(shares[0], results.n_independent[row])
        verdicts.append(FrameVerdict(row, CLASS_NAMES[best], *map(float, (*shares, *interval))))
    return verdicts


def share_interval(share: float, n_independent: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of windows, of which so many are independent."""
    low, high = wilson(min(share, 1.0) * n_independent, n_independent)
    return float(low), float(high)


def middle_frames(results: Results) -> np.ndarray:
    """Frames with a pattern and |2 up_fraction - 1| <= 0.6, shape (F,) bool."""
    middle = np.abs(2 * results.up_fraction - 1) <= MIDDLE + _ROUNDING
    return middle & (results.n_windows > 0)


def pooled(results: Results, values: np.ndarray, rows) -> np.ndarray:
    """Mean over the windows of `rows` of a per-frame mean `values` (F, 7): weighted by `n_windows`; shape (7,)."""
    weights = results.n_windows[rows].astype(float)
    return np.average(values[rows], axis=0, weights=weights)


def source_verdicts(results: Results) -> list[Verdict]:
    """The verdict of every source, in order of appearance."""
    return [_source_verdict(results, source, rows) for source, rows in source_rows(results).items()]


def closest_row(results: Results, verdict: Verdict, rows) -> int | None:
    """The frame of `rows` nearest to the cloud of the verdict's class; the paper proposes it as the most critical."""
    with_pattern = [row for row in rows if results.n_windows[row] > 0]
    if verdict.model is None or not with_pattern:
        return None
    distance = results.cloud_distance[with_pattern, CLASS_NAMES.index(verdict.model)]
    return with_pattern[int(np.nanargmin(distance))] if np.isfinite(distance).any() else None


def _source_verdict(results: Results, source: str, rows: list[int]) -> Verdict:
    with_pattern = [row for row in rows if results.n_windows[row] > 0]
    middle = [row for row in with_pattern if middle_frames(results)[row]]
    used = middle or with_pattern
    if not used:
        return _without_pattern(source, len(rows))
    shares = pooled(results, results.fractions, used)
    confident = pooled(results, results.confident_fractions, used)
    model = CLASS_NAMES[int(np.argmax(shares))]
    separation = _separation(results, used, model)
    named = separation.group.classes if separation and separation.group else (model,)
    own = np.isin(CLASS_NAMES, named)
    share, n_independent = float(shares[own].sum()), int(results.n_independent[used].max())
    low, high = share_interval(share, n_independent)
    second = int(np.argmax(np.where(own, -1, shares)))
    card = bundle_card(results.attributes)
    lines = ((name, parameter_line(results, used, name, card)) for name in named)
    verdict = Verdict(
        source=source, kind=_kind(share, low, confident.sum(), separation),
        model=model, share=share, low=low, high=high,
        confident_share=float(confident[own].sum()), any_confident_share=float(confident.sum()),
        runner_up=CLASS_NAMES[second], runner_up_share=float(shares[second]),
        shares=shares, confident_shares=confident, probabilities=pooled(results, results.probabilities, used),
        separation=separation, erased=bool(results.adaptive[used].any()),
        n_frames=len(rows), rows_used=tuple(used),
        n_windows=int(results.n_windows[used].sum()), n_independent=n_independent,
        parameters=tuple((name, line) for name, line in lines if line),
        warnings=tuple(instrument_warnings(results.psf_px[used], card)),
    )  # fmt: skip
    reasons = (
        _frame_reasons(verdict, bool(middle), len(with_pattern))
        + _separation_reasons(verdict, results)
        + _meaning_reasons(verdict, results.attributes)
    )
    return replace(verdict, reasons=tuple(reasons))


def _without_pattern(source: str, n_frames: int) -> Verdict:
    nan, nothing = float("nan"), np.full(len(CLASS_NAMES), np.nan)
    return Verdict(
        source=source, kind=NO_PATTERN, model=None, share=nan, low=nan, high=nan, confident_share=nan,
        any_confident_share=nan, runner_up=None, runner_up_share=nan, shares=nothing, confident_shares=nothing,
        probabilities=nothing, separation=None, erased=False, n_frames=n_frames, rows_used=(), n_windows=0,
        n_independent=0,
        reasons=("Every window is of one level only: choose another threshold, or frames within the transition.",),
    )  # fmt: skip


def _kind(share: float, low: float, any_confident: float, separation: separable.Separation | None) -> str:
    """What may be said of a class or group with this share."""
    if any_confident < FEW_CONFIDENT - _ROUNDING:
        return UNLIKE
    if separation and separation.nothing:
        return INSEPARABLE
    if share < MAJORITY - _ROUNDING:
        return UNDECIDED
    return DECIDED if low > SURE else SMALL


def _separation(results: Results, rows: list[int], model: str) -> separable.Separation | None:
    """What an answer `model` stands for under the microscopes of the rows; None where the bundle does not say."""
    card = bundle_card(results.attributes)
    if not {"resolution", "instrument"} <= set(card):
        return None
    tables = {}
    for row in rows:
        seen = float(results.psf_px[row]), threshold_of(results, row)
        key = str(seen)
        weight, table = tables.get(key, (0, None))
        table = separable.answers(card["resolution"], card["instrument"]["psf_px"], *seen) if table is None else table
        tables[key] = weight + results.n_windows[row], table
    weights, found = zip(*tables.values())
    return separable.separate(np.average(found, axis=0, weights=weights), model)


def threshold_of(results: Results, row: int) -> str:
    """How the frame of a row became two levels, by the names of `hamscope.separable`."""
    given = results.attributes.get("config", {}).get("threshold")
    return given if results.adaptive[row] and given in separable.THRESHOLDS else separable.THRESHOLDS[0]


def instrument_warnings(psf_px: np.ndarray, card: dict) -> list[str]:
    """One warning for every width (NaN: not known) that is outside of what the network was trained for."""
    if "instrument" not in card:
        return []
    low, high = card["instrument"]["psf_px"]
    trained = "sharp images only (0 px)" if high == 0 else f"{low:g} to {high:g} px"
    outside = [width for width in np.unique(psf_px) if width < low - _ROUNDING or width > high + _ROUNDING]
    return [
        f"The point-spread function is given as {width:g} px, and the network was trained for {trained}: what it says "
        "here is beyond its training and proves nothing."
        for width in outside
    ]


def _separation_reasons(verdict: Verdict, results: Results) -> list[str]:
    """The numbers behind a group, or behind nothing at all."""
    separation, rows = verdict.separation, list(verdict.rows_used)
    if separation is None or separation.alone >= separable.LEVEL:
        return []
    card = bundle_card(results.attributes)
    low, high = card["instrument"]["psf_px"]
    widths = np.unique(results.psf_px[rows])
    unknown = not np.isfinite(widths).all()
    where = (
        f"at any width from {low:g} to {high:g} px, since it was not given"
        if unknown
        else f"a point-spread function of {', '.join(f'{width:g}' for width in widths)} px"
    )
    threshold = threshold_of(results, rows[0])
    together = (
        f"{' or '.join(separation.group.classes)} together reach {percent(separation.together)}"
        if separation.group
        else "no group of classes reaches that either"
    )
    reasons = [
        f"Of simulated images seen like this ({where}; threshold {threshold}) that are called {verdict.model}, "
        f"{percent(separation.alone)} are {verdict.model} when every class is as likely; a class is named alone from "
        f"{percent(separable.LEVEL)} on, and {together}."
    ]
    if unknown:
        most = separable.certain_up_to(card["resolution"], verdict.model, threshold)
        reasons.append(
            f"With a point-spread function known to be at most {most:g} px (--psf-px), {verdict.model} would be named "
            "alone."
            if most is not None
            else f"No known width would let {verdict.model} be named alone."
        )
    return reasons


def _frame_reasons(verdict: Verdict, middle: bool, n_with_pattern: int) -> list[str]:
    """What the choice and the number of frames and windows mean for the verdict."""
    reasons = []
    if not middle:
        reasons.append(
            f"No frame is near the middle of its transition (|2 up - 1| <= {MIDDLE}), so all {n_with_pattern} with a "
            "pattern are pooled; the random-field models were not trained on such uneven frames."
        )
    elif verdict.frames_used < verdict.n_frames:
        reasons.append(
            f"Only the {verdict.frames_used} of {verdict.n_frames} frames near the middle of the transition are "
            "pooled; nearly uniform frames hold little information."
        )
    if verdict.n_independent < FEW_INDEPENDENT:
        reasons.append(
            f"No more than {verdict.n_independent} of its windows fit side by side without overlap: a small sample. "
            "A larger field of view, or another place on the sample, is the best check."
        )
    return reasons


def _meaning_reasons(verdict: Verdict, attributes: dict) -> list[str]:
    """What the class, its rival, the instrument and the threshold mean for the verdict."""
    reasons = []
    family, other = BY_NAME[verdict.model].family, BY_NAME[verdict.runner_up].family
    if verdict.kind == UNDECIDED and family == other and family != "percolation":
        reasons.append(f"Both candidates are {family} models; what stays open is the dimension.")
    if bundle_card(attributes).get("instrument", {}).get("psf_px", [0, 1])[1] == 0:
        towards = ", and this is one of them" if family == "random-field" else ""
        reasons.append(
            "The network was trained on sharp simulated images. A blurred image is likely to be misjudged, often "
            f"towards the random-field models{towards}: show the instrument a sample of another kind beside it."
        )
    if family == "percolation" and verdict.erased:
        threshold = attributes.get("config", {}).get("threshold")
        reasons.append(
            f"The threshold ({threshold}) is taken from each frame. That erases the density, and the three percolation "
            "classes differ by density alone: read it as percolation of some kind."
        )
    return reasons


def bundle_card(attributes: dict) -> dict:
    """What the results file says of the bundle, as a dict; what is not as it should be is left out."""
    card = attributes.get("bundle", {})
    card = dict(card) if isinstance(card, dict) else {}
    sounds = {
        "instrument": _sound_instrument, "resolution": _sound_resolution,
        "trained": lambda of: all(len(own) == 2 and np.isfinite(np.array(own, float)).all() for own in of.values()),
        "coverage": lambda of: all(np.isfinite(float(own.get("slope", 0))) for own in of.values()),
    }  # fmt: skip
    for name, sound in sounds.items():
        try:
            fits = name not in card or sound(card[name])
        except (TypeError, ValueError, KeyError, AttributeError):
            fits = False
        if not fits:
            del card[name]
    return card


def _sound_instrument(instrument: dict) -> bool:
    return isinstance(instrument["summary"], str) and np.isfinite(np.array(instrument["psf_px"], float)).sum() == 2


def _sound_resolution(resolution: dict) -> bool:
    widths, counts = np.array(resolution["psf_px"], float), np.array(resolution["counts"], float)
    return counts.shape == (len(widths), 3, 2, 7, 7) and np.isfinite(widths).all() and (counts >= 0).all()
