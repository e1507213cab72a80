"""Slices made up for tests of their report: the structure of a real file, with numbers that are known."""

import h5py
import numpy as np

from hamscope.config import parse_config
from hamscope.data import slices
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.provenance import section_json
from hamscope.sim.lattice import Lattice, image_planes

SIZE = 8
CHAIN = {"thermalization_sweeps": 5, "thermalization_wolff": 1, "sweeps_between": 5}
CONFIG = {
    "seed": 1, "image_size": SIZE,
    "C-2D": {"temperature": [2.2, 2.6], "lattices": 15, "grid": 2, "measurements": 3, **CHAIN},
    "C-3D": {"temperature": [4.5, 4.6], "lattices": 1, **CHAIN},
    "RF-3D": {"disorder": [2.2, 2.3], "lattices": 12, "grid": 2, "snapshots": 4},
    "P-2D": {"probability": [0.57, 0.61], "lattices": 40},
    "P*": {"probability": [[0.1, 0.2], [0.8, 0.9]], "lattices": 32},
}  # fmt: skip


def made_up(config: dict = CONFIG, seed: int = 0):
    """Images and columns with the structure of a real file, of the classes of `config`: random, but for what is tested.

    Lattice k of a class differs from the others by more than its measurements differ from each other.
    """
    random = np.random.default_rng(seed)
    images, rows = [], []
    for name, section in parse_config({"name": "x", "simulate": config}).simulate.classes.items():
        grid = getattr(section, "grid", None)
        ranges = getattr(section, "probability", None) or (
            getattr(section, "temperature", None) or getattr(section, "disorder", None),
        )
        planes = image_planes(Lattice.of_dimension(BY_NAME[name].dimension, SIZE, config.get("boundary", "open")))
        for lattice in range(section.lattices):
            low, high = ranges[lattice % len(ranges)]
            share = lattice % grid / max(grid - 1, 1) if grid else random.random()
            direction = (1 if lattice // grid % 2 == 0 else -1) if name == "RF-3D" else 0
            own = random.normal()
            for state in range(getattr(section, "snapshots", None) or getattr(section, "measurements", 1)):
                energy, m = -1 + 0.2 * own + 0.02 * random.normal(), np.tanh(own + 0.1 * random.normal())
                field = direction * (1.3 + 0.05 * state) if direction else 0.0
                m = direction * (-0.6 + 0.4 * state + 0.05 * own) if direction else m
                for plane in planes:
                    image = (random.random((SIZE, SIZE)) < 0.5).astype(np.uint8)
                    images.append(image)
                    rows.append((CLASS_NAMES.index(name), low + share * (high - low), field, direction,
                                 2 * image.mean() - 1, m, energy, plane.axis, plane.position, plane.surface, lattice,
                                 0 if direction or name[0] == "P" else 5 + 5 * state))  # fmt: skip
    columns = {
        key: np.array(values, "u1" if key == "model" else column.dtype)
        for (key, column), values in zip(slices.COLUMNS.items(), zip(*rows))
    }
    return np.array(images), columns


def sweeps_table() -> np.ndarray:
    """Avalanches of the 12 sweeps of RF-3D: 2^(20 - 2 b) of bin b, more in every second lattice."""
    rows = np.zeros(12, slices.AVALANCHES)
    rows["model"], rows["lattice"] = CLASS_NAMES.index("RF-3D"), np.arange(12)
    rows["parameter"], rows["direction"] = [2.2, 2.3] * 6, [1, 1, -1, -1] * 3
    rows["counts"][:, :10] = 2 ** (20 - 2 * np.arange(10)) * (1 + np.arange(12) // 2 % 2)[:, None]
    return rows


def write(path, images, columns, avalanches=None, config=CONFIG, software=None):
    """A slices file by the functions of the contract."""
    avalanches = sweeps_table() if avalanches is None else avalanches
    with h5py.File(path, "w") as file:
        slices.create(file, len(images), images.shape[1], len(avalanches))
        file["images"][:] = images
        for name, values in columns.items():
            file[name][:] = values
        file["avalanches"][:] = avalanches
        content = slices.content_hash(slices.image_digests(images), columns, avalanches)
        text = section_json(parse_config({"name": "x", "simulate": config}).simulate)
        slices.finish(file, text, 1, software or {"hamscope": "0.1.0"}, content)
    return path


def write_plain(path, images, **given):
    """A slices file of `images` of which these columns are known; the others are 0, and there are no avalanches."""
    columns = {
        name: np.asarray(given.get(name, np.zeros(len(images))), "u1" if name == "model" else column.dtype)
        for name, column in slices.COLUMNS.items()
    }
    return write(path, images, columns, np.zeros(0, slices.AVALANCHES))
