"""Results to a report: a page with a slider over frames, the same pictures as PNG and all numbers as CSV beside it.

    results.h5 -> verdict.py, report_domains.py (what to say), report_pictures.py, panels.py (what to show)
               -> viewer.py (every frame), report_tables.py (CSV) -> templates/report.html.j2 -> index.html
    slices.h5  -> slices_report.py, likewise

The page is one file that needs nothing else.  Only where the panels of all frames are more than `viewer.ONE_FILE` bytes
do they stand in a folder beside it.  Names of files come from outside: the template escapes them, no picture draws them
and no path is made of them.  Equal results give an equal page, byte for byte.
"""

import shlex
from pathlib import Path

import h5py
import numpy as np
from matplotlib.colors import to_hex

from hamscope import __version__, figures, report_domains, report_pictures, report_tables, slices_report
from hamscope.data import slices
from hamscope.data.results import Results, read_results
from hamscope.errors import ContractError
from hamscope.models import CLASS_NAMES, MODELS
from hamscope.page import encoded, plain, render, script, write_page
from hamscope.panels import FLAGS
from hamscope.report_domains import Physics
from hamscope.verdict import (
    NO_PATTERN,
    UNLIKE,
    Verdict,
    bundle_card,
    pooled,
    share_interval,
    source_rows,
    source_verdicts,
)
from hamscope.viewer import FACTS, ONE_FILE, all_frames, first_shown

MOST_SECTIONS = 24  # sources with a section of their own; the table has all.  A picture weighs some 100 kB in the page
MOST_LINES = 200  # frames in a table on the page; a longer one is in series.csv
MOST_CSV = 1_000_000  # bytes; a smaller table can be saved from the page itself


def write_report(path: str | Path, folder: str | Path, replace: bool = False) -> Path:
    """Write the report of a results or a slices file into `folder`, and return the path of its page.

    The folder is written whole or not at all.  One that is the report of this very file is left as it is.

    Raises
    ------
    ContractError
        The file is missing, damaged, not ours or holds nothing to report.
    UserError
        `folder` is the report of another file (unless `replace`), holds anything that is no part of a report
        (whatever `replace` says), or cannot be written.
    """
    if _schema(path) == slices.SCHEMA:
        return slices_report.write_slices_report(path, folder, replace)
    results = read_results(path)
    if results.attributes["classes"] != list(CLASS_NAMES):
        raise ContractError(f"{path}: its classes are not those of this version; classify again")
    if not results.source:
        raise ContractError(f"{path}: holds no frame; classify again")
    return write_page(path, folder, replace, lambda empty: render("report.html.j2", page_context(results, empty)))


def page_context(results: Results, folder: Path) -> dict:
    """Everything that the page says, as plain values; draws the pictures and writes the tables into `folder`."""
    rows_of, verdicts = source_rows(results), source_verdicts(results)
    groups = frame_groups(results, rows_of)
    series = {one.source: rows_of[one.source] for one in verdicts if one.n_frames > 1}
    series |= {group["title"]: group["rows"] for group in groups if group["series"]}
    found = report_domains.physics(results, rows_of, series)
    sections = [
        _section(results, found, number, verdict, rows_of[verdict.source], folder)
        for number, verdict in enumerate(verdicts[:MOST_SECTIONS], 1)
    ]
    attributes = results.attributes
    instrument = bundle_card(attributes).get("instrument", {})
    frames = all_frames(results, folder, lambda row: report_domains.frame_pairs(results, found, row))
    return {
        "models": MODELS, "colours": figures.COLOURS, "dark": _dark_colours(), "flag_colours": FLAGS, "facts": FACTS,
        "verdicts": verdicts, "sections": sections, "most_sections": MOST_SECTIONS, "most_lines": MOST_LINES,
        "groups": [_group(results, found, group, folder) for group in groups],
        "frames": {"inside": frames.inside, "rows": frames.rows}, "quarantined": results.quarantined,
        "n_frames": len(results.source), "n_measured": len(found.measured), "no_pattern": NO_PATTERN,
        "unlike": UNLIKE, "one_file": ONE_FILE, "window": attributes.get("window"), "reading": attributes.get("score"),
        "instrument": instrument.get("summary", "not recorded"), "sharp": instrument.get("psf_px", [0, 0])[1] == 0,
        "rejection": bundle_card(attributes).get("rejection"), "tables": _tables(results, found, verdicts, folder),
        "provenance": provenance_rows(attributes), "commands": commands(results), "script": script("viewer.js"),
    }  # fmt: skip


