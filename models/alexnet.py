"""AlexNet: the network of Krizhevsky, Sutskever and Hinton 2012, which the paper's ZFNet departs from."""

from collections import OrderedDict
from collections.abc import Collection, Sequence

from torch import nn

from .layers import ContrastNorm, Layers, classifier, convolution


class AlexNet(nn.Sequential):
    """Krizhevsky's network for 227×227 images: conv → ReLU → contrast normalisation → 3×3/2 max-pool.

    Args:
        classes: outputs of fc8.
        groups: 2 for the original's two towers (60,965,224 parameters), 1 for the dense replica (62,378,344).
        hidden: units of fc6 and fc7; with one width there is no fc7, with none neither; None leaves fc8 out too.
        without: layers that are left out, of 3 and 4 (Table 3 of Zeiler and Fergus 2014).
        norm: with contrast normalisation or without.
        batch_norm: batch normalisation after conv1 … fc7, for training only; in neither paper.

    Takes (N, 3, 227, 227), mean-subtracted; gives class scores (N, classes), before the softmax. The original's
    cuda-convnet took 224 pixels and rounded sizes up, which is the same as 227 and rounding down. Raises ValueError for
    layers that cannot be left out, and more than two hidden ones.
    """

    def __init__(self, classes: int = 1000, groups: int = 2, hidden: Sequence[int] | None = (4096, 4096),
                 without: Collection[int] = (), norm: bool = True, batch_norm: bool = False) -> None:
        if not set(without) <= {3, 4}:
            raise ValueError(f"layers 3 and 4 may be left out, not {sorted(set(without) - {3, 4})}")

        def conv(n: int, layer: nn.Conv2d) -> Layers:
            return convolution(n, layer, batch_norm)

        def pool(n: int) -> Layers:
            layers: Layers = OrderedDict({f"norm{n}": ContrastNorm()} if norm and n < 5 else {})
            layers[f"pool{n}"] = nn.MaxPool2d(3, 2)
            return layers

        # (N, 3, 227, 227)
        layers = conv(1, nn.Conv2d(3, 96, 11, 4)) | pool(1)                          # (N, 96, 55, 55), (N, 96, 27, 27)
        layers |= conv(2, nn.Conv2d(96, 256, 5, padding=2, groups=groups)) | pool(2)  # (N, 256, 27, 27), (…, 13, 13)
        if 3 not in without:
            layers |= conv(3, nn.Conv2d(256, 384, 3, padding=1))                     # (N, 384, 13, 13)
        if 4 not in without:
            layers |= conv(4, nn.Conv2d(256 if 3 in without else 384, 384, 3, padding=1, groups=groups))
        inputs = 256 if {3, 4} <= set(without) else 384
        layers |= conv(5, nn.Conv2d(inputs, 256, 3, padding=1, groups=groups)) | pool(5)  # (N, 256, 6, 6)
        if hidden is not None:
            layers |= classifier(256 * 6 * 6, hidden, classes, batch_norm)
        super().__init__(layers)
