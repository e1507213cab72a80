"""Seconds by stage: they add up, and those within others count once."""

import threading

import pytest

from hamscope import stages
from hamscope.stages import stage, taken


def test_the_stages_add_up_to_the_whole(monkeypatch):
    """A clock that ticks by hand: 1 s outside, 2 s within, 4 s of a decorated function within that.

    Seen to fail (7 s outside) with the inner stages not taken away from the outer.
    """
    now = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])

    @stage("deep")
    def deep():
        now[0] += 4

    taken()
    for _ in range(2):
        with stage("outer"):
            now[0] += 1
            with pytest.raises(ValueError), stage("inner"):
                now[0] += 2
                deep()
                raise ValueError
    assert taken() == {"outer": 2, "inner": 4, "deep": 8}
    assert taken() == {}


def test_threads_do_not_mix():
    taken()

    def other():
        with stage("theirs"):
            pass

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert taken() == {}
