"""The pictures of a report of results: those of one source, the plots of a series, its domains and its loop."""

from pathlib import Path

import numpy as np

from hamscope import figures, film_figures, series_figures
from hamscope.data.results import SAMPLE, Results, sample_windows
from hamscope.domains import Phase
from hamscope.hysteresis import Loop
from hamscope.models import CLASS_NAMES
from hamscope.page import picture, plot
from hamscope.report_domains import magnetization
from hamscope.separated import closest_approach
from hamscope.sweep_figure import sweep_picture
from hamscope.verdict import NO_PATTERN, Verdict, bundle_card


def source_pictures(results: Results, verdict: Verdict, rows: list[int], prefix: Path) -> list[dict]:
    """The pictures of a source that are no series: some frames side by side, the sweep, the clouds."""
    pictures = []
    if len(rows) > 1:
        pictures.append(
            ("frames", "Two-level frames, and a map of the class of every window", _frames_caption(rows),
             lambda path: figures.frames_and_maps(results, rows, path))
        )  # fmt: skip
    sweep = swept(results, verdict)
    if sweep and verdict.kind != NO_PATTERN:
        span = bundle_card(results.attributes).get("instrument", {}).get("psf_px", [0, 3])
        pictures.append(
            ("sweep", "Verdict against the assumed resolution", SWEEP_CAPTION,
             lambda path: sweep_picture([sweep], span, path))
        )  # fmt: skip
    if verdict.kind != NO_PATTERN:
        sample, confident = pooled_sample(results, list(verdict.rows_used))
        pictures.append(
            ("clouds", "Outputs of the network for the training images and for the windows", CLOUDS_CAPTION,
             lambda path: figures.clouds(results.cloud_sample, path, sample, confident))
        )  # fmt: skip
    return [picture(prefix.with_name(f"{prefix.name}-{kind}.png"), *rest) for kind, *rest in pictures]


def series_plots(
    results: Results, rows: list[int], verdict: Verdict | None, error: np.ndarray, prefix: Path
) -> list[dict]:
    """The plots of a series: shares of the classes and distances to the clouds; none for one frame or no pattern.

    `error` (F, 7) are the standard errors of the distances.
    """
    model = verdict.model if verdict else None
    if len(rows) < 2 or not (results.n_windows[rows] > 0).any():
        return []
    against = film_figures.series_axis(results, rows).title.split(" ")[0]
    return [
        plot(prefix.with_name(f"{prefix.name}-fractions.png"), f"Shares of the classes against {against}",
             FRACTIONS_CAPTION,
             lambda path, narrow: film_figures.fractions(results, rows, path, narrow)),
        plot(prefix.with_name(f"{prefix.name}-distance.png"), f"Distance to the cloud of each class against {against}",
             _distance_caption(results, verdict, rows, error),
             lambda path, narrow: film_figures.distances(results, rows, path, model, error, narrow)),
    ]  # fmt: skip


def domain_pictures(
    results: Results, rows: list[int], phases: dict[str, Phase], loops: list[Loop], error: np.ndarray, prefix: Path
) -> list[dict]:
    """The loop of a series whose temperatures are known, and the cluster sizes and outlines that have an exponent."""
    pictures, kelvin = [], results.temperature[rows]
    if len(rows) > 2 and np.isfinite(kelvin).all():
        pictures.append(
            ("loop", "Magnetization against temperature", LOOP_CAPTION,
             lambda path: series_figures.hysteresis(kelvin, magnetization(results, rows), results.direction[rows],
                                                    loops, path, error))
        )  # fmt: skip
    # Without a fit these plots say no more than the table of the exponents.
    if any(np.isfinite(phase.tau.value) for phase in phases.values()):
        pictures.append(
            ("sizes", "Sizes of the clusters", SIZES_CAPTION, lambda path: series_figures.cluster_sizes(phases, path))
        )
    if any(np.isfinite(own.value) for phase in phases.values() for own in (phase.volume, phase.hull, phase.perimeter)):
        pictures.append(
            ("outlines", "Pixels, hull and perimeter of the clusters against their radius", OUTLINES_CAPTION,
             lambda path: series_figures.outlines(phases, path))
        )  # fmt: skip
    return [
        picture(prefix.with_name(f"{prefix.name}-{kind}.png"), *rest, narrow=kind != "outlines")
        for kind, *rest in pictures
    ]


