"""Plots of a series: what is drawn is measured in the pixels of the PNG, and the places it returns are where it is."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from synthetic import film, table

from hamscope import film_figures
from hamscope.figures import COLOURS, darker

pytestmark = pytest.mark.filterwarnings("error")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def is_colour(image, colour) -> np.ndarray:
    return (image == np.round(255 * np.array(to_rgb(colour)))).all(axis=-1)


def count(path, colour) -> int:
    """Pixels of exactly this colour."""
    return int(is_colour(pixels(path), colour).sum())


def loop(n: int = 5, below: float = 2.5, **more) -> list[dict]:
    """Frames of a heating branch, 300 K and up in uneven steps, and a cooling branch `below`; one class each."""
    kelvin = 300 + np.array([0, 1, 2, 4, 5, 7, 8, 9, 11, 12])[:n]
    names = list(COLOURS)
    up = [{"index": k, "kelvin": t, "direction": 1, "shares": {names[k % 7]: 1.0}, "sure": {names[k % 7]: 1.0}}
          for k, t in enumerate(kelvin)]  # fmt: skip
    down = [{"index": n + k, "kelvin": t - below, "direction": -1, "shares": {names[(k + 3) % 7]: 1.0},
             "sure": {names[(k + 3) % 7]: 1.0}} for k, t in enumerate(kelvin[::-1])]  # fmt: skip
    return [frame | more for frame in up + down]


def test_columns_have_the_heights_of_the_shares(tmp_path):
    """Areas in the picture: RF-2D confident 0.6, RF-2D not confident 0.2, C-2D not confident 0.2.

    Seen to fail with the whole share drawn on top of the confident part: columns of 140 %.
    """
    shares, sure = {"RF-2D": 0.8, "C-2D": 0.2}, {"RF-2D": 0.6}
    made = table([{"index": k, "shares": shares, "sure": sure} for k in range(8)])
    film_figures.fractions(made, list(range(8)), tmp_path / "shares.png")
    bright = count(tmp_path / "shares.png", COLOURS["RF-2D"])
    dark = [count(tmp_path / "shares.png", darker(COLOURS[name])) for name in ("RF-2D", "C-2D")]
    assert np.array(dark) / bright == pytest.approx([0.2 / 0.6] * 2, rel=0.06)  # white edges take some pixels


@pytest.mark.parametrize("below", [2.5, 60.0])
@pytest.mark.parametrize("narrow", [False, True])
def test_every_frame_stands_where_it_is_said_to(tmp_path, narrow, below):
    """At the place that is returned for a frame the picture has the colour of its class, top to bottom.

    Ten frames of two branches in uneven steps, in the picture in two panels, which they fill also where the branches
    lie far apart.  Seen to fail with heating and cooling exchanged, with the places of bars in equal steps, and with
    one axis for branches that lie far apart (0.06 of the width for 0.6).
    """
    made = table(loop(below=below))
    places = film_figures.fractions(made, list(range(10)), tmp_path / "shares.png", narrow)
    image = pixels(tmp_path / "shares.png")
    for row, (x, top, bottom) in enumerate(places):
        name = list(COLOURS)[int(np.nanargmax(made.fractions[row]))]
        column = image[:, round(x * image.shape[1])]
        for part in (0.2, 0.5, 0.9):
            assert is_colour(column[round((top + part * (bottom - top)) * len(image))], COLOURS[name])
    assert max(place[2] for place in places[:5]) < min(place[1] for place in places[5:])
    steps = np.diff([place[0] for place in places])
    assert steps[:4].sum() > 0.4
    assert steps[:4] / steps[0] == pytest.approx([1, 1, 2, 1], rel=1e-2)
    assert steps[5:] / steps[0] == pytest.approx([-1, -2, -1, -1], rel=1e-2)


@pytest.mark.parametrize("below", [2.5, 60.0])
def test_a_point_of_the_distances_stands_where_it_is_said_to(tmp_path, below):
    """At the place that is returned for a heating frame there is a point of the class drawn strongly.

    Branches far apart have panels of their own.  Seen to fail with the limits of the data taken for those of the axis,
    with the panels exchanged, in the picture or in the places, and with one panel for all.
    """
    made = table(loop(below=below, distance={"RF-3D": 1.0}))
    places = film_figures.distances(made, list(range(10)), tmp_path / "far.png", "RF-3D")
    image = is_colour(pixels(tmp_path / "far.png"), COLOURS["RF-3D"])
    height = int(np.argmax(image[:, : round(0.8 * image.shape[1])].sum(axis=1)))  # the line of heating and cooling
    assert places[4][0] - places[0][0] > (0.2 if below > 10 else 0.4)
    assert min(x for x, *_ in places[:5]) > min(x for x, *_ in places[5:])  # it is warmer there
    for x, top, bottom in places[:5]:
        assert image[height - 3 : height + 4, round(x * image.shape[1]) + np.arange(-3, 4)].mean() > 0.7
        assert top < height / len(image) < bottom and bottom > 0.8


def test_without_temperatures_the_number_of_the_frame_is_the_axis():
    """Unknown, or twice the same in a branch: the numbers; frames alone in their files are counted."""
    series = loop()
    assert film_figures.series_axis(table(series), list(range(10))).title == "temperature (K)"
    series[3]["kelvin"] = series[2]["kelvin"]
    axis = film_figures.series_axis(table(series), list(range(10)))
    assert axis.title == "frame" and list(axis.x) == list(range(10)) and len(axis.branches) == 1
    alone = table([{"source": f"{k}.png"} for k in range(3)])
    assert list(film_figures.series_axis(alone, [0, 1, 2]).x) == [1, 2, 3]


def test_error_bars_are_as_long_as_the_errors(tmp_path):
    """Points at 6, 4 and 2 sigma with bars of 0, 0.5 and 1 sigma to each side; the points give the scale.

    Seen to fail with the errors of another class, and with bars of twice the error.
    """
    far = [dict.fromkeys(COLOURS, 9.0) | {"RF-2D": value} for value in (6.0, 4.0, 2.0)]
    made = table([{"index": k, "distance": own, "kelvin": 300.0 + k} for k, own in enumerate(far)])
    for sigma in (0.0, 0.5, 1.0):
        error = np.where(np.arange(7) == 2, sigma, 3.0) * np.ones((3, 1))
        places = film_figures.distances(made, [0, 1, 2], tmp_path / "far.png", "RF-2D", error)
        image = is_colour(pixels(tmp_path / "far.png"), COLOURS["RF-2D"])
        columns = [image[:, round(x * image.shape[1]) + np.arange(-1, 2)].any(axis=1) for x, *_ in places]
        ends = np.array([np.flatnonzero(column)[[0, -1]] for column in columns])
        scale = np.ptp(ends.mean(axis=1)) / 4
        length = np.ptp(ends, axis=1)[1] / 2 / scale
        assert length == pytest.approx(max(sigma, 0.1), abs=0.1)


def test_series_that_are_long_short_or_empty(tmp_path):
    """300 frames, up and down again in temperature, frames without pattern, and none at all with one."""
    frames = [
        {"index": k, "kelvin": 340 + 5 * np.sin(k / 90), "direction": 1 if k < 141 else -1,
         "windows": 100 * (k % 9 > 0)}
        for k in range(300)
    ]  # fmt: skip
    empty = table([{"index": k, "windows": 0} for k in range(3)])
    for name, made in (("long", table(frames)), ("empty", empty), ("two", film("a.tif", 2))):
        rows = list(range(len(made.source)))
        for narrow in (False, True):
            film_figures.distances(made, rows, tmp_path / f"{name}-far-{narrow}.png", None, None, narrow)
            film_figures.fractions(made, rows, tmp_path / f"{name}-{narrow}.png", narrow)
    assert len(list(tmp_path.glob("*.png"))) == 12


def test_the_class_that_is_nearest_is_drawn_strongly(tmp_path):
    """Without a class given, the nearest on the average.  Seen to fail with the first class taken."""
    made = table([{"index": k, "distance": {"P-2D": 1.0}} for k in range(5)])
    film_figures.distances(made, list(range(5)), tmp_path / "near.png")
    drawn = {name: count(tmp_path / "near.png", COLOURS[name]) for name in ("C-2D", "P-2D")}
    assert drawn["P-2D"] > 2 * drawn["C-2D"]


def test_equal_results_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        film_figures.fractions(table(loop()), list(range(10)), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
