"""Results to a report: a page with a slider over frames, the same pictures as PNG and all numbers as CSV beside it.

    results.h5 -> verdict.py (what to say), figures.py, film_figures.py, panels.py (what to show)
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

from hamscope import __version__, figures, film_figures, report_tables, slices_report
from hamscope.data import slices
from hamscope.data.results import SAMPLE, Results, read_results, sample_windows
from hamscope.errors import ContractError
from hamscope.models import CLASS_NAMES, MODELS
from hamscope.page import encoded, picture, plain, plot, render, script, write_page
from hamscope.panels import FLAGS
from hamscope.sweep_figure import sweep_picture
from hamscope.verdict import (
    NO_PATTERN,
    UNLIKE,
    Verdict,
    bundle_card,
    closest_row,
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
    sections = [
        _section(results, number, verdict, rows_of[verdict.source], folder)
        for number, verdict in enumerate(verdicts[:MOST_SECTIONS], 1)
    ]
    attributes = results.attributes
    instrument = bundle_card(attributes).get("instrument", {})
    frames = all_frames(results, folder)
    return {
        "models": MODELS, "colours": figures.COLOURS, "dark": _dark_colours(), "flag_colours": FLAGS, "facts": FACTS,
        "verdicts": verdicts, "sections": sections, "most_sections": MOST_SECTIONS, "most_lines": MOST_LINES,
        "groups": _groups(results, rows_of, folder), "frames": {"inside": frames.inside, "rows": frames.rows},
        "n_frames": len(results.source), "no_pattern": NO_PATTERN, "unlike": UNLIKE, "one_file": ONE_FILE,
        "window": attributes.get("window"), "reading": attributes.get("score"),
        "instrument": instrument.get("summary", "not recorded"), "sharp": instrument.get("psf_px", [0, 0])[1] == 0,
        "rejection": bundle_card(attributes).get("rejection"), "tables": _tables(results, verdicts, folder),
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


def _section(results: Results, number: int, verdict: Verdict, rows: list[int], folder: Path) -> dict:
    """The part of the page about one source."""
    prefix = f"source-{number:02d}"
    return {
        "id": prefix, "verdict": verdict, "alone": verdict.separation.alone if verdict.separation else None,
        "psf": _psf_text(results, verdict), "classes": _class_table(results, verdict), "rows": rows,
        "first": first_shown(results, rows), "plots": _series_plots(results, rows, verdict, folder, prefix),
        "figures": _pictures(results, verdict, rows, folder / prefix),
    }  # fmt: skip


def _pictures(results: Results, verdict: Verdict, rows: list[int], prefix: Path) -> list[dict]:
    """The pictures of a source that are no series: some frames side by side, the sweep, the clouds."""
    pictures = []
    if len(rows) > 1:
        pictures.append(
            ("frames", "Two-level frames, and a map of the class of every window", _frames_caption(rows),
             lambda path: figures.frames_and_maps(results, rows, path))
        )  # fmt: skip
    swept = _swept(results, verdict)
    if swept and verdict.kind != NO_PATTERN:
        span = bundle_card(results.attributes).get("instrument", {}).get("psf_px", [0, 3])
        pictures.append(
            ("sweep", "Verdict against the assumed resolution", SWEEP_CAPTION,
             lambda path: sweep_picture([swept], span, path))
        )  # fmt: skip
    if verdict.kind != NO_PATTERN:
        sample, confident = _pooled_sample(results, list(verdict.rows_used))
        pictures.append(
            ("clouds", "Outputs of the network for the training images and for the windows", CLOUDS_CAPTION,
             lambda path: figures.clouds(results.cloud_sample, path, sample, confident))
        )  # fmt: skip
    return [picture(prefix.with_name(f"{prefix.name}-{kind}.png"), *rest) for kind, *rest in pictures]


def _series_plots(results: Results, rows: list[int], verdict: Verdict | None, folder: Path, prefix: str) -> list[dict]:
    """The plots of a series: shares of the classes and distances to the clouds; none for one frame or no pattern."""
    model = verdict.model if verdict else None
    if len(rows) < 2 or not (results.n_windows[rows] > 0).any():
        return []
    against = film_figures.series_axis(results, rows).title.split(" ")[0]
    return [
        plot(folder / f"{prefix}-fractions.png", f"Shares of the classes against {against}", FRACTIONS_CAPTION,
             lambda path, narrow: film_figures.fractions(results, rows, path, narrow)),
        plot(folder / f"{prefix}-distance.png", f"Distance to the cloud of each class against {against}",
             _distance_caption(results, verdict, rows),
             lambda path, narrow: film_figures.distances(results, rows, path, model, None, narrow)),
    ]  # fmt: skip


def _groups(results: Results, rows_of: dict[str, list[int]], folder: Path) -> list[dict]:
    """Frames of several sources under one slider: those that are alone in their file, and those without a section.

    Frames alone in their files whose temperatures are all known are a series, and have its plots.
    """
    single = [rows[0] for rows in rows_of.values() if len(rows) == 1]
    further = [row for rows in list(rows_of.values())[MOST_SECTIONS:] if len(rows) > 1 for row in rows]
    groups = []
    if len(single) > 1:
        series = len(single) > 2 and np.isfinite(results.temperature[single]).all()
        plots = _series_plots(results, single, None, folder, "single") if series else []
        title = "The frames that are alone in their file"
        groups.append({"id": "single", "title": title, "rows": single, "plots": plots})
    if further:
        groups.append({"id": "further", "title": "The frames of all further sources", "rows": further, "plots": []})
    return [group | {"first": first_shown(results, group["rows"])} for group in groups]


def _tables(results: Results, verdicts: list[Verdict], folder: Path) -> list[dict]:
    """Write all numbers of the page as CSV files; of each its name, what it holds, and its data if they are small."""
    rows = [row for own in source_rows(results).values() for row in own]
    samples = {one.source: _pooled_sample(results, list(one.rows_used)) for one in verdicts[:MOST_SECTIONS]}
    sweeps = {one.source: swept for one in verdicts if (swept := _swept(results, one))}
    writers = [
        ("verdict.csv", "a line a source: the verdict, how sure, what limits it",
         lambda path: report_tables.write_verdicts(path, verdicts)),
        ("classes.csv", "a line a source and class, over all windows that the verdict pools",
         lambda path: report_tables.write_classes(path, results, verdicts)),
        ("series.csv", "a line a frame: every number of the slider and of the plots",
         lambda path: report_tables.write_series(path, results, rows)),
        ("clouds.csv", "the points of the pictures of the clouds",
         lambda path: report_tables.write_clouds(path, results.cloud_sample, samples)),
        ("candidates.csv", "the seven classes", report_tables.write_candidates),
    ]  # fmt: skip
    if sweeps:
        writers.append(("sweep.csv", "the verdict against the assumed resolution",
                        lambda path: report_tables.write_sweeps(path, sweeps)))  # fmt: skip
    tables = []
    for name, what, write in writers:
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


def _swept(results: Results, verdict: Verdict) -> dict | None:
    """The sweep of a source over assumed widths, None where there is none or it is not as it should be."""
    try:
        one = results.attributes["sweep"][verdict.source]
        widths = [None if width is None else float(width) for width in one["psf_px"]]
        chances, sure = np.array(one["probabilities"], float), np.array(one["confident"], float)
        told = None if one["told"] is None else float(one["told"])
    except (KeyError, TypeError, ValueError):
        return None
    known = [width for width in widths if width is not None]
    fits = chances.shape == (len(widths), len(CLASS_NAMES)) and sure.shape == (len(widths),) and len(set(known)) > 1
    if not fits or not all(np.isfinite(array).all() for array in (chances, sure, known, told or 0.0)):
        return None
    return {"psf_px": widths, "probabilities": chances, "confident": sure, "told": told, "windows": one.get("windows")}


def _pooled_sample(results: Results, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sampled logits of the rows, shape (S, 7), NaN rows among them, and which of them are confident, shape (S,)."""
    flags = np.zeros((len(rows), SAMPLE), bool)
    for own, row in zip(flags, rows):
        chosen = sample_windows(results.flag_maps[row].shape)
        own[: len(chosen)] = results.flag_maps[row].ravel()[chosen]
    return results.logits_sample[rows].reshape(-1, len(CLASS_NAMES)), flags.ravel()


