"""The domains and the loop of a series as the report shows them: numbers of each frame, exponents, coercive points.

What is counted, and how, is in domains.py, correlations.py and hysteresis.py.  They see the previews of the results: of
a frame of more than 512 pixels a side, one pixel of the preview is a block of several, and lengths are given in pixels
of the frame.  Of long series some frames are measured, evenly spaced.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hamscope import hysteresis, separated
from hamscope.correlations import Correlation, Length, correlation
from hamscope.data.results import Results
from hamscope.data.windows import MASKED
from hamscope.domains import PHASES, Phase, domain_statistics, pool, summarize
from hamscope.figures import evenly_spaced
from hamscope.hysteresis import Coercive, Loop
from hamscope.models import CLASS_NAMES
from hamscope.panels import block_side, cut_preview
from hamscope.power_laws import Exponent
from hamscope.report_tables import write_table
from hamscope.verdict import middle_frames, percent

MOST_FRAMES = 60  # frames of a report whose domains are measured; half a second each at 512 x 512
EXPONENTS = {
    "tau": ("tau", "sizes of the clusters, n(s) ~ s^-tau"), "volume": ("d_v", "pixels against radius"),
    "hull": ("d_h", "hull against radius"), "perimeter": ("d_p", "accessible perimeter against radius"),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """The domains of a frame: `phases` by their names, `lengths` of its correlations, `block` pixels in one."""

    phases: dict[str, Phase]
    lengths: Correlation
    block: int


@dataclass(frozen=True)
class Physics:
    """What is known of the frames beside the network's answers.

    `share_error` and `distance_error` (F, 7) are standard errors from windows that do not overlap, NaN where not known;
    `measured` the domains by row, `pooled` the phases of the middle frames together by source.  Of every series, by its
    name: `loops`, and `error` (n,) of the magnetization of its frames.
    """

    share_error: np.ndarray
    distance_error: np.ndarray
    measured: dict[int, Measured]
    pooled: dict[str, dict[str, Phase]]
    loops: dict[str, list[Loop]]
    error: dict[str, np.ndarray]


def physics(results: Results, rows_of: dict[str, list[int]], series: dict[str, list[int]]) -> Physics:
    """Measure all of that: `rows_of` are the sources, `series` those and other rows that make one series."""
    measured = measure(results, [row for rows in rows_of.values() for row in rows])
    pooled = {source: pooled_phases(results, measured, rows) for source, rows in rows_of.items()}
    found = {name: series_loops(results, rows) for name, rows in series.items()}
    return Physics(
        *window_errors(results), measured, {source: own for source, own in pooled.items() if own},
        {name: loops for name, (loops, _) in found.items()}, {name: error for name, (_, error) in found.items()},
    )  # fmt: skip


def window_errors(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of shares and distances of all frames, both (F, 7)."""
    errors = np.full((2, len(results.source), len(CLASS_NAMES)), np.nan)
    if all(results.attributes.get(name) for name in ("window", "stride")):
        for row in np.flatnonzero(results.n_windows):
            for own, of in zip(errors, (separated.fractions, separated.cloud_distances)):
                own[row] = of(results, row).error
    return errors[0], errors[1]


def frame_pairs(results: Results, found: Physics, row: int) -> list[tuple[str, str]]:
    """What the slider shows of a frame beside the network's answers: pairs of a name and a text."""
    pairs = []
    if results.n_windows[row]:
        k = int(np.argmax(results.fractions[row]))
        far = with_error(float(results.cloud_distance[row, k]), float(found.distance_error[row, k]))
        pairs.append((f"Distance to {CLASS_NAMES[k]}", f"{far} sigma"))
    return pairs + (texts(found.measured[row]) if row in found.measured else [])


