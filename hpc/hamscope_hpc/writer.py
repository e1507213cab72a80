"""The one collective writer: finished work items to a slices file, the same bytes on any number of ranks.

Blocks of images go to the file in one collective write each; a rank takes its share of every block from the work
folder, so no image is sent and no rank holds more than a block.  Where the HDF5 library is serial, rank 0 writes.
"""

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from mpi4py import MPI

from hamscope import provenance
from hamscope.config import Config
from hamscope.data import slices
from hamscope.errors import Failed, UserError
from hamscope.sim.samples import Item
from hamscope_hpc.work import Work, section

# Images in one collective write: bounds the memory for them, and is the same for any number of ranks.
_BLOCK = 1024
# Blocks between two flushes, which bound the metadata in memory (about 100 bytes an image).
_FLUSH = 64
# Bytes of the plain sequential write that the bandwidth is held against; more would only cost time.
_PROBE = 256 * 2**20


class Written(NamedTuple):
    """A written file: images, bytes on the disk, bandwidth of the collective writes and of a plain write (MB/s)."""

    images: int
    bytes: int
    bandwidth: float
    plain_bandwidth: float


class Parts:
    """The images of all finished items in the order of the file, read from the work folder as they are needed."""

    def __init__(self, work: Work, items: list[Item], manifests: list[dict]):
        self.work = work
        self.parts = [(item, manifest) for item, manifest in zip(items, manifests) if manifest["images"]]
        self.ends = np.cumsum([manifest["images"] for _, manifest in self.parts])
        self.all = list(zip(items, manifests))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def bits(self, low: int, high: int) -> np.ndarray:
        """Images [low, high), packed, shape (high - low, bytes)."""
        found = []
        for k in range(int(np.searchsorted(self.ends, low, "right")), len(self.parts)):
            start = self.ends[k] - self.parts[k][1]["images"]
            if start >= high:
                break
            found.append(self.work.table(*self.parts[k], "bits")[max(low - start, 0) : high - start])
        return np.concatenate(found) if found else np.zeros((0, 0), np.uint8)

    def rows(self) -> np.ndarray:
        """The rows of all images."""
        return np.concatenate([self.work.table(*part, "rows") for part in self.all])

    def avalanches(self) -> np.ndarray:
        """The field sweeps of all items, by class and lattice, of type AVALANCHES."""
        return np.concatenate([self.work.table(*part, "avalanches") for part in self.all]).astype(slices.AVALANCHES)


def write(config: Config, out: Path, parts: Parts, comm: MPI.Comm, hints: dict[str, str]) -> Written:
    """Write the slices file and give it its name; collective over `comm`.

    Parameters
    ----------
    hints : dict
        Hints for MPI-IO, such as striping_factor; a file system that knows none of them ignores them.

    Raises
    ------
    Failed
        On all ranks, before anything is written: there is not room enough.
    UserError
        On all ranks: the config gave no image.
    """
    if not len(parts):
        raise UserError(
            f"{out}: no lattice reached one of its target magnetizations, so there is no image; raise max_field or "
            "max_magnetization"
        )
    temporary = parts.work.folder / f"{out.name}.part"
    _check_room(temporary, parts, config, comm)
    # A file that a dead job left would be opened and cut by all ranks at once.
    if comm.rank == 0:
        temporary.unlink(missing_ok=True)
    comm.Barrier()
    parallel = bool(h5py.get_config().mpi)
    begin = time.monotonic()
    if parallel:
        file = h5py.File(temporary, "w", driver="mpio", comm=comm, info=_info(hints))
        _keep_metadata(file)
        _fill(file, config, parts, comm)
    elif comm.rank == 0:
        _fill(h5py.File(temporary, "w"), config, parts, MPI.COMM_SELF)
    comm.Barrier()
    written = None
    if comm.rank == 0:
        provenance.publish(temporary, out)
        size, seconds = out.stat().st_size, time.monotonic() - begin
        written = Written(len(parts), size, size / seconds * 1e-6, _plain_bandwidth(parts.work.folder, size))
    return comm.bcast(written, 0)


