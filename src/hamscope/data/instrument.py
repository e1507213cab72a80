"""What a microscope does to a two-level image: it blurs, adds noise, and counts in grey levels.

    g(x) = dark + (bright - dark) ( (P * s)(x) + noise n(x) ),        s = 0 or 1,

with P a point-spread function of standard deviation sigma in pixels and n(x) standard normal numbers, one a pixel; a
camera rounds g and clips it to 0..255.  Blur and noise are in pixels and in units of the contrast, so they mean the
same in every magnification and with every camera.

`observe` shows a film through one microscope.  `look` shows every training image through a microscope of its own,
drawn by `draw`, and makes two levels of it again, as `hamscope.data.windows.binarize` does with real frames.

A diffraction-limited lens has no Gaussian but an Airy disc, which has no standard deviation; its `psf_px` is that of
the Gaussian with the same full width at half maximum.  In Fourier space, with f in cycles a pixel [1]_,

    Gaussian   exp(-2 pi^2 sigma^2 f^2)
    Airy       (2 / pi) (arccos v - v sqrt(1 - v^2)),   v = f / f_c < 1,   f_c = 1.0290 / (2.3548 sigma)

What a network is told of the microscope, its `condition`, are three numbers: whether the point-spread function is known
(1) or not (0), its width in pixels (0 if not known), and whether the threshold came from the frame itself (1: median,
Otsu), which erases the density.

Shape letters: F = frames; H, W = rows and columns of a frame; N = images; L = side of an image.

References
----------
.. [1] Goodman, Introduction to Fourier Optics, section 6.3 (incoherent imaging with a circular pupil).
"""

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.ndimage import fourier_shift, gaussian_filter

from hamscope.config import Instrument
from hamscope.data.windows import two_levels

# Symmetric about the middle of 0..255, with room for noise of a quarter of the contrast (three standard deviations).
LEVELS = (80, 176)
MIDDLE = sum(LEVELS) / 2
CONDITIONS = 3  # numbers that a network is told of the microscope
THRESHOLDS = (0.5, "median", "otsu")  # of contrast 1
_AIRY = 1.0290 / 2.3548  # f_c sigma of an Airy disc as wide at half maximum as the Gaussian of that sigma


def observe(
    images: np.ndarray,
    blur_px: float,
    noise: float,
    seed: int,
    periodic: bool = False,
    levels: tuple[int, int] = LEVELS,
) -> np.ndarray:
    """Two-level images as a microscope shows them, shape (F, H, W), uint8.

    Parameters
    ----------
    images : ndarray, shape (F, H, W), uint8
        The pattern, 0 or 1; 1 becomes bright.
    blur_px : float
        Standard deviation of the point-spread function in pixels; 0 for none.
    noise : float
        Standard deviation of the noise in units of the contrast between the two levels; 0 for none.
    seed : int
        The noise of frame k is keyed by (seed, k), so it does not depend on the other frames, nor on the blur.
    periodic : bool
        Whether the pattern goes on at its opposite edge; else it is mirrored at its edges.
    levels : (int, int)
        Grey values of 0 and of 1 in a wide domain.

    Raises
    ------
    ValueError
        Images that are no stack of frames, or a negative blur or noise.
    """
    if images.ndim != 3:
        raise ValueError(f"images of shape {images.shape}; give a stack (F, H, W)")
    if not (blur_px >= 0 and noise >= 0):
        raise ValueError(f"blur_px = {blur_px}, noise = {noise}; neither can be negative")
    grey = np.empty(images.shape, np.uint8)
    for k, image in enumerate(images):
        grey[k] = expose(point_spread(image, blur_px, periodic), noise, seed, k, levels)
    return grey


def expose(
    signal: np.ndarray,
    noise: float,
    seed: int,
    frame: int,
    levels: tuple[int, int] = LEVELS,
    light: np.ndarray | None = None,
) -> np.ndarray:
    """The grey levels that a camera counts, (H, W) uint8, where the signal (H, W) is 0 in dark and 1 in bright domains.

    `light`, shape (H, W), is the illumination relative to an even one; it multiplies what the sample sends back, dark
    domains too, and not the noise.  `noise`, `seed` and `levels` as in `observe`; `frame` is k there.
    """
    dark, contrast = levels[0], levels[1] - levels[0]
    if light is not None:
        signal = light * (signal + dark / contrast) - dark / contrast
    if noise:
        signal = signal + noise * _normal(seed, frame, signal.shape)
    return np.clip(np.rint(dark + contrast * signal), 0, 255).astype(np.uint8)


def point_spread(image: np.ndarray, blur_px: float, periodic: bool = False) -> np.ndarray:
    """An image (H, W) under a Gaussian point-spread function of `blur_px` pixels, float64; the mean is conserved."""
    return gaussian_filter(image.astype(np.float64), blur_px, mode="wrap" if periodic else "reflect")


class Views(NamedTuple):
    """A microscope for each of N images; every field of shape (N,).

    `psf_px` (pixels), `airy` (bool), `noise` (of the contrast), `threshold` (index in THRESHOLDS), `pixel` (lattice
    sites a pixel), `told` (bool, whether a network may know `psf_px`).
    """

    psf_px: np.ndarray
    airy: np.ndarray
    noise: np.ndarray
    threshold: np.ndarray
    pixel: np.ndarray
    told: np.ndarray

    @property
    def condition(self) -> np.ndarray:
        """What a network is told, (N, 3) float32."""
        return condition(np.where(self.told, self.psf_px, np.nan), self.threshold > 0)


