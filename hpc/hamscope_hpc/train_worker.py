"""What each Ray Train worker runs: the epochs that are left, a checkpoint after each, then the logits that are wanted.

Every worker holds all images and takes its share of each global batch, so the gradients, and hence the weights, do not
depend on the number of workers but for rounding.  Rank 0 leaves in the storage folder, which all nodes see,

    state.pt             weights, optimizer and log after the last epoch: where every worker starts, first or again
    log.jsonl            a line an epoch, and tensorboard/ the same; see hamscope_hpc.train_log
    progress.json        how far the epoch is

and in the end every worker its share of what the bundle is made of, outputs-RANK.npz.  Each file is written whole.  A
checkpoint handed to Ray Train instead would count only when its controller next asks, seconds later.
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
from hamscope.data.symmetry import majority_is_down, prepare
from hamscope.learn import training
from hamscope.learn.network import outputs
from hamscope.learn.resolution import confusions
from hamscope.learn.speed import loader_threads, matrix_limit, training_flops
from hamscope.provenance import whole_file
from hamscope_hpc.progress import PROGRESS
from hamscope_hpc.train_log import LOG, Board, write_log

STATE = "state.pt"
BATCH = 256
STANDARD = 512  # images that `standardise` sees
RESOLUTION_IMAGES = 2000  # validation images of which the confusions by resolution are counted


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
    labels = slices.columns["model"].astype(np.int64)
    fit, validation = training.split(slices.columns, section.validation_fraction, section.seed)
    network = training.make_network(section, slices.images.shape[1])
    source = training.Source(slices.images, section, network.arguments["symmetry"])
    network.standardise(torch.as_tensor(source(spread_over(fit, STANDARD), 0)[0]))
    precision = training.choose_precision(section.precision, device)
    flops = training_flops(network, slices.images.shape[1])
    [limit] = _sums([matrix_limit(precision, device)], device)
    model = ray.train.torch.prepare_model(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=section.learning_rate, fused=True)
    log = _restore(storage, network, optimizer)
    board = Board(storage, len(log)) if rank == 0 else None
    held_out = validation[rank::world]
    for epoch in range(len(log) + 1, section.epochs + 1):
        begin = time.monotonic()
        rate = training.learning_rate(section.learning_rate, section.schedule, epoch, section.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        sums = training.train_epoch(
            model, optimizer, source, fit, labels[fit], seed=section.seed, epoch=epoch, batch_size=section.batch_size,
            rank=rank, world=world, precision=precision, device=device,
            loaders=loader_threads(job["threads"], device), tick=_ticker(storage, epoch, section.epochs, rank),
        )  # fmt: skip
        line = {"epoch": epoch, **_averages("train", sums.loss, sums.correct, sums.images, device)}
        speed = _speed(len(fit), time.monotonic() - begin, sums.waited, flops, limit)
        line |= _averages("validation", *_evaluate(network, source, held_out, labels[held_out]), device)
        log.append(line | {"learning_rate": rate} | speed)
        if board:
            board.show(log[-1])  # before the checkpoint: an epoch that is shown twice counts once, see Board
            _checkpoint(storage, network, optimizer, log)
    if board:
        board.close()
    _measure(job, network.eval(), source, labels, validation, rank, world)


def _speed(images: int, seconds: float, waited: float, flops: int, limit: float) -> dict[str, float]:
    """What the log says of the speed of an epoch; see `hamscope_hpc.train_log`."""
    return {
        "images_per_second": round(images / seconds, 1), "seconds": round(seconds, 3),
        "waited": round(waited / seconds, 4), "flops_share": round(flops * images / seconds / limit, 4),
        "flops_limit": round(limit),
    }  # fmt: skip


def _measure(job: Job, network, source, labels, validation, rank: int, world: int) -> None:
    """Leave this worker's share of what the bundle is made of."""
    mine = job["wanted"][rank::world]
    parts = [mine[first : first + BATCH] for first in range(0, len(mine), BATCH)]
    found, flipped = [], []
    for numbers in parts:
        images, condition = source.seen(numbers, 0)
        found.append(outputs(network, prepare(images, source.symmetry), condition))
        flipped.append(majority_is_down(images))
    some = spread_over(validation, RESOLUTION_IMAGES)[rank::world]
    with whole_file(Path(job["storage"]) / f"outputs-{rank}.npz") as temporary, open(temporary, "wb") as file:
        np.savez(
            file, logits=np.concatenate([part.logits for part in found]),
            hidden=np.concatenate([part.hidden for part in found]), flipped=np.concatenate(flipped),
            confusions=confusions(network, source, some, labels[some]),
        )  # fmt: skip


def spread_over(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the numbers, evenly spread over them."""
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(int))]


def gather_outputs(storage: Path, world: int) -> dict[str, np.ndarray]:
    """What all workers left: logits, hidden and flipped in the order of `wanted`, and the sum of the confusions."""
    parts = [np.load(storage / f"outputs-{rank}.npz") for rank in range(world)]
    gathered = {"confusions": sum(part["confusions"] for part in parts)}
    for name in ("logits", "hidden", "flipped"):
        shares = [part[name] for part in parts]
        whole = np.empty((sum(map(len, shares)), *shares[0].shape[1:]), shares[0].dtype)
        for rank, share in enumerate(shares):
            whole[rank::world] = share
        gathered[name] = whole
    return gathered


def load_state(storage: Path) -> dict | None:
    """The state dicts of `network` and `optimizer` and the `log` after the last epoch; None before the first.

    The file holds tensors and numbers only: reading it runs no code.
    """
    path = storage / STATE
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def _evaluate(network, source, numbers: np.ndarray, labels: np.ndarray) -> tuple[float, int, int]:
    """Sum of losses, number of right answers and number of images."""
    if not len(numbers):  # more workers than validation images
        return 0.0, 0, 0
    loss, confusion = training.evaluate(network, source, numbers, labels)
    return loss * len(numbers), int(confusion.trace()), len(numbers)


def _averages(name: str, loss: float, correct: int, count: int, device: str) -> dict[str, float]:
    """Loss and accuracy over the images of all workers, from the sums of this one."""
    loss, correct, count = _sums([loss, correct, count], device)
    return {f"{name}_loss": loss / count, f"{name}_accuracy": correct / count}


def _sums(numbers: list[float], device: str) -> list[float]:
    """Of each of the numbers the sum over all workers."""
    total = torch.tensor(numbers, dtype=torch.float64, device=device)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return total.tolist()


def _checkpoint(storage: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, log: list[dict]) -> None:
    """Keep the state after an epoch."""
    with whole_file(storage / STATE) as temporary:
        torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "log": log}, temporary)
    write_log(storage / LOG, log)


def _restore(storage: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[dict]:
    """Load the state after the last epoch where there is one; return the log up to it."""
    state = load_state(storage)
    if state is None:
        return []
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["log"]


def _ticker(storage: Path, epoch: int, epochs: int, rank: int):
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
                word = {"epoch": epoch, "epochs": epochs, "share": done / total, "seconds": now - begin}
                temporary.write_text(json.dumps(word))

    return tick
