"""Who may work in a work folder: one job that computes all, or jobs of different parts of it beside each other.

A whole job holds the lock `lock` to its end.  A part holds a lock of its own, `lock.2-of-5`, and that of a whole job
only while it looks round and marks the folder as that of its config: parts that start together do so one by one.
The workers of a campaign hold a lock for every work item that they compute, since they may outlive their campaign.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from hamscope.config import Config
from hamscope.errors import UserError
from hamscope.sim.tasks import Item
from hamscope_hpc.lock import JobLock, busy
from hamscope_hpc.work import LOCK, Work, stem, why

_PART = re.compile(rf"{LOCK}\.([0-9]+)-of-([0-9]+)")
_ITEM = re.compile(rf"{LOCK}\.item\..+\.[0-9]{{4,}}")
# The end of a whole job removes the folder, perhaps just before a lock is taken there.
_TRIES = 20


class Part(NamedTuple):
    """Part `number` (from 1) of `count`: of all work items, counted from 0, each k with k % count == number - 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: list) -> list:
        """Those of all items that are in this part."""
        return items[self.number - 1 :: self.count]


def parse_part(text: str) -> Part:
    """The part that a text such as "2/5" names.

    Raises
    ------
    UserError
        It names none.
    """
    found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    part = Part(*map(int, found.groups())) if found else Part(0, 0)
    if not 1 <= part.number <= part.count:
        raise UserError(f"--part {text}: write K/N with K from 1 to N, such as 1/4")
    return part


def job_lock(work: Work, part: Part | None = None) -> JobLock:
    """The lock, not yet held, of a job that computes `part`, or everything."""
    if part is None:
        return JobLock(work.folder / LOCK)
    return JobLock(work.folder / f"{LOCK}.{part.number}-of-{part.count}", part=str(part))


def item_lock(work: Work, item: Item) -> JobLock:
    """The lock, not yet held, of a worker of a campaign that computes one work item."""
    return JobLock(work.folder / f"{LOCK}.item.{stem(item)}", part=f"item {stem(item)}")


def remove_dead_item_locks(work: Work) -> None:
    """Remove the locks of workers that were killed, which would keep the folder."""
    for path in work.folder.glob(f"{LOCK}.item.*"):
        if _ITEM.fullmatch(path.name):
            JobLock(path).living_owner()


def claim(
    work: Work, lock: JobLock, config: Config, replace: bool, part: Part | None = None, campaign: bool = False
) -> bool:
    """Take the work folder, of this config alone, with the lock of `job_lock`; True where it holds work to go on with.

    Raises
    ------
    UserError
        The folder cannot be written, belongs to another config, or a job lives there that this one would disturb: for
        a whole job any, for a part a whole job, the same part, or a part of another number of parts.  Workers that an
        earlier campaign left are in the way too, but not of a `campaign`, whose workers wait for them.
    """
    try:
        _take(work, lock)
        if part is None:
            return _open(work, lock, config, replace, campaign=campaign)
        gate = JobLock(work.folder / LOCK, part=str(part), brief=True)
        try:
            gate.acquire()
            return _open(work, lock, config, replace, part)
        except BaseException:
            lock.release()  # before the gate, so that of two which exclude each other one goes on
            raise
        finally:
            gate.release()
    except OSError as error:
        raise UserError(f"{work.folder}: cannot be written, {why(error)}; choose another --out") from None


def _take(work: Work, lock: JobLock) -> None:
    for k in range(_TRIES):
        work.folder.mkdir(exist_ok=True)
        try:
            return lock.acquire()
        except FileNotFoundError:
            if k == _TRIES - 1:
                raise


def _open(work: Work, lock: JobLock, config: Config, replace: bool, part: Part | None = None, campaign=False) -> bool:
    """Look at the other jobs, then open the folder."""
    locks = [path for path in sorted(work.folder.glob(f"{LOCK}.*")) if path != lock.path]
    parts = [path for path in locks if _PART.fullmatch(path.name)]
    items = [path for path in locks if _ITEM.fullmatch(path.name)]
    beside = [path for path in parts if part and int(_PART.fullmatch(path.name)[2]) == part.count]
    beside += items if campaign else []
    _refuse_living(work, [path for path in parts + items if path not in beside])
    try:
        return work.open(config)
    except UserError:
        if not replace:
            raise
        _refuse_living(work, beside)
        work.clear()
        return work.open(config)


def _refuse_living(work: Work, paths: list) -> None:
    """UserError where one of these locks has a living owner; all are watched at the same time."""
    if paths:
        with ThreadPoolExecutor(min(len(paths), 64)) as pool:
            for owner in pool.map(lambda path: JobLock(path).living_owner(), paths):
                if owner:
                    raise UserError(busy(work.folder, owner))
