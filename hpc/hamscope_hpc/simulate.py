"""MPI rank program: a config to a slices file, the same bytes on any number of ranks.

The ranks form groups; a group cuts each of its lattices into slabs (`hamscope_hpc.slabs`), and the work items of all
classes are spread over the groups.  What is drawn lives in `hamscope.sim.samples`; here it is scheduled, its planes
are put together, and all images reach the file in one pass of collective writes.  Where the HDF5 library is serial,
rank 0 writes what the others send.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

import h5py
import numpy as np
from mpi4py import MPI

from hamscope import provenance
from hamscope.config import Config
from hamscope.data import slices
from hamscope.errors import ContractError, UserError
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.sim import samples
from hamscope.sim.lattice import Lattice, image_planes
from hamscope_hpc.progress import Progress, duration
from hamscope_hpc.slabs import MpiSlab

# Images in one collective write: bounds the memory for them, and is the same for any number of ranks.
_BLOCK = 1024
_ROW = np.dtype(
    [("key", "i8", 4)] + [(name, "u1" if name == "model" else column.dtype) for name, column in slices.COLUMNS.items()]
)


def simulate(
    config: Config, out: str | Path, comm: MPI.Comm, ranks_per_lattice: int | None = None, replace=False
) -> None:
    """Draw everything the config asks for and write it to `out`; collective over `comm`.

    Parameters
    ----------
    ranks_per_lattice : int, optional
        How many ranks share a lattice; by default what should be fastest.  More than one also means less memory a
        rank.  The result does not depend on it.
    replace : bool
        Replace a slices file of another config instead of refusing to.

    Raises
    ------
    UserError
        On all ranks alike, before anything is computed: `out` cannot be written or belongs to another config.
    """
    out = Path(out)
    begin = time.monotonic()
    if _on_root(comm, lambda: _finished(config, out, replace)):
        return
    items = [
        item
        for name, s in config.simulate.classes.items()
        for item in samples.work_items(name, s, config.simulate.image_size)
    ]
    groups = _on_root(comm, lambda: choose_groups(items, comm.size, config.simulate.image_size, ranks_per_lattice))
    mine = comm.rank * groups // comm.size
    group = comm.Split(mine, comm.rank)
    n_lattices = sum(item.last - item.first for item in items)
    if comm.rank == 0:
        print(f"simulate: {n_lattices} lattices of {len(config.simulate.classes)} classes on {comm.size} ranks, "
              f"{groups} lattices or batches of {samples.BATCH} at a time", file=sys.stderr)  # fmt: skip
    progress = Progress(comm, n_lattices, sum(item.cost for item in items))
    rows, packed = [], []
    for item in assign(items, groups)[mine]:
        _compute(item, config, group, progress, rows, packed)
    progress.wait()
    computed = time.monotonic()
    size = config.simulate.image_size
    rows, packed = np.array(rows, _ROW), np.array(packed, np.uint8).reshape(len(rows), -1)
    columns, positions = _order(comm, rows)
    if comm.rank == 0:
        print(f"simulate: writing {len(columns)} images to {out}", file=sys.stderr)
    images = _redistribute(comm, positions, packed, len(columns))
    _write(config, out, comm, columns, images, size)
    if comm.rank == 0:
        _write_sidecar(out, config, comm.size, groups, len(columns), computed - begin, time.monotonic() - begin)
        print(
            f"simulate: {out} is complete, {len(columns)} images in {duration(time.monotonic() - begin)}",
            file=sys.stderr,
        )
    group.Free()


def choose_groups(items: list[samples.Item], ranks: int, length: int, ranks_per_lattice: int | None = None) -> int:
    """The number of groups that should finish first, or the one that was asked for.

    Sharing a lattice costs communication: a group of g ranks is taken to be g**0.9 times as fast as one.
    """
    if ranks_per_lattice is not None:
        if not 1 <= ranks_per_lattice <= min(ranks, length):
            raise UserError(
                f"--ranks-per-lattice {ranks_per_lattice}: there are {ranks} ranks and {length} planes; "
                f"choose 1 to {min(ranks, length)}"
            )
        return ranks // ranks_per_lattice
    fewest = -(-ranks // length)

    def makespan(groups: int) -> float:
        return max(sum(item.cost for item in share) for share in assign(items, groups)) / (ranks / groups) ** 0.9

    return min(range(ranks, fewest - 1, -1), key=makespan)


def assign(items: list[samples.Item], groups: int) -> list[list[samples.Item]]:
    """The items of each group: the dearest first, each to the group with the least to do."""
    shares, load = [[] for _ in range(groups)], np.zeros(groups)
    for item in sorted(items, key=lambda item: (-item.cost, CLASS_NAMES.index(item.name), item.number)):
        least = int(load.argmin())
        shares[least].append(item)
        load[least] += item.cost
    return shares


def _compute(item, config: Config, group: MPI.Comm, progress: Progress, rows: list, packed: list) -> None:
    """Draw one item on this group; add the images that fell to this rank to `rows` and `packed`."""
    simulate = config.simulate
    lattice = Lattice.of_dimension(BY_NAME[item.name].dimension, simulate.image_size, simulate.boundary)
    slab = MpiSlab(group, lattice)
    planes = image_planes(lattice)

    model = CLASS_NAMES.index(item.name)
    task = samples.make_task(item, simulate.classes[item.name], simulate.seed, slab)
    while not task.done:
        before = task.share
        for sample in task.advance():
            for number, plane in enumerate(planes):
                image = _gather_plane(slab, sample.spins, plane, number % group.size)
                if image is None:
                    continue
                rows.append((
                    (model, sample.lattice, sample.measurement, number), model, sample.parameter, sample.field,
                    sample.direction, 2 * float(image.mean()) - 1, sample.magnetization, sample.energy, plane.axis,
                    plane.position, plane.surface, sample.lattice, sample.sweep,
                ))  # fmt: skip
                packed.append(np.packbits(image))
        if group.rank == 0:
            progress.done(0, (task.share - before) * item.cost)
    if group.rank == 0:
        progress.done(item.last - item.first, 0.0)


def _gather_plane(slab: MpiSlab, spins: np.ndarray, plane, owner: int) -> np.ndarray | None:
    """One plane of a lattice whole, shape (L, L) uint8, on one rank of the group; None on the others.

    A plane across the slabs is put together on rank `owner`; a plane inside a slab stays where it is.
    """
    if plane.axis == 0:
        inside = slab.start <= plane.position < slab.stop
        return spins[plane.position - slab.start] if inside else None
    part = np.ascontiguousarray(spins.take(plane.position, plane.axis))
    if slab.comm.size == 1:
        return part
    parts = slab.comm.gather(part, owner)
    return None if parts is None else np.concatenate(parts)


def _order(comm: MPI.Comm, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All rows in the order of the file (class, lattice, measurement, plane), and where this rank's images go."""
    counts = comm.allgather(len(rows))
    everything = np.concatenate(comm.allgather(rows))
    order = np.lexsort(everything["key"].T[::-1])
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    first = sum(counts[: comm.rank])
    return everything[order], position[first : first + len(rows)]


