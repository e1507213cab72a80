"""Symmetry reduction: of the 16 images of a pattern under Z2 x D4, always the same one.

Section III A and Fig. 3 of [1]_: the majority is up; quadrant I has the most up; quadrant II has no less up than
quadrant IV.  Row 0 is on top, so quadrant I is the top right, II the top left, III the bottom left, IV the bottom
right, and the reflection about the line y = x that exchanges II and IV is the *anti*-transpose: `np.transpose` would
exchange I and III.

The rules leave one image, unless just half of the sites are up or two quadrants are equal.  Then the
lexicographically largest of the images left is taken (row by row, from the top left).  All 16 images of a pattern
leave the same ones, hence reduce to the same.  For odd L the middle row and column belong to no quadrant; they count
for the majority and for the lexicographic order.

Shape letters: N = images; L = side of an image.

References
----------
.. [1] Basak et al. (2022), doi:10.48550/arXiv.2211.01490.
"""

from functools import cache

import numpy as np
from numba import njit

from hamscope.data.windows import window_sums

_QUADRANTS = np.array([[1, 0], [2, 3]])  # where I, II, III, IV (as 0, 1, 2, 3) lie, row 0 on top


def reduce(images: np.ndarray) -> np.ndarray:
    """The reduced form of every image; the same for all 16 images of a pattern.

    Parameters
    ----------
    images : ndarray, shape (N, L, L), L >= 2, uint8 or bool
        Spins, 1 = up, 0 = down.  Left as they are.

    Returns
    -------
    ndarray, shape (N, L, L), uint8

    Raises
    ------
    ValueError
        Another shape or type, or other values than 0 and 1.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] < 2:
        raise ValueError(f"images of shape {images.shape}: the reduction needs squares, (N, L, L) with L >= 2")
    if images.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"images of {images.dtype}: the reduction needs uint8 or bool, 1 = up")
    images = np.ascontiguousarray(images).view(np.uint8)
    if images.size and images.max() > 1:
        raise ValueError(f"images with the value {images.max()}: the reduction needs 0 and 1")
    side = images.shape[1]
    flat = images.reshape(len(images), side * side)
    return _reduce(flat, side, *_dihedral_tables(side, side)).reshape(images.shape)


def elements(image: np.ndarray, window: int, stride: int, symmetry: str) -> np.ndarray:
    """Which of the 16 operations `prepare` applies to each window of a frame, without a window being cut.

    The counts of all windows and of their quadrants come from one table of sums.  Only where these leave more than one
    operation are pixels compared.

    Parameters
    ----------
    image : ndarray, shape (H, W), uint8
        Spins, 1 = up, 0 = down.
    window, stride : int
        Side of the windows, and the step between them, in pixels.
    symmetry : {"reduced", "majority", "augmented"}
        As for `prepare`.

    Returns
    -------
    ndarray, shape (R, C), uint8
        flip * 8 + g: the spins are flipped, and `form` turns the square by g in 0..7.  With "majority", g is 0.
    """
    image = np.ascontiguousarray(image)
    rows, columns = ((length - window) // stride + 1 for length in image.shape)
    if symmetry == "augmented":
        return np.zeros((rows, columns), np.uint8)
    sums = np.zeros((image.shape[0] + 1, image.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(image, 0, np.int64), 1, out=sums[1:, 1:])
    turned = symmetry == "reduced"
    tables = _dihedral_tables(window, image.shape[1])
    return _elements(image.reshape(-1), image.shape[1], sums, window, stride, rows, columns, turned, *tables)


def form(image: np.ndarray, g: int) -> np.ndarray:
    """The image (..., L, L) under g in 0..7, a view: g // 2 quarter turns, and odd g transposed."""
    turned = np.rot90(image, g // 2, (-2, -1))
    return np.swapaxes(turned, -1, -2) if g % 2 else turned


def majority_up(images: np.ndarray) -> np.ndarray:
    """Images (N, L, L) uint8 with the spins flipped where fewer than half are up.

    Where just half of them are, either may be up: the choice is that of `reduce`, the same for all 16 images.
    """
    turned = images ^ majority_is_down(images).astype(np.uint8)[:, None, None]
    ties = 2 * images.sum((1, 2), dtype=np.int64) == images.shape[1] * images.shape[2]
    if ties.any():
        turned[ties] = reduce(images[ties])
    return turned


def majority_is_down(images: np.ndarray) -> np.ndarray:
    """Which of the images (N, L, L) have fewer than half of their spins up, bool (N,)."""
    return 2 * images.sum((1, 2), dtype=np.int64) < images.shape[1] * images.shape[2]


def majority_down(image: np.ndarray, window: int, stride: int) -> np.ndarray:
    """`majority_is_down` of every window of a frame (H, W), bool (R, C)."""
    return 2 * window_sums(image, window, stride) < window * window


def augment(images: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """Each of the images (N, L, L) uint8 under one of the 16 operations, `elements` (N,) in 0..15."""
    turned = np.empty_like(images)
    for out, image, element in zip(turned, images, elements):
        forms = np.rot90(image, element % 4)
        out[:] = (forms.T if element & 4 else forms) ^ (element >> 3 & 1)
    return turned


def prepare(images: np.ndarray, symmetry: str) -> np.ndarray:
    """Windows (N, L, L) uint8 as a network takes them that was trained with this `symmetry`.

    "reduced": one of the 16 forms (`reduce`); "majority": the majority up, for a network that does not see the 8 others
    apart; "augmented": as they are, for a network that was trained on all 16 forms.
    """
    return {"reduced": reduce, "majority": majority_up, "augmented": lambda same: same}[symmetry](images)


def _dihedral_images(image: np.ndarray):
    """The 8 images of a square under D4.  Any reflection generates them; the rules pick among all 8."""
    return (form(image, g) for g in range(8))


@cache
def _dihedral_tables(side: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What each element of D4 does: to pixels, as flat index = start + row * step + column * step; to quadrants.

    Both int64: (8, 3) start and steps in a frame of `width` pixels a row, and (8, 4) the quadrant that comes to lie in
    I, II, III, IV.
    """
    flat = np.arange(side)[:, None] * width + np.arange(side)
    pixels = [(g[0, 0], g[1, 0] - g[0, 0], g[0, 1] - g[0, 0]) for g in _dihedral_images(flat)]
    quadrants = [(g[0, 1], g[0, 0], g[1, 0], g[1, 1]) for g in _dihedral_images(_QUADRANTS)]
    return np.array(pixels, np.int64), np.array(quadrants, np.int64)


@njit(cache=True)
def _reduce(images, side, pixels, quadrants):
    """`reduce` of flat images (N, L * L)."""
    reduced = np.empty_like(images)
    ups = np.empty(4, np.int64)
    for n in range(len(images)):
        image = images[n]
        total = _count(image, side, ups)
        g, flip = _choose(image, side, total, ups, pixels, quadrants)
        _write(image, side, pixels[g], flip, reduced[n])
    return reduced


@njit(cache=True, nogil=True)
def _elements(flat, width, sums, side, stride, rows, columns, turned, pixels, quadrants):
    """`elements` of a flat frame; `sums` is its table of sums."""
    found = np.empty((rows, columns), np.uint8)
    ups = np.empty(4, np.int64)
    half = side // 2
    for row in range(rows):
        for column in range(columns):
            y, x = row * stride, column * stride
            total = _box(sums, y, x, side, side)
            if not turned and 2 * total != side * side:
                found[row, column] = 8 * (2 * total < side * side)
                continue
            ups[0] = _box(sums, y, x + side - half, half, half)
            ups[1] = _box(sums, y, x, half, half)
            ups[2] = _box(sums, y + side - half, x, half, half)
            ups[3] = _box(sums, y + side - half, x + side - half, half, half)
            g, flip = _choose(flat[y * width + x :], side, total, ups, pixels, quadrants)
            found[row, column] = 8 * flip + (g if turned else 0)
    return found


@njit(cache=True)
def _box(sums, y, x, height, width):
    """What is up in a rectangle."""
    return sums[y + height, x + width] - sums[y, x + width] - sums[y + height, x] + sums[y, x]


@njit(cache=True)
def _choose(image, side, total, ups, pixels, quadrants):
    """The operation that reduces an image, as (g, flip); `total` of its pixels are up, and `ups` of each quadrant."""
    best, best_flip = -1, 0
    for flip in range(2):
        majority = side * side - total if flip else total
        if 2 * majority < side * side:
            continue
        for g in range(8):
            if _quadrants_fit(ups, quadrants[g], flip) and (
                best < 0 or _larger(image, side, pixels[g], flip, pixels[best], best_flip)
            ):
                best, best_flip = g, flip
    return best, best_flip


@njit(cache=True)
def _count(image, side, ups):
    """Count what is up, in all and in each quadrant (into `ups`)."""
    half = side // 2
    total = 0
    ups[:] = 0
    for row in range(side):
        left = right = 0
        line = image[row * side : (row + 1) * side]
        for column in range(half):
            left += line[column]
        for column in range(side - half, side):
            right += line[column]
        total += left + right + (line[half] if side % 2 else 0)
        if row < half:
            ups[0] += right
            ups[1] += left
        elif row >= side - half:
            ups[2] += left
            ups[3] += right
    return total


@njit(cache=True)
def _quadrants_fit(ups, quadrant, flip):
    """Whether I has the most up and II no less than IV; flipped spins turn the counts of equal areas around."""
    sign = -1 if flip else 1
    first, second = sign * ups[quadrant[0]], sign * ups[quadrant[1]]
    third, fourth = sign * ups[quadrant[2]], sign * ups[quadrant[3]]
    return first >= max(second, third) and second >= fourth


@njit(cache=True)
def _larger(image, side, g, flip, other, other_flip):
    """Whether one image of the pattern comes after another in lexicographic order."""
    for row in range(side):
        for column in range(side):
            here = image[g[0] + row * g[1] + column * g[2]] ^ flip
            there = image[other[0] + row * other[1] + column * other[2]] ^ other_flip
            if here != there:
                return here > there
    return False


@njit(cache=True)
def _write(image, side, g, flip, out):
    """One image of the pattern."""
    for row in range(side):
        for column in range(side):
            out[row * side + column] = image[g[0] + row * g[1] + column * g[2]] ^ flip
