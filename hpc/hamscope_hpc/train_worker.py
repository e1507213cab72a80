"""What each Ray Train worker runs: the epochs that are left, a checkpoint after each, then the logits that are wanted.

Every worker holds all images and takes its share of each global batch, so the gradients, and hence the weights, do not
depend on the number of workers but for rounding.  Rank 0 leaves in the storage folder, which all nodes see,

    state.pt             weights, optimizer and log after the last epoch: where every worker starts, first or again
    log.jsonl            a line an epoch
    progress.json        how far the epoch is

and in the end every worker its share of the logits, logits-RANK.npy.  Each file is written whole.  A checkpoint handed
to Ray Train instead would count only when its controller next asks, seconds later.
"""

import json
import time
from pathlib import Path
from typing import TypedDict

import numpy as np
import ray.train
import ray.train.torch
import torch

from hamscope.config import Train
from hamscope.data.slices import read_slices
from hamscope.data.symmetry import reduce
from hamscope.learn import training
from hamscope.learn.network import DomainNet, predict
from hamscope.models import CLASS_NAMES
from hamscope.provenance import whole_file

STATE, LOG, PROGRESS = "state.pt", "log.jsonl", "progress.json"


class Job(TypedDict):
    """What a worker is told: the section, the slices file, the storage folder, whose logits, and its threads."""

    section: Train
    slices: str
    storage: str
    wanted: np.ndarray
    threads: int


def train_worker(job: Job) -> None:
    """Train and evaluate, together with the other workers of this run."""
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(job["threads"])  # Ray sets OMP_NUM_THREADS to 1
    section, storage, device = job["section"], Path(job["storage"]), str(ray.train.torch.get_device())
    slices = read_slices(job["slices"])
    images, labels = reduce(slices.images), slices.columns["model"].astype(np.int64)
    fit, validation = training.split(slices.columns, section.validation_fraction, section.seed)
    validation = validation[rank::world]
    network = make_network(section, images.shape[1])
    model = ray.train.torch.prepare_model(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=section.learning_rate, fused=True)
    log = _restore(storage, network, optimizer)
    precision = training.choose_precision(section.precision, device)
    for epoch in range(len(log) + 1, section.epochs + 1):
        begin = time.monotonic()
        rate = training.learning_rate(section.learning_rate, section.schedule, epoch, section.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        sums = training.train_epoch(
            model, optimizer, images[fit], labels[fit], seed=section.seed, epoch=epoch, batch_size=section.batch_size,
            rank=rank, world=world, precision=precision, device=device, tick=_ticker(storage, epoch, rank),
        )  # fmt: skip
        line = {"epoch": epoch, **_averages("train", *sums, device)}
        seconds = time.monotonic() - begin
        line |= _averages("validation", *_evaluate(network, images[validation], labels[validation]), device)
        speed = {"images_per_second": round(len(fit) / seconds, 1), "seconds": round(seconds, 3)}
        log.append(line | {"learning_rate": rate} | speed)
        if rank == 0:
            _checkpoint(storage, network, optimizer, log)
    logits = predict(network.eval(), images[job["wanted"][rank::world]])
    with whole_file(storage / f"logits-{rank}.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, logits)


def make_network(section: Train, window: int) -> DomainNet:
    """The network that the section describes, its weights drawn from the section's seed."""
    torch.manual_seed(section.seed)
    return DomainNet(window, section.padding, section.filters, section.hidden, section.dropout, len(CLASS_NAMES))


def gather_logits(storage: Path, world: int) -> np.ndarray:
    """The logits that all workers left, in the order of `wanted`; shape (N, 7)."""
    parts = [np.load(storage / f"logits-{rank}.npy") for rank in range(world)]
    logits = np.empty((sum(map(len, parts)), parts[0].shape[1]), np.float32)
    for rank, part in enumerate(parts):
        logits[rank::world] = part
    return logits


def read_log(path: Path) -> list[dict]:
    """The lines of a log; none where there is no log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def load_state(storage: Path) -> dict | None:
    """The state dicts of `network` and `optimizer` and the `log` after the last epoch; None before the first.

    The file holds tensors and numbers only: reading it runs no code.
    """
    path = storage / STATE
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def _evaluate(network: DomainNet, images: np.ndarray, labels: np.ndarray) -> tuple[float, int, int]:
    """Sum of losses, number of right answers and number of images."""
    if not len(images):  # more workers than validation images
        return 0.0, 0, 0
    loss, confusion = training.evaluate(network, images, labels)
    return loss * len(images), int(confusion.trace()), len(images)


def _averages(name: str, loss: float, correct: int, count: int, device: str) -> dict[str, float]:
    """Loss and accuracy over the images of all workers, from the sums of this one."""
    total = torch.tensor([loss, correct, count], dtype=torch.float64, device=device)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    loss, correct, count = total.tolist()
    return {f"{name}_loss": loss / count, f"{name}_accuracy": correct / count}


def _checkpoint(storage: Path, network: DomainNet, optimizer: torch.optim.Optimizer, log: list[dict]) -> None:
    """Keep the state after an epoch."""
    with whole_file(storage / STATE) as temporary:
        torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "log": log}, temporary)
    with whole_file(storage / LOG) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in log))


def _restore(storage: Path, network: DomainNet, optimizer: torch.optim.Optimizer) -> list[dict]:
    """Load the state after the last epoch where there is one; return the log up to it."""
    state = load_state(storage)
    if state is None:
        return []
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["log"]


def _ticker(storage: Path, epoch: int, rank: int):
    """What rank 0 calls after every batch: at most twice a second it leaves word of how far the epoch is."""
    if rank:
        return None
    begin = last = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.5:
            last = now
            with whole_file(storage / PROGRESS) as temporary:
                temporary.write_text(json.dumps({"epoch": epoch, "share": done / total, "seconds": now - begin}))

    return tick
