"""Little trees of images in the layouts that the tables read, and a little network for them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from deconvnet.network import load_model

SOURCE = """
from collections import OrderedDict
from torch import nn
from deconvnet.images import Preprocess

def build():
    net = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 6, 3), relu1=nn.ReLU(inplace=True), pool1=nn.MaxPool2d(2),
                                    flatten=nn.Flatten(), fc2=nn.Linear(6 * 49, 3)))
    net.classes = ["ant", "bee", "cow"]
    net.preprocess = Preprocess(16, 16)
    return net
"""
COLOURS = ((220, 60, 40), (40, 200, 60), (50, 60, 220), (200, 200, 40))


def network(folder: Path) -> str:
    """The little network, as --model takes it; it knows ants, bees and cows."""
    (folder / "tiny.py").write_text(SOURCE)
    return f"{folder / 'tiny.py'}:build"


def weights(folder: Path, name: str, scale: float = 1.0, **card: object) -> str:
    """Weights of the little network, as --weights takes them, with a card."""
    net = load_model(network(folder))
    save_file({key: value * scale for key, value in net.state_dict().items()}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(card))
    return str(folder / f"{name}.safetensors")


def picture(file: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A picture of 20×16 pixels: noise around a colour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 40, (16, 20, 3))
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(file)


def classes(root: Path, counts: dict[str, int]) -> Path:
    """A folder with so many pictures of each class, each class of a colour."""
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            picture(root / name / f"{index:04}.png", COLOURS[number % 4], 100 * number + index)
    return root


def voc(root: Path, truth: dict[str, dict[str, dict[str, int]]]) -> Path:
    """VOCdevkit/VOC2012 as torchvision lays it out, from list → class → image → −1, 0 or 1; what is there is red."""
    folder = root / "VOCdevkit" / "VOC2012"
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for number, (part, kinds) in enumerate(truth.items()):
        for kind, images in kinds.items():
            lines = [f"{image} {label:2d}" for image, label in images.items()]
            (folder / "ImageSets" / "Main" / f"{kind}_{part}.txt").write_text("\n".join(lines) + "\n")
        first = next(iter(kinds.values()))
        for seed, (image, label) in enumerate(first.items(), 100 * number):
            picture(folder / "JPEGImages" / f"{image}.jpg", COLOURS[0 if label == 1 else 1], seed)
    return root
