"""Correlations of a two-level frame, averaged over all directions, and how far they reach.

    C(r) = < s(x) s(x + r) >,      G(r) = C(r) - m^2,      s = +1 (up) or -1 (down),      m = <s>,

the means over all pairs of pixels of the sample whose distance is r within half a pixel; no pair reaches round the
border or into the mask.  As m is that of the frame itself, G is too small by about the square of the error of m, and
ends below zero where a domain is as large as the frame.

Two lengths, both in pixels:

    efold    where G falls below G(0) / e, between two r by a straight line; of any pattern, model or not
    decay    xi of G(r) ~ r^(-1/2) exp(-r / xi), the law of Ornstein and Zernike in the plane, by a straight line
             through ln(r^(1/2) G) from r = efold (at least 2) to where G falls below G(0) / 20

The law holds far out only, so that xi comes out 5 to 10 % too long: of the Ising model on 256 x 256, mean of 16 frames,
3.5 (exact: 3.37) at T/J = 2.7, 6.5 (5.96) at 2.5 and 11 (10.2) at 2.4.

At a critical point G is a power law, and both measure the frame: a length of more than a sixth of its shorter side is
marked.  So is one of less than a pixel, which is that of noise.

Errors are those of the delete-a-block jackknife [1]_: the frame is cut into 3 x 3 blocks, and each is masked in turn.
They are too small where a domain is larger than a block, and known to a quarter of themselves (eight degrees).

Shape letters: H, W = sides of the frame; R = distances 0 ... r_max.

References
----------
.. [1] Kuensch, Ann. Stat. 17, 1217 (1989), doi:10.1214/aos/1176347265.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft

BLOCKS = 3
LONGEST = 1 / 6  # of the shorter side; a longer length is that of the frame
REACH = 1 / 4  # of the shorter side: the largest r
FLOOR = 1 / 20  # of G(0), where the fit of the decay ends
FEWEST_POINTS = 4
_NAN = float("nan")


class Length(NamedTuple):
    """A length in pixels, its standard error, and why it is NaN or not to be believed ("": it is)."""

    value: float
    error: float
    reason: str = ""


class Correlation(NamedTuple):
    """C(r) and G(r) of a frame, arrays (R,).

    `r` is the mean distance of the pairs of each bin in pixels, `error` that of `connected`, and `magnetization` is
    (m, its error).
    """

    r: np.ndarray
    raw: np.ndarray
    connected: np.ndarray
    raw_error: np.ndarray
    error: np.ndarray
    magnetization: tuple[float, float]
    efold: Length
    decay: Length


def correlation(image: np.ndarray, mask: np.ndarray | None = None, blocks: int = BLOCKS) -> Correlation:
    """C(r), G(r) and the two lengths of a two-level frame (H, W), 1 = up, for r up to a quarter of the shorter side.

    `mask` (H, W) bool is True where a pixel is no part of the sample.  A block without a pixel of it has no part in the
    errors.
    """
    image = np.asarray(image) != 0
    sample = np.ones(image.shape, bool) if mask is None else ~np.asarray(mask, bool)
    reach = max(1, int(REACH * min(image.shape)))
    r, shell = _shells(reach)
    whole = _measure(image, sample, shell, r)
    left_out = []
    for rows in np.array_split(np.arange(image.shape[0]), blocks):
        for columns in np.array_split(np.arange(image.shape[1]), blocks):
            rest = sample.copy()
            rest[np.ix_(rows, columns)] = False
            if rest.any() and rest.sum() < sample.sum():
                left_out.append(_measure(image, rest, shell, r))
    raw, connected, m, *lengths = (_spread(parts) for parts in zip(*left_out)) if left_out else [_NAN] * 5
    side = min(int(sample.any(axis).sum()) for axis in (0, 1))
    found = [_length(value, float(error), side) for value, error in zip(whole[3:], lengths)]
    return Correlation(
        r, whole[0], whole[1], np.broadcast_to(raw, r.shape), np.broadcast_to(connected, r.shape),
        (whole[2], float(m)), *found,
    )  # fmt: skip


def _shells(reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance of each bin (R,), and the bin of each displacement (2 reach + 1, reach + 1), R beyond the reach.

    Displacements to the left are those to the right turned round, so only the latter are there, and count twice.
    """
    distance = np.hypot(np.arange(-reach, reach + 1)[:, None], np.arange(reach + 1))
    shell = np.minimum(np.rint(distance).astype(int), reach + 1)
    total, count = (_over_shells(values, shell) for values in (distance, np.ones(distance.shape)))
    return total / count, shell


