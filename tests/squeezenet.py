"""SqueezeNet v1.0 as trained on ImageNet, from the data at hand, as a network of one's own: a plain chain.

``deconvnet scan --model tests/squeezenet.py:build --images ../shared/data/caltech101/images …``
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deconvnet.images import Preprocess

DATA = Path(__file__).parents[1].parent / "shared" / "data"
_FILE = DATA / "squeezenet" / "squeezenet_v1.0_chain_rgb.npz"


def build() -> nn.Module:
    """The network with its weights, its thousand classes and its preprocessing."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with np.load(_FILE, allow_pickle=False) as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    def convolution(name: str, **options: int) -> None:
        weight = weights[f"{name}.weight"]
        layers[name] = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], **options)
        layers[f"{name}_relu"] = nn.ReLU(inplace=True)

    convolution("conv1", stride=2)
    layers["pool1"] = nn.MaxPool2d(3, 2)
    for fire in range(2, 10):
        convolution(f"fire{fire}_squeeze")
        convolution(f"fire{fire}_expand", padding=1)
        if fire in (4, 8):
            layers[f"pool{fire}"] = nn.MaxPool2d(3, 2)
    convolution("conv10", padding=1)
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    net = nn.Sequential(layers)
    net.load_state_dict(weights)
    net.classes = [line.split(" ", 1)[1].strip() for line in (DATA / "squeezenet/classes.txt").read_text().splitlines()]
    net.preprocess = Preprocess(227, 256, tuple(m / 255 for m in (123, 117, 104)), (1 / 255,) * 3)
    return net
