"""Where the time of a computation goes: seconds by named stage, added up within a thread.

    with stage("network"):
        ...                             or @stage("distances") before a function

A stage within another takes its time away from the outer one, so the seconds of all stages add up to the whole.
"""

import threading
import time
from collections import defaultdict
from contextlib import contextmanager


class _Clock(threading.local):
    def __init__(self):
        self.seconds = defaultdict(float)
        self.inner = []  # seconds of the stages within each stage that is open


_clock = _Clock()


@contextmanager
def stage(name: str):
    """Count the time of the block as of the stage `name`."""
    begin = time.perf_counter()
    _clock.inner.append(0.0)
    try:
        yield
    finally:
        elapsed = time.perf_counter() - begin
        _clock.seconds[name] += elapsed - _clock.inner.pop()
        if _clock.inner:
            _clock.inner[-1] += elapsed


def taken() -> dict[str, float]:
    """Seconds by stage since the last call, of this thread."""
    seconds, _clock.seconds = dict(_clock.seconds), defaultdict(float)
    return seconds
