"""The hidden layer of all windows of a tile at once, the same as window by window but for rounding.

A tile is the pixels of R x C windows at a stride.  What windows share is computed once (see `hamscope.learn.trous`):

    PaperNet      every convolution and pooling at all positions, in each of the symmetry elements that some window of
                  the tile needs; the first full layer as a correlation with its weights, by Fourier transforms
    InvariantNet  the same with the majority up or down only; the means over the windows by sums that slide

The tile is turned and flipped, not the filters: the next element is then the same computation on another picture.  No
two elements share a feature map, since ReLU is not linear and the paper's filters have no symmetry.

At a stride, positions behind l poolings are needed where they are multiples of gcd(stride, 2^l) only.

Shape letters: R, C = rows and columns of windows; L = side of a window; H = width of the hidden layer; K = side of the
map that the full layer takes; N = side of a Fourier transform; T = transforms.
"""

from math import ceil, gcd

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import nn

from hamscope.data.symmetry import form, unform
from hamscope.learn import trous
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
    of_spins = {PaperNet.kind: _paper, InvariantNet.kind: _means}[network.kind]
    wanted, found = elements[chosen], None
    for element in map(int, np.unique(wanted)):
        turned = np.ascontiguousarray(form(pixels ^ np.uint8(element >> 3), element & 7))
        layer = _back(of_spins(network, turned, stride), element & 7)
        if found is None:
            found = np.empty((len(wanted), layer.shape[2]), layer.dtype)
        found[wanted == element] = layer[chosen & (elements == element)]
    return _head(network, found, condition) if network.kind == InvariantNet.kind else found


def _back(layer: np.ndarray, g: int) -> np.ndarray:
    """Values of the windows (R, C, F) of a tile that `form` turned by `g`, in the places that they had before."""
    return np.moveaxis(unform(np.moveaxis(layer, (0, 1), (1, 2)), g), (1, 2), (0, 1))


def _head(network: InvariantNet, means: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Means (W, F) through the full layers."""
    device = network.shift.device
    known = None if condition is None else torch.as_tensor(condition, dtype=torch.float32, device=device)
    hidden = [
        network.head(part.to(device), None if known is None else known.expand(len(part), -1)).cpu()
        for part in torch.from_numpy(means).split(_HEAD_WINDOWS)
    ]
    return torch.cat(hidden).numpy()


def _means(network: InvariantNet, pixels: np.ndarray, stride: int) -> np.ndarray:
    """`InvariantNet.means` of every window, (R, C, 1 + sum(filters)) float64."""
    on_cpu = network.shift.device.type == "cpu"
    return (_means_numba if on_cpu else _means_torch)(network, pixels, stride)


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


def _paper(network: PaperNet, pixels: np.ndarray, stride: int) -> np.ndarray:
    """`PaperNet.features` of every window, (R, C, H) float32."""
    rows, columns = ((length - network.arguments["window"]) // stride + 1 for length in pixels.shape)
    x = 2 * torch.as_tensor(pixels, device=network.full1.weight.device).float() - 1
    x, spacing = x[None, :, :, None].permute(0, 3, 1, 2), 1  # channels last, as in the network
    for level, conv in enumerate(network.convs):
        step, kept = 2**level // spacing, gcd(stride, 2 ** (level + 1))
        x = nn.functional.conv2d(x, conv.weight, conv.bias, dilation=step)
        x = torch.relu(torch.max_pool2d(x, 2, stride=kept // spacing, dilation=step))
        spacing = kept
    reach, jump = 2 ** len(network.convs) // spacing, stride // spacing
    filters = x.shape[1]
    side = round((network.full1.in_features // filters) ** 0.5)
    weight = network.full1.weight.unflatten(1, (filters, side, side))
    if stride < FOURIER_BELOW:
        x = _correlate(x[0], weight, reach)[:, ::jump, ::jump]
    else:
        x = nn.functional.conv2d(x, weight, stride=jump, dilation=reach)[0]
    # A window whose last pixels no pooling takes leaves room for one more at the end.
    x = x[:, :rows, :columns] + network.full1.bias[:, None, None]
    return torch.relu(x).permute(1, 2, 0).cpu().numpy()


def _correlate(x: torch.Tensor, weight: torch.Tensor, reach: int) -> torch.Tensor:
    """sum_c,i,j weight[h, c, i, j] x[c, y + reach i, x + reach j], by Fourier transforms of blocks that overlap.

    Parameters
    ----------
    x : Tensor, shape (C, height, width)
    weight : Tensor, shape (H, C, K, K)

    Returns
    -------
    Tensor, shape (H, height - reach (K - 1), width - reach (K - 1))
    """
    kernel = weight.shape[2]
    size = next_fast_len(3 * kernel - 2)
    valid = size - kernel + 1
    height, width = (length - reach * (kernel - 1) for length in x.shape[1:])
    rows, columns = (ceil(ceil(length / reach) / valid) for length in (height, width))
    # A mean would be carried through the transforms only to cancel, and cost digits.
    middle = x.mean((1, 2))
    x = x - middle[:, None, None]
    down, along = (reach * (count * valid + kernel - 1) for count in (rows, columns))
    x = nn.functional.pad(x, (0, along - x.shape[2], 0, down - x.shape[1]))
    spectrum = torch.fft.rfft2(weight.flip(2, 3), (size, size)).permute(2, 3, 1, 0).flatten(0, 1)
    found = x.new_empty(len(weight), reach, rows * valid, reach, columns * valid)
    for i in range(reach):  # enough blocks at once to share what the weights cost to be read
        part = x[:, i::reach].unflatten(2, (-1, reach)).movedim(3, 1)
        blocks = part.unfold(2, size, valid).unfold(3, size, valid)  # (C, reach, rows, columns, N, N)
        f = torch.fft.rfft2(blocks.flatten(1, 3)).permute(2, 3, 1, 0).flatten(0, 1)
        product = torch.bmm(f, spectrum).unflatten(0, (size, -1)).permute(3, 2, 0, 1)
        whole = torch.fft.irfft2(product, (size, size))[:, :, kernel - 1 :, kernel - 1 :]
        whole = whole.unflatten(1, (reach, rows, columns)).permute(0, 2, 4, 1, 3, 5).flatten(4, 5)
        found[:, i] = whole.flatten(1, 2)
    whole = found.permute(0, 2, 1, 4, 3).flatten(3, 4).flatten(1, 2)
    return whole[:, :height, :width] + (weight.sum((2, 3)) @ middle)[:, None, None]
