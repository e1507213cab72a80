"""The report as a folder and as a page: complete, self-contained, harmless whatever the sources are called."""

import base64
import csv
import dataclasses
import hashlib
import html.parser
import json
import os
import re
import shlex

import h5py
import numpy as np
import pytest
from synthetic import ATTRIBUTES, film, table, together

from hamscope import figures, report, viewer
from hamscope.data.results import write_results
from hamscope.errors import ContractError, UserError
from hamscope.verdict import source_verdicts

HOSTILE = [
    "<script>alert(1)</script>.tif",
    '"><img src=x onerror=alert(1)>.tif',
    "../../../etc/passwd",
    "{{ 7 * 7 }} $\\frac{1}{0}$ %s.tif",
    "--bundle=x; rm -rf ~ 'a b'.tif",
]
VOID = {"meta", "img", "br", "link", "input", "source"}
TABLES = ["candidates.csv", "classes.csv", "clouds.csv", "domains.csv", "exponents.csv", "loops.csv", "series.csv",
          "verdict.csv"]  # fmt: skip


class Page(html.parser.HTMLParser):
    """Elements with their attributes, the text that is shown, and whether every element is closed in order."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.scripts, self.open, self.well_formed = [], [], [], [], True
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.well_formed &= not self.open
        self.shown = re.sub(r"[\s\u00a0]+", " ", " ".join(self.text))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.well_formed &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)


def plain(text: str) -> str:
    return re.sub(r"[\s\u00a0]+", " ", text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of a film, a control, hostile names and a source without pattern: results, folder, page."""
    folder = tmp_path_factory.mktemp("report")
    hostile = [dataclasses.replace(film("x", 1, "P-2D", seed=k), source=[name]) for k, name in enumerate(HOSTILE)]
    black = table([{"source": "black.tif", "windows": 0, "up": 0.0}])
    black = dataclasses.replace(black, preview=black.preview.repeat(8, 1).repeat(8, 2) * 0)
    results = together(film("film.tif"), film("control.tif", 3, "C-2D"), black, *hostile)
    write_results(folder / "results.h5", results)
    page = report.write_report(folder / "results.h5", folder / "report")
    return results, folder / "report", Page(page)


def small(path, source="a.tif", attributes=None):
    """A results file with one uniform frame, which is quick to report."""
    write_results(path, table([{"source": source, "windows": 0}], attributes))
    return path


def test_page_has_every_verdict_and_every_reason(made):
    """Seen to fail with the sections of the sources after the first left out."""
    results, _, page = made
    assert page.well_formed
    for verdict in source_verdicts(results):
        assert plain(verdict.source) in page.shown and plain(verdict.sentence) in page.shown
        for reason in verdict.reasons:
            assert plain(reason) in page.shown
    assert "What this cannot tell" in page.shown


def test_names_of_sources_are_text(made):
    """Hostile names are shown as they are and make no element, no attribute, no template and no path.

    Seen to fail with autoescape off: a script and an onerror attribute.
    """
    _, folder, page = made
    assert not {"iframe", "object", "link", "base", "form"} & {tag for tag, _ in page.elements}
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "frames"}, {}]
    inside = [frame["facts"][0] for frame in json.loads(page.scripts[0])["rows"]]
    assert len(page.scripts) == 2 and inside[-len(HOSTILE) :] == HOSTILE
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for name in HOSTILE:
        assert plain(name) in page.shown
    names = r"index\.html|report\.json|source-\d\d-\w+(-narrow)?\.png|\w+\.csv"
    assert all(re.fullmatch(names, path.name) for path in folder.iterdir())


