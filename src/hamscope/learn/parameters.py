"""The parameter of an image, T/J, R/J or p by its class, with an error bar, from the hidden layer of the network.

Nothing is trained again: for each class a ridge regression leads from the hidden features h of its images to

    r(h) = w . f(h),                    f = (1, standardised features, products of two of their leading components),
    v(h) = t + (r(h) - t) / b,          t the mean parameter, b the slope of r against the true parameter,
    log s^2(h) = u . f(h),              fitted to the squared residuals of v.

b and the residuals are those of lattices that were left out of w in turn.  The products let v bend.  A regression
draws what it is unsure of to the middle of its range; dividing by b undoes this (the classical estimator of [1]_), so
that v is not biased towards the range trained on, and images from outside do not look as if they were from inside.
1 - b is the share of the variance that the image does not tell: where b is near 0, v is mostly noise, and S says so.

Away from the training images v is an extrapolation, so the scale grows there:

    S^2 = (s g)^2 + (W (g - 1))^2 + e^2,        g = max(1, d / d_95),

with d the Mahalanobis distance of h to the mean of its class (one covariance for all classes, that within them), d_95
the distance that 95 % of its training images do not exceed, W the standard deviation of the parameters trained on, and
e the distance of v from the nearest parameter trained on: in a gap between ranges, or past their ends, the value is
trusted no more than it was drawn out.  This is a rule, not a theorem, and it does not suffice: a network that answers
for the nearest parameter it knows looks as sure as if it were right.  So an interval that reaches an end of the range
trained on says nothing of what lies past that end, and `open_ends` leaves it open there.

Last, split conformal prediction [2]_ [3]_: the quantiles of |parameter - v| / S over images of *other lattices* are the
factors that make S the half width of a 68 % and of a 90 % interval.  The usual correction (1 + 1 / n) of the level
counts independent images.  Those of one lattice are alike, so n is p (1 - p) over the variance, from lattice to
lattice, of the share p below the quantile; at least the number of lattices, which it is for fewer than five.  Where the
level exceeds 1 no width can be promised, and it is infinite.

The network sees windows with their majority up, so p and 1 - p look alike.  For percolation the regression is one of
q, the probability that a site is of the kind that is up in the window: q = 1 - p where the window was `flipped`.

Shape letters: N, W = images, windows; H = hidden features; K = 7 classes; Q = leading components;
F = 1 + H + Q (Q + 1) / 2.

References
----------
.. [1] Osborne, Int. Stat. Rev. 59, 309 (1991), doi:10.2307/1403690: a review of calibration, classical and inverse.
.. [2] Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, J. Am. Stat. Assoc. 113, 1094 (2018),
   doi:10.1080/01621459.2017.1307116.
.. [3] Papadopoulos, Gammerman and Vovk, Proc. Artificial Intelligence and Applications (2008): normalised residuals.
"""

from typing import NamedTuple

import numpy as np

from hamscope.models import MODELS

LEVELS = (0.68, 0.90)
COMPONENTS = 8
FOLDS = 5
PENALTIES = 10.0 ** np.arange(-2, 5)  # an image adds about 1 to the sum of squares of a feature
# Less than 1 % of the largest spread: there the rounding of bfloat16 would count as distance.
LEAST_SPREAD = 0.01
BENDS_TO = 3.0  # standard deviations of a component; past that the products stay as they are, and v goes on straight
LEAST_SLOPE = 0.05  # v is drawn out 20 times at most
FEWEST_LATTICES = 5
_KNOTS = 129
_AT_ONCE = 2048  # windows; what is computed for them stays in the cache
_TINY = 1e-6
_PERCOLATION = np.array([model.family == "percolation" for model in MODELS])


class Known(NamedTuple):
    """Images whose parameter is known.

    `hidden` (N, H), `labels` (N,) the class, `parameters` (N,), `flipped` (N,) bool, whether up and down were exchanged
    to have the majority up, and `lattices` (N,), the independent sample within the class.
    """

    hidden: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray
    flipped: np.ndarray
    lattices: np.ndarray


