"""The report in a real browser: what it shows is what results.h5 holds, on a telephone and on a desk, and no more.

Shown numbers are read back as numbers and held against the columns of the file, to the digits that are shown.
"""

import base64
import dataclasses
import io
import re

import h5py
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from synthetic import film, together

from hamscope import report, viewer
from hamscope.data.results import write_results
from hamscope.figures import COLOURS

WIDTHS = [390, 1280]
VIEWER = "#viewer-source-01"
N = 8


def loop():
    """A film of 16 frames: heating, then cooling 0.5 K lower, the classes of the cooling branch other ones."""
    up, down = film("film.tif", N), film("film.tif", N, "C-3D", "P-2D", seed=4)
    frames = np.arange(N)
    down = dataclasses.replace(
        down, index=down.index + N, direction=np.full(N, -1, np.int8), temperature=345.0 - 0.7 * frames
    )
    parameter = np.full((2 * N, 7), np.nan)
    parameter[1:, 2] = np.linspace(0.9, 1.3, 2 * N - 1)
    return dataclasses.replace(together(up, down), parameter=parameter, parameter_half68=parameter / 20)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of the loop: the results file and the page."""
    folder = tmp_path_factory.mktemp("browser")
    write_results(folder / "results.h5", loop())
    return folder / "results.h5", report.write_report(folder / "results.h5", folder / "report")


def number(text: str) -> float:
    """The first number of a shown text; NaN where it is a dash."""
    found = re.search(r"-?\d[\d,]*\.?\d*", text)
    return float(found[0].replace(",", "")) if found else float("nan")


def is_percent(text: str, share: float) -> bool:
    """Whether a shown percentage is this share, to whole per cent; more than 99 and less than 1 are said as such."""
    if text.startswith(("<", ">")):
        return 0 < share < 0.005 if text[0] == "<" else 0.995 <= share < 1
    return text.endswith("%") and abs(number(text) / 100 - share) <= 0.00501


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_shows_the_numbers_of_the_file(made, opened, width):
    """Every frame, one by one: label, facts, the seven classes with their bars, against the columns of results.h5.

    Seen to fail with the confident shares shown as shares, with the rows in another order than the slider's, and with
    the bars left where they were.
    """
    results, path = made
    shown = opened(path, width)
    with h5py.File(results) as file:
        columns = {name: file[name][:] for name in file if name not in ("maps", "frame", "cloud_sample")}
    names = list(COLOURS)
    for row in range(2 * N):
        shown.slide_to(row, VIEWER)
        part = {name: shown.texts(f'{VIEWER} [data-part="{name}"]')[0] for name in ("label", "place")}
        assert part["place"] == f"{row + 1} of {2 * N}"
        assert (
            part["label"] == f"frame {row}, {columns['temperature'][row]:.2f} K, {'heating' if row < N else 'cooling'}"
        )
        facts = dict(zip(shown.texts(f"{VIEWER} .facts dt"), shown.texts(f"{VIEWER} .facts dd")))
        assert is_percent(facts["Up"], columns["up_fraction"][row])
        assert number(facts["Windows"]) == columns["n_windows"][row]
        assert number(facts["Side by side"]) == columns["n_independent"][row]
        if columns["n_windows"][row] == 0:
            assert facts["Leading class"] == "no pattern" and facts["Share"] == "-"
            continue
        best = int(columns["fractions"][row].argmax())
        assert facts["Leading class"] == names[best]
        assert is_percent(facts["Share"], columns["fractions"][row, best])
        assert is_percent(facts["Confident"], columns["confident_fractions"][row, best])
        check_classes(shown, columns, row, width)
    assert shown.errors == [] and shown.requests == [f"file://{path}"]


def check_classes(shown, columns, row: int, width: int) -> None:
    """The table of the seven classes of the frame that is shown."""
    lines = shown.page.locator(f"{VIEWER} tr[data-class]")
    assert lines.count() == 7
    bars = shown.page.evaluate(
        f"""[...document.querySelectorAll('{VIEWER} .bar')].map(bar => [...bar.children].map(
            part => part.getBoundingClientRect().width / (bar.getBoundingClientRect().width || NaN)))"""
    )
    for k, name in enumerate(COLOURS):
        cells = [text.replace("\u00a0", " ") for text in lines.nth(k).locator("td[data-cell]").all_text_contents()]
        assert lines.nth(k).get_attribute("data-class") == name
        share, sure = columns["fractions"][row, k], columns["confident_fractions"][row, k]
        assert is_percent(cells[0], share) and is_percent(cells[2], sure)
        assert is_percent(cells[3], columns["probabilities"][row, k])
        assert number(cells[4]) == pytest.approx(columns["cloud_distance"][row, k], abs=0.00501)
        value = number(cells[5].split(" ", 1)[-1])
        assert value == pytest.approx(columns["parameter"][row, k], abs=0.00501, nan_ok=True)
        if width > 640:  # a telephone shows no bars
            assert bars[k] == pytest.approx([sure, share - sure], abs=0.01)


def decoded(shown, kind: str) -> np.ndarray:
    """An image of the viewer as the browser has it, (H, W, 4)."""
    address = shown.page.locator(f'{VIEWER} img[data-kind="{kind}"]').first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA"))


def test_the_panel_shows_the_maps_of_the_file(made, opened):
    """Frame, class and flag of every window of three frames; the map lies where its windows have their centres.

    Frames of 256 pixels, windows of 100, stride 8, 20 x 20 windows: the map begins 46 pixels inside and is 160 wide.
    Seen to fail with the images of the frame before, and with the map stretched over the whole frame.
    """
    results, path = made
    shown = opened(path, 1280)
    bright = np.array([to_rgb(colour) for colour in COLOURS.values()])
    with h5py.File(results) as file:
        for row in (1, 6, 2 * N - 2):
            shown.slide_to(row, VIEWER)
            classes, flags = file[f"maps/{row:06d}/class"][:], file[f"maps/{row:06d}/flag"][:]
            expected = bright[classes] * np.where(flags == 1, 1, 0.5)[..., None]
            np.testing.assert_allclose(decoded(shown, "map")[..., :3] / 255, expected, atol=0.003)
            np.testing.assert_array_equal(decoded(shown, "frame")[..., 0] < 128, file["preview"][row] == 1)
            np.testing.assert_array_equal(decoded(shown, "flags")[..., 0] < 128, flags == 1)
    both = f"['> img', '.over img'].map(own => document.querySelector('{VIEWER} .overlay .stack ' + own)"
    frame, laid = shown.page.evaluate(f"{both}.getBoundingClientRect().toJSON())")
    place = [(laid[side] - frame[side]) / frame["width"] * 256 for side in ("x", "y")]
    assert [*place, laid["width"] / frame["width"] * 256] == pytest.approx([46, 46, 160], abs=1)


# Both boxes at one moment, since the page may still be scrolling.
LINE = """plot => {
  const [line, image] = [".cursor", "img"].map(own => plot.querySelector(own).getBoundingClientRect());
  return {x: line.x + line.width / 2 - image.x, top: line.y - image.y, height: line.height, width: image.width};
}"""


def bars_off(plot, line) -> np.ndarray:
    """How many pixels on the screen the line of a plot is right of the middle of each bar, from left to right."""
    address = plot.locator("img").evaluate("image => image.currentSrc")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("L"))
    scale = picture.shape[1] / line["width"]
    x = round(line["x"] * scale)
    row = picture[round((line["top"] + 0.95 * line["height"]) * scale)]
    white = np.flatnonzero(row > 250)
    wide = np.flatnonzero(np.diff(white) > 10 * scale)  # letters and the axis are less
    return (x - (white[wide] + white[wide + 1]) / 2) / scale


@pytest.mark.parametrize("width", WIDTHS)
def test_a_line_in_the_plots_goes_with_the_slider(made, opened, width):
    """It moves with the temperature, to the middle of the frame's bar; a click on the plot moves the slider.

    The bar is looked for in the picture that the browser has chosen for this width.  Seen to fail with the places of
    the wide picture on a telephone, and with the line in the first panel throughout.
    """
    _, path = made
    shown = opened(path, width)
    plot = shown.page.locator(".plot").first
    boxes = []
    # The first frame of each branch has no pattern and no bar; cooling runs from the right.
    for row, bar in ((1, 0), (2, 1), (5, 4), (N + 2, 5)):
        shown.slide_to(row, VIEWER)
        boxes.append(plot.evaluate(LINE))
        off = bars_off(plot, boxes[-1])
        assert len(off) == N - 1 and abs(off[bar]) < 2
    steps = np.diff([box["x"] for box in boxes])
    kelvin = np.array([338.7, 339.4, 341.5, 343.6])
    assert steps / steps[0] == pytest.approx(np.diff(kelvin) / 0.7, rel=0.05)
    assert boxes[2]["top"] + boxes[2]["height"] < boxes[3]["top"]
    plot.locator("img").click(position={"x": boxes[1]["x"] + 2, "y": boxes[1]["top"] + 20})
    assert shown.texts(f'{VIEWER} [data-part="place"]') == [f"3 of {2 * N}"]
    assert shown.errors == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_page(made, opened, width):
    """No horizontal overflow, and no text that is cut, but within parts that scroll by themselves; class tables fit.

    Seen to fail with a table of the classes that is wider than a telephone.
    """
    _, path = made
    shown = opened(path, width)
    shown.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    wide = shown.page.evaluate(
        """[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, .stack, .bar, script')
            && one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    tables = (
        "[...document.querySelectorAll('table.classes')].map(one => one.scrollWidth - one.parentElement.clientWidth)"
    )
    assert max(shown.page.evaluate(tables)) <= 0


CONTRAST = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = channels(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    const both = [light(channels(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
    found.push([(both[0] + 0.05) / (both[1] + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


def test_everybody_can_read_it(made, opened):
    """Contrast of all text 4.5 and more (WCAG 2.2, 1.4.3), names of all controls and pictures, headings in order.

    Seen to fail with the soft ink at #8a8a8a (3.5), and with the label of the slider taken away.
    """
    _, path = made
    shown = opened(path, 1280)
    shown.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    contrasts = shown.page.evaluate(CONTRAST)
    assert len(contrasts) > 200 and min(contrasts)[0] >= 4.5, min(contrasts)
    assert shown.page.get_attribute("html", "lang") == "en" and shown.page.title()
    assert shown.page.evaluate("[...document.images].filter(one => !one.hasAttribute('alt')).length") == 0
    # An image without words is the frame below a map, which has them.
    unsaid = shown.page.evaluate("[...document.images].filter(one => !one.alt).map(one => one.parentElement.className)")
    assert set(unsaid) == {"stack"}
    named = "one => one.getAttribute('aria-label') || (one.labels && one.labels.length) || one.textContent.trim()"
    controls = "document.querySelectorAll('button, input, a, summary')"
    assert shown.page.evaluate(f"[...{controls}].filter(one => !({named})(one)).map(one => one.outerHTML)") == []
    levels = [int(level) for level in shown.page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map(one => one.tagName[1])")]  # fmt: skip
    assert levels[0] == 1 and levels.count(1) == 1
    slider = shown.page.locator(f"{VIEWER} input.frames")
    before = slider.get_attribute("aria-valuetext")
    shown.page.locator(f"{VIEWER} .next").press("Enter")
    assert slider.get_attribute("aria-valuetext") != before and " of 16" in before


def test_a_large_series_loads_its_panels_from_the_folder(tmp_path, opened, monkeypatch):
    """Panels beside the page are shown and asked for by relative path, a frame at a time; the rest of it as before.

    Seen to fail with a policy that allows pictures inside of the page only.
    """
    monkeypatch.setattr(viewer, "ONE_FILE", 1000)
    write_results(tmp_path / "results.h5", film("film.tif", 5))
    path = report.write_report(tmp_path / "results.h5", tmp_path / "report")
    shown = opened(path, 1280)
    loaded = (
        f"() => [...document.querySelectorAll('{VIEWER} .stack img')].every(one => one.complete && one.naturalWidth)"
    )
    for place in (0, 4):
        shown.slide_to(place, VIEWER)
        shown.page.wait_for_function(loaded)
    files = {url.removeprefix(f"file://{path.parent}/") for url in shown.requests}
    assert {
        "index.html",
        *(f"panels/{row:06d}-{kind}.png" for row in (0, 4) for kind in ("frame", "map", "flags")),
    } <= files
    assert all(re.fullmatch(r"index\.html|panels/\d{6}-\w+\.png", name) for name in files)
    assert shown.errors == []


def test_without_scripts_and_on_paper(made, opened):
    """Without scripts one frame is there and no dead control; on paper there is no control either.

    Seen to fail with the controls shown whatever the script does.
    """
    results, path = made
    still = opened(path, 1280, java_script_enabled=False)
    assert not still.page.locator(".controls").first.is_visible() and not still.page.locator(".mix").first.is_visible()
    with h5py.File(results) as file:
        even = np.where(file["n_windows"][:] > 0, abs(file["up_fraction"][:] - 0.5), 1)
    assert still.texts(f'{VIEWER} [data-part="label"]')[0].startswith(f"frame {int(even.argmin())},")
    printed = opened(path, 700)
    assert printed.page.locator(".controls").first.is_visible()
    printed.page.emulate_media(media="print")
    assert not printed.page.locator(".controls").first.is_visible()
    assert printed.page.locator(f"{VIEWER} .panels").is_visible()
    assert printed.page.evaluate("document.documentElement.scrollWidth") <= 700
    assert printed.page.pdf(format="A4")[:5] == b"%PDF-"


def test_hostile_names_do_nothing(tmp_path, opened):
    """Names that are scripts, elements and ends of the data block are shown as they are and never run.

    Seen to fail with the data of the frames put into the page as plain JSON.
    """
    names = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", '"><svg onload=alert(3)>', "<!--"]
    parts = [dataclasses.replace(film("x", 1, seed=k), source=[name]) for k, name in enumerate(names)]
    write_results(tmp_path / "results.h5", together(*parts))
    shown = opened(report.write_report(tmp_path / "results.h5", tmp_path / "report"), 390)
    for place, name in enumerate(names):
        shown.slide_to(place, "#viewer-single")
        assert shown.texts('#viewer-single dd[data-fact="0"]') == [name]
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert shown.errors == [] and len(shown.requests) == 1
