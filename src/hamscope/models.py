"""The seven classes of Table I (doi:10.48550/arXiv.2211.01490): their order, dimension and free parameter.

The order is the order of the network's outputs and of every column that has seven entries.
"""

from typing import NamedTuple


class ModelClass(NamedTuple):
    """One candidate model.

    `family` is "clean", "random-field" or "percolation"; `parameter` is the symbol of its free parameter, in units
    of J where it is an energy; `describe` says in words what such a verdict means.
    """

    name: str
    family: str
    dimension: int
    parameter: str
    describe: str


MODELS = (
    ModelClass("C-2D", "clean", 2, "T/J", "clean Ising model in two dimensions: interactions, no disorder"),
    ModelClass("C-3D", "clean", 3, "T/J", "clean Ising model in three dimensions: interactions, no disorder"),
    ModelClass(
        "RF-2D", "random-field", 2, "R/J", "random-field Ising model in two dimensions: interactions and disorder"
    ),
    ModelClass(
        "RF-3D", "random-field", 3, "R/J", "random-field Ising model in three dimensions: interactions and disorder"
    ),
    ModelClass(
        "P-2D", "percolation", 2, "p", "uncorrelated percolation near the two-dimensional threshold: no interactions"
    ),
    ModelClass(
        "P-3D", "percolation", 3, "p", "uncorrelated percolation near the three-dimensional threshold: no interactions"
    ),
    ModelClass(
        "P*", "percolation", 2, "p", "uncorrelated noise away from any threshold: no interactions, not critical"
    ),
)
# Avalanche sizes are counted in powers of two: bin b holds those of 2**b to 2**(b + 1) - 1 sites.
AVALANCHE_BINS = 48
CLASS_NAMES = tuple(model.name for model in MODELS)
BY_NAME = {model.name: model for model in MODELS}
