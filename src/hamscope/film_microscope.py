"""The microscope of a film: it blurs, the sample drifts below it, and its lamp and camera are not perfect.

    g_k(x) = L(x) (dark + (bright - dark) (P * s_k)(x - d_k)) + (bright - dark) noise n_k(x),

rounded and clipped to 0..255.  s_k is 0 or 1 in the pattern and `ELECTRODE` on electrodes, which lie on the sample and
move with it; P is the point-spread function; d_k the shift of frame k; L the light of the lamp, which stays; n_k
standard normal numbers.  The pattern goes on at its opposite edge, an electrode at the edge goes on as it is.

The light is a round spot.  With a the `uneven_light`, r the distance from its centre and w = S / 2 its width,

    L = 1 + a (2 q - 1),     q = (G - min G) / (max G - min G),     G = exp(-r^2 / 2 w^2),

so it runs from 1 - a to 1 + a within the frame.

Shape letters: F = frames; S = size, the side of a frame in sites and pixels.
"""

import numpy as np

from hamscope.config import Film
from hamscope.data.instrument import LEVELS, MIDDLE, expose, point_spread, spread
from hamscope.film_samples import film_key

# Light of an electrode where a dark domain sends 0 and a bright one 1.
ELECTRODE = 1.6
# Share of an electrode's light from which on a pixel is masked.
_MASKED = 0.01


def drift(film: Film) -> np.ndarray:
    """How far what the frame shows has moved since the first frame, rows and columns in pixels, float64 (F, 2).

    A positive shift is down, or to the right.
    """
    if isinstance(film.drift, tuple):
        return np.arange(film.frames)[:, None] * np.array(film.drift)
    steps = film.drift * _random(film, "drift").standard_normal((film.frames, 2))
    steps[0] = 0
    return np.cumsum(steps, axis=0)


def lamp(film: Film) -> dict[str, float]:
    """Where the light is brightest, `row` and `column` in the middle half of the frame, and `width`; in pixels."""
    row, column = film.size * (0.25 + 0.5 * _random(film, "lamp").random(2))
    return {"row": float(row), "column": float(column), "width": film.size / 2}


def illumination(film: Film) -> np.ndarray | None:
    """The light L, float64 (S, S); None where it is even."""
    if not film.uneven_light:
        return None
    spot, pixel = lamp(film), np.arange(film.size)
    squares = (pixel[:, None] - spot["row"]) ** 2 + (pixel - spot["column"]) ** 2
    spread_out = np.exp(-squares / (2 * spot["width"] ** 2))
    return 1 + film.uneven_light * (2 * (spread_out - spread_out.min()) / np.ptp(spread_out) - 1)


def flat_frame(light: np.ndarray) -> np.ndarray:
    """A frame of an even sample, half as bright as dark and bright domains together, in the light; uint8 (S, S)."""
    return np.rint(MIDDLE * light).astype(np.uint8)


def photograph(film: Film, images: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the camera sees of the patterns (F, S, S), and where electrodes are: uint8 (F, S, S) and bool (S, S).

    The mask holds every pixel that an electrode lies on, or sends 1 % of its light to, in any of the frames.
    """
    light, noise_key = illumination(film), int(film_key(film, "noise"))
    grey, masked = np.empty(images.shape, np.uint8), np.zeros(images.shape[1:], bool)
    margin = 0
    if film.electrodes:
        # No light of the opposite edge, where the electrode is not, comes so far.
        margin = int(np.ceil(np.abs(shifts).max() + 4 * film.blur_px)) + 2
    inside = (slice(margin, margin + film.size),) * 2
    metal = np.pad(_electrodes(film), margin, mode="edge")
    for k, (image, shift) in enumerate(zip(images, shifts)):
        scene = np.where(metal, ELECTRODE, np.pad(image, margin, mode="wrap"))
        grey[k] = expose(_through_lens(film, scene, shift)[inside], film.noise, noise_key, k, LEVELS, light)
        if film.electrodes:
            masked |= _through_lens(film, metal, shift)[inside] > _MASKED
    return grey, masked


def _electrodes(film: Film) -> np.ndarray:
    """Where the electrodes lie on the sample, bool (S, S)."""
    metal = np.zeros((film.size, film.size), bool)
    for top, end, left, right in film.electrodes:
        metal[top:end, left:right] = True
    return metal


def _through_lens(film: Film, scene: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """A scene under the point-spread function, moved by `shift`; the shape of the scene."""
    if film.psf == "gaussian" and film.drift in (0, (0, 0)):
        return point_spread(scene, film.blur_px, periodic=True)
    return spread(scene, film.blur_px, film.psf == "airy", shift=tuple(shift))


def _random(film: Film, use: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=film_key(film, use)))
