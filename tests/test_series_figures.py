"""Figures of domains and series: they are drawn from whatever is found, and equal input gives equal bytes."""

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import ndimage

from hamscope import correlations, domains, hysteresis, separated, series_figures
from hamscope.power_laws import Exponent


def blobs(up: float) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(160, 160)), 2)
    return field > np.quantile(field, 1 - up)


@pytest.mark.parametrize("image", [blobs(0.4), np.ones((40, 40))])
def test_domains_of_any_frame_are_drawn(image, tmp_path):
    """Domains, and one level: three pictures each, and one of them again, byte for byte."""
    phases, found = domains.domain_statistics(image), correlations.correlation(image)
    for name in ("sizes", "again"):
        series_figures.cluster_sizes(phases, tmp_path / f"{name}.png")
    series_figures.outlines(phases, tmp_path / "outlines.png")
    series_figures.correlations([found, found], ["344.1 K", "345.0 K"], tmp_path / "correlations.png")
    assert (tmp_path / "sizes.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    assert all(imread(path).std() > 0.01 for path in tmp_path.iterdir())


def test_series_of_any_kind_are_drawn(tmp_path):
    """A loop, one branch of unknown direction, and frames without a distance."""
    x = np.concatenate([np.arange(330, 350.0), np.arange(349, 329.0, -1)])
    direction = np.repeat([1, -1], 20)
    m = np.tanh((x - 340 - 2 * direction) / 2)
    distance = 1 + np.abs(m)
    distance[3] = np.nan
    error = np.full(40, 0.1)
    error[4] = np.nan
    closest = separated.closest_approach(distance, error)
    loops = hysteresis.loops(x, m, direction, error)
    for k, own in enumerate((direction, np.zeros(40, int))):
        series_figures.hysteresis(x, m, own, loops * (1 - k), tmp_path / f"loop-{k}.png", error)
        series_figures.distances(x, distance, error, own, "RF-2D", tmp_path / f"distance-{k}.png", closest)
    nothing = np.full(3, np.nan)
    series_figures.hysteresis(nothing, nothing, np.zeros(3, int), [], tmp_path / "empty.png")
    series_figures.distances(nothing, nothing, nothing, np.zeros(3, int), "P*", tmp_path / "none.png")
    assert all(imread(path).std() > 0.005 for path in tmp_path.iterdir())


def test_exponents_as_text():
    """Two digits of the error; a doubtful one is marked, none is no fit."""
    assert series_figures.number(Exponent(2.0138, 0.0547, 32, 4000, 500)) == "2.014 \u00b1 0.055"
    assert series_figures.number(Exponent(1.9, 0.12, 3, 40, 50, reason="curved: ...")) == "1.90 \u00b1 0.12 (curved)"
    assert series_figures.number(Exponent(np.nan, np.nan, 3, 4, 5, reason="less")) == "no fit"
