"""Images with a part covered by mid-grey: Figures 7 and 8 and Table 1."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UsageError
from ..images import GREY, Preprocess

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels, half-open


def grey(preprocess: Preprocess) -> Tensor:
    """The network's input (3, size, size) for an even mid-grey."""
    return preprocess.tensor(Image.new("RGB", (preprocess.size, preprocess.size), (GREY, GREY, GREY)))


def cover(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The pixels (H, W, 3) uint8 with mid-grey in the box."""
    top, left, bottom, right = box
    covered = pixels.copy()
    covered[top:bottom, left:right] = GREY
    return covered


def covered(image: Tensor, filling: Tensor, boxes: Sequence[Box], size: int) -> Iterator[Tensor]:
    """Batches of the input (3, H, W), each of ``size`` copies or fewer, each copy with the filling in one of the boxes.

    A batch lies in the memory of the one before, so only what the boxes covered is written again.
    """
    batch = image.repeat(min(size, len(boxes)), 1, 1, 1)                         # (size, 3, H, W)
    for start in range(0, len(boxes), size):
        part = boxes[start:start + size]
        for row, (top, left, bottom, right) in zip(batch, part, strict=False):
            row[:, top:bottom, left:right] = filling[:, top:bottom, left:right]
        yield batch[:len(part)]
        for row, (top, left, bottom, right) in zip(batch, part, strict=False):
            row[:, top:bottom, left:right] = image[:, top:bottom, left:right]


def positions(side: int, square: int, stride: int) -> list[int]:
    """Where a square begins along a side: from 0, every ``stride`` pixels, as long as all of it lies on the image."""
    if square > side:
        raise UsageError(f"square: {square} pixels, and what the network sees has only {side}")
    return list(range(0, side - square + 1, stride))


def squares(places: Sequence[int], square: int) -> list[Box]:
    """The boxes of a square at these places along both sides, row by row."""
    return [(y, x, y + square, x + square) for y in places for x in places]


def shares(energy: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """The share of an energy (H, W) in each box (n,); zero everywhere where there is no energy."""
    sums = np.zeros((energy.shape[0] + 1, energy.shape[1] + 1))
    sums[1:, 1:] = energy.astype(np.float64).cumsum(0).cumsum(1)
    top, left, bottom, right = np.array(boxes).T
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside / sums[-1, -1] if sums[-1, -1] > 0 else np.zeros(len(boxes))


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation of two series; None where one of them is constant."""
    a, b = a.astype(np.float64) - a.mean(dtype=np.float64), b.astype(np.float64) - b.mean(dtype=np.float64)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else None


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value (n,), the mean of their ranks for equal ones: Spearman's correlation is of these."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def random_boxes(sizes: Sequence[tuple[int, int]], side: int, generator: torch.Generator) -> list[Box]:
    """A box of each size (height, width) at a random place on the image."""
    boxes = []
    for height, width in sizes:
        top = int(torch.randint(side - height + 1, (), generator=generator))
        left = int(torch.randint(side - width + 1, (), generator=generator))
        boxes.append((top, left, top + height, left + width))
    return boxes
