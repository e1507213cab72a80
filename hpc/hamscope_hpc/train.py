"""Ray Train round `hamscope.learn`: slices to a bundle, on one worker or many, on CPUs or GPUs, with the same result.

    slices.h5 --every worker reads it--> epochs --a checkpoint each--> OUT.train/ --logits, figures--> OUT

What is under way lives in OUT.train/ beside the bundle: inputs.json says what it belongs to, the workers leave there
what `hamscope_hpc.train_worker` lists, and ray/ is Ray Train's own.
"""

import json
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import ray
import ray.train
from ray.train.torch import TorchTrainer

from hamscope import figures
from hamscope.config import Config, Instrument, Train
from hamscope.data.slices import Slices, read_slices
from hamscope.errors import Stopped, UserError
from hamscope.learn import resolution, training, trust
from hamscope.learn.bundle import is_made, write_bundle
from hamscope.models import CLASS_NAMES
from hamscope.provenance import check_writable, section_hash, software_versions, whole_file
from hamscope_hpc.cluster import start_ray
from hamscope_hpc.progress import PROGRESS, counted, duration, mark_stopped
from hamscope_hpc.train_log import LOG, copy_board, read_log
from hamscope_hpc.train_worker import Job, gather_outputs, load_state, train_worker

CLOUD_POINTS = 8000  # of each class: enough for the nearest-neighbour search, and 1.5 MB a bundle
MAX_FAILURES = 2  # times that lost workers are replaced
INPUTS = "inputs.json"
# Threads that spin while they wait make training many times slower where others use the cores as well.  Ray Train runs
# the steps in a thread that is not the first; glibc gives memory of its own to such a one, and returns it to the system
# so often that page faults cost 10 to 30 % of the CPU time.
WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "MALLOC_ARENA_MAX": "1"}
PREPROCESSING = "two levels, 1 = up = metal; hamscope.data.symmetry.prepare(windows, network.symmetry); spins +-1"


def train(
    config: Config,
    slices_path: str | Path,
    out: str | Path,
    workers: int = 1,
    use_gpu: bool | None = None,
    replace=False,
) -> Path:
    """Train the config's network on a slices file and write the bundle `out`; return its path.

    Parameters
    ----------
    workers : int
        Ray Train workers; they share the machine's (or the cluster's) cores, or take a GPU each.
    use_gpu : bool, optional
        By default GPUs where Ray has any.
    replace : bool
        Replace a bundle that was made from another config or other slices.

    Raises
    ------
    UserError
        No [train] section, slices that cannot be trained on, more workers than Ray has room for, or an `out` that is
        something else.
    Stopped
        On Ctrl-C or SIGTERM.  The same call goes on from the last finished epoch.
    """
    out = Path(out).absolute()
    check_writable(out)
    if config.train is None:
        raise UserError(f"config {config.name!r}: has no [train] section; add one")
    slices = read_slices(slices_path)
    inputs = section_hash(config.train, slices.content_sha256)
    if is_made(out, inputs, replace):
        _say(f"{out} is of this config and these slices, nothing to do")
        return out
    split = _checked_split(config.train, slices, slices_path)
    storage = out.with_name(f"{out.name}.train")
    epoch = _claim(storage, inputs)
    if epoch:
        _say(f"goes on after epoch {epoch} of {config.train.epochs}")
    wanted = _wanted(slices.columns["model"], *split)
    with start_ray():
        workers, use_gpu, cores = _resources(workers, use_gpu)
        job = Job(
            section=config.train, slices=str(Path(slices_path).absolute()), storage=str(storage),
            wanted=np.concatenate(wanted), threads=cores,
        )  # fmt: skip
        _fit(job, workers, use_gpu)
    card = _publish(out, storage, config.train, slices, wanted, {"inputs_sha256": inputs}, workers)
    shutil.rmtree(storage)
    _say(f"{out}: validation accuracy {100 * card['metrics']['accuracy']:.2f} %; {_typical(read_log(out / LOG))}")
    return out


