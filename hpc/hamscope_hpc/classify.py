"""Frames to results.h5: a pool of Ray actors, each with the network, classifies frames or bands of their windows.

    frames --list--> bands --Ray Data--> actors: read, threshold, classify --> OUT.parts/ --merge, write--> OUT

Rows that travel name a frame and a band of its windows, never pixels: the actors do the reading.  Every band leaves
a part file, and so does every finished frame.  The name of a part is a hash of all that it was made from, so parts of
another bundle, other options or other pixels are never taken for it, and the same command goes on where it was.

A frame that cannot be classified in three tries is quarantined (`hamscope_hpc.classify_actor` says how): the others go
on, and the results name it and why.
"""

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace as changed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray
import torch
from scipy import ndimage

from hamscope.config import Classify
from hamscope.data.frames import FrameRef, list_frames
from hamscope.data.parts import frames_of, merge, preview_shape, spread
from hamscope.data.results import Frame, Quarantined, read_results, write_frames
from hamscope.data.windows import window_grid
from hamscope.errors import ContractError, FrameError, Stopped, UserError
from hamscope.learn.bundle import Bundle, default_bundle, read_bundle
from hamscope.learn.dense import classify_band, score_name
from hamscope.provenance import (
    canonical_json,
    check_writable,
    section_hash,
    section_json,
    sha256_file,
    sha256_text,
    software_versions,
)
from hamscope_hpc.classify_actor import (
    BandClassifier,
    bad_path,
    band_path,
    forget_tries,
    frame_jobs,
    frame_path,
    levels_path,
    reason_of,
)
from hamscope_hpc.classify_metrics import Progress, say
from hamscope_hpc.cluster import start_ray
from hamscope_hpc.progress import PROGRESS, counted, duration, mark_stopped

MAX_BLOCKS = 4096  # tasks of one run; with more bands than this a task does several
ACTOR_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}  # else every thread of an actor keeps freed memory of its own
_REHEARSAL = 0.3  # seconds that are timed before the start, at least
_LARGEST = 1024  # pixels a side of what is timed
_NAMED = 20  # quarantined frames that get a line as they occur


class Pool(NamedTuple):
    """What the actors run on: how many there are, and the share of a GPU that each of them takes."""

    actors: int
    gpu_share: float


def classify(
    frames: list[str],
    bundle: str | Path | None,
    out: str | Path,
    options: Classify,
    actors: int | None = None,
    replace=False,
    actors_per_gpu: int = 1,
) -> Path:
    """Classify every window of the frames and write `out`; return its path.

    An `out` that was made from the same frames, bundle and options is left as it is.  Frames that cannot be classified
    stand in its table `quarantined`; then the parts of the others are kept beside it, so that only what was mended has
    to be classified when the frames are given again.

    Parameters
    ----------
    frames : list of str
        Files, folders and globs; see `hamscope.data.frames`.
    bundle : str, Path or None
        The folder of a bundle; None for the one that comes with hamscope.
    actors : int, optional
        Processes that classify; by default as many as the GPUs hold, or one a core where there is no GPU.
    replace : bool
        Replace an `out` that was made from something else; try again what is quarantined in one that was not.
    actors_per_gpu : int
        Actors that share a GPU.

    Raises
    ------
    UserError
        Frames that are no frames by their names and headers (all of them are named), none that can be classified or has
        a pattern, a bundle that is none, or an `out` that is something else.  Finished parts stay.
    Stopped
        On Ctrl-C or SIGTERM.  Finished parts stay and the same call goes on with them.
    """
    out = Path(out).absolute()
    check_writable(out)
    loaded = read_bundle(bundle or default_bundle())
    refs = told(list_frames(frames, loaded.window), options)
    keys = part_keys(refs, loaded, options)
    named = [
        [key, ref.source, ref.page, str(ref.temperature), ref.direction, str(ref.psf_px)]
        for key, ref in zip(keys, refs)
    ]
    inputs = section_hash(options, loaded.sha256, canonical_json(named))
    folder = out.with_name(f"{out.name}.parts")
    if _is_done(out, inputs, replace, folder, keys):
        say(f"{out} was made from these frames, this bundle and these options; nothing to do")
        return out
    folder.mkdir(exist_ok=True)
    attributes = {
        "inputs_sha256": inputs, "bundle_sha256": loaded.sha256, "config": options.model_dump(mode="json"),
        "config_sha256": sha256_text(section_json(options)), "bundle": loaded.essentials,
        "bundle_is_default": bundle is None, "score": score_name(loaded, options.confidence),
        "window": loaded.window, "stride": options.stride,
        "software": software_versions("numpy", "scikit-image", "scipy", "torch", "ray"),
    }  # fmt: skip
    try:
        bad = _make_parts(dict(zip(keys, refs)), loaded, options, folder, out.stem, actors, actors_per_gpu)
        _write(out, refs, keys, bad, loaded, attributes, folder)
    except KeyboardInterrupt:
        forget_tries(folder)
        mark_stopped(folder / PROGRESS, "a signal")
        raise Stopped(f"classify: stopped; what is done is kept in {folder}, the same command goes on") from None
    if not bad:
        shutil.rmtree(folder)
    say(f"{out}: {counted(len(refs) - sum(key in bad for key in keys), 'frame')}")
    return out


