"""MPI rank program: a config to a slices file, the same bytes on any number of ranks, and never lost half-way.

The ranks form groups; a group cuts each of its lattices into slabs (`hamscope_hpc.slabs`), and the work items of all
classes are spread over the groups.  What is drawn lives in `hamscope.sim.samples`; here it is scheduled, its planes
are put together, and everything goes through the work folder (`hamscope_hpc.work`) to the collective writer
(`hamscope_hpc.writer`).  A job that ends at any moment, and a new one on another number of ranks, go on from there.
"""

import json
import os
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from mpi4py import MPI

from hamscope import provenance
from hamscope.config import Config
from hamscope.data import slices
from hamscope.errors import ContractError, Failed, Stopped, UserError
from hamscope.models import BY_NAME, CLASS_NAMES
from hamscope.sim import samples
from hamscope.sim.lattice import Lattice, Plane, image_planes
from hamscope.sim.vectors import kernel_form
from hamscope_hpc import writer
from hamscope_hpc.claim import Part, claim, job_lock
from hamscope_hpc.lock import JobLock
from hamscope_hpc.progress import Progress, counted, duration, mark_stopped
from hamscope_hpc.slabs import MpiSlab
from hamscope_hpc.stop import Reason, Stop
from hamscope_hpc.work import LOCK, Rows, Work, difference, section, why

CHECKPOINT = 60.0
# g ranks that share a lattice are taken to be g to this power times as fast as one (tests/bench/README.md).  In a field
# sweep one slab waits while another carries a large avalanche.
_SHARING = {"clean": 0.93, "random-field": 0.3, "percolation": 0.9}
# What a group does between two bites of work, in the order of urgency.
_GO_ON, _SAVE, _SAVE_AND_STOP, _STOP = range(4)


def simulate(
    config: Config, out: str | Path, comm: MPI.Comm, ranks_per_lattice: int | None = None, replace: bool = False,
    checkpoint: float = CHECKPOINT, hints: dict[str, str] | None = None, part: Part | None = None,
) -> None:  # fmt: skip
    """Draw everything the config asks for and write it to `out`; collective over `comm`.

    Work that an earlier call left in the folder `out`.work is gone on with, on any number of ranks.

    Parameters
    ----------
    ranks_per_lattice : int, optional
        How many ranks share a lattice; by default what should be fastest.  More than one also means less memory a
        rank.  The result does not depend on it.
    replace : bool
        Replace a slices file, or unfinished work, of another config instead of refusing to.
    checkpoint : float
        Seconds between two checkpoints of a work item.
    hints : dict, optional
        Hints for MPI-IO beside those that fit the file system.
    part : Part, optional
        Compute only this part of the work items, beside other jobs of other parts, and do not write `out`.

    Raises
    ------
    UserError
        On all ranks alike, before anything is computed: `out` cannot be written, belongs to another config, or
        another job works on it.
    Stopped
        On all ranks alike: a signal came, all is stored.
    Failed
        On all ranks alike: something could not be stored; what was stored before is still there.
    """
    out, work = Path(out), Work(out)
    begin = time.monotonic()
    if _on_root(comm, lambda: finished(config, out, replace)):
        return
    items = all_items(config)
    if part and part.count > len(items):
        raise UserError(f"--part {part}: there are {len(items)} work items; choose at most {len(items)} parts")
    lock = job_lock(work, part)
    with Stop(comm) as stop:
        try:
            resumed = _on_root(comm, lambda: claim(work, lock, config, replace, part))
            _check_shared(work, comm)
            # Another job may have finished it since.
            if _on_root(comm, lambda: finished(config, out, replace)):
                if comm.rank == 0 and not part:
                    work.remove()
                return
            if part:
                _compute_all(part.of(items), config, work, comm, stop, lock, ranks_per_lattice, checkpoint, resumed)
                if comm.rank == 0:
                    _say_missing(work, items, out, part)
                return
            seconds = _compute_all(items, config, work, comm, stop, lock, ranks_per_lattice, checkpoint, resumed)
            finish(config, items, out, work, comm, hints or {}, resumed, seconds, begin)
        finally:
            lock.release()
    comm.Barrier()


