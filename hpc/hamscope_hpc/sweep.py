"""`hamscope classify --sweep-psf`: the verdict against the assumed resolution, beside the results and within them.

results.h5, frames --> at most 500 windows a source --> results.sweep.png, results.sweep.csv, attribute `sweep`
"""

import sys
from pathlib import Path

import numpy as np

from hamscope.config import Classify
from hamscope.data.frames import FrameRef, list_frames, read_frame, read_mask
from hamscope.data.levels import frame_levels, spins
from hamscope.data.parts import PREVIEW
from hamscope.data.results import add_attribute, read_results
from hamscope.figures import evenly_spaced
from hamscope.learn.bundle import default_bundle, read_bundle
from hamscope.learn.sweep import MOST_WINDOWS, check_takes_condition, some_windows, sweep
from hamscope.sweep_figure import sweep_picture, write_sweep_table
from hamscope.verdict import source_verdicts

MOST_SOURCES = 24  # as many as have pictures in the report
_FRAMES = 20  # of one source


def sweep_psf(frames: list[str], bundle: str | Path | None, out: str | Path, options: Classify) -> tuple[Path, Path]:
    """Sweep the frames that the verdicts of the results `out` pool; the paths of the picture and of the table.

    Raises
    ------
    UserError
        A network that is not told of the microscope.
    """
    out, loaded = Path(out), read_bundle(bundle or default_bundle())
    check_takes_condition(loaded)
    results = read_results(out, pictures=False)
    refs = {(ref.source, ref.page): ref for ref in list_frames(frames, loaded.window)}
    verdicts = [verdict for verdict in source_verdicts(results) if verdict.model]
    if len(verdicts) > MOST_SOURCES:
        print(f"classify: {len(verdicts)} sources, the first {MOST_SOURCES} are swept", file=sys.stderr)
    found = {}
    for verdict in verdicts[:MOST_SOURCES]:
        rows = evenly_spaced(list(verdict.rows_used), min(_FRAMES, MOST_WINDOWS))
        cut = [
            some_windows(*_spins(refs[verdict.source, int(results.index[row])], options), loaded.window,
                         MOST_WINDOWS // len(rows))
            for row in rows
        ]  # fmt: skip
        known = list(zip(cut, results.adaptive[rows].astype(bool)))
        swept, told = sweep(known, loaded, options.confidence), results.psf_px[rows[0]]
        found[verdict.source] = {
            "psf_px": [None if np.isnan(width) else float(width) for width in swept.psf_px],
            "probabilities": swept.probabilities.round(6).tolist(), "shares": swept.shares.round(6).tolist(),
            "confident": swept.confident.round(6).tolist(), "windows": swept.windows,
            "told": None if np.isnan(told) else float(told),
        }  # fmt: skip
    picture, table = out.with_suffix(".sweep.png"), out.with_suffix(".sweep.csv")
    sweep_picture(list(found.values()), loaded.card["instrument"]["psf_px"], picture)
    write_sweep_table(found, table)
    add_attribute(out, "sweep", found)
    return picture, table


def _spins(ref: FrameRef, options: Classify) -> tuple[np.ndarray, np.ndarray | None]:
    """A frame of two levels and its mask, if any, as it was classified."""
    grey, mask = read_frame(ref, native=True), read_mask(ref) if ref.masked else None

    def rows(start: int, stop: int):
        return grey[start:stop], None if mask is None else mask[start:stop]

    levels = frame_levels(ref.shape, rows, options.threshold, options.up, PREVIEW)
    return spins(grey, levels.threshold, options.up, mask), mask
