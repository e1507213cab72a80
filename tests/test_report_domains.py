"""Domains, loops and quarantined frames in the report: texts and tables against patterns of known numbers."""

import csv
import dataclasses

import numpy as np
import pytest
from synthetic import film, table

from hamscope import report, report_domains
from hamscope.data.results import Quarantined, write_results
from hamscope.data.windows import MASKED


def lines_of(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def squares(n_frames: int = 1, **more):
    """Frames of 64 x 64: nine up squares of 4 x 4, and a bar of 2 x 64 across the top rows 60 and 61."""
    image = np.zeros((64, 64), np.uint8)
    for i in (5, 15, 25):
        for j in (5, 15, 25):
            image[i : i + 4, j : j + 4] = 1
    image[60:62] = 1
    frames = [{"index": k, "shares": {"C-2D": 1.0}} | {name: values[k] for name, values in more.items()}
              for k in range(n_frames)]  # fmt: skip
    preview = np.full((n_frames, 70, 70), 255, np.uint8)
    preview[:, :64, :64] = image
    return dataclasses.replace(table(frames), preview=preview)


def test_domains_of_a_known_pattern(tmp_path):
    """Ten clusters up; the largest is the bar, 128 of 4,096 pixels, and spans the columns alone; down spans both ways.

    Seen to fail with the padding of the preview measured as part of the frame, and with rows and columns exchanged.
    """
    write_results(tmp_path / "r.h5", squares(2))
    report.write_report(tmp_path / "r.h5", tmp_path / "report")
    lines = lines_of(tmp_path / "report" / "domains.csv")
    assert [(line["frame"], line["phase"]) for line in lines] == [
        ("0", "up"),
        ("0", "down"),
        ("1", "up"),
        ("1", "down"),
    ]
    up, down = lines[:2]
    assert (up["clusters"], float(up["largest"])) == ("10", 128 / 4096)
    assert (up["spans_rows"], up["spans_columns"]) == ("0", "1")
    assert down["clusters"] == "2" and down["spans_columns"] == "1"


def test_electrodes_are_no_domains(tmp_path):
    """A masked strip beside the pattern: clusters, shares and errors are those of the rest of the frame alone.

    Seen to fail with the strip measured as down, which makes the down phase larger and the magnetization steadier.
    """
    bare = squares(1)
    cut = dataclasses.replace(bare, preview=bare.preview[:, :, 4:])
    masked = dataclasses.replace(bare, preview=bare.preview.copy())
    masked.preview[:, :64, :4] = MASKED
    of, expected = (report_domains.measure(one, [0])[0].phases for one in (masked, cut))
    for phase in ("up", "down"):
        assert of[phase].largest == expected[phase].largest and of[phase].clusters.pixels == 64 * 60
        assert sorted(of[phase].clusters.size) == sorted(expected[phase].clusters.size)
        assert of[phase].spanning == expected[phase].spanning
    errors = [report_domains.series_loops(one, [0])[1] for one in (bare, masked, cut)]
    assert errors[1] != errors[0] and errors[1] == pytest.approx(errors[2], rel=0.1)


def test_texts_of_a_frame():
    """The pairs that the slider shows, in words; lengths in pixels of a frame that is twice its preview.

    Seen to fail with the lengths of the preview.
    """
    rng = np.random.default_rng(1)
    one = report_domains.measure(film("a.tif", 1), [0])[0]
    pairs, doubled = (dict(report_domains.texts(dataclasses.replace(one, block=block))) for block in (1, 2))
    length = one.lengths.efold
    assert pairs["Correlation length"] == f"{length.value:.2f} ± {length.error:.2f} px"
    assert float(doubled["Correlation length"].split()[0]) == pytest.approx(2 * length.value, abs=0.06)
    assert set(pairs) == {"Correlation length", "Largest up", "Largest down", "tau, up", "tau, down"}
    noise = dataclasses.replace(film("a.tif", 1), preview=rng.integers(0, 2, (1, 256, 256)).astype(np.uint8))
    marked = dict(report_domains.texts(report_domains.measure(noise, [0])[0]))
    assert marked["Correlation length"].endswith("px (?)") and marked["Largest up"].endswith("spans nothing")


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(2.3823, 0.0521, "2.382 ± 0.052"), (342.2, 1.26, "342.2 ± 1.3"), (5.0, np.nan, "5"), (120.0, 31.0, "120 ± 31")],
)
def test_two_digits_of_the_error(value, error, text):
    assert report_domains.with_error(value, error) == text


def test_loop_of_a_film(tmp_path):
    """Heating crosses m = 0 at 302.5 K and cooling at 299.5 K, by hand: a loop 3 K wide; a lone branch is half a loop.

    Seen to fail with m taken as the share up, and with heating and cooling exchanged.
    """
    kelvin = [300.0, 301, 302, 303, 304, 305] * 2
    up = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    made = squares(12, kelvin=kelvin[:6] + [value - 3 for value in kelvin[5::-1]], up=up + up[::-1],
                   direction=[1] * 6 + [-1] * 6)  # fmt: skip
    write_results(tmp_path / "r.h5", made)
    page = report.write_report(tmp_path / "r.h5", tmp_path / "report").read_text()
    (line,) = lines_of(tmp_path / "report" / "loops.csv")
    assert [float(line[name]) for name in ("heating_K", "cooling_K", "width_K")] == pytest.approx([302.5, 299.5, 3.0])
    assert "302.50 ± " in page and "299.50 ± " in page and (tmp_path / "report" / "source-01-loop.png").exists()
    names = [field.name for field in dataclasses.fields(made) if field.name not in ("attributes", "cloud_sample")]
    half = dataclasses.replace(made, **{name: getattr(made, name)[:6] for name in names})
    write_results(tmp_path / "half.h5", half)
    page = report.write_report(tmp_path / "half.h5", tmp_path / "half").read_text()
    (line,) = lines_of(tmp_path / "half" / "loops.csv")
    assert float(line["heating_K"]) == pytest.approx(302.5) and line["cooling_K"] == line["width_K"] == ""
    assert "Only one branch was measured." in page


def test_quarantined_frames_are_named(tmp_path):
    """Count, names and reasons are on the page and in a table; without any there is neither.

    Seen to fail with the count of the frames that were classified.
    """
    bad = [Quarantined("film.tif", 7, "three tries: <b>truncated</b>"), Quarantined("$x$.tif", 0, "no memory")]
    write_results(tmp_path / "r.h5", dataclasses.replace(squares(3), quarantined=bad))
    page = report.write_report(tmp_path / "r.h5", tmp_path / "report").read_text()
    assert "2 of 5 frames could not be" in page and 'id="quarantined"' in page
    assert "three tries: &lt;b&gt;truncated&lt;/b&gt;" in page and "$x$.tif" in page
    assert [tuple(line.values()) for line in lines_of(tmp_path / "report" / "quarantined.csv")] == [
        ("film.tif", "7", "three tries: <b>truncated</b>"), ("$x$.tif", "0", "no memory"),
    ]  # fmt: skip
    write_results(tmp_path / "s.h5", squares(3))
    page = report.write_report(tmp_path / "s.h5", tmp_path / "whole")
    assert "quarantined" not in page.read_text() and not (page.parent / "quarantined.csv").exists()


def test_long_series_are_measured_in_part(monkeypatch):
    """Of nine frames with a pattern four are measured, first and last among them; a frame without a pattern never."""
    monkeypatch.setattr(report_domains, "MOST_FRAMES", 4)
    made = squares(10, windows=[0, *[100] * 9])
    assert list(report_domains.measure(made, list(range(10)))) == [1, 4, 6, 9]
