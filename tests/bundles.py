"""A small real bundle for tests: a network with random weights that puts patterns into all seven classes."""

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from hamscope.data.symmetry import reduce
from hamscope.learn.bundle import read_bundle, write_bundle
from hamscope.learn.network import PaperNet, predict

WINDOW = 16


def blobs(shape: tuple[int, ...], seed: int, sigma: float = 1.5) -> np.ndarray:
    """Two-level images of `shape` (..., H, W): smoothed noise, uint8, half of the pixels up on average."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0,) * (len(shape) - 2) + (sigma, sigma), mode="wrap")
    return (smooth > 0).astype(np.uint8)


def small_bundle(folder: Path, seed: int = 1) -> Path:
    """Write a bundle of windows of 16 x 16.

    The last biases are set so that every output has mean 0 over smooth patterns: random weights alone give one class
    to all.  The cloud of each class is the logits of the patterns that the network puts there.
    """
    torch.manual_seed(seed)
    network = PaperNet(WINDOW, "valid", filters=(4, 8), hidden=16).eval()
    images = reduce(
        np.concatenate([blobs((300, WINDOW, WINDOW), k, sigma) for k, sigma in enumerate((0.4, 0.8, 1.5, 3))])
    )
    with torch.no_grad():
        network.full2.weight *= torch.from_numpy(1 / predict(network, images).std(0))[:, None]
        network.full2.bias -= torch.from_numpy(predict(network, images).mean(0))
    logits = predict(network, images)
    best = logits.argmax(1)
    card = {"instrument": {"summary": "none: sharp simulated images"}, "metrics": {"accuracy": 0.5}}
    write_bundle(folder, network, [logits[best == k][:60] for k in range(7)], {}, card)
    assert min(map(len, read_bundle(folder).clouds.points)) > 2
    return folder
