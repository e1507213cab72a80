"""Epochs of training, timed: `python train_times.py bare|invariant THREADS EPOCHS` prints the seconds of each as JSON.

"bare" is what anyone would write: torch, a loop, images prepared where they are needed.  `program_epochs` is the way of
`hamscope train` in a worker of Ray Train: threads that prepare images, DDP between workers, and what is shown of an
epoch.  Both train the same network on the same images, seen through an instrument, in the same order and precision.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hamscope.config import Instrument, Train
from hamscope.learn import training
from hamscope.learn.network import image_keys

IMAGES, SIDE, BATCH = 384, 100, 64
SECTIONS = {
    "paper": Train(seed=1, epochs=1, instrument=Instrument()),
    "invariant": Train(
        seed=1, epochs=1, network="invariant", filters=(16, 32, 64, 64), hidden=64, dropout=0.1, instrument=Instrument()
    ),
}


def work(kind: str, threads: int):
    """Network, optimizer, source, labels and precision."""
    torch.set_num_threads(threads)
    section = SECTIONS[kind]
    random = np.random.default_rng(0)
    images = (random.random((IMAGES, SIDE, SIDE)) < 0.59).astype(np.uint8)
    network = training.make_network(section, SIDE)
    source = training.Source(images, section, network.arguments["symmetry"])
    network.standardise(torch.as_tensor(source(np.arange(64), 0)[0]))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    return network, optimizer, source, random.integers(0, 7, IMAGES), training.choose_precision("auto", "cpu")


def bare_epochs(kind: str, threads: int, epochs: int) -> dict[str, list[float]]:
    """Seconds and CPU seconds of each epoch of a plain loop; the first, which warms up, is left out."""
    network, optimizer, source, labels, precision = work(kind, threads)
    network.train()
    times, cpu = [], []
    for epoch in range(1, epochs + 2):
        begin, spent = time.monotonic(), time.process_time()
        order = np.random.default_rng([1, epoch]).permutation(IMAGES)
        for first in range(0, IMAGES, BATCH):
            numbers = order[first : first + BATCH]
            images, condition = source(numbers, epoch)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                keys = image_keys(1, epoch, torch.as_tensor(numbers))
                logits = network(torch.as_tensor(images), torch.as_tensor(condition), keys)
            loss = nn.functional.cross_entropy(logits.float(), torch.as_tensor(labels[numbers]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()
        times.append(time.monotonic() - begin)
        cpu.append(time.process_time() - spent)
    return {"seconds": times[1:], "cpu": cpu[1:]}


def program_epochs(job: dict) -> None:
    """A worker of Ray Train; rank 0 leaves the seconds of each epoch but the first, and the time waited, in a file."""
    import ray.train.torch

    from hamscope_hpc.train_log import GAUGES, Board

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    network, optimizer, source, labels, precision = work(job["kind"], job["threads"])
    model = ray.train.torch.prepare_model(network)
    board = Board(Path(job["folder"]), 0) if rank == 0 else None
    times, cpu, waited = [], [], []
    for epoch in range(1, job["epochs"] + 2):
        begin, spent = time.monotonic(), time.process_time()
        sums = training.train_epoch(
            model, optimizer, source, np.arange(IMAGES), labels, seed=1, epoch=epoch, batch_size=BATCH, rank=rank,
            world=world, precision=precision,
        )  # fmt: skip
        if board:
            board.show(dict.fromkeys(GAUGES, 0.0) | {"epoch": epoch})
        times.append(time.monotonic() - begin)
        cpu.append(time.process_time() - spent)
        waited.append(sums.waited)
    if board:
        board.close()
        found = {"seconds": times[1:], "cpu": cpu[1:], "waited": waited[1:]}
        (Path(job["folder"]) / "times.json").write_text(json.dumps(found))


if __name__ == "__main__":
    kind = "paper" if sys.argv[1] == "bare" else sys.argv[1]
    print(json.dumps(bare_epochs(kind, int(sys.argv[2]), int(sys.argv[3]))))
