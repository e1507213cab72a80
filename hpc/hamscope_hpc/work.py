"""The work folder of a simulation: what is computed so far, in files that are whole or not there.

    OUT.work/run.json                    the config and the version that it belongs to
    OUT.work/lock                        the job that works on it (hamscope_hpc.claim)
    OUT.work/lock.2-of-5                 or the job that computes this part of it
    OUT.work/C-3D.0000.json              a work item: how far it is, and which files below hold it
    OUT.work/C-3D.0000.7.rows.npy        its images so far, a row each (ROW)
    OUT.work/C-3D.0000.7.bits.npy        the images themselves, a row of packed bits each
    OUT.work/C-3D.0000.7.avalanches.npy  its field sweeps so far
    OUT.work/C-3D.0000.7.words.50.npy    of an unfinished item, an array of its state: planes from 50 on

The number before the kind of a file counts the checkpoints of the item.  A checkpoint writes new files beside the old
ones, then replaces the .json, which names them, then removes the old ones.  So at any moment the .json names whole
files, and a job killed anywhere goes on from the last checkpoint, on any number of ranks: every slab of the state is a
file of its own, and whoever needs planes takes them from the files that hold them.
"""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hamscope import provenance
from hamscope.config import Config
from hamscope.data import slices
from hamscope.errors import UserError
from hamscope.models import BY_NAME
from hamscope.sim.lattice import Slab
from hamscope.sim.samples import Item, Task

# One image: its place in the file (lattice, measurement, plane), then its columns.
ROW = np.dtype(
    [("place", "i8", 3)]
    + [(name, "u1" if name == "model" else column.dtype) for name, column in slices.COLUMNS.items()]
)
# As AVALANCHES, less the names of the classes, which an .npy file cannot hold.
_SWEEP = np.dtype([(name, "u1" if name == "model" else slices.AVALANCHES[name]) for name in slices.AVALANCHES.names])
SCHEMA = "hamscope-work"
LOCK = "lock"
_MARK = "run.json"
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EROFS: "it is read-only",
         errno.ENOENT: "the folder was removed", errno.EACCES: "there is no permission to write"}  # fmt: skip


class Work:
    """The work folder beside the output `out`.

    Attributes
    ----------
    folder : Path
        The folder, `out` with ".work" behind.
    """

    def __init__(self, out: str | Path):
        out = Path(out)
        self.folder = out.with_name(out.name + ".work")

    def open(self, config: Config) -> bool:
        """Make the folder, or find that of this config; True where there is something to go on from.

        Raises
        ------
        UserError
            The folder belongs to another config or version, or is no work folder, or cannot be made.
        """
        mark = self.folder / _MARK
        mine = {"schema": SCHEMA, "version": provenance.__version__, "config": json.loads(section(config))}
        if not self.folder.exists():
            try:
                self.folder.mkdir()
                self.claim(mine)
            except OSError as error:
                raise UserError(f"{self.folder}: cannot be made, {why(error)}; choose another --out") from None
            return False
        try:
            found = json.loads(mark.read_text())
            theirs, version = found["config"], found["version"]
        except FileNotFoundError:
            if any(path.name.split(".")[0] != LOCK for path in self.folder.iterdir()):
                raise UserError(f"{self.folder}: is in the way and no work folder; choose another --out") from None
            self.claim(mine)
            return False
        except (OSError, ValueError, TypeError, KeyError):
            raise UserError(f"{mark}: cannot be read; remove {self.folder} to begin again") from None
        if version != mine["version"] or theirs != mine["config"]:
            differences = difference(theirs, mine["config"]) or f"hamscope {version} there, {mine['version']} here"
            raise UserError(
                f"{self.folder}: holds the unfinished work of another config ({differences}); go on with that one, "
                "choose another --out, or --replace it"
            )
        return True

    def claim(self, mine: dict) -> None:
        """Say whose folder it is."""
        with provenance.whole_file(self.folder / _MARK) as temporary:
            temporary.write_text(json.dumps(mine, indent=1) + "\n")

    def remove(self) -> None:
        """Remove the folder, the lock last, so that nobody begins in a folder half removed; where another job has taken
        a lock there meanwhile it stays.
        """
        with contextlib.suppress(OSError):
            self.clear()
            (self.folder / LOCK).unlink(missing_ok=True)
            self.folder.rmdir()

    def clear(self) -> None:
        """Remove everything but locks."""
        for path in self.folder.iterdir():
            if path.name.split(".")[0] != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def manifest(self, item: Item) -> dict | None:
        """What is known of a work item, or None where nothing was stored of it."""
        try:
            return json.loads((self.folder / f"{stem(item)}.json").read_text())
        except FileNotFoundError:
            return None

    def save(self, item: Item, task: Task, rows: "Rows", comm: MPI.Comm) -> None:
        """Store how far a task is and what it gave; collective over the ranks `comm` that share its lattices.

        Raises
        ------
        OSError
            On all of these ranks, where one could not write; what was stored before is still there.
        """
        before = comm.bcast(self.manifest(item) if comm.rank == 0 else None, 0)
        generation = before["generation"] + 1 if before else 1
        arrays, numbers = ({}, {}) if task.done else task.state()
        first = task.slab.start
        names = {f"{name}.{first}": array for name, array in arrays.items()}
        if comm.rank == 0:
            names |= rows.arrays()
        written, error = [], None
        try:
            for name, array in names.items():
                written.append(self.folder / f"{stem(item)}.{generation}.{name}.npy")
                _save_array(written[-1], array)
        except OSError as raised:
            error = raised
        cuts = comm.allgather((first, task.slab.stop))
        self._all_wrote(error, written, comm)
        try:
            if comm.rank == 0:
                record = {
                    "generation": generation, "done": task.done, "share": task.share, "numbers": numbers,
                    "arrays": sorted(arrays), "slabs": cuts, "images": len(rows),
                }  # fmt: skip
                with provenance.whole_file(self.folder / f"{stem(item)}.json") as temporary:
                    temporary.write_text(json.dumps(record) + "\n")
        except OSError as raised:
            error = raised
        except UserError:  # from the check of the folder
            error = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._all_wrote(error, written, comm)
        if comm.rank == 0 and before:
            for path in self.folder.glob(f"{stem(item)}.{generation - 1}.*"):
                path.unlink(missing_ok=True)

    @staticmethod
    def _all_wrote(error: OSError | None, written: list[Path], comm: MPI.Comm) -> None:
        """Raise on all ranks where one has an error, and take back what was written."""
        errors = [found for found in comm.allgather((error.errno, str(error)) if error else None) if found]
        if errors:
            for path in written:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            raise OSError(*errors[0])

    def restore(self, item: Item, task: Task, slab: Slab, manifest: dict) -> None:
        """Bring a task to what was stored, whatever slabs the arrays were stored in."""
        planes = slab.lattice.shape[1:]
        arrays = {}
        for name in manifest["arrays"]:
            for start, stop in manifest["slabs"]:
                low, high = max(start, slab.start), min(stop, slab.stop)
                if low >= high:
                    continue
                path = self.folder / f"{stem(item)}.{manifest['generation']}.{name}.{start}.npy"
                stored = np.load(path, mmap_mode="r")
                whole = arrays.setdefault(name, np.empty((slab.n_planes, *planes), stored.dtype))
                whole[low - slab.start : high - slab.start] = stored[low - start : high - start]
        task.restore(arrays, manifest["numbers"])

    def table(self, item: Item, manifest: dict, kind: str) -> np.ndarray:
        """The rows, bits or avalanches (_SWEEP) of an item, in the order of the file, mapped into memory."""
        return np.load(self.folder / f"{stem(item)}.{manifest['generation']}.{kind}.npy", mmap_mode="r")


