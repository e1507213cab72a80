"""What the report of a slices file plots for each class, and what it sets beside exact and published values.

Every point is an average over independent lattices of equal parameter, or of a bin of the range (observables.py).
"""

from typing import NamedTuple

import numpy as np

from hamscope import slices_reference as reference
from hamscope.config import Simulate
from hamscope.data.slices import Slices
from hamscope.figures import FAINT, INK, evenly_spaced
from hamscope.models import AVALANCHE_BINS, BY_NAME
from hamscope.observables import (
    Group,
    binder_cumulant,
    jackknife,
    mean_and_error,
    size_centres,
    size_density,
    size_exponent,
    z_score,
)
from hamscope.sim.lattice import Lattice
from hamscope.slices_figures import Panel, Series, sequence
from hamscope.slices_measure import ClassTable, states

CURVES = 4  # groups whose C(r) and sizes are drawn; the table of lattices has all
SWEEPS = 8  # sweeps of one direction whose states are joined by a line
MARK = "#EE6677"  # published values
LEAST_SIZE = 16  # sites; smaller clusters and avalanches know the lattice


class Comparison(NamedTuple):
    """One of our values beside another: `error` and `z` are NaN where there is none; `exact` for this very lattice."""

    what: str
    parameter: float
    value: float
    error: float
    lattices: int
    expected: float
    z: float
    exact: bool
    source: str


def curve(table: ClassTable, values: np.ndarray, label: str = "", colour: str = INK) -> Series:
    """Mean and error of `values` (n,) of the lattices, group by group."""
    found = [mean_and_error(values[group.members]) for group in table.groups]
    return _curve(table, np.array(found, float), label, colour)


def _curve(table: ClassTable, found: np.ndarray, label: str, colour: str) -> Series:
    x = np.array([table.group_parameter(group) for group in table.groups])
    n = np.array([len(group.members) for group in table.groups])
    return Series(label, x, found[:, 0], found[:, 1], n, colour=colour)


def binder(table: ClassTable, label: str, colour: str) -> Series:
    """Binder cumulant of the lattice magnetization with its jackknife error, group by group."""
    moments = table.means["moments"]
    found = np.array([jackknife(binder_cumulant, moments[group.members]) for group in table.groups], float)
    return _curve(table, found, label, colour)


def parameter_panels(table: ClassTable, config: Simulate, colour: str) -> list[Panel]:
    """Energy, magnetization and what else the class has, over its parameter."""
    model = BY_NAME[table.name]
    x = f"{model.parameter}"
    kind = "simulated"
    fine = np.linspace(table.parameter.min(), table.parameter.max(), 81)
    exact = reference.exact_energy(table.name, config, fine)
    energy = [curve(table, table.means["energy"], kind, colour)]
    if exact is not None:
        energy.insert(0, Series("exact", fine, exact[0], look="line"))
    if _has_published_cube(table.name, config):
        one = reference.ENERGY_3D
        at = np.array([reference.TC_3D])
        energy.append(Series("published, infinite lattice", at, np.array([one.value]), look="mark", colour=MARK))
    shown = [Panel("Exchange energy per site", x, "E / (N J)", energy)]
    if exact is not None:
        own = table.means["energy"] - reference.exact_energy(table.name, config, table.parameter)[0]
        shown.append(_residual(table, own, "Exchange energy less the exact one", "(E - exact) / (N J)", fine, colour))
    if model.family == "clean":
        shown += _order_panels(table, config, x, fine, colour)
    elif model.family == "percolation":
        own = table.means["m"] - (2 * table.parameter - 1)
        shown.append(_residual(table, own, "Magnetization less the exact 2p - 1", "m - (2p - 1)", fine, colour))
        clusters = [curve(table, table.means["largest"], "sites in the largest cluster", colour),
                    curve(table, table.means["spanning"], "images with a spanning cluster", INK)]  # fmt: skip
        if table.name == "P-2D":
            at, half = np.array([reference.PC_2D]), np.array([reference.CROSSING_2D.value])
            clusters.append(Series("spanning at p_c, infinite lattice", at, half, look="mark", colour=MARK))
        shown.append(Panel("Clusters of the images", x, "share", clusters))
    else:
        shown.append(_coercive_panel(table, x, fine, colour, adiabatic=not config.classes[table.name].temperature))
    return shown


