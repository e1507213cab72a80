"""Is a file what its contract says?  Slices, results and bundles, read in blocks, every finding one line.

This opens the file: on one from elsewhere it runs in a child with limits, see `hamscope.child`.  A slices file is
held against its own config too: classes, planes, parameters and numbers of images have to be those it asks for.

Shape letters: N = images, B = images of a block, L = side of an image, F = frames.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from pydantic import ValidationError

from hamscope.config import CleanIsing, Percolation, RandomField, Simulate
from hamscope.data import results, slices
from hamscope.data.screen import (
    DAMAGE,
    MAX_TEXT,
    blocks,
    chunk_offsets,
    damage,
    one_line,
    open_hdf5,
    row_blocks,
    screen_chunk_data,
)
from hamscope.errors import ContractError
from hamscope.models import AVALANCHE_BINS, BY_NAME, CLASS_NAMES
from hamscope.provenance import section_json, sha256_text
from hamscope.sim.lattice import Lattice, image_planes

MAX_CLOUDS, MAX_WEIGHTS = 2**24, 2**30  # bytes of the files of a bundle
MAX_SOURCE = 4096  # characters of the name of a frame's file
_COPIES = 4  # of the weights that are in memory while a bundle is read


def prepare(path: str) -> int:
    """Import what a bundle needs, before there is a limit; the bytes of memory that it may take for its size."""
    if not os.path.isdir(path):
        return 0
    import hamscope.learn.bundle as bundle

    try:
        return _COPIES * min(MAX_WEIGHTS, os.stat(Path(path) / bundle.WEIGHTS).st_size)
    except OSError:
        return 0


def check_path(path: str) -> tuple[str, list[str], str]:
    """The verdict on a file or folder, "good" or "bad"; the lines that say so; "done"."""
    try:
        findings, summary = (check_bundle if os.path.isdir(path) else check_file)(path)
    except ContractError as error:
        findings, summary = [str(error)], ""
    return ("bad", findings, "done") if findings else ("good", [f"{path}: good: {summary}"], "done")


def check_file(path: str | Path) -> tuple[list[str], str]:
    """Findings and a summary of an HDF5 file of either schema; raises ContractError where it is none."""
    again = "give a file made by `hamscope simulate` or `hamscope classify`"
    with open_hdf5(path, again, again) as file, damage(path, again):
        before = _identity(path)
        schema = file.attrs.get("schema")
    known = {slices.SCHEMA: check_slices, results.SCHEMA: check_results}
    if not isinstance(schema, str) or schema not in known:
        raise ContractError(f"{path}: has the schema {str(schema)[:80]!r}, not one of {', '.join(known)}; {again}")
    found, summary = known[schema](path)
    if _identity(path) != before:
        found = [f"{path}: was changed while it was read; check it again when it is finished"]
    return found, summary


def _identity(path) -> tuple:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def check_slices(path: str | Path) -> tuple[list[str], str]:
    """Findings and a summary of a slices file, in memory that does not grow with it; may raise ContractError."""
    with slices.open_slices(path) as (file, attributes), damage(path, "simulate again"):
        found = []
        config = _config(attributes, found)
        if config is None:
            return [f"{path}: {line}" for line in found], ""
        n, side, _ = file["images"].shape
        if side != config.image_size:
            return [f"{path}: images of {side} x {side}, the config says {config.image_size}"], ""
        rows = _Rows(config, found)
        content = slices.content_hash(_digests(file, rows, found), file, file["avalanches"])
        rows.finish()
        _check_avalanches(file["avalanches"], config, found)
        if content != attributes["content_sha256"]:
            found.append(f"content_sha256 is {attributes['content_sha256'][:80]}, its content has {content}")
        counts = ", ".join(f"{name} {count}" for name, count in zip(CLASS_NAMES, rows.counts) if count)
        summary = (
            f"slices, {n} images of {side} x {side}, {counts}, config_sha256 {attributes['config_sha256']}, "
            f"content_sha256 {content}"
        )
    return [f"{path}: {line}" for line in found], summary


def _config(attributes: dict, found: list[str]) -> Simulate | None:
    """The config in the attributes, None where it is none; adds what is wrong with the attributes."""
    text = attributes["config"]
    try:
        config = Simulate.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        found.append(f"config: {'.'.join(map(str, first['loc']))}: {one_line(ValueError(first['msg']))}")
        return None
    except (ValueError, RecursionError) as error:
        found.append(f"config: is no JSON ({one_line(error)})")
        return None
    if section_json(config) != text:
        found.append("config: is not the resolved section as canonical JSON")
    if sha256_text(text) != attributes["config_sha256"]:
        found.append(f"config_sha256 is {attributes['config_sha256'][:80]}, its config has {sha256_text(text)}")
    if attributes.get("seed") != config.seed:
        found.append(f"seed is {str(attributes.get('seed'))[:80]}, the config says {config.seed}")
    software = attributes["software"]
    if not isinstance(software, dict) or "hamscope" not in software:
        found.append("software: does not name the version of hamscope")
    return config


def _check_avalanches(table: h5py.Dataset, config: Simulate, found: list[str]) -> None:
    """One row a field sweep at T = 0, by class and lattice, whose avalanches have as many sites as the lattice."""
    swept = {name: s for name, s in config.classes.items() if isinstance(s, RandomField) and not s.temperature}
    wanted = sum(section.lattices for section in swept.values())
    if len(table) != wanted:
        found.append(f"avalanches: {len(table)} rows, expected {wanted}, one a field sweep at T = 0")
        return
    rows = table[:]
    order = [(CLASS_NAMES.index(name), k) for name, section in swept.items() for k in range(section.lattices)]
    if [(int(row["model"]), int(row["lattice"])) for row in rows] != order:
        found.append("avalanches: expected a row for each swept lattice, by class and lattice")
        return
    least = 2 ** np.arange(AVALANCHE_BINS, dtype=np.int64)
    for row in rows:
        name, counts = CLASS_NAMES[row["model"]], row["counts"]
        sites = config.image_size ** BY_NAME[name].dimension
        # In Python's integers, which no count of a hostile file can overflow.
        low, total = sum(int(n) * int(k) for n, k in zip(counts, least)), sum(map(int, counts))
        if min(counts) < 0 or not low <= sites <= 2 * low - total:
            found.append(f"avalanches: {name}, lattice {row['lattice']}: its sizes cannot sum to the {sites} sites")
            return


def _digests(file: h5py.File, rows: "_Rows", found: list[str]) -> Iterator[np.ndarray]:
    """The digests of the images block by block, (B, 32) each; on the way everything else is looked at too."""
    images = file["images"]
    for block in row_blocks(images):
        wrong = screen_chunk_data(images, "images", ((k, 0, 0) for k in range(block.start, block.stop)))
        if wrong:
            raise ContractError(f"{file.filename}: {wrong}; simulate again")
        pixels = images[block]
        rows.add(block.start, pixels, {name: file[name][block] for name in slices.COLUMNS})
        yield slices.image_digests(pixels)


class _Rows:
    """The rows of a slices file against its config, block after block; what is wrong is added to `found`."""

    def __init__(self, config: Simulate, found: list[str]):
        self.config, self.found = config, found
        self.counts = np.zeros(len(CLASS_NAMES), np.int64)
        self.planes = {}
        for name in config.classes:
            self.planes[CLASS_NAMES.index(name)] = self._planes_of(name)
        self.last = None  # the last row of the block before: model, lattice, sweep, direction * field, plane
        self.seen = set()

    def _planes_of(self, name: str) -> np.ndarray:
        """Axis, position and surface of the planes of a class in their order, (P, 3)."""
        lattice = Lattice.of_dimension(BY_NAME[name].dimension, self.config.image_size, self.config.boundary)
        return np.array(image_planes(lattice), np.int64)

    def say(self, what: str, start: int, bad: np.ndarray, values: np.ndarray, expected: str) -> None:
        """One line for the first bad row of a block, one for each kind of mistake."""
        if bad.any() and what not in self.seen:
            self.seen.add(what)
            row = int(np.argmax(bad))
            value = f" is {values[row]}," if values is not None else ""
            self.found.append(f"{what}, row {start + row}:{value} expected {expected}")

    def add(self, start: int, images: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Look at the rows from `start`: `images` (B, L, L), `columns` name -> (B,)."""
        model = columns["model"]
        levels = images.max(axis=(1, 2))
        self.say("images", start, levels > 1, levels, "0 and 1 alone")
        self.say("model", start, ~np.isin(model, list(self.planes)), model, "a class of the config")
        mean = 2 * images.mean(axis=(1, 2)) - 1
        wrong = ~(abs(columns["magnetization"] - mean) <= 1e-12)
        self.say("magnetization", start, wrong, columns["magnetization"], "that of the image")
        self._ranges(start, columns)
        if not np.isin(model, list(self.planes)).all():
            return
        self.counts += np.bincount(model, minlength=len(CLASS_NAMES))
        for code in np.unique(model):
            mine = model == code
            self._of_class(start, CLASS_NAMES[code], mine, columns)
        self._order(start, columns)

    def _ranges(self, start: int, columns: dict[str, np.ndarray]) -> None:
        side = self.config.image_size
        bounds = {
            "direction": (-1, 1), "lattice_magnetization": (-1, 1), "plane_axis": (0, 2),
            "plane_position": (0, side - 1), "plane_surface": (0, 1), "lattice": (0, np.inf), "sweep": (0, np.inf),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            values = columns[name]
            self.say(name, start, ~((values >= low) & (values <= high)), values, f"{low} to {high}")
        for name in ("parameter", "field"):
            self.say(name, start, ~np.isfinite(columns[name]), columns[name], "a finite number")

    def _of_class(self, start: int, name: str, mine: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Parameter, direction and lattice of the rows `mine` of one class."""
        section = self.config.classes[name]
        inside = np.zeros(len(mine), bool)
        for low, high in _parameter_ranges(section):
            inside |= (columns["parameter"] >= low) & (columns["parameter"] <= high)
        wanted = " or ".join(f"{low} to {high}" for low, high in _parameter_ranges(section))
        self.say("parameter", start, mine & ~inside, columns["parameter"], f"{wanted} for {name}")
        self.say(
            "lattice", start, mine & (columns["lattice"] >= section.lattices), columns["lattice"],
            f"less than the {section.lattices} lattices of {name}",
        )  # fmt: skip
        swept = isinstance(section, RandomField)
        self.say(
            "direction", start, mine & ((columns["direction"] != 0) != swept), columns["direction"],
            f"{'+1 or -1' if swept else '0'} for {name}",
        )  # fmt: skip

    def _order(self, start: int, columns: dict[str, np.ndarray]) -> None:
        """Rows by class, lattice, measurement, plane, none twice and no plane left out."""
        model, lattice = columns["model"].astype(np.int64), columns["lattice"]
        plane = np.full(len(model), -1)
        for code, planes in self.planes.items():
            given = np.stack([columns[f"plane_{part}"] for part in ("axis", "position", "surface")], 1)
            same = (given[:, None] == planes[None]).all(2)
            plane = np.where(model == code, np.where(same.any(1), same.argmax(1), -1), plane)
        self.say("plane", start, plane < 0, None, "one of the planes that become images")
        rows = np.stack([model, lattice, columns["sweep"], plane], 1)
        with np.errstate(invalid="ignore"):
            ahead = columns["direction"] * columns["field"]
        if self.last is not None:
            rows, ahead = np.concatenate([self.last[0], rows]), np.concatenate([self.last[1], ahead])
        else:
            self.say("plane", start, np.arange(len(plane)) < (plane[0] != 0), None, "the first plane first")
        before, after = rows[:-1], rows[1:]
        first = start + len(model) - len(after)
        same = (before[:, :2] == after[:, :2]).all(1)
        grows = (after[:, 0] > before[:, 0]) | ((after[:, 0] == before[:, 0]) & (after[:, 1] > before[:, 1]))
        self.say("order", first, ~(same | grows), None, "rows by class and lattice")
        last = np.array([len(self.planes[code]) - 1 for code in before[:, 0]], np.int64)
        next_plane = np.where(before[:, 3] == last, 0, before[:, 3] + 1)
        complete = np.where(same, after[:, 3] == next_plane, (before[:, 3] == last) & (after[:, 3] == 0))
        self.say("order", first, ~complete, None, "every plane of a lattice in its order")
        # Within one measurement the state is the same; the next one is later, or at a field further on.
        later = (after[:, 2] > before[:, 2]) | ((after[:, 2] == before[:, 2]) & (ahead[1:] > ahead[:-1]))
        still = (after[:, 2] == before[:, 2]) & (ahead[1:] == ahead[:-1])
        self.say("order", first, same & ~np.where(after[:, 3] == 0, later, still), None, "a measurement once")
        self.last = rows[-1:], ahead[-1:]

    def finish(self) -> None:
        """The numbers of images of every class; the last lattice is whole."""
        if self.last is not None and self.last[0][0, 3] != len(self.planes[int(self.last[0][0, 0])]) - 1:
            self.found.append("plane, last row: expected the last plane of its lattice")
        for code, planes in self.planes.items():
            section, count = self.config.classes[CLASS_NAMES[code]], int(self.counts[code])
            measurements = {CleanIsing: "measurements", RandomField: "snapshots"}.get(type(section))
            most = section.lattices * (getattr(section, measurements) if measurements else 1) * len(planes)
            # A field sweep can jump over a target, so it gives fewer states.
            if count > most or (count < most and not isinstance(section, RandomField)):
                self.found.append(f"{CLASS_NAMES[code]}: {count} images, the config asks for {most}")


def _parameter_ranges(section: CleanIsing | RandomField | Percolation) -> tuple[tuple[float, float], ...]:
    if isinstance(section, Percolation):
        return section.probability
    return (section.temperature if isinstance(section, CleanIsing) else section.disorder,)


def check_results(path: str | Path) -> tuple[list[str], str]:
    """Findings and a summary of a results file; may raise ContractError."""
    with results.open_results(path) as (file, attributes), damage(path, "classify again"):
        found = []
        if attributes["classes"] != list(CLASS_NAMES):
            found.append(f"classes are {str(attributes['classes'])[:200]}, expected {list(CLASS_NAMES)}")
        n = len(file["frame"])
        maps = {name: [f"maps/{row:06d}/{name}" for row in range(n)] for name in results.MAPS}
        for name in (*results.UNITS, *maps["class"], *maps["flag"]):
            dataset = file[name]
            wrong = screen_chunk_data(dataset, name, chunk_offsets(dataset)) if dataset.chunks else None
            if wrong:
                raise ContractError(f"{path}: {wrong}; classify again")
        for name in ("fractions", "confident_fractions", "probabilities", "up_fraction"):
            if any((~(np.isnan(v) | ((v >= 0) & (v <= 1 + 1e-9)))).any() for v in blocks(file[name])):
                found.append(f"{name}: a share is not between 0 and 1")
        for name in ("psf_px", "parameter_half68", "parameter_half90"):
            if any((v < 0).any() for v in blocks(file[name])):
                found.append(f"{name}: is below 0")
        if any((v > 1).any() for v in blocks(file["adaptive"])):
            found.append("adaptive: is neither 0 nor 1")
        source, index = _sources(file["frame"], found)
        for kind, names in maps.items():
            _look_at_maps(file, kind, names, found)
        classes, flags = (map(file.__getitem__, names) for names in maps.values())
        given_up = _quarantined(file, found)
        content = results.content_hash(file, source, index, classes, flags, given_up)
        if content != attributes["content_sha256"]:
            found.append(f"content_sha256 is {attributes['content_sha256'][:80]}, its content has {content}")
    return [
        f"{path}: {line}" for line in found
    ], f"results, {n} frames, {len(given_up)} quarantined, content_sha256 {content}"


def _sources(frames: h5py.Dataset, found: list[str]) -> tuple[list[str], np.ndarray]:
    """Names of the files of the frames, and their pages."""
    source, index = [], np.empty(len(frames), np.int64)
    for row in range(len(frames)):
        entry = frames[row]
        if len(entry["source"]) > MAX_SOURCE:
            raise ContractError(f"{frames.file.filename}: frame, row {row}: a name of {len(entry['source'])} bytes")
        source.append(entry["source"].decode())
        index[row] = entry["index"]
    if (index < 0).any():
        found.append("frame: a page is negative")
    return source, index


def _quarantined(file: h5py.File, found: list[str]) -> list[results.Quarantined]:
    """The frames that were given up, none of them with a row or twice."""
    given_up = results.read_quarantined(file)
    if any(max(len(one.source), len(one.reason)) > MAX_SOURCE for one in given_up):
        raise ContractError(f"{file.filename}: quarantined: a text of more than {MAX_SOURCE} characters")
    if len({(one.source, one.index) for one in given_up}) < len(given_up):
        found.append("quarantined: a frame stands there twice")
    return given_up


def _look_at_maps(file: h5py.File, kind: str, names: list[str], found: list[str]) -> None:
    """The values of the maps of windows of one kind; one finding for the first that is wrong."""
    allowed = [*range(len(CLASS_NAMES)), results.NO_PATTERN] if kind == "class" else [0, 1]
    for name in names:
        if not all(np.isin(values, allowed).all() for values in blocks(file[name])):
            found.append(f"{name}: a value is not one of {allowed}")
            return


def check_bundle(path: str | Path) -> tuple[list[str], str]:
    """Findings and a summary of a bundle folder, its sizes before anything is loaded; may raise ContractError."""
    from hamscope.learn import bundle

    most = {bundle.CARD: bundle.MAX_CARD, bundle.WEIGHTS: MAX_WEIGHTS, bundle.CLOUDS: MAX_CLOUDS}
    most[bundle.STATISTICS] = MAX_CLOUDS
    for name, limit in most.items():
        try:
            status = os.lstat(Path(path) / name)
        except OSError as error:
            raise ContractError(
                f"{path}: is no bundle ({name}: {error.strerror}); give one of `hamscope train`"
            ) from None
        if not stat.S_ISREG(status.st_mode):
            raise ContractError(f"{path}/{name}: is no regular file of the folder; copy the bundle with its data")
        if status.st_size > limit:
            raise ContractError(f"{path}/{name}: has {status.st_size} bytes, at most {limit} are read; train again")
    for name in bundle.FILES:
        with open(Path(path) / name, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_TEXT:
            raise ContractError(f"{path}/{name}: declares a header of {header} bytes, at most {MAX_TEXT} are read")
    try:
        read = bundle.read_bundle(path)
    except DAMAGE as error:
        raise ContractError(f"{path}: cannot be read ({one_line(error)}); train again") from None
    accuracy = float(read.card["metrics"]["accuracy"])
    found = [] if 0 <= accuracy <= 1 else [f"{path}/{bundle.CARD}: an accuracy of {accuracy}"]
    numbers = sum(math.prod(tensor.shape) for tensor in read.network.state_dict().values())
    return found, f"bundle, windows of {read.window} x {read.window}, {numbers} weights, card {read.sha256}"