def measure(results: Results, rows: list[int]) -> dict[int, Measured]:
    """The domains of at most MOST_FRAMES of the rows that have a pattern, by row."""
    shown = evenly_spaced([row for row in rows if results.n_windows[row] > 0], MOST_FRAMES)
    found = {}
    for row in shown:
        image, mask = _sample(results.preview[row])
        found[row] = Measured(domain_statistics(image, mask), correlation(image, mask), block_side(results, row))
    return found


def _sample(preview: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """A preview without its padding: where it is up, and where it is masked, None where nothing is; both (h, w)."""
    cut = cut_preview(preview)
    mask = cut == MASKED
    return cut == 1, mask if mask.any() else None


def texts(one: Measured) -> list[tuple[str, str]]:
    """The numbers of a frame as pairs of a name and a text."""
    reach = {(True, True): "both ways", (True, False): "top to bottom", (False, True): "left to right"}
    pairs = [("Correlation length", length_text(one.lengths.efold, one.block))]
    for name, phase in one.phases.items():
        spans = reach.get((phase.spanning.rows, phase.spanning.columns), "spans nothing")
        pairs.append((f"Largest {name}", f"{percent(phase.largest)}, {spans}"))
    pairs += [(f"tau, {name}", exponent_text(phase.tau)) for name, phase in one.phases.items()]
    return pairs


def length_text(length: Length, block: int) -> str:
    """A length of the preview in pixels of the frame; marked where it is not to be believed."""
    if not np.isfinite(length.value):
        return "none"
    mark = " (?)" if length.reason else ""
    return f"{with_error(length.value * block, length.error * block)} px{mark}"


def exponent_text(exponent: Exponent) -> str:
    """An exponent with its error; marked where it is not to be believed."""
    if not np.isfinite(exponent.value):
        return "no fit"
    return with_error(exponent.value, exponent.error) + (" (?)" if exponent.reason else "")


def with_error(value: float, error: float) -> str:
    """A value with two digits of its error."""
    if not np.isfinite(error) or error <= 0:
        return f"{value:.3g}"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 4))
    return f"{value:.{digits}f} \u00b1 {error:.{digits}f}"


def pooled_phases(results: Results, measured: dict[int, Measured], rows: list[int]) -> dict[str, Phase]:
    """The phases of the middle frames of `rows` together, else of all that were measured; nothing without any."""
    here = [row for row in rows if row in measured]
    used = [row for row in here if middle_frames(results)[row]] or here
    pooled = {}
    for name in PHASES if used else ():
        phases = [measured[row].phases[name] for row in used]
        largest = max(phase.largest for phase in phases)
        pooled[name] = summarize(pool([phase.clusters for phase in phases]), phases[-1].spanning, largest)
    return pooled


def exponent_lines(phases: dict[str, Phase]) -> list[list[str]]:
    """The table of the exponents: symbol, what it is, and for each phase value, range and remark."""
    lines = []
    for field, (symbol, what) in EXPONENTS.items():
        for name, phase in phases.items():
            own: Exponent = getattr(phase, field)
            span = f"{own.low:.0f} to {own.high:.0f}" if np.isfinite(own.low) and np.isfinite(own.high) else "-"
            lines.append([symbol, what, name, exponent_text(own), span, str(own.count), own.reason])
    return lines


def series_loops(results: Results, rows: list[int]) -> tuple[list[Loop], np.ndarray]:
    """The loops of a series in temperature, and the errors of the magnetization of its frames (n,).

    There are none where a temperature or a direction is missing; a lone branch is half a loop.
    """
    error = np.array([hysteresis.magnetization_error(*_sample(results.preview[row])) for row in rows])
    kelvin, direction = results.temperature[rows], results.direction[rows]
    if not np.isfinite(kelvin).all():
        return [], error
    m = magnetization(results, rows)
    loops = hysteresis.loops(kelvin, m, direction, error)
    return loops or [_half(run, kelvin, m, direction, error) for run in hysteresis.branches(direction)[:1]
                     if direction[run[0]]], error  # fmt: skip


