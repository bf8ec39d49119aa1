"""A small network, and a folder of pictures for it, for tests of figures."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from deconvnet.images import Preprocess

CLASSES = ["cats, felines", "dogs", "cups"]


def build(name="toy", weights=None):
    """Two convolutions and a linear layer of three classes, for images of 32 pixels, with random filters."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1),
                        nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(5 * 49, 3)).eval()
    net.preprocess, net.classes = Preprocess(32, 36), CLASSES
    return net


def unlabelled(name="toy", weights=None):
    """The same, which names no classes."""
    net = build()
    net.classes = []
    return net


def folder(path, names=("cats/1.png", "dogs/1.png", "birds/1.png", "cups/1.png"), size=(40, 50)):
    """Pictures of smooth noise, always the same, by name; the folder, for --images."""
    random = np.random.default_rng(0)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path / name)
    return str(path)
