"""A full layer at many positions of a map at once, as a correlation by Fourier transforms of blocks that overlap.

Neighbours under the kernel are `reach` positions apart (see `hamscope.learn.trous`), so the map falls into reach times
reach maps with nothing between them.  Each is cut into blocks of N x N that overlap by the kernel; the transforms of
blocks and weights are multiplied, which at each frequency is a product of matrices.  Blocks stand behind the
frequencies and channels come last, so that both the transforms and the products read what lies side by side.

Shape letters: C, H = channels in and out; K = side of the kernel; N = side of a block; B = blocks at a time;
W = windows.
"""

from math import ceil

import numpy as np
import torch
from numba import njit
from scipy.fft import fft, ifft, irfft, next_fast_len, rfft, rfft2
from torch import nn

_MOST = 2**28  # bytes that the transforms of the weights may take


class FullLayer:
    """max(sum_c,i,j weight[h, c, i, j] x[c, y + reach i, x + reach j] + bias[h], 0) of a map, on the CPU.

    Parameters
    ----------
    weight : ndarray, shape (H, C, K, K), float32
    bias : ndarray, shape (H,), float32
    reach : int
        Positions between neighbours under the kernel.
    height, width : int
        Sides of the largest map to come; one turned by 90 degrees is no larger.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray, reach: int, height: int, width: int):
        self.kernel, self.reach, self.bias, self.total = weight.shape[2], reach, bias, weight.sum((2, 3))
        positions = [ceil(length / reach) - self.kernel + 1 for length in (height, width)]
        self.size = _block(positions, *weight.shape[:3], reach)
        turned = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(2, 3, 1, 0))
        spectrum = rfft2(turned, (self.size, self.size), axes=(0, 1), workers=torch.get_num_threads())
        self.spectrum = torch.from_numpy(spectrum).flatten(0, 1)

    def at(self, x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The layer of the windows whose kernel begins at these positions of a map.

        Parameters
        ----------
        x : ndarray, shape (height, width, C), float32
        rows, columns : ndarray, shape (W,), int

        Returns
        -------
        ndarray, shape (W, H), float32
        """
        reach, lost, threads = self.reach, self.kernel - 1, torch.get_num_threads()
        valid = self.size - lost
        blocks = tuple(ceil((ceil(length / reach) - lost) / valid) for length in x.shape[:2])
        # A mean would be carried through the transforms only to cancel, and cost digits.
        middle = x.mean((0, 1))
        bias = self.bias + self.total @ middle
        found = np.empty((len(rows), len(bias)), np.float32)
        for first in range(reach):  # enough blocks at once to share what the weights cost to be read
            part = _cut(x, middle, first, reach, self.size, valid, *blocks)
            part = fft(rfft(part, axis=1, workers=threads), axis=0, overwrite_x=True, workers=threads)
            product = torch.bmm(torch.from_numpy(part).flatten(0, 1), self.spectrum).unflatten(0, (self.size, -1))
            part = ifft(product.numpy(), axis=0, overwrite_x=True, workers=threads)[lost:]
            part = irfft(part, self.size, axis=1, overwrite_x=True, workers=threads)[:, lost:]
            _take(part, bias, first, reach, valid, blocks[1], rows, columns, found)
        return found


def _block(positions: list[int], out: int, channels: int, kernel: int, reach: int) -> int:
    """The side N of the blocks that takes the least work: that of all transforms, which go with N^2."""

    def work(size: int) -> int:
        blocks = [ceil(max(count, 1) / (size - kernel + 1)) for count in positions]
        return size**2 * (reach**2 * blocks[0] * blocks[1] * (channels + out) + channels * out)

    least = next_fast_len(2 * kernel, real=True)
    sizes = {next_fast_len(size, real=True) for size in range(least, 5 * kernel + 1)} or {least}
    fitting = [size for size in sizes if 4 * size**2 * channels * out <= _MOST]
    return min(fitting or [least], key=work)


@njit(cache=True, nogil=True)
def _cut(x, middle, first, reach, size, valid, down, along):
    """Blocks (N, N, B, C) of the maps whose rows begin at `first`, less the mean of each channel; 0 beyond the map."""
    channels = x.shape[2]
    found = np.zeros((size, size, down * reach * along, channels), np.float32)
    for i in range(size):
        for r in range(down):
            y = (r * valid + i) * reach + first
            if y >= x.shape[0]:
                break
            for j in range(size):
                for s in range(along):
                    for phase in range(reach):
                        column = (s * valid + j) * reach + phase
                        if column < x.shape[1]:
                            to, line = found[i, j, (r * reach + phase) * along + s], x[y, column]
                            for c in range(channels):
                                to[c] = line[c] - middle[c]
    return found


@njit(cache=True, nogil=True)
def _take(blocks, bias, first, reach, valid, along, rows, columns, out):
    """max(value + bias, 0) of the windows whose rows are in the maps that begin at `first`, into `out` (W, H)."""
    for w in range(len(rows)):
        if rows[w] % reach != first:
            continue
        r, i = divmod(rows[w] // reach, valid)
        s, j = divmod(columns[w] // reach, valid)
        line, to = blocks[i, j, (r * reach + columns[w] % reach) * along + s], out[w]
        for h in range(len(to)):
            to[h] = max(line[h] + bias[h], np.float32(0))


def correlate(x: torch.Tensor, weight: torch.Tensor, reach: int) -> torch.Tensor:
    """The same sums at all positions, without bias, by torch, for other devices.

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
