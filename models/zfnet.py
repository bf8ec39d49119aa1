"""ZFNet: the network of Zeiler and Fergus 2014, Figure 3."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ZFNet(nn.Sequential):
    """The paper's network: conv → ReLU → 3×3/2 max-pool → contrast normalisation, all connections dense.

    At 224×224 the maps are 110, 55, 26, 13, 13, 13, 13 and 6 pixels wide, as the paper prints them. The paper gives
    sizes and not paddings; conv1 pad 1, pools in ceil mode and conv2 pad 0 give exactly those sizes.

    Args:
        classes: outputs of fc8.
        widths: feature maps of conv1 … conv5; ``(96, 256, 512, 1024, 512)`` is the paper's wide variant.
        hidden: units of fc6 and fc7.
        norm: with contrast normalisation (the paper's) or without.
        batch_norm: batch normalisation after conv1 … conv5, fc6 and fc7 (layers bn1 … bn7), for training only:
            ``deconvnet.training.fold`` removes it. Not in the paper.

    Takes (N, 3, 224, 224), mean-subtracted; gives class scores (N, classes), before the softmax.
    """

    def __init__(self, classes: int = 1000, widths: Sequence[int] = (96, 256, 384, 384, 256),
                 hidden: Sequence[int] = (4096, 4096), norm: bool = True, batch_norm: bool = False) -> None:
        one, two, three, four, five = widths
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def convolution(n: int, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
            layers[f"conv{n}"] = nn.Conv2d(inputs, outputs, kernel, stride, padding)
            if batch_norm:
                layers[f"bn{n}"] = nn.BatchNorm2d(outputs)
            layers[f"relu{n}"] = nn.ReLU(inplace=True)

        def pool_and_norm(n: int) -> None:
            layers[f"pool{n}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            if norm:
                layers[f"norm{n}"] = ContrastNorm()

        # (N, 3, 224, 224)
        convolution(1, 3, one, 7, 2, 1)        # (N, 96, 110, 110)
        pool_and_norm(1)                       # (N, 96, 55, 55)
        convolution(2, one, two, 5, 2, 0)      # (N, 256, 26, 26)
        pool_and_norm(2)                       # (N, 256, 13, 13)
        convolution(3, two, three, 3, 1, 1)    # (N, 384, 13, 13)
        convolution(4, three, four, 3, 1, 1)   # (N, 384, 13, 13)
        convolution(5, four, five, 3, 1, 1)    # (N, 256, 13, 13)
        layers["pool5"] = nn.MaxPool2d(3, 2, ceil_mode=True)  # (N, 256, 6, 6)
        layers.update(classifier(five * 6 * 6, hidden, classes, batch_norm))
        super().__init__(layers)


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


def classifier(inputs: int, hidden: Sequence[int], classes: int,
               batch_norm: bool = False) -> OrderedDict[str, nn.Module]:
    """Layers flatten, fc6 … fc8: two hidden layers with ReLU and dropout 0.5, then the class scores."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for n, width in zip((6, 7), hidden, strict=True):
        layers[f"fc{n}"] = nn.Linear(inputs, width)
        if batch_norm:
            layers[f"bn{n}"] = nn.BatchNorm1d(width)
        layers[f"relu{n}"] = nn.ReLU(inplace=True)
        layers[f"drop{n}"] = nn.Dropout(0.5)
        inputs = width
    layers["fc8"] = nn.Linear(inputs, classes)
    return layers
