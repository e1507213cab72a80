"""`hamscope assess` on small bundles: the page is written, and its numbers are those of counting by hand."""

import json

import numpy as np
import pytest
from bundles import WINDOW, bundle_of, make_slices

from hamscope.assess import blur
from hamscope.assess.page import write_assessment
from hamscope.assess.sample import load
from hamscope.data import slices
from hamscope.data.symmetry import prepare
from hamscope.errors import UserError
from hamscope.learn.bundle import read_bundle
from hamscope.learn.network import predict


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assess")
    return {
        "own": make_slices(folder / "own.h5", WINDOW), "larger": make_slices(folder / "larger.h5", 2 * WINDOW + 3),
        "invariant": bundle_of(folder / "invariant", "invariant"), "paper": bundle_of(folder / "paper", "paper"),
    }  # fmt: skip


def test_larger_slices_are_cut_into_windows_side_by_side(data):
    """Four windows of each slice of 35 x 35, in place; seen to fail with rows and columns of the cut exchanged."""
    sample = load(data["larger"], WINDOW, 10**6)
    whole = slices.read_slices(data["larger"]).images
    assert len(sample.images) == 4 * len(whole)
    np.testing.assert_array_equal(sample.images[1], whole[0, :WINDOW, WINDOW : 2 * WINDOW])
    np.testing.assert_array_equal(sample.images[2], whole[0, WINDOW : 2 * WINDOW, :WINDOW])
    with pytest.raises(UserError, match="slices of 16 pixels a side, the bundle needs 20; simulate larger ones"):
        load(data["own"], 20, 5)


def test_balanced_accuracy_counts_every_class_alike():
    """By hand; classes without windows are left out, and merged classes count as one."""
    counts = np.zeros((7, 7), int)
    counts[0, 0], counts[0, 1], counts[4, 6], counts[4, 4] = 9, 1, 3, 1
    assert blur.balanced(counts) == pytest.approx((0.9 + 0.25) / 2)
    assert blur.balanced(counts, blur.MERGED) == pytest.approx((0.9 + 1.0) / 2)


def test_the_page_and_its_numbers(data, tmp_path):
    """The sharp confusion is that of asking the network window by window; every part of the page is there."""
    page = write_assessment(
        [str(data["invariant"]), str(data["paper"])], str(data["own"]), tmp_path / "out", str(data["own"]),
        str(data["larger"]), images=16, series=("P-2D p",), families=("stripes", "droplets"),
    )  # fmt: skip
    found = json.loads((tmp_path / "out" / "assess.json").read_text())
    sample = load(data["own"], WINDOW, 16)
    for name in ("invariant", "paper"):
        bundle = read_bundle(data[name])
        counts = np.zeros((7, 7), int)
        for image, label in zip(sample.images, sample.label):
            window = prepare(image[None], bundle.network.arguments["symmetry"])
            counts[label, predict(bundle.network, window).argmax()] += 1
        assert found["bundles"][name]["sharp"]["confusion"] == counts.tolist()
        # At width 0 and the fixed threshold a microscope changes nothing.
        assert found["blur"]["confusions"][name][0][0] == counts.tolist()
        assert set(found["surface"][name]) == {"C-3D"}
        assert len(found["rejection"][name]["families"]) == 2
    assert (
        "invariant, width told" in found["blur"]["confusions"]
        and "paper, width told" not in found["blur"]["confusions"]
    )
    text = page.read_text()
    assert all(title in text for title in ("Accuracy against blur, median threshold", "Surfaces and interior", "AUROC"))