def fit(train: Known, other: Known) -> dict[str, np.ndarray]:
    """Everything `predict` needs, as float32 arrays: at most 300 kB for H = 128.

    Parameters
    ----------
    train : Known
        Images for the regressions.  Best those that the network was *not* trained on, since its features of others
        are less sharp.
    other : Known
        Images of other lattices, for the widths.

    Returns
    -------
    dict of ndarray, float32
        Rows of a class without images in `train` are NaN.  "slope" (K,) is b, what the images tell of the parameter.

    Raises
    ------
    ValueError
        Hidden features or parameters that are not finite.
    """
    _check_finite("train", train)
    width, components = train.hidden.shape[1], min(COMPONENTS, train.hidden.shape[1])
    targets = _turn(train.parameters, train.labels, train.flipped)
    terms = 1 + width + components * (components + 1) // 2
    shapes = {
        "mean": (width,), "scale": (width,), "axes": (width, components), "value": (terms,), "spread": (terms,),
        "limits": (2,), "near": (), "slope": (), "deviation": (), "knots": (_KNOTS,),
    }  # fmt: skip
    state = {name: np.full((len(MODELS), *shape), np.nan, np.float32) for name, shape in shapes.items()}
    state["whitening"] = whitening(train.hidden, train.labels)
    for k in np.unique(train.labels):
        mine = train.labels == k
        for name, array in _fit_class(train.hidden[mine], targets[mine], train.lattices[mine], components).items():
            state[name][k] = array
        state["near"][k] = np.quantile(_distance(state, train.hidden[mine], k), 0.95)
    return conform(state, other)


def conform(state: dict, other: Known) -> dict[str, np.ndarray]:
    """The state of `fit` with the widths set anew, by `other`: images of lattices that nothing was fitted to.

    Infinite widths for a class with too few lattices in `other`.  Raises ValueError as `fit` does.
    """
    _check_finite("other", other)
    factors = np.full((len(MODELS), len(LEVELS)), np.nan, np.float32)
    for k in np.flatnonzero(np.isfinite(state["near"])):
        factors[k] = _factors(state, other, k)
    return state | {"factors": factors}


def predict(state: dict, hidden: np.ndarray, classes: np.ndarray, flipped: np.ndarray):
    """The parameter of each window and the half widths of its intervals.

    Parameters
    ----------
    state : dict of ndarray
        From `fit`.
    hidden : ndarray, shape (W, H)
    classes : ndarray, shape (W,)
        The class of each window; the parameter is that of this class, in its units.
    flipped : ndarray, shape (W,), bool
        Whether up and down were exchanged in the window; matters for percolation only.

    Returns
    -------
    value, sigma68, half90 : ndarrays, shape (W,), float64
        The true parameter lies within value +- sigma68 in 68 % and within value +- half90 in 90 % of the windows of
        fresh lattices.  NaN for a class that was not fitted.
    """
    value, halves = np.full(len(hidden), np.nan), np.full((len(hidden), len(LEVELS)), np.nan)
    for k in np.unique(classes):
        mine = np.flatnonzero(classes == k)
        for first in range(0, len(mine), _AT_ONCE):
            some = mine[first : first + _AT_ONCE]
            value[some], scale = _evaluate(state, hidden[some], k)
            halves[some] = scale[:, None] * state["factors"][k]
    return _turn(value, classes, flipped), halves[:, 0], halves[:, 1]