def condition(psf_px: np.ndarray | float | None, adaptive: np.ndarray | bool) -> np.ndarray:
    """What a network is told: shape (..., 3) float32; a psf_px of None or NaN is not known."""
    psf_px = np.asarray(np.nan if psf_px is None else psf_px, np.float32)
    known = np.isfinite(psf_px)
    parts = np.broadcast_arrays(known, np.where(known, psf_px, 0), adaptive)
    return np.stack(parts, -1).astype(np.float32)


def draw(instrument: Instrument, seed: int, epoch: int, images: np.ndarray) -> Views:
    """A microscope for every image, keyed by (seed, epoch, number of the image): the same in any batch.

    Parameters
    ----------
    images : ndarray, shape (N,), int
        Numbers of the images.
    """
    u = np.stack([_stream(seed, epoch, image).random(10) for image in images]) if len(images) else np.empty((0, 10))
    seen = u[:, 0] >= instrument.sharp
    adaptive = seen & (u[:, 5] < instrument.adaptive)
    rescaled = seen & (u[:, 7] < instrument.rescaled)
    low, high = np.log(instrument.pixel_sites)
    return Views(
        psf_px=np.where(seen, _between(instrument.psf_px, u[:, 1]), 0.0),
        airy=seen & (u[:, 2] < instrument.airy),
        noise=np.where(seen & (u[:, 3] < instrument.noisy), _between(instrument.noise, u[:, 4]), 0.0),
        threshold=np.where(adaptive, np.where(u[:, 6] < 0.5, 1, 2), 0),
        pixel=np.where(rescaled, np.exp(low + (high - low) * u[:, 8]), 1.0),
        told=u[:, 9] < instrument.told,
    )


def look(images: np.ndarray, views: Views, seed: int, epoch: int, numbers: np.ndarray) -> np.ndarray:
    """Two-level images (N, L, L) uint8, each through its microscope and a threshold: the same shape again.

    The images go on at their opposite edges, as the lattices behind them do but for the open axis of a 3D one.  Where a
    pixel is wider than a site it collects the light of its whole square, and the view takes in more than one period;
    where it is narrower the view is a part of the image.  An image that its microscope leaves as it is stays whole.

    Parameters
    ----------
    seed, epoch, numbers
        Of the noise, as in `draw`.
    """
    seen = images.copy()
    for k, (image, psf, airy, noise, threshold, pixel, _) in enumerate(zip(images, *views)):
        if psf == 0 and noise == 0 and pixel == 1:
            continue
        grey = spread(image, psf * pixel, airy, pixel)
        if pixel != 1:
            side = np.floor((np.arange(len(image)) + 0.5) * pixel).astype(np.int64) % len(image)
            grey = grey[side[:, None], side[None, :]]
        if noise:
            grey += np.float32(noise) * _stream(seed, epoch, numbers[k], 1).standard_normal(grey.shape, np.float32)
        seen[k] = two_levels(grey, THRESHOLDS[threshold]) if psf or noise else grey > 0.5
    return seen


def spread(
    image: np.ndarray, sigma: float, airy: bool, pixel: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """A periodic image (L, L) under a point-spread function of `sigma` sites and square pixels of `pixel` sites.

    What it shows is moved by `shift` sites down and to the right, or parts of one: exact for what the point-spread
    function lets through.  Returns float32 (L, L); the mean is conserved.
    """
    side = len(image)
    f, g = np.fft.fftfreq(side).astype(np.float32)[:, None], np.fft.rfftfreq(side).astype(np.float32)[None]
    if sigma == 0:
        transfer = np.ones((side, side // 2 + 1), np.float32)
    elif airy:
        v = np.minimum(np.hypot(f, g) * np.float32(sigma / _AIRY), 1)
        transfer = np.float32(2 / np.pi) * (np.arccos(v) - v * np.sqrt(1 - v * v))
    else:
        transfer = np.exp(np.float32(-2 * np.pi**2 * sigma**2) * f * f) * np.exp(
            np.float32(-2 * np.pi**2 * sigma**2) * g * g
        )
    if pixel > 1:
        transfer = transfer * (np.sinc(pixel * f) * np.sinc(pixel * g)).astype(np.float32)
    waves = fft.rfft2(image.astype(np.float32)) * transfer
    if any(shift):
        waves = fourier_shift(waves, shift, n=side, axis=1)
    return fft.irfft2(waves, (side, side))


def _between(bounds: tuple[float, float], u: np.ndarray) -> np.ndarray:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _stream(seed: int, epoch: int, image: int, use: int = 0) -> np.random.Generator:
    """The random numbers of one image in one epoch; `use` 0 for its microscope, 1 for its noise."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, 2 * image + use], np.uint64),
                                                counter=np.array([0, 0, 0, epoch], np.uint64)))  # fmt: skip


def _normal(seed: int, frame: int, shape: tuple[int, int]) -> np.ndarray:
    """Standard normal numbers of one frame, from a Philox stream of its own."""
    stream = np.random.Philox(key=np.array([seed % 2**64, frame], np.uint64))
    return np.random.Generator(stream).standard_normal(shape)
