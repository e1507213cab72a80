"""Which score tells windows that none of the seven models drew?  Foreign families against held-out windows.

For each score and each family: AUROC, and the share of the foreign windows that pass where 95 % of the own ones do.
Own and foreign windows go through the same random microscopes, so that blur is no telltale.
"""

import numpy as np

from hamscope.assess.foreign import FAMILIES
from hamscope.assess.sample import Sample, Seen, draw_views, see
from hamscope.learn import scores
from hamscope.learn.bundle import Bundle

Score = dict[str, np.ndarray]


def all_scores(bundle: Bundle, training: Seen, labels: np.ndarray, seen: Seen) -> Score:
    """Every score of the windows `seen`, each (N,); `training` are training windows, with their `labels`."""
    hidden = scores.fit_gauss(training.hidden, labels)
    background = scores.fit_background(training.hidden)
    each = scores.fit_each(training.logits, labels)
    return {
        "paper, componentwise": scores.cloud(bundle.clouds, seen.logits, "componentwise"),
        "paper, euclidean": scores.cloud(bundle.clouds, seen.logits, "euclidean"),
        "softmax": scores.max_softmax(seen.logits),
        "energy": scores.energy(seen.logits),
        "Mahalanobis, logits": scores.mahalanobis_each(each, seen.logits),
        "Mahalanobis, hidden": scores.mahalanobis(hidden, seen.hidden),
        "relative Mahalanobis, hidden": scores.relative_mahalanobis(hidden, background, seen.hidden),
        "neighbour, logits": scores.nearest(training.logits, seen.logits),
        "neighbour, hidden": scores.nearest_white(hidden, training.hidden, seen.hidden),
    }


def table(
    bundle: Bundle, training: Sample, own: Sample, families, count: int, seed: int, scans: dict | None = None
) -> dict:
    """AUROC and false acceptances: {"families": [...], "scores": {name: {"auroc": [...], "accepted": [...]}}}.

    Parameters
    ----------
    training, own : Sample
        Windows that the bundle was trained on, and others.
    families : sequence of str
        Of `foreign.FAMILIES`.
    count : int
        Windows of each foreign family.
    scans : dict of ndarray (n, L, L), optional
        Windows of real frames that are foreign, by name; they are shown as they are.

    Also "flag": for the two readings of the paper, whose threshold is 1, the shares of own and of foreign windows that
    are called confident.
    """
    learnt = see(bundle, training.images, draw_views(bundle, len(training.images), seed), seed)
    at_home = all_scores(bundle, learnt, training.label, _seen(bundle, own.images, seed + 1))
    drawn = {name: FAMILIES[name](seed, count, bundle.window) for name in families}
    found = {
        name: all_scores(bundle, learnt, training.label, _seen(bundle, images, seed + 2))
        for name, images in drawn.items()
    }
    for name, images in (scans or {}).items():
        found[name] = all_scores(bundle, learnt, training.label, see(bundle, images))
    report = {"families": list(found), "scores": {}, "flag": {}}
    for score, mine in at_home.items():
        pairs = [(scores.auroc(mine, own[score]), scores.accepted_at(mine, own[score])[1]) for own in found.values()]
        report["scores"][score] = {"auroc": [a for a, _ in pairs], "accepted": [b for _, b in pairs]}
        if score.startswith("paper"):
            foreign = [float((own[score] <= 1).mean()) for own in found.values()]
            report["flag"][score] = {"own": float((mine <= 1).mean()), "foreign": foreign}
    return report


def _seen(bundle: Bundle, images: np.ndarray, seed: int) -> Seen:
    return see(bundle, images, draw_views(bundle, len(images), seed), seed)
