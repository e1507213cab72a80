"""Raw frames of an experiment -> prepared.h5 and prepared.csv, which `hamscope classify` takes.

    read -> flat field -> drift -> average of neighbours -> crop -> threshold

All frames given make one series, in the order in which they are given.  A mask, the crop and the shifts are in pixels
of its first frame.  No more than a few frames are in memory at a time; one threshold for a whole series, or one switch
for every pixel, needs the grey frames a second time, and they wait for it in a folder beside the output.

prepared.h5: `frames` (F, H, W), float32 grey or uint8 of two levels, 1 = bright; `mask` (H, W) uint8, 1 = not part of
the sample; of each frame `source`, `page`, `source_sha256`, `shift_row`, `shift_column` (pixels), `threshold` (grey,
NaN for none and for traces).  Attributes: `adaptive` (a threshold of each frame's own, which erases its density),
`options`, `view`, hashes, software, and `complete`, written last.
"""

import csv
import io
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

from hamscope import provenance
from hamscope.data.formats_hdf5 import PREPARED
from hamscope.data.frames import FrameRef, list_frames
from hamscope.data.windows import has_two_levels
from hamscope.errors import UserError
from hamscope.prepare_frames import (
    GREY,
    TWO_LEVELS,
    Options,
    Series,
    Thresholds,
    by,
    progress,
    thresholds_of,
    two_levels,
)

FIELDS = ("temperature", "direction", "time", "pixel_size", "psf_px")
_CHUNK = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}


def prepare(frames: list[str], out: str | Path, options: Options, replace: bool = False, panel=None) -> list[str]:
    """Prepare the frames and write `out`, its CSV and, with drift, the CSV of the shifts; return lines for the user.

    Parameters
    ----------
    frames : list of str
        Files, folders and globs; see `hamscope.data.frames`.
    replace : bool
        Replace an `out` that was made from something else.
    panel : callable, optional
        Called with the series, its thresholds and `out` before `out` appears; returns more lines.

    Raises
    ------
    UserError
        Frames or options that do not fit each other, or an `out` that is something else or one of the frames.
    Failed
        The disk is too small for the grey frames that a series threshold or traces need.
    """
    out = Path(out).absolute()
    refs = list_frames(frames)
    _check_out(out, refs)
    hashes = {path: provenance.sha256_file(path) for path in dict.fromkeys(ref.path for ref in refs)}
    inputs = _inputs(refs, hashes, options, panel)
    if _is_done(out, inputs, replace):
        return [f"{out} was made from these frames with these options; nothing to do"]
    series = Series(refs, options)
    with ExitStack() as stack:
        file = stack.enter_context(provenance.whole_file(out))
        source, thresholds = stack.enter_context(thresholds_of(series, out))
        with h5py.File(file, "w") as target:
            levels, erased = _write_frames(target, series, source, thresholds)
            thresholds = thresholds._replace(levels=levels)
            _write_provenance(target, series, thresholds, erased, hashes, inputs)
        lines = panel(series, thresholds, out) if panel else []
        _write_tables(series, out)
    for suffix, made in ((".shifts.csv", options.drift), (".panel.png", panel), (".panel.csv", panel)):
        if not made:  # of what `out` held before
            out.with_suffix(suffix).unlink(missing_ok=True)
    return [*_lines(series, out), *lines]


def _check_out(out: Path, refs: list[FrameRef]) -> None:
    """UserError where `out` cannot be made, or one file of the frames holds more than one stack."""
    provenance.check_writable(out)
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"--out {out.name}: prepared frames are HDF5; give it a name that ends in .h5")
    for ref in refs:
        if out.with_suffix("") == Path(ref.path).with_suffix(""):
            raise UserError(f"--out {out}: it, or its CSV, would replace that of {ref.path}; choose another name")
    first = {ref.path: ref.array for ref in reversed(refs)}
    for ref in refs:
        if ref.array != first[ref.path]:
            raise UserError(
                f"{ref.path}: holds {first[ref.path]!r} and {ref.array!r}, which are no one series; save one by itself"
            )


def _inputs(refs: list[FrameRef], hashes: dict[str, str], options: Options, panel) -> str:
    """The hash of all that the output depends on."""
    places = [[hashes[ref.path], ref.array, ref.page, *(str(getattr(ref, field)) for field in FIELDS)] for ref in refs]
    extra = {name: _sha256(getattr(options, name), name) for name in ("flat", "dark", "mask") if getattr(options, name)}
    asked = asdict(options) | extra | {"panel": getattr(panel, "key", panel is not None)}
    return provenance.sha256_text(provenance.canonical_json([PREPARED, provenance.__version__, asked, places]))


def _sha256(path: str, option: str) -> str:
    """The hash of the one file of an option."""
    if not Path(path).is_file():
        raise UserError(f"--{option} {path}: no such file; give the path of a frame")
    return provenance.sha256_file(path)


def _is_done(out: Path, inputs: str, replace: bool) -> bool:
    """Whether `out` holds these frames already; UserError where it holds anything else and may not be replaced."""
    if not out.exists():
        return False
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give --out the name of a file")
    try:
        with h5py.File(out, "r") as file:
            found = str(file.attrs["inputs_sha256"]) if file.attrs.get("complete") else None
    except (OSError, KeyError):
        found = None
    if found != inputs and not replace:
        what = "was prepared from other frames or with other options" if found else "is no file of prepared frames"
        raise UserError(f"{out}: {what}; add --replace or choose another --out")
    return found == inputs and out.with_suffix(".csv").is_file()