def _half(run: np.ndarray, kelvin, m, direction, error) -> Loop:
    """A branch without another as a loop of which half is not known."""
    point = hysteresis.coercive_point(kelvin[run], m[run], error[run])
    none, nan = Coercive(np.nan, np.nan, reason="not measured"), np.nan
    heats = direction[run[0]] == hysteresis.HEATING
    reason = "only one branch was measured" + (f"; {point.reason}" if point.reason else "")
    runs = (run, run[:0]) if heats else (run[:0], run)
    return Loop(*((point, none) if heats else (none, point)), nan, nan, nan, nan, (nan, nan), runs, reason)


def magnetization(results: Results, rows: list[int]) -> np.ndarray:
    """m = 2 up - 1 of the frames of a series, shape (n,)."""
    return 2 * results.up_fraction[rows] - 1


def loop_lines(loops: list[Loop]) -> list[dict]:
    """What the page says of each loop."""
    return [
        {"heating": _point(loop.heating), "cooling": _point(loop.cooling),
         "width": f"{with_error(loop.width, loop.width_error)} K" if np.isfinite(loop.width) else "not known",
         "area": f"{with_error(loop.area, loop.area_error)} K" if np.isfinite(loop.area) else "not known",
         "reason": loop.reason}
        for loop in loops
    ]  # fmt: skip


def _point(point: Coercive) -> str:
    return f"{with_error(point.value, point.error)} K" if np.isfinite(point.value) else "none"


def write_domains(path: Path, results: Results, measured: dict[int, Measured]) -> None:
    """domains.csv: a line a measured frame and phase; lengths in pixels of the frame, ranges of the preview."""
    head = ["source", "frame", "temperature_K", "phase", "pixels_a_side", "largest", "spans_rows", "spans_columns",
            "clusters"]  # fmt: skip
    head += [f"{name}_{part}" for name in ("efold", "decay") for part in ("px", "error", "reason")]
    lines = []
    for row, one in measured.items():
        lengths = [value for own in (one.lengths.efold, one.lengths.decay)
                   for value in (own.value * one.block, own.error * one.block, own.reason)]  # fmt: skip
        for name, phase in one.phases.items():
            lines.append([results.source[row], int(results.index[row]), results.temperature[row], name, one.block,
                          phase.largest, int(phase.spanning.rows), int(phase.spanning.columns),
                          len(phase.clusters.size), *lengths, *_exponent_cells(phase)])  # fmt: skip
    write_table(path, head + _exponent_head(), lines)


def write_exponents(path: Path, pooled: dict[str, dict[str, Phase]]) -> None:
    """exponents.csv: a line a source and phase, over its frames near the middle together."""
    lines = [[source, name, *_exponent_cells(phase)] for source, own in pooled.items() for name, phase in own.items()]
    write_table(path, ["source", "phase", *_exponent_head()], lines)


def _exponent_head() -> list[str]:
    parts = ("", "_error", "_from", "_to", "_count", "_reason")
    return [f"{symbol}{part}" for symbol, _ in EXPONENTS.values() for part in parts]


def _exponent_cells(phase: Phase) -> list:
    own = (getattr(phase, field) for field in EXPONENTS)
    return [value for one in own for value in (one.value, one.error, one.low, one.high, one.count, one.reason)]


def write_loops(path: Path, loops: dict[str, list[Loop]]) -> None:
    """loops.csv: a line a loop of a source."""
    head = ["source", "loop", "heating_K", "heating_error", "cooling_K", "cooling_error", "width_K", "width_error",
            "area_K", "area_error", "gap_low", "gap_high", "reason"]  # fmt: skip
    lines = [
        [source, number, *loop.heating[:2], *loop.cooling[:2], loop.width, loop.width_error, loop.area, loop.area_error,
         *loop.gaps, loop.reason]
        for source, own in loops.items() for number, loop in enumerate(own, 1)
    ]  # fmt: skip
    write_table(path, head, lines)
