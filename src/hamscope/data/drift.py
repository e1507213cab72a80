"""The sideways drift of a sample under its microscope, from grey frames whose domains change meanwhile.

What is bright at one temperature is dark at another, so no frame is compared with one that looks very different.  Each
is compared with a *keyframe* in two steps:

1. phase_cross_correlation of scikit-image [1]_ on both frames between 1.5 and 6 pixels (differences of Gaussians),
   first of all of both, then of what they have in common.  It takes no notice of a change of brightness or contrast.
   Its spectrum is not normalized ("unnormalized cross-correlation" there): a microscope passes no fine detail, and
   normalized, the many frequencies that carry noise alone would be as loud as the pattern.
2. Domains that grew pull the peak of the correlation along.  The rest d of the shift is therefore a weighted
   least-squares fit of both frames A (keyframe) and B (moved by step 1), smoothed by one pixel, where A is steep,

       A = gain B + offset - d . grad A,       weight (1 - (r / 4.685 sigma)^2)^2 of a residual r, 0 beyond,

   so that pixels whose domain has switched do not count (Tukey's biweight [2]_; sigma from the median of |r|).  Of
   flat regions it would learn nothing but that noise is least half way between two pixels.

Once a frame resembles the keyframe less than 0.75 times as much as the keyframe's first successor did, the frame
before it becomes the keyframe.  Errors add up over keyframes, and not over frames.

A shift (rows, columns) in pixels is what moves a frame onto the first one.

Shape letters: F = frames; H, W = rows and columns of a frame.

References
----------
.. [1] Guizar-Sicairos, Thurman and Fienup, Opt. Lett. 33, 156 (2008), doi:10.1364/OL.33.000156.
.. [2] Holland and Welsch, Commun. Stat. A 6, 813 (1977), doi:10.1080/03610927708827533.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.filters import difference_of_gaussians, window
from skimage.registration import phase_cross_correlation

BAND = (1.5, 6.0)  # pixels; finer than that is noise, coarser is light
SMOOTH = 1.0  # pixels, before the fit
STEEP = 0.2  # share of the pixels that are fitted
MOST_REST = 1  # pixel, the correlation is never further away
UPSAMPLING = 20  # of the correlation, about its peak
FADED = 0.75  # of the resemblance at first, below which a keyframe is given up
CHANCE = (40, 0.1)  # over the side in pixels, and at least: a smaller correlation is chance
SMALLEST = 24  # pixels of a side that two frames have in common
_TUKEY, _STEPS, _ENOUGH = 4.685, 8, 0.003


class Drift(NamedTuple):
    """`shift` (F, 2) in pixels; `quality` (F,), correlation with the keyframe; `keyframe` (F,), its number.

    Where no shift was found (a quality that chance can give) it is that between the neighbours that have one,
    linearly, and `found` (F,) is False.
    """

    shift: np.ndarray
    quality: np.ndarray
    keyframe: np.ndarray
    found: np.ndarray


def estimate_drift(frames: Iterable[np.ndarray]) -> Drift:
    """The shift of each of the grey `frames` (H, W), which are seen one at a time and once."""
    shifts, quality, keyframes = [], [], []
    key = last = None
    fresh = 0.0  # how much the first successor resembles the keyframe
    for number, grey in enumerate(frames):
        own = _Views(number, grey)
        if key is None:
            key, last, step, q, limit = own, own, np.zeros(2), 1.0, 0.0
        else:
            step, q = _compare(key, own)
            limit = chance(grey.shape)
            if last is not key and q < max(FADED * fresh, limit):
                key, fresh = last, 0.0
                step, q = _compare(key, own)
            if q > limit:
                fresh, last = fresh or q, own
        origin = shifts[key.number] if key is not own else np.zeros(2)
        shifts.append(origin + step if q > limit else np.full(2, np.nan))
        quality.append(q)
        keyframes.append(key.number)
    shift = np.array(shifts).reshape(-1, 2)
    found = np.isfinite(shift[:, 0])
    places = np.arange(len(shift))
    for axis in (0, 1):
        shift[:, axis] = np.interp(places, places[found], shift[found, axis])
    return Drift(shift, np.array(quality), np.array(keyframes), found)


class _Views:
    """A frame as the two steps see it."""

    def __init__(self, number: int, grey: np.ndarray):
        grey = grey.astype(np.float32)
        self.number = number
        self.band = difference_of_gaussians(grey, *BAND)
        self.smooth = ndimage.gaussian_filter(grey, SMOOTH)


def _compare(key: _Views, own: _Views) -> tuple[np.ndarray, float]:
    """The shift (2,) of a frame onto a keyframe and their correlation, 0 where they have nothing in common."""
    shift, quality = _correlate(key.band, own.band)
    sure = quality > chance(own.band.shape)
    return (_refine(key.smooth, own.smooth, shift), quality) if sure else (shift, quality)


def chance(shape: tuple[int, int]) -> float:
    """The correlation up to which two frames (H, W) of noise alone may resemble each other at their best shift.

    Over 30 pairs of white noise it reached 0.44 at 64 x 64 pixels, 0.27 at 140 x 140 and 0.13 at 250 x 250.
    """
    return max(CHANCE[1], CHANCE[0] / np.sqrt(shape[0] * shape[1]))


def _correlate(reference: np.ndarray, moving: np.ndarray) -> tuple[np.ndarray, float]:
    """Step 1: shift (2,) and correlation coefficient of the two frames where they overlap, within a Hann window."""
    whole = np.zeros(2, int)
    rest, quality = np.zeros(2), 0.0
    for upsampling in (1, UPSAMPLING, UPSAMPLING):
        one, other = overlap(reference, whole), overlap(moving, -whole)
        if min(one.shape) < SMALLEST:
            return np.zeros(2), 0.0
        # Without it the edges of the frames, which do not drift, would be matched with each other.
        hann = window("hann", one.shape)
        one, other = one * hann, other * hann
        norm = np.sqrt((one**2).sum() * (other**2).sum())
        if norm == 0:
            return np.zeros(2), 0.0
        quality = float((one * other).sum() / norm)
        rest, _, _ = phase_cross_correlation(one, other, upsample_factor=upsampling, normalization=None)
        if upsampling > 1 and np.abs(rest).max() <= 1:
            break
        whole = whole + np.rint(rest).astype(int)
        rest = rest - np.rint(rest)
    return whole + rest, quality


def overlap(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The part of a frame (H, W) that another one covers after it was moved by whole pixels `shift` (2,)."""
    return image[tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift, image.shape))]


