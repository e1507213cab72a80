"""FLOPs of a training step against a count by hand, and a limit that is one."""

import pytest
import torch

from hamscope.learn.network import PaperNet
from hamscope.learn.speed import loader_threads, matrix_limit, training_flops


def test_the_flops_of_a_step_are_those_counted_by_hand():
    """2 x kernel x channels x pixels forward; the same again for the weights and, past the first layer, the inputs.

    Seen to fail with the gradients left out (2.9 times too few), and with two images counted for one.
    """
    network = PaperNet(20, filters=(4, 8), hidden=16)
    first, second = 2 * 25 * 1 * 4 * 16**2, 2 * 25 * 4 * 8 * 4**2  # 20 - 4 = 16, pooled to 8; 8 - 4 = 4, pooled to 2
    full = 2 * 8 * 2 * 2 * 16 + 2 * 16 * 7
    before = [parameter.clone() for parameter in network.parameters()]
    assert training_flops(network, 20) == 2 * first + 3 * (second + full)
    assert all(parameter.grad is None and torch.equal(parameter, old)
               for parameter, old in zip(network.parameters(), before))  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_limit_is_a_speed_of_this_machine(precision):
    """Between 0.1 GFLOP/s and 100 TFLOP/s on any CPU: units are right, no more is claimed."""
    assert 1e8 < matrix_limit(precision, "cpu", seconds=0.0) < 1e14


def test_a_gpu_leaves_the_cores_to_the_images():
    assert [loader_threads(cores, "cpu") for cores in (1, 2, 64)] == [1, 1, 8]
    assert [loader_threads(cores, "cuda:0") for cores in (1, 2, 6, 64)] == [1, 1, 5, 8]
