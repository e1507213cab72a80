"""`train` on a real Ray: the same network from any number of workers, after a lost worker, and after a stop.

The slices are small patterns that a network tells apart within a few epochs; no physics.  Two networks are trained: the
paper's on sharp images, and the invariant one on images seen through an instrument.
"""

import io
import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import ray
from bundles import blobs
from safetensors.numpy import load_file
from synthetic_slices import write_plain
from tensorboardX.proto.event_pb2 import Event

from hamscope.config import Config, parse_config
from hamscope.data import slices
from hamscope.data.symmetry import reduce
from hamscope.errors import Stopped, UserError
from hamscope.learn.bundle import read_bundle
from hamscope.learn.network import outputs
from hamscope.learn.training import Source, split
from hamscope.models import CLASS_NAMES
from hamscope_hpc import train as program
from hamscope_hpc.status import read_status
from hamscope_hpc.train import train
from hamscope_hpc.train_log import GAUGES

WINDOW, EPOCHS, A_LATTICE = 16, 5, 4
PATTERNS = {  # class -> images of one lattice
    "C-2D": lambda seed: blobs((A_LATTICE, WINDOW, WINDOW), seed, 2.5),
    "RF-2D": lambda seed: blobs((A_LATTICE, WINDOW, WINDOW), seed, 0.7),
    "P-2D": lambda seed: noise(seed, 0.59),
    "P*": lambda seed: noise(seed, 0.1),
}

pytestmark = pytest.mark.usefixtures("local_ray")


def noise(seed: int, density: float) -> np.ndarray:
    return (np.random.default_rng(seed).random((A_LATTICE, WINDOW, WINDOW)) < density).astype(np.uint8)


def make_slices(path: Path, classes=tuple(PATTERNS), lattices: int = 32) -> Path:
    """Write a complete slices file."""
    which = [(name, lattice) for name in classes for lattice in range(lattices)]
    images = np.concatenate([PATTERNS[name](lattice) for name, lattice in which])
    model, lattice = np.array([(CLASS_NAMES.index(name), lattice) for name, lattice in which]).T
    columns = {"model": model, "lattice": lattice, "parameter": 0.5 + 0.01 * lattice}
    return write_plain(path, images, **{name: np.repeat(values, A_LATTICE) for name, values in columns.items()})


def make_config(**section) -> Config:
    given = {"seed": 3, "epochs": EPOCHS, "batch_size": 31, "hidden": 32, "filters": [16, 32], "precision": "float32"}
    percolation = {"probability": [0.5, 0.6], "lattices": 2}
    return parse_config(
        {"name": "test", "simulate": {"seed": 1, "image_size": WINDOW, "P-2D": percolation}, "train": given | section}
    )


BLURRED = {
    "network": "invariant", "filters": [8, 16], "hidden": 16, "dropout": 0.1, "instrument": {"psf_px": [0, 1.5]},
}  # fmt: skip


def weights(bundle: Path) -> dict[str, np.ndarray]:
    return load_file(bundle / "weights.safetensors")


