"""Slices to a report: what was simulated, its observables beside exact and published values, and sample images.

    slices.h5 -> slices_measure.py (a table of lattices a class) -> slices_panels.py (what to plot and to compare)
              -> slices_figures.py, templates/slices.html.j2 -> index.html, the pictures, observables.csv

Every number of a plot is in observables.csv, every comparison in comparisons.csv.  Equal slices give equal files, byte
for byte.  `read_slices` holds all images in memory, N L^2 bytes: 640 MB for 64,000 images of 100 x 100.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hamscope import __version__, figures, slices_figures, slices_panels, slices_reference
from hamscope.config import Simulate
from hamscope.data.slices import Slices, read_slices
from hamscope.models import BY_NAME
from hamscope.observables import FEWEST_LATTICES, MOST_BINS
from hamscope.page import picture, plain, render, write_page
from hamscope.slices_figures import number, series_rows
from hamscope.slices_measure import ClassTable, measure, read_config

SAMPLES = 6  # images in a row of samples
CURVES_CSV, COMPARISONS_CSV = "observables.csv", "comparisons.csv"


def write_slices_report(path: str | Path, folder: str | Path, replace: bool = False) -> Path:
    """Write the report of a slices file into `folder`, whole or not at all, and return the path of its page.

    Raises ContractError where the file is not what its contract says, and UserError as `page.write_page` does.
    """
    slices = read_slices(path)
    config = read_config(slices, path)
    return write_page(
        path, folder, replace, lambda empty: render("slices.html.j2", page_context(slices, config, empty))
    )


def page_context(slices: Slices, config: Simulate, folder: Path) -> dict:
    """Everything that the page says, as plain values; draws the pictures and writes the tables into `folder`."""
    tables = measure(slices, config)
    curves, sections = [], []
    for k, table in enumerate(tables, 1):
        sections.append(_section(slices, config, table, folder / f"class-{k}", curves))
    found = [(table, slices_panels.comparisons(table, config)) for table in tables]
    _write_csv(folder / CURVES_CSV, ["class", "figure", "panel", "series", "x", "y", "error", "lattices"], curves)
    _write_csv(folder / COMPARISONS_CSV, ["class", "observable", "parameter", "value", "error", "lattices", "expected",
               "z", "exact", "source"], _comparison_rows(found))  # fmt: skip
    return {
        "colours": figures.COLOURS, "n_images": len(slices.images), "size": config.image_size,
        "boundary": config.boundary, "has_3d": any(BY_NAME[table.name].dimension == 3 for table in tables),
        "simulated": [_simulated(slices, config, table) for table in tables], "sections": sections,
        "exact": [line for table, rows in found for line in _summary(table, rows)],
        "published": [_line(table, row) for table, rows in found for row in rows if not row.exact],
        "every": {table.name: [_line(table, row) for row in rows if row.exact] for table, rows in found},
        "sources": list(dict.fromkeys(k for table in tables for k in slices_reference.OF_CLASS[table.name])),
        "no_avalanches": _without_avalanches(tables), "provenance": provenance_rows(slices),
        "config": json.dumps(json.loads(slices.attributes["config"]), indent=1), "most_bins": MOST_BINS,
        "fewest": FEWEST_LATTICES, "least_size": slices_panels.LEAST_SIZE,
        "near": slices_reference.NEAR, "curves_csv": CURVES_CSV, "comparisons_csv": COMPARISONS_CSV,
    }  # fmt: skip


def provenance_rows(slices: Slices) -> list[tuple[str, str]]:
    """What the slices were made from, as pairs of a name and a value."""
    a = slices.attributes
    software = a["software"] if isinstance(a["software"], dict) else {"software": a["software"]}
    return [
        ("Content (SHA-256)", str(a["content_sha256"])),
        ("Config (SHA-256)", str(a["config_sha256"])),
        ("Seed", str(a["seed"])),
        ("Software", str(plain({**software, "hamscope (report)": __version__}))),
    ]


def with_error(value: float, error: float) -> str:
    """A value with its error, to two digits of the error; without one, four digits and no claim."""
    if not np.isfinite(error) or error <= 0:
        return f"{value:.4g} (no error bar)"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _section(slices: Slices, config: Simulate, table: ClassTable, prefix: Path, curves: list) -> dict:
    """The part of the page about one class; adds what its pictures plot to `curves`."""
    model, colour = BY_NAME[table.name], figures.COLOURS[table.name]
    rows, names = sample_rows(slices, table)
    columns = slices.columns
    labels = [
        f"{model.parameter} = {columns['parameter'][k]:.3f}\nm = {columns['lattice_magnetization'][k]:+.2f}"
        for k in rows[0]
    ]
    images = [[slices.images[k] for k in own] for own in rows]
    for own, name in zip(rows, names):
        curves += [
            [table.name, "samples", name, f"row {k} of the file", number(columns["parameter"][k]),
             number(columns["lattice_magnetization"][k]), "", ""] for k in own
        ]  # fmt: skip
    drawn = [("samples", "Sample images", SAMPLES_CAPTION[model.family] + (SURFACE_CAPTION if len(rows) > 1 else ""),
              lambda path: slices_figures.samples(images, labels, names, path))]  # fmt: skip
    plots = [
        ("parameter", "Observables over the parameter", PARAMETER_CAPTION[model.family],
         slices_panels.parameter_panels(table, config, colour)),
        ("patterns", "Correlations and clusters", PATTERNS_CAPTION, slices_panels.pattern_panels(table, config)),
    ]  # fmt: skip
    if model.family == "random-field":
        plots.append(
            ("sweeps", "Field sweeps", SWEEPS_CAPTION, slices_panels.sweep_panels(table, slices, config, colour))
        )
    for kind, alt, caption, panels in plots:
        curves += series_rows(table.name, kind, panels)
        drawn.append((kind, alt, caption, lambda path, panels=panels: slices_figures.panels(panels, path)))
    return {
        "name": table.name, "describe": model.describe, "id": prefix.name, "groups": _group_words(table),
        "figures": [picture(prefix.with_name(f"{prefix.name}-{kind}.png"), *rest) for kind, *rest in drawn],
    }  # fmt: skip


def sample_rows(slices: Slices, table: ClassTable) -> tuple[list[list[int]], list[str]]:
    """Rows of the file to show, each a list over lattices evenly spaced in the parameter, and what each row shows.

    Of a field sweep the state nearest to m = 0, of a chain the last.  Of a 3D lattice a free surface, where it has
    one, and below it the interior slice that is farthest from both.
    """
    columns = {key: values[table.rows] for key, values in slices.columns.items()}
    numbers = np.unique(columns["lattice"])[np.argsort(table.parameter, kind="stable")]
    above, below = [], []
    for lattice in figures.evenly_spaced(list(numbers), SAMPLES):
        own = np.flatnonzero(columns["lattice"] == lattice)
        if BY_NAME[table.name].family == "random-field":
            state = columns["field"][own[np.argmin(np.abs(columns["lattice_magnetization"][own]))]]
            own = own[columns["field"][own] == state]
        else:
            own = own[columns["sweep"][own] == columns["sweep"][own].max()]
        across = own[columns["plane_axis"][own] == columns["plane_axis"][own].min()]
        position = columns["plane_position"][across]
        middle = across[np.argsort(np.abs(position - (position.min() + position.max()) / 2), kind="stable")[0]]
        free = across[columns["plane_surface"][across] == 1]
        above += [int(table.rows[free[0]])] if len(free) else []
        below.append(int(table.rows[middle]))
    if len(above) == len(below):
        return [above, below], ["free surface", "interior slice"]
    return [below], ["slice" if BY_NAME[table.name].dimension == 3 else "whole lattice"]


def _simulated(slices: Slices, config: Simulate, table: ClassTable) -> dict:
    """One line of the table of what was simulated."""
    columns = {key: values[table.rows] for key, values in slices.columns.items()}
    sweeps, lattices = columns["sweep"], len(table.parameter)
    n_states = len(np.unique(np.stack([columns["lattice"], sweeps, columns["field"]]), axis=1).T)
    if sweeps.any():
        chain = f"{sweeps.min():,} to {sweeps.max():,}" if sweeps.min() < sweeps.max() else f"{sweeps.max():,}"
    else:
        chain = "-"
    directions = [word for sign, word in ((1, "rising"), (-1, "falling")) if (table.direction == sign).any()]
    section = config.classes[table.name]
    ranges = section.probability if hasattr(section, "probability") else None
    low_high = ranges or [(float(table.parameter.min()), float(table.parameter.max()))]
    return {
        "name": table.name, "parameter": BY_NAME[table.name].parameter,
        "range": ", ".join(f"{low:.6g} to {high:.6g}" for low, high in low_high), "lattices": lattices,
        "images": len(table.rows), "states": n_states, "groups": _group_words(table), "sweeps": chain,
        "field": " and ".join(directions) or "-", "avalanches": len(table.avalanches),
    }  # fmt: skip


def _group_words(table: ClassTable) -> str:
    sizes = [len(group.members) for group in table.groups]
    many = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    what = "value" if table.on_grid else "bin"
    return f"{len(sizes)} {what}{'s' if len(sizes) != 1 else ''} of {many} lattice{'s' if max(sizes) != 1 else ''}"


def _summary(table: ClassTable, rows: Iterable) -> list[dict]:
    """How far our values lie from the exact ones, a line an observable: root mean square and largest |z|."""
    lines = []
    exact = [row for row in rows if row.exact]
    for what in dict.fromkeys(row.what for row in exact):
        own = [row for row in exact if row.what == what]
        z = np.array([row.z for row in own])
        z = z[np.isfinite(z)]
        lines.append({
            "name": table.name, "what": what, "groups": len(own), "lattices": sum(row.lattices for row in own),
            "tested": len(z), "rms": f"{np.sqrt(np.mean(z**2)):.2f}" if len(z) else "-",
            "largest": f"{np.abs(z).max():.2f}" if len(z) else "-", "source": own[0].source,
        })  # fmt: skip
    return lines


def _line(table: ClassTable, row) -> dict:
    """One comparison as text."""
    expected = f"{row.expected:.6g}" if row.exact else f"{row.expected:.5f}"
    return {
        "name": table.name, "what": row.what, "at": f"{BY_NAME[table.name].parameter} = {row.parameter:.6g}",
        "value": with_error(row.value, row.error), "lattices": row.lattices, "expected": expected,
        "z": f"{row.z:+.2f}" if np.isfinite(row.z) else "-", "source": row.source,
    }  # fmt: skip


def _comparison_rows(found: list) -> list[list]:
    """Lines of comparisons.csv."""

    def cell(value):
        return number(value) if np.isfinite(value) else ""

    return [
        [table.name, row.what, number(row.parameter), number(row.value), cell(row.error), row.lattices,
         number(row.expected), cell(row.z), "yes" if row.exact else "no", row.source]
        for table, rows in found for row in rows
    ]  # fmt: skip


def _write_csv(path: Path, head: list[str], rows: list[list]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _without_avalanches(tables: list[ClassTable]) -> list[str]:
    return [k.name for k in tables if BY_NAME[k.name].family == "random-field" and not len(k.avalanches)]


SAMPLES_CAPTION = {
    "clean": "Up is dark. Lattices evenly spaced over the range, each in its last state. m is that of the lattice.",
    "random-field": (
        "Up is dark. Lattices evenly spaced over the range, each in the recorded state nearest to m = 0. m is that of "
        "the lattice."
    ),
    "percolation": "Up is dark. Lattices evenly spaced over the range. m is that of the lattice.",
}
SURFACE_CAPTION = " Above, a free surface; below, a slice through the middle of the same state."
PARAMETER_CAPTION = {
    "clean": (
        "Averages over independent lattices with their standard errors, of the whole lattice and not of its slices; "
        "the Binder cumulant with its jackknife error. In a bin of a continuous range the cumulant is that of all "
        "its temperatures together."
    ),
    "random-field": (
        "The exchange energy is averaged over the recorded states, which are uniform in |m|, so it belongs to this "
        "choice of states. The coercive field is interpolated between the two recorded states about m = 0; where an "
        "avalanche crosses it, there is no state in between, and the bar does not show how far apart the two are. "
        "Lattices whose first recorded state is already past m = 0 are left out; the table counts the others."
    ),
    "percolation": (
        "Averages over independent lattices with their standard errors. Clusters are those of the images: 4 "
        "neighbours, cut by the border. A cluster spans an image if it reaches from its first row to its last."
    ),
}
PATTERNS_CAPTION = (
    "Left, for r along the two axes of an image, the mean over all its sites; C(r) subtracts nothing, G(r) the square "
    "of the image's own m. Pairs reach round periodic borders and not across the open z axis of a 3D lattice. Free "
    "surfaces are left out. Right, clusters of up sites joined by one of four neighbours, round periodic borders too, "
    "in bins of a factor of two; all slices count. The smallest, the largest and two more "
    "values or bins of the parameter, and the one nearest to criticality."
)
SWEEPS_CAPTION = (
    "Every recorded state of every lattice; a few lattices have theirs joined by a line. Where the loop is steep, a "
    "single avalanche takes much of the lattice and there is no stable state in between: that is a long line without "
    "a point. A sweep at T > 0 is driven at a finite rate and has no avalanches; those of sweeps at T = 0 are at "
    "the right, in bins of a factor of two."
)
