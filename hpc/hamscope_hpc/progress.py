"""How far a computation over ranks is: shown by rank 0, fed by all, without making anyone wait."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hamscope.errors import UserError
from hamscope.provenance import whole_file

if TYPE_CHECKING:  # importing it starts MPI, and `duration` serves programs without MPI too
    from mpi4py import MPI

    from hamscope_hpc.stop import Stop

PROGRESS = "progress.json"  # in the work folder of a stage; `hamscope status` reads it
WRITE_EVERY = 5.0  # seconds
_TAG = 7


class Progress:
    """Counts finished work on rank 0 of `comm`: `done` from any rank, `wait` on all at the end.

    On a terminal the line is rewritten every half second; elsewhere a line a minute is printed.  The file `path` says
    the same to `hamscope status`.
    """

    def __init__(self, comm: "MPI.Comm", lattices: int, cost: float, path: Path | None = None):
        self.comm, self.path = comm, path
        self.lattices, self.cost = lattices, cost
        self.lattices_done, self.cost_done = 0, 0.0
        self.lattices_before, self.cost_before = 0, 0.0
        self.begin = self.shown = time.monotonic()
        self.written = -WRITE_EVERY
        self.terminal = sys.stderr.isatty()
        self.requests = []

    def before(self, lattices: int, cost: float) -> None:
        """Say that so much was finished before this job began; the rate and the time left do not count it."""
        self.lattices_before, self.cost_before = lattices, cost
        if self.comm.rank == 0:
            self._write()  # so that an earlier start's word, which may say that it was stopped, does not stay

    def done(self, lattices: int, cost: float) -> None:
        """Say that so many lattices and so much of the cost were finished here."""
        if self.comm.rank:
            self.requests = [request for request in self.requests if not request.Test()]
            self.requests.append(self.comm.isend((lattices, cost), 0, _TAG))
            return
        self._count(lattices, cost)
        while self.comm.iprobe(tag=_TAG):
            self._count(*self.comm.recv(tag=_TAG))
        if time.monotonic() - self.shown > (0.5 if self.terminal else 60.0):
            self.show()
        if time.monotonic() - self.written > WRITE_EVERY:
            self._write()

    def wait(self, stop: "Stop") -> None:
        """Return when every rank has finished its work or stopped; rank 0 shows how far the others are."""
        everyone = self.comm.Ibarrier()
        while not everyone.Test():
            stop.poll()
            if self.comm.rank == 0:
                self.done(0, 0.0)
            time.sleep(0.01)
        if self.comm.rank == 0:
            self.done(0, 0.0)
            self.show(end=True)
            self._write()

    def show(self, end: bool = False) -> None:
        """Print lattices done, rate and time left on stderr."""
        done, share, rate, seconds = self._now()
        self.shown = time.monotonic()
        left = "" if end or seconds is None else f"{duration(seconds)} left"
        words = [done, f"{100 * share:.0f} %", rate, duration(self.shown - self.begin), left]
        line = f"simulate: {', '.join(filter(None, words))}"
        if self.terminal:
            print(f"\r\033[K{line}", end="\n" if end else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _now(self) -> tuple[str, float, str, float | None]:
        """What is done in words, the share of the cost that is done, the rate in words, the seconds left if known."""
        elapsed = time.monotonic() - self.begin
        here = min(self.cost_done / max(self.cost - self.cost_before, 1e-9), 1.0)
        left = None if here < 0.002 else elapsed * (1 / here - 1)
        share = min((self.cost_before + self.cost_done) / self.cost, 1.0) if self.cost else 1.0
        done = f"{self.lattices_before + self.lattices_done:,}/{counted(self.lattices, 'lattice')}"
        return done, share, speed(self.lattices_done, elapsed, "lattices"), left

    def _write(self) -> None:
        if self.path:
            self.written = time.monotonic()
            write_progress(self.path, *self._now())

    def _count(self, lattices: int, cost: float) -> None:
        self.lattices_done += lattices
        self.cost_done += cost


def write_progress(path: Path, done: str, share: float, rate: str, left: float | None) -> None:
    """Leave word of how far a stage is for `hamscope status`; a full or vanished disk is reported by what matters."""
    with contextlib.suppress(OSError, UserError), whole_file(path) as temporary:
        temporary.write_text(json.dumps({"done": done, "share": share, "rate": rate, "left": left}) + "\n")


def mark_stopped(path: Path, why: str) -> None:
    """Add to what `path` says of a stage that it was stopped, and why: then nobody takes it for running."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    with contextlib.suppress(OSError, UserError), whole_file(path) as temporary:
        temporary.write_text(json.dumps(known | {"stopped": why}) + "\n")


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: 1 rank, 4 ranks, 1,024 ranks."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def speed(done: int, seconds: float, what: str) -> str:
    """A rate as a person reads it: 12.3 lattices/s, 40 lattices/h, 5,200 windows/s; "" before anything is done."""
    if not done:
        return ""
    rate, unit = done / max(seconds, 1e-9), "s"
    if rate < 0.1:
        rate, unit = 3600 * rate, "h"
    return f"{rate:,.{0 if rate >= 100 else 1}f} {what}/{unit}"


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
