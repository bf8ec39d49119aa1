"""ZFNet: the network of Zeiler and Fergus 2014, Figure 3, and its variants of Tables 2 and 3."""

from collections import OrderedDict
from collections.abc import Collection, Sequence

from torch import nn

from .layers import ContrastNorm, Layers, classifier, convolution


class ZFNet(nn.Sequential):
    """The paper's network: conv → ReLU → 3×3/2 max-pool → contrast normalisation, all connections dense.

    At 224×224 the maps are 110, 55, 26, 13, 13, 13, 13 and 6 pixels wide, as the paper prints them. The paper gives
    sizes and not paddings; conv1 pad 1, pools in ceil mode and conv2 pad 0 give exactly those sizes.

    Args:
        classes: outputs of fc8.
        widths: feature maps of conv1 … conv5; ``(96, 256, 512, 1024, 512)`` is the paper's wide variant.
        hidden: units of fc6 and fc7. With one width there is no fc7, with none neither (Table 3); None leaves the
            classifier out, fc8 too.
        kernel: side of conv1's filters, 7 in ZFNet and 11 in AlexNet; 5 or more, for the maps to have these sizes.
        stride: of conv1, 2 in ZFNet and 4 in AlexNet. With 4, conv2 takes every position instead of every second, as in
            AlexNet, so that the maps above have the same sizes.
        without: layers that are left out, of 2 … 5; Table 3 removes 3 and 4. Their pooling and normalisation go too.
        norm: with contrast normalisation (the paper's) or without.
        batch_norm: batch normalisation after conv1 … conv5, fc6 and fc7 (layers bn1 … bn7), for training only:
            ``deconvnet.training.build.fold`` removes it. Not in the paper.

    Takes (N, 3, 224, 224), mean-subtracted; gives class scores (N, classes), before the softmax. Raises ValueError for
    a stride other than 2 and 4, a kernel below 5, other than five widths, more than two hidden ones, and layers that
    cannot be left out.
    """

    def __init__(self, classes: int = 1000, widths: Sequence[int] = (96, 256, 384, 384, 256),
                 hidden: Sequence[int] | None = (4096, 4096), kernel: int = 7, stride: int = 2,
                 without: Collection[int] = (), norm: bool = True, batch_norm: bool = False) -> None:
        if stride not in (2, 4):
            raise ValueError(f"stride must be 2 or 4: {stride}")
        if kernel < 5:
            raise ValueError(f"kernel must be at least 5: {kernel}")
        if len(widths) != 5:
            raise ValueError(f"widths must be five: {tuple(widths)}")
        if not set(without) <= {2, 3, 4, 5}:
            raise ValueError(f"of layers 2 to 5 any may be left out, not {sorted(set(without) - {2, 3, 4, 5})}")
        maps = [3] + [0 if n in without else width for n, width in enumerate(widths, 1)]

        def conv(n: int, kernel: int, stride: int, padding: int) -> Layers:
            inputs = next(maps[below] for below in range(n - 1, -1, -1) if maps[below])
            return convolution(n, nn.Conv2d(inputs, maps[n], kernel, stride, padding), batch_norm)

        def pool(n: int) -> Layers:
            layers: Layers = OrderedDict({f"pool{n}": nn.MaxPool2d(3, 2, ceil_mode=True)})
            if norm and n < 5:
                layers[f"norm{n}"] = ContrastNorm()
            return layers

        # (N, 3, 224, 224)
        layers = conv(1, kernel, stride, (kernel - 5) // 2) | pool(1)       # (N, 96, 110, 110), (N, 96, 55, 55)
        if 2 not in without:
            layers |= conv(2, 5, 4 // stride, stride - 2) | pool(2)         # (N, 256, 26, 26), (N, 256, 13, 13)
        for n in sorted({3, 4, 5}.difference(without)):
            layers |= conv(n, 3, 1, 1)                                      # (N, 384 or 256, 13, 13)
        if 5 not in without:
            layers |= pool(5)                                               # (N, 256, 6, 6)
        if hidden is not None:
            if set(without) & {2, 5}:
                raise ValueError("without layer 2 or 5 the maps do not fit the classifier: set hidden to None")
            layers |= classifier(maps[5] * 6 * 6, hidden, classes, batch_norm)
        super().__init__(layers)
