"""What a network still tells apart at which resolution: confusions over widths of the blur, and thresholds.

Every image is seen through a Gaussian point-spread function of each width, then thresholded at the fixed middle or by
its own median or Otsu's threshold, with the network told of the width or not.

Shape letters: S = widths of PSF_PX; T = THRESHOLDS (fixed, median, otsu); K = classes.
"""

import numpy as np

from hamscope.data.instrument import THRESHOLDS, Views, look
from hamscope.data.symmetry import prepare
from hamscope.learn.network import predict
from hamscope.models import CLASS_NAMES

PSF_PX = (0.0, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0)
THRESHOLD_NAMES = ("fixed", "median", "otsu")
_BATCH = 512


def views_of(
    count: int, psf_px: float, threshold: int = 0, told: bool = False, airy=False, noise: float = 0.0
) -> Views:
    """The same microscope for `count` images."""
    return Views(*(np.full(count, value) for value in (float(psf_px), airy, noise, threshold, 1.0, told)))


def confusions(network, source, numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Confusion matrices, int64 (S, T, 2, K, K): width, threshold, not told / told of the width, truth, answer.

    Parameters
    ----------
    source : hamscope.learn.training.Source
        Whose images are seen, sharp as they are in the slices file.
    numbers : ndarray, shape (N,), int
        The images; `labels`, shape (N,), their classes.
    """
    counts = np.zeros((len(PSF_PX), len(THRESHOLDS), 2, len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    for s, psf in enumerate(PSF_PX):
        for t in range(len(THRESHOLDS)):
            for first in range(0, len(numbers), _BATCH):
                some, truth = numbers[first : first + _BATCH], labels[first : first + _BATCH]
                views = views_of(len(some), psf, t)
                seen = look(source.images[some], views, source.section.seed, 0, some)
                images = prepare(seen, source.symmetry)
                for told in range(1 + network.conditioned):
                    condition = views._replace(told=np.full(len(some), bool(told))).condition
                    np.add.at(counts[s, t, told], (truth, predict(network, images, condition).argmax(1)), 1)
    if not network.conditioned:  # it does not listen
        counts[:, :, 1] = counts[:, :, 0]
    return counts


def summary(counts: np.ndarray) -> dict:
    """Accuracies of `confusions` for the card: by threshold, told or not, a number for each width."""
    share = np.trace(counts, axis1=-2, axis2=-1) / np.maximum(counts.sum((-2, -1)), 1)
    return {"psf_px": list(PSF_PX), "images": int(counts[0, 0, 0].sum())} | {
        f"{name}{', width told' if told else ''}": [round(float(x), 4) for x in share[:, t, told]]
        for t, name in enumerate(THRESHOLD_NAMES) for told in (0, 1)
    }  # fmt: skip
