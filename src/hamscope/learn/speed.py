"""How fast a network trains, beside what the device could do at most.

    share = (FLOPs of an image, forward and backward) x (images a second) / (FLOP a second of a large matrix product)

A multiplication and an addition count as two.  The limit is measured where the training runs, in its precision and with
its threads, so it is that of this machine as it is, not of a data sheet.  Convolutions have less to multiply for every
number that they move than large matrices have, so no network reaches 1.
"""

import copy
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SECONDS = 0.5  # of measuring the limit
_SIDES = {"cpu": 1024, "cuda": 8192}  # large enough to be limited by the multiplications


def training_flops(network: nn.Module, window: int) -> int:
    """FLOPs of matrix products and convolutions to train on one image, forward and backward; `network` stays as is."""
    network = copy.deepcopy(network)
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros((2, window, window), dtype=torch.uint8, device=device)).sum().backward()
    return counter.get_total_flops() // 2


def matrix_limit(precision: str, device: str, seconds: float = SECONDS) -> float:
    """FLOPs a second of the fastest of some large matrix products.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
    device : str
        As of torch, such as "cpu" or "cuda:0".
    seconds : float
        How long to try; at least two products are made, of which the first warms up.
    """
    kind = device.split(":")[0]
    side = _SIDES.get(kind, 4096)
    one = torch.ones((side, side), dtype=getattr(torch, precision), device=device)
    fastest, begin, calls = float("inf"), time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        one @ one
        if kind != "cpu":
            torch.accelerator.synchronize()
        if calls:
            fastest = min(fastest, time.perf_counter() - start)
        calls += 1
    return 2 * side**3 / fastest


def loader_threads(cores: int, device: str) -> int:
    """Threads that prepare images for a worker with so many cores.

    On a CPU the steps need the cores, and an image takes much less time to prepare than to train on; a GPU leaves them
    to the images.
    """
    return max(1, cores // 8) if device == "cpu" else min(max(1, cores - 1), 8)