def _refine(reference: np.ndarray, moving: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Step 2: the `shift` (2,) with its rest fitted, as the head of this file says; left alone where it runs away."""
    cut = np.ceil(np.abs(shift)).astype(int) + MOST_REST + 2
    inner = tuple(slice(c, n - c) for c, n in zip(cut, reference.shape))
    slopes = np.stack([slope[inner].ravel() for slope in np.gradient(reference)])
    steep = (slopes**2).sum(0)
    steep = steep > np.quantile(steep, 1 - STEEP)
    a, slopes, found = reference[inner].ravel()[steep], slopes[:, steep], shift
    gain, offset = 1.0, None
    for _ in range(_STEPS):
        b = moved(moving, found)[inner].ravel()[steep]
        offset = np.median(a - b) if offset is None else offset
        residual = a - gain * b - offset
        sigma = 1.4826 * np.median(np.abs(residual - np.median(residual)))
        if sigma == 0:  # most pixels agree to the last digit
            break
        weight = (1 - np.clip(residual / (_TUKEY * sigma), -1, 1) ** 2) ** 2
        columns = np.stack([b, np.ones_like(b), *-slopes]).astype(float)
        weighted = columns * weight
        (gain, offset, *rest), *_ = np.linalg.lstsq(weighted @ columns.T, weighted @ a, rcond=None)
        found = found + rest
        if np.abs(found - shift).max() > MOST_REST:
            return shift
        if np.abs(rest).max() < _ENOUGH:
            break
    return found


def moved(grey: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """A grey frame (H, W) moved by `shift` (2,), float32: cubic splines, which are exact at whole pixels.

    What comes in at the edges is made up; `common_view` leaves it out.
    """
    return ndimage.shift(np.asarray(grey, np.float32), shift, order=3, mode="mirror") if np.any(shift) else grey


def common_view(shift: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the first frame, of `shape` (H, W), that all frames show after their `shift` (F, 2)."""
    first = np.ceil(np.maximum(shift.max(0), 0)).astype(int)
    last = np.floor(np.minimum(shift.min(0), 0)).astype(int)
    return tuple(slice(int(a), int(n + b)) for a, b, n in zip(first, last, shape))
