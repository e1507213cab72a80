"""Figures: what is drawn is measured in the pixels of the PNG, and colours stay apart for the colour-blind."""

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from skimage.color import rgb2lab
from synthetic import film, table

from hamscope import figures
from hamscope.data.results import NO_PATTERN
from hamscope.models import CLASS_NAMES

pytestmark = pytest.mark.filterwarnings("error")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def count(path, colour) -> int:
    """Pixels of exactly this colour."""
    return int((pixels(path) == np.round(255 * np.array(to_rgb(colour)))).all(axis=2).sum())


@pytest.fixture(scope="module")
def results():
    return film("film.tif")


@pytest.mark.parametrize(
    "seen",
    # Machado et al., IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009), doi:10.1109/TVCG.2009.113, severity 1.
    [
        np.eye(3),
        np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    ],
    ids=["all", "protanopia", "deuteranopia"],
)
def test_bright_colours_stay_apart_for_the_colour_blind(seen):
    """Any two of the seven differ by more than 10 in CIE Lab, also without red or green cones.

    Seen to fail with RF-2D = #228833 beside P-2D (0), and with #2CA02C beside #D62728, matplotlib's green and red, in
    deuteranopia.
    """
    rgb = np.array([to_rgb(colour) for colour in figures.COLOURS.values()])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92) @ seen.T
    linear = np.clip(linear, 0, 1)
    lab = rgb2lab(np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)[None])[0]
    assert list(figures.COLOURS) == list(CLASS_NAMES)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 10


def test_map_is_bright_where_confident_and_pale_without_pattern():
    """Class and flag of every window decide its colour.  Seen to fail with bright and dark exchanged."""
    classes = np.array([[2, 2, NO_PATTERN], [0, 6, 6]], np.uint8)
    flags = np.array([[1, 0, 1], [0, 1, 0]], np.uint8)
    picture = figures.class_picture(classes, flags)
    bright = {name: to_rgb(colour) for name, colour in figures.COLOURS.items()}
    dark = {name: tuple(part / 2 for part in colour) for name, colour in bright.items()}
    expected = [[bright["RF-2D"], dark["RF-2D"], to_rgb(figures.EMPTY)], [dark["C-2D"], bright["P*"], dark["P*"]]]
    np.testing.assert_allclose(picture, expected)


def test_pictures_show_frames_and_maps_in_their_places(results, tmp_path):
    """Three frames 25, 50 and 75 % up, dark = up, and below them maps of one class each, from left to right.

    Seen to fail with up drawn pale (75, 50, 25 %), and with the maps of the first three rows whatever rows are asked.
    """
    preview = np.full((4, 40, 40), 255, np.uint8)
    preview[:, :32, :32] = 0
    for row, up in enumerate((32, 8, 16, 24)):
        preview[row, :up, :32] = 1
    maps = [np.full((4, 4), k, np.uint8) for k in (6, 0, 2, 4)]
    made = dataclasses.replace(table([{"index": k} for k in range(4)], {}), preview=preview, class_maps=maps)
    figures.frames_and_maps(made, [1, 2, 3], tmp_path / "maps.png")
    image = pixels(tmp_path / "maps.png")
    thirds = np.array_split(image, 3, axis=1)
    dark = [int((third == (0x1F, 0x2A, 0x36)).all(axis=2).sum()) for third in thirds]
    assert np.array(dark) / dark[2] == pytest.approx([1 / 3, 2 / 3, 1], rel=0.02)
    for third, name in zip(thirds, ("C-2D", "RF-2D", "P-2D")):
        here = [(third == np.round(255 * np.array(to_rgb(figures.COLOURS[k])))).all(axis=2).sum() for k in CLASS_NAMES]
        assert CLASS_NAMES[int(np.argmax(here))] == name
    assert count(tmp_path / "maps.png", figures.COLOURS["P*"]) < 100  # the edges of letters


def test_six_axes_hold_the_centres(results):
    """The axes are orthonormal, and six of them give back every centre; the first is the longest way between them.

    Seen to fail with axes from the scatter of all points: a class with one far point takes the first axis.
    """
    points = np.random.default_rng(1).normal(size=(7, 60, 7)) * 0.1
    points += np.diag([30.0, 1, 2, 3, 4, 5, 6])[:, None]
    points[1, 40:] = np.nan
    points[3, 0, 6] = 500.0
    origin, axes, weights = figures.cloud_axes(points)
    centres = np.nanmean(points, axis=1)
    np.testing.assert_allclose(axes @ axes.T, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(origin + (centres - origin) @ axes[:6].T @ axes[:6], centres, atol=1e-9)
    assert weights.sum() == pytest.approx(1) and weights[6] == pytest.approx(0, abs=1e-12)
    assert abs(axes[0, 0]) > 0.95


def test_windows_are_drawn_on_the_clouds_filled_where_confident(results, tmp_path):
    """Black points for confident windows only.  Seen to fail with the flags ignored."""
    sample = results.cloud_sample[2][:200]
    for flag in (True, False):
        figures.clouds(results.cloud_sample, tmp_path / f"{flag}.png", sample, np.full(200, flag))
    black = [int((pixels(tmp_path / f"{flag}.png") < 60).all(axis=2).sum()) for flag in (True, False)]
    assert black[0] > black[1] + 1500
    figures.clouds(results.cloud_sample, tmp_path / "none.png", np.full((5, 7), np.nan), np.zeros(5, bool))


def test_clouds_of_two_classes_can_be_drawn(results, tmp_path):
    points = results.cloud_sample.copy()
    points[2:] = np.nan
    figures.clouds(points, tmp_path / "clouds.png")
    assert count(tmp_path / "clouds.png", "white") > 0


def test_training_figures(tmp_path):
    """A log with an error of zero, and a class without any image, are drawn."""
    keys = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    figures.learning_curve([{"epoch": k, **dict.fromkeys(keys, 1.0 / k)} for k in (1, 2, 3)], tmp_path / "curve.png")
    matrix = np.diag([5, 5, 5, 0, 5, 5, 5])
    figures.confusion_matrix(matrix, tmp_path / "confusion.png")
    assert pixels(tmp_path / "curve.png").shape[1] == round(figures.WIDTH * figures.DPI)
    # Six full squares of the darkest blue; the empty row has none.
    full, square = count(tmp_path / "confusion.png", "#08306b"), (pixels(tmp_path / "confusion.png").shape[0] / 9) ** 2
    assert 5 * square * 0.8 < full < 7 * square * 1.4


def test_equal_results_give_equal_bytes(results, tmp_path):
    for name in ("a", "b"):
        figures.frames_and_maps(results, list(range(12)), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_evenly_spaced_keeps_both_ends():
    assert figures.evenly_spaced(list(range(30)), 6) == [0, 6, 12, 17, 23, 29]
    assert figures.evenly_spaced([7], 6) == [7]