def _write_frames(target: h5py.File, series: Series, source, thresholds: Thresholds) -> tuple[np.ndarray, bool]:
    """Write `frames` and `mask`; return the threshold of each frame, and whether the density of any is lost.

    It is where the threshold was taken from the frame, here or before; frames of two levels keep theirs.
    """
    shape, asked = series.sample.shape, series.options.threshold
    dtype = np.float32 if asked == GREY else np.uint8
    frames = target.create_dataset("frames", (len(series), *shape), dtype, chunks=(1, *shape), **_CHUNK)
    levels, erased = np.full(len(series), np.nan), any(ref.adaptive for ref in series.refs)
    for frame in progress(range(len(series)), "writing"):
        grey = source(frame)
        if asked == GREY:
            frames[frame] = grey
        else:
            frames[frame], levels[frame] = two_levels(series, thresholds, frame, grey)
            erased |= asked in TWO_LEVELS and not has_two_levels(grey[series.sample])
    target.create_dataset("mask", data=(~series.sample).astype(np.uint8), compression="gzip")
    return levels, erased


def _write_provenance(
    target: h5py.File, series: Series, thresholds: Thresholds, erased: bool, hashes: dict, inputs: str
) -> None:
    """Where everything came from; of each frame as columns, since attributes hold no more than 64 kB."""
    refs, text = series.refs, h5py.string_dtype()
    shift = series.drift.shift if series.drift else np.zeros((len(refs), 2))
    target.create_dataset("source", data=[ref.source for ref in refs], dtype=text)
    target.create_dataset("source_sha256", data=[hashes[ref.path] for ref in refs], dtype=text)
    columns = {
        "page": np.array([ref.page for ref in refs]),
        "shift_row": shift[:, 0],
        "shift_column": shift[:, 1],
        "threshold": thresholds.levels,
    }
    for name, values in columns.items():
        target[name] = values
    for name, unit in (("shift_row", "pixels"), ("shift_column", "pixels"), ("threshold", "grey levels")):
        target[name].attrs["unit"] = unit
    options, view = asdict(series.options), series.view
    files = {name: _sha256(options[name], name) for name in ("flat", "dark", "mask") if options[name]}
    target.attrs.update({
        "schema": PREPARED, "schema_version": 1, "inputs_sha256": inputs,
        "options": provenance.canonical_json(options), "files_sha256": json.dumps(files),
        "view": [view[0].start, view[0].stop, view[1].start, view[1].stop],
        "adaptive": erased, "series_threshold": thresholds.level,
        "series_contrast": thresholds.contrast,
        "software": json.dumps(provenance.software_versions("numpy", "scipy", "scikit-image", "h5py")),
    })  # fmt: skip
    target.attrs["complete"] = True


def _write_tables(series: Series, out: Path) -> None:
    """The CSV that goes with the frames, and that of the shifts."""
    rows = [[number, *(_cell(getattr(ref, field)) for field in FIELDS)] for number, ref in enumerate(series.refs)]
    kept = [k for k, field in enumerate(("frame", *FIELDS)) if k < 3 or any(row[k] != "" for row in rows)]
    header = ["frame", *FIELDS]
    write_csv(out.with_suffix(".csv"), [[row[k] for k in kept] for row in [header, *rows]])
    if series.drift:
        write_csv(out.with_suffix(".shifts.csv"), shift_table(series))


def shift_table(series: Series) -> list[list]:
    """The shifts as rows, the header first; `found` is no where a shift is that between its neighbours."""
    header: list = ["frame", "source", "page", "row_px", "column_px", "correlation", "keyframe", "found"]
    drift = series.drift
    return [header] + [
        [number, ref.source, ref.page, f"{shift[0]:.3f}", f"{shift[1]:.3f}", f"{quality:.3f}", int(key),
         "yes" if found else "no"]
        for number, (ref, shift, quality, key, found) in enumerate(zip(series.refs, *drift))
    ]  # fmt: skip


def write_csv(path: Path, rows: Iterable[list]) -> None:
    """Rows as a CSV, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with provenance.whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _cell(value: float) -> str | float:
    """Empty where a field is not known: NaN, or the direction 0."""
    return "" if np.isnan(value) or (isinstance(value, int) and value == 0) else value


def _lines(series: Series, out: Path) -> list[str]:
    """What was done, for the user."""
    rows, columns = series.view
    lines = [
        f"{out}: {len(series)} frames of {by(series.sample.shape)} pixels, rows {rows.start}:{rows.stop} and columns "
        f"{columns.start}:{columns.stop} of the first, {(~series.sample).mean():.1%} masked"
    ]
    if series.drift is None:
        return lines
    table, drift = shift_table(series), series.drift
    shown = sorted(set(np.linspace(0, len(series) - 1, 12).round().astype(int)))
    lines.append("   frame    rows  columns  correlation   (pixels that move a frame onto the first; all in "
                 f"{out.with_suffix('.shifts.csv').name})")  # fmt: skip
    lines += [
        f"{row[0]:8d} {row[3]:>7} {row[4]:>8} {row[5]:>12}{'' if row[7] == 'yes' else '   not found, interpolated'}"
        for row in (table[1 + k] for k in shown)
    ]
    lost, keys = int((~drift.found).sum()), len(set(drift.keyframe.tolist()))
    return [*lines, f"{keys} keyframes; {lost} of {len(series)} frames whose shift was not found"]
