"""One work item of a campaign, computed by a dask worker into the work folder, from its last checkpoint on.

A worker that the scheduler believes to be dead may live on and compute, so an item is held by a lock of its own, and a
worker whose campaign is no more gives up once another job has taken the folder.
"""

import socket
import time
from pathlib import Path

from mpi4py import MPI

from hamscope.config import Config
from hamscope.errors import UserError
from hamscope.sim.tasks import Item
from hamscope_hpc.claim import item_lock
from hamscope_hpc.lock import owner_of
from hamscope_hpc.simulate import ItemRun
from hamscope_hpc.stop import Reason, worst
from hamscope_hpc.work import LOCK, Work

STOP = "stop"
# Seconds between two looks at the folder, which may be far away.
_LOOK = 0.5


class Orders:
    """What the campaign of `token` wants, read from its folder: the `stop` of an item run."""

    def __init__(self, work: Work, token: str):
        self.work, self.token = work, token
        self.reason: Reason | None = None
        self.looked = 0.0

    def poll(self) -> Reason | None:
        """The reason to stop, if there is one."""
        if self.reason is None and time.monotonic() - self.looked > _LOOK:
            self.looked = time.monotonic()
            owner = owner_of(self.work.folder / LOCK)
            if owner is not None and owner["token"] != self.token:
                self.announce(Reason(f"{self.work.folder}: another job took it over", True))
            elif _text(self.work.folder / STOP) == self.token:
                self.announce(Reason("the end of its campaign"))
        return self.reason

    def announce(self, reason: Reason) -> None:
        """Stop here."""
        self.reason = worst(self.reason, reason)


class _Unseen:
    """The progress of an item, which nobody sees: the campaign shows that of all."""

    def done(self, lattices: int, cost: float) -> None:
        pass


def compute_item(config: Config, out: str, item: Item, token: str, checkpoint: float) -> Reason | None:
    """Finish a work item; None, or the reason why it is not finished."""
    work = Work(out)
    if not work.folder.exists():
        text = f"{work.folder}: cannot be seen from {socket.gethostname()}; choose an --out that all nodes share"
        return Reason(text, True)
    orders, lock = Orders(work, token), item_lock(work, item)
    while orders.poll() is None:
        try:
            lock.acquire()
        except UserError:  # a worker that was believed dead computes it
            time.sleep(_LOOK)
            continue
        try:
            manifest = work.manifest(item)
            if manifest and manifest["done"]:  # by a worker that died before it could say so
                return None
            ItemRun(item, manifest, config, work, MPI.COMM_SELF, _Unseen(), orders, lock, checkpoint).finish()
        finally:
            lock.release()
        break
    return orders.reason


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
