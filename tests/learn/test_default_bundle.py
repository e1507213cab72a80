"""The bundle that comes with hamscope: it reads, is small, keeps what its card says, and is of configs/default.toml."""

import json
from pathlib import Path

import numpy as np

from hamscope.config import load_config
from hamscope.data.symmetry import prepare
from hamscope.learn.bundle import default_bundle, read_bundle
from hamscope.learn.network import predict
from hamscope.sim import percolation, rng
from hamscope.sim.lattice import Lattice

ROOT = Path(__file__).parent.parent.parent


def test_it_is_of_the_shipped_config_and_small():
    """At most 10 MB; its training section is that of the config, key for key."""
    path = default_bundle()
    assert sum(file.stat().st_size for file in path.iterdir()) < 10e6
    bundle = read_bundle(path)
    section = load_config(ROOT / "configs" / "default.toml").train.model_dump(mode="json")
    assert bundle.card["training"] == section
    log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert (
        len(log) == section["epochs"]
        and abs(log[-1]["validation_accuracy"] - bundle.card["metrics"]["accuracy"]) < 1e-9
    )


def test_it_tells_densities_that_it_was_trained_on():
    """Fresh noise at the middle of each range of Table I is given to its class, 60 images each, all but two.

    Seen to fail with the images not prepared (P-3D has its majority down).
    """
    bundle = read_bundle(default_bundle())
    lattice = Lattice.of_dimension(2, 100)
    for k, p in ((4, 0.59), (5, 0.31), (6, 0.10)):
        images = np.stack([percolation.sites(lattice, p, rng.stream_key(5, k), n)[:, 0, :] for n in range(60)])
        answers = predict(bundle.network, prepare(images.astype(np.uint8), bundle.network.arguments["symmetry"]))
        assert (answers.argmax(1) == k).sum() >= 58
