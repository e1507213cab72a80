"""Part files: what a frame, or a band of its windows, leaves on the disk until results.h5 is assembled.

Bands of one frame can come from several processes.  Sums are added in the order of the bands, so the result does
not depend on who computed what.  The maps of a frame are put together on the disk and counted a few rows at a time.

Shape letters: R, C = rows and columns of windows in the part; K = classes; S = windows sampled.
"""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hamscope.data.frames import FrameRef
from hamscope.data.levels import Levels
from hamscope.data.results import NO_PATTERN, SAMPLE, Frame, sample_windows
from hamscope.data.windows import window_grid
from hamscope.errors import ContractError
from hamscope.models import CLASS_NAMES
from hamscope.provenance import whole_file

PREVIEW = 512
_MAPS = ("classes", "flags")
_COUNTED = 2**22  # windows of a map that are counted at once, as 64-bit numbers


@dataclass(frozen=True)
class Part:
    """One band or one whole frame.

    `classes`, `flags` (R, C) uint8 as in the results; `logits_sum`, `distance_sum`, `probability_sum` (K,) over windows
    with a pattern; `parameter_sum`, `half68_sum`, `half90_sum` (K,) over the windows of each class; `sample` (S, K)
    logits on the regular grid of the frame; of the frame its `preview` (h, w), `up_fraction`, `adaptive` (whether its
    threshold erased the density) and `grey_range`, its lowest and highest grey value.
    """

    classes: np.ndarray
    flags: np.ndarray
    logits_sum: np.ndarray
    distance_sum: np.ndarray
    probability_sum: np.ndarray
    parameter_sum: np.ndarray
    half68_sum: np.ndarray
    half90_sum: np.ndarray
    sample: np.ndarray
    preview: np.ndarray
    up_fraction: float
    adaptive: bool
    grey_range: np.ndarray

    @property
    def n_windows(self) -> int:
        """Windows with a pattern."""
        return int(self.counts()[0].sum())

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows of each class, and the confident ones among them, (K,) each."""
        all_of, sure = np.zeros((2, NO_PATTERN + 1), np.int64)
        height = max(1, _COUNTED // self.classes.shape[1])
        for start in range(0, len(self.classes), height):
            classes, flags = self.classes[start : start + height], self.flags[start : start + height]
            all_of += np.bincount(classes.ravel(), minlength=len(all_of))
            sure += np.bincount(classes[flags == 1], minlength=len(sure))
        return all_of[: len(self.logits_sum)], sure[: len(self.logits_sum)]


def band_part(tiles: Iterator, levels: Levels, grid: tuple[int, int], start: int, stop: int) -> Part:
    """The part of rows `start` to `stop` - 1 of the `grid` (rows, columns) of a frame's windows.

    `tiles` is what `hamscope.learn.dense.classified_tiles` says of them, `levels` are those of the frame.  Of a
    tile its classes and flags are kept, the sums and the sampled logits.
    """
    shape, kinds = (stop - start, grid[1]), len(CLASS_NAMES)
    classes, flags = np.full(shape, NO_PATTERN, np.uint8), np.zeros(shape, np.uint8)
    sums = {name: np.zeros(kinds) for name in ("logits", "distance", "probability", "parameter", "half68", "half90")}
    sampled = sample_windows(grid) - start * grid[1]
    rows, columns = np.divmod(sampled[(sampled >= 0) & (sampled < classes.size)], grid[1])
    sample = np.full((len(rows), kinds), np.nan, np.float32)
    for part, chosen, values in tiles:
        best = values["classes"]
        classes[part][chosen], flags[part][chosen] = best, values["flags"]
        sums["logits"] += values["logits"].sum(0, dtype=np.float64)
        sums["distance"] += values["distance"].astype(np.float32, copy=False).sum(0, dtype=np.float64)
        sums["probability"] += values["probabilities"].sum(0)
        for name in ("parameter", "half68", "half90"):
            sums[name] += np.bincount(best, values[name], minlength=kinds)
        here = (rows >= part[0].start) & (rows < part[0].stop) & (columns >= part[1].start) & (columns < part[1].stop)
        places = rows[here] - part[0].start, columns[here] - part[1].start
        order = chosen.ravel().cumsum().reshape(chosen.shape)[places] - 1
        sample[np.flatnonzero(here)[chosen[places]]] = values["logits"][order[chosen[places]]]
    return Part(
        classes=classes, flags=flags, **{f"{name}_sum": value for name, value in sums.items()}, sample=sample,
        preview=levels.preview, up_fraction=levels.up_fraction, adaptive=levels.adaptive, grey_range=levels.grey_range,
    )  # fmt: skip


def merge(paths: list[Path], path: Path) -> None:
    """Make the parts of the bands of a frame, in their order, one part at `path`, whole or not at all.

    The maps of one band are in memory at a time.
    """
    parts, rows, columns = [], 0, 0
    for each in paths:
        part = read_part(each)
        rows, columns = rows + len(part.classes), part.classes.shape[1]
        parts.append(replace(part, **dict.fromkeys(_MAPS)))
    joined = {name: np.sum([getattr(part, name) for part in parts], axis=0)
              for name in asdict(parts[0]) if name.endswith("_sum")}  # fmt: skip
    joined["sample"] = np.concatenate([part.sample for part in parts])
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in (asdict(parts[0]) | joined).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                if name in _MAPS:
                    _write_map(file, paths, name, (rows, columns))
                else:
                    np.lib.format.write_array(file, np.asanyarray(value), allow_pickle=False)


def _write_map(file, paths: list[Path], name: str, shape: tuple[int, int]) -> None:
    """Write the map of a frame from those of its bands as one array in numpy's format."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for path in paths:
        file.write(np.ascontiguousarray(getattr(read_part(path), name)).data)


