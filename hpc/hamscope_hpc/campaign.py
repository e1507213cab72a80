"""The same simulation as many small SLURM jobs: a dask task for every work item, then the one collective writer.

Everything computed lies in the work folder, as `hamscope_hpc.simulate` has it.  So whatever is killed, a worker or the
campaign itself, goes on from the last checkpoints, and the file is the same, byte for byte.
"""

import queue
import sys
import time
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path

from mpi4py import MPI

from hamscope.config import Config
from hamscope.errors import Failed, Stopped
from hamscope.sim.tasks import Item
from hamscope_hpc.campaign_cluster import Site, start_cluster
from hamscope_hpc.campaign_item import STOP, compute_item
from hamscope_hpc.claim import claim, item_lock, job_lock, remove_dead_item_locks
from hamscope_hpc.lock import JobLock
from hamscope_hpc.progress import PROGRESS, Progress, counted, mark_stopped
from hamscope_hpc.simulate import all_items, finish, finished
from hamscope_hpc.stop import Stop
from hamscope_hpc.work import Work, stem

# Seconds that the workers get to store what they have.
_GRACE = 30.0
# An item that never began was only in the company of those that killed its workers.
_MOST = 10


def campaign(
    config: Config, out: str | Path, site: Site | None, jobs: int, replace: bool = False, checkpoint: float = 60.0
) -> None:
    """Draw everything the config asks for with dask workers, and write it to `out`.

    Parameters
    ----------
    site : Site, optional
        What a SLURM job of a worker asks for; without it the workers are processes of this machine.
    jobs : int
        Workers of this machine, or the most SLURM jobs at a time.

    Raises
    ------
    UserError
        As `simulate` does, or dask is missing, or the jobs are refused.
    Stopped
        A signal came; what was computed is kept.
    Failed
        Items killed all their workers, or could not be stored.
    """
    out = Path(out).absolute()
    work, begin, comm = Work(out), time.monotonic(), MPI.COMM_WORLD
    if finished(config, out, replace):
        return
    items, lock = all_items(config), job_lock(Work(out))
    with Stop(comm) as stop:
        try:
            resumed = claim(work, lock, config, replace, campaign=True)
            if finished(config, out, replace):
                return work.remove()
            left = [item for item in items if not (work.manifest(item) or {}).get("done")]
            goes_on = f", going on from {work.folder}" if resumed else ""
            print(f"campaign: {counted(len(items), 'work item')}, {len(left)} to compute{goes_on}", file=sys.stderr)
            if left:
                jobs = min(jobs, len(left))
                with start_cluster(site, jobs, work.folder) as client:
                    _say_where(client, site, jobs)
                    Campaign(config, items, left, work, client, stop, lock, checkpoint).compute()
            remove_dead_item_locks(work)
            seconds = Counter(computing=time.monotonic() - begin)
            finish(config, items, out, work, comm, {}, resumed, seconds, begin)
        finally:
            lock.release()


class Campaign:
    """The work items that are left, on the workers of a dask client."""

    def __init__(
        self, config: Config, items: list[Item], left: list[Item], work: Work, client, stop: Stop, lock: JobLock,
        checkpoint: float,
    ):  # fmt: skip
        self.config, self.work, self.client, self.stop, self.lock = config, work, client, stop, lock
        self.checkpoint = checkpoint
        self.out = str(work.folder).removesuffix(".work")
        self.left = sorted(left, key=lambda item: (-item.cost, item.number))
        self.running, self.tries, self.given_up = {}, Counter(), []
        self.done: queue.Queue = queue.Queue()
        lattices = sum(item.last - item.first for item in items)
        self.progress = Progress(MPI.COMM_SELF, lattices, sum(item.cost for item in items), work.folder / PROGRESS)
        self.progress.before(lattices - sum(item.last - item.first for item in left),
                             self.progress.cost - sum(item.cost for item in left))  # fmt: skip

    def compute(self) -> None:
        """Finish all items.  Raises Stopped or Failed."""
        try:
            for item in self.left:
                self._submit(item)
            while self.running:
                if self.lock.lost:
                    raise Failed(f"{self.work.folder}: another job took it over while this one was silent")
                if reason := self.stop.poll():
                    raise Stopped(
                        f"campaign: stopped by {reason.text}; all is kept in {self.work.folder}, "
                        "the same command goes on"
                    )
                try:
                    self._ended(self.done.get(timeout=0.2))
                except queue.Empty:
                    self.progress.done(0, 0.0)
            if self.given_up:
                raise Failed(
                    f"campaign: {', '.join(self.given_up)} killed every worker that computed it; is the memory of a "
                    f"job too small?  All else is kept in {self.work.folder}, the same command tries again"
                )
        except (Stopped, Failed) as error:
            self._end_workers()
            mark_stopped(self.work.folder / PROGRESS, self.stop.reason.text if self.stop.reason else str(error))
            raise
        finally:
            self.progress.show(end=True)

    def _submit(self, item: Item) -> None:
        manifest = self.work.manifest(item)
        self.tries[item] += 1
        future = self.client.submit(
            compute_item, self.config, self.out, item, self.lock.owner["token"], self.checkpoint,
            key=f"{stem(item)}-{self.tries[item]}", pure=False,
        )  # fmt: skip
        self.running[future.key] = (future, item, manifest)
        future.add_done_callback(self.done.put)

    def _ended(self, future) -> None:
        """Count an item, or submit it again where it is not the cause of the deaths of its workers."""
        from distributed import KilledWorker

        _, item, before = self.running.pop(future.key)
        try:
            reason = future.result()
        except (KilledWorker, CancelledError):
            pass
        except Exception as error:
            raise Failed(
                f"campaign: {stem(item)} failed: {error!r}; what is stored in {self.work.folder} is kept"
            ) from error
        else:
            if reason is not None:
                raise Failed(reason.text)
            self.progress.done(item.last - item.first, item.cost)
            return
        # Of a worker that was killed while it computed an item the lock is left.
        began, grew = item_lock(self.work, item).path.exists(), self.work.manifest(item) != before
        if grew or (not began and self.tries[item] < _MOST):
            self._submit(item)
        else:
            self.given_up.append(stem(item))

    def _end_workers(self) -> None:
        """Tell the workers to store what they have, and wait until they did."""
        (self.work.folder / STOP).write_text(self.lock.owner["token"])
        end = time.monotonic() + _GRACE
        while time.monotonic() < end and any(
            future.status == "pending" and item_lock(self.work, item).path.exists()
            for future, item, _ in self.running.values()
        ):
            time.sleep(0.1)


def _say_where(client, site: Site | None, jobs: int) -> None:
    here = f"{counted(jobs, 'process', 'processes')} of this machine, as there is no --site"
    where = f"up to {counted(jobs, 'SLURM job')}" if site else here
    print(f"campaign: {where}\ndashboard: {client.dashboard_link}", file=sys.stderr, flush=True)
