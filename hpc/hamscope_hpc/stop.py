"""A signal to one rank, or a failure on one, becomes a stop of all of them, between two bites of work."""

import functools
import signal
from typing import NamedTuple

from mpi4py import MPI

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Reason(NamedTuple):
    """Why the ranks stop: `text` for a person; `failed` where nothing more can be saved."""

    text: str
    failed: bool = False


class Stop:
    """Listens for SIGTERM, SIGUSR1 and SIGINT while the `with` block runs; collective over `comm`.

    A scheduler may signal every rank or only one, so whoever hears of a stop tells all others.
    """

    def __init__(self, comm: MPI.Comm):
        self.comm = comm.Dup()
        self.reason: Reason | None = None
        self.heard: int | None = None
        self.requests = []
        self.before = {}

    def __enter__(self):
        for number in SIGNALS:
            self.before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _hear(self, number, _frame) -> None:
        self.heard = number

    def poll(self) -> Reason | None:
        """The reason to stop, if any rank has one that got here."""
        if self.heard is not None and self.reason is None:
            self.announce(Reason(signal.Signals(self.heard).name))
        while self.comm.iprobe():
            self.reason = worst(self.reason, self.comm.recv())
        return self.reason

    def announce(self, reason: Reason) -> None:
        """Stop here, and tell the other ranks; a failure counts also where a stop that can be gone on from is known."""
        if worst(self.reason, reason) is self.reason:
            return
        self.reason = reason
        self.requests += [self.comm.isend(reason, rank) for rank in range(self.comm.size) if rank != self.comm.rank]

    def agree(self) -> Reason | None:
        """One reason for all ranks, or None on all of them; collective, at the end of the work."""
        self.comm.Barrier()
        self.poll()
        for request in self.requests:
            request.wait()
        return functools.reduce(worst, self.comm.allgather(self.reason), None)


def worst(known: Reason | None, other: Reason | None) -> Reason | None:
    """The reason that counts of two: a failure before a signal, else the one that was known first."""
    return other if known is None or (other is not None and other.failed and not known.failed) else known
