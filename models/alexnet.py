"""AlexNet: the network of Krizhevsky, Sutskever and Hinton 2012, which the paper's ZFNet departs from."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from .zfnet import ContrastNorm, classifier


class AlexNet(nn.Sequential):
    """Krizhevsky's network for 227×227 images: conv → ReLU → contrast normalisation → 3×3/2 max-pool.

    Args:
        classes: outputs of fc8.
        groups: 2 for the original's two towers (60,965,224 parameters), 1 for the dense replica (62,378,344).
        hidden: units of fc6 and fc7.
        norm: with contrast normalisation or without.

    Takes (N, 3, 227, 227), mean-subtracted; gives class scores (N, classes), before the softmax. The original's
    cuda-convnet took 224 pixels and rounded sizes up, which is the same as 227 and rounding down.
    """

    def __init__(self, classes: int = 1000, groups: int = 2, hidden: Sequence[int] = (4096, 4096),
                 norm: bool = True) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def norm_and_pool(n: int) -> None:
            if norm:
                layers[f"norm{n}"] = ContrastNorm()
            layers[f"pool{n}"] = nn.MaxPool2d(3, 2)

        # (N, 3, 227, 227)
        layers["conv1"] = nn.Conv2d(3, 96, 11, 4)                                # (N, 96, 55, 55)
        layers["relu1"] = nn.ReLU(inplace=True)
        norm_and_pool(1)                                                         # (N, 96, 27, 27)
        layers["conv2"] = nn.Conv2d(96, 256, 5, padding=2, groups=groups)        # (N, 256, 27, 27)
        layers["relu2"] = nn.ReLU(inplace=True)
        norm_and_pool(2)                                                         # (N, 256, 13, 13)
        layers["conv3"] = nn.Conv2d(256, 384, 3, padding=1)                      # (N, 384, 13, 13)
        layers["relu3"] = nn.ReLU(inplace=True)
        layers["conv4"] = nn.Conv2d(384, 384, 3, padding=1, groups=groups)       # (N, 384, 13, 13)
        layers["relu4"] = nn.ReLU(inplace=True)
        layers["conv5"] = nn.Conv2d(384, 256, 3, padding=1, groups=groups)       # (N, 256, 13, 13)
        layers["relu5"] = nn.ReLU(inplace=True)
        layers["pool5"] = nn.MaxPool2d(3, 2)                                     # (N, 256, 6, 6)
        layers.update(classifier(256 * 6 * 6, hidden, classes))
        super().__init__(layers)
