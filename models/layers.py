"""What the networks are put together from: contrast normalisation, convolutional layers, the classifier."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layers = OrderedDict[str, nn.Module]


class ContrastNorm(nn.LocalResponseNorm):
    """Krizhevsky's normalisation across 5 maps: k=2, α=1e-4 undivided (torch divides by 5, hence 5e-4), β=0.75.

    While training, the sum over neighbouring maps is a 1×1 convolution with a band of ones and the power 0.75 is
    taken by square roots: the same numbers to rounding, several times as fast on a CPU. In eval mode it is one call
    of ``local_response_norm``, so that a tape sees contrast normalisation under its own name.
    """

    def __init__(self) -> None:
        super().__init__(5, alpha=5e-4, beta=0.75, k=2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x, (N, C, H, W): every activation divided by (2 + 1e-4 · its neighbours' energy)^0.75."""
        if not self.training:
            return super().forward(x)
        maps = torch.arange(x.shape[1], device=x.device)
        near = (maps[:, None] - maps).abs() <= self.size // 2                      # (C, C)
        band = near.to(x.dtype)[:, :, None, None] * (self.alpha / self.size)       # (C, C, 1, 1)
        root = torch.rsqrt(F.conv2d(x * x, band) + self.k)                         # (N, C, H, W): s^-1/2
        return x * root * torch.sqrt(root)                                         # x · s^-3/4


def convolution(n: int, layer: nn.Conv2d, batch_norm: bool = False) -> Layers:
    """Layers conv{n}, bn{n} if wanted, relu{n}. Batch normalisation is for training and not in the paper."""
    layers: Layers = OrderedDict({f"conv{n}": layer})
    if batch_norm:
        layers[f"bn{n}"] = nn.BatchNorm2d(layer.out_channels)
    layers[f"relu{n}"] = nn.ReLU(inplace=True)
    return layers


def classifier(inputs: int, hidden: Sequence[int], classes: int, batch_norm: bool = False) -> Layers:
    """Layers flatten, fc6 and fc7 (one for each width of ``hidden``) with ReLU and dropout 0.5, then fc8's scores."""
    if len(hidden) > 2:
        raise ValueError(f"hidden must be two widths at most: {tuple(hidden)}")
    layers: Layers = OrderedDict(flatten=nn.Flatten())
    for n, width in enumerate(hidden, 6):
        layers[f"fc{n}"] = nn.Linear(inputs, width)
        if batch_norm:
            layers[f"bn{n}"] = nn.BatchNorm1d(width)
        layers[f"relu{n}"] = nn.ReLU(inplace=True)
        layers[f"drop{n}"] = nn.Dropout(0.5)
        inputs = width
    layers["fc8"] = nn.Linear(inputs, classes)
    return layers
