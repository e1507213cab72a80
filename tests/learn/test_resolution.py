"""Confusions by resolution: counted right for networks whose answers are known."""

import numpy as np
import pytest
import torch
from bundles import blobs

from hamscope.config import Train
from hamscope.data.instrument import spread
from hamscope.data.symmetry import majority_up
from hamscope.data.windows import binarize
from hamscope.learn.resolution import PSF_PX, confusions, summary
from hamscope.learn.training import Source


class Known(torch.nn.Module):
    """Answers by what it is told and by the number of walls in the window; not a network that was trained."""

    arguments = {"classes": 7}  # noqa: RUF012
    conditioned = True

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.full2 = torch.nn.Identity()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def features(self, images, condition=None):
        return torch.nn.functional.one_hot(self.answer(images, condition).long(), 7).float()


@pytest.fixture
def source():
    """Twelve images of 24 x 24 of walls of many lengths."""
    images = np.concatenate([blobs((4, 24, 24), seed, sigma) for seed, sigma in enumerate((0.4, 1.0, 2.0))])
    return Source(images, Train(seed=1, epochs=1), "majority")


def walls(images) -> np.ndarray:
    """Class 0 to 6 by the number of unequal neighbours along rows."""
    return np.minimum(np.abs(np.diff(np.asarray(images, int), axis=2)).sum((1, 2)) // 24, 6)


def test_every_image_is_seen_at_every_resolution(source):
    """The answers are those of the images blurred and thresholded here, one by one.  Truth is in rows.

    Seen to fail with truth and answer exchanged, with thresholds exchanged, and with the blur left out.
    """
    labels, numbers = np.arange(12) % 5, np.arange(12)[::-1]
    counts = confusions(Known(lambda images, _: torch.as_tensor(walls(images))), source, numbers, labels)
    assert counts.shape == (len(PSF_PX), 3, 2, 7, 7) and (counts.sum((3, 4)) == 12).all()
    for s, psf in enumerate(PSF_PX):
        for t, word in enumerate((0.5, "median", "otsu")):
            seen = [source.images[n] if psf == 0 else binarize(spread(source.images[n], psf, False), word, "bright")
                    for n in numbers]  # fmt: skip
            expected = np.zeros((7, 7), int)
            np.add.at(expected, (labels, walls(majority_up(np.stack(seen)))), 1)
            np.testing.assert_array_equal(counts[s, t, 0], expected)
            np.testing.assert_array_equal(counts[s, t, 1], expected)


def test_the_network_is_told_the_width_in_one_half_of_the_counts(source):
    """It answers 1 where it is told nothing, else 2 plus twice the width.  Seen to fail with both halves told."""
    network = Known(lambda _, known: torch.where(known[:, 0] == 0, 1.0, torch.floor(2 + known[:, 1])))
    counts = confusions(network, source, np.arange(3), np.full(3, 6))
    for s, psf in enumerate(PSF_PX):
        assert (counts[s, :, 0, 6, 1] == 3).all() and (counts[s, :, 1, 6, int(2 + psf)] == 3).all()


def test_the_summary_has_an_accuracy_a_width():
    """Three of four right where counts say so, under the name of the threshold and of what is told."""
    counts = np.zeros((len(PSF_PX), 3, 2, 7, 7), int)
    counts[:, :, :, 2, 2], counts[:, :, :, 2, 3] = 3, 1
    counts[4, 1, 1, 2, 2], counts[4, 1, 1, 2, 3] = 1, 3
    found = summary(counts)
    assert found["images"] == 4 and len(found) == 2 + 6 and found["psf_px"] == list(PSF_PX)
    assert found["fixed"] == [0.75] * len(PSF_PX)
    assert [k for k, x in enumerate(found["median, width told"]) if x != 0.75] == [4]
    assert found["median, width told"][4] == 0.25


def test_a_network_that_does_not_listen_is_asked_once(source):
    """Both halves of the counts are the same.  Seen to fail with the second half left empty."""
    asked = []
    network = Known(lambda images, _: torch.as_tensor(walls(images)))
    network.conditioned = False
    features = network.features
    network.features = lambda images, condition=None: asked.append(1) or features(images, condition)
    counts = confusions(network, source, np.arange(12), np.arange(12) % 5)
    assert len(asked) == len(PSF_PX) * 3
    np.testing.assert_array_equal(counts[:, :, 0], counts[:, :, 1])