def test_page_asks_for_nothing_from_anywhere(made):
    """Pictures and tables are inside, links stay on the page, no style loads anything, the policy forbids the rest.

    The one script that the policy lets run is the one of the page.  Seen to fail with the pictures linked as files, and
    with the script changed after its hash was taken.
    """
    _, folder, page = made
    for tag, attributes in page.elements:
        assert attributes.get("href", "#").startswith(("#", "data:text/csv;")) and "action" not in attributes
        assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
        assert attributes.get("srcset", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert "url(" not in attributes.get("style", "")
    text = (folder / "index.html").read_text()
    assert not re.search(r"https?://|@import|url\(", text)
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")


def test_links_lead_somewhere(made):
    _, _, page = made
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    inside = [link[1:] for link in links if link.startswith("#")]
    assert len(inside) == 16 and set(inside) <= set(places) and len(set(places)) == len(places)
    assert len(links) - len(inside) == len(TABLES)


def test_pictures_in_the_page_are_the_files(made):
    """Every PNG and CSV of the folder is in the page, bit for bit; pictures are described.

    A film has two plots, wide and narrow, its frames, loop and clouds, and the sizes of its clusters where they have an
    exponent; a black frame has none.
    """
    _, folder, page = made
    images = [attributes for tag, attributes in page.elements if tag == "img" and "data-kind" not in attributes]
    addresses = [image["src"] for image in images]
    addresses += [attributes["srcset"] for tag, attributes in page.elements if tag == "source"]
    inside = sorted(base64.b64decode(address.split(",")[1]) for address in addresses)
    assert inside == sorted(path.read_bytes() for path in folder.glob("*.png"))
    assert all(image["alt"] for image in images)
    assert [len(list(folder.glob(f"source-0{k}-*.png"))) for k in (1, 2, 3, 4)] == [8, 7, 0, 1]
    tables = {attributes["download"]: attributes["href"] for _, attributes in page.elements if "download" in attributes}
    assert sorted(tables) == sorted(path.name for path in folder.glob("*.csv")) == TABLES
    for name, address in tables.items():
        assert base64.b64decode(address.split(",")[1]) == (folder / name).read_bytes()


def test_provenance_and_commands(made):
    """Hashes, accuracy, window, options are shown, and the commands are quoted so that a shell reads the names back.

    Seen to fail with the names joined by spaces, and with a leading dash left as an option.
    """
    results, _, page = made
    for value in (
        "5f" * 32,
        "a0" * 32,
        "99.31 %",
        "none: sharp simulated images",
        "componentwise",
        "torch 2.13.0",
        "100 pixels",
    ):
        assert value in page.shown
    classify, again = report.commands(results).splitlines()
    words = shlex.split(classify)
    assert words[:4] == ["hamscope", "classify", "film.tif", "control.tif"]
    assert HOSTILE[0] in words and "./" + HOSTILE[4] in words and "rm" not in words
    assert words[words.index("--stride") + 1] == "8"
    assert again.startswith("hamscope report")


def test_missing_provenance_is_said(tmp_path):
    page = Page(report.write_report(small(tmp_path / "r.h5", attributes={}), tmp_path / "report"))
    assert page.well_formed and page.shown.count("not recorded") >= 8


def test_windows_on_the_clouds_carry_the_flags_of_the_map(tmp_path, monkeypatch):
    """Of 40 x 30 windows every second one of every second row is a sample, row by row: 300, the rest is NaN.

    Seen to fail with the flags negated, and with a grid of every third.
    """
    seen = {}
    monkeypatch.setattr(
        figures, "clouds", lambda points, path, *rest: (path.write_bytes(b""), seen.update(zip("sc", rest)))
    )
    rng = np.random.default_rng(2)
    flags = (rng.random((40, 30)) < 0.5).astype(np.uint8)
    sample = np.full((1, 512, 7), np.nan)
    sample[0, :300] = rng.normal(size=(300, 7))
    made = dataclasses.replace(film("a.tif", 1), flag_maps=[flags], class_maps=[flags * 2], logits_sample=sample)
    write_results(tmp_path / "r.h5", made)
    report.write_report(tmp_path / "r.h5", tmp_path / "report")
    np.testing.assert_array_equal(seen["s"], sample[0])
    np.testing.assert_array_equal(seen["c"][:300], flags[::2, ::2].ravel())
    assert not seen["c"][300:].any()


def test_equal_results_give_an_equal_page(tmp_path):
    """Two reports of one file, made one after the other, are equal byte for byte."""
    write_results(tmp_path / "r.h5", film("a.tif", 2))
    one, two = (report.write_report(tmp_path / "r.h5", tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_same_results_are_left_and_others_need_replace(tmp_path, capsys):
    """Nothing to do, then a refusal, then a replacement.  Seen to fail with the hash not compared."""
    folder = tmp_path / "report"
    page = report.write_report(small(tmp_path / "a.h5"), folder)
    before = page.stat().st_ino
    assert report.write_report(tmp_path / "a.h5", folder) == page
    assert page.stat().st_ino == before and "nothing to do" in capsys.readouterr().err
    small(tmp_path / "b.h5", "other.tif")
    with pytest.raises(UserError, match="report of other results; add --replace"):
        report.write_report(tmp_path / "b.h5", folder)
    assert "other.tif" not in page.read_text()
    report.write_report(tmp_path / "b.h5", folder, replace=True)
    assert "other.tif" in page.read_text()
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5", "report"]


def test_a_report_that_lost_a_file_is_made_again(tmp_path):
    """A table was deleted; the same command brings it back.  Seen to fail with the mark alone believed."""
    folder = tmp_path / "report"
    report.write_report(small(tmp_path / "a.h5"), folder)
    (folder / "series.csv").unlink()
    report.write_report(tmp_path / "a.h5", folder)
    assert (folder / "series.csv").exists()


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_not_a_report_is_never_touched(tmp_path, replace):
    """A foreign folder, a user's note in a report, a plain file: refused with the way out, even with replace.

    Seen to fail with `replace` asked before the folder is looked at: the thesis was gone.
    """
    results = small(tmp_path / "a.h5")
    thesis = tmp_path / "work" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(UserError, match="is no report of hamscope; choose another --out"):
        report.write_report(results, thesis.parent, replace)
    report.write_report(results, tmp_path / "report")
    note = tmp_path / "report" / "note.txt"
    note.write_text("mine")
    with pytest.raises(UserError, match=r"holds 'note\.txt', which is no part of the report"):
        report.write_report(small(tmp_path / "b.h5", "other.tif"), tmp_path / "report", replace)
    with pytest.raises(UserError, match="is no report of hamscope"):
        report.write_report(results, tmp_path / "b.h5", replace)
    assert (thesis.read_text(), note.read_text()) == ("years of work", "mine")


def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    """The disk fills while the last picture is drawn: no new folder, and an old report is as it was.

    Seen to fail when drawn into the folder itself.
    """
    folder = tmp_path / "report"
    report.write_report(small(tmp_path / "a.h5"), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_results(tmp_path / "b.h5", film("b.tif", 2))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "clouds", full)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left"):
            report.write_report(tmp_path / "b.h5", target, replace=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5", "report"]


def test_results_that_are_not_whole_are_refused(tmp_path):
    """Without `complete`, of other classes, or without a frame: refused, and nothing is written."""
    for name, change in (("complete", None), ("classes", ["cat", "dog"])):
        path = small(tmp_path / f"{name}.h5")
        with h5py.File(path, "r+") as file:
            del file.attrs[name]
            if change:
                file.attrs[name] = change
        with pytest.raises(ContractError, match="classify again"):
            report.write_report(path, tmp_path / "report")
    empty = film("x", 1)
    nothing = {name: value[:0] for name, value in empty.__dict__.items() if name not in ("attributes", "cloud_sample")}
    write_results(tmp_path / "empty.h5", dataclasses.replace(empty, **nothing))
    with pytest.raises(ContractError, match="holds no frame"):
        report.write_report(tmp_path / "empty.h5", tmp_path / "report")
    with pytest.raises(UserError, match="does not exist; make it first"):
        report.write_report(small(tmp_path / "a.h5"), tmp_path / "no" / "report")
    assert not (tmp_path / "report").exists()


def test_many_sources_stay_a_page(tmp_path, monkeypatch):
    """Every source is in the table, sections are made of the first ones only, and the page says so.

    The panels of all are there all the same, under one slider.
    """
    monkeypatch.setattr(report, "MOST_SECTIONS", 2)
    write_results(tmp_path / "r.h5", table([{"source": f"scan-{k}.png", "windows": 0} for k in range(5)]))
    page = Page(report.write_report(tmp_path / "r.h5", tmp_path / "report"))
    assert page.well_formed and "Sections follow for the first 2 sources" in page.shown
    assert all(f"scan-{k}.png" in page.shown for k in range(5))
    rows = [json.loads(attributes["data-rows"]) for _, attributes in page.elements if "data-rows" in attributes]
    assert rows == [[0, 1, 2, 3, 4]] and len(json.loads(page.scripts[0])["rows"]) == 5
    assert len([tag for tag, attributes in page.elements if attributes.get("id", "").startswith("viewer-")]) == 3


def believed(**config):
    """A film of one frame by a bundle that says all it can, with a sweep over three widths."""
    counts = np.tile(100.0 * np.eye(7), (2, 3, 2, 1, 1))
    counts[1, ..., 3, 2] = 60
    card = ATTRIBUTES["bundle"] | {
        "instrument": {"summary": "0 to 3 px", "psf_px": [0.0, 3.0]}, "trained": {"RF-2D": [1.0, 1.19]},
        "resolution": {"psf_px": [0.0, 2.0], "counts": counts.tolist()}, "rejection": {"accepts": 0.95},
    }  # fmt: skip
    one = {"psf_px": [None, 0.0, 3.0], "probabilities": np.eye(7)[:3].tolist(), "confident": [0.5] * 3, "told": 2.0}
    attributes = ATTRIBUTES | {
        "bundle": card, "config": ATTRIBUTES["config"] | config, "score": "mahalanobis", "sweep": {"a.tif": one},
        "bundle_is_default": True,
    }  # fmt: skip
    shares = {"RF-2D": 0.9, "P*": 0.1}
    frame = {"source": "a.tif", "shares": shares, "sure": shares, "psf_px": 4.0, "adaptive": 1, "independent": 40,
             "chances": {"RF-2D": 0.77}, "parameter": {"RF-2D": 1.08}, "half68": {"RF-2D": 0.02},
             "half90": {"RF-2D": 0.04}}  # fmt: skip
    return table([frame], attributes)


def test_page_says_what_the_bundle_knows(tmp_path):
    """Group, interval, probability, parameter, warning, score and the sweep are on the page; commands have the options.

    Seen to fail with the warnings left out of the card, with the shares shown as probabilities, and with --psf-px left
    out of the commands.
    """
    results = believed(psf_px=4.0, confidence="default")
    write_results(tmp_path / "r.h5", results)
    page = Page(report.write_report(tmp_path / "r.h5", tmp_path / "report"))
    assert page.well_formed
    for text in (
        "Random field, dimension undecided at this resolution", "from 40 independent windows", "77 %",
        "R/J = 1.08 ± 0.02 (68 %), ± 0.04 (90 %)", "Mahalanobis distance", "95 % of them are accepted",
        "Warning. The point-spread function is given as 4 px", "Point-spread function: 4 px. Threshold: taken from the",
        "are RF-2D, every class as likely", "4 pixels",
    ):  # fmt: skip
        assert text in page.shown, text
    assert (tmp_path / "report" / "source-01-sweep.png").exists()
    swept = lines_of(tmp_path / "report" / "sweep.csv")
    assert [line["psf_px"] for line in swept] == ["", "0.0", "3.0"] and [line["leads"] for line in swept] == [
        "C-2D", "C-3D", "RF-2D"
    ]  # fmt: skip
    words = shlex.split(report.commands(results).splitlines()[0])
    assert words[words.index("--psf-px") + 1] == "4.0" and "--sweep-psf" in words and "--bundle" not in words
    assert words[words.index("--confidence") + 1] == "default"


@pytest.mark.parametrize("change", [{"probabilities": [[1]]}, {"psf_px": "x"}, {"told": "far"}, {"confident": None}])
def test_a_strange_sweep_is_left_out(tmp_path, change):
    """Results from elsewhere give a page all the same, without that picture."""
    results = believed()
    results.attributes["sweep"]["a.tif"] |= change
    write_results(tmp_path / "r.h5", results)
    page = Page(report.write_report(tmp_path / "r.h5", tmp_path / "report"))
    assert page.well_formed and not (tmp_path / "report" / "source-01-sweep.png").exists()


def lines_of(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_large_series_is_a_folder(tmp_path, monkeypatch):
    """Panels above the limit are files beside the page, asked for by relative path; they are part of the report.

    A file of the user among them is not removed.  Seen to fail with the files listed by the names of the top folder.
    """
    monkeypatch.setattr(viewer, "ONE_FILE", 1000)
    write_results(tmp_path / "r.h5", film("a.tif", 3))
    folder = tmp_path / "report"
    page = Page(report.write_report(tmp_path / "r.h5", folder))
    data = json.loads(page.scripts[0])
    names = [row[kind] for row in data["rows"] for kind in ("frame", "map", "flags")]
    assert not data["inside"] and all(re.fullmatch(r"panels/\d{6}-(frame|map|flags)\.png", name) for name in names)
    assert sorted(names) == sorted(f"panels/{path.name}" for path in (folder / "panels").iterdir())
    assert "img-src data: 'self' file:;" in (folder / "index.html").read_text()
    assert "has to stay beside this page" in page.shown
    (folder / names[0]).unlink()
    report.write_report(tmp_path / "r.h5", folder)
    assert (folder / names[0]).exists()
    (folder / "panels" / "note.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'panels/note\.txt', which is no part of the report"):
        report.write_report(small(tmp_path / "b.h5"), folder, replace=True)


def test_frames_alone_in_their_files_are_a_series(tmp_path):
    """A temperature in every file: the plots of a series and a slider over all; one unknown temperature: no plots."""
    frames = [{"source": f"{k}.png", "shares": {"C-2D": 1.0}, "up": 0.5, "kelvin": 300.0 + k} for k in range(4)]
    write_results(tmp_path / "r.h5", table(frames))
    report.write_report(tmp_path / "r.h5", tmp_path / "report")
    assert (tmp_path / "report" / "single-fractions.png").exists()
    frames[2]["kelvin"] = np.nan
    write_results(tmp_path / "s.h5", table(frames))
    page = Page(report.write_report(tmp_path / "s.h5", tmp_path / "other"))
    assert not (tmp_path / "other" / "single-fractions.png").exists()
    assert [attributes["data-rows"] for _, attributes in page.elements if "data-rows" in attributes] == ["[0, 1, 2, 3]"]