def finish(
    config: Config, items: list[samples.Item], out: Path, work: Work, comm: MPI.Comm, hints: dict[str, str],
    resumed: bool, seconds: Counter, begin: float,
) -> None:  # fmt: skip
    """Write all items, which are computed, to `out`, its sidecar too, and remove the work folder; collective.

    `resumed`, `seconds` (of the ranks, by what they went to) and `begin` (of the monotonic clock) are for the sidecar.
    """
    computed = time.monotonic()
    if comm.rank == 0:
        print(f"simulate: writing {out}", file=sys.stderr, flush=True)
    manifests = comm.bcast([work.manifest(item) for item in items] if comm.rank == 0 else None, 0)
    parts = writer.Parts(work, items, manifests)
    n_bytes = len(parts) * config.simulate.image_size**2
    hints = writer.stripe_hints(out.absolute().parent, n_bytes, comm.size) | hints
    written = writer.write(config, out, parts, comm, hints)
    seconds["writing"] = time.monotonic() - computed
    if comm.rank == 0:
        _write_sidecar(out, config, comm.size, resumed, written, seconds, time.monotonic() - begin)
        work.remove()
        _say_written(out, written, seconds["writing"], time.monotonic() - begin)


def all_items(config: Config) -> list[samples.Item]:
    """All work items of a config, in the order of the slices file."""
    simulate = config.simulate
    return [item for name, s in simulate.classes.items() for item in samples.work_items(name, s, simulate.image_size)]


class Phase(NamedTuple):
    """The items of one class: how many groups the ranks form for it, and the items of each group in order."""

    groups: int
    shares: list[list[samples.Item]]


