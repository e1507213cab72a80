"""`classify` on a real Ray, against the same windows classified one by one without it."""

import csv
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from bundles import WINDOW, blobs, small_bundle
from engines import ROOT
from PIL import Image

from hamscope.config import Classify
from hamscope.data import levels
from hamscope.data.frames import FrameRef, list_frames
from hamscope.data.instrument import condition
from hamscope.data.parts import merge, read_part
from hamscope.data.results import BY_CLASS, NO_PATTERN, read_results, sample_windows
from hamscope.data.symmetry import reduce
from hamscope.errors import FrameError, UserError
from hamscope.learn import bundle as bundles_of
from hamscope.learn import parameters
from hamscope.learn.bundle import read_bundle
from hamscope.learn.dense import classify_band
from hamscope.learn.network import outputs, predict
from hamscope.prepare import prepare
from hamscope.prepare_frames import Options as Prepared
from hamscope_hpc import classify_actor
from hamscope_hpc.classify import classify
from hamscope_hpc.sweep import sweep_psf

OPTIONS = Classify(stride=2, threshold="otsu", up="bright", confidence="euclidean")
FILM = 40 + 100 * blobs((3, 38, 47), 5)
FILM[2, :, :20] = 40
NEARLY = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums in another order

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(autouse=True)
def small_bands(monkeypatch):
    """Cut every frame into several bands, so that actors share it."""
    monkeypatch.setattr(classify_actor, "BAND_WINDOWS", 40)


