"""How far the work in a folder is, from its files alone: what a login node can see, without MPI, Ray or SLURM.

    OUT/slices.h5.work/progress*.json   simulate: share, rate, seconds left, written every few seconds
    OUT/bundle.train/progress.json      train: epoch, share of it; log.jsonl, a line an epoch
    OUT/results.h5.parts/progress.json  classify: as simulate
    OUT/jobs.jsonl                      what the job scripts say of their jobs, an event a line (slurm/common.sh)

An output without its work folder beside it is whole: work folders go when the output has its name.  A stage is running
where its work folder was written to of late, unless its progress says that it was stopped or its jobs have ended since.
Where squeue is on the path, it is asked for the state of the jobs; it is not needed.
"""

import calendar
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from hamscope.errors import UserError
from hamscope_hpc.progress import PROGRESS, counted, duration

STAGES = ("simulate", "train", "classify", "report")
RUN, JOBS = "run.json", "jobs.jsonl"
SILENT = 120  # seconds without a word after which a stage is not called running
_ENDS = {0: "done", 3: "done but for quarantined frames", 75: "stopped; submitted again, it goes on"}  # by status
_SKEW = 5  # seconds by which the clocks of a job's host and of the file server may differ
_LAST_LINES = 8
_TAIL = 2**14  # bytes of a log that are read for its last lines
LOG = "log.jsonl"  # of a training; train_log.py, which needs Ray, writes it


class Stage(NamedTuple):
    """One stage: its output, `state` ("done", "running", "unfinished", "starting", "waiting"); details in words."""

    stage: str
    output: str
    state: str
    details: tuple[str, ...] = ()


class Job(NamedTuple):
    """One SLURM job by its last event, at the Unix time `when`; `queue` is what squeue says of it, "" if nothing."""

    job: str
    stage: str
    event: str
    status: int | None
    starts: int
    log: str
    queue: str = ""
    when: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it ended with a status that is neither whole, nor quarantined frames, nor a resumable stop."""
        return self.event == "ended" and self.status not in _ENDS

    @property
    def words(self) -> str:
        """The event, and the status where there is one, in words."""
        if self.event != "ended":
            return self.event
        return _ENDS.get(self.status, f"failed with status {self.status}")


def read_status(folder: str | Path, queue: dict[str, str] | None = None) -> tuple[list[Stage], list[Job]]:
    """The stages and jobs of a folder, in the order of the work and of the jobs' first events.

    Parameters
    ----------
    queue : dict, optional
        States of jobs by their number, as squeue gives them.

    Raises
    ------
    UserError
        There is no such folder, or nothing of hamscope in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; give the --out of `hamscope run` or of slurm/pipeline.sh")
    now = time.time()
    jobs = _jobs(folder / JOBS, queue or {})
    found = [*_outputs(folder), *_unfinished(folder, now, jobs)]
    goes_all_the_way = (folder / RUN).exists()
    if not (found or jobs or goes_all_the_way):
        raise UserError(f"{folder}: holds nothing of hamscope; give the --out of `hamscope run` or slurm/pipeline.sh")
    pending = {(one.stage, one.output) for one in found if one.state != "done"}
    found = [one for one in found if one.state != "done" or (one.stage, one.output) not in pending]
    seen = {one.stage for one in found}
    coming = {job.stage for job in jobs} - seen
    if goes_all_the_way:
        coming |= {*STAGES} - seen
    for stage in coming & {*STAGES}:
        begun = _begun(stage, jobs, now)
        found.append(Stage(stage, "", "starting" if begun else "waiting", begun))
    return sorted(found, key=lambda one: (STAGES.index(one.stage), one.output)), jobs


