"""From a slices file to the observables of each independent lattice: one row a lattice, one table a class.

Images are gone through in blocks, so beside the images themselves (N L^2 bytes, which `read_slices` holds) this needs
some 8 (L / 2 + 30) bytes an image.
"""

from dataclasses import dataclass

import numpy as np

from hamscope.config import Simulate
from hamscope.data.slices import Slices
from hamscope.errors import ContractError
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.observables import (
    Group,
    axis_correlation,
    cluster_sizes,
    coercive_field,
    groups,
    join_borders,
    label_clusters,
    lattice_means,
    size_counts,
    spans,
)

_BLOCK = 256


@dataclass(frozen=True)
class ClassTable:
    """The lattices of one class: n of them, in the order of their numbers.

    `parameter` (n,), `direction` (n,); `means` name -> (n, ...), each averaged within the lattice first; `groups` of
    lattices of (nearly) equal parameter; `rows` (N,) of the slices file; `avalanches` (A,) rows of this class.
    """

    name: str
    parameter: np.ndarray
    direction: np.ndarray
    means: dict[str, np.ndarray]
    groups: list[Group]
    rows: np.ndarray
    avalanches: np.ndarray
    on_grid: bool

    def group_parameter(self, group: Group) -> float:
        """The mean parameter of the lattices of a group."""
        # A mean of equal numbers may differ from them by rounding.
        return group.low if group.low == group.high else float(self.parameter[group.members].mean())


def read_config(slices: Slices, path) -> Simulate:
    """The config of a slices file, after a look at whether its columns can be of that config; else ContractError."""
    try:
        config = Simulate.model_validate_json(slices.attributes["config"])
    except (ValueError, TypeError):
        raise ContractError(f"{path}: its config is not one of this version; simulate again") from None
    c = slices.columns
    numbers = ("parameter", "field", "magnetization", "lattice_magnetization", "lattice_energy")
    if not len(slices.images):
        raise ContractError(f"{path}: holds no image; simulate again")
    known = {CLASS_NAMES.index(name) for name in config.classes}
    wrong = [
        (slices.images.shape[1] != config.image_size, "images are not of the size that its config says"),
        (not set(np.unique(c["model"]).tolist()) <= known, "classes are not those of its config"),
        (not all(np.isfinite(c[name]).all() for name in numbers), "columns hold what is no number"),
        (bool((c["parameter"] < 0).any()), "parameters are negative"),
        (any((slices.images[k : k + _BLOCK] > 1).any() for k in range(0, len(slices.images), _BLOCK)),
         "images have more than two levels"),
    ]  # fmt: skip
    for found, what in wrong:
        if found:
            raise ContractError(f"{path}: its {what}; simulate again")
    return config


def measure(slices: Slices, config: Simulate) -> list[ClassTable]:
    """The table of every class that has images, in the order of Table I."""
    present = np.unique(slices.columns["model"])
    return [_class_table(slices, config, CLASS_NAMES[k]) for k in present]


def periodic_axes(name: str, plane_axis: int, boundary: str) -> tuple[bool, bool]:
    """Whether rows and columns of an image wrap round: all do but the z axis of an open 3D lattice, its first."""
    open_z = BY_NAME[name].dimension == 3 and boundary == "open"
    return (not (open_z and plane_axis != 0), True)


def _class_table(slices: Slices, config: Simulate, name: str) -> ClassTable:
    rows = np.flatnonzero(slices.columns["model"] == CLASS_NAMES.index(name))
    c = {key: values[rows] for key, values in slices.columns.items()}
    section = config.classes[name]
    m = c["lattice_magnetization"]
    by_image = {
        "energy": c["lattice_energy"], "m": m, "abs_m": np.abs(m), "moments": np.stack([m**2, m**4], axis=1),
    }  # fmt: skip
    means = {key: lattice_means(values, c["lattice"]) for key, values in by_image.items()}
    means |= _image_means(slices, rows, c, name, config.boundary)
    numbers, first = np.unique(c["lattice"], return_index=True)
    # Of one lattice they are all equal; their mean would differ by rounding, and equal parameters would not be equal.
    parameter, direction = c["parameter"][first], c["direction"][first].astype(int)
    if BY_NAME[name].family == "random-field":
        means["coercive"] = _coercive_fields(c)
    n_ranges = len(section.probability) if hasattr(section, "probability") else 1
    grouped = groups(parameter, section.grid is not None, numbers % n_ranges)
    avalanches = slices.avalanches[slices.avalanches["model"] == CLASS_NAMES.index(name)]
    return ClassTable(name, parameter, direction, means, grouped, rows, avalanches, section.grid is not None)


def _image_means(slices: Slices, rows, c, name: str, boundary: str) -> dict[str, np.ndarray]:
    """C(r) and G(r) of all images but free surfaces, and the clusters of all images, averaged within lattices.

    A lattice without such an image (there is none in files of `hamscope simulate`) counts its surfaces as well.
    """
    length = slices.images.shape[1]
    n_bins = int(np.frexp(length * length)[1])
    correlation = np.empty((len(rows), length // 2 + 1))
    counts = np.zeros((len(rows), n_bins))
    largest, spanning = np.zeros(len(rows)), np.zeros(len(rows))
    for axis in np.unique(c["plane_axis"]):
        own = np.flatnonzero(c["plane_axis"] == axis)
        wraps = periodic_axes(name, int(axis), boundary)
        for block in np.array_split(own, -(-len(own) // _BLOCK)):
            images = slices.images[rows[block]]
            correlation[block] = axis_correlation(images, wraps)
            for place, image in zip(block, images):
                labels = label_clusters(image)
                largest[place] = cluster_sizes(labels).max(initial=0) / image.size
                # Cut at the border, clusters of a periodic lattice would count as several smaller ones.
                counts[place] = size_counts(cluster_sizes(join_borders(labels, wraps)), n_bins)
                spanning[place] = spans(labels)
    inside = (c["plane_surface"] == 0).astype(float)
    lattice = c["lattice"]
    few = np.isin(lattice, np.unique(lattice)[lattice_means(inside, lattice) == 0])
    weight = np.where(few, 1.0, inside)
    share = lattice_means(weight, lattice)[:, None]
    connected = correlation - c["magnetization"][:, None] ** 2
    return {
        "C": lattice_means(correlation * weight[:, None], lattice) / share,
        "G": lattice_means(connected * weight[:, None], lattice) / share,
        "clusters": lattice_means(counts, lattice), "largest": lattice_means(largest, lattice),
        "spanning": lattice_means(spanning, lattice),
    }  # fmt: skip


def states(slices: Slices, table: ClassTable) -> dict[str, np.ndarray]:
    """One row a recorded state of the lattices of a class (its slices are one state): lattice, field, m, direction."""
    c = {key: slices.columns[key][table.rows] for key in ("lattice", "field", "lattice_magnetization", "direction")}
    return _states(c)


def _states(c: dict) -> dict[str, np.ndarray]:
    key = np.stack([c["lattice"].astype(float), c["field"], c["lattice_magnetization"]], axis=1)
    _, first = np.unique(key, axis=0, return_index=True)
    names = ("lattice", "field", "lattice_magnetization", "direction")
    return {name: c[name][first] for name in names}


def _coercive_fields(c: dict) -> np.ndarray:
    """Coercive field of each lattice and the distance in H of the two states about it, shape (n, 2)."""
    one = _states(c)
    found = []
    for lattice in np.unique(one["lattice"]):
        own = one["lattice"] == lattice
        found.append(
            coercive_field(one["field"][own], one["lattice_magnetization"][own], int(one["direction"][own][0]))
        )
    return np.array(found)