def same_bits(one: Path, other: Path) -> bool:
    return (one / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()


def log_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def after_epochs(storage: Path, epochs: int, action) -> threading.Thread:
    """Start a thread that calls action(log) as soon as so many epochs are done."""

    def wait():
        end = time.monotonic() + 120
        while time.monotonic() < end:
            log = log_of(storage / "log.jsonl")
            if len(log) >= epochs:
                return action(log)
            time.sleep(0.01)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.fixture(autouse=True, scope="module")
def impatient():
    """Ray Train asks its workers how they are every two seconds, which is long for epochs of a fraction of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield


def slow_worker(seconds: float):
    """The worker of the program, every epoch of which takes so much longer: time to stop it on the way."""

    def slowly(job):
        import time

        from hamscope.learn import training
        from hamscope_hpc.train_worker import train_worker

        quick = training.evaluate

        def evaluate(*arguments):
            time.sleep(seconds)
            return quick(*arguments)

        training.evaluate = evaluate
        train_worker(job)

    return slowly


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_slices(tmp_path_factory.mktemp("slices") / "slices.h5")


@pytest.fixture(scope="module")
def trained(data, local_ray, impatient, tmp_path_factory):
    """A function (workers, section) to the bundle of a clean run, which is trained when it is first asked for."""
    made = {}

    def bundle(workers: int, **section) -> Path:
        key = workers, "instrument" in section
        if key not in made:
            made[key] = train(make_config(**section), data, tmp_path_factory.mktemp("clean") / "bundle", workers)
        return made[key]

    return bundle


@pytest.fixture(scope="module")
def one_worker(trained) -> Path:
    """The bundle of a clean run on one worker."""
    return trained(1)


@pytest.fixture(scope="module")
def two_workers(trained) -> Path:
    """The bundle of a clean run on two workers."""
    return trained(2)


@pytest.mark.parametrize("section", [{}, BLURRED], ids=["paper", "invariant"])
def test_the_bundle_is_whole_and_says_what_was_measured(section, trained, data):
    """The card's numbers are those of the network in the bundle on the held-out images, as the instrument shows them.

    Seen to fail for the invariant network with its orbits left behind on "meta" when the bundle is read.
    """
    folder = trained(1, **section)
    bundle = read_bundle(folder)
    truth = slices.read_slices(data)
    fit, validation = split(truth.columns, 0.2, 3)
    source = Source(truth.images, make_config(**section).train, bundle.card["network"]["symmetry"])

    def logits(numbers):
        return outputs(bundle.network, *source(numbers, 0)).logits

    answers, labels = logits(validation).argmax(1), truth.columns["model"][validation]
    metrics = bundle.card["metrics"]
    assert metrics["accuracy"] == pytest.approx((answers == labels).mean()) and metrics["accuracy"] > 0.6
    for k, name in enumerate(CLASS_NAMES):
        of_class = labels == k
        assert np.array_equal(metrics["confusion"][k], np.bincount(answers[of_class], minlength=7))
        assert of_class.any() == (name in PATTERNS) == (name in metrics["per_class"])
        own = fit[truth.columns["model"][fit] == k]
        assert np.allclose(bundle.clouds.points[k], logits(own) if len(own) else 0, atol=1e-5)
    sharp = bundle.card["resolution"]["fixed"][0]
    if not section:  # without an instrument both look at the same images
        assert sharp == pytest.approx(metrics["accuracy"], abs=1e-4)
        np.testing.assert_array_equal(source(validation, 0)[0], reduce(truth.images[validation]))
    assert bundle.statistics["resolution"].sum() == bundle.statistics["resolution"].size // 49 * len(validation)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "bundle.json", "weights.safetensors", "clouds.safetensors", "statistics.safetensors", "log.jsonl",
        "learning_curve.png", "confusion.png", "clouds.png", "tensorboard/events.out.tfevents.0000",
    }  # fmt: skip
    assert list(folder.parent.iterdir()) == [folder]  # no storage is left


def test_the_log_has_a_line_an_epoch(one_worker):
    log = log_of(one_worker / "log.jsonl")
    assert [line["epoch"] for line in log] == list(range(1, EPOCHS + 1))
    assert log[-1]["train_loss"] < log[0]["train_loss"] and log[-1]["images_per_second"] > 0
    card = read_bundle(one_worker).card
    assert log[-1]["validation_accuracy"] == pytest.approx(card["metrics"]["accuracy"])
    assert log[-1]["validation_loss"] == card["metrics"]["loss"]


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("section", [{}, BLURRED], ids=["paper", "invariant"])
def test_any_number_of_workers_trains_the_network_of_one(workers, section, trained):
    """Weights agree within rounding after five epochs of 14 batches, all of them odd in size; so do losses.

    9e-8 was measured for both networks, 1e-6 is allowed; three workers on two cores only take longer.
    Seen to fail with shares cut from a permutation of each worker's own, and (the confusion) with the logits of the
    workers put one behind the other instead of back in order.
    """
    bundles = trained(1, **section), trained(workers, **section)
    one, many = map(weights, bundles)
    for name in one:
        assert np.allclose(one[name], many[name], rtol=0, atol=1e-6), name
    for a, b in zip(*(log_of(bundle / "log.jsonl") for bundle in bundles)):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-4)
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], abs=1e-4)
    cards = [read_bundle(bundle).card for bundle in bundles]
    assert cards[0]["metrics"]["confusion"] == cards[1]["metrics"]["confusion"]
    assert cards[0]["resolution"] == cards[1]["resolution"]


def test_a_stopped_run_goes_on_and_equals_the_clean_run(one_worker, data, tmp_path, capfd, monkeypatch):
    """SIGTERM after the first epoch raises Stopped and leaves no bundle; the same call then gives the same bits.

    Seen to fail (other bits) with first weights that are not drawn from the seed.
    """
    out = tmp_path / "bundle"
    storage = tmp_path / "bundle.train"
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    thread = after_epochs(storage, 1, lambda log: os.kill(os.getpid(), signal.SIGTERM))
    with monkeypatch.context() as patch, pytest.raises(Stopped, match=r"goes on from epoch [2-5]"):
        patch.setattr(program, "train_worker", slow_worker(2.0))
        train(make_config(), data, out)
    thread.join()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert not out.exists()
    first = log_of(storage / "log.jsonl")
    assert 1 <= len(first) < EPOCHS
    assert [one.state for one in read_status(tmp_path)[0]] == ["unfinished"]  # not "running" until it was long silent
    train(make_config(), data, out)
    assert f"goes on after epoch {len(first)} of {EPOCHS}" in capfd.readouterr().err
    assert same_bits(out, one_worker)
    log = log_of(out / "log.jsonl")
    assert log[: len(first)] == first and len(log) == EPOCHS


def test_a_lost_worker_is_replaced_and_the_result_is_that_of_the_clean_run(two_workers, data, tmp_path, monkeypatch):
    """One of two workers gets SIGKILL after the second epoch; new ones go on from there to the same bits.

    Seen to fail (other bits) without the optimizer's state in what is restored.
    """
    killed = []

    def kill(log):
        pid = min(worker_pids())
        os.kill(pid, signal.SIGKILL)
        killed.append((pid, log))

    monkeypatch.setattr(program, "train_worker", slow_worker(1.0))
    thread = after_epochs(tmp_path / "bundle.train", 2, kill)
    out = train(make_config(), data, tmp_path / "bundle", workers=2)
    thread.join()
    [(_, before)] = killed
    assert 2 <= len(before) < EPOCHS
    assert same_bits(out, two_workers)
    assert log_of(out / "log.jsonl")[:2] == before[:2]  # with their times: these epochs were not done again


def test_a_worker_killed_within_an_epoch_changes_nothing(trained, data, tmp_path, monkeypatch):
    """SIGKILL of one of two workers halfway through the third epoch: the bits of the clean run all the same.

    Of the invariant network and its instrument, whose images are drawn anew in every epoch.  Seen to fail (other bits)
    with the epoch counted from 1 again after a restart, so that other images and another order came.
    """
    killed, storage = [], tmp_path / "bundle.train"

    def kill():
        end = time.monotonic() + 200
        while time.monotonic() < end and not killed:
            path = storage / "progress.json"
            now = json.loads(path.read_text()) if path.exists() else {"epoch": 0}
            if now["epoch"] == 3 and now["share"] >= 0.3:
                killed.append((now, len(log_of(storage / "log.jsonl"))))
                os.kill(min(worker_pids()), signal.SIGKILL)
            time.sleep(0.01)

    monkeypatch.setattr(program, "train_worker", slow_steps(0.2))
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    out = train(make_config(**BLURRED), data, tmp_path / "bundle", workers=2)
    thread.join()
    [(now, epochs)] = killed
    assert 0.3 <= now["share"] < 0.9 and epochs == 2
    assert same_bits(out, trained(2, **BLURRED))
    assert len(events_of(out)) == 2  # the second start shows its epochs in a file of its own


def slow_steps(seconds: float):
    """The worker of the program, every step of which takes so much longer."""

    def slowly(job):
        import time

        from hamscope.learn import training
        from hamscope_hpc.train_worker import train_worker

        plain = training.image_keys

        def keys(*arguments):
            time.sleep(seconds)
            return plain(*arguments)

        training.image_keys = keys
        train_worker(job)

    return slowly


def events_of(bundle: Path) -> list[list]:
    """The events of every TensorBoard file: records of length (8 bytes), checksum (4), event, checksum (4)."""
    files = []
    for path in sorted((bundle / "tensorboard").iterdir()):
        raw, place, events = path.read_bytes(), 0, []
        while place < len(raw):
            length = int.from_bytes(raw[place : place + 8], "little")
            events.append(Event.FromString(raw[place + 12 : place + 12 + length]))
            place += 16 + length
        files.append(events)
    return files


def test_tensorboard_shows_what_the_log_says(one_worker):
    """Every number of every epoch, under a name of its own.  Seen to fail with the step left out."""
    [events] = events_of(one_worker)
    shown = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    log = log_of(one_worker / "log.jsonl")
    assert len(shown) == sum(len(line) - 1 for line in log)
    for line in log:
        for name, tag in (
            ("train_loss", "loss/train"), ("validation_accuracy", "accuracy/validation"), ("waited", "run/waited")
        ):  # fmt: skip
            assert shown[line["epoch"], tag] == pytest.approx(line[name], rel=1e-6)


def test_ray_exports_the_numbers_of_the_last_epoch(data, tmp_path, monkeypatch):
    """What Prometheus would scrape while it trains has the numbers of a line of the log.

    Seen to fail with gauges that are set to 0.
    """
    found, end = [], threading.Event()

    def scrape():
        [node] = [node for node in ray.nodes() if node["Alive"]]
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        while not end.wait(0.2):
            with urllib.request.urlopen(url, timeout=10) as page:
                lines = page.read().decode().splitlines()
            # ray_hamscope_epoch{...,run="metrics",...} 3.0
            mine = [line for line in lines if line.startswith("ray_hamscope_") and 'run="metrics"' in line]
            if mine:
                found.append({line.split("{")[0][13:]: float(line.rsplit(" ", 1)[1]) for line in mine})

    monkeypatch.setattr(program, "train_worker", slow_worker(3.0))
    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    out = train(make_config(epochs=3), data, tmp_path / "metrics")
    end.set()
    thread.join()
    log = {line["epoch"]: line for line in log_of(out / "log.jsonl")}
    assert found and set(found[-1]) == set(GAUGES)
    whole = [numbers for numbers in found if numbers.keys() == GAUGES.keys()]
    # A scrape may fall between two epochs; most do not.
    equal = [all(log[n["epoch"]][name] == pytest.approx(n[name]) for name in GAUGES) for n in whole]
    assert np.mean(equal) > 0.5


def worker_pids() -> list[int]:
    """Processes of this Ray's training workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if b"RayTrainWorker" in title and os.environ["RAY_AUTH_TOKEN_PATH"].encode() in environment:
            found.append(int(path.name))
    return found


def test_a_bundle_that_is_there_is_kept_refused_or_replaced(one_worker, data, tmp_path, capfd):
    """Of the same inputs: nothing to do.  Of others: refused, or replaced on request.  A foreign folder: never.

    What another config left in the storage is not gone on with.
    """
    out, storage = tmp_path / "bundle", tmp_path / "bundle.train"
    shutil.copytree(one_worker, out)
    stamp = (out / "bundle.json").stat().st_mtime_ns
    assert train(make_config(), data, out) == out
    assert "is of this config and these slices, nothing to do" in capfd.readouterr().err
    with pytest.raises(UserError, match="--replace"):
        train(make_config(epochs=1), data, out)
    assert (out / "bundle.json").stat().st_mtime_ns == stamp
    storage.mkdir()
    (storage / "inputs.json").write_text('{"inputs_sha256": "another"}')
    (storage / "state.pt").write_text("not to be read")
    train(make_config(epochs=1), data, out, replace=True)
    assert "other slices: discarded" in capfd.readouterr().err
    assert len(log_of(out / "log.jsonl")) == 1 and not storage.exists()
    assert read_bundle(out).card["training"]["epochs"] == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(UserError, match="is no bundle"):
        train(make_config(), data, tmp_path / "mine", replace=True)
    os.rename(tmp_path / "mine", tmp_path / "other.train")
    with pytest.raises(UserError, match="was not made by"):
        train(make_config(), data, tmp_path / "other")
    assert (tmp_path / "other.train" / "thesis.txt").exists()


def test_an_error_in_a_worker_reaches_the_user(data, tmp_path, monkeypatch):
    """The message of the worker's own exception is in that of the program."""

    def failing(job):
        raise ValueError("the disk is full of elephants")

    monkeypatch.setattr(program, "train_worker", failing)
    monkeypatch.setattr(program, "MAX_FAILURES", 0)
    with pytest.raises(RuntimeError, match="elephants"):
        train(make_config(), data, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_what_cannot_be_trained_is_refused_in_one_line(data, tmp_path):
    """One class; one lattice; images too small; more workers than cores; no [train] section.  No bundle is left."""
    one_class = make_slices(tmp_path / "one-class.h5", ["P*"])
    one_lattice = make_slices(tmp_path / "one-lattice.h5", lattices=1)
    before = sorted(tmp_path.iterdir())
    no_section = make_config().model_copy(update={"train": None})
    for config, path, workers, message in (
        (make_config(), one_class, 1, r"holds P\* only"),
        (make_config(), one_lattice, 1, "one lattice"),
        (make_config(), tmp_path / "missing.h5", 1, "no such file"),
        (make_config(), data, 4, r"--workers 4: Ray has 3 CPUs"),
        (no_section, data, 1, r"\[train\]"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            train(config, path, tmp_path / "bundle", workers=workers, use_gpu=False)
        assert "\n" not in str(raised.value)
        assert sorted(path for path in tmp_path.iterdir() if path.name != "bundle.train") == before


def test_the_time_left_counts_all_epochs(tmp_path, monkeypatch):
    """A quarter of the first of two epochs took 10 s: seven more are left.  Nothing is said of a past epoch."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for epoch, shown in ((1, "epoch 1/2: 25 %, 1 min 10 s left"), (0, "")):
        (tmp_path / "progress.json").write_text(json.dumps({"epoch": epoch, "share": 0.25, "seconds": 10.0}))
        monkeypatch.setattr(sys, "stderr", Terminal())
        with program.Follower(tmp_path, 2):
            time.sleep(1.2)
        assert shown in sys.stderr.getvalue() and bool(shown) == bool(sys.stderr.getvalue())
