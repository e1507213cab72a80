"""One job at a time on one output, or one for each part: a lock file that a living job keeps fresh, on whatever host.

The file names its owner (host, process, job).  On the same host the kernel knows whether that process lives.  From
another host only the file can be seen, so the owner adds one to a counter in it every few seconds, and whoever wants
the lock watches whether the counter still moves.  Clocks of two hosts are never compared.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path

from hamscope.errors import UserError

_BEAT, _PATIENCE = 5.0, 20.0
_DIGITS = 12


class JobLock:
    """The lock file `path`, held from `acquire` to `release`.

    Parameters
    ----------
    beat, patience : float
        Seconds between two beats of the owner; seconds without one after which an owner on another host is dead.
    part : str
        Which part of the work the job computes, such as "2/5"; "" for all of it.
    brief : bool
        It is held for a moment only, so that whoever also wants it briefly waits instead of being refused.

    Attributes
    ----------
    lost : bool
        True where another job took the lock away, which it does only from an owner that it believed to be dead.
    """

    def __init__(
        self, path: str | Path, beat: float = _BEAT, patience: float = _PATIENCE, part: str = "", brief: bool = False
    ):
        self.path, self.beat, self.patience = Path(path), beat, patience
        self.owner = {
            "token": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "kernel": _kernel(),
            "started": _started(os.getpid()), "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "part": part, "brief": brief,
        }  # fmt: skip
        self.thread: threading.Thread | None = None
        self.lost = False
        self.ended = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        UserError
            A living job holds it.
        """
        while not self._create():
            owner = self.living_owner()
            if owner is None:
                continue
            if not (owner.get("brief") and self.owner["brief"]):
                raise UserError(busy(self.path.parent, owner))
            time.sleep(0.05)
        self.thread = threading.Thread(target=self._keep_fresh, daemon=True)
        self.thread.start()

    def release(self) -> None:
        """Give the lock back; without effect where it is not held."""
        self.ended.set()
        if self.thread:
            self.thread.join()
            self.thread = None
        # Where the disk has become read-only it stays, as the lock of a dead process.
        with contextlib.suppress(OSError):
            if self._is_mine():
                self.path.unlink()

    def living_owner(self) -> dict | None:
        """Who holds the lock; None where nobody does, and the lock of a dead owner is removed."""
        while (found := _read(self.path)) is not None:
            if self._lives(*found):
                return found[0]
        return None

    def _create(self) -> bool:
        """Make the lock file unless there is one: written beside it first, so that nobody reads half of it."""
        mine = self.path.with_name(f"{self.path.name}.{self.owner['token']}")
        mine.write_text(f"{0:0{_DIGITS}d} {json.dumps(self.owner)}\n")
        try:
            os.link(mine, self.path)
        except FileExistsError:
            return False
        finally:
            mine.unlink()
        return True

    def _lives(self, owner: dict, count: int) -> bool:
        """True while the owner lives; False where he is dead and was buried, or gave the lock back."""
        if owner["host"] == self.owner["host"] and owner["kernel"] == self.owner["kernel"]:
            if _started(owner["pid"]) == owner["started"]:
                return True
            self._bury(owner)
            return False
        if not owner.get("brief"):
            print(f"{self.path.parent}: looking for {self.patience:g} s whether its job on {owner['host']} is alive",
                  file=sys.stderr, flush=True)  # fmt: skip
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            time.sleep(min(0.1 if owner.get("brief") else 1.0, self.patience / 10))
            found = _read(self.path)
            if found is None or found[0]["token"] != owner["token"]:
                return False
            if found[1] != count:
                return True
        self._bury(owner)
        return False

    def _bury(self, owner: dict) -> None:
        """Move the lock of a dead owner away; a lock that is not his any more is left, or put back."""
        grave = self.path.with_name(f"{self.path.name}.dead.{self.owner['token']}")
        try:
            with _alone(self.path.parent):
                found = _read(self.path)
                if found is not None and found[0]["token"] == owner["token"]:
                    os.rename(self.path, grave)
        except FileNotFoundError:
            return
        # Where the file system cannot keep others out, the lock may have changed between the two lines above.
        found = _read(grave)
        if found is None:
            return
        if found[0]["token"] != owner["token"]:
            with contextlib.suppress(FileExistsError):
                os.link(grave, self.path)
        grave.unlink()

    def _keep_fresh(self) -> None:
        count = 0
        while not self.ended.wait(self.beat):
            count += 1
            self.lost = self.lost or not self._is_mine()
            # A full or vanished disk is reported by whoever writes what matters.
            with contextlib.suppress(OSError):
                if not self.lost:
                    with open(self.path, "r+b") as file:
                        file.write(f"{count:0{_DIGITS}d}".encode())

    def _is_mine(self) -> bool:
        try:
            found = _read(self.path)
        except UserError:
            return False
        return found is not None and found[0]["token"] == self.owner["token"]


def owner_of(path: Path) -> dict | None:
    """Who holds or held a lock file; None where there is none."""
    found = _read(path)
    return found and found[0]


def busy(folder: Path, owner: dict) -> str:
    """That a living job works in a folder, in one line."""
    job = f", SLURM job {owner['slurm_job']}" if owner.get("slurm_job") else ""
    part = owner.get("part", "")
    what = f"{part if part.startswith('item') else 'part ' + part} of another job" if part else "another job"
    return (
        f"{folder}: {what} works on it (process {owner['pid']} on {owner['host']}{job}); "
        "wait for it, end it, or choose another --out"
    )


@contextlib.contextmanager
def _alone(folder: Path):
    """Keep others out of the block, as far as the file system can: of this host, and of others where it is shared."""
    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _read(path: Path) -> tuple[dict, int] | None:
    """The owner and the counter in a lock file; None where it is gone or is no lock."""
    try:
        count, _, owner = path.read_text().partition(" ")
        return json.loads(owner), int(count)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise UserError(f"{path}: is not a lock of hamscope; remove it if no job works here") from None


def _kernel() -> str:
    """Which running kernel and process namespace the numbers of our processes belong to; "" where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process of this host started, so that a number used again is not taken for it; None if there is none."""
    try:
        # The name of the program stands in brackets and may hold anything; field 22 counts from before it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError as error:
        return "unknown" if isinstance(error, PermissionError) else None
    return "unknown"
