"""`hamscope assess`: what bundles are worth, on lattices that none of them was trained on, as one page.

    bundles, slices -> sample.py (windows) -> blur.py, rejection.py, criticality.py and hamscope.learn.trust
                    -> assess.json (every number), index.html and the pictures

All bundles are measured beside each other on the same windows; the first one in more detail.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from hamscope.assess import beyond, blur, criticality, pictures, rejection
from hamscope.assess.foreign import FAMILIES
from hamscope.assess.sample import Sample, draw_views, load, section, see
from hamscope.assess.scans import windows_of_scans
from hamscope.errors import UserError
from hamscope.learn import trust
from hamscope.learn.bundle import Bundle, read_bundle
from hamscope.learn.resolution import PSF_PX, THRESHOLD_NAMES
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.page import picture, render, write_page
from hamscope.provenance import canonical_json, check_writable, sha256_file

JSON = "assess.json"
SEED = 20260101


def write_assessment(
    paths: list[str], slices: str, folder: str | Path, training: str | None = None, larger: str | None = None,
    scans: list[str] = (), images: int = 300, replace: bool = False, series=tuple(criticality.PLANS),
    families=tuple(FAMILIES),
) -> Path:  # fmt: skip
    """Measure the bundles at `paths` and write the page; return its path.

    Parameters
    ----------
    slices : str
        Lattices that no bundle was trained on.
    training : str, optional
        The slices that the first bundle was trained on; rejection by neighbours and the baselines need them.
    larger : str, optional
        Slices of larger lattices.
    scans : list of str
        Frames that are foreign to all models.
    images : int
        Windows a class.
    series, families : tuples of str
        Of `criticality.PLANS` and of `foreign.FAMILIES`, those to measure; by default all.

    Raises
    ------
    UserError
        Slices that a bundle was trained on, or bundles of different windows.
    """
    check_writable(Path(folder))
    bundles = {_name(path, paths): read_bundle(path) for path in paths}
    first = next(iter(bundles.values()))
    for name, bundle in bundles.items():
        if bundle.window != first.window:
            raise UserError(f"{name}: windows of {bundle.window} pixels, the first bundle has {first.window}")
    own = load(slices, first.window, images)
    found = {"bundles": {name: _of_bundle(name, bundle, own) for name, bundle in bundles.items()}}
    if larger:
        wide = load(larger, first.window, images)
        for name, bundle in bundles.items():
            found["bundles"][name]["larger"] = _sharp(bundle, wide)
    learnt = load(training, first.window, images) if training else None
    found["blur"] = _blur(bundles, own, learnt)
    found["surface"] = {name: surfaces(bundle, own) for name, bundle in bundles.items()}
    if learnt is not None:
        foreign = windows_of_scans(scans, first.window) if scans else None
        _say("rejection of foreign windows")
        found["rejection"] = {
            name: rejection.table(bundle, learnt, own, families, images, SEED, foreign)
            for name, bundle in bundles.items()
        }
    _say("criticality")
    results = criticality.assess(first, series)
    found["criticality"] = {result.series.name: result.findings for result in results}
    found["beyond"] = {
        own.series.name: beyond.covered(first, own.series) for own in results if own.series.plan.symbol != "H"
    }
    inputs = canonical_json([sha256_file(path) for path in (slices, training, larger) if path] + list(paths))
    source = Path(paths[0]) / "bundle.json"
    return write_page(
        source,
        folder,
        replace,
        lambda empty: _page(found, bundles, results, empty),
        also=inputs,
    )


def _name(path: str, paths: list[str]) -> str:
    """The last part of a path, or all of it where another bundle ends in the same."""
    names = [Path(other).name for other in paths]
    return Path(path).name if names.count(Path(path).name) == 1 else str(path)


def _of_bundle(name: str, bundle: Bundle, own: Sample) -> dict:
    """What is measured of each bundle alone: sharp windows, and windows through its own instrument."""
    _say(f"{name}: accuracy, calibration, coverage")
    views = draw_views(bundle, len(own.images), SEED)
    seen = see(bundle, own.images, views, SEED)
    temperature = bundle.card["calibration"]["temperature"]
    log = [json.loads(line) for line in (bundle.path / "log.jsonl").read_text().splitlines()]
    return {
        "network": bundle.card["network"], "instrument": bundle.card["instrument"]["summary"],
        "weights": sum(parameter.numel() for parameter in bundle.network.parameters()),
        "log": log, "sharp": _sharp(bundle, own),
        "calibration": trust.calibrated(seen.logits, own.label, temperature),
        "coverage": trust.covered(bundle.parameters, seen.hidden, seen.known(own)),
        "milliseconds": _cost(bundle, own),
    }  # fmt: skip


def _sharp(bundle: Bundle, sample: Sample) -> dict:
    """Accuracy and confusion on sharp windows."""
    answers = see(bundle, sample.images).logits.argmax(1)
    counts = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    np.add.at(counts, (sample.label, answers), 1)
    right = np.diagonal(counts) / np.maximum(counts.sum(1), 1)
    return {
        "images": len(answers), "accuracy": float((answers == sample.label).mean()), "confusion": counts.tolist(),
        "per_class": {name: float(share) for name, share, n in zip(CLASS_NAMES, right, counts.sum(1)) if n},
    }  # fmt: skip


def _cost(bundle: Bundle, sample: Sample) -> float:
    """Processor time of the network for one window, in milliseconds; the least of three."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        see(bundle, sample.images[:256])
        times.append(time.process_time() - begin)
    return 1000 * min(times) / len(sample.images[:256])