def provenance_rows(attributes: dict) -> list[tuple[str, str]]:
    """What the results were made from, as pairs of a name and a value."""
    config, card = attributes.get("config", {}), bundle_card(attributes)
    accuracy = card.get("accuracy")
    pixels = {"window": attributes.get("window"), "stride": config.get("stride", attributes.get("stride"))}
    software = attributes.get("software", {})
    rows = [
        ("Bundle (SHA-256)", attributes.get("bundle_sha256")),
        ("Accuracy on validation images", None if accuracy is None else f"{100 * accuracy:.2f} %, simulated images"),
        ("Instrument of the training images", card.get("instrument", {}).get("summary")),
        ("Network", plain(card.get("network"))),
        *((name.capitalize(), None if value is None else f"{value} pixels") for name, value in pixels.items()),
        ("Threshold", config.get("threshold")),
        ("Up means", config.get("up")),
        ("Confident by", attributes.get("score")),
        ("Point-spread function given", _given(config)),
        ("Temperature of the probabilities", None if card.get("temperature") is None else f"{card['temperature']:.3f}"),
        ("Inputs (SHA-256)", attributes.get("inputs_sha256")),
        ("Software", plain({**software, "hamscope (report)": __version__})),
    ]
    return [(name, "not recorded" if value is None else str(value)) for name, value in rows]


def _given(config: dict) -> str | None:
    """The width of the point-spread function that the user gave for all frames."""
    if "psf_px" not in config:
        return None
    return "for no frame, or in CSV files" if config["psf_px"] is None else f"{config['psf_px']:g} pixels"


def commands(results: Results) -> str:
    """The commands that make these results and this report again, quoted for a shell."""
    config = results.attributes.get("config", {})
    names = ("stride", "threshold", "up", "confidence", "psf_px")
    options = [part for name in names if config.get(name) is not None
               for part in (f"--{name.replace('_', '-')}", str(config[name]))]  # fmt: skip
    if not results.attributes.get("bundle_is_default"):
        options = ["--bundle", "bundle/", *options]
    if "sweep" in results.attributes:
        options.append("--sweep-psf")
    # A name that begins with a dash would be read as an option.
    sources = [f"./{name}" if name.startswith("-") else name for name in source_rows(results)]
    classify = ["hamscope", "classify", *sources, *options, "--out", "results.h5"]
    return f"{shlex.join(classify)}\nhamscope report results.h5 --out report/"


def _section(results: Results, found: Physics, number: int, verdict: Verdict, rows: list[int], folder: Path) -> dict:
    """The part of the page about one source."""
    prefix = folder / f"source-{number:02d}"
    return {
        "id": prefix.name, "verdict": verdict, "alone": verdict.separation.alone if verdict.separation else None,
        "psf": _psf_text(results, verdict), "classes": _class_table(results, verdict), "rows": rows,
        "first": first_shown(results, rows),
        "plots": report_pictures.series_plots(results, rows, verdict, found.distance_error, prefix),
        "figures": report_pictures.source_pictures(results, verdict, rows, prefix),
        "domains": _domains(results, found, verdict.source, rows, prefix),
    }  # fmt: skip


def _domains(results: Results, found: Physics, name: str, rows: list[int], prefix: Path) -> dict:
    """The domains and the loop of a series: lines of both, and their pictures."""
    phases, loops = found.pooled.get(name, {}), found.loops.get(name, [])
    pictures = report_pictures.domain_pictures(results, rows, phases, loops, found.error.get(name), prefix)
    return {
        "loops": report_domains.loop_lines(loops), "exponents": report_domains.exponent_lines(phases),
        "figures": pictures, "measured": sum(row in found.measured for row in rows),
        "block": max((found.measured[row].block for row in rows if row in found.measured), default=1),
    }  # fmt: skip


def frame_groups(results: Results, rows_of: dict[str, list[int]]) -> list[dict]:
    """Frames of several sources under one slider: those that are alone in their file, and those without a section.

    Frames alone in their files whose temperatures are all known are a series.
    """
    single = [rows[0] for rows in rows_of.values() if len(rows) == 1]
    further = [row for rows in list(rows_of.values())[MOST_SECTIONS:] if len(rows) > 1 for row in rows]
    series = len(single) > 2 and bool(np.isfinite(results.temperature[single]).all())
    return [
        {"id": name, "title": title, "rows": rows, "series": is_series}
        for name, title, rows, is_series in (
            ("single", "The frames that are alone in their file", single, series),
            ("further", "The frames of all further sources", further, False),
        )
        if len(rows) > 1
    ]


