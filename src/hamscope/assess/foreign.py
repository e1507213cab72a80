"""Two-level images that none of the seven models draws: what a classifier must not believe in.

`FAMILIES[name](seed, count, size)` gives `count` images of one family, shape (count, size, size), uint8 0/1.  Image k
is keyed by (seed, family, k), so it depends neither on `count` nor on the other images.  The parameters of an image are
drawn from the ranges below, "log" meaning uniform in the logarithm; lengths are in pixels, fractions are of the area
of the windows.  Domains are a few pixels to some tens of pixels wide.

    stripes            period 4-40 log, any angle, share of a period 0.3-0.7, bent by up to 3 rad of phase
    labyrinth          random waves of one wavelength 5-40 log, relative bandwidth 0.05-0.25, share 0.35-0.65
    voronoi_cells      Poisson cells of mean area a^2, a 4-40 log, each 1 with probability 0.3-0.7
    voronoi_walls      walls 0.08-0.3 a wide (1.5 at least) between such cells, a 8-40 log
    power_law_field    Gaussian field of spectrum k^-n, n 1.2-3, cut at a share of 0.3-0.7 of the window
    smooth_field       Gaussian field with correlation exp(-r^2 / 2 l^2), l 1.5-15 log, share 0.3-0.7
    potts              q = 3-6, quenched to 0-0.6 of T_c for 5-100 log sweeps; one state against the rest
    xy                 planar spins, quenched to T = 0 for 6-200 log steps; a half circle of directions
    coarsening         2D Ising from T = infinity at T/J = 0.1-1.5, 4-250 log sweeps: far from equilibrium
    phase_separation   Cahn-Hilliard, 30-400 log steps, kappa 0.5-16 log, mean -0.4 to 0.4
    droplets           discs that do not touch, radius 2-15 log with a spread of 0-0.6, 0.06-0.4 of the area
    text               words of random letters in a DejaVu face, 9-40 high log, any angle
    textures           photographs that scikit-image carries, magnified 1/3 to 2, cut at the median of the window
    periodic           chequers, square and triangular lattices of period 5-30 log, any angle, share 0.3-0.7

The two levels change places in half of the images.  A window with less than 2 % of one level is drawn again: it shows
no pattern.  Fields and quenches live on a larger periodic square of which the window is a part.

Three families come close to what the models draw, on purpose.  A quench ends in the Hamiltonian of C-2D, but not in
its equilibrium.  At n = 7/4 the power law is that of critical Ising domains in two dimensions.  And a smooth field of
the shortest length is nearly noise, as percolation is.

References: Cahn and Hilliard, doi:10.1063/1.1744102, stepped as in Eyre, doi:10.1557/PROC-529-39; coarsening: Bray,
doi:10.1080/00018730110117433; Potts model: Wu, doi:10.1103/RevModPhys.54.235.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
from numba import njit
from PIL import Image, ImageDraw, ImageFont
from scipy import fft
from scipy.spatial import cKDTree
from skimage import data
from skimage.transform import resize

from hamscope.sim.rng import stream_key

SMALLEST = 16  # pixels; less shows no domain
LEAST_SHARE = 0.02  # of one level
_TEXTURES = ("brick", "grass", "gravel", "camera", "coins", "page")
_FACES = ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "SansMono-Bold", "Serif", "Serif-Bold", "Serif-Italic")
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))

_drawers: dict[str, tuple[Callable, dict]] = {}


def _flat(low, high):
    return lambda rng: rng.uniform(low, high)


def _log(low, high):
    return lambda rng: float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _steps(low, high):
    return lambda rng: round(_log(low, high)(rng))


def _one_of(*choices):
    return lambda rng: choices[rng.integers(len(choices))]


_angle = _flat(0, np.pi)


def _family(**laws):
    """Make a function of (rng, size, parameters) a family whose parameters follow `laws`, functions of a rng."""

    def enter(draw):
        _drawers[draw.__name__] = draw, laws
        return draw

    return enter


def _images(family: str, seed: int, count: int, size: int) -> np.ndarray:
    """Images 0 to count - 1 of a family, shape (count, size, size), uint8; ValueError for windows below 16 pixels."""
    if size < SMALLEST or count < 0:
        raise ValueError(f"count = {count}, size = {size}; give a count of 0 or more and at least {SMALLEST} pixels")
    return np.stack([_image(family, seed, k, size) for k in range(count)] or [np.empty((size, size), np.uint8)])[:count]


def _image(family: str, seed: int, number: int, size: int) -> np.ndarray:
    draw, laws = _drawers[family]
    key = int(stream_key(seed, "foreign", family, number))
    rng = np.random.Generator(np.random.Philox(key=key))
    for _ in range(100):
        image = draw(rng, size, **{name: law(rng) for name, law in laws.items()}) ^ (rng.random() < 0.5)
        if LEAST_SHARE <= image.mean() <= 1 - LEAST_SHARE:
            return image.astype(np.uint8)
    raise ValueError(f"{family}: 100 windows of {size} pixels without a pattern; give larger windows")


def _cut(field: np.ndarray, share: float) -> np.ndarray:
    """The highest `share` of a field, bool."""
    return field > np.quantile(field, 1 - share)


def _turned(size: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x, y of the pixels on axes that are turned by an angle, each (size, size)."""
    i, j = np.mgrid[:size, :size]
    return j * np.cos(angle) + i * np.sin(angle), i * np.cos(angle) - j * np.sin(angle)


