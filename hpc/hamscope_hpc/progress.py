"""How far a computation over ranks is: shown by rank 0, fed by all, without making anyone wait."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it starts MPI, and `duration` serves programs without MPI too
    from mpi4py import MPI

    from hamscope_hpc.stop import Stop

_TAG = 7


class Progress:
    """Counts finished work on rank 0 of `comm`: `done` from any rank, `wait` on all at the end.

    On a terminal the line is rewritten every half second; elsewhere a line a minute is printed.
    """

    def __init__(self, comm: "MPI.Comm", lattices: int, cost: float):
        self.comm = comm
        self.lattices, self.cost = lattices, cost
        self.lattices_done, self.cost_done = 0, 0.0
        self.lattices_before, self.cost_before = 0, 0.0
        self.begin = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.requests = []

    def before(self, lattices: int, cost: float) -> None:
        """Say that so much was finished before this job began; the rate and the time left do not count it."""
        self.lattices_before, self.cost_before = lattices, cost

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

    def show(self, end: bool = False) -> None:
        """Print lattices done, rate and time left on stderr."""
        self.shown = time.monotonic()
        elapsed = self.shown - self.begin
        here = min(self.cost_done / max(self.cost - self.cost_before, 1e-9), 1.0)
        left = "" if end or here < 0.002 else f", {duration(elapsed * (1 / here - 1))} left"
        share = min((self.cost_before + self.cost_done) / self.cost, 1.0) if self.cost else 1.0
        line = (
            f"simulate: {self.lattices_before + self.lattices_done}/{self.lattices} lattices, {100 * share:.0f} %, "
            f"{self.lattices_done / max(elapsed, 1e-9):.1f} lattices/s, {duration(elapsed)}{left}"
        )
        if self.terminal:
            print(f"\r\033[K{line}", end="\n" if end else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _count(self, lattices: int, cost: float) -> None:
        self.lattices_done += lattices
        self.cost_done += cost


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