def _residual(table, values, title, y, fine, colour) -> Panel:
    zero = Series("", fine[[0, -1]], np.zeros(2), look="line", colour=FAINT)
    x = BY_NAME[table.name].parameter
    return Panel(title, x, y, [zero, curve(table, values, "", colour)])


def _order_panels(table: ClassTable, config: Simulate, x: str, fine: np.ndarray, colour: str) -> list[Panel]:
    """|m| and the Binder cumulant of a clean model, with Onsager and Yang's m and the published U at Tc."""
    order, cumulant = [], [binder(table, "simulated", colour)]
    if table.name == "C-2D" and config.classes[table.name].field == 0:
        # Near Tc it falls as (Tc - T)^(1/8): points that lie ever closer.
        close = reference.TC_2D - np.geomspace(1e-9, 0.1, 60)
        fine = np.union1d(fine, [*close[close > fine[0]], reference.TC_2D])
        order.append(Series("exact, infinite lattice", fine, reference.spontaneous_magnetization(fine), look="line"))
    order.append(curve(table, table.means["abs_m"], "simulated", colour))
    known = _published_binder(table.name, config)
    if known is not None:
        cumulant.insert(0, Series(
            "published at Tc", np.array([reference.CRITICAL[table.name]]), np.array([known.value]), look="mark",
            colour=MARK,
        ))  # fmt: skip
    return [
        Panel("Magnetization", x, "<|m|>", order),
        Panel("Binder cumulant", x, "U = 1 - <m^4> / (3 <m^2>^2)", cumulant),
    ]


def _coercive_panel(table: ClassTable, x: str, fine: np.ndarray, colour: str, adiabatic: bool) -> Panel:
    """Coercive field against disorder; of lattices whose states lie on both sides of m = 0."""
    coercive = table.means["coercive"][:, 0]
    points = []
    for group in table.groups:
        own = group.members[np.isfinite(coercive[group.members])]
        if len(own):
            points.append((table.group_parameter(group), *mean_and_error(coercive[own]), len(own)))
    found = np.array(points, float).reshape(-1, 4)
    series = [Series("simulated", found[:, 0], found[:, 1], found[:, 2], found[:, 3], colour=colour)]
    if table.name == "RF-3D" and adiabatic:
        level = np.full(2, reference.FIELD_3D.value)
        series.append(Series("published H_c at R_c = 2.16", fine[[0, -1]], level, look="dashed"))
    return Panel("Coercive field", x, "|H| / J where m = 0", series)


