"""The threshold panel: its numbers on frames whose grey values are counted out, and what its line says."""

import csv

import numpy as np
import pytest
from PIL import Image

from hamscope.errors import UserError
from hamscope.prepare import prepare
from hamscope.prepare_frames import Options
from hamscope.threshold_panel import OFFSETS, Case, Panel, line, table

SIDE = 120


def frame(seed):
    """40 % of the pixels at 100, 10 % at 117, 10 % at 123 and 40 % at 140, anywhere."""
    values = np.repeat([100.0, 117.0, 123.0, 140.0], np.array([40, 10, 10, 40]) * SIDE * SIDE // 100)
    return np.random.default_rng(seed).permutation(values).reshape(SIDE, SIDE)


def correlation(bright):
    """Mean of s s' over all pairs of neighbours, counted pair by pair."""
    same = [(bright[1:] == bright[:-1]).ravel(), (bright[:, 1:] == bright[:, :-1]).ravel()]
    return 2 * np.concatenate(same).mean() - 1


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """Two frames with their threshold at 120, and the shipped bundle: the folder, the rows of the CSV and the lines."""
    folder = tmp_path_factory.mktemp("panel")
    np.save(folder / "f.npy", np.stack([frame(0), frame(1)]))
    lines = prepare([str(folder / "f.npy")], folder / "p.h5", Options(threshold=120.0), panel=Panel())
    with open(folder / "p.panel.csv", newline="") as file:
        return folder, list(csv.DictReader(file)), lines


def test_numbers_of_known_frames(panel):
    """The contrast at 120 is 136.6 - 103.4 = 33.2, 15 % of it 4.98: thresholds 115.02, 120 and 124.98.

    So 60, 50 and 40 % are bright.  Neighbours are counted pair by pair.  Seen to fail with 15 % of the threshold.
    """
    _, rows, _ = panel
    for row, level, share in zip(rows, (115.02, 120, 124.98), (0.6, 0.5, 0.4)):
        assert float(row["threshold"]) == pytest.approx(level) and float(row["up_fraction"]) == pytest.approx(share)
        expected = correlation(frame(int(row["frame"])) > level)
        assert float(row["neighbour_correlation"]) == pytest.approx(expected, abs=1e-6)


def test_the_network_is_asked_at_every_threshold(panel):
    """2 x 2 windows a frame at stride 16; shares add up, and the last rows pool the frames.

    Coins of 60, 50 and 40 % are percolation for the shipped bundle at each threshold.
    """
    folder, rows, lines = panel
    assert [row["offset"] for row in rows[:3]] == ["-0.15", "+0.00", "+0.15"]
    frames = [row for row in rows if row["frame"] != "all"]
    assert all(row["windows"] == "4" for row in frames) and rows[-1]["windows"] == str(4 * len(frames) // 3)
    for row in rows:
        shares = {name: float(row[name]) for name in ("C-2D", "C-3D", "RF-2D", "RF-3D", "P-2D", "P-3D", "P*")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert row["leads"] == max(shares, key=shares.get) and row["leads"].startswith("P")
    assert any("threshold panel: the verdict" in text for text in lines)
    with Image.open(folder / "p.panel.png") as image:
        assert image.width > 900


def test_masked_windows_are_not_asked(tmp_path):
    """With one masked pixel in the first window three of four are left.  Seen to fail with all windows asked."""
    np.save(tmp_path / "f.npy", frame(0))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[3, 3] = 1
    np.save(tmp_path / "m.npy", mask)
    options = Options(threshold=120.0, mask=str(tmp_path / "m.npy"))
    prepare([str(tmp_path / "f.npy")], tmp_path / "p.h5", options, panel=Panel())
    with open(tmp_path / "p.panel.csv", newline="") as file:
        assert {row["windows"] for row in csv.DictReader(file)} == {"3"}


def test_two_levels_leave_nothing_to_vary(tmp_path):
    """One line, and nothing is written."""
    np.save(tmp_path / "f.npy", (frame(0) > 120).astype(np.uint8))
    with pytest.raises(UserError, match="--panel: the frames have two levels already"):
        prepare([str(tmp_path / "f.npy")], tmp_path / "p.h5", Options(threshold="otsu"), panel=Panel())
    assert [path.name for path in tmp_path.iterdir()] == ["f.npy"]


def cases(*windows):
    """Cases of one frame and more with these windows of each class, three a frame."""
    image = np.zeros((2, 2), np.uint8)
    return [
        Case(k // 3, OFFSETS[k % 3], 1.0, image, 0.5, 0.0, np.array(own + [0] * 5)) for k, own in enumerate(windows)
    ]


def test_the_line_says_whether_the_verdict_changes():
    """By the pooled leader; a frame that changes alone is named; without windows there is no verdict.

    Seen to fail with the first frame in place of all of them, and with a line that never changes.
    """
    assert "does not change within 15 % of the contrast: C-2D 90%" in line(cases([9, 1], [8, 2], [6, 4]))
    assert "CHANGES" in line(cases([9, 1], [8, 2], [4, 6]))
    assert "CHANGES" in line(cases([9, 1], [9, 1], [9, 1], [0, 20], [9, 1], [9, 1]))
    alone = line(cases([9, 1], [9, 1], [9, 1], [3, 2], [3, 2], [2, 3]))
    assert "does not change" in alone and alone.endswith("it changes in frame 1 alone")
    assert "no verdict at one of the thresholds" in line(cases([9, 1], [0, 0], [4, 6]))
    assert table(cases([9, 1], [0, 0], [4, 6]))[2][5:8] == ["", 0, ""]
