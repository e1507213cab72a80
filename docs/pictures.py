"""docs/classes.png: three images of every class, side by side, out of a slices file.

hamscope simulate configs/paper.toml --out paper.h5
python docs/pictures.py paper.h5 docs/classes.png
"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from hamscope.data.slices import read_slices
from hamscope.models import MODELS


def draw(slices: str, picture: str) -> None:
    """The images of each class at a quarter, half and three quarters of its rows; white is up."""
    found = read_slices(slices)
    figure, axes = plt.subplots(3, len(MODELS), figsize=(10.5, 5.1), layout="constrained")
    for number, (model, column) in enumerate(zip(MODELS, axes.T)):
        rows = np.flatnonzero(found.columns["model"] == number)
        for panel, row in zip(column, rows[[len(rows) // 4, len(rows) // 2, 3 * len(rows) // 4]]):
            panel.imshow(found.images[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            value = found.columns["parameter"][row]
            panel.set_xlabel(f"{model.parameter} = {value:.3g}", fontsize=8)
            panel.set_xticks([])
            panel.set_yticks([])
        column[0].set_title(model.name, fontsize=10)
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    draw(*sys.argv[1:3])
