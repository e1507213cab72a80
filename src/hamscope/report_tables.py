"""Everything that the report shows as CSV files: a line a source, a class of a source, a frame, a point of the clouds.

Numbers are written in full, as Python writes them; what is not known is an empty cell.  Names of files stand as they
are.
"""

import csv
from pathlib import Path

import numpy as np

from hamscope.data.results import Results
from hamscope.figures import cloud_axes
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.sweep_figure import write_sweep_table
from hamscope.verdict import Verdict, frame_verdicts, middle_frames, pooled, share_interval
from hamscope.viewer import DIRECTIONS

_BY_CLASS = (
    ("share", "fractions"), ("confident", "confident_fractions"), ("probability", "probabilities"),
    ("distance_sigma", "cloud_distance"), ("parameter", "parameter"), ("parameter_half68", "parameter_half68"),
    ("parameter_half90", "parameter_half90"),
)  # fmt: skip


def write_table(path: Path, head: list[str], lines) -> None:
    """A CSV file; a number that is not finite and None become empty cells."""
    with open(path, "w", newline="", encoding="utf-8", errors="replace") as file:
        table = csv.writer(file)
        table.writerow(head)
        table.writerows([_cell(value) for value in line] for line in lines)


def _cell(value):
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else ""
    return "" if value is None else value


def write_verdicts(path: Path, verdicts: list[Verdict]) -> None:
    """verdict.csv: a line a source."""
    head = ["source", "verdict", "kind", "leading_class", "named_classes", "share", "share_low95", "share_high95",
            "confident", "any_confident", "second_class", "second_share", "frames", "frames_used", "windows",
            "windows_side_by_side", "parameter", "warnings", "limits", "sentence"]  # fmt: skip
    lines = (
        [one.source, one.headline, one.kind, one.model, one.named if one.model else None, one.share, one.low, one.high,
         one.confident_share, one.any_confident_share, one.runner_up, one.runner_up_share, one.n_frames,
         one.frames_used, one.n_windows, one.n_independent,
         " ".join(f"{name}: {line}" for name, line in one.parameters), " ".join(one.warnings), " ".join(one.reasons),
         one.sentence.replace("\u00a0", " ")]
        for one in verdicts
    )  # fmt: skip
    write_table(path, head, lines)


def write_classes(path: Path, results: Results, verdicts: list[Verdict]) -> None:
    """classes.csv: a line a source and class, over all windows that the verdict pools."""
    head = ["source", "class", "share", "share_low95", "share_high95", "confident", "probability", "distance_sigma"]
    lines = []
    for one in verdicts:
        if not one.rows_used:
            continue
        distance = pooled(results, results.cloud_distance, list(one.rows_used))
        for k, name in enumerate(CLASS_NAMES):
            interval = share_interval(one.shares[k], one.n_independent)
            lines.append([one.source, name, one.shares[k], *interval, one.confident_shares[k], one.probabilities[k],
                          distance[k]])  # fmt: skip
    write_table(path, head, lines)


def write_series(path: Path, results: Results, rows: list[int], further: dict[str, np.ndarray] | None = None) -> None:
    """series.csv: a line a frame, in the order of `rows`; `further` has columns (F,) or (F, 7) of all frames."""
    columns = {f"{head}_{name}": getattr(results, values)[:, k]
               for head, values in _BY_CLASS for k, name in enumerate(CLASS_NAMES)}  # fmt: skip
    for head, values in (further or {}).items():
        by_class = zip(CLASS_NAMES, values.T) if values.ndim == 2 else ()
        columns |= {f"{head}_{name}": own for name, own in by_class} or {head: values}
    head = ["source", "frame", "temperature_K", "direction", "up", "near_middle", "windows", "windows_side_by_side",
            "psf_px", "threshold_from_frame", "leading_class", "leading_share", "leading_low95", "leading_high95",
            "leading_confident"]  # fmt: skip
    middle, verdicts = middle_frames(results), frame_verdicts(results)
    lines = []
    for row in rows:
        own = verdicts[row]
        lines.append([results.source[row], int(results.index[row]), results.temperature[row],
                      DIRECTIONS.get(int(results.direction[row])), results.up_fraction[row], int(middle[row]),
                      int(results.n_windows[row]), int(results.n_independent[row]), results.psf_px[row],
                      int(results.adaptive[row]), own.model, own.share, own.low, own.high, own.confident_share,
                      *(values[row] for values in columns.values())])  # fmt: skip
    write_table(path, [*head, *columns], lines)


def write_clouds(path: Path, points: np.ndarray, samples: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """clouds.csv: training images and windows on the six axes of the picture of the clouds.

    `samples` has logits (S, 7) and flags (S,) of the windows of each source.
    """
    origin, axes, _ = cloud_axes(points)
    lines = []
    for name, own in [(f"training {name}", own) for name, own in zip(CLASS_NAMES, np.asarray(points, float))]:
        lines += [[name, None, *place] for place in _projected(own, origin, axes)]
    for source, (logits, flags) in samples.items():
        known = np.isfinite(logits).all(axis=1)
        places = _projected(logits, origin, axes)
        lines += [[source, int(flag), *place] for flag, place in zip(flags[known], places)]
    write_table(path, ["of", "confident", *(f"axis_{k}" for k in range(1, 7))], lines)


def _projected(logits: np.ndarray, origin: np.ndarray, axes: np.ndarray) -> list:
    known = logits[np.isfinite(logits).all(axis=1)].astype(float)
    return np.round((known - origin) @ axes[:6].T, 4).tolist()


def write_sweeps(path: Path, sweeps: dict[str, dict]) -> None:
    """sweep.csv: a line a source and assumed width of the point-spread function."""
    write_sweep_table(sweeps, path)


def write_candidates(path: Path) -> None:
    """candidates.csv: the seven classes in the order of every table."""
    write_table(path, ["class", "family", "dimension", "parameter", "means"], [BY_NAME[name] for name in CLASS_NAMES])
