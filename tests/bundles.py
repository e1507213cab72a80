"""A small real bundle for tests: a network with random weights that puts patterns into all classes; and slices."""

import json
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from synthetic_slices import write_plain

from hamscope.config import Train
from hamscope.data.symmetry import prepare
from hamscope.learn import trust
from hamscope.learn.bundle import CARD, read_bundle, write_bundle
from hamscope.learn.network import InvariantNet, PaperNet, outputs

WINDOW = 16
SHARP = {"summary": "none: sharp simulated images", "psf_px": [0.0, 0.0], "noise": [0.0, 0.0]}
SEEN = {"summary": "point-spread function of 0 to 3 px", "psf_px": [0.0, 3.0], "noise": [0.0, 0.2]}
PSF_PX = (0.0, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0)
KINDS = {0: 0.5, 1: 0.8, 2: 1.5, 4: 0.0, 6: 0.0}  # class and smoothness of slices
LINE = {"epoch": 1, "seconds": 1.0, "images_per_second": 10.0, "validation_accuracy": 0.5}


def blobs(shape: tuple[int, ...], seed: int, sigma: float = 1.5) -> np.ndarray:
    """Two-level images of `shape` (..., H, W): smoothed noise, uint8, half of the pixels up on average."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0,) * (len(shape) - 2) + (sigma, sigma), mode="wrap")
    return (smooth > 0).astype(np.uint8)


def measured(logits: np.ndarray, hidden: np.ndarray, instrument: dict = SHARP) -> tuple[dict, dict]:
    """Statistics and card of images (N, ...) that are taken to be of the class that the network says, mostly.

    Every tenth label is moved on by one, so that there are mistakes; the parameter is a hidden unit with some noise.
    """
    rng = np.random.default_rng(3)
    labels = logits.argmax(1)
    labels[::10] = (labels[::10] + 1) % 7
    values = 1 + 0.1 * hidden.mean(1) + 0.01 * rng.normal(size=len(hidden))
    known = trust.Images(labels, values, rng.random(len(labels)) < 0.3, rng.integers(0, 40, len(labels)))
    statistics, card = trust.measure(logits, hidden, known, len(logits) // 2)
    counts = np.full((len(PSF_PX), 3, 2, 7, 7), 1, np.int32)
    counts[:3, :, :, range(7), range(7)] = 200
    statistics["resolution"] = counts
    return statistics, card | {
        "instrument": instrument, "resolution": {"psf_px": list(PSF_PX)},
        "metrics": card["metrics"] | {"accuracy": 0.5},
    }  # fmt: skip


def small_bundle(folder: Path, seed: int = 1, kind: str = "paper") -> Path:
    """Write a bundle of windows of 16 x 16; its network is that of the paper, or "invariant" and asks for a condition.

    The last biases are set so that every output has mean 0 over smooth patterns: random weights alone give one class
    to all.  The cloud of each class is the logits of the patterns that the network puts there.
    """
    torch.manual_seed(seed)
    if kind == "paper":
        network, instrument = PaperNet(WINDOW, "valid", filters=(4, 8), hidden=16).eval(), SHARP
    else:
        network, instrument = InvariantNet(WINDOW, filters=(4, 6), hidden=16).eval(), SEEN
    images = np.concatenate([blobs((300, WINDOW, WINDOW), k, sigma) for k, sigma in enumerate((0.4, 0.8, 1.5, 3))])
    images = prepare(images, network.arguments["symmetry"])
    network.standardise(torch.from_numpy(images))
    with torch.no_grad():
        network.full2.weight *= torch.from_numpy(1 / outputs(network, images).logits.std(0))[:, None]
        network.full2.bias -= torch.from_numpy(outputs(network, images).logits.mean(0))
    order = np.random.default_rng(seed).permutation(len(images))
    said = outputs(network, images[order])
    logits = outputs(network, images).logits
    best = logits.argmax(1)
    statistics, card = measured(said.logits, said.hidden, instrument)
    write_bundle(folder, network, [logits[best == k][:60] for k in range(7)], statistics, card)
    assert min(map(len, read_bundle(folder).clouds.points)) > 2
    return folder


def make_slices(path: Path, side: int, lattices: int = 12, seed: int = 0, kinds=KINDS, each: int = 2) -> Path:
    """A complete file of blobs, `each` slices a lattice; every second one of C-3D is a surface."""
    images, label = [], []
    for k, sigma in kinds.items():
        own = blobs((each * lattices, side, side), 10 * seed + k, sigma)
        images.append(own)
        label += [k] * len(own)
    images = np.concatenate(images)
    lattice = np.tile(np.repeat(np.arange(lattices), each), len(kinds))
    surface = (np.array(label) == 1) & (np.arange(len(images)) % 2 == 0)
    return write_plain(
        path, images, model=label, lattice=lattice, parameter=0.5 + 0.01 * lattice, plane_surface=surface
    )


def bundle_of(folder: Path, kind: str) -> Path:
    """A small bundle with what training would have left in it."""
    small_bundle(folder, kind=kind)
    card = json.loads((folder / CARD).read_text())
    section = Train(seed=1, epochs=1, network=kind, instrument={} if kind == "invariant" else None)
    card["training"] = section.model_dump(mode="json")
    (folder / CARD).write_text(json.dumps(card))
    (folder / "log.jsonl").write_text(json.dumps(LINE) + "\n")
    return folder
