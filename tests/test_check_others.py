"""`hamscope check` on results files and bundles: good as written, each hostile kind refused in one line."""

import os
import shutil
import zlib

import h5py
import pytest
from bundles import small_bundle
from checked import deep, fletcher32, refused
from synthetic import film

from hamscope import check, child
from hamscope.data import results
from hamscope.errors import ContractError


def test_results_are_checked_too(tmp_path):
    """Good as written; refused with a link in place of a map, a cycle, a value that is no class, another content."""

    def spoilt(name, make):
        path = tmp_path / f"{name}.h5"
        results.write_results(path, film("a.tif", 3))
        with h5py.File(path, "a") as file:
            make(file)
        return path

    def link(file):
        del file["maps/000001/class"]
        file["maps/000001/class"] = h5py.ExternalLink("secret.h5", "class")

    def cycle(file):
        del file["maps/000002"]
        file["maps/000002"] = file["maps"]

    def bad_class(file):
        file["maps/000001/class"][0, 0] = 9

    def bad_share(file):
        file["fractions"][1, 1] = 1.5

    def bad_probability(file):
        file["probabilities"][1, 1] = -0.5

    def bad_half(file):
        file["parameter_half68"][1, 1] = -1

    def bad_adaptive(file):
        file["adaptive"][1] = 2

    def bomb(file):
        data = zlib.compress(bytes(2**28))
        data += fletcher32(data).to_bytes(4, "little")
        file["maps/000001/class"].id.write_direct_chunk((0, 0), data)

    (outcome,) = child.check([spoilt("good", lambda file: None)])
    assert outcome.verdict == "good" and "good: results, 3 frames" in outcome.lines[0]
    for make, reason in (
        (link, "maps/000001/class is an external link"), (cycle, "maps/000002 does not hold"),
        (bomb, "does not inflate to exactly"), (deep_maps, "maps does not hold one group a row"),
    ):  # fmt: skip
        refused(spoilt(make.__name__, make), reason)
    for make in (link, cycle, deep_maps):
        with pytest.raises(ContractError):
            results.read_results(tmp_path / f"{make.__name__}.h5")
    for make, reason in ((bad_class, "is not one of"), (bad_share, "a share is not between"),
                         (bad_probability, "probabilities: a share"), (bad_half, "half68: is below 0"),
                         (bad_adaptive, "adaptive: is neither")):  # fmt: skip
        found, _ = check.check_file(spoilt(make.__name__, make))
        assert any(reason in line for line in found) and any("content_sha256" in line for line in found)


def deep_maps(file):
    del file["maps/000002"]
    deep(file["maps"], "x", None)


def test_bundles_are_checked_too(tmp_path):
    """Good as written; sizes, links and absurd cards are refused before anything is loaded."""
    whole = small_bundle(tmp_path / "bundle")
    (outcome,) = child.check([whole])
    assert outcome.verdict == "good" and "good: bundle, windows of 16 x 16" in outcome.lines[0]

    def spoilt(name, make):
        folder = shutil.copytree(whole, tmp_path / name)
        make(folder)
        return folder

    def outside(folder):
        (folder / "weights.safetensors").unlink()
        (folder / "weights.safetensors").symlink_to(whole / "weights.safetensors")

    def sparse(folder):
        os.truncate(folder / "clouds.safetensors", 2**40)

    def header(folder):
        (folder / "clouds.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")

    def statistics(folder):
        (folder / "statistics.safetensors").unlink()

    def deep_card(folder):
        (folder / "bundle.json").write_text("[" * 100_000)

    def huge_card(folder):
        os.truncate(folder / "bundle.json", 2**40)

    def huge_network(folder):
        text = (folder / "bundle.json").read_text()
        (folder / "bundle.json").write_text(text.replace('"hidden": 16', f'"hidden": {10**30}'))

    def fifo(folder):
        (folder / "bundle.json").unlink()
        os.mkfifo(folder / "bundle.json")

    for make, reason in (
        (outside, "is no regular file"), (sparse, "at most"), (header, "declares a header"),
        (statistics, "is no bundle (statistics.safetensors"),
        (deep_card, "is not a bundle's card"), (huge_card, "at most"), (fifo, "is no regular file"),
        (huge_network, "are not of one network"),
    ):  # fmt: skip
        refused(spoilt(make.__name__, make), reason)
