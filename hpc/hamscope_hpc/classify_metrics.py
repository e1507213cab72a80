"""How far a classification is: a line on stderr, and the metrics that Ray exports to Prometheus.

    hamscope_classify_frames, _frames_done      gauges: frames asked for; finished, those of earlier starts too
    hamscope_classify_quarantined               gauge: frames that were given up
    hamscope_classify_queue                     gauge: bands of windows that no actor has finished yet
    hamscope_classify_windows                   counter: windows classified by this start; its rate is windows/s
    hamscope_classify_stage_seconds             counter of every actor, by `stage`: read, threshold, network,
                                                distances, write

All have the label `run`, the name of the results file without its ending.  Ray puts `ray_` before the names, and
`_total` behind those of counters.  docs/grafana-hamscope.json draws them.
"""

import sys
import time
from pathlib import Path

from ray.util.metrics import Counter, Gauge

from hamscope_hpc.progress import WRITE_EVERY, counted, duration, speed, write_progress

STAGE_SECONDS = "hamscope_classify_stage_seconds"
_WINDOWS = "hamscope_classify_windows"
_GAUGES = {
    "frames": "Frames asked for",
    "frames_done": "Frames whose part is on the disk",
    "quarantined": "Frames that were given up",
    "queue": "Bands of windows that are not finished",
}


class Progress:
    """Counts what is done, shows it on stderr (rewritten on a terminal, else a line a minute) and to Ray.

    Parameters
    ----------
    run : str
        The label of the metrics.
    frames, done, quarantined : int
        Frames asked for; of them, those that earlier starts finished, or gave up.
    bands, windows : int
        What is left to do.
    path : Path, optional
        The file that says the same to `hamscope status`.
    """

    def __init__(
        self, run: str, frames: int, done: int, quarantined: int, bands: int, windows: int, path: Path | None = None
    ):
        self.path, self.written = path, -WRITE_EVERY
        self.bands, self.windows, self.windows_done = bands, windows, 0
        self.frames, self.frames_done, self.quarantined = frames, done, quarantined
        self.gauges = {
            name: Gauge(f"hamscope_classify_{name}", text, tag_keys=("run",)) for name, text in _GAUGES.items()
        }
        self.counter = Counter(_WINDOWS, "Windows classified by this start", tag_keys=("run",))
        for metric in (*self.gauges.values(), self.counter):
            metric.set_default_tags({"run": run})
        self.begin = self.shown = time.monotonic()
        self._export()
        self._write()

    def band(self, windows: int, quarantined: bool) -> None:
        """Say that a band is finished, or given up."""
        self.bands -= 1
        self.windows_done += windows
        if not quarantined:
            self.counter.inc(windows)
        self._show_in_time()

    def frame(self, quarantined: bool) -> None:
        """Say that a frame is finished, or given up."""
        self.frames_done += not quarantined
        self.quarantined += quarantined

    def _show_in_time(self) -> None:
        self._export()
        self._write()
        if time.monotonic() - self.shown > (0.5 if sys.stderr.isatty() else 60.0):
            self.show()

    def _export(self) -> None:
        values = {"frames": self.frames, "frames_done": self.frames_done, "quarantined": self.quarantined,
                  "queue": self.bands}  # fmt: skip
        for name, gauge in self.gauges.items():
            gauge.set(values[name])

    def _write(self) -> None:
        """Leave word for `hamscope status`, every few seconds."""
        if self.path is None or time.monotonic() - self.written < WRITE_EVERY:
            return
        self.written = time.monotonic()
        rate = self.windows_done / max(self.written - self.begin, 1e-9)
        bad = f" ({self.quarantined} quarantined)" if self.quarantined else ""
        finished = self.frames_done + self.quarantined
        left = (self.windows - self.windows_done) / rate if rate else None
        done = f"{self.frames_done}/{counted(self.frames, 'frame')}{bad}"
        words = speed(self.windows_done, self.written - self.begin, "windows")
        write_progress(self.path, done, finished / self.frames, words, left)

    def show(self, end: bool = False) -> None:
        """Print one line."""
        self.shown = time.monotonic()
        spent = self.shown - self.begin
        rate = self.windows_done / max(spent, 1e-9)
        words = [
            f"{self.frames_done}/{counted(self.frames, 'frame')}",
            f"{self.quarantined} quarantined" if self.quarantined else "",
            f"{self.windows_done:,}/{counted(self.windows, 'window')}",
            speed(self.windows_done, spent, "windows"),
            duration(spent),
            "" if end or not rate else f"{duration((self.windows - self.windows_done) / rate)} left",
        ]
        line = ", ".join(filter(None, words))
        if sys.stderr.isatty():
            print(f"\r\033[Kclassify: {line}", end="\n" if end else "", file=sys.stderr, flush=True)
        else:
            say(line)


def say(message: str) -> None:
    """One line on stderr."""
    print(f"classify: {message}", file=sys.stderr, flush=True)