def one_by_one(image: np.ndarray, bundle, options: Classify) -> dict:
    """What the contract asks for of a two-level frame, from a loop over its windows."""
    rows, columns = ((side - WINDOW) // options.stride + 1 for side in image.shape)
    classes, flags = np.full((rows, columns), NO_PATTERN), np.zeros((rows, columns), int)
    guesses = np.full((3, rows, columns), np.nan)
    logits, distance = np.full((2, rows, columns, 7), np.nan)
    for r, c in np.ndindex(rows, columns):
        y, x = r * options.stride, c * options.stride
        window = image[y : y + WINDOW, x : x + WINDOW]
        if window.min() == window.max():
            continue
        own = predict(bundle.network, reduce(window[None]))
        logits[r, c], distance[r, c] = own[0], bundle.clouds.distance(own, "euclidean")[0]
        classes[r, c] = own.argmax()
        flags[r, c] = bundle.clouds.confident(own, own.argmax(1), options.confidence)[0]
        said = outputs(bundle.network, reduce(window[None]))
        flipped = np.array([window.sum() < WINDOW**2 / 2])
        guesses[:, r, c] = np.ravel(parameters.predict(bundle.parameters, said.hidden, own.argmax(1), flipped))
    of_class = [classes == k for k in range(7)]
    odds = np.exp(logits / bundle.card["calibration"]["temperature"])
    n = (classes != NO_PATTERN).sum()
    return {
        "classes": classes, "flags": flags, "logits": logits, "n_windows": n,
        "fractions": [(classes == k).sum() / n for k in range(7)],
        "confident_fractions": [((classes == k) & (flags == 1)).sum() / n for k in range(7)],
        "probabilities": np.nanmean(odds / odds.sum(-1, keepdims=True), (0, 1)),
        "parameter": [guesses[0][mine].mean() if mine.any() else np.nan for mine in of_class],
        "parameter_half68": [guesses[1][mine].mean() if mine.any() else np.nan for mine in of_class],
        "parameter_half90": [guesses[2][mine].mean() if mine.any() else np.nan for mine in of_class],
        "logits_mean": np.nanmean(logits, (0, 1)), "cloud_distance": np.nanmean(distance, (0, 1)),
    }  # fmt: skip


def test_results_are_those_of_a_loop_over_windows(tmp_path, bundle, capfd):
    """Every column of a film of three frames with temperatures, one of them half uniform, and of a uniform frame.

    Two actors share each frame; one alone gives the same file content.

    Seen to fail with the bands of a frame merged in the order of the names of their files, with the flag of a window
    counted for every class, and with logits averaged over all windows instead of those with a pattern.
    """
    tifffile.imwrite(tmp_path / "film.tif", FILM, photometric="minisblack")
    (tmp_path / "film.csv").write_text("frame,temperature,direction\n0,340,1\n1,341,1\n2,342,-1\n")
    np.save(tmp_path / "black.npy", np.zeros((20, 30)))
    frames = [str(tmp_path / "film.tif"), str(tmp_path / "black.npy")]
    out = classify(frames, bundle, tmp_path / "results.h5", OPTIONS, actors=2)
    results, loaded = read_results(out), read_bundle(bundle)
    for row, page in enumerate(FILM):
        expected = one_by_one((page > 90).astype(np.uint8), loaded, OPTIONS)
        np.testing.assert_array_equal(results.class_maps[row], expected["classes"])
        np.testing.assert_array_equal(results.flag_maps[row], expected["flags"])
        for name in (*BY_CLASS, "n_windows"):
            np.testing.assert_allclose(getattr(results, name)[row], expected[name], **NEARLY, err_msg=name)
        assert results.fractions[row].sum() == pytest.approx(1)
        sample = expected["logits"].reshape(-1, 7)[sample_windows(expected["classes"].shape)]
        np.testing.assert_allclose(results.logits_sample[row, : len(sample)], sample, **NEARLY)
        assert np.isnan(results.logits_sample[row, len(sample) :]).all()
        np.testing.assert_array_equal(results.preview[row], page > 90)
        assert results.up_fraction[row] == pytest.approx((page > 90).mean())
    assert 0 < results.confident_fractions[:3].sum() < 3
    np.testing.assert_array_equal(results.n_independent, [4, 4, 4, 0])  # 38 x 47 holds 2 x 2 windows of 16 x 16
    np.testing.assert_array_equal(results.temperature, [340, 341, 342, np.nan])
    np.testing.assert_array_equal(results.direction, [1, 1, -1, 0])
    assert (results.source, list(results.index)) == (["film.tif"] * 3 + ["black.npy"], [0, 1, 2, 0])
    assert results.n_windows[3] == 0 and (results.class_maps[3] == NO_PATTERN).all()
    np.testing.assert_array_equal(results.psf_px, np.full(4, np.nan))
    np.testing.assert_array_equal(results.adaptive, [1, 1, 1, 0])  # a frame of zeros has its level already
    for name in (*BY_CLASS, "logits_sample"):
        assert np.isnan(getattr(results, name)[3]).all()
    assert (results.preview[3] == 255).sum() == 38 * 47 - 20 * 30 and not results.preview[3, :20, :30].any()
    attributes = results.attributes
    assert (attributes["window"], attributes["stride"], attributes["config"]["threshold"]) == (WINDOW, 2, "otsu")
    assert attributes["bundle"]["instrument"]["summary"] == "none: sharp simulated images"
    assert attributes["bundle"]["temperature"] == loaded.card["calibration"]["temperature"]
    assert np.array(attributes["bundle"]["resolution"]["counts"]).shape == (9, 3, 2, 7, 7)
    assert attributes["score"] == "euclidean" and not attributes["bundle_is_default"]
    assert attributes["bundle_sha256"] == loaded.sha256
    assert not (tmp_path / "results.h5.parts").exists()
    said = capfd.readouterr().err
    assert "4 frames to do, 600 windows of 16 x 16 pixels at stride 2" in said  # 3 x 12 x 16 + 3 x 8
    assert "black.npy, frame 0 (grey 0 to 0): every window is of one level, no pattern, no verdict" in said
    alone = read_results(classify(frames, bundle, tmp_path / "alone.h5", OPTIONS, actors=1))
    assert alone.attributes["content_sha256"] == attributes["content_sha256"]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> Path:
    """A bundle whose network asks for what is known of the microscope."""
    return small_bundle(tmp_path_factory.mktemp("bundles") / "seeing", kind="invariant")


def test_the_network_is_told_of_the_microscope(tmp_path, seeing):
    """The CSV gives 1.5 px for one of two frames, --psf-px overrides it, and only grey frames have erased densities.

    A fixed threshold at the same grey value gives the same pixels and another condition.  Frames that `hamscope
    prepare` thresholded one by one have two levels and no density either.  Seen to fail with the width of the options
    not used, with two-level frames called adaptive, and with what the prepared file says not passed on.
    """
    loaded, frames = read_bundle(seeing), tmp_path / "frames"
    frames.mkdir()
    np.save(frames / "grey.npy", FILM[:2])
    (frames / "grey.csv").write_text("frame,temperature,psf_px\n0,340,1.5\n1,341,\n")
    np.save(frames / "levels.npy", FILM[0] > 90)
    prepare([str(frames / "grey.npy")], frames / "prepared.h5", Prepared(threshold="otsu"))
    options = Classify(stride=5)

    def told(**changes):
        given = options.model_copy(update=changes)
        name = tmp_path / "_".join(map(str, ("r", *changes.values(), ".h5")))
        return read_results(classify([str(frames)], seeing, name, given, actors=1))

    for changes, widths, adaptive in (
        ({}, [1.5, np.nan, np.nan, 1.5, np.nan], [1, 1, 0, 1, 1]),
        ({"psf_px": 0.5}, [0.5] * 5, [1, 1, 0, 1, 1]),
        ({"threshold": 90.0}, [1.5, np.nan, np.nan, 1.5, np.nan], [0, 0, 0, 1, 1]),
    ):
        results = told(**changes)
        np.testing.assert_array_equal(results.psf_px, widths)
        np.testing.assert_array_equal(results.adaptive, adaptive)
        for row, page in enumerate((*FILM[:2], FILM[0], *FILM[:2])):
            known = condition(widths[row], bool(adaptive[row]))
            rows = (FILM.shape[1] - WINDOW) // 5 + 1
            band = classify_band((page > 90).astype(np.uint8), loaded, 5, 0, rows, "default", known)
            np.testing.assert_array_equal(results.class_maps[row], band.classes)
            np.testing.assert_allclose(results.probabilities[row], np.nanmean(band.probabilities, (0, 1)), **NEARLY)


def test_without_a_bundle_the_default_one(tmp_path, seeing, monkeypatch):
    """It is taken from the package; where there is none the line says what to do."""
    np.save(tmp_path / "film.npy", FILM[:1])
    monkeypatch.setattr(bundles_of, "DEFAULT", tmp_path / "none")
    with pytest.raises(UserError, match="no default bundle; give one of `hamscope train` with --bundle"):
        classify([str(tmp_path / "film.npy")], None, tmp_path / "r.h5", OPTIONS)
    monkeypatch.setattr(bundles_of, "DEFAULT", seeing)
    out = classify([str(tmp_path / "film.npy")], None, tmp_path / "r.h5", OPTIONS, actors=1)
    attributes = read_results(out).attributes
    assert attributes["bundle_is_default"] and attributes["bundle_sha256"] == read_bundle(seeing).sha256


def test_a_sweep_over_the_assumed_resolution(tmp_path, bundle, seeing):
    """Table, picture and the attribute for the report: the same windows under each width, counted one by one.

    A frame of 20 x 22 has 5 x 7 windows, all of them swept.  A network that takes no condition is refused.  Seen to
    fail with the width not passed on (all lines alike), and with the threshold of a grey frame called fixed.
    """
    page = 40 + 100 * blobs((20, 22), 9)
    np.save(tmp_path / "scan.npy", page)
    frames, out = [str(tmp_path / "scan.npy")], tmp_path / "r.h5"
    options = Classify(psf_px=0.75)
    classify(frames, seeing, out, options, actors=1)
    before = read_results(out)
    picture, table = sweep_psf(frames, seeing, out, options)
    after, loaded = read_results(out), read_bundle(seeing)
    assert after.attributes["content_sha256"] == before.attributes["content_sha256"]
    assert picture.read_bytes()[:4] == b"\x89PNG" and table.name == "r.sweep.csv"
    one = after.attributes["sweep"]["scan.npy"]
    assert one["psf_px"] == [None, *(0.25 * np.arange(13))] and (one["windows"], one["told"]) == (35, 0.75)
    for width, chances, shares, sure in zip(*(one[key] for key in ("psf_px", "probabilities", "shares", "confident"))):
        known = condition(width, True)
        band = classify_band((page > 90).astype(np.uint8), loaded, 1, 0, 5, "default", known)
        np.testing.assert_allclose(chances, band.probabilities.mean((0, 1)), **NEARLY)
        np.testing.assert_allclose(shares, np.bincount(band.classes.ravel(), minlength=7) / 35, atol=1e-5)
        assert sure == pytest.approx(band.flags.mean(), abs=1e-5)
    assert np.ptp(one["probabilities"], axis=0).max() > 0.01
    lines = list(csv.DictReader(table.open()))
    assert [line["psf_px"] for line in lines[:3]] == ["", "0.0", "0.25"]
    assert float(lines[5]["RF-2D"]) == one["probabilities"][5][2]
    with pytest.raises(UserError, match="is not told of the microscope"):
        sweep_psf(frames, bundle, out, options)


def test_a_sweep_leaves_out_what_is_masked(tmp_path, seeing):
    """An electrode of 9 bright columns: Otsu's threshold is that of the sample, and only windows beside it are swept.

    Seen to fail with the mask not asked: 45 windows, those along the electrode.
    """
    page, mask = 40 + 100.0 * blobs((20, 30), 9), np.zeros((20, 30), bool)
    mask[:, :9] = True
    page[mask] = 400
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["scan"], file["mask"] = page, mask
    options = Classify(psf_px=0.75)
    out = classify([str(tmp_path / "scan.h5")], seeing, tmp_path / "r.h5", options, actors=1)
    sweep_psf([str(tmp_path / "scan.h5")], seeing, out, options)
    (one,) = read_results(out).attributes["sweep"].values()
    band = classify_band((page > 90).astype(np.uint8), read_bundle(seeing), 1, 0, 5, "default", condition(0.75, True),
                         mask)  # fmt: skip
    seen = band.classes[band.classes < 7]
    assert one["windows"] == len(seen) == 30
    np.testing.assert_allclose(one["shares"][4], np.bincount(seen, minlength=7) / 30, atol=1e-5)


def test_formats_and_polarity_do_not_matter(tmp_path, bundle):
    """The same pixels as TIFF, PNG, .npy, .npz and HDF5, and inverted.

    The last has up and down exchanged: the verdict stays, the share of up pixels does not.
    """
    page = FILM[0]
    tifffile.imwrite(tmp_path / "a.tif", page)
    Image.fromarray(page).save(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", page.astype(np.float64))
    np.savez(tmp_path / "d.npz", scan=page)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["scan"] = page
    np.save(tmp_path / "f.npy", 255 - page)
    results = read_results(classify([str(tmp_path)], bundle, tmp_path / "results.h5", OPTIONS, actors=1))
    assert results.source == ["a.tif", "b.png", "c.npy", "d.npz:scan", "e.h5:scan", "f.npy"]
    for row in range(1, 6):
        np.testing.assert_array_equal(results.class_maps[row], results.class_maps[0])
    np.testing.assert_allclose(results.fractions, results.fractions[[0] * 6], **NEARLY)
    assert results.up_fraction[5] == pytest.approx(1 - results.up_fraction[0])


def test_a_part_belongs_to_one_bundle(tmp_path, bundle, capfd):
    """What was kept for one bundle is not taken for another.  Seen to fail with the bundle left out of its name."""
    np.save(tmp_path / "good.npy", FILM[:2])
    np.save(tmp_path / "bad.npy", np.full(FILM[0].shape, np.nan))
    out, good = tmp_path / "results.h5", str(tmp_path / "good.npy")
    classify([good, str(tmp_path / "bad.npy")], bundle, out, OPTIONS, actors=1)
    assert (tmp_path / "results.h5.parts").is_dir()
    capfd.readouterr()
    other = small_bundle(tmp_path / "other", seed=2)
    found = read_results(classify([good], other, out, OPTIONS, actors=1, replace=True))
    assert "2 frames, 0 of them done already" in capfd.readouterr().err
    for row, page in enumerate(FILM[:2]):
        expected = one_by_one((page > 90).astype(np.uint8), read_bundle(other), OPTIONS)
        np.testing.assert_array_equal(found.class_maps[row], expected["classes"])
    assert not (tmp_path / "results.h5.parts").exists()


def test_frames_that_are_bad_throughout(tmp_path, bundle):
    """Where every frame holds NaN there are no results: a line for each, and it is the user's mistake."""
    film = FILM.astype(float)
    film[:, 3, 4] = np.nan
    np.save(tmp_path / "film.npy", film)
    out = tmp_path / "results.h5"
    with pytest.raises(FrameError) as refusal:
        classify([str(tmp_path)], bundle, out, OPTIONS, actors=1)
    lines = str(refusal.value).splitlines()
    assert len(lines) == 4 and "none of the 3 frames can be classified" in lines[3]
    for page, line in enumerate(lines[:3]):
        assert f"film.npy, page {page}: 1 of 1786 pixels are NaN or infinite, the first at row 3, column 4" in line
    assert not out.exists()


def an_actor(folder: Path, bundle: Path) -> tuple[classify_actor.BandClassifier, dict]:
    """An actor in this process, and its job: the only band of a frame."""
    np.save(folder / "page.npy", FILM[0])
    ref = list_frames([folder / "page.npy"])[0]
    job = classify_actor.frame_jobs("key", ref, WINDOW, 10)[0]
    options = OPTIONS.model_copy(update={"stride": 10})
    return classify_actor.BandClassifier(str(bundle), read_bundle(bundle).sha256, options, str(folder), "cpu", "x"), job


@pytest.mark.parametrize("bad_moments", [2, 3])
def test_a_bad_moment_is_not_the_end(tmp_path, bundle, monkeypatch, bad_moments):
    """A file that fails to open twice has its part; three times, and its frame is quarantined with the last reason.

    Seen to fail with one try, with tries that are not forgotten when a part is there, and with the first reason.
    """
    actor, job = an_actor(tmp_path, bundle)
    read, calls = classify_actor.read_frame, []

    def moody(ref, *rows, **options):
        calls.append(ref)
        if len(calls) <= bad_moments:
            raise OSError(f"stale file handle {len(calls)}")
        return read(ref, *rows, **options)

    monkeypatch.setattr(classify_actor, "read_frame", moody)
    monkeypatch.setattr(classify_actor, "_PAUSES", (0, 0))
    row = actor(job)
    kept = bad_moments < classify_actor.TRIES
    assert len(calls) == 3 and row["reason"] == ("" if kept else "OSError: stale file handle 3")
    assert classify_actor.band_path(tmp_path, job).exists() == kept
    assert classify_actor.reason_of(tmp_path, "key") == (row["reason"] or None)
    assert not list(tmp_path.glob("*.tries"))
    assert actor(job) == row and len(calls) == 3


@pytest.mark.parametrize("threshold", ["otsu", "median", 90.0])
def test_an_actor_reads_the_rows_of_its_band(tmp_path, bundle, monkeypatch, threshold):
    """Of a frame of 5 bands: the first band goes through the frame by blocks, the others read their own rows only.

    No read is larger than a block or a band, a second actor takes the threshold from the file, and the bands together
    are the frame in one band.

    Seen to fail with the whole frame read for each band; and in `merge` with the last band left out of the sums, the
    maps or the samples put together backwards, and the classes written as flags.
    """
    page = FILM[0] + np.random.default_rng(3).integers(0, 9, FILM[0].shape, np.uint8)
    np.save(tmp_path / "page.npy", page)
    ref, options = list_frames([tmp_path / "page.npy"])[0], OPTIONS.model_copy(update={"threshold": threshold})
    sha256, read, seen = read_bundle(bundle).sha256, classify_actor.read_frame, []

    def spy(ref, rows=None, native=False):
        seen.append(rows or (0, ref.shape[0]))
        return read(ref, rows, native)

    def actor():
        return classify_actor.BandClassifier(str(bundle), sha256, options, str(tmp_path), "cpu", "x")

    monkeypatch.setattr(classify_actor, "read_frame", spy)
    monkeypatch.setattr(levels, "BLOCK_PIXELS", 10 * page.shape[1])
    monkeypatch.setattr(classify_actor, "BAND_WINDOWS", 10**6)
    (whole,) = classify_actor.frame_jobs("whole", ref, WINDOW, 2)
    assert actor()(whole)["reason"] == "" and seen == [(0, 38)]
    monkeypatch.setattr(classify_actor, "band_windows", lambda *_: 40)
    jobs = classify_actor.frame_jobs("cut", ref, WINDOW, 2)
    first, second = actor(), actor()
    seen.clear()
    for number, job in enumerate(jobs):
        assert (second if number % 2 else first)(job)["reason"] == ""
    own = [(2 * job["start"], 2 * (job["stop"] - 1) + WINDOW) for job in jobs]
    assert len(jobs) > 4 and seen[-len(jobs) :] == own
    assert all(stop - start <= 10 for start, stop in seen[: -len(jobs)]) and len(seen) == 8 + len(jobs)
    merge([classify_actor.band_path(tmp_path, job) for job in jobs], tmp_path / "cut.npz")
    cut, one = read_part(tmp_path / "cut.npz"), read_part(classify_actor.band_path(tmp_path, whole))
    for name, value in asdict(one).items():
        exact = np.testing.assert_array_equal if "sum" not in name and name != "sample" else None
        (exact or (lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)))(asdict(cut)[name], value)


def test_tries_of_dead_processes_count(tmp_path, bundle):
    """Two lines of tries leave one try, which is enough for a good frame; three leave none.

    Seen to fail with tries that do not count.
    """
    actor, job = an_actor(tmp_path, bundle)
    tries = classify_actor.band_path(tmp_path, job).with_suffix(".tries")
    tries.write_text("try 11\ntry 12\n")
    assert actor(job)["reason"] == "" and not tries.exists()
    classify_actor.band_path(tmp_path, job).unlink()
    tries.write_text("try 11\ntry 12\ntry 13\n")
    reason = actor(job)["reason"]
    assert reason.startswith("its process was killed each of 3 times") and "\n" not in reason
    assert not classify_actor.band_path(tmp_path, job).exists()


def test_electrodes_are_no_part_of_the_sample(tmp_path, bundle):
    """Bright electrodes along one side: no window that touches them has a pattern, and they move no threshold.

    The others are those of the frame without electrodes, and so is the share of up pixels.  Seen to fail with a
    threshold of all pixels, and with the mask not passed on.
    """
    page, mask = FILM[0].astype(float), np.zeros(FILM[0].shape, bool)
    mask[:, :9] = True
    page[mask] = 400
    with h5py.File(tmp_path / "film.h5", "w") as file:
        file["scan"], file["mask"] = page, mask
    ref = list_frames([tmp_path / "film.h5"])[0]
    job = classify_actor.frame_jobs("key", ref, WINDOW, 3)[0]
    options = OPTIONS.model_copy(update={"stride": 3})
    sha256 = read_bundle(bundle).sha256
    actor = classify_actor.BandClassifier(str(bundle), sha256, options, str(tmp_path), "cpu", "x")
    assert actor(job)["reason"] == ""
    part = read_part(classify_actor.band_path(tmp_path, job))
    rows = part.classes.shape[0]
    band = classify_band((FILM[0] > 90).astype(np.uint8), actor.bundle, 3, 0, rows, options.confidence, None)
    assert (part.classes[:, :3] == NO_PATTERN).all() and (part.classes[:, 3:] != NO_PATTERN).any()
    np.testing.assert_array_equal(part.classes[:, 3:], band.classes[:rows, 3:])
    assert part.up_fraction == pytest.approx((FILM[0] > 90)[:, 9:].mean()) and list(part.grey_range) == [40, 140]


def test_bands_of_a_frame(monkeypatch):
    """A frame is one band up to 2^18 windows; larger ones are cut, into bands at least as high as a window.

    The bands hold every row of the grid once.
    """
    monkeypatch.setattr(classify_actor, "BAND_WINDOWS", 2**18)
    for shape, stride, most in (((760, 760), 2, 1), ((760, 760), 1, 2), ((3000, 40_000), 1, 40)):
        ref = FrameRef("a.npy", "", 0, shape)
        jobs = classify_actor.frame_jobs("k", ref, 100, stride)
        rows = [row for job in jobs for row in range(job["start"], job["stop"])]
        assert rows == list(range((shape[0] - 100) // stride + 1))
        assert len(jobs) == most or (most > 2 and 2 < len(jobs) <= most)
        assert all(job["stop"] - job["start"] >= 100 / stride for job in jobs[:-1])
        assert sum(job["windows"] for job in jobs) == len(rows) * ((shape[1] - 100) // stride + 1)


def test_without_a_pattern_there_are_no_results(tmp_path, bundle, capfd):
    """A uniform frame, and a threshold that no pixel reaches: one line says what to do, nothing is left behind."""
    np.save(tmp_path / "black.npy", np.zeros((20, 30)))
    np.save(tmp_path / "film.npy", FILM)
    high = OPTIONS.model_copy(update={"threshold": 1000.0})
    with pytest.raises(UserError, match="none of the 4 frames has a pattern at threshold"):
        classify([str(tmp_path)], bundle, tmp_path / "results.h5", high, actors=1)
    said = capfd.readouterr().err
    assert "black.npy, frame 0 (grey 0 to 0): every window is of one level, no pattern, no verdict" in said
    assert "film.npy, frame 0 (grey 40 to 140), 1 (grey 40 to 140), 2 (grey 40 to 140): every window" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["black.npy", "film.npy"]


def test_results_that_are_there(tmp_path, bundle, capfd):
    """The same again does nothing; anything else is refused without `replace` and whole with it.

    Seen to fail with temperatures left out of the hash of the inputs.
    """
    np.save(tmp_path / "film.npy", FILM)
    out, frames = tmp_path / "results.h5", [str(tmp_path / "film.npy")]
    classify(frames, bundle, out, OPTIONS, actors=1)
    before = out.stat().st_mtime_ns
    classify(frames, bundle, out, OPTIONS, replace=True)
    assert out.stat().st_mtime_ns == before and "nothing to do" in capfd.readouterr().err
    other = OPTIONS.model_copy(update={"stride": 5})
    with pytest.raises(UserError, match="results of other frames, another bundle or other options; add --replace"):
        classify(frames, bundle, out, other)
    (tmp_path / "film.csv").write_text("frame,temperature\n0,340\n1,341\n2,342\n")
    with pytest.raises(UserError, match="results of other frames"):
        classify(frames, bundle, out, OPTIONS)
    assert out.stat().st_mtime_ns == before
    assert read_results(classify(frames, bundle, out, other, actors=1, replace=True)).attributes["stride"] == 5
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is no results file"):
        classify(frames, bundle, tmp_path / "notes.txt", OPTIONS)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="is a folder"):
        classify(frames, bundle, tmp_path, OPTIONS)


def test_a_real_scan(tmp_path, bundle):
    """A piezoresponse scan from its amplitude and phase to results; what the model says is no matter of this test."""
    scans = ROOT.parent / "shared" / "data" / "pfm" / "pfm_domains.npz"
    if not scans.exists():
        pytest.skip("no scans in ../shared/data/pfm")
    with np.load(scans) as arrays:
        name = sorted(arrays)[0].removesuffix("__amplitude")
        c = arrays[f"{name}__amplitude"] * np.exp(1j * np.deg2rad(arrays[f"{name}__phase_deg"]))
    up = np.real(c * np.exp(-0.5j * np.angle((c**2).sum()))) > 0
    np.save(tmp_path / f"{name}.npy", up)
    options = OPTIONS.model_copy(update={"stride": 20})
    results = read_results(
        classify([str(tmp_path / f"{name}.npy")], bundle, tmp_path / "results.h5", options, actors=1)
    )
    assert results.class_maps[0].shape == (13, 13)
    assert results.fractions[0].sum() == pytest.approx(1)
    assert results.up_fraction[0] == pytest.approx(up.mean())
