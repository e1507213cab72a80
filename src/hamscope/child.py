"""A file from elsewhere is looked at in a child process with limits, so that whatever it does, the parent lives.

    parent ---paths, JSON lines---> worker ---fork, a child a file---> reads the file, within its limits
           <--outcomes, JSON lines-        <--findings, or its death--

The worker imports what the check needs once and never opens a file itself; a fork costs milliseconds.  The child has
limits of memory, CPU and wall time, no core dump, and can make no file larger.  Parent and worker do not import HDF5
before that, and read back no more than `MAX_ANSWER` bytes a file.  This bounds accidents and bombs; it is no sandbox
against code that has taken over the child.
"""

import contextlib
import faulthandler
import json
import math
import os
import resource
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

MAX_ANSWER = 2**16  # bytes that a child may say of a file
MAX_LINES, MAX_LINE = 20, 400  # of them, what is passed on
MEMORY = 2**29  # bytes above what the child has when it starts
SECONDS, BYTES_A_SECOND = 60, 2**20  # CPU time of a child: so many seconds, and one more for so many bytes
_WAIT = 3  # wall time over CPU time: a file system may be slow
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
_EXPIRED = {signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU}


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    `verdict` is "good", "bad" (it is not what it should be, or cannot be read within the limits) or "unknown" (the
    check itself failed).  `lines` say why; `end` is "done", "crash", "time", "memory" or "failure".  `peak` is the
    largest resident memory of the child in bytes.
    """

    path: str
    verdict: str
    lines: tuple[str, ...]
    end: str = "done"
    peak: int = 0


def check(paths: list[str | Path], seconds: float | None = None, memory: int = MEMORY) -> list[Outcome]:
    """Check files and bundles, each in a child of its own, and say what came of each, in the order given.

    `seconds` of CPU time and bytes of `memory` are the limits of a child; by default the time grows with the size.
    """
    requests = [(os.fspath(path), seconds or _seconds(path), memory) for path in paths]
    # -P: a module in the current folder, which may be that of the files, is not to be imported.
    command = [sys.executable, "-P", "-m", "hamscope.child"]
    settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    text = "".join(json.dumps(request) + "\n" for request in requests)
    limit = 60 + (_WAIT + 1) * sum(request[1] for request in requests)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | settings, start_new_session=True,
    ) as worker:  # fmt: skip
        try:
            said, complaint = worker.communicate(text, timeout=limit)
        except subprocess.TimeoutExpired:
            said, complaint = "", f"no answer within {limit:.0f} s"
        finally:
            # The child too, which outlives the worker when that is stopped.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
    answers = [json.loads(line) for line in said.splitlines()]
    outcomes = [Outcome(**(answer | {"lines": tuple(answer["lines"])})) for answer in answers]
    lost = f"was not checked: {' '.join(complaint.split())[-MAX_LINE:] or 'the checking process ended early'}"
    return outcomes + [Outcome(path, "unknown", (lost,), "failure") for path, *_ in requests[len(outcomes) :]]


def _seconds(path: str | Path) -> float:
    """CPU time for a file by the bytes that it takes on the disk: a sparse one declares any size."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return SECONDS
    return SECONDS + min(status.st_size, status.st_blocks * 512) / BYTES_A_SECOND


def main() -> None:
    """The worker: a request a line on standard input, an outcome a line on standard output."""
    import hamscope.check  # noqa: F401  (once, before the forks)

    for line in sys.stdin:
        path, seconds, memory = json.loads(line)
        print(json.dumps(asdict(_outcome(path, seconds, memory))), flush=True)


def _outcome(path: str, seconds: float, memory: int) -> Outcome:
    """Fork, wait, and say what came of it."""
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(receive)
        _child(path, seconds, memory, send)
    os.close(send)
    with open(receive, "rb") as pipe:
        answer = pipe.read(MAX_ANSWER)
    _, status, usage = os.wait4(process, 0)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if os.WIFSIGNALED(status):
        return _death(path, os.WTERMSIG(status), seconds, peak)
    try:
        verdict, lines, end = json.loads(answer)
    except ValueError:
        return Outcome(path, "unknown", ("was not checked: the child gave no answer",), "failure", peak)
    lines = [clean(line) for line in lines]
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"{clean(path)}: and more"]
    return Outcome(path, verdict, tuple(lines), end, peak)


def _death(path: str, number: int, seconds: float, peak: int) -> Outcome:
    """The outcome of a child that a signal ended."""
    name, shown = signal.Signals(number).name, clean(path)
    if number in _EXPIRED:
        line = f"{shown}: could not be read within {seconds:.0f} s of CPU time or {_WAIT * seconds:.0f} s in all; "
        return Outcome(path, "bad", (line + "damaged, hostile, or on a very slow disk",), "time", peak)
    if number in _CRASHES:
        line = f"{shown}: crashed the library that reads it ({name}); damaged or hostile, do not open it"
        return Outcome(path, "bad", (line,), "crash", peak)
    return Outcome(path, "unknown", (f"{shown}: was not checked, its child was ended by {name}",), "failure", peak)


def _child(path: str, seconds: float, memory: int, send: int) -> None:
    """Check one file within the limits, write the findings to `send`, and end."""
    answer = ["unknown", [f"{path}: was not checked"], "failure"]
    try:
        faulthandler.disable()  # where it is on, it would write the crash of a bad file on the parent's terminal
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        from hamscope.check import check_path, prepare

        _limit_time(seconds)
        _limit_memory(memory + prepare(path))
        verdict, lines, end = check_path(path)
        answer = [verdict, [line[:MAX_LINE] for line in lines[: MAX_LINES + 1]], end]
    except MemoryError:
        answer = ["bad", [f"{path}: asks for more than {memory >> 20} MB of memory; damaged or hostile"], "memory"]
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        answer = ["unknown", [f"{path}: was not checked, the check failed ({where}: {error!r})"], "failure"]
    finally:
        try:
            os.write(send, json.dumps(answer).encode()[:MAX_ANSWER])
        finally:
            os._exit(0)


def _limit_time(seconds: float) -> None:
    """CPU and wall time of this process; each ends it by a signal that no C code can delay."""
    for number in _EXPIRED:
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _WAIT * seconds)
    whole = math.ceil(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole))


def _limit_memory(memory: int) -> None:
    """At most `memory` bytes of address space more than now; no core dump, no file made larger."""
    try:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux
        now = 2**30
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def clean(text: str) -> str:
    """Foreign text for a terminal: one line, nothing but printable characters, not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return shown if len(shown) <= MAX_LINE else shown[: MAX_LINE - 3] + "..."


if __name__ == "__main__":
    main()
