"""One epoch of training: how the images are split, ordered, seen through the instrument and fed.

The order of an epoch is one permutation by (seed, epoch).  It is cut into *global* batches, and every worker takes its
share of each; the loss is normalised so that the mean of the workers' gradients is the gradient of the global batch.
What happens to an image is keyed by (seed, epoch, number of the image).  So neither the number of workers nor a restart
changes what is learnt.
"""

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from hamscope.config import Train
from hamscope.data.instrument import draw, look
from hamscope.data.symmetry import augment, prepare
from hamscope.errors import UserError
from hamscope.learn.network import build, image_keys, predict
from hamscope.models import CLASS_NAMES

AHEAD = 4  # batches that a loader thread has ready


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


def make_network(section: Train, window: int) -> nn.Module:
    """The network that the section describes, its weights drawn from the section's seed."""
    torch.manual_seed(section.seed)
    common = {"window": window, "filters": section.filters, "hidden": section.hidden, "dropout": section.dropout}
    if section.network == "invariant":
        return build("invariant", **common)
    return build("paper", **common, padding=section.padding, symmetry=section.symmetry)


@dataclass(frozen=True)
class Source:
    """Training images as a network sees them in an epoch: through the instrument, then prepared for its symmetry.

    `images` (N, L, L) uint8 are those of the slices file; epoch 0 is that of everything but training.
    """

    images: np.ndarray
    section: Train
    symmetry: str

    def __call__(self, numbers: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The images with these numbers, (B, L, L) uint8, and the conditions (B, 3), None without an instrument."""
        images, condition = self.seen(numbers, epoch)
        if self.symmetry == "augmented" and epoch:
            keys = image_keys(self.section.seed, epoch, torch.as_tensor(numbers))
            images = augment(images, (keys >> 40 & 15).numpy())
        return prepare(images, self.symmetry), condition

    def seen(self, numbers: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The same before they are prepared for the network."""
        images, instrument, seed = self.images[numbers], self.section.instrument, self.section.seed
        if instrument is None:
            return images, None
        views = draw(instrument, seed, epoch, numbers)
        return look(images, views, seed, epoch, numbers), views.condition


@dataclass
class Sums:
    """What an epoch of one worker adds up to; `waited` is the time that the steps waited for images, in seconds."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    waited: float = field(default=0.0, compare=False)


def train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, source, numbers: np.ndarray, labels: np.ndarray, *, seed: int,
    epoch: int, batch_size: int, rank: int = 0, world: int = 1, precision: str = "float32", device: str = "cpu",
    loaders: int = 1, tick=None,
) -> Sums:  # fmt: skip
    """Train on every image once.

    Parameters
    ----------
    network : nn.Module
        A network, or one wrapped so that gradients are averaged over `world` workers.
    source : callable
        A `Source`, or another function of (numbers, epoch) that returns images and conditions.
    numbers : ndarray, shape (N,), int
        The training images; `labels`, shape (N,), their classes.
    loaders : int
        Threads that prepare batches ahead of the steps.
    tick : callable, optional
        Called with (batches done, batches in all) after every batch.
    """
    network.train()
    batches = shares(len(numbers), batch_size, seed, epoch, rank, world)
    sums = Sums()
    for done, (mine, batch, (images, condition)) in enumerate(_ahead(batches, numbers, source, epoch, loaders, sums)):
        inputs, targets = (
            torch.as_tensor(images, device=device),
            torch.as_tensor(labels[mine], device=device).long(),
        )
        known = None if condition is None else torch.as_tensor(condition, device=device)
        keys = image_keys(seed, epoch, torch.as_tensor(numbers[mine], device=device))
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(inputs, known, keys).float()
        loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss * world / batch).backward()
        optimizer.step()
        sums.loss += loss.item()
        sums.correct += int((logits.argmax(1) == targets).sum())
        sums.images += len(mine)
        if tick:
            tick(done + 1, len(batches))
    return sums


def _ahead(batches, numbers, source, epoch: int, loaders: int, sums: Sums):
    """Yield every batch with its images, which threads prepare while the steps before it run."""
    with ThreadPoolExecutor(loaders) as pool:
        waiting, left = deque(), iter(batches)
        for mine, batch in left:
            waiting.append((mine, batch, pool.submit(source, numbers[mine], epoch)))
            if len(waiting) == AHEAD * loaders:
                break
        while waiting:
            mine, batch, future = waiting.popleft()
            begin = time.monotonic()
            prepared = future.result()
            sums.waited += time.monotonic() - begin
            yield mine, batch, prepared
            for mine, batch in left:
                waiting.append((mine, batch, pool.submit(source, numbers[mine], epoch)))
                break


def evaluate(
    network: nn.Module, source, numbers: np.ndarray, labels: np.ndarray, batch: int = 256
) -> tuple[float, np.ndarray]:
    """Mean cross entropy and confusion matrix, shape (7, 7) int64, rows the truth and columns the answer."""
    network.eval()
    parts = [source(numbers[first : first + batch], 0) for first in range(0, len(numbers), batch)]
    logits = torch.as_tensor(np.concatenate([predict(network, *part, batch) for part in parts]))
    truth = torch.as_tensor(labels).long()
    confusion = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    np.add.at(confusion, (truth.numpy(), logits.argmax(1).numpy()), 1)
    return float(nn.functional.cross_entropy(logits, truth)), confusion
