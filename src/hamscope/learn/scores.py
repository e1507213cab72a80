"""How foreign is a window to a network: scores on its outputs (logits) and on its hidden layer.

Every score is larger the more foreign a window is.

    energy           -ln sum_k exp x_k                                                                [1]_
    max_logit        -max_k x_k
    max_softmax      -ln max_k p_k, p the softmax                                                     [2]_
    mahalanobis      min_k |(h - m_k) W|, W W^T the inverse of one covariance within the classes      [3]_
    relative         min_k |(h - m_k) W|^2 - |(h - m) W_0|^2, the second of one Gauss of all images   [4]_
    each             the same as mahalanobis with a covariance per class, for logits
    nearest          distance to the k-th nearest training point: plain for logits, whitened, or
                     of unit vectors                                                                  [5]_
    cloud            the flag of the paper as a number: distance to the cloud of the answered class   [6]_

`auroc` and `accepted_at` say how well a score tells foreign windows from own ones.

Shape letters: W = windows; K = classes; D = numbers a window (K for logits, H for the hidden layer); N = training
images.

References
----------
.. [1] Liu et al. (2020), doi:10.48550/arXiv.2010.03759.
.. [2] Hendrycks and Gimpel (2017), doi:10.48550/arXiv.1610.02136.
.. [3] Lee et al. (2018), doi:10.48550/arXiv.1807.03888.
.. [4] Ren et al. (2021), doi:10.48550/arXiv.2106.09022.
.. [5] Sun et al. (2022), doi:10.48550/arXiv.2204.06507.
.. [6] Basak et al. (2022), doi:10.48550/arXiv.2211.01490.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from scipy.stats import rankdata

from hamscope.learn.confidence import Clouds

RIDGE = 1e-3  # in units of the mean variance of a coordinate
NEIGHBOUR = 50  # which neighbour; one alone may be an outlier of the training
_BLOCK = 2**24  # distances held at a time, 64 MB


def energy(logits: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the sum of exp(logit), (W, K) to (W,), float64."""
    return -logsumexp(np.asarray(logits, np.float64), axis=1)


def max_logit(logits: np.ndarray) -> np.ndarray:
    """Minus the largest logit, (W, K) to (W,), float64."""
    return -np.asarray(logits, np.float64).max(1)


