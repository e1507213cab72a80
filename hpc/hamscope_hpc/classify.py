"""Frames to results.h5: a pool of Ray actors, each with the network, classifies bands of windows.

    frames --list--> bands --Ray Data--> actors: read, threshold, classify --> OUT.parts/ --merge, assemble--> OUT

Rows that travel name a frame and a band of its windows, never pixels: the actors do the reading.  Every band leaves
a part file, and so does every finished frame.  The name of a part is a hash of all that it was made from, so parts of
another bundle, other options or other pixels are never taken for it, and the same command goes on where it was.
"""

import logging
import shutil
import sys
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import ray
import torch

from hamscope.config import Classify
from hamscope.data import instrument
from hamscope.data.frames import FrameRef, list_frames, read_frame
from hamscope.data.parts import assemble, band_part, merge, read_part, write_part
from hamscope.data.results import read_attributes, write_results
from hamscope.data.windows import bands, binarize, has_two_levels, window_grid
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
from hamscope_hpc.cluster import start_ray
from hamscope_hpc.progress import duration

BAND_WINDOWS = 4096  # what one task classifies: some ten seconds of work on a core
MAX_BLOCKS = 4096  # tasks of one run; with more bands than this a task does several
_REHEARSAL = 64  # windows that are timed before the start


def classify(
    frames: list[str],
    bundle: str | Path | None,
    out: str | Path,
    options: Classify,
    actors: int | None = None,
    replace=False,
) -> Path:
    """Classify every window of the frames and write `out`; return its path.

    An `out` that was made from the same frames, bundle and options is left as it is.

    Parameters
    ----------
    frames : list of str
        Files, folders and globs; see `hamscope.data.frames`.
    bundle : str, Path or None
        The folder of a bundle; None for the one that comes with hamscope.
    actors : int, optional
        Processes that classify; by default one a GPU, or one a core where there is no GPU.
    replace : bool
        Replace an `out` that was made from something else.

    Raises
    ------
    UserError
        Frames that cannot be classified (all of them are named), no frame with a pattern, a bundle that is none, or
        an `out` that is something else.  Finished parts stay.
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
    if _is_done(out, inputs, replace):
        _say(f"{out} was made from these frames, this bundle and these options; nothing to do")
        return out
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(exist_ok=True)
    attributes = {
        "inputs_sha256": inputs, "bundle_sha256": loaded.sha256, "config": options.model_dump(mode="json"),
        "config_sha256": sha256_text(section_json(options)), "bundle": loaded.essentials,
        "bundle_is_default": bundle is None, "score": score_name(loaded, options.confidence),
        "window": loaded.window, "stride": options.stride,
        "software": software_versions("numpy", "scikit-image", "scipy", "torch", "ray"),
    }  # fmt: skip
    try:
        _make_parts(dict(zip(keys, refs)), loaded, options, folder, actors)
        paths = [_frame_path(folder, key) for key in keys]
        _name_uniform(refs, paths, options, folder)
        write_results(out, assemble(refs, paths, loaded.window, loaded.clouds.points, attributes))
    except KeyboardInterrupt:
        raise Stopped(f"classify: stopped; what is done is kept in {folder}, the same command goes on") from None
    shutil.rmtree(folder)
    _say(f"{out}: {len(refs)} frames")
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


class BandClassifier:
    """An actor: holds one network, reads its own pixels, and leaves a part file for every band."""

    def __init__(self, bundle: str, sha256: str, options: Classify, folder: str, device: str):
        torch.set_num_threads(1)  # the pool has an actor for every core
        self.bundle, self.options, self.folder = read_bundle(bundle, device), options, Path(folder)
        if self.bundle.sha256 != sha256:
            raise UserError(f"{bundle}: was changed meanwhile; start again")
        self.key, self.grey, self.image, self.adaptive = "", None, None, False

    def __call__(self, job: dict) -> dict:
        """Classify one band; the row that comes back has a `reason` where the frame is bad."""
        path = _band_path(self.folder, job)
        row = {"key": job["key"], "start": job["start"], "windows": job["windows"], "reason": ""}
        if path.exists():  # by an actor that died before it could say so
            return row
        try:
            self._load(job)
        except FrameError as error:
            return row | {"reason": str(error)}
        start, stop, stride = job["start"], job["stop"], self.options.stride
        known = instrument.condition(job["psf_px"], self.adaptive)
        band = classify_band(self.image, self.bundle, stride, start, stop, self.options.confidence, known)
        grid = window_grid(self.image.shape, self.bundle.window, stride)
        write_part(path, band_part(band, self.image, self.grey, self.adaptive, grid, start))
        return row

    def _load(self, job: dict) -> None:
        """Read and threshold the frame, unless the last band was of the same."""
        if self.key == job["key"]:
            return
        self.key = ""
        self.grey = read_frame(FrameRef(job["path"], job["array"], job["page"], (job["height"], job["width"])))
        self.image = binarize(self.grey, self.options.threshold, self.options.up)
        self.adaptive = is_adaptive(self.grey, self.options.threshold)
        self.key = job["key"]


def is_adaptive(grey: np.ndarray, threshold: str | float) -> bool:
    """Whether the threshold was taken from the frame itself, which erases its density."""
    return isinstance(threshold, str) and not has_two_levels(grey)


def _make_parts(refs: dict[str, FrameRef], bundle: Bundle, options: Classify, folder: Path, actors: int | None) -> None:
    """Leave a part in `folder` for each of the frames, given by the key of its part."""
    jobs = {
        key: _band_jobs(key, ref, bundle.window, options.stride)
        for key, ref in refs.items()
        if not _frame_path(folder, key).exists()
    }
    todo = {key: [job for job in frame if not _band_path(folder, job).exists()] for key, frame in jobs.items()}
    for key in [key for key, left in todo.items() if not left]:
        _merge_bands(key, jobs[key], folder)
        del todo[key]
    _say(f"{len(refs)} frames, {len(refs) - len(todo)} of them done already")
    reasons = _run(todo, jobs, bundle, options, folder, actors) if todo else {}
    if reasons:
        lines = [*reasons.values(), f"{len(reasons)} of {len(refs)} frames cannot be classified; mend them or leave"]
        raise FrameError("\n".join(lines) + f" them out, the others are kept in {folder}")


def _run(todo: dict, jobs: dict, bundle: Bundle, options: Classify, folder: Path, actors: int | None) -> dict[str, str]:
    """Run the bands `todo` of every frame (by key) on a pool of actors; return the reasons of the bad frames by key."""
    rows = [job for left in todo.values() for job in left]
    missing, reasons = {key: len(left) for key, left in todo.items()}, {}
    n_windows = sum(row["windows"] for row in rows)
    rate = _rehearse(bundle, options)
    with start_ray():
        gpus = int(ray.cluster_resources().get("GPU", 0))
        places = gpus or int(ray.cluster_resources()["CPU"])  # with more actors than this Ray would wait for ever
        actors = min(actors or places, places, len(rows))
        _say(
            f"{len(todo)} frames to do, {n_windows:,} windows of {bundle.window} x {bundle.window} pixels at stride "
            f"{options.stride}: about {duration(max(1.0, n_windows / rate / actors))} on {actors} actors "
            f"({rate:.0f} windows/s each, timed on one {'core; GPUs are faster' if gpus else 'core'})"
        )
        progress = Progress(len(todo), n_windows)
        with closing(_pool_results(rows, bundle, options, folder, actors, bool(gpus))) as results:
            for row in results:
                key = row["key"]
                missing[key] -= 1
                if row["reason"]:
                    reasons[key] = row["reason"]
                if not missing[key] and key not in reasons:
                    _merge_bands(key, jobs[key], folder)
                progress.done(not missing[key], row["windows"])
        progress.show(end=True)
    return reasons


def _pool_results(rows: list[dict], bundle: Bundle, options: Classify, folder: Path, actors: int, gpus: bool):
    """Yield the row of every band as an actor of the pool finishes it."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # Ray's log files keep everything
            handler.setLevel(logging.ERROR)
    arguments = (str(bundle.path.absolute()), bundle.sha256, options, str(folder), "cuda" if gpus else "cpu")
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map(
        BandClassifier, fn_constructor_args=arguments, compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1, num_gpus=1 if gpus else 0,
    )  # fmt: skip
    yield from dataset.iter_rows()


