"""What is said of a frame block by block, against the whole frame at once."""

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from hamscope.data import levels
from hamscope.data.levels import frame_levels, read_levels, spins, write_levels
from hamscope.data.windows import binarize, has_two_levels, majority
from hamscope.errors import FrameError

RNG = np.random.default_rng(8)
NOISE = 200 * (RNG.random((61, 53)) < 0.4) + RNG.normal(100, 30, (61, 53))
FRAMES = {
    "u1": NOISE.clip(0, 255).astype("u1"), "u2": (130 * NOISE).clip(0, 65535).astype("u2"),
    "i2": (90 * NOISE - 9000).astype("i2"), "i4": (1e5 * NOISE).astype("i4"), "f4": NOISE.astype("f4"),
    "negative": (NOISE - 180).astype("f4"), "even": NOISE[:60].astype("f4"),
    "white": np.minimum(NOISE, 90).astype("f4"),
    "01": NOISE > 200, "0 255": 255 * (NOISE > 200).astype("u1"), "uniform": np.full((61, 53), 7, "u1"),
    "0 1 255": np.where(np.arange(61)[:, None] < 32, NOISE > 200, 255 * (NOISE > 200)).astype("f4"),
}  # fmt: skip


@pytest.mark.parametrize("threshold", ["otsu", "median", 111.3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", FRAMES)
def test_blocks_say_what_the_whole_frame_says(tmp_path, monkeypatch, name, masked, threshold):
    """Bit for bit, over every stored type: the pixels that are up, range, preview and share; and from the file.

    Blocks have 8 rows, some of them all masked.  Seen to fail with masked pixels counted in the histogram or in the
    share, with blocks that cut those of the preview, with the upper of the two pixels in the middle for the median,
    with a median that is never inclusive, with negative numbers in the wrong order, and with blocks of 0 and 1 and of
    0 and 255 called two levels.
    """
    monkeypatch.setattr(levels, "BLOCK_PIXELS", 8 * 53)
    grey, mask = FRAMES[name], np.zeros(FRAMES[name].shape, bool)
    mask[8:16], mask[:, :5] = masked, masked
    sample, whole = ~mask, grey.astype(np.float32)
    expected = np.zeros(grey.shape, np.uint8)
    for up in ("bright", "dark"):
        expected[sample] = binarize(whole[sample], threshold, up)

        def rows(start, stop):
            return grey[start:stop], mask[start:stop] if masked else None

        write_levels(tmp_path / "k.levels", frame_levels(grey.shape, rows, threshold, up, 20))
        found = read_levels(tmp_path / "k.levels")
        np.testing.assert_array_equal(spins(grey, found.threshold, up, mask), expected)
        np.testing.assert_array_equal(found.grey_range, [whole[sample].min(), whole[sample].max()])
        np.testing.assert_array_equal(found.preview, majority(expected, -(-len(grey) // 20), mask))
        if threshold != 111.3 and not has_two_levels(whole[sample]):
            exact = {"otsu": threshold_otsu, "median": np.median}[threshold](whole[sample])
            assert found.threshold.value == exact and found.threshold.value.dtype == np.float32
        assert found.up_fraction == expected[sample].mean()
        assert found.adaptive == (isinstance(threshold, str) and not has_two_levels(whole[sample]))


def test_a_frame_that_is_all_masked():
    """One line says so."""
    with pytest.raises(FrameError, match="every pixel is masked"):
        frame_levels((4, 4), lambda a, b: (np.zeros((b - a, 4)), np.ones((b - a, 4), bool)), "otsu", "bright", 4)