def _over_shells(values: np.ndarray, shell: np.ndarray) -> np.ndarray:
    """Sum over the displacements of each bin (R,) of values on the half plane of `shell`."""
    reach = shell.shape[1] - 1
    twice = np.where(np.arange(reach + 1) == 0, 1.0, 2.0)
    return np.bincount(shell.ravel(), (values * twice).ravel(), reach + 2)[: reach + 1]


def _measure(image: np.ndarray, sample: np.ndarray, shell: np.ndarray, r: np.ndarray) -> tuple:
    """C (R,), G (R,), m, efold and decay of the part of a frame that is the sample."""
    if not sample.any():
        return (*np.full((2, len(r)), _NAN), _NAN, _NAN, _NAN)
    spins = np.where(sample, np.where(image, 1.0, -1.0), 0.0)
    products, pairs = (_pair_sums(values, shell) for values in (spins, sample.astype(float)))
    pairs = np.rint(pairs)
    raw = np.divide(products, pairs, out=np.full(len(r), _NAN), where=pairs > 0)
    m = float(spins.sum() / sample.sum())
    connected = raw - m**2
    efold = _efold(r, connected)
    return raw, connected, m, efold, _decay(r, connected, efold)


def _pair_sums(values: np.ndarray, shell: np.ndarray) -> np.ndarray:
    """Sum of v(x) v(x + r) over the pairs of each bin (R,)."""
    reach = shell.shape[1] - 1
    shape = [fft.next_fast_len(side + reach, real=True) for side in values.shape]
    product = fft.irfft2(np.abs(fft.rfft2(values, shape)) ** 2, shape)
    return _over_shells(np.concatenate([product[-reach:, : reach + 1], product[: reach + 1, : reach + 1]]), shell)


def _efold(r: np.ndarray, connected: np.ndarray) -> float:
    """Where G falls below G(0) / e; infinite if it does not, NaN for a frame of one level."""
    if not connected[0] > 1e-12:
        return _NAN
    ratio = connected / connected[0]
    below = np.flatnonzero(ratio < np.exp(-1))
    if not below.size:
        return np.inf
    k = below[0]
    return float(np.interp(-np.exp(-1), -ratio[k - 1 : k + 1], r[k - 1 : k + 1]))


def _decay(r: np.ndarray, connected: np.ndarray, efold: float) -> float:
    """xi of the law of Ornstein and Zernike, NaN where the range has too few points."""
    if not np.isfinite(efold):
        return efold
    low = np.flatnonzero(connected < FLOOR * connected[0])
    used = (r >= max(efold, 2)) & (np.arange(len(r)) < low.min(initial=len(r)))
    if used.sum() < FEWEST_POINTS:
        return _NAN
    slope = np.polyfit(r[used], np.log(np.sqrt(r[used]) * connected[used]), 1)[0]
    return float(-1 / slope) if slope < 0 else np.inf


def _spread(values) -> np.ndarray:
    """Jackknife error of a statistic from its values without each block in turn."""
    values = np.array(values, float)
    with np.errstate(invalid="ignore"):
        return np.sqrt((len(values) - 1) * values.var(axis=0))


def _length(value: float, error: float, side: int) -> Length:
    if np.isnan(value):
        return Length(_NAN, _NAN, "correlations end within a few pixels, or the frame has one level only")
    if not value <= LONGEST * side:
        return Length(value, error, f"longer than a sixth of the {side} pixels of the frame: a lower bound at best")
    return Length(value, error, "shorter than a pixel: noise" if value < 1 else "")
