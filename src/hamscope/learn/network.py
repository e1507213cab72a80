"""The convolutional network of III B: two convolutions with pooling, a hidden layer with dropout, seven logits.

    spins +-1 -> conv 5 x 5 -> ReLU -> max pool 2 -> conv 5 x 5 -> ReLU -> max pool 2 -> full -> ReLU -> dropout -> full

ReLU and max pool commute, so the pooling goes first and leaves ReLU a quarter of the work.

With `padding = "same"` (the paper) zeros surround the window, which in spins +-1 favour neither phase.  With "valid"
nothing is padded, so overlapping windows of a large frame see exactly the same numbers and can share them.

Dropout is keyed: which hidden units are dropped depends on the image's key alone, not on the batch it came in.  So one
worker and four train the same network.
"""

import numpy as np
import torch
from torch import nn

from hamscope.errors import UserError

_KERNEL = 5


class DomainNet(nn.Module):
    """Logits of the seven classes for symmetry-reduced windows.

    Parameters
    ----------
    window : int
        Side of the windows, in pixels.
    padding : {"valid", "same"}
    filters : (int, int)
        Filters of the two convolutions; (32, 64) in the paper.
    hidden : int
        Width of the hidden layer, which the paper does not state.
    dropout : float
        Share of the hidden units dropped in training; 0.5 in the paper.

    Raises
    ------
    UserError
        The window is too small to leave anything behind the second pooling.
    """

    def __init__(self, window: int, padding="valid", filters=(32, 64), hidden=256, dropout=0.5, classes=7):
        super().__init__()
        self.arguments = {
            "window": window, "padding": padding, "filters": list(filters), "hidden": hidden, "dropout": dropout,
            "classes": classes,
        }  # fmt: skip
        side = window
        for _ in filters:
            side = (side if padding == "same" else side - _KERNEL + 1) // 2
        if side < 1:
            raise UserError(
                f"image_size = {window}: too small for two 5 x 5 convolutions with padding {padding}; use 16 or more"
            )
        self.dropout = dropout
        self.conv1 = nn.Conv2d(1, filters[0], _KERNEL, padding=padding)
        self.conv2 = nn.Conv2d(filters[0], filters[1], _KERNEL, padding=padding)
        self.full1 = nn.Linear(filters[1] * side * side, hidden)
        self.full2 = nn.Linear(hidden, classes)

    def forward(self, images: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, 7) of `images` (B, L, L) uint8 0/1; with `keys` (B,) int64, hidden units are dropped by them."""
        # The strides of channels last, said by hand since with one channel both layouts look alike.  oneDNN then trains
        # 1.6 times and predicts 2.0 times as fast as with channels first (100 x 100, AVX-512).
        x = (2 * images.to(self.full1.weight.dtype) - 1)[..., None].permute(0, 3, 1, 2)
        x = torch.relu(torch.max_pool2d(self.conv1(x), 2))
        x = torch.relu(torch.max_pool2d(self.conv2(x), 2))
        x = torch.relu(self.full1(x.flatten(1)))
        if keys is not None and self.dropout:
            x = x * keyed_mask(keys, x.shape[1], self.dropout).to(x.dtype) / (1 - self.dropout)
        return self.full2(x)


def mix(words: torch.Tensor) -> torch.Tensor:
    """A bijective hash of 64-bit integers (the finaliser of SplitMix64, doi:10.1145/2714064.2660195)."""
    words = (words ^ ((words >> 30) & (2**34 - 1))) * -4658895280553007687
    words = (words ^ ((words >> 27) & (2**37 - 1))) * -7723592293110705685
    return words ^ ((words >> 31) & (2**33 - 1))


def image_keys(seed: int, epoch: int, images: torch.Tensor) -> torch.Tensor:
    """Dropout keys, int64 (B,), of the images with these numbers in this epoch."""
    stream = mix(torch.tensor([seed, epoch], dtype=torch.int64, device=images.device))
    return mix(mix(images.to(torch.int64) + stream[0]) ^ stream[1])


def keyed_mask(keys: torch.Tensor, units: int, dropout: float) -> torch.Tensor:
    """Which units are kept, bool (B, units): each with probability 1 - dropout, by the hash of (key, unit)."""
    unit = mix(torch.arange(1, units + 1, dtype=torch.int64, device=keys.device))
    bits = mix(keys[:, None] + unit[None, :]) & (2**32 - 1)
    return bits >= int(dropout * 2**32)


@torch.inference_mode()
def predict(network: DomainNet, images: np.ndarray, batch: int = 256) -> np.ndarray:
    """Logits, shape (N, 7) float32, of symmetry-reduced `images` (N, L, L) uint8, on the device of the network."""
    device = next(network.parameters()).device
    parts = [
        network(torch.as_tensor(images[first : first + batch], device=device)).float().cpu().numpy()
        for first in range(0, len(images), batch)
    ]
    return np.concatenate(parts) if parts else np.empty((0, network.arguments["classes"]), np.float32)