def _frames_caption(rows: list[int]) -> str:
    some = f"{figures.PICTURES} of the {len(rows)} frames, evenly spaced. " if len(rows) > figures.PICTURES else ""
    return (
        f"{some}Above, the two-level frame: up is dark. Below, the class of every window, drawn at its centre "
        "(the dashed line shows where the centres lie), and the leading class with its share and, in parentheses, "
        "the part of it that is confident."
    )


def _distance_caption(results: Results, verdict: Verdict | None, rows: list[int]) -> str:
    text = "How far the windows lie, on the average, from the nearest training image of each class, and the share up."
    closest = closest_row(results, verdict, rows) if verdict else None
    if closest is not None:
        kelvin = results.temperature[closest]
        where = f"{kelvin:.1f} K" if np.isfinite(kelvin) else f"frame {results.index[closest]}"
        text += (
            f" The closest approach to {verdict.model} is at {where}. That the sample is nearest to its critical point "
            "there is a conjecture of the paper, not a measurement."
        )
    return text


FRACTIONS_CAPTION = (
    "Share of the windows in each class, frame by frame: bright where confident, dark where not. Triangles mark the "
    "frames near the middle of the transition, which the verdict pools. The line marks the frame that the slider "
    "shows; a click on the plot chooses another."
)
SWEEP_CAPTION = (
    "What the verdict would be at another resolution: the same windows (at most 500), with the network told each width "
    "of the point-spread function in turn. Lines: calibrated probabilities of the classes, mean over the windows. The "
    "stripe on top is the class that leads. On the left, points: the network is told nothing. Shaded: widths that the "
    "network was not trained for. Where the stripe changes, the resolution has to be known before the verdict is "
    "believed."
)
CLOUDS_CAPTION = (
    "The seven outputs of the network before the softmax. Colours: training images. Black: windows of the frames that "
    "the verdict pools, filled where confident. Each axis sets two classes against each other; its percentage is its "
    "part in the distances between the seven centres, and the six axes together hold all of it. Windows apart from "
    "every cloud look like none of the training images."
)


def _dark_colours() -> dict[str, str]:
    return {name: to_hex(figures.darker(colour)) for name, colour in figures.COLOURS.items()}


def _schema(path: str | Path) -> str | None:
    """What an HDF5 file says it is; None where it says nothing or is none, which its reader puts into words."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("schema")
    except OSError:
        return None