def _fill(file: h5py.File, config: Config, parts: Parts, comm: MPI.Comm) -> None:
    """Everything that the file holds; closes it."""
    size, n = config.simulate.image_size, len(parts)
    avalanches = comm.bcast(parts.avalanches() if comm.rank == 0 else None, 0)
    slices.create(file, n, size, len(avalanches))
    digests = []
    for first in range(0, n, _BLOCK):
        last = min(first + _BLOCK, n)
        low, high = (first + (last - first) * rank // comm.size for rank in (comm.rank, comm.rank + 1))
        images = np.unpackbits(parts.bits(low, high), axis=1, count=size * size).reshape(-1, size, size)
        digests += comm.gather(slices.image_digests(images), 0) or []
        _write_share(file["images"], low, high, images, comm)
        if first % (_FLUSH * _BLOCK) == 0:
            file.flush()
    content = None
    if comm.rank == 0:
        rows = parts.rows()
        columns = {name: rows[name] for name in slices.COLUMNS}
        for name, values in columns.items():  # contiguous and without filters: one rank may write them alone
            file[name][:] = values
        if len(avalanches):
            file["avalanches"][:] = avalanches
        content = slices.content_hash(np.concatenate(digests), columns, avalanches)
    content = comm.bcast(content, 0)
    software = provenance.software_versions("numpy", "numba")
    slices.finish(file, section(config), config.simulate.seed, software, content)
    file.close()


def _keep_metadata(file: h5py.File) -> None:
    """Keep the metadata in memory until a flush that all ranks ask for.

    Where it fills its cache between two, HDF5 1.10 writes it from a wrong address and the write fails: seen from
    33,000 images on, whose chunk index is a few megabytes.
    """
    settings = file.id.get_mdc_config()
    settings.set_initial_size = True
    settings.initial_size = settings.max_size = 100 * 2**20
    settings.min_size, settings.dirty_bytes_threshold = 64 * 2**20, 20 * 2**20
    file.id.set_mdc_config(settings)


def _write_share(dataset: h5py.Dataset, low: int, high: int, images: np.ndarray, comm: MPI.Comm) -> None:
    """Write images [low, high), together with the other ranks; one without images takes part with nothing selected."""
    if dataset.file.driver != "mpio":
        dataset[low:high] = images
        return
    file_space = dataset.id.get_space()
    memory_space = h5py.h5s.create_simple((max(high - low, 1), *dataset.shape[1:]))
    if high > low:
        file_space.select_hyperslab((low, 0, 0), images.shape)
    else:
        file_space.select_none()
        memory_space.select_none()
        images = np.zeros((1, *dataset.shape[1:]), np.uint8)
    transfer = h5py.h5p.create(h5py.h5p.DATASET_XFER)
    transfer.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)
    dataset.id.write(memory_space, file_space, np.ascontiguousarray(images), dxpl=transfer)


def _check_room(temporary: Path, parts: Parts, config: Config, comm: MPI.Comm) -> None:
    """A write that fails half-way ends in an abort of all ranks; what can be foreseen is said in one line instead."""
    # Noise is stored in 1.3 to 1.6 bits a site, and an image has 200 bytes of columns, index and checksum.
    need = int(len(parts) * (0.25 * config.simulate.image_size**2 + 300)) + 2**16
    free = comm.bcast(shutil.disk_usage(temporary.parent).free if comm.rank == 0 else None, 0)
    if free < need:
        raise Failed(
            f"{temporary.parent.parent}: {free >> 20} MiB are free, the slices may need {need >> 20}; all is computed "
            f"and safe in {temporary.parent}: make room and start the same command again"
        )


def _info(hints: dict[str, str]) -> MPI.Info:
    info = MPI.Info.Create()
    for key, value in hints.items():
        info.Set(key, value)
    return info


def stripe_hints(folder: Path, n_bytes: int, ranks: int) -> dict[str, str]:
    """What MPI-IO should know of the file system that holds `folder`: stripes on Lustre, nothing elsewhere.

    One stripe a gigabyte or a rank, whichever is fewer; collective buffering on, since a chunk is far smaller than a
    stripe.
    """
    if _file_system(folder) != "lustre":
        return {}
    count = max(1, min(ranks, -(-n_bytes // 2**30)))
    return {"striping_factor": str(count), "striping_unit": str(2**20), "romio_cb_write": "enable"}


def _file_system(folder: Path) -> str:
    """The type of the file system that `folder` is on, as the kernel calls it; "" where it does not say."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    place = str(folder.resolve())
    inside = [m for m in mounts if place == m[1] or place.startswith(m[1].rstrip("/") + "/")]
    return max(inside, key=lambda m: len(m[1]))[2] if inside else ""


def _plain_bandwidth(folder: Path, size: int) -> float:
    """MB/s of one process that writes the same number of bytes (at most 256 MiB) to a plain file, flushed too."""
    path, block = folder / "probe.part", os.urandom(min(size, 2**20))
    n_blocks = max(1, min(size, _PROBE) // len(block))
    begin = time.monotonic()
    try:
        with open(path, "wb") as file:
            for _ in range(n_blocks):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return n_blocks * len(block) / (time.monotonic() - begin) * 1e-6
    except OSError:
        return float("nan")
    finally:
        path.unlink(missing_ok=True)