def write_part(path: Path, part: Part) -> None:
    """Write a part, whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **asdict(part))


def read_part(path: Path) -> Part:
    """Read a part; raises ContractError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            scalars = {"up_fraction": float(arrays["up_fraction"]), "adaptive": bool(arrays["adaptive"])}
            return Part(**(dict(arrays) | scalars))
    except Exception as error:  # zip, zlib and numpy each have their own
        raise ContractError(f"{path}: this part is damaged ({error}); remove it and classify again") from None


def frames_of(refs: list[FrameRef], paths: list[Path], window: int) -> Iterator[tuple[Part, Frame]]:
    """The part of each of the frames `refs`, in their order, and the row of the results that it makes.

    Parts are read one by one as they are asked for.
    """
    for ref, path in zip(refs, paths):
        part = read_part(path)
        yield part, Frame(ref.source, ref.page, _row(part, ref, window), part.classes, part.flags)


def preview_shape(refs: list[FrameRef]) -> tuple[int, int]:
    """The shape that holds the preview of every frame."""
    blocks = {ref.shape: -(-max(ref.shape) // PREVIEW) for ref in refs}  # pixels a side; see `frame_levels`
    return tuple(max(-(-shape[axis] // block) for shape, block in blocks.items()) for axis in (0, 1))


def _row(part: Part, ref: FrameRef, window: int) -> dict:
    """The columns of one frame; shares and means are NaN where no window has a pattern, or none is of the class."""
    classes, (counts, confident) = len(part.logits_sum), part.counts()
    n = int(counts.sum())
    sample = np.full((SAMPLE, classes), np.nan, np.float32)
    sample[: len(part.sample)] = part.sample
    divisor = n or np.nan
    of_class = np.where(counts > 0, counts, np.nan)
    independent = math.prod(window_grid(ref.shape, window, window))
    return {
        "fractions": counts / divisor, "confident_fractions": confident / divisor,
        "logits_mean": part.logits_sum / divisor, "cloud_distance": part.distance_sum / divisor,
        "probabilities": part.probability_sum / divisor, "parameter": part.parameter_sum / of_class,
        "parameter_half68": part.half68_sum / of_class, "parameter_half90": part.half90_sum / of_class,
        "n_windows": n, "n_independent": min(independent, n), "up_fraction": part.up_fraction,
        "adaptive": np.uint8(part.adaptive), "logits_sample": sample, "preview": part.preview,
        "temperature": ref.temperature, "direction": np.int8(ref.direction), "psf_px": ref.psf_px,
    }  # fmt: skip


def spread(points: np.ndarray) -> np.ndarray:
    """At most SAMPLE of the points (n, K), evenly spread over them and NaN-filled, as (SAMPLE, K) float32."""
    chosen = (
        points[np.unique(np.linspace(0, len(points) - 1, min(SAMPLE, len(points))).astype(int))]
        if len(points)
        else points
    )
    filled = np.full((SAMPLE, points.shape[1]), np.nan, np.float32)
    filled[: len(chosen)] = chosen
    return filled
