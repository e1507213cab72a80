"""The bundle: what was written is read back, and nothing that was changed on the way."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from bundles import measured
from safetensors.torch import load_file, save_file

from hamscope.errors import ContractError
from hamscope.learn.bundle import read_bundle, read_card, write_bundle
from hamscope.learn.network import PaperNet, predict
from hamscope.models import CLASS_NAMES
from hamscope.provenance import sha256_file


def trusted(accuracy: float = 0.5) -> tuple[dict, dict]:
    """Statistics for 8 hidden units, and a card with this accuracy."""
    rng = np.random.default_rng(4)
    statistics, card = measured(rng.normal(size=(400, 7)), rng.normal(size=(400, 8)))
    return statistics, card | {"metrics": {"accuracy": accuracy}}


@pytest.fixture
def bundle(tmp_path):
    """A small bundle on the disk, and the network in it."""
    torch.manual_seed(0)
    network = PaperNet(16, filters=(4, 4), hidden=8).eval()
    clouds = [np.random.default_rng(k).normal(size=(5 + k, 7)).astype(np.float32) for k in range(7)]
    path = write_bundle(tmp_path / "bundle", network, clouds, *trusted())
    return path, network, clouds


def test_a_bundle_is_read_back(bundle, tmp_path):
    """Logits, clouds, card; dropout off.  Seen to fail with clouds in another order, and in training mode."""
    path, network, clouds = bundle
    read = read_bundle(path)
    images = np.random.default_rng(0).integers(0, 2, (3, 16, 16), np.uint8)
    np.testing.assert_array_equal(predict(read.network, images), predict(network, images))
    for points, cloud in zip(read.clouds.points, clouds):
        np.testing.assert_array_equal(points, cloud)
    assert read.window == 16 and read.essentials["accuracy"] == 0.5
    assert not read.network.training
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_writing_again_replaces_the_whole_bundle(bundle, tmp_path):
    """And an error on the way leaves the old one, and nothing else; seen to fail with the temporary folder left."""
    path, network, clouds = bundle
    before = read_bundle(path).sha256

    def failing(_):
        raise OSError("disk full")

    with pytest.raises(OSError):
        write_bundle(path, network, clouds, *trusted(0.9), failing)
    assert read_bundle(path).sha256 == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    write_bundle(path, network, clouds, *trusted(0.9))
    assert read_bundle(path).essentials["accuracy"] == 0.9
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def refused(path, reason):
    with pytest.raises(ContractError, match=reason) as caught:
        read_bundle(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def change_card(path, **values):
    card = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps(card | values))


def test_bundles_that_are_not_what_they_say_are_refused(bundle):
    """A folder that is none, a damaged file, another network, another order of classes, weights that are not numbers.

    Seen to fail with hashes not compared, with classes compared as sets, and with weights not asked to be finite.
    """
    path, network, _ = bundle
    refused(path.parent, "is no bundle")
    copies = {
        name: shutil.copytree(path, path.with_name(name)) for name in ("hash", "net", "classes", "nan", "json", "gone")
    }
    weights = copies["hash"] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    refused(copies["hash"], "does not agree with its hash")
    change_card(copies["net"], network=network.arguments | {"hidden": 9})
    refused(copies["net"], "not of one network")
    change_card(copies["classes"], classes=list(reversed(CLASS_NAMES)))
    refused(copies["classes"], "its classes are")
    state = load_file(copies["nan"] / "weights.safetensors")
    state["full2.bias"][3] = float("nan")
    save_file(state, copies["nan"] / "weights.safetensors")
    hashes = json.loads((copies["nan"] / "bundle.json").read_text())["sha256"]
    change_card(
        copies["nan"], sha256=hashes | {"weights.safetensors": sha256_file(copies["nan"] / "weights.safetensors")}
    )
    refused(copies["nan"], "not finite")
    (copies["json"] / "bundle.json").write_text("{")
    refused(copies["json"], "not a bundle's card")
    (copies["gone"] / "clouds.safetensors").unlink()
    refused(copies["gone"], "clouds.safetensors is missing")


@pytest.mark.parametrize(
    "change",
    [
        {"network": "x"},
        {"network": [1]},
        {"metrics": {}},
        {"sha256": ["a"]},
        {"instrument": None, "metrics": {"accuracy": "good"}},
    ],
)
def test_a_card_that_lacks_what_others_need_is_refused(bundle, change):
    """In one line, and by `read_card` already; seen to fail (AttributeError) with the lookups outside the `try`."""
    change_card(bundle[0], **change)
    with pytest.raises(ContractError, match="not a bundle's card"):
        read_card(bundle[0])
    refused(bundle[0], "not a bundle's card")


@pytest.mark.parametrize(
    "change",
    [{"padding": "round"}, {"filters": []}, {"hidden": -1}, {"hidden": 10**13}, {"window": "a"}, {"width": 3}],
)
def test_a_card_of_an_impossible_network_is_refused(bundle, change):
    """In one line, whatever size the card claims.

    Seen to fail with ValueError or IndexError let through.
    """
    path, network, _ = bundle
    change_card(path, network=network.arguments | change)
    refused(path, "not of one network")


def test_a_bundle_can_be_passed_on(bundle):
    """Whoever may read the folder may read all of it; seen to fail with save_file of safetensors, which gives 0600."""
    mask = os.umask(0)
    os.umask(mask)
    for path in bundle[0].iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path.name


def test_the_card_alone_is_cheap_and_checked(bundle):
    path, _, _ = bundle
    assert read_card(path)["network"]["window"] == 16
    change_card(path, schema_version=9)
    with pytest.raises(ContractError, match="schema"):
        read_card(path)