def open_ends(low, high, trained: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Intervals `low` to `high`, numbers or arrays, open at each end that reaches that of the range `trained` on.

    What was never shown cannot be told from the last that was: past the range the network answers as at its end.  So an
    end at or past that of the range is infinite; one that is NaN stays so.
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    return np.where(low <= trained[0], -np.inf, low), np.where(high >= trained[1], np.inf, high)


def coverage(value: np.ndarray, half: np.ndarray, truth: np.ndarray) -> float:
    """Share of windows whose true parameter lies within value +- half; NaN without windows."""
    inside = np.abs(np.asarray(truth) - value) <= half
    return float(inside.mean()) if inside.size else np.nan


def whitening(hidden: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The matrix (H, r), float32, that makes the covariance of `hidden` (N, H) within the classes the unit matrix.

    Directions with less than LEAST_SPREAD of the largest standard deviation are left out, so r <= H; at least the
    largest is kept.
    """
    hidden = np.asarray(hidden, float)
    inner = np.empty_like(hidden)
    for k in np.unique(labels):
        inner[labels == k] = hidden[labels == k] - hidden[labels == k].mean(axis=0)
    variance, axes = np.linalg.eigh(inner.T @ inner / len(inner))
    kept = variance >= max(LEAST_SPREAD**2 * variance[-1], np.finfo(float).tiny)
    kept[-1] = True
    return np.ascontiguousarray(axes[:, kept] / np.sqrt(np.maximum(variance[kept], np.finfo(float).tiny)), np.float32)


def _check_finite(name: str, known: Known) -> None:
    if not (np.isfinite(known.hidden).all() and np.isfinite(known.parameters).all()):
        raise ValueError(f"{name}: hidden features or parameters that are not finite; leave those images out")


def _turn(parameters: np.ndarray, labels: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """p to q or q to p, which is the same; other parameters stay."""
    return np.where(_PERCOLATION[labels] & flipped, 1 - parameters, parameters)


def _fit_class(hidden: np.ndarray, targets: np.ndarray, lattices: np.ndarray, components: int) -> dict:
    """Value, scale and ranges of one class; see `fit`."""
    hidden = np.asarray(hidden, float)
    mean, deviation = hidden.mean(axis=0), hidden.std(axis=0)
    # A unit that is dead in this class would be divided by nothing: it is left out.
    alive = deviation > _TINY * max(np.abs(hidden).max(), np.finfo(float).tiny)
    part = {"mean": mean, "scale": np.where(alive, 1 / np.where(alive, deviation, 1), 0)}
    standard = (hidden - mean) * part["scale"]
    variance, axes = np.linalg.eigh(standard.T @ standard / len(standard))
    variance, axes = variance[::-1][:components], axes[:, ::-1][:, :components]
    part["axes"] = np.where(variance > _TINY * variance[0], axes / np.sqrt(np.maximum(variance, _TINY)), 0)
    design = _design(part, hidden)
    folds = _folds(lattices)
    part["value"], guessed, part["slope"] = _straighten(*_ridge(design, targets, folds), targets)
    squares = (targets - guessed) ** 2
    squares += _TINY * squares.mean() + np.finfo(float).tiny
    part["spread"], logarithms = _ridge(design, np.log(squares), folds)
    part["limits"] = np.quantile(logarithms, (0.01, 0.99))
    part["deviation"] = targets.std()
    part["knots"] = np.quantile(targets, np.linspace(0, 1, _KNOTS))
    return part


def _straighten(weights: np.ndarray, guessed: np.ndarray, targets: np.ndarray):
    """Weights (F,) and guesses (N,) drawn out about the mean target by 1 / slope, and the slope; see the module."""
    middle, off = targets.mean(), targets - targets.mean()
    slope = off @ guessed / max(off @ off, np.finfo(float).tiny)
    draw = 1 / np.clip(slope, LEAST_SLOPE, 1)
    weights = draw * weights
    weights[0] += (1 - draw) * middle
    return weights, middle + draw * (guessed - middle), slope


def _folds(lattices: np.ndarray) -> np.ndarray:
    """Which of up to FOLDS parts each image is left out with: whole lattices, or images where there is one lattice."""
    names, place = np.unique(lattices, return_inverse=True)
    if len(names) < 2:
        place = np.arange(len(lattices))
    # Neighbours in the number are neighbours in the parameter where it is stratified: deal them out.
    return place % FOLDS


def _design(state: dict, hidden: np.ndarray) -> np.ndarray:
    """f(h) of the module's formula, shape (N, F), with the rows of one class of the state."""
    standard = (hidden - state["mean"]) * state["scale"]
    scores = np.clip(standard @ state["axes"], -BENDS_TO, BENDS_TO)
    first, second = np.triu_indices(scores.shape[1])
    return np.concatenate([np.ones((len(hidden), 1)), standard, scores[:, first] * scores[:, second]], axis=1)


def _ridge(design: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (F,) of the ridge regression with the penalty of least error on folds left out, and what those gave (N,).

    The constant, column 0, is not penalised: the targets are taken about their mean, and so are the other columns.
    """
    guessed = np.empty((len(PENALTIES), len(targets)))
    for fold in np.unique(folds):
        out = folds == fold
        if out.all():  # a single image
            guessed[:] = targets
        else:
            guessed[:, out] = _solve(design[~out], targets[~out]) @ design[out].T
    best = int(np.argmin(((guessed - targets) ** 2).mean(axis=1)))
    return _solve(design, targets)[best], guessed[best]


def _solve(design: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weights (penalties, F) of the ridge regression for every penalty, by one decomposition."""
    centre, middle = design[:, 1:].mean(axis=0), targets.mean()
    columns = design[:, 1:] - centre
    squares, axes = np.linalg.eigh(columns.T @ columns)
    along = axes.T @ (columns.T @ (targets - middle))
    weights = (along / (np.maximum(squares, 0) + PENALTIES[:, None])) @ axes.T
    return np.concatenate([middle - weights @ centre[:, None], weights], axis=1)


def _distance(state: dict, hidden: np.ndarray, k: int) -> np.ndarray:
    """Mahalanobis distance (N,) of `hidden` (N, H) to the mean of class k."""
    return np.linalg.norm((hidden - state["mean"][k].astype(float)) @ state["whitening"], axis=1)


def _evaluate(state: dict, hidden: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """v (before it is turned back) and S of the module's formula, each (N,), as of class k."""
    hidden = np.asarray(hidden, float)
    own = {name: state[name][k].astype(float) for name in state if name != "whitening"}
    design = _design(own, hidden)
    value = design @ own["value"]
    inner = np.exp(np.clip(design @ own["spread"], *own["limits"]) / 2)
    growth = np.maximum(1, _distance(state, hidden, k) / own["near"])
    knots = own["knots"]
    place = np.clip(np.searchsorted(knots, value), 1, len(knots) - 1)
    drawn_out = np.minimum(np.abs(value - knots[place - 1]), np.abs(value - knots[place]))
    return value, np.sqrt((inner * growth) ** 2 + (own["deviation"] * (growth - 1)) ** 2 + drawn_out**2)


def _factors(state: dict, other: Known, k: int) -> list[float]:
    """Half widths in units of S for each of LEVELS, from the images of class k in `other`."""
    mine = other.labels == k
    targets = _turn(other.parameters, other.labels, other.flipped)[mine]
    value, scale = _evaluate(state, other.hidden[mine], k)
    scores = np.abs(targets - value) / scale
    factors = []
    for level in LEVELS:
        count = independent(scores, other.lattices[mine], level)
        wanted = level * (1 + 1 / count) if count else np.inf
        factors.append(float(np.quantile(scores, wanted, method="higher")) if wanted <= 1 else np.inf)
    return factors


def independent(scores: np.ndarray, lattices: np.ndarray, level: float) -> float:
    """How many independent scores tell the quantile at `level` as well as `scores` (N,) of some `lattices` (N,).

    Between the number of lattices and N; with fewer than FEWEST_LATTICES their number, since their spread says little.
    """
    names, place = np.unique(lattices, return_inverse=True)
    count = len(names)
    if count < FEWEST_LATTICES:
        return float(count)
    below = scores <= np.quantile(scores, level)
    share = below.mean()
    excess = np.bincount(place, below - share)
    variance = count / (count - 1) * np.sum(excess**2) / len(scores) ** 2
    return float(np.clip(share * (1 - share) / max(variance, np.finfo(float).tiny), count, len(scores)))