def told(refs: list[FrameRef], options: Classify) -> list[FrameRef]:
    """The frames with the width of the point-spread function in the options, where there is one, in place of theirs."""
    return refs if options.psf_px is None else [changed(ref, psf_px=options.psf_px) for ref in refs]


def part_keys(refs: list[FrameRef], bundle: Bundle, options: Classify) -> list[str]:
    """The name of the part of every frame: a hash of its file, place therein, microscope, bundle, options, hamscope."""
    hashes = {path: sha256_file(path) for path in dict.fromkeys(ref.path for ref in refs)}
    return [
        section_hash(options, bundle.sha256, hashes[ref.path], ref.array, str(ref.page), str(ref.psf_px))
        for ref in refs
    ]


def _make_parts(
    refs: dict[str, FrameRef],
    bundle: Bundle,
    options: Classify,
    folder: Path,
    run: str,
    actors: int | None,
    actors_per_gpu: int,
) -> dict[str, str]:
    """Leave a part in `folder` for each of the frames, given by the key of its part; the reasons of those without one.

    Raises FrameError where that is all of them.
    """
    jobs = {
        key: frame_jobs(key, ref, bundle.window, options.stride)
        for key, ref in refs.items()
        if not frame_path(folder, key).exists()
    }
    bad = {key: reason for key in jobs if (reason := reason_of(folder, key))}
    todo = {key: [job for job in frame if not band_path(folder, job).exists()]
            for key, frame in jobs.items() if key not in bad}  # fmt: skip
    for key in [key for key, left in todo.items() if not left]:
        _merge_bands(key, jobs[key], folder)
        del todo[key]
    known = f", {len(bad)} quarantined" if bad else ""
    say(f"{counted(len(refs), 'frame')}, {len(refs) - len(bad) - len(todo)} of them done already{known}")
    if todo:
        rows = [job for left in todo.values() for job in left]
        done = len(refs) - len(bad) - len(todo)
        with start_ray():
            pool = _pool(len(rows), actors, actors_per_gpu)
            _announce(todo, rows, bundle, options, pool)
            windows = sum(row["windows"] for row in rows)
            progress = Progress(run, len(refs), done, len(bad), len(rows), windows, folder / PROGRESS)
            results = _pool_results(rows, bundle, options, folder, run, pool)
            bad |= _run(results, todo, jobs, refs, folder, progress)
    if len(bad) == len(refs):
        lines = [*(f"{refs[key]}: {reason}" for key, reason in bad.items()),
                 f"none of the {len(refs)} frames can be classified; mend them or give others"]  # fmt: skip
        for key in bad:
            bad_path(folder, key).unlink(missing_ok=True)
        raise FrameError("\n".join(lines))
    return bad


def _run(results, todo: dict, jobs: dict, refs: dict, folder: Path, progress: Progress) -> dict[str, str]:
    """Take the rows of the bands `todo` (by frame) as they come; return the reasons of the quarantined frames."""
    missing, bad = {key: len(left) for key, left in todo.items()}, {}
    with closing(results):
        for row in results:
            key = row["key"]
            missing[key] -= 1
            if row["reason"] and key not in bad:
                bad[key] = row["reason"]
                if len(bad) <= _NAMED:
                    say(f"{refs[key]}: quarantined: {row['reason']}")
            if not missing[key]:
                if key not in bad:
                    _merge_bands(key, jobs[key], folder)
                progress.frame(key in bad)
            progress.band(row["windows"], bool(row["reason"]))
    progress.show(end=True)
    return bad


def _pool(rows: int, actors: int | None, actors_per_gpu: int) -> Pool:
    """The actors that find a place on this Ray; with more of them it would wait for ever."""
    gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
    places = min(gpus * actors_per_gpu, cpus) if gpus else cpus
    return Pool(min(actors or places, places, rows), 1 / actors_per_gpu if gpus else 0)


def _announce(todo: dict, rows: list[dict], bundle: Bundle, options: Classify, pool: Pool) -> None:
    """Say how much there is to do and how long it may take."""
    windows = sum(row["windows"] for row in rows)
    rate = _rehearse(bundle, options, (rows[0]["height"], rows[0]["width"]))
    actors = counted(pool.actors, "actor")
    say(
        f"{counted(len(todo), 'frame')} to do, {counted(windows, 'window')} of {bundle.window} x {bundle.window} "
        f"pixels at stride {options.stride}: about {duration(max(1.0, windows / rate / pool.actors))} on {actors} "
        f"({rate:.0f} windows/s each, timed on one {'core; GPUs are faster' if pool.gpu_share else 'core'})"
    )


