"""The networks: a window, and what is known of the microscope, to a hidden layer and seven logits.

`PaperNet` is the network of III B, with two convolutions or more:

    spins +-1 -> [conv 5 x 5 -> ReLU -> max pool 2] x 2 -> full -> ReLU (hidden) -> dropout -> full (logits)

With `padding = "same"` (the paper) zeros surround the window, which in spins +-1 favour neither phase.  With "valid"
nothing is padded, so overlapping windows of a large frame see exactly the same numbers and can share them.  Its
images are symmetry-reduced to one of their 16 forms, or trained on in all of them.

`InvariantNet` gives the same logits for all 8 images of a window under D4 by construction, so that only the majority is
left to be turned up.  Its kernels are the same under D4 (6 numbers each instead of 25), convolution and pooling keep
that, and means over the window do away with places,

    spins +-1 -> conv 5 x 5 -> ReLU -> max pool 2 -> ... -> conv 5 x 5 -> ReLU
                      mean           mean                       mean        -> full -> ReLU -> full -> ReLU (hidden)

so the full layers see `sum(filters)` numbers a window whatever its size.  A mean over all windows of a frame is a sum
table, so no window needs large products of its own.  The full layers also see what is known of the microscope:
`condition`, three numbers a window, described in `hamscope.data.instrument`.

ReLU and max pool commute, so the pooling goes first and leaves ReLU a quarter of the work.

Dropout is keyed: which hidden units are dropped depends on the image's key alone, not on the batch it came in.  So one
worker and four train the same network.

Shape letters: B = images of a batch; L = side of a window; H = width of the hidden layer.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from hamscope.data.instrument import CONDITIONS
from hamscope.errors import UserError

_KERNEL = 5


def _spins(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Images (B, L, L) of 0 and 1 as spins (B, 1, L, L)."""
    # The strides of channels last, said by hand since with one channel both layouts look alike.  oneDNN then trains
    # 1.6 times and predicts 2.0 times as fast as with channels first (100 x 100, AVX-512).
    return (2 * images.to(dtype) - 1)[..., None].permute(0, 3, 1, 2)


