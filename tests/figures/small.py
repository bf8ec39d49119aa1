"""Small networks of one's own, by file and function, with snapshots and images for them."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from deconvnet.images import Preprocess

HERE = str(Path(__file__))


def build(stride: int = 2) -> nn.Module:
    """Two convolutions for images of 32 pixels."""
    return _with(conv1=nn.Conv2d(3, 10, 5, stride), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
                 conv2=nn.Conv2d(10, 8, 3, padding=1), relu2=nn.ReLU())


def coarse() -> nn.Module:
    """The same with a stride of 4."""
    return build(4)


def grey() -> nn.Module:
    """A network for images of one channel."""
    return _with(conv1=nn.Conv2d(1, 4, 5), relu1=nn.ReLU(), conv2=nn.Conv2d(4, 4, 3))


def single() -> nn.Module:
    """A network of one convolution."""
    return _with(conv1=nn.Conv2d(3, 4, 5), relu1=nn.ReLU())


def flat() -> nn.Module:
    """A network without a convolution."""
    return _with(flatten=nn.Flatten(), fc=nn.Linear(3 * 32 * 32, 4))


def blocked() -> nn.Module:
    """A network whose second layer stands above something that cannot be mirrored."""
    return _with(conv1=nn.Conv2d(3, 4, 5), bend=nn.Sigmoid(), conv2=nn.Conv2d(4, 4, 3))


def _with(**layers: nn.Module) -> nn.Module:
    net = nn.Sequential(OrderedDict(layers)).eval()
    net.preprocess = Preprocess(32, 32)
    return net


def pictures(folder: Path, count: int = 5) -> Path:
    """A folder with a few pictures of noise that is coarse enough to tell them apart."""
    folder.mkdir()
    draw = np.random.default_rng(7)
    for n in range(count):
        small = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{n}.png")
    return folder


def snapshots(folder: Path, epochs: tuple[int, ...] = (1, 2, 5)) -> Path:
    """A folder of snapshots of ``build``, each further from the first."""
    folder.mkdir()
    torch.manual_seed(3)
    net = build()
    for epoch in epochs:
        with torch.no_grad():
            for value in net.parameters():
                value.add_(0.15 * torch.randn_like(value))
        save_file(net.state_dict(), folder / f"epoch-{epoch:02}.safetensors")
    return folder