def max_softmax(logits: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the largest probability, (W, K) to (W,), float64.

    It orders windows as 1 - p does, and does not round to 0 where p is near 1.
    """
    logits = np.asarray(logits, np.float64)
    # The largest itself is left out of the sum, since log1p keeps what 1 + x would round away.
    below = np.sort(logits, axis=1)[:, :-1] - logits.max(1, keepdims=True)
    return np.log1p(np.exp(below).sum(1))


@dataclass(frozen=True)
class Gauss:
    """Class means and one whitening of all: what the Mahalanobis score needs.

    Attributes
    ----------
    means : ndarray, shape (K, D), float32
        NaN for a class without training images; it is never the nearest.
    white : ndarray, shape (D, D), float32
        white @ white.T is the inverse of the covariance: |(x - means[k]) @ white| is the distance to class k.
    """

    means: np.ndarray
    white: np.ndarray

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of every point (W, D) to every mean, (W, K), float32; NaN where there is no mean."""
        middle = np.nanmean(self.means, axis=0)  # the whitening makes little of what float32 rounds near it
        white, means = (np.float32(points) - middle) @ self.white, (self.means - middle) @ self.white
        return np.stack([np.linalg.norm(white - mean, axis=1) for mean in means], axis=1)


def fit_gauss(points: np.ndarray, labels: np.ndarray, classes: int = 7, ridge: float = RIDGE) -> Gauss:
    """The means of the classes and the covariance within them, sum_k sum_i (x_i - m_k)(x_i - m_k)^T / N.

    ridge * (mean of the diagonal) is added to the diagonal: hidden units that never fire have no variance, and a
    foreign window that makes one fire would be infinitely far.

    Parameters
    ----------
    points : ndarray, shape (N, D)
    labels : ndarray, shape (N,), int
        Class of each image, 0 to classes - 1.
    classes : int
    ridge : float
        Above 0, unless the covariance is known to be of full rank.

    Raises
    ------
    ValueError
        No points, points that are not finite, labels out of range, or a covariance that cannot be inverted.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"{len(points)} points; at least one is needed, and all finite")
    if labels.shape != (len(points),) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels of shape {labels.shape}; give each of {len(points)} points one of 0..{classes - 1}")
    means = np.full((classes, points.shape[1]), np.nan)
    scatter = np.zeros((points.shape[1],) * 2)
    for k in np.unique(labels):
        own = points[labels == k].astype(np.float64)
        means[k] = own.mean(0)
        scatter += (own - means[k]).T @ (own - means[k])
    covariance = scatter / len(points)
    covariance[np.diag_indices_from(covariance)] += ridge * covariance.trace() / len(covariance)
    variances, axes = np.linalg.eigh(covariance)
    if variances[0] <= 0:
        raise ValueError(f"smallest variance {variances[0]:g}, ridge {ridge:g}; give more points or a larger ridge")
    return Gauss(means.astype(np.float32), (axes / np.sqrt(variances)).astype(np.float32))


def mahalanobis(gauss: Gauss, points: np.ndarray) -> np.ndarray:
    """Distance to the nearest class mean, (W, D) to (W,), float32."""
    return np.fmin.reduce(gauss.distances(points), axis=1)


def fit_background(points: np.ndarray, ridge: float = RIDGE) -> Gauss:
    """One Gauss for all images whatever their class, of one mean (1, D)."""
    return fit_gauss(points, np.zeros(len(points), int), 1, ridge)


def relative_mahalanobis(gauss: Gauss, background: Gauss, points: np.ndarray) -> np.ndarray:
    """Squared distance to the nearest class mean less that to the mean of all, (W, D) to (W,), float32; may be < 0."""
    return mahalanobis(gauss, points) ** 2 - mahalanobis(background, points) ** 2


def fit_each(points: np.ndarray, labels: np.ndarray, classes: int = 7, ridge: float = RIDGE) -> list[Gauss]:
    """A Gauss of its own, with one mean (1, D), for each class that has training images; as `fit_gauss`."""
    labels = np.asarray(labels)
    return [fit_background(points[labels == k], ridge) for k in range(classes) if (labels == k).any()]


def mahalanobis_each(gausses: list[Gauss], points: np.ndarray) -> np.ndarray:
    """Distance to the nearest class, each in the metric of its own covariance, (W, D) to (W,), float32.

    The determinants do not enter: a class is near if its own spread reaches the window.
    """
    return np.min([mahalanobis(gauss, points) for gauss in gausses], axis=0)


def nearest(training: np.ndarray, points: np.ndarray, k: int = NEIGHBOUR) -> np.ndarray:
    """Distance of every point (W, D) to the k-th nearest of the training points (N, D); (W,), float32.

    By matrix products, since search trees do not help in more than some ten dimensions: W N D multiplications.

    Raises
    ------
    ValueError
        k below 1 or above N.
    """
    training, points = np.asarray(training, np.float32), np.asarray(points, np.float32)
    if not 1 <= k <= len(training):
        raise ValueError(f"neighbour k = {k} of {len(training)} training points; give 1 to {len(training)}")
    # About the middle the squares are small, and little is lost in their difference.
    middle = training.mean(0)
    training, points = training - middle, points - middle
    half_squares = (training**2).sum(1) / 2
    found = [np.empty(0, np.float32)]
    for block in _blocks(points, len(training)):
        # |x - y|^2 / 2 without |x|^2, which does not change the order; the distance itself is taken without rounding.
        order = np.argpartition(half_squares - block @ training.T, k - 1, axis=1)[:, k - 1]
        found.append(np.linalg.norm(block - training[order], axis=1))
    return np.concatenate(found)


def _blocks(points: np.ndarray, n_training: int) -> Iterator[np.ndarray]:
    rows = max(1, _BLOCK // n_training)
    return (points[start : start + rows] for start in range(0, len(points), rows))


def nearest_unit(training: np.ndarray, points: np.ndarray, k: int = NEIGHBOUR) -> np.ndarray:
    """`nearest` of the vectors at unit length; a vector of zeros, a window that nothing fires at, stays one."""
    return nearest(_unit(training), _unit(points), k)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearest_white(gauss: Gauss, training: np.ndarray, points: np.ndarray, k: int = NEIGHBOUR) -> np.ndarray:
    """`nearest` in the metric of the covariance within the classes."""
    # Centred before it is whitened, else float32 loses digits where the whitening is steep.
    middle = np.asarray(training, np.float32).mean(0)
    return nearest((training - middle) @ gauss.white, (points - middle) @ gauss.white, k)


def cloud(clouds: Clouds, logits: np.ndarray, reading: str) -> np.ndarray:
    """Distance to the cloud of the class of the largest logit, in its sigmas, (W, K) to (W,), float32.

    `reading` as in `Clouds.distance`; the paper's flag is this score above 1.
    """
    answers = np.argmax(logits, axis=1)
    return np.take_along_axis(clouds.distance(logits, reading), answers[:, None], 1)[:, 0]


def auroc(own: np.ndarray, foreign: np.ndarray) -> float:
    """The chance that a foreign window scores higher than an own one, a tie counted a half.

    It is the statistic U of Mann and Whitney (doi:10.1214/aoms/1177730491) over the number of pairs.

    Raises
    ------
    ValueError
        No scores on one side, or NaN among them.
    """
    own, foreign = _scores(own, foreign)
    ranks = rankdata(np.concatenate([own, foreign]))[len(own) :]
    return float((ranks.sum() - len(foreign) * (len(foreign) + 1) / 2) / (len(own) * len(foreign)))


def accepted_at(own: np.ndarray, foreign: np.ndarray, true: float = 0.95) -> tuple[float, float]:
    """The threshold that accepts the share `true` of own windows, and the share of foreign ones that it accepts.

    Accepted is a score at the threshold or below.  The threshold is the smallest own score that accepts at least
    `true` of them.

    Raises
    ------
    ValueError
        As `auroc`, or `true` outside of 0..1.
    """
    own, foreign = _scores(own, foreign)
    threshold = np.quantile(own, true, method="inverted_cdf")
    return float(threshold), float((foreign <= threshold).mean())


def _scores(own, foreign) -> tuple[np.ndarray, np.ndarray]:
    own, foreign = np.asarray(own, np.float64), np.asarray(foreign, np.float64)
    for name, scores in (("own", own), ("foreign", foreign)):
        if not scores.size or np.isnan(scores).any():
            raise ValueError(f"{name}: {scores.size} scores, {np.isnan(scores).sum()} of them NaN; give numbers")
    return own, foreign