def _band_jobs(key: str, ref: FrameRef, window: int, stride: int) -> list[dict]:
    """The bands of a frame as rows for Ray."""
    columns = window_grid(ref.shape, window, stride)[1]
    height, width = ref.shape
    return [
        {"key": key, "path": ref.path, "array": ref.array, "page": ref.page, "height": height, "width": width,
         "start": start, "stop": stop, "windows": (stop - start) * columns, "psf_px": ref.psf_px}
        for start, stop in bands(ref.shape, window, stride, BAND_WINDOWS)
    ]  # fmt: skip


def _band_path(folder: Path, job: dict) -> Path:
    return folder / f"{job['key']}.{job['start']}-{job['stop']}.npz"


def _frame_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.npz"


def _merge_bands(key: str, jobs: list[dict], folder: Path) -> None:
    """Make the parts of the bands of a frame one part."""
    paths = [_band_path(folder, job) for job in jobs]
    write_part(_frame_path(folder, key), merge([read_part(path) for path in paths]))
    for path in paths:
        path.unlink()


def _name_uniform(refs: list[FrameRef], paths: list[Path], options: Classify, folder: Path) -> None:
    """Say which frames have no pattern, a line a source; UserError where that is all of them."""
    uniform = defaultdict(list)
    for ref, path in zip(refs, paths):
        part = read_part(path)
        if not part.n_windows:
            uniform[ref.source].append(f"{ref.page} (grey {part.grey_range[0]:g} to {part.grey_range[1]:g})")
    for source, pages in uniform.items():
        more = f" and {len(pages) - 8} more" if len(pages) > 8 else ""
        _say(f"{source}, frame {', '.join(pages[:8])}{more}: every window is of one level, no pattern, no verdict")
    if sum(map(len, uniform.values())) == len(refs):
        shutil.rmtree(folder)
        raise UserError(
            f"none of the {len(refs)} frames has a pattern at threshold {options.threshold}; choose another threshold, "
            "or frames within the transition"
        )