def pattern_panels(table: ClassTable, config: Simulate) -> list[Panel]:
    """Correlations and cluster sizes of the images, of a few groups over the range."""
    family, length = BY_NAME[table.name].family, config.image_size
    shown = evenly_spaced(list(range(len(table.groups))), CURVES if family != "percolation" else CURVES - 1)
    at = reference.CRITICAL.get(table.name, table.parameter.min())
    nearest = int(np.argmin([abs(table.group_parameter(group) - at) for group in table.groups]))
    shown = sorted({*shown, nearest})
    colours = sequence(len(shown))
    which = "C" if family == "clean" else "G"
    r = np.unique(np.geomspace(1, length // 2, 16).round().astype(int))
    correlation, sizes = [], []
    for group, colour in zip((table.groups[k] for k in shown), colours):
        label = f"{BY_NAME[table.name].parameter} = {table.group_parameter(group):.4g}"
        n = len(group.members)
        mean, error = mean_and_error(table.means[which][group.members][:, r])
        keep = mean > 0 if family != "percolation" else slice(None)
        correlation.append(Series(label, r[keep], mean[keep], error[keep], np.full(len(r[keep]), n), colour=colour))
        counts = table.means["clusters"][group.members]
        mean, error = mean_and_error(size_density(counts, length * length))
        keep, s = mean > 0, size_centres(counts.shape[1])
        sizes.append(Series(label, s[keep], mean[keep], error[keep], np.full(keep.sum(), n), colour=colour))
    if table.name == "C-2D":
        line = reference.CORRELATION_2D.value * r**-0.25
        correlation.append(Series("0.70338 r^-1/4: Tc, infinite lattice", r, line, look="dashed"))
    if family == "percolation":
        # The image's own m is a little nearer to the image than p is: 0 less the variance of m.
        for k, colour in zip(shown, colours):
            p = table.group_parameter(table.groups[k])
            level = np.full(2, -4 * p * (1 - p) / length**2)
            label = "exact: -4p(1 - p)/L^2" if k == shown[0] else ""
            correlation.append(Series(label, r[[0, -1]], level, look="line", colour=colour))
    tau = {"C-2D": reference.TAU_ISING_2D, "P-2D": reference.TAU_PERCOLATION_2D}.get(table.name)
    if tau is not None:
        sizes.append(_slope(sizes[shown.index(nearest)], tau.value, f"published slope -{tau.value:.4f} at criticality"))
    name = "C(r) = <s(x) s(x + r)>" if which == "C" else "G(r) = <s(x) s(x + r)> - m^2"
    scale = "linear" if family == "percolation" else "log"
    return [
        Panel("Correlations along the axes of the images", "r", name, correlation, "log", scale),
        Panel("Clusters of up sites", "sites s of the cluster", "clusters of size s per site", sizes, "log", "log"),
    ]


def _slope(series: Series, tau: float, label: str) -> Series:
    """A straight line of slope -tau through the point of `series` nearest to 16 sites."""
    k = int(np.argmin(np.abs(np.log(series.x / LEAST_SIZE))))
    return Series(label, series.x, series.y[k] * (series.x / series.x[k]) ** -tau, look="dashed")


def sweep_panels(table: ClassTable, slices: Slices, config: Simulate, colour: str) -> list[Panel]:
    """m against H of all recorded states, a panel a direction, and the sizes of the avalanches where there are any."""
    one = states(slices, table)
    shown = []
    for sign, word in ((1, "rising"), (-1, "falling")):
        own = one["direction"] == sign
        if not own.any():
            continue
        h, m, lattice = (one[key][own] for key in ("field", "lattice_magnetization", "lattice"))
        series = []
        for number in evenly_spaced(list(np.unique(lattice)), SWEEPS):
            place = np.flatnonzero(lattice == number)
            place = place[np.argsort(sign * h[place], kind="stable")]
            series.append(Series("", h[place], m[place], look="line", colour=FAINT))
        series.append(Series("recorded states", h, m, look="dots", colour=colour))
        coercive = sign * table.means["coercive"][table.direction == sign, 0]
        coercive = coercive[np.isfinite(coercive)]
        if len(coercive):
            at = np.array([coercive.mean()])
            series.append(Series("mean coercive field", at, np.zeros(1), None, np.array([len(coercive)]), "mark"))
        shown.append(Panel(f"Field {word}", "H / J", "m of the lattice", series))
    if len(table.avalanches):
        shown.append(_avalanche_panel(table, config))
    return shown


def _avalanche_panel(table: ClassTable, config: Simulate) -> Panel:
    """Avalanches of one size per site and sweep, over the whole sweep, of a few groups."""
    sites = Lattice.of_dimension(BY_NAME[table.name].dimension, config.image_size, config.boundary).n_sites
    s = size_centres(AVALANCHE_BINS)
    chosen = evenly_spaced([group for group in table.groups if len(avalanche_counts(table, group))], CURVES)
    series = []
    for group, colour in zip(chosen, sequence(len(chosen))):
        counts = avalanche_counts(table, group)
        mean, error = mean_and_error(size_density(counts, sites))
        keep = mean > 0
        label = f"{BY_NAME[table.name].parameter} = {table.group_parameter(group):.4g}"
        series.append(Series(label, s[keep], mean[keep], error[keep], np.full(keep.sum(), len(counts)), colour=colour))
    if table.name == "RF-3D" and series:
        tau = reference.TAU_AVALANCHES_3D.value
        series.append(_slope(series[0], tau, f"published slope -{tau} at R_c = 2.16"))
    return Panel("Avalanches of the whole sweep", "sites s of the avalanche", "avalanches of size s per site", series,
                 "log", "log")  # fmt: skip


def avalanche_counts(table: ClassTable, group: Group) -> np.ndarray:
    """Avalanche counts of the lattices of a group, shape (n, 48); sweeps of one lattice are averaged."""
    rows = table.avalanches[
        (table.avalanches["parameter"] >= group.low) & (table.avalanches["parameter"] <= group.high)
    ]
    _, place, count = np.unique(rows["lattice"], return_inverse=True, return_counts=True)
    total = np.zeros((len(count), AVALANCHE_BINS))
    np.add.at(total, place, rows["counts"])
    return total / count[:, None]


def comparisons(table: ClassTable, config: Simulate) -> list[Comparison]:
    """Our values beside exact ones, group by group, and beside published ones where a group is critical."""
    rows = []
    for group in table.groups:
        rows += _exact_rows(table, config, group)
    return rows + _published_rows(table, config)


def _exact_rows(table: ClassTable, config: Simulate, group: Group) -> list[Comparison]:
    own, parameter = group.members, table.parameter[group.members]
    exact = reference.exact_energy(table.name, config, parameter)
    if exact is None:
        return []
    energy, source = exact
    against = [("exchange energy per site", table.means["energy"][own], energy, source)]
    if BY_NAME[table.name].family == "percolation":
        noise = -4 * parameter * (1 - parameter) / config.image_size**2
        against.append(("magnetization", table.means["m"][own], 2 * parameter - 1, source))
        against.append(("G(1)", table.means["G"][own, 1], noise, source))
        against.append((f"G({config.image_size // 2})", table.means["G"][own, -1], noise, source))
    at = table.group_parameter(group)
    return [
        Comparison(what, at, *map(float, mean_and_error(values)), len(own), float(np.mean(expected)),
                   z_score(values, expected), True, where)
        for what, values, expected, where in against
    ]  # fmt: skip


def _published_rows(table: ClassTable, config: Simulate) -> list[Comparison]:
    name, length, rows = table.name, config.image_size, []
    for group in table.groups:
        at, own = table.group_parameter(group), group.members
        if group.low < group.high or not reference.is_near(name, at, length):
            continue
        known = _published_binder(name, config)
        if known is not None:
            rows.append(_beside(known, at, jackknife(binder_cumulant, table.means["moments"][own]), len(own)))
        if _has_published_cube(name, config):
            rows.append(_beside(reference.ENERGY_3D, at, mean_and_error(table.means["energy"][own]), len(own)))
        if name == "P-2D":
            rows.append(_beside(reference.CROSSING_2D, at, mean_and_error(table.means["spanning"][own]), len(own)))
        tau = {"C-2D": reference.TAU_ISING_2D, "P-2D": reference.TAU_PERCOLATION_2D}.get(name)
        if tau is not None:
            found = size_exponent(table.means["clusters"][own], LEAST_SIZE, length * length / 16)
            rows.append(_beside(tau, at, found, len(own)))
    if name == "RF-3D":
        for group in table.groups:
            counts = avalanche_counts(table, group)
            if len(counts):
                found = size_exponent(counts, LEAST_SIZE, length**1.5)
                known = reference.TAU_AVALANCHES_3D
                rows.append(_beside(known, table.group_parameter(group), found, len(counts)))
    return [row for row in rows if np.isfinite(row.value)]


def _beside(known: reference.Published, at: float, found: tuple, lattices: int) -> Comparison:
    value, error = map(float, found)
    z = (value - known.value) / np.hypot(error, known.error) if lattices >= 5 and error > 0 else np.nan
    return Comparison(known.what, at, value, error, lattices, known.value, float(z), False, known.source)


def _published_binder(name: str, config: Simulate) -> reference.Published | None:
    section = config.classes[name]
    if name == "C-2D" and section.field == 0:
        return reference.BINDER_2D
    return reference.BINDER_3D if _has_published_cube(name, config) else None


def _has_published_cube(name: str, config: Simulate) -> bool:
    return name == "C-3D" and config.boundary == "periodic" and config.classes[name].field == 0