class PaperNet(nn.Module):
    """Logits of the seven classes for symmetry-reduced windows, by the network of the paper.

    Parameters
    ----------
    window : int
        Side of the windows, in pixels.
    padding : {"valid", "same"}
    filters : sequence of int
        Filters of the convolutions, each followed by a pooling; (32, 64) in the paper.
    hidden : int
        Width of the hidden layer, which the paper does not state.
    dropout : float
        Share of the hidden units dropped in training; 0.5 in the paper.
    symmetry : {"reduced", "augmented"}
        How its windows are prepared; see `hamscope.data.symmetry.prepare`.

    Raises
    ------
    UserError
        The window is too small to leave anything behind the last pooling.
    """

    kind, conditioned = "paper", False

    def __init__(
        self, window: int, padding="valid", filters=(32, 64), hidden=256, dropout=0.5, classes=7, symmetry="reduced"
    ):
        super().__init__()
        self.arguments = {
            "kind": self.kind, "window": window, "padding": padding, "filters": list(filters), "hidden": hidden,
            "dropout": dropout, "classes": classes, "symmetry": symmetry,
        }  # fmt: skip
        side = window
        for _ in filters:
            side = (side if padding == "same" else side - _KERNEL + 1) // 2
        if side < 1:
            raise UserError(
                f"image_size = {window}: too small for {len(filters)} convolutions of 5 x 5 with padding {padding}; "
                "use 16 or more for two"
            )
        self.dropout = dropout
        channels = [1, *filters]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, _KERNEL, padding=padding) for a, b in zip(channels, filters))
        self.full1 = nn.Linear(filters[-1] * side * side, hidden)
        self.full2 = nn.Linear(hidden, classes)

    def standardise(self, images: torch.Tensor) -> None:
        """Nothing: spins are of order one as they are."""

    def features(self, images: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """The hidden layer (B, H) of `images` (B, L, L) uint8 0/1; it does not ask for the condition."""
        x = _spins(images, self.full1.weight.dtype)
        for conv in self.convs:
            x = torch.relu(torch.max_pool2d(conv(x), 2))
        return torch.relu(self.full1(x.flatten(1)))

    def forward(self, images, condition=None, keys=None) -> torch.Tensor:
        """Logits (B, 7); with `keys` (B,) int64, hidden units are dropped by them."""
        return self.full2(_dropped(self.features(images, condition), keys, self.dropout))


class InvariantNet(nn.Module):
    """Logits of the seven classes for windows whose majority is up; the same for all 8 images under D4.

    Parameters
    ----------
    window : int
        Side of the windows, in pixels.
    filters : sequence of int
        Filters of the convolutions; all but the last are followed by a pooling.
    hidden : int
        Width of the hidden layer; the full layer before it has twice as many.
    dropout : float
        Share of the hidden units dropped in training.

    Raises
    ------
    UserError
        The window is too small, or is not even in front of each pooling: then D4 would move the pooled squares.
    """

    kind, conditioned = "invariant", True

    def __init__(self, window: int, filters=(24, 48, 64, 64), hidden=64, dropout=0.1, classes=7, symmetry="majority"):
        super().__init__()
        self.arguments = {
            "kind": self.kind, "window": window, "filters": list(filters), "hidden": hidden, "dropout": dropout,
            "classes": classes, "symmetry": symmetry,
        }  # fmt: skip
        side = window
        for level in range(len(filters)):
            side -= _KERNEL - 1
            if side < 1 or (level < len(filters) - 1 and side % 2):
                raise UserError(
                    f"image_size = {window}: {len(filters)} invariant convolutions leave {side} pixels at the "
                    f"{level + 1}. of them, where an even number is needed; take fewer filters, or 100 pixels"
                )
            side = side // 2 if level < len(filters) - 1 else side
        self.dropout = dropout
        channels = [1, *filters]
        self.convs = nn.ModuleList(SquareConv(a, b) for a, b in zip(channels, filters))
        self.full0 = nn.Linear(1 + sum(filters) + CONDITIONS, 2 * hidden)
        self.full1 = nn.Linear(2 * hidden, hidden)
        self.full2 = nn.Linear(hidden, classes)
        # The means vary little from image to image; `standardise` finds out how little.
        self.register_buffer("shift", torch.zeros(1 + sum(filters)))
        self.register_buffer("scale", torch.ones(1 + sum(filters)))

    def means(self, images: torch.Tensor) -> torch.Tensor:
        """Means over the window of the spins and of all features, (B, 1 + sum(filters)); float64 but in training.

        They differ little between images: a rounding of float32 would be magnified by `scale`.
        """
        exact = torch.float32 if self.training else torch.float64
        x = _spins(images, self.full1.weight.dtype)
        means = [x.mean((2, 3), dtype=exact)]
        for level in range(len(self.convs)):
            x = self._level(level, x)
            means.append(x.mean((2, 3), dtype=exact))
        return torch.cat(means, 1)

    def _level(self, level: int, x: torch.Tensor) -> torch.Tensor:
        """Convolution, pooling unless it is the last, ReLU."""
        x = self.convs[level](x)
        return torch.relu(x if level == len(self.convs) - 1 else torch.max_pool2d(x, 2))

    @torch.no_grad()
    def standardise(self, images: torch.Tensor) -> None:
        """Scale the first weights by `images` (B, L, L): outputs of mean 0 and standard deviation 1 everywhere [1]_.

        Features of domains vary little from image to image; layers that begin by shrinking what varies learn slowly.

        References
        ----------
        .. [1] Mishkin and Matas (2016), arXiv:1511.06422 (here a channel each, in one pass).
        """
        x = _spins(images, self.full1.weight.dtype)
        for level, conv in enumerate(self.convs):
            found = conv(x)
            scale = 1 / found.std((0, 2, 3)).clamp(min=1e-4)
            conv.weight.mul_(scale[:, None, None])
            conv.bias.copy_((conv.bias - found.mean((0, 2, 3))) * scale)
            x = self._level(level, x)
        means = self.means(images)
        self.shift.copy_(means.mean(0))
        self.scale.copy_(1 / means.std(0).clamp(min=1e-4))

    def features(self, images: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """The hidden layer (B, H) of `images` (B, L, L) uint8 0/1 under `condition` (B, 3); None: nothing is known."""
        return self.head(self.means(images), condition)

    def head(self, means: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """The hidden layer (B, H) of windows with these `means` (B, 1 + sum(filters))."""
        x, dtype = (means - self.shift) * self.scale, self.full0.weight.dtype
        condition = x.new_zeros(len(x), CONDITIONS) if condition is None else condition.to(x.dtype)
        # Large terms that cancel: in float32 these sums would round more than all the rest.
        weight, bias = self.full0.weight.to(x.dtype), self.full0.bias.to(x.dtype)
        x = nn.functional.linear(torch.cat([x, condition], 1), weight, bias)
        return torch.relu(self.full1(torch.relu(x).to(dtype)))

    def forward(self, images, condition=None, keys=None) -> torch.Tensor:
        """Logits (B, 7); with `keys` (B,) int64, hidden units are dropped by them."""
        return self.full2(_dropped(self.features(images, condition), keys, self.dropout))


class SquareConv(nn.Module):
    """A convolution of 5 x 5 without padding whose kernels are the same under the 8 operations of the square."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        # Pixels at the same distances |row| and |column| from the middle, in either order, share a number.
        half = _KERNEL // 2
        pairs = sorted({(max(abs(r), abs(c)), min(abs(r), abs(c))) for r in range(-half, 3) for c in range(-half, 3)})
        orbit = [
            pairs.index((max(abs(r), abs(c)), min(abs(r), abs(c)))) for r in range(-half, 3) for c in range(-half, 3)
        ]
        # On the CPU by name: a network is built on "meta" before its weights are read, and these are not among them.
        self.register_buffer("orbit", torch.tensor(orbit, device="cpu"), persistent=False)
        bound = (inputs * _KERNEL**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs, len(pairs)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor, step: int = 1) -> torch.Tensor:
        """Neighbours under the kernel are `step` pixels apart."""
        kernels = self.weight[:, :, self.orbit].unflatten(2, (_KERNEL, _KERNEL))
        return nn.functional.conv2d(x, kernels, self.bias, dilation=step)


NETWORKS = {network.kind: network for network in (PaperNet, InvariantNet)}


def build(kind: str, **arguments) -> nn.Module:
    """The network of this kind; `arguments` of a card build it again."""
    return NETWORKS[kind](**arguments)


def _dropped(hidden: torch.Tensor, keys: torch.Tensor | None, dropout: float) -> torch.Tensor:
    if keys is None or not dropout:
        return hidden
    return hidden * keyed_mask(keys, hidden.shape[1], dropout).to(hidden.dtype) / (1 - dropout)


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


class Outputs(NamedTuple):
    """What a network says of W windows: `logits` (W, 7) and `hidden` (W, H), float32."""

    logits: np.ndarray
    hidden: np.ndarray


@torch.inference_mode()
def outputs(network: nn.Module, images: np.ndarray, condition: np.ndarray | None = None, batch: int = 256) -> Outputs:
    """Logits and hidden layer of prepared `images` (W, L, L) uint8, on the device of the network.

    `condition` is (W, 3), or (3,) for all of them; None where nothing is known of the microscope.
    """
    device = next(network.parameters()).device
    told = None
    if condition is not None:
        told = torch.as_tensor(np.broadcast_to(condition, (len(images), CONDITIONS)).astype(np.float32))
    logits, hidden = [], []
    for first in range(0, len(images), batch):
        part = slice(first, first + batch)
        known = None if told is None else told[part].to(device)
        hidden.append(network.features(torch.as_tensor(images[part], device=device), known))
        logits.append(network.full2(hidden[-1]))
    if not logits:
        width = network.full2.in_features
        return Outputs(np.empty((0, network.arguments["classes"]), np.float32), np.empty((0, width), np.float32))
    return Outputs(*(torch.cat(parts).float().cpu().numpy() for parts in (logits, hidden)))


@torch.inference_mode()
def last_layer(network: nn.Module, hidden: np.ndarray) -> np.ndarray:
    """The logits (W, 7) of a hidden layer (W, H), float32."""
    return network.full2(torch.as_tensor(hidden, device=network.full2.weight.device)).float().cpu().numpy()


def predict(network: nn.Module, images: np.ndarray, condition: np.ndarray | None = None, batch: int = 256):
    """The logits of `outputs`."""
    return outputs(network, images, condition, batch).logits