class Rows:
    """The images of an item so far, on the first rank of its group."""

    def __init__(self, n_bytes: int, table=None):
        """`n_bytes` of an image of packed bits; `table(kind)` gives what was stored before."""
        self.rows = list(table("rows")) if table else []
        self.bits = list(np.array(table("bits"))) if table else []
        self.avalanches = list(table("avalanches")) if table else []
        self.n_bytes = n_bytes

    def __len__(self) -> int:
        return len(self.rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint stores, images in the order of the file: lattice, measurement, plane."""
        rows = np.array(self.rows, ROW)
        order = np.lexsort(rows["place"].T[::-1])
        bits = np.array(self.bits, np.uint8).reshape(len(rows), self.n_bytes)
        return {"rows": rows[order], "bits": bits[order], "avalanches": np.array(self.avalanches, _SWEEP)}


def stem(item: Item) -> str:
    """The beginning of the names of an item's files."""
    return f"{item.name.replace('*', 'star')}.{item.number:04d}"


def section(config: Config) -> str:
    """The part of a config that a simulation depends on, as canonical JSON."""
    return provenance.section_json(config.simulate)


def difference(old: dict, new: dict, path: str = "simulate", most: int = 6) -> str:
    """The values in which two configs differ, in words: "a.b = 1 there, 2 here; ..."; "" where they are equal."""
    changes = list(_changes(old, new, path))
    return "; ".join(changes[:most]) + (f"; and {len(changes) - most} more" if len(changes) > most else "")


def _changes(old: dict, new: dict, path: str):
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _changes(a, b, f"{path}.{key}")
        elif a != b:
            if key in BY_NAME and None in (a, b):
                yield f"{path}.{key} only {'here' if a is None else 'there'}"
            else:
                yield f"{path}.{key} = {a} there, {b} here"


def why(error: OSError) -> str:
    """The reason of a failed write, for a person."""
    return _FULL.get(error.errno, error.strerror or str(error))


def _save_array(path: Path, array: np.ndarray) -> None:
    """An .npy file on the disk, not only in the memory of the system."""
    with open(path, "wb") as file:
        np.save(file, np.ascontiguousarray(array))
        file.flush()
        os.fsync(file.fileno())