def plan(items: list[samples.Item], ranks: int, length: int, ranks_per_lattice: int | None = None) -> list[Phase]:
    """What every group computes, class by class, so that the last rank should finish as early as can be.

    The dearest class comes first; a later one fills up what it left uneven, as no rank waits for the others in between.

    Raises
    ------
    UserError
        `ranks_per_lattice` is more than there are ranks or planes.
    """
    if ranks_per_lattice is not None and not 1 <= ranks_per_lattice <= min(ranks, length):
        raise UserError(
            f"--ranks-per-lattice {ranks_per_lattice}: there are {ranks} ranks and {length} planes; "
            f"choose 1 to {min(ranks, length)}"
        )
    fewest = -(-ranks // length)
    choices = [ranks // ranks_per_lattice] if ranks_per_lattice else range(ranks, fewest - 1, -1)
    classes = [[item for item in items if item.name == name] for name in CLASS_NAMES]
    load, phases = np.zeros(ranks), []
    for of_class in sorted(filter(None, classes), key=lambda c: -sum(item.cost for item in c)):
        tried = [(_assign(of_class, groups, load), groups) for groups in choices]
        (shares, load), groups = min(tried, key=lambda t: t[0][1].max())
        phases.append(Phase(groups, shares))
    return phases


def _assign(items, groups: int, load: np.ndarray) -> tuple[list[list[samples.Item]], np.ndarray]:
    """The items of each group, the dearest first, each to the group that is free first; and the load of the ranks."""
    member = np.arange(len(load)) * groups // len(load)
    free = np.array([load[member == group].max() for group in range(groups)])
    speed = np.bincount(member) ** _SHARING[BY_NAME[items[0].name].family]
    shares = [[] for _ in range(groups)]
    for item in sorted(items, key=lambda item: (-item.cost, item.number)):
        first = int((free + item.cost / speed).argmin())
        shares[first].append(item)
        free[first] += item.cost / speed[first]
    return shares, free[member]


def _compute_all(
    items, config: Config, work: Work, comm: MPI.Comm, stop: Stop, lock: JobLock, ranks_per_lattice, checkpoint, resumed
) -> Counter:
    """Finish every item; the seconds of all ranks by what they went to.  Raises Stopped or Failed on all ranks."""
    begin = time.monotonic()
    manifests = comm.bcast([work.manifest(item) for item in items] if comm.rank == 0 else None, 0)
    stored = {(item.name, item.number): manifest for item, manifest in zip(items, manifests) if manifest}
    left = [
        item._replace(cost=item.cost * (1 - (manifest["share"] if manifest else 0)))
        for item, manifest in zip(items, manifests)
        if not (manifest and manifest["done"])
    ]
    phases = _on_root(comm, lambda: plan(left, comm.size, config.simulate.image_size, ranks_per_lattice))
    group_of = {groups: comm.Split(comm.rank * groups // comm.size, comm.rank) for groups in
                dict.fromkeys(phase.groups for phase in phases)}  # fmt: skip
    n_lattices = sum(item.last - item.first for item in items)
    said = lock.path.with_name(lock.path.name.replace(LOCK, "progress", 1) + ".json")  # of a part its own
    progress = Progress(comm, n_lattices, sum(item.cost for item in items), said)
    progress.before(
        n_lattices - sum(item.last - item.first for item in left), progress.cost - sum(item.cost for item in left)
    )
    if comm.rank == 0:
        goes_on = f", going on from {work.folder}" if resumed else ""
        most = max((phase.groups for phase in phases), default=0)
        each = f"{most} lattices or batches" if most > 1 else "one lattice or batch"
        at_once = f", up to {each} of {samples.BATCH} at a time" if left else ", all computed"
        print(f"simulate: {counted(n_lattices, 'lattice')} of "
              f"{counted(len(config.simulate.classes), 'class', 'classes')} on {counted(comm.size, 'rank')}{at_once}"
              f"{goes_on}", file=sys.stderr)  # fmt: skip
    seconds = Counter()
    mine = [(item, group_of[phase.groups]) for phase in phases
            for item in phase.shares[comm.rank * phase.groups // comm.size]]  # fmt: skip
    for item, group in mine:
        # A rank that stopped still comes to all of its items: others may wait for it there, and learn it.
        if group.allreduce(stop.poll() is not None, MPI.LOR):
            continue
        run = ItemRun(item, stored.get((item.name, item.number)), config, work, group, progress, stop, lock, checkpoint)
        run.finish()
        seconds.update(run.seconds)
    waiting = time.monotonic()
    progress.wait(stop)
    seconds["waiting"] = time.monotonic() - waiting
    for group in group_of.values():
        group.Free()
    reason = stop.agree()
    seconds["computing"] = (
        time.monotonic() - begin - sum(seconds[k] for k in ("communication", "checkpoints", "waiting"))
    )
    total = sum(comm.allgather(seconds), Counter())
    if comm.rank == 0:
        _say_shares(total)
        if reason:
            mark_stopped(said, reason.text)
    if reason is None:
        return total
    if reason.failed:
        raise Failed(reason.text)
    raise Stopped(f"simulate: stopped by {reason.text}; all is kept in {work.folder}, the same command goes on")


class ItemRun:
    """One work item on the ranks of a group, from its start or its last checkpoint to its end or a stop."""

    def __init__(
        self,
        item,
        manifest: dict | None,
        config: Config,
        work: Work,
        group: MPI.Comm,
        progress,
        stop: Stop,
        lock,
        checkpoint: float,
    ):
        simulate = config.simulate
        lattice = Lattice.of_dimension(BY_NAME[item.name].dimension, simulate.image_size, simulate.boundary)
        self.item, self.work, self.group, self.progress, self.stop, self.lock = item, work, group, progress, stop, lock
        self.slab = MpiSlab(group, lattice)
        self.planes = image_planes(lattice)
        self.task = samples.make_task(item, simulate.classes[item.name], simulate.seed, self.slab)
        self.checkpoint, self.saved = checkpoint, time.monotonic()
        self.seconds = Counter()
        if manifest:
            work.restore(item, self.task, self.slab, manifest)
        self.whole = item.cost / (1 - self.task.share) if not self.task.done else 0.0
        n_bytes = -(-(simulate.image_size**2) // 8)
        table = (lambda kind: work.table(item, manifest, kind)) if manifest and group.rank == 0 else None
        self.rows = Rows(n_bytes, table)

    def finish(self) -> None:
        """Compute and store, to the end of the item or until the ranks stop."""
        while not self.task.done:
            before = self.task.share
            for sample in self.task.advance():
                self._collect(sample)
            self._collect_avalanches()
            if self.group.rank == 0:
                self.progress.done(0, (self.task.share - before) * self.whole)
            order = self._agree()
            if order == _SAVE_AND_STOP or (order == _SAVE and not self.task.done):
                self._save()
            if order >= _SAVE_AND_STOP:
                break
        else:
            if self._save() and self.group.rank == 0:
                self.progress.done(self.item.last - self.item.first, 0.0)
        self.seconds["communication"] += self.slab.seconds
        self.seconds.update(self.task.seconds())

    def _agree(self) -> int:
        """What to do before the next bite, the same on all ranks of the group: the most urgent that any knows."""
        if self.lock.lost:
            # A folder that was removed loses its lock too, and the beat may find that before the next checkpoint does.
            there = self.work.folder.exists()
            what = "another job took it over while this one was silent" if there else "the folder was removed"
            self.stop.announce(Reason(f"{self.work.folder}: {what}", True))
        reason = self.stop.poll()
        if reason:
            order = _STOP if reason.failed else _SAVE_AND_STOP
        else:
            order = _SAVE if time.monotonic() - self.saved > self.checkpoint else _GO_ON
        return int(self.slab.max(order))

    def _save(self) -> bool:
        """A checkpoint; where it fails all ranks are told, and what was stored before stays."""
        begin = time.monotonic()
        try:
            self.work.save(self.item, self.task, self.rows, self.group)
        except OSError as error:
            self.stop.announce(Reason(
                f"{self.work.folder}: cannot be written, {why(error)}; what was stored before is kept there: mend that "
                "and start the same command again", True,
            ))  # fmt: skip
            return False
        finally:
            self.saved = time.monotonic()
            self.seconds["checkpoints"] += self.saved - begin
        return True

    def _collect(self, sample: samples.Sample) -> None:
        """Add the images of a state to the rows, on the first rank of the group."""
        model = CLASS_NAMES.index(self.item.name)
        for number, plane in enumerate(self.planes):
            image = _gather_plane(self.slab, sample.spins, plane)
            if image is None:
                continue
            self.rows.rows.append((
                (sample.lattice, sample.measurement, number), model, sample.parameter, sample.field, sample.direction,
                2 * float(image.mean()) - 1, sample.magnetization, sample.energy, plane.axis, plane.position,
                plane.surface, sample.lattice, sample.sweep,
            ))  # fmt: skip
            self.rows.bits.append(np.packbits(image))

    def _collect_avalanches(self) -> None:
        model = CLASS_NAMES.index(self.item.name)
        for lattice, parameter, direction, counts in self.task.avalanches:
            self.rows.avalanches.append((model, lattice, parameter, direction, counts))
        self.task.avalanches.clear()


def _gather_plane(slab: MpiSlab, spins: np.ndarray, plane: Plane) -> np.ndarray | None:
    """One plane of a lattice whole, shape (L, L) uint8, on the first rank of the group; None on the others."""
    if plane.axis == 0:
        inside = slab.start <= plane.position < slab.stop
        part = spins[plane.position - slab.start : plane.position - slab.start + 1 if inside else 0]
    else:
        part = np.ascontiguousarray(spins.take(plane.position, plane.axis))
    parts = slab.gather(part)
    if parts is None:
        return None
    return np.concatenate(parts).reshape(-1, parts[0].shape[-1])


def finished(config: Config, out: Path, replace: bool) -> bool:
    """True if `out` is there and of this very config; UserError if it is in the way."""
    provenance.check_writable(out)
    if not out.exists():
        return False
    try:
        made = slices.read_attributes(out)
    except ContractError as error:
        raise UserError(f"{error}; {out} is in the way: remove it or choose another --out") from None
    if made["config"] == section(config) and made["software"]["hamscope"] == provenance.__version__:
        print(f"simulate: {out} is complete and of this config, nothing to do", file=sys.stderr)
        return True
    if replace:
        return False
    changed = difference(json.loads(made["config"]), json.loads(section(config))) or "another version of hamscope"
    raise UserError(f"{out}: was made from another config ({changed}); choose another --out, or --replace it")


def _check_shared(work: Work, comm: MPI.Comm) -> None:
    """UserError on all ranks unless all of them see the work folder."""
    blind = [host for host in comm.allgather(None if work.folder.exists() else socket.gethostname()) if host]
    if blind:
        raise UserError(
            f"{work.folder}: cannot be seen from {', '.join(sorted(set(blind)))}; choose an --out that all nodes share"
        )


def _say_missing(work: Work, items: list[samples.Item], out: Path, part: Part) -> None:
    """Print how the file is to be had after a part was computed."""
    manifests = [work.manifest(item) for item in items]
    missing = sum(not (manifest and manifest["done"]) for manifest in manifests)
    if missing:
        rest = f"; {missing} of {len(items)} work items are missing; the same command without --part computes them and"
    else:
        rest = f", and so are all {len(items)} work items; the same command without --part"
    print(f"simulate: part {part} is computed{rest} writes {out}", file=sys.stderr)


def _say_shares(seconds: Counter) -> None:
    """Print what the ranks spent their time on, in shares of all of it."""
    total = sum(seconds[k] for k in ("computing", "communication", "checkpoints", "waiting"))
    shares = ", ".join(
        f"{100 * seconds[k] / max(total, 1e-9):.0f} % {k}"
        for k in ("computing", "communication", "checkpoints", "waiting")
    )
    updates = seconds["metropolis"] + seconds["wolff"]
    wolff = f"; of the updates of clean lattices {100 * seconds['wolff'] / updates:.0f} % were Wolff" if updates else ""
    print(f"simulate: the ranks spent {shares}{wolff}", file=sys.stderr, flush=True)


def _say_written(out: Path, written: writer.Written, seconds: float, total: float) -> None:
    print(
        f"simulate: wrote {written.bytes * 1e-6:.1f} MB in {duration(seconds)}, {written.bandwidth:.0f} MB/s beside "
        f"{written.plain_bandwidth:.0f} MB/s of a plain sequential write\n"
        f"simulate: {out} is complete, {counted(written.images, 'image')} in {duration(total)}",
        file=sys.stderr,
    )


def _write_sidecar(
    out: Path, config: Config, ranks: int, resumed: bool, written: writer.Written, seconds: Counter, total: float
) -> None:
    """What belongs to the run and not to the result: slices.run.json."""
    record = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": socket.gethostname(), "config": config.name,
        "slurm_job": os.environ.get("SLURM_JOB_ID"), "ranks": ranks, "resumed": resumed, "images": written.images,
        "bytes": written.bytes, "seconds": round(total, 3),
        "rank_seconds": {what: round(value, 3) for what, value in sorted(seconds.items())},
        "MB_per_s": {"collective": round(written.bandwidth, 1), "plain": round(written.plain_bandwidth, 1)},
        "software": provenance.software_versions("numpy", "numba", "mpi4py", "h5py"),
        "mpi": MPI.Get_library_version().split(",")[0].strip(), "parallel_hdf5": bool(h5py.get_config().mpi),
        "kernels": kernel_form(),
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
