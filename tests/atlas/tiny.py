"""A small network with everything that an atlas shows, small photographs for it, and its atlas."""

from pathlib import Path

import torch
from torch import nn

import deconvnet
from deconvnet.atlas import build, pages
from deconvnet.images import ImageFolder, Photographs, Preprocess
from deconvnet.provenance import provenance

SIDE, K, WITH, DEAD, ALWAYS = 48, 9, 40, 5, 2
LAYERS = ("conv1", "conv2", "conv3")
FIELDS = {"conv1": (5, 2, -2), "conv2": (17, 4, -8), "conv3": (41, 8, -20)}  # size, stride, start; by hand
LABELS = {"conv2": {1: "edges & <b>corners</b>", WITH - 1: "the last"}, "conv3": {0: "whole things"}}


class Tiny(nn.Sequential):
    """Three layers with pooling between; conv2 has more units than a sprite, one dead, one that always fires."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1, self.pool1 = nn.Conv2d(3, 6, 5, 2, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.conv2, self.relu2, self.pool2 = nn.Conv2d(6, WITH, 3, 1, 1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.conv3, self.relu3 = nn.Conv2d(WITH, 7, 3, 1, 1), nn.ReLU(inplace=True)
        random = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for layer, bias in ((self.conv1, 0.1), (self.conv2, 1.5), (self.conv3, 2.5)):
                layer.weight.normal_(0, 1.5 / layer.weight[0].numel() ** 0.5, generator=random)
                layer.bias.fill_(-bias)  # so that most units fire in some of the images only
            self.conv2.weight[DEAD], self.conv2.bias[DEAD] = -1, -1
            self.conv2.weight[ALWAYS].abs_()
        self.preprocess = Preprocess(SIDE, SIDE)
        self.eval()


def draw_images(folder: Path) -> None:
    """Thirty small views of photographs in folders of five classes, and one file that is no picture."""
    views = Photographs(Preprocess(SIDE), overlap=0)
    for name in ("astronaut", "chelsea", "coffee", "brick", "rocket"):
        (folder / name).mkdir(parents=True)
        for number in [n for n, file in enumerate(views.files) if file.startswith(name)][:6]:
            views.view(number).save(folder / name / f"{views.files[number]}.png")
    (folder / "astronaut" / "a broken one.png").write_bytes(b"no picture")


def open_images(folder: Path, net: nn.Module) -> ImageFolder:
    return ImageFolder(folder, net.preprocess)


def scan(net: nn.Module, images: ImageFolder, layers=LAYERS) -> deconvnet.scanned.Scan:
    origin = provenance("scan", {"top": K}, net, images, "tiny.py:Tiny", None, "photographs")
    return deconvnet.scan(net, images, layers=list(layers), k=K, provenance=origin)


def make(folder: Path, net: nn.Module, top, images, layers=LAYERS, labels=LABELS) -> Path:
    """The atlas in a folder, as ``deconvnet atlas`` makes it."""
    folder.mkdir(exist_ok=True, parents=True)
    build.build(folder, net, top, images, layers)
    pages.write(folder, pages.load(folder, labels))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file()}
