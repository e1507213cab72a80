"""Which model made the pattern, how surely, and what would change the answer: pure functions over `Results`.

A frame's verdict is the class with the largest share of its windows.  The verdict of a source (one file: a film, a
scan) pools the windows of its *middle* frames,

    share_k = sum_f n_f x_fk / sum_f n_f      over the frames f with n_f > 0 and |m_f| <= 0.6,   m_f = 2 up_f - 1,

with n_f the windows of frame f that have a pattern, x_fk the share of class k among them and up_f its share of up
pixels.  |m| <= 0.6 is the range in which the random-field classes are trained; nearly uniform frames hold little
information, and the paper sets them aside as well (sections IV and V, doi:10.48550/arXiv.2211.01490).

Shape letters: F = frames of the file.
"""

from dataclasses import dataclass

import numpy as np

from hamscope.data.results import Results
from hamscope.models import BY_NAME, CLASS_NAMES

MIDDLE = 0.6  # largest |m| of a middle frame; the range of the training snapshots of the random-field classes
MAJORITY = 2 / 3  # a smaller share is undecided between the two largest
FEW_CONFIDENT = 1 / 3  # with a smaller confident share the pattern counts as none of the seven
FEW_INDEPENDENT = 5  # fewer windows that do not overlap than this are a small sample
_ROUNDING = 1e-9

DECIDED, UNDECIDED, UNLIKE, NO_PATTERN = "decided", "undecided", "unlike all seven", "no pattern"


@dataclass(frozen=True)
class FrameVerdict:
    """One frame: its row in the file, the class with the largest share (None: no pattern) and its shares."""

    row: int
    model: str | None
    share: float
    confident_share: float


@dataclass(frozen=True)
class Verdict:
    """One source.  Shares are of the pooled windows that have a pattern, 0 to 1; NaN where there are none.

    `model` leads and `runner_up` follows, whatever `kind` says; both are None without a pattern.  `confident_share`
    belongs to `model`, `any_confident_share` to all classes together.  `rows_used` are the frames that were pooled.
    `n_independent` counts places on the sample: the most windows that do not overlap in any one frame.  The frames of
    a film show the same place again, so they do not add up.  `reasons` say in plain words what limits the verdict.
    """

    source: str
    kind: str
    model: str | None
    share: float
    confident_share: float
    any_confident_share: float
    runner_up: str | None
    runner_up_share: float
    shares: np.ndarray
    confident_shares: np.ndarray
    n_frames: int
    rows_used: tuple[int, ...]
    n_windows: int
    n_independent: int
    reasons: tuple[str, ...]

    @property
    def frames_used(self) -> int:
        """How many frames were pooled."""
        return len(self.rows_used)

    @property
    def headline(self) -> str:
        """The verdict in two to eight words."""
        if self.kind == DECIDED:
            return self.model
        if self.kind == UNDECIDED:
            return f"undecided between {self.model} and {self.runner_up}"
        if self.kind == UNLIKE:
            return f"none of the seven (nearest: {self.model})"
        return "no pattern, no verdict"

    @property
    def sentence(self) -> str:
        """The verdict as one sentence, without the name of the source."""
        if self.kind == NO_PATTERN:
            return "No window of it has a pattern, so there is no verdict."
        shares = f"{percent(self.share)} of {self.n_windows:,} windows say {self.model}"
        sure = f"{percent(self.confident_share)} are {self.model} and look like its training images"
        if self.kind == UNLIKE:
            return (
                f"Few windows ({percent(self.any_confident_share)}) look like anything the network was trained on: "
                f"treat as none of the seven, although {shares}."
            )
        if self.kind == UNDECIDED:
            return (
                f"Undecided between {self.model} and {self.runner_up}: {shares}, "
                f"{percent(self.runner_up_share)} {self.runner_up}; {sure}."
            )
        return f"{self.model} ({BY_NAME[self.model].describe}): {shares}; {sure}."


def percent(share: float) -> str:
    """A share as text: whole per cent, but 0 and 100 only where it is exactly that; no line breaks before the sign."""
    if not np.isfinite(share):
        return "-"
    number = "< 1" if 0 < share < 0.005 else "> 99" if 0.995 <= share < 1 else f"{100 * share:.0f}"
    return f"{number} %".replace(" ", "\u00a0")


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
            verdicts.append(FrameVerdict(row, None, float("nan"), float("nan")))
            continue
        best = int(np.argmax(results.fractions[row]))
        shares = results.fractions[row, best], results.confident_fractions[row, best]
        verdicts.append(FrameVerdict(row, CLASS_NAMES[best], *map(float, shares)))
    return verdicts


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
        nan, nothing = float("nan"), np.full(len(CLASS_NAMES), np.nan)
        reasons = ("Every window is of one level only: choose another threshold, or frames within the transition.",)
        return Verdict(
            source, NO_PATTERN, None, nan, nan, nan, None, nan, nothing, nothing, len(rows), (), 0, 0, reasons
        )  # fmt: skip
    shares = pooled(results, results.fractions, used)
    confident = pooled(results, results.confident_fractions, used)
    first, second = np.argsort(-shares, kind="stable")[:2]
    kind = DECIDED if shares[first] >= MAJORITY - _ROUNDING else UNDECIDED
    if confident.sum() < FEW_CONFIDENT - _ROUNDING:
        kind = UNLIKE
    verdict = Verdict(
        source=source, kind=kind,
        model=CLASS_NAMES[first], share=float(shares[first]),
        confident_share=float(confident[first]), any_confident_share=float(confident.sum()),
        runner_up=CLASS_NAMES[second], runner_up_share=float(shares[second]),
        shares=shares, confident_shares=confident,
        n_frames=len(rows), rows_used=tuple(used),
        n_windows=int(results.n_windows[used].sum()), n_independent=int(results.n_independent[used].max()),
        reasons=(),
    )  # fmt: skip
    reasons = _frame_reasons(verdict, bool(middle), len(with_pattern)) + _meaning_reasons(verdict, results.attributes)
    return Verdict(**{**verdict.__dict__, "reasons": tuple(reasons)})


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
    instrument = str(bundle_card(attributes).get("instrument", "unknown"))
    if instrument.startswith("none"):
        towards = ", and this is one of them" if family == "random-field" else ""
        reasons.append(
            "The network was trained on sharp simulated images. A blurred image is likely to be misjudged, often "
            f"towards the random-field models{towards}: show the instrument a sample of another kind beside it."
        )
    threshold = attributes.get("config", {}).get("threshold")
    if family == "percolation" and threshold in ("otsu", "median"):
        reasons.append(
            f"The threshold ({threshold}) is taken from each frame. On grey frames that erases the density, and the "
            "three percolation classes differ by density alone: read it as percolation of some kind."
        )
    return reasons


def bundle_card(attributes: dict) -> dict:
    """What the results file says of the bundle, as a dict; empty where it says nothing."""
    card = attributes.get("bundle", {})
    return card if isinstance(card, dict) else {}