def _group(results: Results, found: Physics, group: dict, folder: Path) -> dict:
    """The part of the page about a group of frames."""
    prefix, rows = folder / group["id"], group["rows"]
    plots = report_pictures.series_plots(results, rows, None, found.distance_error, prefix) if group["series"] else []
    domains = _domains(results, found, group["title"], rows, prefix) if group["series"] else None
    return group | {"first": first_shown(results, rows), "plots": plots, "domains": domains}


def _tables(results: Results, found: Physics, verdicts: list[Verdict], folder: Path) -> list[dict]:
    """Write all numbers of the page as CSV files; of each its name, what it holds, and its data if they are small."""
    rows = [row for own in source_rows(results).values() for row in own]
    samples = {
        one.source: report_pictures.pooled_sample(results, list(one.rows_used)) for one in verdicts[:MOST_SECTIONS]
    }
    sweeps = {one.source: swept for one in verdicts if (swept := report_pictures.swept(results, one))}
    further = {"share_error": found.share_error, "distance_error": found.distance_error}
    writers = [
        ("verdict.csv", "a line a source: the verdict, how sure, what limits it", True,
         lambda path: report_tables.write_verdicts(path, verdicts)),
        ("classes.csv", "a line a source and class, over all windows that the verdict pools", True,
         lambda path: report_tables.write_classes(path, results, verdicts)),
        ("series.csv", "a line a frame: every number of the slider and of the plots", True,
         lambda path: report_tables.write_series(path, results, rows, further)),
        ("loops.csv", "coercive points, width and area of every loop", any(found.loops.values()),
         lambda path: report_domains.write_loops(path, found.loops)),
        ("domains.csv", "a line a frame and phase: clusters, lengths and exponents", found.measured,
         lambda path: report_domains.write_domains(path, results, found.measured)),
        ("exponents.csv", "a line a source and phase: exponents over the frames near the middle", found.pooled,
         lambda path: report_domains.write_exponents(path, found.pooled)),
        ("clouds.csv", "the points of the pictures of the clouds", True,
         lambda path: report_tables.write_clouds(path, results.cloud_sample, samples)),
        ("sweep.csv", "the verdict against the assumed resolution", sweeps,
         lambda path: report_tables.write_sweeps(path, sweeps)),
        ("quarantined.csv", "the frames that could not be classified", results.quarantined,
         lambda path: report_tables.write_table(path, ["source", "frame", "reason"], results.quarantined)),
        ("candidates.csv", "the seven classes", True, report_tables.write_candidates),
    ]  # fmt: skip
    tables = []
    for name, what, known, write in writers:
        if known:
            write(folder / name)
            small = (folder / name).stat().st_size <= MOST_CSV
            tables.append({"name": name, "what": what, "data": encoded(folder / name) if small else None})
    return tables


def _class_table(results: Results, verdict: Verdict) -> list[dict]:
    """Pooled share, confident share and distance of every class; empty without a pattern."""
    if verdict.kind == NO_PATTERN:
        return []
    distance = pooled(results, results.cloud_distance, list(verdict.rows_used))
    intervals = [share_interval(share, verdict.n_independent) for share in verdict.shares]
    columns = zip(MODELS, verdict.shares, verdict.confident_shares, distance, verdict.probabilities, intervals)
    names = ("model", "share", "confident", "distance", "probability", "interval")
    return [dict(zip(names, line)) for line in columns]


def _psf_text(results: Results, verdict: Verdict) -> str:
    """What the network was told of the microscope of a source."""
    rows = list(verdict.rows_used)
    widths = [f"{width:g} px" if np.isfinite(width) else "not given" for width in np.unique(results.psf_px[rows])]
    erased = results.adaptive[rows].astype(bool)
    where = "all" if erased.all() else "some"
    density = f"taken from the frame itself in {where} of them" if erased.any() else "fixed, or frames of two levels"
    return f"Point-spread function: {', '.join(widths)}. Threshold: {density}."


def _dark_colours() -> dict[str, str]:
    return {name: to_hex(figures.darker(colour)) for name, colour in figures.COLOURS.items()}


def _schema(path: str | Path) -> str | None:
    """What an HDF5 file says it is; None where it says nothing or is none, which its reader puts into words."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("schema")
    except OSError:
        return None