def _share(block: int, n_images: int, size: int, rank: int) -> tuple[int, int]:
    """First and last (exclusive) image of block `block` that `rank` of `size` writes."""
    low, high = block * _BLOCK, min((block + 1) * _BLOCK, n_images)
    return low + (high - low) * rank // size, low + (high - low) * (rank + 1) // size


def _redistribute(comm: MPI.Comm, positions: np.ndarray, packed: np.ndarray, n_images: int) -> list[np.ndarray]:
    """Send every image to the rank that will write it: the packed images of this rank's share, a list over blocks."""
    blocks = -(-n_images // _BLOCK)
    owner = np.empty(n_images, np.int64)
    for block in range(blocks):
        for rank in range(comm.size):
            owner[slice(*_share(block, n_images, comm.size, rank))] = rank
    to = owner[positions]
    received = comm.alltoall([(positions[to == rank], packed[to == rank]) for rank in range(comm.size)])
    where = np.concatenate([position for position, _ in received])
    images = np.concatenate([image for _, image in received])[np.argsort(where)]
    lengths = [high - low for low, high in (_share(block, n_images, comm.size, comm.rank) for block in range(blocks))]
    return np.split(images, np.cumsum(lengths)[:-1])


def _write(config: Config, out: Path, comm: MPI.Comm, columns: np.ndarray, packed: list[np.ndarray], size: int) -> None:
    """The one collective writer: all ranks write their shares, block by block; rank 0 alone with a serial HDF5."""
    parallel = h5py.get_config().mpi
    temporary = comm.bcast(out.with_name(f".{out.name}.{socket.gethostname()}.{os.getpid()}.part"), 0)
    digests = []
    file = None
    if parallel:
        file = h5py.File(temporary, "w", driver="mpio", comm=comm)
    elif comm.rank == 0:
        file = h5py.File(temporary, "w")
    if file:
        slices.create(file, len(columns), size)
    for block, bits in enumerate(packed):
        images = np.unpackbits(bits, axis=1, count=size * size).reshape(-1, size, size)
        gathered = comm.gather((images if not parallel else None, slices.image_digests(images)), 0)
        if comm.rank == 0:
            digests += [digest for _, digest in gathered]
        if parallel:
            _write_share(file["images"], *_share(block, len(columns), comm.size, comm.rank), images)
        elif comm.rank == 0:
            low = block * _BLOCK
            whole = np.concatenate([image for image, _ in gathered])
            file["images"][low : low + len(whole)] = whole
    if comm.rank == 0:
        for name in slices.COLUMNS:  # contiguous and without filters: one rank may write them alone
            file[name][:] = columns[name]
    values = {name: columns[name] for name in slices.COLUMNS}
    content = comm.bcast(
        slices.content_hash(np.concatenate(digests), values, np.zeros(0, slices.AVALANCHES))
        if comm.rank == 0
        else None,
        0,
    )
    if file:
        software = provenance.software_versions("numpy", "numba")
        slices.finish(file, provenance.section_json(config.simulate), config.simulate.seed, software, content)
        file.close()
    if comm.rank == 0:
        provenance.publish(temporary, out)
    comm.Barrier()


def _write_share(dataset: h5py.Dataset, low: int, high: int, images: np.ndarray) -> None:
    """Write images [low, high) collectively; a rank without images takes part with an empty selection."""
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


def _finished(config: Config, out: Path, replace: bool) -> bool:
    """True if `out` is there and of this very config; UserError if it is in the way."""
    provenance.check_writable(out)
    if not out.exists():
        return False
    try:
        made = slices.read_attributes(out)
    except ContractError as error:
        raise UserError(f"{error}; {out} is in the way: remove it or choose another --out") from None
    if (
        made["config"] == provenance.section_json(config.simulate)
        and made["software"]["hamscope"] == provenance.__version__
    ):
        print(f"simulate: {out} is complete and of this config, nothing to do", file=sys.stderr)
        return True
    if replace:
        return False
    changed = _difference(json.loads(made["config"]), json.loads(provenance.section_json(config.simulate)))
    raise UserError(f"{out}: was made from another config ({changed}); choose another --out, or --replace it")


def _difference(old: dict, new: dict, path: str = "simulate") -> str:
    """The first value in which two configs differ, in words."""
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict) and a != b:
            return _difference(a, b, f"{path}.{key}")
        if a != b:
            return f"{path}.{key} = {a} there, {b} here"
    return "another version of hamscope"


def _write_sidecar(
    out: Path, config: Config, ranks: int, groups: int, n_images: int, computing: float, total: float
) -> None:
    """What belongs to the run and not to the result: slices.run.json."""
    record = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": socket.gethostname(), "config": config.name,
        "slurm_job": os.environ.get("SLURM_JOB_ID"), "ranks": ranks, "groups": groups, "images": n_images,
        "seconds_computing": round(computing, 3), "seconds": round(total, 3),
        "software": provenance.software_versions("numpy", "numba", "mpi4py", "h5py"),
        "mpi": MPI.Get_library_version().split(",")[0].strip(), "parallel_hdf5": bool(h5py.get_config().mpi),
    }  # fmt: skip
    with provenance.whole_file(out.with_suffix(".run.json")) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")


def _on_root(comm: MPI.Comm, function):
    """What rank 0 finds, on all ranks; a UserError there is raised on all of them."""
    value = error = None
    if comm.rank == 0:
        try:
            value = function()
        except UserError as raised:
            error = raised
    value, error = comm.bcast((value, error), 0)
    if error:
        raise error
    return value