def _checked_split(section: Train, slices: Slices, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation images; UserError where one cannot train on them."""
    present = np.unique(slices.columns["model"])
    if len(present) < 2:
        raise UserError(f"{path}: holds {CLASS_NAMES[present[0]]} only; simulate two classes or more to tell apart")
    training.make_network(section, slices.images.shape[1])  # raises where the images are too small for it
    return training.split(slices.columns, section.validation_fraction, section.seed)


def _claim(storage: Path, inputs: str) -> int:
    """Make `storage` that of these inputs, empty if it was of others; return the epochs that are done in it."""
    mark = storage / INPUTS
    if storage.exists():
        owner = json.loads(mark.read_text()).get("inputs_sha256") if mark.exists() else None
        if owner is None and any(storage.iterdir()):
            raise UserError(f"{storage}: is there already and was not made by `hamscope train`; move it away")
        if owner == inputs:
            (storage / PROGRESS).unlink(missing_ok=True)
            state = load_state(storage)
            return len(state["log"]) if state else 0
        if owner is not None:
            _say(f"{storage} is of another config or other slices: discarded")
        shutil.rmtree(storage)
    storage.mkdir()
    with whole_file(mark) as temporary:
        temporary.write_text(json.dumps({"inputs_sha256": inputs}) + "\n")
    return 0


def _wanted(labels: np.ndarray, fit: np.ndarray, validation: np.ndarray) -> list[np.ndarray]:
    """Images whose logits the bundle needs: all of validation, then the points of the cloud of each class."""
    wanted = [validation]
    for k in range(len(CLASS_NAMES)):
        own = fit[labels[fit] == k]
        taken = min(len(own), CLOUD_POINTS)
        wanted.append(own[np.arange(taken) * len(own) // max(taken, 1)])
    return wanted


def _resources(workers: int, use_gpu: bool | None) -> tuple[int, bool, int]:
    """Workers, whether each has a GPU, and the cores of each; UserError where Ray has no room for them."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    use_gpu = gpus > 0 if use_gpu is None else use_gpu
    if use_gpu and workers > gpus:
        raise UserError(f"--workers {workers}: Ray has {gpus} GPUs; take at most {gpus} workers, or add --cpu")
    cores = [int(node.get("CPU", 0)) for node in nodes]
    # A worker lives on one node, so what fits is counted node by node.
    for each in range(sum(cores) // workers, 0, -1):
        if sum(n // each for n in cores) >= workers:
            return workers, use_gpu, each
    raise UserError(f"--workers {workers}: Ray has {sum(cores)} CPUs; take at most {sum(cores)} workers")


def _fit(job: Job, workers: int, use_gpu: bool) -> None:
    """Run the workers to the end."""
    storage, cores = Path(job["storage"]), job["threads"]
    _say(f"{counted(workers, 'worker')} with {'a GPU' if use_gpu else counted(cores, 'core')} each")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=dict(job),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cores} | ({"GPU": 1} if use_gpu else {})
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        ),
    )
    try:
        with _as_interrupts(), Follower(storage, job["section"].epochs):
            trainer.fit()
    except (KeyboardInterrupt, SystemExit):  # Ray ends the process on Ctrl-C, once its workers are gone
        state = load_state(storage)
        epoch = len(state["log"]) + 1 if state else 1
        mark_stopped(storage / PROGRESS, "a signal")
        raise Stopped(f"train: stopped; the same command goes on from epoch {epoch}") from None
    except ray.train.WorkerGroupError as error:
        rank, cause = min(error.worker_failures.items())
        raise RuntimeError(f"train: worker {rank} failed {MAX_FAILURES + 1} times: {cause}") from cause


