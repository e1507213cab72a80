"""Accuracy against blur: networks and baselines on the same windows through the same microscopes.

Shape letters: S = widths of PSF_PX; T = thresholds (fixed, median, otsu); K = classes.
"""

from collections.abc import Callable

import numpy as np

from hamscope.assess import baselines
from hamscope.assess.sample import Sample
from hamscope.data.instrument import Views, condition, draw, look
from hamscope.data.symmetry import prepare
from hamscope.learn.bundle import Bundle
from hamscope.learn.network import predict
from hamscope.learn.resolution import PSF_PX, THRESHOLD_NAMES, views_of
from hamscope.models import BY_NAME, CLASS_NAMES

_BATCH = 512
# A threshold that is taken from the frame erases the density, which is all that tells these apart.
MERGED = np.array([4 if BY_NAME[name].family == "percolation" else k for k, name in enumerate(CLASS_NAMES)])

Answerer = Callable[[np.ndarray, Views], np.ndarray]  # windows as seen (N, L, L), microscopes -> classes (N,)


def network_answerer(bundle: Bundle, told: bool) -> Answerer:
    """A bundle's answers; `told` the width of the point-spread function or not."""

    def answer(images: np.ndarray, views: Views) -> np.ndarray:
        known = condition(views.psf_px if told else None, views.threshold > 0)
        prepared = prepare(images, bundle.network.arguments["symmetry"])
        return predict(bundle.network, prepared, known).argmax(1)

    return answer


def baseline_answerers(training: Sample, instrument, seed: int) -> dict[str, Answerer]:
    """Classifiers of scikit-learn on density and C(r), trained on windows through the same random microscopes."""
    images = training.images
    if instrument:
        numbers = np.arange(len(images))
        images = look(images, draw(instrument, seed, 1, numbers), seed, 1, numbers)
    distances = min(baselines.DISTANCES, images.shape[1] // 2)
    table = baselines.features(images, distances)
    models = {kind: baselines.fit(kind, table, training.label, seed) for kind in baselines.KINDS}
    last = {"images": None, "table": None}

    def features_of(images: np.ndarray) -> np.ndarray:
        """The features of these windows, once for all kinds."""
        if last["images"] is not images:
            last.update(images=images, table=baselines.features(images, distances))
        return last["table"]

    return {
        kind: lambda images, views, model=model: baselines.answers(model, features_of(images))
        for kind, model in models.items()
    }


def confusions(answerers: dict[str, Answerer], sample: Sample, seed: int, airy=False) -> dict[str, np.ndarray]:
    """Confusion matrices of each answerer, int64 (S, T, K, K), truth in rows."""
    shape = (len(PSF_PX), len(THRESHOLD_NAMES), len(CLASS_NAMES), len(CLASS_NAMES))
    counts = {name: np.zeros(shape, np.int64) for name in answerers}
    for s, t in np.ndindex(shape[:2]):
        for first in range(0, len(sample.images), _BATCH):
            part = sample.of(slice(first, first + _BATCH))
            views = views_of(len(part.images), PSF_PX[s], t, airy=airy)
            seen = look(part.images, views, seed, 0, np.arange(len(part.images)))
            for name, answer in answerers.items():
                np.add.at(counts[name][s, t], (part.label, answer(seen, views)), 1)
    return counts


def balanced(counts: np.ndarray, merge: np.ndarray | None = None) -> np.ndarray:
    """Mean over the classes of the share of right answers, of confusions (..., K, K); `merge` (K,) joins classes."""
    if merge is not None:
        groups = np.unique(merge)
        onto = (merge[:, None] == groups).astype(np.int64)
        counts = np.einsum("...ij,ia,jb->...ab", counts, onto, onto)
    truth = counts.sum(-1)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.nanmean(np.where(truth > 0, right / truth, np.nan), axis=-1)
