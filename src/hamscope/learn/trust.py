"""What is measured of a trained network before it is passed on: how far its answers, and its doubts, can be trusted.

Held-out lattices are split once more, by lattice: on the first half ("calibration") temperature, thresholds of the
scores and scale of the error bars are set; on the second ("report") everything that the card says is measured.

Shape letters: M = images; K = classes; H = width of the hidden layer.
"""

from typing import NamedTuple

import numpy as np

from hamscope.errors import UserError
from hamscope.learn import calibration, parameters, scores
from hamscope.learn.confidence import NORMS, Clouds
from hamscope.models import CLASS_NAMES

TRUE = 0.95  # share of the calibration images that the threshold of a score accepts
# The first is that of new bundles: of all, it lets the fewest foreign windows pass (docs/classifier.md).
SCORES = ("cloud", "mahalanobis", "energy", "nearest", "componentwise", "euclidean")


class Images(NamedTuple):
    """What is known of M images: `label` (class), `value` (parameter), `flipped` (the majority was down), `lattice`."""

    label: np.ndarray
    value: np.ndarray
    flipped: np.ndarray
    lattice: np.ndarray

    def of(self, chosen: np.ndarray) -> "Images":
        """Some of the images."""
        return Images(*(column[chosen] for column in self))

    def part(self, hidden: np.ndarray, chosen: np.ndarray) -> parameters.Known:
        """Some of the images with their hidden layer (M, H), as the regression takes them."""
        return parameters.Known(hidden[chosen], *self.of(chosen))


def measure(logits, hidden, known: Images, held_out: int) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of the bundle's statistics, and what the card says.

    Parameters
    ----------
    logits, hidden : ndarray, shapes (M, K) and (M, H)
        Of the held-out images first, then of training images.
    known : Images
        What is known of the same images.
    held_out : int
        How many come first.

    Raises
    ------
    UserError
        A network that says the same of every image.
    """
    if not np.ptp(hidden, axis=0).any():
        raise UserError(
            "the hidden layer is the same for every image: the network has died in training; lower learning_rate"
        )
    fit = np.arange(len(logits)) >= held_out
    labels = known.label
    gauss = scores.fit_gauss(hidden[fit], labels[fit])
    clouds = Clouds([logits[fit][labels[fit] == k] for k in range(len(CLASS_NAMES))])
    first = ~fit & setting(known.lattice)
    state = parameters.fit(known.part(hidden, fit), known.part(hidden, first))
    statistics = {"gauss.means": gauss.means, "gauss.white": gauss.white} | parameter_arrays(state)
    return statistics, {
        "metrics": metrics(logits[:held_out], labels[:held_out], clouds),
        **_set(logits[~fit], hidden[~fit], known.of(~fit), gauss, clouds, state),
    }


def calibrate(logits, hidden, known: Images, gauss: scores.Gauss, clouds: Clouds, state: dict) -> tuple[dict, dict]:
    """Temperature, thresholds and widths of the error bars set anew by images of lattices never trained on.

    Parameters
    ----------
    logits, hidden : ndarray, shapes (M, K) and (M, H)
    known : Images
    gauss, clouds, state
        Of the bundle; see `hamscope.learn.scores`, `confidence` and `parameters`.

    Returns
    -------
    statistics, card : dict
        What `measure` returns of them: the arrays of the regression, and "calibration", "rejection" and "coverage".
    """
    state = parameters.conform(state, known.part(hidden, setting(known.lattice)))
    return parameter_arrays(state), _set(logits, hidden, known, gauss, clouds, state)


def setting(lattice: np.ndarray) -> np.ndarray:
    """Which of the held-out images (M,) set temperature, thresholds and widths; the others say how well."""
    return lattice % 2 == 0


def parameter_arrays(state: dict) -> dict[str, np.ndarray]:
    """The state of the regression under the names that it has among the statistics of a bundle."""
    return {f"parameters.{name}": array for name, array in state.items()}


def _set(logits, hidden, known: Images, gauss: scores.Gauss, clouds: Clouds, state: dict) -> dict:
    """Temperature and thresholds by one half of held-out images, and what the card says of the other half."""
    first = setting(known.lattice)
    temperature = calibration.fit_temperature(logits[first], known.label[first])
    limits = {
        name: float(np.quantile(score(name, logits[first], hidden[first], gauss, clouds), TRUE)) for name in SCORES
    }
    return {
        "calibration": calibrated(logits[~first], known.label[~first], temperature),
        "rejection": {"score": SCORES[0], "accepts": TRUE, "limits": limits | {name: 1.0 for name in NORMS}},
        "coverage": covered(state, hidden[~first], known.of(~first)),
    }


def score(name: str, logits: np.ndarray, hidden: np.ndarray, gauss: scores.Gauss, clouds: Clouds) -> np.ndarray:
    """How foreign each window is by one of SCORES, shape (W,); larger is more foreign."""
    if name == "mahalanobis":
        return scores.mahalanobis(gauss, hidden)
    if name == "energy":
        return scores.energy(logits)
    if name == "nearest":
        return scores.nearest(np.concatenate(clouds.points), logits)
    return scores.cloud(clouds, logits, "euclidean" if name == "cloud" else name)


def calibrated(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict:
    """Calibration error and reliability diagram of images that the temperature was not fitted to."""
    chances = calibration.probabilities(logits, temperature)
    plain = calibration.probabilities(logits, 1.0)
    return {
        "temperature": temperature, "images": len(labels), "ece": calibration.ece(chances, labels),
        "ece_uncalibrated": calibration.ece(plain, labels), "reliability": calibration.reliability(chances, labels),
    }  # fmt: skip


def covered(state: dict, hidden: np.ndarray, known: Images) -> dict:
    """Per class: the share of images whose parameter lies in its 68 and 90 % interval, and the median half width.

    Beside it "error68", the error that 68 % of the images do not exceed.  The half width is None where it is infinite:
    there were too few lattices to promise one.
    """
    value, sigma, half = parameters.predict(state, hidden, known.label, known.flipped)
    table = {}
    for k, name in enumerate(CLASS_NAMES):
        mine = known.label == k
        if mine.any() and np.isfinite(value[mine]).all():
            truth, width = known.value[mine], float(np.median(sigma[mine]))
            table[name] = {
                "images": int(mine.sum()), "lattices": len(np.unique(known.lattice[mine])),
                "in68": parameters.coverage(value[mine], sigma[mine], truth),
                "in90": parameters.coverage(value[mine], half[mine], truth),
                "sigma68": width if np.isfinite(width) else None, "slope": float(state["slope"][k]),
                "error68": float(np.quantile(np.abs(value[mine] - truth), 0.68)),
            }  # fmt: skip
    return table


def metrics(logits: np.ndarray, labels: np.ndarray, clouds: Clouds) -> dict:
    """What the card says of the validation images: accuracy, confusion (rows the truth), confident share.

    Parameters
    ----------
    logits : ndarray, shape (N, 7)
    labels : ndarray, shape (N,), int
    """
    answers = logits.argmax(1)
    confusion = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    of_class = confusion.sum(1)
    right = {name: confusion[k, k] / of_class[k] for k, name in enumerate(CLASS_NAMES) if of_class[k]}
    return {
        "accuracy": float((answers == labels).mean()), "images": len(labels), "confusion": confusion.tolist(),
        "per_class": {name: float(share) for name, share in right.items()},
        "confident": {
            reading: float(clouds.confident(logits, answers, reading, workers=-1).mean()) for reading in NORMS
        },
    }  # fmt: skip
