"""One epoch of training, and how the images are split and ordered.

The order of an epoch is one permutation by (seed, epoch).  It is cut into *global* batches, and every worker takes its
share of each; the loss is normalised so that the mean of the workers' gradients is the gradient of the global batch.
"""

import numpy as np
import torch
from torch import nn

from hamscope.errors import UserError
from hamscope.learn.network import DomainNet, image_keys, predict
from hamscope.models import CLASS_NAMES


def split(columns: dict[str, np.ndarray], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image numbers for training and for validation, ascending.

    Whole lattices go to one side: slices of one sample are alike, and on both sides they would flatter the accuracy.
    In every class `fraction` of the lattices, at least one, is held out.

    Raises
    ------
    UserError
        A class has a single lattice.
    """
    held_out = np.zeros(len(columns["model"]), bool)
    for model in np.unique(columns["model"]):
        mine = columns["model"] == model
        lattices = np.unique(columns["lattice"][mine])
        if len(lattices) < 2:
            raise UserError(
                f"{CLASS_NAMES[model]}: one lattice cannot be split into training and validation; simulate more"
            )
        count = min(max(round(fraction * len(lattices)), 1), len(lattices) - 1)
        chosen = np.random.default_rng([seed, int(model)]).permutation(lattices)[:count]
        held_out |= mine & np.isin(columns["lattice"], chosen)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def shares(count: int, batch_size: int, seed: int, epoch: int, rank: int, world: int) -> list[tuple[np.ndarray, int]]:
    """The batches of one worker: positions 0..count-1 that it takes, and the size of the global batch."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    batches = (order[first : first + batch_size] for first in range(0, count, batch_size))
    return [(batch[rank * len(batch) // world : (rank + 1) * len(batch) // world], len(batch)) for batch in batches]


def learning_rate(first: float, schedule: str, epoch: int, epochs: int) -> float:
    """Of epoch 1 to `epochs`: always `first`, or falling in equal steps to first / epochs in the last one."""
    return first * (epochs - epoch + 1) / epochs if schedule == "linear" else first


def choose_precision(precision: str, device: str) -> str:
    """float32 or bfloat16; "auto" is bfloat16 where the hardware multiplies it: there it trains about twice as fast."""
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    capability = torch.backends.cpu.get_cpu_capability()
    fast = capability == "AVX512" and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: np.ndarray, labels: np.ndarray, *, seed: int,
    epoch: int, batch_size: int, rank: int = 0, world: int = 1, precision: str = "float32", device: str = "cpu",
    tick=None,
) -> tuple[float, int, int]:  # fmt: skip
    """Train on every image once; this worker's sum of losses, number of right answers and number of images.

    Parameters
    ----------
    network : nn.Module
        A DomainNet, or one wrapped so that gradients are averaged over `world` workers.
    images : ndarray, shape (N, L, L), uint8
        Symmetry-reduced training images; `labels`, shape (N,), their classes.
    tick : callable, optional
        Called with (batches done, batches in all) after every batch.
    """
    network.train()
    batches = shares(len(images), batch_size, seed, epoch, rank, world)
    loss_sum, correct, seen = 0.0, 0, 0
    for number, (mine, batch) in enumerate(batches):
        inputs, targets = (
            torch.as_tensor(images[mine], device=device),
            torch.as_tensor(labels[mine], device=device).long(),
        )
        keys = image_keys(seed, epoch, torch.as_tensor(mine, device=device))
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(inputs, keys).float()
        loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss * world / batch).backward()
        optimizer.step()
        loss_sum += loss.item()
        correct += int((logits.argmax(1) == targets).sum())
        seen += len(mine)
        if tick:
            tick(number + 1, len(batches))
    return loss_sum, correct, seen


def evaluate(network: DomainNet, images: np.ndarray, labels: np.ndarray, batch: int = 256) -> tuple[float, np.ndarray]:
    """Mean cross entropy and confusion matrix, shape (7, 7) int64, rows the truth and columns the answer."""
    network.eval()
    logits = torch.as_tensor(predict(network, images, batch))
    truth = torch.as_tensor(labels).long()
    confusion = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    np.add.at(confusion, (truth.numpy(), logits.argmax(1).numpy()), 1)
    return float(nn.functional.cross_entropy(logits, truth)), confusion