def surfaces(bundle: Bundle, sample: Sample) -> dict:
    """Whether free surfaces and interior slices of a class fall into one cluster (S2 of the paper).

    Per class of three dimensions: accuracy on both; the distance between their mean logits in units of the standard
    deviation of the cloud (root mean square over the outputs); and the share of surface windows among the nearest
    neighbours of surface windows of other lattices, beside the share that chance would give.
    """
    found = {}
    logits = see(bundle, sample.images).logits
    for k, name in enumerate(CLASS_NAMES):
        mine = sample.label == k
        if BY_NAME[name].dimension == 2 or not sample.surface[mine].any():
            continue
        points, free, lattice = logits[mine] / bundle.clouds.sigma[k], sample.surface[mine] > 0, sample.lattice[mine]
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        apart[lattice[:, None] == lattice[None]] = np.inf
        nearest = apart.argmin(1)
        answers = logits[mine].argmax(1) == k
        found[name] = {
            "surfaces": int(free.sum()), "interior": int((~free).sum()),
            "accuracy_surface": float(answers[free].mean()), "accuracy_interior": float(answers[~free].mean()),
            "distance_of_means": float(np.sqrt(np.mean((points[free].mean(0) - points[~free].mean(0)) ** 2))),
            "neighbour_is_surface": float(free[nearest[free]].mean()), "chance": float(free.mean()),
        }  # fmt: skip
    return found


def _blur(bundles: dict[str, Bundle], own: Sample, learnt: Sample | None) -> dict:
    """Confusions against blur of bundles, told of the width or not, and of the baselines."""
    _say("accuracy against blur")
    answerers = {name: blur.network_answerer(bundle, False) for name, bundle in bundles.items()}
    answerers |= {
        f"{name}, width told": blur.network_answerer(bundle, True)
        for name, bundle in bundles.items() if bundle.network.conditioned and section(bundle).instrument
    }  # fmt: skip
    if learnt is not None:
        instrument = section(next(iter(bundles.values()))).instrument
        answerers |= blur.baseline_answerers(learnt, instrument, SEED)
        answerers |= {f"{kind}, sharp": own for kind, own in blur.baseline_answerers(learnt, None, SEED).items()}
    counts = blur.confusions(answerers, own, SEED)
    airy = blur.confusions({name: answerers[name] for name in list(answerers)[:1]}, own, SEED, airy=True)
    return {
        "psf_px": list(PSF_PX), "thresholds": list(THRESHOLD_NAMES), "images": len(own.images),
        "confusions": {name: table.tolist() for name, table in counts.items()},
        "airy": {name: table.tolist() for name, table in airy.items()},
    }  # fmt: skip


