"""Are the probabilities true?  Temperature scaling, calibration error and reliability.

    p_k = exp(z_k / T) / sum_j exp(z_j / T),        T = argmin of the mean of -log p_label over held-out images,

z the logits [1]_.  T changes how sure an answer is, never which it is.  A network is calibrated where, of all answers
given with confidence c = max_k p_k, the share c is right.  The expected calibration error is the mean of
|accuracy - confidence| over bins of confidence, weighted by their counts.  The headline is that of 15 bins of equal
width, as in [1]_; bins of equal mass show what the first hides where nearly all answers are given with c near 1.

Shape letters: N = images; K = classes.

References
----------
.. [1] Guo, Pleiss, Sun and Weinberger, ICML (2017), arXiv:1706.04599.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
WIDTH, MASS = BINNINGS = ("width", "mass")
TEMPERATURES = (0.01, 100.0)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of -log p_label over `logits` (N, K) divided by the temperature; `labels` (N,)."""
    logarithms = log_softmax(np.asarray(logits, float) / temperature, axis=1)
    return -float(np.mean(logarithms[np.arange(len(labels)), labels]))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of least cross entropy, between 0.01 and 100.

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        Of images that the network was not trained on.
    labels : ndarray, shape (N,)
        Their classes.

    Returns
    -------
    float
        1 where every answer is right: then the cross entropy falls for ever with T, and nothing is known of errors.

    Raises
    ------
    ValueError
        No images, labels that do not fit to them, or logits that are not finite.
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    if logits.ndim != 2 or not len(logits) or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits of shape {logits.shape}, labels of {labels.shape}; give (N, K) and (N,), N > 0")
    if not np.isfinite(logits).all():
        raise ValueError("logits that are not finite have no temperature; leave those images out")
    if (logits.argmax(1) == labels).all():
        return 1.0
    # In log T there is one valley, since the cross entropy is convex in 1 / T.
    found = minimize_scalar(
        lambda log: cross_entropy(logits, labels, np.exp(log)), bounds=np.log(TEMPERATURES), method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    return float(np.exp(found.x))


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, K) of the classes from `logits` (N, K), float64; the rows sum to 1."""
    return softmax(np.asarray(logits, float) / temperature, axis=-1)


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, equal: str = WIDTH) -> float:
    """Expected calibration error of `probabilities` (N, K): bins of equal "width" (the headline) or equal "mass"."""
    rows = reliability(probabilities, labels, bins, equal)
    return sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / len(labels)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS, equal: str = WIDTH) -> list[dict]:
    """The reliability diagram as a table, by rising confidence.

    Parameters
    ----------
    probabilities : ndarray, shape (N, K)
    labels : ndarray, shape (N,)
    bins : int
    equal : {"width", "mass"}
        Bins ((b - 1) / bins, b / bins], or bins between the quantiles of the confidence.  Equal confidences are never
        parted, so there may be fewer bins of equal mass than asked for.

    Returns
    -------
    list of dict
        "confidence" and "accuracy" (means), "count", and "low" and "high", the 95 % Wilson interval of the accuracy.
        Empty bins are left out.  Plain numbers, fit for JSON.

    Raises
    ------
    ValueError
        Another binning than those of BINNINGS.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    if equal == WIDTH:
        borders = np.arange(1, bins) / bins
    elif equal == MASS:
        borders = np.unique(np.quantile(confidence, np.arange(1, bins) / bins))
    else:
        raise ValueError(f"equal = {equal!r}; write one of {BINNINGS}")
    place = np.searchsorted(borders, confidence, side="left")
    rows = []
    for mine in (place == b for b in np.unique(place)):
        count, hits = int(mine.sum()), int(right[mine].sum())
        low, high = (float(side) for side in wilson(hits, count))
        rows.append(
            {
                "confidence": float(confidence[mine].mean()), "accuracy": hits / count, "count": count,
                "low": low, "high": high,
            }
        )  # fmt: skip
    return rows


def wilson(successes, n, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """The Wilson score interval (low, high) of a share, `successes` of `n` [1]_.

        (s + z^2 / 2 +- z sqrt(s (n - s) / n + z^2 / 4)) / (n + z^2)

    Numbers or arrays of them, and not only integers: of overlapping windows, n counts the independent ones, and s is
    the share times n.  n = 0 gives (0, 1): nothing is known.

    Raises
    ------
    ValueError
        Negative numbers, or more successes than n.

    References
    ----------
    .. [1] Wilson, J. Am. Stat. Assoc. 22, 209 (1927), doi:10.1080/01621459.1927.10502953.
    """
    s, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    # A share times n can exceed n by rounding.
    if not ((s >= 0) & (s <= n * (1 + 1e-12))).all():
        raise ValueError(f"successes = {successes} of n = {n}; there are 0 to n of them")
    spread = np.divide(s * np.maximum(n - s, 0), n, out=np.zeros(s.shape), where=n > 0)
    half = z * np.sqrt(spread + z**2 / 4)
    centre = s + z**2 / 2
    return np.clip((centre - half) / (n + z**2), 0, 1), np.clip((centre + half) / (n + z**2), 0, 1)