def squeue() -> dict[str, str]:
    """The states of this user's jobs by their number, such as "RUNNING on n1"; none where there is no SLURM."""
    program = shutil.which("squeue")
    if program is None:
        return {}
    try:
        done = subprocess.run(
            [program, "--me", "-h", "-a", "-o", "%i|%T|%R"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = [line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
    return {number: f"{state} {'on ' if state == 'RUNNING' else ''}{where}".strip() for number, state, where in rows}


def lines(stages: list[Stage], jobs: list[Job]) -> list[str]:
    """The status for a person: a line a stage and a job, then the last lines of what failed."""
    text = []
    for one in stages:
        details = "; ".join(one.details)
        text.append(f"{one.stage:<9} {one.output or '-':<14} {one.state}{': ' if details else ''}{details}")
    if jobs:
        text += ["", "jobs"]
    for job in jobs:
        again = f", start {job.starts}" if job.starts > 1 else ""
        queue = f"; in the queue: {job.queue}" if job.queue else ""
        text.append(f"{job.job:<9} {job.stage:<14} {job.words}{again}{queue}")
    for job in jobs:
        if job.failed:
            text += ["", f"job {job.job}, {job.stage}, failed with status {job.status}; the last lines of {job.log}:"]
            text += [f"  {line}" for line in last_lines(Path(job.log))]
    return text


def last_lines(path: Path, count: int = _LAST_LINES) -> list[str]:
    """The last lines of a log that are not empty; why there are none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return [f"(cannot be read: {error.strerror})"]
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:] or ["(the log is empty)"]


def _outputs(folder: Path) -> list[Stage]:
    """What is whole in the folder."""
    import h5py

    stages = {"hamscope-slices": "simulate", "hamscope-results": "classify"}
    found = []
    for path in sorted(folder.glob("*.h5")):
        try:
            with h5py.File(path, "r") as file:
                schema, whole = file.attrs.get("schema"), bool(file.attrs.get("complete", False))
                count = len(file["images" if schema == "hamscope-slices" else "fractions"]) if schema in stages else 0
                bad = len(file["quarantined"]) if "quarantined" in file else 0
        except (OSError, KeyError):
            continue
        if schema in stages and whole:
            words = counted(count, "image" if stages[schema] == "simulate" else "frame")
            words += f", {bad} quarantined" if bad else ""
            found.append(Stage(stages[schema], path.name, "done", (words, _written(path))))
    for path in sorted(folder.glob("*/bundle.json")):
        found.append(Stage("train", path.parent.name, "done", (_written(path),)))
    for path in sorted(folder.glob("*/index.html")):
        found.append(Stage("report", path.parent.name, "done", (_written(path),)))
    return found


def _unfinished(folder: Path, now: float, jobs: list[Job]) -> list[Stage]:
    """What has a work folder, with progress and last checkpoint."""
    found = []
    for stage, ending, stored in (
        ("simulate", ".work", "[!p]*.[0-9]*.json"),
        ("train", ".train", "state.pt"),
        ("classify", ".parts", "*.npz"),
    ):
        for work in sorted(folder.glob(f"*{ending}")):
            if not work.is_dir():
                continue
            output = work.name.removesuffix(ending)
            if stage == "classify" and (folder / output).exists():
                continue  # kept for the frames that are quarantined
            written = {path: path.stat().st_mtime for path in work.iterdir() if path.is_file()}
            last = max(written.values(), default=0)
            words = sorted(path for path in written if path.match("progress*.json"))
            words = [path for path in words if now - written[path] < SILENT] or words  # not of parts that are done
            stops = {path: _read(path).get("stopped") for path in words}
            stopped = all(stops.values()) and max(words, key=written.get, default=None)
            running = now - last < SILENT and not stopped and last > _all_ended(stage, jobs) + _SKEW
            if not stopped:
                words = [path for path in words if not stops[path]]
            details = _training(work) if stage == "train" else [_words(path) for path in words]
            saved = [when for path, when in written.items() if path.match(stored)]
            if saved:
                details.append(f"last checkpoint {_ago(now, max(saved))}")
            if stopped:
                details.append(f"stopped {_ago(now, written[stopped])} ({stops[stopped]})")
            elif written and not running:
                details.append(f"no word for {duration(max(0, now - last))}")
            if not (running and any(details)):
                details += _begun(stage, jobs, now)
            found.append(Stage(stage, output, "running" if running else "unfinished", tuple(filter(None, details))))
    return found


def _begun(stage: str, jobs: list[Job], now: float) -> tuple[str, ...]:
    """Which jobs of a stage have started, and when: until Ray is there, a job has nothing else to tell."""
    return tuple(
        f"job {job.job} started {_ago(now, job.when)}"
        for job in jobs
        if (job.stage, job.event) == (stage, "started") and job.when
    )


def _ago(now: float, when: float) -> str:
    return f"{duration(max(0, now - when))} ago"


def _all_ended(stage: str, jobs: list[Job]) -> float:
    """When the last job of a stage ended or was requeued; 0 where one may still run, or there is none."""
    own = [job for job in jobs if job.stage == stage and job.event != "submitted"]
    return 0 if any(job.event == "started" for job in own) else max((job.when for job in own), default=0)


def _words(path: Path) -> str:
    """What a progress file says, in words; that of part K of N is called progress.K-of-N.json."""
    progress, part = _read(path), path.name.removeprefix("progress").removesuffix("json").strip(".")
    if "done" not in progress:
        return ""
    words = [progress["done"], f"{100 * progress['share']:.0f} %"]
    if not progress.get("stopped"):
        left = progress["left"]
        words += [progress["rate"], "" if left is None else f"{duration(left)} left"]
    text = ", ".join(filter(None, words))
    return f"part {part}: {text}" if part else text


def _training(work: Path) -> list[str]:
    """Epochs, speed, accuracy and time left of a training."""
    log, now = _json_lines(work / LOG), _read(work / PROGRESS)
    if "epoch" not in now:
        return [f"{counted(len(log), 'epoch')} done"] if log else []
    within = now["share"] if now["epoch"] == len(log) + 1 else 0.0
    each = log[-1]["seconds"] if log else now["seconds"] / max(now["share"], 1e-9)
    details = [f"{len(log)}/{counted(now['epochs'], 'epoch')} done"]
    if not now.get("stopped"):
        if within:
            details[0] += f", {100 * within:.0f} % of the next"
        if log or within:
            details[0] += f", {duration(each * (now['epochs'] - len(log) - within))} left"
    if log:
        details.append(
            f"{log[-1]['images_per_second']:,.0f} images/s, validation accuracy "
            f"{100 * log[-1]['validation_accuracy']:.1f} %"
        )
    return details


def _jobs(path: Path, queue: dict[str, str]) -> list[Job]:
    """The jobs that the scripts told of, each by its last event."""
    jobs: dict[str, Job] = {}
    for line in _json_lines(path):
        try:
            number, event, status = str(line["job"]), line["event"], line.get("status")
            before = jobs.get(number)
            starts = (before.starts if before else 0) + (event == "started")
            log = line.get("log") or (before.log if before else "")
            when = _seconds(line.get("time"))
            jobs[number] = Job(number, line["stage"], event, status, starts, log, queue.get(number, ""), when)
        except (KeyError, TypeError, AttributeError):
            continue
    return list(jobs.values())


def _seconds(text: str | None) -> float:
    """The time of an event since 1970; 0 where there is none."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except (TypeError, ValueError):
        return 0.0


def _json_lines(path: Path) -> list[dict]:
    """The lines of a file that are whole JSON objects: the last one may be half written."""
    found = []
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _written(path: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