def _is_done(out: Path, inputs: str, replace: bool) -> bool:
    """Whether `out` holds these results already; UserError where it holds anything else and may not be replaced."""
    if not out.exists():
        return False
    if out.is_dir():
        raise UserError(f"{out}: is a folder; give --out the name of a file")
    try:
        found = read_attributes(out)["inputs_sha256"]
    except (ContractError, KeyError):
        found = None
    if found != inputs and not replace:
        what = "holds the results of other frames, another bundle or other options" if found else "is no results file"
        raise UserError(f"{out}: {what}; add --replace or choose another --out")
    return found == inputs


def _rehearse(bundle: Bundle, options: Classify) -> float:
    """Windows a second on one core of this machine, timed on a few windows of noise."""
    threads = torch.get_num_threads()
    shape = (bundle.window, bundle.window + (_REHEARSAL - 1) * options.stride)
    noise = np.random.default_rng(0).integers(0, 2, shape, np.uint8)
    torch.set_num_threads(1)
    try:
        for pixels in (noise[:, : bundle.window], noise):  # the first is to warm up
            begin = time.perf_counter()
            classify_band(pixels, bundle, options.stride, 0, 1, options.confidence)
        return _REHEARSAL / (time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)


class Progress:
    """Frames and windows done, rate and time left on stderr: rewritten on a terminal, else a line a minute."""

    def __init__(self, frames: int, windows: int):
        self.frames, self.windows = frames, windows
        self.frames_done = self.windows_done = 0
        self.begin = self.shown = time.monotonic()

    def done(self, frames: int, windows: int) -> None:
        """Count what was finished."""
        self.frames_done += frames
        self.windows_done += windows
        if time.monotonic() - self.shown > (0.5 if sys.stderr.isatty() else 60.0):
            self.show()

    def show(self, end: bool = False) -> None:
        """Print one line."""
        self.shown = time.monotonic()
        rate = self.windows_done / max(self.shown - self.begin, 1e-9)
        left = "" if end or not rate else f", {duration((self.windows - self.windows_done) / rate)} left"
        line = (
            f"{self.frames_done}/{self.frames} frames, {self.windows_done:,}/{self.windows:,} windows, "
            f"{rate:.0f} windows/s, {duration(self.shown - self.begin)}{left}"
        )
        if sys.stderr.isatty():
            print(f"\r\033[Kclassify: {line}", end="\n" if end else "", file=sys.stderr, flush=True)
        else:
            _say(line)


def _say(message: str) -> None:
    print(f"classify: {message}", file=sys.stderr, flush=True)