def _page(found: dict, bundles: dict[str, Bundle], series: list, folder: Path) -> str:
    """The text of the page; numbers and pictures are left in `folder`."""
    (folder / JSON).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    first = next(iter(bundles))
    figures = [
        picture(folder / "blur.png", "Accuracy against the width of the point-spread function",
                "Mean accuracy over the classes, for each kind of threshold. Full lines: networks; dashed: baselines "
                "that learnt through the same microscopes; dash-dotted: baselines that learnt sharp images. "
                "Thin dotted lines: the percolation classes counted as one, as a threshold from the frame leaves them.",
                lambda path: pictures.blur(found["blur"], path)),
        picture(folder / "confusions.png", "What is taken for what at which resolution",
                f"Confusions of {first} at the fixed threshold, rows the truth, in per cent.",
                lambda path: pictures.confusions(found["blur"], first, path)),
        picture(folder / "calibration.png", "Reliability diagram",
                "How often answers are right against how sure they are, temperature scaled, with 95 % intervals; "
                "windows through the bundle's instrument.",
                lambda path: pictures.reliability({n: b["calibration"] for n, b in found["bundles"].items()}, path)),
        picture(folder / "learning.png", "Accuracy against epochs and against time",
                "Error on validation images during the training of each bundle.",
                lambda path: pictures.learning({n: b["log"] for n, b in found["bundles"].items()}, path)),
        picture(folder / "criticality.png", "Distance to the cloud against the parameter",
                "Series of known truth through the first bundle: is the distance to the training cloud least at the "
                "critical value?", lambda path: criticality.figure(series, path)),
    ]  # fmt: skip
    if "rejection" in found:
        figures.append(picture(folder / "rejection.png", "AUROC of every score on every foreign family",
                               f"How well each score tells foreign windows from own ones, for {first}.",
                               lambda path: pictures.rejection(found["rejection"][first], path)))  # fmt: skip
    context = {"tables": tables(found), "figures": figures, "names": list(bundles)}
    return render("assess.html.j2", context)


def tables(found: dict) -> list[dict]:
    """All tables of the page: {"title", "head", "rows", "note"}, every cell a text."""
    return [
        _networks(found), _accuracy(found), *_blur_tables(found["blur"]), *_rejection_tables(found), _coverage(found),
        _beyond(found["beyond"]), _surface(found["surface"]),
    ]  # fmt: skip


def _percent(share: float, digits: int = 1) -> str:
    return "-" if share is None or not np.isfinite(share) else f"{100 * share:.{digits}f}"


def _networks(found: dict) -> dict:
    rows = []
    for name, own in found["bundles"].items():
        net, log = own["network"], own["log"]
        rows.append([
            name, net["kind"], str(net["filters"]), str(net["hidden"]), f"{own['weights']:,}",
            str(len(log)), f"{sum(line['seconds'] for line in log):.0f}", f"{log[-1]['images_per_second']:.0f}",
            f"{own['milliseconds']:.2f}", {"majority": "1"}.get(net["symmetry"], "16"), own["instrument"],
        ])  # fmt: skip
    head = ["bundle", "network", "filters", "hidden", "weights", "epochs", "training s", "images/s", "CPU ms a window",
            "symmetry elements", "instrument of training"]  # fmt: skip
    return {"title": "Networks", "head": head, "rows": rows, "note": "Times of training are those of its log."}


def _accuracy(found: dict) -> dict:
    rows = []
    for name, own in found["bundles"].items():
        for what in ("sharp", "larger"):
            if what in own:
                classes = [_percent(own[what]["per_class"].get(k, np.nan), 2) for k in CLASS_NAMES]
                lattices = "fresh lattices" if what == "sharp" else "larger lattices"
                rows.append(
                    [f"{name}, {lattices}", str(own[what]["images"]), _percent(own[what]["accuracy"], 2), *classes]
                )
    note = "Per cent of sharp windows in the right class; all of other seeds than the training."
    return {
        "title": "Accuracy on sharp images",
        "head": ["", "windows", "all", *CLASS_NAMES],
        "rows": rows,
        "note": note,
    }


def _blur_tables(found: dict) -> list[dict]:
    result = []
    head = ["", *(f"{width:g} px" for width in found["psf_px"])]
    counts = {name: np.array(table) for name, table in found["confusions"].items()}
    airy = {f"{name}, Airy disc": np.array(table) for name, table in found["airy"].items()}
    for t, threshold in enumerate(found["thresholds"]):
        rows = [[name, *map(_percent, blur.balanced(table[:, t]))] for name, table in (counts | airy).items()]
        if threshold != "fixed":
            rows += [[f"{name}, percolation as one", *map(_percent, blur.balanced(table[:, t], blur.MERGED))]
                     for name, table in counts.items()]  # fmt: skip
        note = f"Per cent right, mean over the classes, of {found['images']} windows."
        result.append(
            {"title": f"Accuracy against blur, {threshold} threshold", "head": head, "rows": rows, "note": note}
        )
    first = next(iter(counts))
    share = np.diagonal(counts[first][:, 0], axis1=1, axis2=2) / np.maximum(counts[first][:, 0].sum(2), 1)
    rows = [[name, *map(_percent, share[:, k])] for k, name in enumerate(CLASS_NAMES)]
    result.append({"title": f"{first} by class, fixed threshold", "head": head, "rows": rows, "note": ""})
    return result


