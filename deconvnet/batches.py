"""Images in batches, from whatever holds them: a tensor, a Dataset, or an iterable of batches."""

import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .errors import DeconvnetError, UnreadableImage, UsageError
from .stopping import uninterrupted, wait_for_the_parent


class Pixels(Dataset):
    """A Dataset that has its images as pixels, which become inputs of a network only when a batch is about to go in.

    What goes from process to process, and on to a GPU, is then a quarter as large. An item is what ``inputs`` makes of
    ``image``, with the label.
    """

    labels: list[int]

    def image(self, index: int) -> np.ndarray:
        """The pixels of one image, (H, W, 3) uint8. Raises UnreadableImage."""
        raise NotImplementedError

    def inputs(self, pixels: Tensor) -> Tensor:
        """The network's inputs (n, 3, H, W), floating-point, of pixels (n, H, W, 3) uint8."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs(torch.from_numpy(np.array(self.image(index)))[None])[0], self.labels[index]


class _Item(NamedTuple):
    """An image as it was handed over, or why there is none."""

    number: int
    image: Any = None  # (3, H, W), or (H, W, 3) of Pixels
    label: Any = None
    unreadable: tuple[str, str] | None = None
    problem: DeconvnetError | None = None  # what keeps all images from being read


class Batch(NamedTuple):
    """Images in their slots of a forward pass; slots of unreadable images, and those left over, hold zeros."""

    images: Tensor | None  # (size, 3, H, W); None if no image could be read
    slots: list[int]       # (n,) rows that hold images
    numbers: list[int]     # (n,) the indices of those images
    labels: list[Any]      # (n,)
    unreadable: list[tuple[int, str, str]]  # index, name, reason
    problem: DeconvnetError | None = None  # what ends the scan; handed over, for an error in a worker shows a traceback


class _Numbered(Dataset):
    """A Dataset or tensor whose items know their index, and whose unreadable images are items too."""

    def __init__(self, images: Any) -> None:
        self.images, self.pixels = images, _are_pixels(images)

    def __getitem__(self, number: int) -> _Item:
        try:
            item = self._pixels(number) if self.pixels else self.images[number]
        except UnreadableImage as error:
            return _Item(number, unreadable=(error.name, error.reason))
        except DeconvnetError as error:
            return _Item(number, problem=error)
        image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
        return _Item(number, image, label)

    def _pixels(self, number: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.array(self.images.image(number))), self.images.labels[number]


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
        for batch in _read(numbered, chunks, size, 0 if isinstance(images, Tensor) else workers):
            yield _as_inputs(batch, images, device) if numbered.pixels else batch
    else:
        items = islice(_stream(images), rank + start * world, None, world)
        while chunk := list(islice(items, size)):
            yield _assemble(chunk, size)


class _Died(Exception):
    """A worker is gone that still had images to read."""


def _read(numbered: _Numbered, chunks: Sequence[Sequence[int]], size: int, workers: int) -> Generator[Batch]:
    """A batch of each chunk of images.

    Where a worker dies, for a decoder may crash or memory be short, the next batch is read once more, one image after
    the other, by another process; an image that kills a process of its own too is unreadable.
    """
    assemble, at = partial(_assemble, size=size, pixels=numbered.pixels), 0
    while at < len(chunks):
        try:
            for batch in _load(numbered, chunks[at:], assemble, workers):
                at += 1
                yield batch
        except _Died as died:
            if at == len(chunks):  # it died when all was read
                return
            warnings.warn(f"A process that read images died ({died}): some are read again, one by one", stacklevel=2)
            yield assemble(_one_by_one(numbered, chunks[at]))
            at += 1


def _one_by_one(numbered: _Numbered, numbers: Sequence[int]) -> list[_Item]:
    """The images as another process hands them over, as long as it lives; the one at which it dies is read alone."""
    items: list[_Item] = []
    while rest := [[number] for number in numbers[len(items):]]:
        try:
            for [item] in _load(numbered, rest, list, 1):
                items.append(item)
        except _Died:
            items += [_read_alone(numbered, number) for number in numbers[len(items):][:1]]  # none, if all was read
    return items


def _read_alone(numbered: _Numbered, number: int) -> _Item:
    """An image as it was handed over to a process of its own, which it may kill."""
    try:
        with closing(_load(numbered, [[number]], list, 1)) as reading:
            [item] = next(reading)
            return item
    except _Died as died:
        files = getattr(numbered.images, "files", None)
        return _Item(number, unreadable=(str(files[number]) if files else f"image {number}",
                                         f"whatever decodes it dies of it ({died})"))


def _load(numbered: _Numbered, chunks: Any, collate: Callable[[list[_Item]], Any],
          workers: int) -> Generator[Any]:
    """What is collated of each chunk. Raises _Died if a worker did. Closing it kills them, for one may hang."""
    if not workers:  # what needs no process touches none, and no signal
        yield from (collate([numbered[number] for number in chunk]) for chunk in chunks)
        return
    loader = DataLoader(numbered, batch_sampler=chunks, collate_fn=collate, num_workers=workers,
                        worker_init_fn=wait_for_the_parent,
                        generator=torch.Generator())  # its own: the caller's random numbers stay as they are
    iterator, before, waiting = None, None, False
    there: Sequence[BaseProcess] = ()

    def tell(*heard: Any) -> None:
        """In the place of torch's handler, which raises an error wherever the program is, and again and again.

        What the caller's own processes do goes on to whoever heard of it before.
        """
        nonlocal waiting
        if waiting and any(worker.exitcode for worker in there):
            waiting = False
            raise _Died(_how_they_ended(there))
        if heard and callable(before) and all(worker.exitcode is None for worker in there):
            before(*heard)

    try:
        with uninterrupted():
            iterator = iter(loader)
            there = getattr(iterator, "_workers", ())
            before = _on_deaths(tell)
        while True:
            waiting = True
            tell()  # of one that died meanwhile
            batch = next(iterator, None)
            waiting = False
            if batch is None:
                return
            yield batch
    except (RuntimeError, OSError, EOFError) as error:  # OSError, EOFError: while it handed over what it had read
        waiting = False
        if not wait([worker.sentinel for worker in there], timeout=1):
            raise
        raise _Died(_how_they_ended(there)) from error
    finally:
        waiting = False
        for worker in there:
            worker.kill()
            worker.join()
        del iterator
        _on_deaths(before)


def _on_deaths(handler: Any) -> Any:
    """Sets what is done when a process ends that this one began; what was done before, or None where that cannot be."""
    if handler is None or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return None
    return signal.signal(signal.SIGCHLD, handler)


def _how_they_ended(processes: Sequence[BaseProcess]) -> str:
    """The signal or exit code of those that have ended."""
    codes = [process.exitcode for process in processes if process.exitcode is not None]
    return ", ".join(signal.Signals(-code).name if code < 0 else f"exit code {code}" for code in codes)


def _as_inputs(batch: Batch, images: Pixels, device: torch.device | None) -> Batch:
    """The batch with inputs in the place of pixels; slots without an image hold zeros as before."""
    if batch.images is None:
        return batch
    inputs = images.inputs(batch.images.to(device or "cpu"))                     # (size, 3, H, W)
    inputs[sorted({*range(len(inputs))} - {*batch.slots})] = 0
    return batch._replace(images=inputs)


def _stream(batches: Iterable) -> Iterator[_Item]:
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
            yield _Item(number, image, label)
            number += 1


def _assemble(items: list[_Item], size: int, pixels: bool = False) -> Batch:
    """A batch of ``size`` slots, each image in the slot of its place; of pixels (size, H, W, 3) or inputs."""
    unreadable = [(item.number, *item.unreadable) for item in items if item.unreadable]
    slots = [slot for slot, item in enumerate(items) if not item.unreadable]
    readable = [items[slot] for slot in slots]
    numbers, labels = [item.number for item in readable], [item.label for item in readable]
    problem = next(filter(None, (_fault(item, readable[0], pixels) for item in readable)), None)
    images = None
    if readable and not problem:
        images = torch.zeros(size, *readable[0].image.shape, dtype=readable[0].image.dtype)
        for slot, item in zip(slots, readable, strict=True):
            images[slot] = item.image
    return Batch(images, slots, numbers, labels, unreadable, problem)


def _fault(item: _Item, first: _Item, pixels: bool) -> DeconvnetError | None:
    image = item.image
    if item.problem:
        return item.problem
    if not pixels and (not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point()):
        return UsageError(f"Image {item.number} must be a floating-point tensor (3, H, W), not {kind(image)}")
    if image.shape != first.image.shape:
        return UsageError(unequal(first.number, first.image.shape, item.number, image.shape))
    return None


def unequal(number: int, shape: Iterable[int], other: int, other_shape: Iterable[int]) -> str:
    """What to say where two images, given by number and shape, are not of one size."""
    return (f"Images of one scan must have one size: image {number} is {tuple(shape)}, image {other} "
            f"{tuple(other_shape)}. Resize and crop them first, for instance with net.preprocess")


def kind(value: Any) -> str:
    """What a value is, for an error: dtype and shape of a tensor, else its type."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