def _pool_results(rows: list[dict], bundle: Bundle, options: Classify, folder: Path, run: str, pool: Pool) -> Iterator:
    """Yield the row of every band as an actor of the pool finishes it."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # Ray's log files keep everything
            handler.setLevel(logging.ERROR)
    device = "cuda" if pool.gpu_share else "cpu"
    arguments = (str(bundle.path.absolute()), bundle.sha256, options, str(folder), device, run)
    # A dead actor is started again and gets its task again, without end; the third try of a band ends that.
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map(
        BandClassifier, fn_constructor_args=arguments, compute=ray.data.ActorPoolStrategy(size=pool.actors),
        num_cpus=1, num_gpus=pool.gpu_share, runtime_env={"env_vars": ACTOR_ENVIRONMENT},
    )  # fmt: skip
    yield from dataset.iter_rows()


def _merge_bands(key: str, jobs: list[dict], folder: Path) -> None:
    """Make the parts of the bands of a frame one part."""
    paths = [band_path(folder, job) for job in jobs]
    if len(paths) == 1:
        paths[0].rename(frame_path(folder, key))
        return
    merge(paths, frame_path(folder, key))
    for path in (*paths, levels_path(folder, key)):
        path.unlink(missing_ok=True)


def _write(
    out: Path,
    refs: list[FrameRef],
    keys: list[str],
    bad: dict[str, str],
    bundle: Bundle,
    attributes: dict,
    folder: Path,
) -> None:
    """Write the results of the frames that have a part, and the names of the others."""
    good = [(ref, frame_path(folder, key)) for ref, key in zip(refs, keys) if key not in bad]
    given_up = [Quarantined(ref.source, ref.page, bad[key]) for ref, key in zip(refs, keys) if key in bad]
    clouds = np.stack([spread(points) for points in bundle.clouds.points])
    rows = _rows(*zip(*good), bundle.window, attributes["config"]["threshold"], folder)
    shape = preview_shape([ref for ref, _ in good])
    write_frames(out, rows, len(good), shape, clouds, attributes, given_up)


def _rows(
    refs: tuple[FrameRef], paths: tuple[Path], window: int, threshold: str | float, folder: Path
) -> Iterator[Frame]:
    """The rows of the results.  Says which frames have no pattern; UserError where that is all of them."""
    uniform = defaultdict(list)
    for ref, (part, frame) in zip(refs, frames_of(refs, paths, window)):
        if not part.n_windows:
            uniform[ref.source].append(f"{ref.page} (grey {part.grey_range[0]:g} to {part.grey_range[1]:g})")
        yield frame
    for source, pages in uniform.items():
        more = f" and {len(pages) - 8} more" if len(pages) > 8 else ""
        say(f"{source}, frame {', '.join(pages[:8])}{more}: every window is of one level, no pattern, no verdict")
    if sum(map(len, uniform.values())) == len(refs):
        shutil.rmtree(folder)
        raise UserError(
            f"none of the {len(refs)} frames has a pattern at threshold {threshold}; choose another threshold, "
            "or frames within the transition"
        )


def _is_done(out: Path, inputs: str, replace: bool, folder: Path, keys: list[str]) -> bool:
    """Whether `out` holds these results already; UserError where it holds anything else and may not be replaced.

    Where it does but for quarantined frames and may be replaced, those are to be tried again.
    """
    if not out.exists():
        return False
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give --out the name of a file")
    try:
        results = read_results(out, pictures=False)
        found, quarantined = results.attributes["inputs_sha256"], results.quarantined
    except (ContractError, KeyError):
        found, quarantined = None, []
    if found != inputs and not replace:
        what = "holds the results of other frames, another bundle or other options" if found else "is no results file"
        raise UserError(f"{out}: {what}; add --replace or choose another --out")
    if found == inputs and quarantined and replace:
        for key in keys:
            bad_path(folder, key).unlink(missing_ok=True)
        return False
    return found == inputs


def _rehearse(bundle: Bundle, options: Classify, shape: tuple[int, int]) -> float:
    """Windows a second on one core of this machine, timed on made-up domains.

    Windows share work with their neighbours, so larger and larger pieces are taken, up to a frame of `shape`, until
    one takes long enough to be timed.
    """
    threads, side, rate = torch.get_num_threads(), 2, 0.0
    noise = np.random.default_rng(0).normal(size=[min(length, _LARGEST) for length in shape])
    domains = (ndimage.gaussian_filter(noise, 2.0) > 0).astype(np.uint8)
    torch.set_num_threads(1)
    try:
        while True:
            piece = domains[tuple([slice(bundle.window + (side - 1) * options.stride)] * 2)]
            rows, columns = window_grid(piece.shape, bundle.window, options.stride)
            begin = time.perf_counter()
            classify_band(piece, bundle, options.stride, 0, rows, options.confidence)
            seconds = time.perf_counter() - begin
            rate = max(rate, rows * columns / seconds)  # the first piece also warms up
            if piece.shape == domains.shape or (seconds > _REHEARSAL and side > 2):
                return rate
            side *= 2
    finally:
        torch.set_num_threads(threads)
