"""What a microscope does to a two-level image: it blurs, adds noise, and counts in grey levels.

    g(x) = dark + (bright - dark) ( (P * s)(x) + noise n(x) ),        s = 0 or 1,

with P a Gaussian point-spread function of standard deviation sigma in pixels and n(x) standard normal numbers, one a
pixel; g is rounded and clipped to 0..255.  Blur and noise are in pixels and in units of the contrast, so they mean
the same in every magnification and with every camera.

Shape letters: F = frames; H, W = rows and columns of a frame.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

# Symmetric about the middle of 0..255, with room for noise of a quarter of the contrast (three standard deviations).
LEVELS = (80, 176)
MIDDLE = sum(LEVELS) / 2


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
    dark, bright = levels
    grey = np.empty(images.shape, np.uint8)
    for k, image in enumerate(images):
        signal = point_spread(image, blur_px, periodic)
        if noise:
            signal += noise * _normal(seed, k, image.shape)
        grey[k] = np.clip(np.rint(dark + (bright - dark) * signal), 0, 255)
    return grey


def point_spread(image: np.ndarray, blur_px: float, periodic: bool = False) -> np.ndarray:
    """An image (H, W) under a Gaussian point-spread function of `blur_px` pixels, float64; the mean is conserved."""
    return gaussian_filter(image.astype(np.float64), blur_px, mode="wrap" if periodic else "reflect")


def _normal(seed: int, frame: int, shape: tuple[int, int]) -> np.ndarray:
    """Standard normal numbers of one frame, from a Philox stream of its own."""
    stream = np.random.Philox(key=np.array([seed % 2**64, frame], np.uint64))
    return np.random.Generator(stream).standard_normal(shape)
