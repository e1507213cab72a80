"""A raw optical experiment of known truth, small and without the package: domains that grow, drift, light, electrodes.

The pattern of frame k are the sites of a smooth random field below a level, so domains grow and merge as in a sweep.
It is moved in Fourier space, which is exact for what the point-spread function has left of it.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.ndimage import fourier_gaussian, fourier_shift, gaussian_filter

SIDE, BORDER = 140, 30
DARK, LOW, HIGH, METAL = 10.0, 100.0, 140.0, 200.0


class Experiment(NamedTuple):
    """`raw` (F, H, W) float32; the truth `bright` (F, H, W) bool in the coordinates of the first frame; `drift` (F, 2)
    of the sample in pixels; `light` (H, W), 1 in the mean; `electrodes` (H, W) bool; `up` (F,), +1 while the bright
    part grows."""

    raw: np.ndarray
    bright: np.ndarray
    drift: np.ndarray
    light: np.ndarray
    electrodes: np.ndarray
    up: np.ndarray


def experiment(shares, drift, noise=0.1, psf=1.2, gain=None, seed=1) -> Experiment:
    """A film in which a share of the film is bright in each frame, `shares` (F,), and the sample is at `drift` (F, 2).

    `noise` is in units of the contrast; `gain` (F,) multiplies the light of each frame.
    """
    rng = np.random.default_rng(seed)
    whole = SIDE + 2 * BORDER
    field = gaussian_filter(rng.standard_normal((whole, whole)), 3, mode="wrap")
    field += 0.15 * field.std() * rng.standard_normal(field.shape)
    bright = np.stack([field < np.quantile(field, share) for share in shares])
    electrodes = np.zeros((whole, whole), bool)
    electrodes[:, : BORDER + 22] = electrodes[:, -BORDER - 22 :] = True
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    light = 1.2 - 0.6 * ((y - 0.3) ** 2 + (x - 0.6) ** 2)
    light /= light.mean()
    inner = (slice(BORDER, -BORDER),) * 2
    raw = np.empty((len(shares), SIDE, SIDE), np.float32)
    for k, pattern in enumerate(bright):
        scene = np.where(electrodes, METAL, np.where(pattern, HIGH, LOW))
        seen = fft.ifft2(fourier_shift(fourier_gaussian(fft.fft2(scene), psf), drift[k])).real[inner]
        lit = seen * light * (1 if gain is None else gain[k]) + DARK
        raw[k] = lit + noise * (HIGH - LOW) * rng.standard_normal(lit.shape)
    steps = np.sign(np.diff(shares, prepend=2 * shares[0] - shares[1])).astype(int)
    return Experiment(raw, bright[(slice(None), *inner)], np.asarray(drift), light, electrodes[inner], steps)