@contextmanager
def _as_interrupts():
    """SIGTERM and SIGUSR1 count as Ctrl-C, at which Ray Train ends its workers; afterwards all is as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers[:2]:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Follower:
    """Shows within the block, on stderr, what the workers leave in `storage`: a line an epoch.

    Within an epoch a line is rewritten on a terminal; elsewhere one a minute is printed.
    """

    def __init__(self, storage: Path, epochs: int):
        self.storage, self.epochs = storage, epochs
        self.shown = len(read_log(storage / LOG))
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        self._show_epochs()

    def _follow(self) -> None:
        while not self.end.wait(0.5):
            self._show_epochs()
            if time.monotonic() - self.last > (0.5 if self.terminal else 60.0):
                self._show_share()

    def _show_epochs(self) -> None:
        for line in read_log(self.storage / LOG)[self.shown :]:
            self.shown = line["epoch"]
            self._print(
                f"epoch {self.shown}/{self.epochs}: loss {line['train_loss']:.4f}, accuracy "
                f"{100 * line['train_accuracy']:.2f} %; validation {line['validation_loss']:.4f}, "
                f"{100 * line['validation_accuracy']:.2f} %; {speed(line)}, {duration(line['seconds'])}"
            )

    def _show_share(self) -> None:
        """Where the epoch is and how long all of them will take; nothing before the first word of it."""
        path = self.storage / PROGRESS
        now = json.loads(path.read_text()) if path.exists() else {"epoch": 0}
        if now["epoch"] != self.shown + 1:
            return
        left = now["seconds"] / now["share"] * (self.epochs - self.shown - now["share"])
        text = f"epoch {now['epoch']}/{self.epochs}: {100 * now['share']:.0f} %, {duration(left)} left"
        self._print(text, end="" if self.terminal else "\n")

    def _print(self, text: str, end: str = "\n") -> None:
        self.last = time.monotonic()
        print(f"{chr(13) + chr(27) + '[K' if self.terminal else ''}train: {text}", end=end, file=sys.stderr, flush=True)


def speed(line: dict) -> str:
    """What a line of the log says of the speed, in words."""
    return (
        f"{line['images_per_second']:.0f} images/s, {100 * line['flops_share']:.0f} % of the matrix limit, "
        f"waited {line['waited'] * line['seconds']:.1f} s ({100 * line['waited']:.1f} %) for images"
    )


def _typical(log: list[dict]) -> str:
    """Medians over the epochs, in words."""
    names = ("images_per_second", "seconds", "flops_share", "waited", "flops_limit")
    median = {name: float(np.median([line[name] for line in log])) for name in names}
    return f"an epoch: {speed(median)}; the limit is {median['flops_limit'] / 1e9:.0f} GFLOP/s"


def _publish(
    out: Path, storage: Path, section: Train, slices: Slices, wanted: list[np.ndarray], card: dict, workers: int
) -> dict:
    """Write the bundle from what the workers left; return its card."""
    network = training.make_network(section, slices.images.shape[1])
    network.load_state_dict(load_state(storage)["network"])
    found = gather_outputs(storage, workers)
    log = read_log(storage / LOG)
    numbers, bounds = np.concatenate(wanted), np.cumsum([len(part) for part in wanted])[:-1]
    _, *clouds = np.split(found["logits"], bounds)
    columns = {name: slices.columns[name][numbers] for name in ("model", "parameter", "lattice")}
    known = trust.Images(columns["model"].astype(np.int64), columns["parameter"], found["flipped"], columns["lattice"])
    statistics, measured = trust.measure(found["logits"], found["hidden"], known, bounds[0])
    metrics = measured.pop("metrics") | {"loss": log[-1]["validation_loss"]}
    card |= measured | {
        "metrics": metrics, "resolution": resolution.summary(found["confusions"]),
        "window": slices.images.shape[1], "instrument": instrument_card(section.instrument),
        "preprocessing": PREPROCESSING, "training": section.model_dump(mode="json"),
        "config_sha256": section_hash(section), "slices_sha256": slices.content_sha256,
        "software": software_versions("numpy", "torch", "ray"), "licence": "MIT",
    }  # fmt: skip
    statistics["resolution"] = found["confusions"].astype(np.int32)

    def pictures_and_log(folder: Path) -> None:
        figures.learning_curve(log, folder / "learning_curve.png")
        figures.confusion_matrix(np.array(metrics["confusion"]), folder / "confusion.png")
        points = np.full((len(clouds), max(map(len, clouds)), len(clouds)), np.nan)
        for k, cloud in enumerate(clouds):
            points[k, : len(cloud)] = cloud
        figures.clouds(points, folder / "clouds.png")
        shutil.copyfile(storage / LOG, folder / LOG)
        copy_board(storage, folder)

    write_bundle(out, network, clouds, statistics, card, pictures_and_log)
    return card


def instrument_card(instrument: Instrument | None) -> dict:
    """What the bundle says of the microscopes of its training images."""
    if instrument is None:
        return {"summary": "none: sharp simulated images", "psf_px": [0.0, 0.0], "noise": [0.0, 0.0]}
    low, high = instrument.psf_px
    text = (
        f"point-spread function of {low:g} to {high:g} px (Gaussian and Airy), noise up to {instrument.noise[1]:g} of "
        "the contrast, thresholds fixed, median and Otsu"
    )
    return {"summary": text} | instrument.model_dump(mode="json")


def _say(message: str) -> None:
    print(f"train: {message}", file=sys.stderr, flush=True)