def _rejection_tables(found: dict) -> list[dict]:
    result = []
    for name, own in found.get("rejection", {}).items():
        head = ["score", "mean", *own["families"]]
        for key, title in (("auroc", "AUROC"), ("accepted", "Foreign windows accepted at 95 % true, per cent")):
            rows = [
                [score, *(_percent(x) for x in (np.mean(row[key]), *row[key]))] for score, row in own["scores"].items()
            ]
            if key == "accepted":
                rows += [[f"{flag}, as the paper has it ({_percent(row['own'])} % of own)",
                          *(_percent(x) for x in (np.mean(row["foreign"]), *row["foreign"]))]
                         for flag, row in own["flag"].items()]  # fmt: skip
            note = "In per cent; 50 is chance." if key == "auroc" else ""
            result.append({"title": f"{title}: {name}", "head": head, "rows": rows, "note": note})
    return result


def _coverage(found: dict) -> dict:
    rows = []
    for name, own in found["bundles"].items():
        calibration = own["calibration"]
        for k, row in own["coverage"].items():
            width = "none promised" if row["sigma68"] is None else f"{row['sigma68']:.4f}"
            numbers = f"{row['error68']:.4f}", width, f"{row['slope']:.2f}", str(row["lattices"])
            rows.append([name, k, _percent(row["in68"]), _percent(row["in90"]), *numbers])
        rows.append([name, f"ECE {_percent(calibration['ece'], 2)} % (temperature {calibration['temperature']:.2f}; "
                     f"without it {_percent(calibration['ece_uncalibrated'], 2)} %)", *[""] * 6])  # fmt: skip
    head = [
        "bundle",
        "class",
        "in 68 % interval",
        "in 90 % interval",
        "68 % of errors below",
        "68 % half width",
        "slope",
        "lattices",
    ]
    note = (
        "Parameter (T/J, R/J or p) of windows through the instrument of the bundle. Slope 0: the image tells nothing."
    )
    return {"title": "Coverage of the parameter, and calibration error", "head": head, "rows": rows, "note": note}


def _beyond(found: dict) -> dict:
    rows = [
        [series, place, str(row["windows"]), _percent(row["in68"]), _percent(row["open68"]),
         _percent(row["in90"]), _percent(row["open90"]),
         "none promised" if row["sigma68"] is None else f"{row['sigma68']:.4f}", f"{row['off']:+.4f}",
         _percent(row["answered"])]
        for series, places in found.items() for place, row in places.items()
    ]  # fmt: skip
    head = ["series", "trained range", "windows", "in 68 % interval", "with open ends",
            "in 90 % interval", "with open ends", "68 % half width", "mean error", "right class, %"]  # fmt: skip
    note = (
        "Sharp windows of the first bundle, taken as of the class that drew them. An interval that reaches an end of "
        "the trained range is open there, which is how the verdict reads it."
    )
    return {"title": "The parameter beyond the trained range", "head": head, "rows": rows, "note": note}


def _surface(found: dict) -> dict:
    rows = [
        [name, k, _percent(row["accuracy_surface"], 2), _percent(row["accuracy_interior"], 2),
         f"{row['distance_of_means']:.2f}", _percent(row["neighbour_is_surface"]), _percent(row["chance"])]
        for name, own in found.items() for k, row in own.items()
    ]  # fmt: skip
    head = ["bundle", "class", "right on surfaces, %", "right inside, %", "distance of means, sigma",
            "nearest is a surface, %", "by chance, %"]  # fmt: skip
    note = "Free surfaces and interior slices of the same class: one cluster where the nearest is a surface by chance."
    return {"title": "Surfaces and interior", "head": head, "rows": rows, "note": note}


def _say(message: str) -> None:
    print(f"assess: {message}", file=sys.stderr, flush=True)