def swept(results: Results, verdict: Verdict) -> dict | None:
    """The sweep of a source over assumed widths, None where there is none or it is not as it should be."""
    try:
        one = results.attributes["sweep"][verdict.source]
        widths = [None if width is None else float(width) for width in one["psf_px"]]
        chances, sure = np.array(one["probabilities"], float), np.array(one["confident"], float)
        told = None if one["told"] is None else float(one["told"])
    except (KeyError, TypeError, ValueError):
        return None
    known = [width for width in widths if width is not None]
    fits = chances.shape == (len(widths), len(CLASS_NAMES)) and sure.shape == (len(widths),) and len(set(known)) > 1
    if not fits or not all(np.isfinite(array).all() for array in (chances, sure, known, told or 0.0)):
        return None
    return {"psf_px": widths, "probabilities": chances, "confident": sure, "told": told, "windows": one.get("windows")}


def pooled_sample(results: Results, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sampled logits of the rows, shape (S, 7), NaN rows among them, and which of them are confident, shape (S,)."""
    flags = np.zeros((len(rows), SAMPLE), bool)
    for own, row in zip(flags, rows):
        chosen = sample_windows(results.flag_maps[row].shape)
        own[: len(chosen)] = results.flag_maps[row].ravel()[chosen]
    return results.logits_sample[rows].reshape(-1, len(CLASS_NAMES)), flags.ravel()


def _frames_caption(rows: list[int]) -> str:
    some = f"{figures.PICTURES} of the {len(rows)} frames, evenly spaced. " if len(rows) > figures.PICTURES else ""
    return (
        f"{some}Above, the two-level frame: up is dark. Below, the class of every window, drawn at its centre "
        "(the dashed line shows where the centres lie), and the leading class with its share and, in parentheses, "
        "the part of it that is confident."
    )


def _distance_caption(results: Results, verdict: Verdict | None, rows: list[int], error: np.ndarray) -> str:
    text = (
        "How far the windows lie, on the average, from the nearest training image of each class, with standard errors "
        "from windows that do not overlap, and the share up."
    )
    if verdict is None or verdict.model is None:
        return text
    k = CLASS_NAMES.index(verdict.model)
    closest = closest_approach(results.cloud_distance[rows, k], error[rows, k])
    if closest is None:
        return text
    kelvin = results.temperature[rows]
    names = [f"{own:.1f} K" if np.isfinite(own) else f"frame {results.index[row]}" for own, row in zip(kelvin, rows)]
    as_close = [names[place] for place in closest.alike if place != closest.place]
    others = f"; as close within two errors: {_listed(as_close)}" if as_close else ""
    return (
        f"{text} The closest approach to {verdict.model} is at {names[closest.place]}{others}. That the sample is "
        "nearest to its critical point there is a conjecture of the paper, not a measurement."
    )


def _listed(names: list[str]) -> str:
    """A few names, or how many there are."""
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} frames"


FRACTIONS_CAPTION = (
    "Share of the windows in each class, frame by frame: bright where confident, dark where not. Triangles mark the "
    "frames near the middle of the transition, which the verdict pools. The line marks the frame that the slider "
    "shows; a click on the plot chooses another."
)
SWEEP_CAPTION = (
    "What the verdict would be at another resolution: the same windows (at most 500), with the network told each width "
    "of the point-spread function in turn. Lines: calibrated probabilities of the classes, mean over the windows. The "
    "stripe on top is the class that leads. On the left, points: the network is told nothing. Shaded: widths that the "
    "network was not trained for. Where the stripe changes, the resolution has to be known before the verdict is "
    "believed."
)
CLOUDS_CAPTION = (
    "The seven outputs of the network before the softmax. Colours: training images. Black: windows of the frames that "
    "the verdict pools, filled where confident. Each axis sets two classes against each other; its percentage is its "
    "part in the distances between the seven centres, and the six axes together hold all of it. Windows apart from "
    "every cloud look like none of the training images."
)
LOOP_CAPTION = (
    "The loop: m = 2 up - 1 of every frame. Diamonds: coercive points, where m = 0. The error of m is that of another "
    "place on the sample, from the spread within the frame."
)
SIZES_CAPTION = (
    "How many clusters of each size there are, per pixel, in the measured frames near the middle of the transition. "
    "Clusters that touch the border are left out, and the others stand for them. Lines: power laws within the range of "
    "their fit."
)
OUTLINES_CAPTION = "Pixels, hull and accessible perimeter of the same clusters against their radius of gyration."
