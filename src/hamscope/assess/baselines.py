"""What can be told from a few numbers: classifiers without a network, to hold beside it.

An image is described by its density and its two-point function, both of the image with its majority up,

    m = <s>,        C(r) = < s(x) s(x + r) >,   r = 1 ... R,   along rows and columns, pairs inside the image only,

raw as above, or connected: C(r) - m^2.  The density (m + 1) / 2 and C(1) alone are the "two numbers".  Three models
of scikit-learn [1]_ learn the class from them: logistic regression, whose borders between classes are flat; the same
with the squares and products of the features, whose borders are quadrics; and a random forest, which takes any.
With raw C(r) the flat borders do well, since noise of density n has C(r) = (2 n - 1)^2, which is not 0.

Shape letters: N = images; L = side of an image; R = distances; F = features, 1 + R or 2.

References
----------
.. [1] Pedregosa et al., J. Mach. Learn. Res. 12, 2825 (2011), https://jmlr.org/papers/v12/pedregosa11a.html.
"""

import warnings

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from hamscope.models import CLASS_NAMES
from hamscope.observables import axis_correlation

LOGISTIC, QUADRATIC, FOREST = KINDS = ("logistic regression", "quadratic logistic regression", "random forest")
DISTANCES = 20
TREES = 200
_BATCH = 512  # images; the transform of one takes 16 L^2 bytes and more


def features(images: np.ndarray, distances: int = DISTANCES, connected: bool = False) -> np.ndarray:
    """Density and C(1) ... C(R) of every image with its majority up, shape (N, 1 + R), float32.

    Parameters
    ----------
    images : ndarray, shape (N, L, L), uint8
        Spins, 1 = up, 0 = down.  Neither the exchange of up and down nor the symmetries of the square change a feature.
    distances : int
        R, at most L // 2.  Pairs reach over no border: an image is a part of something larger.
    connected : bool
        Whether m^2 of the image is subtracted from C(r).

    Raises
    ------
    ValueError
        Images that are no stack of squares, or more distances than the image has.
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images of shape {images.shape}; give a stack of squares (N, L, L)")
    if not 1 <= distances <= images.shape[1] // 2:
        raise ValueError(f"distances = {distances}: images of side {images.shape[1]} have 1 to {images.shape[1] // 2}")
    table = np.empty((len(images), 1 + distances), np.float32)
    for first in range(0, len(images), _BATCH):
        part = images[first : first + _BATCH]
        m = np.abs(2 * part.mean(axis=(1, 2)) - 1)
        pairs = axis_correlation(part, (False, False))[:, 1 : 1 + distances]
        table[first : first + len(part), 0] = (1 + m) / 2
        table[first : first + len(part), 1:] = pairs - m[:, None] ** 2 if connected else pairs
    return table


def two_numbers(table: np.ndarray) -> np.ndarray:
    """Density and C(1) of a table of `features`, shape (N, 2)."""
    return table[:, :2]


def fit(kind: str, features: np.ndarray, labels: np.ndarray, seed: int, workers: int = 1) -> ClassifierMixin:
    """A classifier of the given kind that has learnt `labels` (N,) from `features` (N, F).

    Logistic regression is multinomial, on standardised features, with hardly any penalty (C = 100).  A forest has 200
    trees, and is the same for the same seed on any number of workers.

    Raises
    ------
    ValueError
        Another kind than those of KINDS.
    """
    if kind == LOGISTIC:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=100.0, max_iter=2000))
    elif kind == QUADRATIC:
        products = PolynomialFeatures(2, include_bias=False)
        model = make_pipeline(StandardScaler(), products, StandardScaler(), LogisticRegression(C=100.0, max_iter=2000))
    elif kind == FOREST:
        model = RandomForestClassifier(TREES, random_state=seed, n_jobs=workers)
    else:
        raise ValueError(f"kind = {kind!r}; write one of {KINDS}")
    with warnings.catch_warnings():
        # Where classes can be separated the weights grow without end, long after the answers stopped changing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def answers(model: ClassifierMixin, features: np.ndarray) -> np.ndarray:
    """The class that the model gives to each row of `features` (N, F), shape (N,), in the numbers it was fitted to."""
    return model.predict(features)


def accuracy(labels: np.ndarray, found: np.ndarray) -> dict:
    """Share of right answers: "all" of them, "mean" over the classes, and of each class by its name.

    `labels` and `found` (N,) are numbers of classes in the order of models.MODELS.  A class without an image is left
    out: nothing was measured of it.
    """
    right = np.asarray(labels) == np.asarray(found)
    each = {name: float(right[labels == k].mean()) for k, name in enumerate(CLASS_NAMES) if (labels == k).any()}
    return {"all": float(right.mean()), "mean": float(np.mean(list(each.values()))), **each}
