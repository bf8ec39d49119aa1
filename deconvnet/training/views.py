"""Views: the parts of pictures that a network is trained and tested on, and their colours."""

import math
import random
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .recipe import Recipe

SHORT_SIDE = 256
"""Pictures are kept with a short side of at most this, the paper's; sub-crops are of its central square."""

CORNERS = ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))
"""Where the paper's five sub-crops lie, in halves of the room that they leave: (down, right); the last is central."""

Box = tuple[int, int, int, int]  # top, left, bottom, right


class Pictures(Protocol):
    """Pictures (3, H, W) uint8 by number, each with the number of its class."""

    labels: list[int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


class Views(Dataset):
    """Random views of pictures: an item is ((3, size, size) uint8, label, sub-crop).

    The sub-crop is 0 … 9: one of CORNERS, plus 5 if flipped; for random views it means nothing. A view depends on
    (seed, epoch, number) alone, so that it is the same with any number of workers and processes.
    """

    def __init__(self, pictures: Pictures, recipe: Recipe, epoch: int) -> None:
        self.pictures, self.recipe, self.epoch = pictures, recipe, epoch

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        picture, recipe = self.pictures[index], self.recipe
        rng = random.Random(f"{recipe.seed}/{self.epoch}/{index}")
        if recipe.views == "random":
            corner, box = 0, any_part(picture, recipe.min_area, rng)
        else:
            corner = CORNERS.index(rng.choice(CORNERS))
            box = sub_crop(picture, corner, recipe.size(recipe.epochs - 1))
        view = cut(picture, box, recipe.size(self.epoch))                        # (3, size, size)
        flip = rng.random() < 0.5
        return (view.flip(2) if flip else view), self.pictures.labels[index], corner + 5 * flip


def cut(picture: Tensor, box: Box, size: int) -> Tensor:
    """A part of a (3, H, W) uint8 picture as (3, size, size), bilinear and antialiased."""
    top, left, bottom, right = box
    part = picture[None, :, top:bottom, left:right]                              # (1, 3, h, w)
    return F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]


def any_part(picture: Tensor, min_area: float, rng: random.Random) -> Box:
    """A box of random place, of an area between the share ``min_area`` and all, of a shape between 3:4 and 4:3."""
    height, width = picture.shape[1:]
    for _ in range(10):
        area, shape = height * width * rng.uniform(min_area, 1), math.exp(rng.uniform(-1, 1) * math.log(4 / 3))
        h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < h <= height and 0 < w <= width:
            break
    else:
        h = w = min(height, width)
    top, left = rng.randint(0, height - h), rng.randint(0, width - w)
    return top, left, top + h, left + w


def central_square(picture: Tensor) -> Box:
    """The largest square in the middle of a (3, H, W) picture."""
    height, width = picture.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return top, left, top + side, left + side


def sub_crop(picture: Tensor, corner: int, size: int) -> Box:
    """One of the paper's five sub-crops: a square of size/256 of the central square, at one of CORNERS."""
    top, left, bottom, _ = central_square(picture)
    whole = bottom - top
    side = round(whole * size / SHORT_SIDE)
    down, right = CORNERS[corner]
    top, left = top + down * (whole - side) // 2, left + right * (whole - side) // 2
    return top, left, top + side, left + side


def sub_crop_means(mean: Tensor, size: int, to: int) -> Tensor:
    """Of a mean picture (3, 256, 256) the parts that belong to the sub-crops 0 … 9: (10, 3, to, to)."""
    boxes = [sub_crop(mean, corner, size) for corner in range(len(CORNERS))]
    parts = torch.stack([cut(mean, box, to) for box in boxes])                   # (5, 3, to, to)
    return torch.cat([parts, parts.flip(3)])


def jitter(images: Tensor, strength: float, rank: int = 0, world: int = 1) -> Tensor:
    """Images (N, 3, H, W) in 0..1 with brightness, contrast, colour balance and saturation changed at random.

    They are part ``rank`` of ``world`` of a batch: numbers are drawn for all of it, so that the parts together are
    changed as the whole would be.
    """
    def around_one(channels: int, width: float) -> Tensor:
        drawn = torch.rand(len(images) * world, channels, 1, 1)[rank::world].to(images.device)
        return 1 + (drawn - 0.5) * width * strength

    contrast = around_one(1, 2) * around_one(3, 1)                               # (N, 3, 1, 1)
    changed = (images - 0.5).mul_(contrast).add_(around_one(1, 1)).sub_(0.5)     # (N, 3, H, W), in place: much faster
    grey = changed.mean(1, keepdim=True)                                         # (N, 1, H, W)
    return changed.sub_(grey).mul_(around_one(1, 2)).add_(grey)
