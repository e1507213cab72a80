"""Words of 64 lattices as bitmaps of one lattice, against numpy's packed bits."""

import numpy as np
import pytest

from hamscope.sim.bitmaps import empty_bitmaps, row_words, to_bitmaps, to_words


@pytest.mark.parametrize("n_lattices", [64, 33, 1])
@pytest.mark.parametrize("shape", [(4, 3, 100), (3, 5, 64), (2, 1, 1), (3, 2, 130), (7, 6, 63)])
def test_bitmaps_are_the_bits_of_one_lattice(shape, n_lattices):
    """Every bitmap is its lattice in packed bits, rows filled up with zeros; back in words nothing is changed.

    Seen to fail with bits left behind the end of a row, and with one block of a group written for all of them.
    """
    words = np.random.default_rng(1).integers(0, 2**64, shape, np.uint64) >> np.uint64(64 - n_lattices)
    maps = empty_bitmaps(1, n_lattices, shape)[0]
    to_bitmaps(maps, words)
    used = shape[0] * shape[1] * row_words(shape[2])
    for bit in range(n_lattices):
        sites = np.zeros((*shape[:2], 64 * row_words(shape[2])), np.uint8)
        sites[..., : shape[2]] = words >> np.uint64(bit) & np.uint64(1)
        packed = np.packbits(sites, bitorder="little").view("<u8")
        np.testing.assert_array_equal(maps[bit, :used], packed)
    back = np.full(shape, 7, np.uint64)
    to_words(back, maps)
    np.testing.assert_array_equal(back, words)
