"""Images in batches, from whatever holds them: a tensor, a Dataset, or an iterable of batches."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from .errors import UnreadableImage, UsageError
from .readers import Item, read


class Pixels(Dataset):
    """A Dataset that has its images as pixels, which become inputs of a network only when a batch is about to go in.

    What goes from process to process, and on to a GPU, is then a quarter as large. An item is what ``inputs`` makes of
    ``image``, with the label.
    """

    labels: list[int]

    def image(self, index: int) -> np.ndarray:
        """The pixels of one image, (H, W, 3) uint8. Raises UnreadableImage."""
        raise NotImplementedError

    def check_there(self) -> None:
        """Raises DeconvnetError where all images are gone at once; asked when one of them could not be read."""

    def inputs(self, pixels: Tensor) -> Tensor:
        """The network's inputs (n, 3, H, W), floating-point, of pixels (n, H, W, 3) uint8."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs(torch.from_numpy(np.array(self.image(index)))[None])[0].contiguous(), self.labels[index]


class Batch(NamedTuple):
    """Images in their slots of a forward pass; slots of unreadable images, and those left over, hold zeros."""

    images: Tensor | None  # (size, 3, H, W); None if no image could be read
    slots: list[int]       # (n,) rows that hold images
    numbers: list[int]     # (n,) the indices of those images
    labels: list[Any]      # (n,)
    unreadable: list[tuple[int, str, str]]  # index, name, reason


class _Numbered:
    """A Dataset or tensor whose items know their index, and whose unreadable images are items too."""

    def __init__(self, images: Any) -> None:
        self.images, self.pixels = images, _are_pixels(images)

    def read(self, number: int) -> Item:
        """One image."""
        try:
            item = self._pixels(number) if self.pixels else self.images[number]
        except UnreadableImage as error:
            if self.pixels:
                self.images.check_there()  # else all that are to come would be skipped, and the result stand for all
            return Item(number, unreadable=(error.name, error.reason))
        image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
        return Item(number, image, label)

    def _pixels(self, number: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.array(self.images.image(number))), self.images.labels[number]

    def name(self, number: int) -> str:
        """What an image is called."""
        files = getattr(self.images, "files", None)
        return str(files[number]) if files else f"image {number}"


def _are_pixels(images: Any) -> bool:
    """Whether images are Pixels, and their items are what Pixels makes of them."""
    return isinstance(images, Pixels) and type(images).__getitem__ is Pixels.__getitem__


def is_indexed(images: Any) -> bool:
    """Whether images can be had by number, so that there are as many as len() says."""
    return isinstance(images, Tensor) or (isinstance(images, Dataset) and not isinstance(images, IterableDataset))


def length(images: Any) -> int | None:
    """How many images there are; None if that shows only at the end."""
    return len(images) if is_indexed(images) else None


def batches(images: Any, shard: tuple[int, int], start: int, size: int, workers: int,
            device: torch.device | None = None) -> Generator[Batch]:
    """The images of a shard from its ``start``-th on, in batches, in order. Closing it ends the workers.

    Those of Pixels are inputs on the ``device``, by default on the CPU.
    """
    rank, world = shard
    if is_indexed(images):
        numbers = range(rank, len(images), world)[start:]
        chunks: Any = [numbers[i:i + size] for i in range(0, len(numbers), size)]
        numbered = _Numbered(images)
        with closing(read(numbered, chunks, 0 if isinstance(images, Tensor) else workers)) as reading:
            for items in reading:
                batch = _assemble(items, size, numbered.pixels)
                yield _as_inputs(batch, images, device) if numbered.pixels else batch
    else:
        stream = islice(_stream(images), rank + start * world, None, world)
        while chunk := list(islice(stream, size)):
            yield _assemble(chunk, size)


def _as_inputs(batch: Batch, images: Pixels, device: torch.device | None) -> Batch:
    """The batch with inputs in the place of pixels; slots without an image hold zeros as before."""
    if batch.images is None:
        return batch
    inputs = images.inputs(batch.images.to(device or "cpu"))                     # (size, 3, H, W)
    inputs[sorted({*range(len(inputs))} - {*batch.slots})] = 0
    return batch._replace(images=inputs)


def _stream(batches: Iterable) -> Iterator[Item]:
    """The images of an iterable of batches, one by one."""
    number = 0
    for batch in batches:
        images, labels = (*batch, None)[:2] if isinstance(batch, tuple | list) else (batch, None)
        if not isinstance(images, Tensor) or images.ndim not in (3, 4):
            raise UsageError(f"An iterable must give batches (n, 3, H, W), with labels or without, not {kind(images)}")
        images = images if images.ndim == 4 else images[None]  # (n, 3, H, W)
        labels = [None] * len(images) if labels is None else torch.as_tensor(labels).flatten().tolist()
        if len(labels) != len(images):
            raise UsageError(f"A batch has {len(images)} images and {len(labels)} labels")
        for image, label in zip(images, labels, strict=True):
            yield Item(number, image, label)
            number += 1


def _assemble(items: list[Item], size: int, pixels: bool = False) -> Batch:
    """A batch of ``size`` slots, each image in the slot of its place; of pixels (size, H, W, 3) or inputs.

    Raises UsageError for what is no image, or one of another size than the first.
    """
    unreadable = [(item.number, *item.unreadable) for item in items if item.unreadable]
    slots = [slot for slot, item in enumerate(items) if not item.unreadable]
    readable = [items[slot] for slot in slots]
    images = None
    if readable:
        _check(readable, pixels)
        images = torch.zeros(size, *readable[0].image.shape, dtype=readable[0].image.dtype)
        for slot, item in zip(slots, readable, strict=True):
            images[slot] = item.image
    return Batch(images, slots, [item.number for item in readable], [item.label for item in readable], unreadable)


def _check(items: list[Item], pixels: bool) -> None:
    first = items[0]
    for item in items:
        image = item.image
        if not pixels and (not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point()):
            raise UsageError(f"Image {item.number} must be a floating-point tensor (3, H, W), not {kind(image)}")
        if image.shape != first.image.shape:
            raise UsageError(unequal(first.number, first.image.shape, item.number, image.shape))


def unequal(number: int, shape: Iterable[int], other: int, other_shape: Iterable[int]) -> str:
    """What to say where two images, given by number and shape, are not of one size."""
    return (f"Images of one scan must have one size: image {number} is {tuple(shape)}, image {other} "
            f"{tuple(other_shape)}. Resize and crop them first, for instance with net.preprocess")


def kind(value: Any) -> str:
    """What a value is, for an error: dtype and shape of a tensor, else its type."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
