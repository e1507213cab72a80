"""The hidden layer of all windows of a tile at once, the same as window by window but for rounding.

A tile is the pixels of R x C windows at a stride.  What windows share is computed once (see `hamscope.learn.trous`):

    PaperNet      every convolution and pooling at all positions, in each of the symmetry elements that some window of
                  the tile needs; the first full layer by Fourier transforms (see `hamscope.learn.fourier`), with
                  those of its weights made once for all elements
    InvariantNet  the same with the majority up or down only; the means over the windows by sums that slide

The tile is turned and flipped, not the filters: the next element is then the same computation on another picture.  No
two elements share a feature map, since ReLU is not linear and the paper's filters have no symmetry.

At a stride, positions behind l poolings are needed where they are multiples of gcd(stride, 2^l) only.

Shape letters: R, C = rows and columns of windows; W = windows; L = side of a window; H = width of the hidden layer.
"""

from math import ceil, gcd

import numpy as np
import torch
from torch import nn

from hamscope.data.symmetry import form
from hamscope.learn import fourier, trous
from hamscope.learn.network import InvariantNet, PaperNet

FOURIER_BELOW = 8  # the stride from which on few enough windows overlap for the full layer to take one by one
_HEAD_WINDOWS = 2048  # that go through the full layers at once: few, to stay in the cache


def shares(network: nn.Module) -> bool:
    """Whether windows of this network share anything: where zeros surround each of them, none do."""
    return not (isinstance(network, PaperNet) and network.arguments["padding"] == "same")


@torch.inference_mode()
def hidden_layer(
    network: nn.Module, pixels: np.ndarray, stride: int, elements: np.ndarray, chosen: np.ndarray, condition=None
) -> np.ndarray:
    """The hidden layer of the chosen windows of a tile, shape (W, H), float32, in the order of the grid.

    Parameters
    ----------
    network : PaperNet or InvariantNet
        Without padding, see `shares`.
    pixels : ndarray, shape ((R - 1) stride + L, (C - 1) stride + L), uint8
        Spins, 1 = up, 0 = down.
    stride : int
    elements : ndarray, shape (R, C), uint8
        What each window is prepared by, from `hamscope.data.symmetry.elements`.
    chosen : ndarray, shape (R, C), bool
        The windows that are asked about.
    condition : ndarray, shape (3,), optional
        What is known of the microscope; see `hamscope.data.instrument`.

    Raises
    ------
    ValueError
        A network of windows that share nothing, or a tile that is not just covered by the windows.
    """
    if not shares(network):
        raise ValueError("padding = 'same': windows share nothing, ask for them one by one")
    window = network.arguments["window"]
    sides = tuple((count - 1) * stride + window for count in elements.shape)
    if pixels.shape != sides:
        raise ValueError(f"tile of {pixels.shape} pixels, {elements.shape} windows at stride {stride} cover {sides}")
    of_windows = {PaperNet.kind: _paper, InvariantNet.kind: _means}[network.kind](network, pixels.shape, stride)
    wanted, found = elements[chosen], None
    for element in map(int, np.unique(wanted)):
        turned = np.ascontiguousarray(form(pixels ^ np.uint8(element >> 3), element & 7))
        numbers = np.full(elements.shape, -1)
        numbers[chosen] = np.where(wanted == element, np.arange(len(wanted)), -1)
        numbers = form(numbers, element & 7)
        at = np.nonzero(numbers >= 0)
        values = of_windows(turned, *at)
        if found is None:
            found = np.empty((len(wanted), values.shape[1]), values.dtype)
        found[numbers[at]] = values
    return _head(network, found, condition) if network.kind == InvariantNet.kind else found


def _on_cpu(network: nn.Module) -> bool:
    return next(network.parameters()).device.type == "cpu"