def gaussian_field(rng: np.random.Generator, size: int, amplitude: Callable) -> np.ndarray:
    """A window (size, size) of a Gaussian random field with spectrum amplitude(k)^2 and the variance 1.

    `amplitude` takes wave numbers in radians a pixel; what it gives at k = 0 is left out.  The field is periodic over
    twice the window.
    """
    n = fft.next_fast_len(2 * size, real=True)
    amplitudes = amplitude(np.hypot(*_wave_numbers(n)))
    amplitudes[0, 0] = 0
    # A wave in the inner columns of the half spectrum stands for its mirror image as well.
    weight = np.full(n // 2 + 1, 2.0)
    weight[0] = 1
    if n % 2 == 0:
        weight[-1] = 1
    variance = (amplitudes**2 * weight).sum() / n**2
    field = fft.irfft2(fft.rfft2(rng.standard_normal((n, n))) * amplitudes, s=(n, n))
    return field[:size, :size] / np.sqrt(variance)


def _wave_numbers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """k_y (n, 1) and k_x (1, n // 2 + 1) of `rfft2`, in radians a pixel."""
    return 2 * np.pi * fft.fftfreq(n)[:, None], 2 * np.pi * fft.rfftfreq(n)[None]


@_family(length=_log(1.5, 15), share=_flat(0.3, 0.7))
def smooth_field(rng, size, length, share):
    """Spectrum exp(-k^2 l^2 / 2), the transform of the correlation exp(-r^2 / 2 l^2)."""
    return _cut(gaussian_field(rng, size, lambda k: np.exp(-((k * length) ** 2) / 4)), share)


@_family(exponent=_flat(1.2, 3), share=_flat(0.3, 0.7))
def power_law_field(rng, size, exponent, share):
    """Spectrum k^-n: domains of every size."""
    return _cut(gaussian_field(rng, size, lambda k: np.where(k > 0, k, np.inf) ** (-exponent / 2)), share)


@_family(wavelength=_log(5, 40), bandwidth=_flat(0.05, 0.25), share=_flat(0.35, 0.65))
def labyrinth(rng, size, wavelength, bandwidth, share):
    """A ring of wave numbers about 2 pi / wavelength, as in spinodal and Swift-Hohenberg patterns."""
    k0 = 2 * np.pi / wavelength
    return _cut(gaussian_field(rng, size, lambda k: np.exp(-(((k / k0 - 1) / bandwidth) ** 2) / 4)), share)


@_family(period=_log(4, 40), angle=_angle, share=_flat(0.3, 0.7), bend=_flat(0, 3))
def stripes(rng, size, period, angle, share, bend):
    """cos(2 pi x / period + phase) above a level; the phase varies by `bend` (rms, rad) over about two periods."""
    phase = rng.uniform(0, 2 * np.pi)
    if bend:
        phase = phase + bend * gaussian_field(rng, size, lambda k: np.exp(-((2 * period * k) ** 2) / 4))
    return np.cos(2 * np.pi * _turned(size, angle)[0] / period + phase) > np.cos(np.pi * share)


@_family(kind=_one_of("chequers", "square", "triangular"), period=_log(5, 30), angle=_angle, share=_flat(0.3, 0.7))
def periodic(rng, size, kind, period, angle, share):
    """Squares of a chequerboard (share unused), or maxima of 2 waves at 90 or 3 waves at 120 degrees above a level."""
    if kind == "chequers":
        x, y = _turned(size, angle)
        shift = rng.uniform(0, period, 2)
        return ((np.floor(2 * (x + shift[0]) / period) + np.floor(2 * (y + shift[1]) / period)) % 2).astype(bool)
    turns = np.array([0, 1 / 2] if kind == "square" else [0, 2 / 3, 4 / 3]) * np.pi
    waves = [np.cos(2 * np.pi * _turned(size, angle + turn)[0] / period + rng.uniform(0, 2 * np.pi)) for turn in turns]
    return _cut(sum(waves), share)


def _poisson_cells(rng, size, cell):
    """Distances (n, 2) and numbers (n, 2) of the two nearest of the Poisson centres, and the centres."""
    margin = 4 * cell
    width = size + 2 * margin
    # Two more centres than drawn, so that a small window never lacks a neighbour.
    centres = rng.uniform(-margin, size + margin, (rng.poisson((width / cell) ** 2) + 2, 2))
    distances, nearest = cKDTree(centres).query(np.indices((size, size)).reshape(2, -1).T, k=2)
    return distances, nearest, centres


@_family(cell=_log(4, 40), share=_flat(0.3, 0.7))
def voronoi_cells(rng, size, cell, share):
    """Cells of mean area cell^2, each wholly one level."""
    _, nearest, centres = _poisson_cells(rng, size, cell)
    return (rng.random(len(centres)) < share)[nearest[:, 0]].reshape(size, size)


@_family(cell=_log(8, 40), width=_flat(0.08, 0.3))
def voronoi_walls(rng, size, cell, width):
    """Walls `width` cells wide: pixels within half of it of the bisector of their two nearest centres."""
    d, nearest, centres = _poisson_cells(rng, size, cell)
    apart = np.linalg.norm(centres[nearest[:, 1]] - centres[nearest[:, 0]], axis=1)
    to_wall = (d[:, 1] ** 2 - d[:, 0] ** 2) / (2 * apart)
    return (to_wall < max(1.5, width * cell) / 2).reshape(size, size)


@njit(nogil=True, cache=True)
def quench(states, q, temperature, sweeps, rng):
    """Metropolis sweeps of the Potts model, E = -sum_<ij> delta(s_i, s_j), in place; int8 (n, n), periodic.

    Sites are picked at random and offered one of the other q - 1 states; in the order of the rows, flips that cost
    nothing would carry walls along.  A sweep is n^2 offers.  For q = 2 this is the Ising model with J = 1 at twice
    this temperature.
    """
    n = len(states)
    accept = np.array([np.exp(-loss / temperature) if temperature > 0 else 0.0 for loss in range(1, 5)])
    for _ in range(sweeps * n * n):
        i, j = divmod(int(rng.random() * n * n), n)
        old = states[i, j]
        new = (old + 1 + (int(rng.random() * (q - 1)) if q > 2 else 0)) % q
        loss = 0
        for s in (states[i - 1, j], states[(i + 1) % n, j], states[i, j - 1], states[i, (j + 1) % n]):
            loss += int(s == old) - int(s == new)
        if loss <= 0 or rng.random() < accept[loss - 1]:
            states[i, j] = new


def _wide(size: int) -> int:
    """The side of the periodic square of which a window of a quench is a part."""
    return fft.next_fast_len(size + size // 4, real=True)


@_family(temperature=_flat(0.1, 1.5), sweeps=_steps(4, 250))
def coarsening(rng, size, temperature, sweeps):
    """Ising spins at T/J, `sweeps` after a quench from infinite temperature."""
    spins = rng.integers(0, 2, (_wide(size),) * 2, np.int8)
    quench(spins, 2, temperature / 2, sweeps, rng)
    return spins[:size, :size] == 1


@_family(q=_one_of(3, 4, 5, 6), cold=_flat(0, 0.6), sweeps=_steps(5, 100))
def potts(rng, size, q, cold, sweeps):
    """Domains of one of q states, at `cold` times the transition temperature 1 / ln(1 + sqrt q)."""
    states = rng.integers(0, q, (_wide(size),) * 2, np.int8)
    quench(states, q, cold / np.log1p(np.sqrt(q)), sweeps, rng)
    return states[:size, :size] == 0


@_family(steps=_steps(6, 200))
def xy(rng, size, steps):
    """Spins z = exp(i theta), all turned at once to the sum of themselves and half of their neighbours; Re z > 0."""
    n = _wide(size)
    z = np.exp(2j * np.pi * rng.random((n, n)))
    for _ in range(steps):
        z = z + 0.5 * (np.roll(z, 1, 0) + np.roll(z, -1, 0) + np.roll(z, 1, 1) + np.roll(z, -1, 1))
        z /= np.maximum(np.abs(z), 1e-12)
    return z[:size, :size].real > 0


def separate(u: np.ndarray, kappa: float, steps: int) -> np.ndarray:
    """The concentration u (n, n), float32, after steps of 0.5 of du/dt = lap(u^3 - u - kappa lap u), periodic.

    Semi-implicit with the convex splitting 2 u - (3 u - u^3), which never raises the free energy.
    """
    dt, n, u = 0.5, len(u), u.astype(np.float32)  # half the time of float64
    k_y, k_x = _wave_numbers(n)
    k2 = k_y**2 + k_x**2
    damping = np.float32(1 / (1 + dt * k2 * (2 + kappa * k2)))
    drive = np.float32(dt * k2) * damping
    wave = fft.rfft2(u)
    for _ in range(steps):
        wave = damping * wave - drive * fft.rfft2(u * (u * u - 3))
        u = fft.irfft2(wave, s=(n, n))
    return u


@_family(mean=_flat(-0.4, 0.4), kappa=_log(0.5, 16), steps=_steps(30, 400))
def phase_separation(rng, size, mean, kappa, steps):
    """A mixture that separates: interfaces 3 sqrt(kappa) wide, the first waves 9 sqrt(kappa) long."""
    return separate(mean + 0.3 * rng.standard_normal((_wide(size),) * 2), kappa, steps)[:size, :size] > 0


@_family(radius=_log(2, 15), spread=_flat(0, 0.6), coverage=_flat(0.06, 0.4))
def droplets(rng, size, radius, spread, coverage):
    """Discs with log-normal radii, the largest first, 1.5 pixels apart or more, as long as there is place."""
    margin = 2 * radius
    side = size + 2 * margin
    area = np.pi * radius**2 * np.exp(2 * spread**2)
    radii = radius * np.exp(spread * rng.standard_normal(int(np.ceil(coverage * side**2 / area))))
    radii = np.sort(np.clip(radii, 1.5, 30))[::-1]
    centres, placed = np.empty((len(radii), 2)), 0
    for trial in rng.uniform(-margin, size + margin, (8 * len(radii), 2)):
        gaps = ((centres[:placed] - trial) ** 2).sum(1) - (radii[:placed] + radii[placed] + 1.5) ** 2
        if (gaps > 0).all():
            centres[placed] = trial
            placed += 1
            if placed == len(radii):
                break
    image = np.zeros((size, size), bool)
    for (y, x), r in zip(centres[:placed], radii):
        box = tuple(slice(max(0, int(c - r)), max(0, int(c + r) + 2)) for c in (y, x))
        i, j = np.mgrid[box]
        inside = (i - y) ** 2 + (j - x) ** 2 <= r**2
        image[box] |= inside[: max(0, size - box[0].start), : max(0, size - box[1].start)]
    return image


@cache
def _font(face: str, height: int):
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVu{face}.ttf"), height)


@_family(face=_one_of(*_FACES), height=_steps(9, 40), angle=_flat(0, 360))
def text(rng, size, face, height, angle):
    """Lines of words of 1 to 9 letters, turned by an angle in degrees; two levels, no grey edges."""
    side = 2 * size  # holds the window at any angle
    page = Image.new("1", (side, side))
    pen = ImageDraw.Draw(page)
    for line in range(int(side / (1.2 * height)) + 1):
        letters = rng.choice(_LETTERS, int(3 * side / height) + 9)
        words = np.split(letters, np.cumsum(rng.integers(1, 10, len(letters) // 9)))
        pen.text((-rng.uniform(0, height), 1.2 * line * height), " ".join(map("".join, words)), 1, _font(face, height))
    start = (side - size) // 2
    return np.asarray(page.rotate(angle))[start : start + size, start : start + size]


@cache
def _texture(name: str) -> np.ndarray:
    return getattr(data, name)().astype(np.float32)


@_family(name=_one_of(*_TEXTURES), magnified=_log(1 / 3, 2))
def textures(rng, size, name, magnified):
    """A square of a photograph, at most the whole, resized with anti-aliasing and cut at its median."""
    photograph = _texture(name)
    side = min(round(size / magnified), *photograph.shape)
    i, j = (rng.integers(0, n - side + 1) for n in photograph.shape)
    return _cut(resize(photograph[i : i + side, j : j + side], (size, size), anti_aliasing=True), 0.5)


FAMILIES: dict[str, Callable[[int, int, int], np.ndarray]] = {name: partial(_images, name) for name in sorted(_drawers)}