def _head(network: InvariantNet, means: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Means (W, F) through the full layers."""
    device = network.shift.device
    known = None if condition is None else torch.as_tensor(condition, dtype=torch.float32, device=device)
    hidden = [
        network.head(part.to(device), None if known is None else known.expand(len(part), -1)).cpu()
        for part in torch.from_numpy(means).split(_HEAD_WINDOWS)
    ]
    return torch.cat(hidden).numpy()


def _means(network: InvariantNet, shape: tuple[int, int], stride: int):
    """A function of spins and W windows that is their `InvariantNet.means`, (W, 1 + sum(filters)) float64."""
    all_means = _means_numba if _on_cpu(network) else _means_torch
    return lambda pixels, rows, columns: all_means(network, pixels, stride)[rows, columns]


def _levels(network: InvariantNet, stride: int):
    """Of each level: positions between neighbours under its kernel; every which position of what its pooling leaves is
    kept; and behind it, positions between neighbours in a window, their number a side, and those in a stride."""
    side, spacing = network.arguments["window"], 1
    for level in range(len(network.convs)):
        step, side, every = 2**level // spacing, side - 4, 1
        if level < len(network.convs) - 1:
            kept = gcd(stride, 2 ** (level + 1))
            every, spacing, side = kept // spacing, kept, side // 2
        reach = 2 ** (level + (level < len(network.convs) - 1)) // spacing
        yield step, every, reach, side, stride // spacing


def _means_numba(network: InvariantNet, pixels: np.ndarray, stride: int) -> np.ndarray:
    window = network.arguments["window"]
    rows, columns = ((length - window) // stride + 1 for length in pixels.shape)
    out = np.empty((rows, columns, network.shift.numel()))
    x = (2 * pixels.astype(np.float32) - 1)[..., None]
    trous.box_means(x, 1, window, stride, out[..., :1])
    first = 1
    for level, (step, every, reach, side, jump) in enumerate(_levels(network, stride)):
        conv = network.convs[level]
        weight = conv.weight.permute(2, 1, 0).flatten(0, 1).contiguous().numpy()
        x, bias = trous.square_conv(x, weight, step), conv.bias.numpy()
        if level < len(network.convs) - 1:
            x = trous.pool_bias_relu(x, bias, step, every)
        else:
            trous.bias_relu(x, bias)
        trous.box_means(x, reach, side, jump, out[..., first : first + x.shape[2]])
        first += x.shape[2]
    return out


def _means_torch(network: InvariantNet, pixels: np.ndarray, stride: int) -> np.ndarray:
    """The same by torch, for other devices."""
    window = network.arguments["window"]
    x = 2 * torch.as_tensor(pixels, device=network.shift.device).float()[None, None] - 1
    means = [_box_means(x, 1, window, stride)]
    for level, (step, every, reach, side, jump) in enumerate(_levels(network, stride)):
        x = network.convs[level](x, step)
        if level < len(network.convs) - 1:
            x = torch.max_pool2d(x, 2, stride=every, dilation=step)
        x = torch.relu(x)
        means.append(_box_means(x, reach, side, jump))
    return torch.cat(means, 1)[0].permute(1, 2, 0).cpu().numpy()


def _box_means(x: torch.Tensor, step: int, count: int, every: int) -> torch.Tensor:
    """Means over count x count positions `step` apart, from each `every`-th position on."""
    x = x.double()
    for axis in (2, 3):
        length = x.shape[axis] - (count - 1) * step
        x = sum(x.narrow(axis, i * step, length) for i in range(count)) / count
    return x[:, :, ::every, ::every]


def _paper(network: PaperNet, shape: tuple[int, int], stride: int):
    """A function of spins and W windows that is their `PaperNet.features`, (W, H) float32.  `shape` is that of the
    spins, or of the spins turned."""
    spacing = gcd(stride, 2 ** len(network.convs))
    reach, jump = 2 ** len(network.convs) // spacing, stride // spacing
    filters = network.convs[-1].out_channels
    side = round((network.full1.in_features // filters) ** 0.5)
    weight, bias = network.full1.weight.unflatten(1, (filters, side, side)), network.full1.bias
    on_cpu = _on_cpu(network)
    if on_cpu and stride < FOURIER_BELOW:
        full = fourier.FullLayer(weight.numpy(), bias.numpy(), reach, *(ceil(length / spacing) for length in shape))

    def of_windows(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        x = _pooled(network, pixels, stride)
        if on_cpu and stride < FOURIER_BELOW:
            return full.at(x[0].permute(1, 2, 0).numpy(), rows * jump, columns * jump)
        if stride < FOURIER_BELOW:
            x = fourier.correlate(x[0], weight, reach)[:, ::jump, ::jump]
        else:
            x = nn.functional.conv2d(x, weight, stride=jump, dilation=reach)[0]
        return torch.relu(x[:, rows, columns].T + bias).cpu().numpy()

    return of_windows


def _pooled(network: PaperNet, pixels: np.ndarray, stride: int) -> torch.Tensor:
    """The map before the full layers, (1, C, height, width), channels last in memory."""
    on_cpu = _on_cpu(network)
    x = 2 * torch.as_tensor(pixels, device=network.full1.weight.device).float() - 1
    x, spacing = x[None, :, :, None].permute(0, 3, 1, 2), 1  # channels last, as in the network
    for level, conv in enumerate(network.convs):
        step, kept = 2**level // spacing, gcd(stride, 2 ** (level + 1))
        x = nn.functional.conv2d(x, conv.weight, dilation=step)
        if on_cpu:  # torch would find out where each largest value was
            lines = np.ascontiguousarray(x[0].permute(1, 2, 0).numpy())
            lines = trous.pool_bias_relu(lines, conv.bias.numpy(), step, kept // spacing)
            x = torch.from_numpy(lines)[None].permute(0, 3, 1, 2)
        else:
            x = torch.max_pool2d(x, 2, stride=kept // spacing, dilation=step)
            x = torch.relu(x + conv.bias[:, None, None])
        spacing = kept
    return x
