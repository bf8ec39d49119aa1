"""One pass over any number of images: the strongest activations of every unit of every layer, and what else it shows.

Memory does not grow with the number of images, but for the list of their names. The result is the same for any worker
count, split into shards and resume point, and for any batch size as far as the network computes the same (kernels may
round differently for another batch size, which is why every batch is filled up to the same size).
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm

from .errors import DeconvnetError, UnreadableImage, UsageError
from .files import write_whole
from .tape import count_calls, resolve, watch
from .topk import Found, NotFinite, TopK

ALWAYS = 0.99  # a unit that fires in at least this share of the images tells them apart badly


# ---- the result ----


@dataclass
class LayerScan:
    """What a scan knows of one layer with U units.

    Attributes:
        top: the strongest activations; ``values``, ``images`` and ``positions`` are its fields.
        fired: in how many images each unit fires, that is, has an activation above zero (U,) int64.
        class_sums: for each class the sum over its images of each unit's strongest activation (classes, U) float64.
        class_counts: images of each class (classes,) int64.
        count: images seen.
    """

    top: TopK
    fired: Tensor
    class_sums: Tensor
    class_counts: Tensor
    count: int = 0

    @classmethod
    def blank(cls, units: int, k: int, dtype: torch.dtype = torch.float32, classes: int = 0) -> "LayerScan":
        """A layer of which no image has been seen."""
        sums = torch.zeros(classes, units, dtype=torch.float64)
        return cls(TopK(units, k, dtype), torch.zeros(units, dtype=torch.int64), sums, torch.zeros(classes).long())

    @property
    def values(self) -> Tensor:
        """The strongest activations (U, k), descending; 0 where there are fewer than k."""
        return self.top.values

    @property
    def images(self) -> Tensor:
        """The index of the image of each (U, k) int64; −1 where there are fewer than k."""
        return self.top.images

    @property
    def positions(self) -> Tensor:
        """Where in the feature map each is, (y, x), (U, k, 2) int64; −1 where there are fewer than k."""
        return self.top.positions

    @property
    def maximum(self) -> Tensor:
        """The strongest activation of each unit (U,); 0 if it never fires."""
        return self.top.values[:, 0]

    @property
    def fires(self) -> Tensor:
        """The share of the images in which each unit fires (U,) float32, 0..1."""
        return (self.fired.double() / max(self.count, 1)).float()

    @property
    def dead(self) -> Tensor:
        """The units that fire in no image (D,) int64."""
        return (self.fired == 0).nonzero()[:, 0]

    @property
    def always(self) -> Tensor:
        """The units that fire in at least 99 % of the images (A,) int64: they tell images apart badly."""
        return (self.fired >= max(ALWAYS * self.count, 1)).nonzero()[:, 0]

    @property
    def class_means(self) -> Tensor:
        """For each class the mean over its images of each unit's strongest activation (classes, U) float32.

        An image in which the unit does not fire counts as 0. A class without images has a row of zeros.
        """
        return (self.class_sums / self.class_counts.clamp(min=1)[:, None]).float()

    @property
    def preferred(self) -> Tensor:
        """The class with the highest of the class means, for each unit (U,) int64; −1 if there is none above zero."""
        if not len(self.class_sums):
            return torch.full_like(self.fired, -1)
        means = self.class_sums / self.class_counts.clamp(min=1)[:, None]  # (classes, U)
        return torch.where(means.amax(0) > 0, means.argmax(0), -1)

    @property
    def selectivity(self) -> Tensor:
        """How far each unit prefers one class, 0 (all alike) to 1 (fires for one class only), (U,) float32.

        (μ_max − μ_rest) / (μ_max + μ_rest): the highest class mean against the mean of the other class means (Morcos et
        al. 2018, "On the importance of single directions for generalization"). 0 for a dead unit, and for all units
        where fewer than two classes have images.
        """
        seen = self.class_counts > 0  # (classes,)
        if seen.sum() < 2:
            return torch.zeros(len(self.fired))
        means = self.class_sums[seen] / self.class_counts[seen, None]  # (seen classes, U)
        highest = means.amax(0)  # (U,)
        rest = (means.sum(0) - highest) / (len(means) - 1)
        return torch.where(highest > 0, (highest - rest) / (highest + rest), 0.0).float()

    def keep(self, found: Found, labels: Tensor) -> None:
        """Take in what was found in a batch; ``labels`` (N,) int64 are the classes of its images, −1 for none."""
        self.top.keep(found)
        self.count += len(found.maxima)
        self.fired += (found.maxima > 0).sum(0)
        self._widen(int(labels.max()) + 1)
        known = labels >= 0  # (N,)
        self.class_sums.index_add_(0, labels[known], found.maxima[known].double().clamp(min=0))
        self.class_counts += torch.bincount(labels[known], minlength=len(self.class_counts))

    def merge(self, other: "LayerScan") -> "LayerScan":
        """The two together, seen over different images."""
        both = LayerScan(TopK.from_state(self.top.state()), self.fired + other.fired, self.class_sums.clone(),
                         self.class_counts.clone(), self.count + other.count)
        both.top.merge(other.top)
        both._widen(len(other.class_sums))
        both.class_sums[:len(other.class_sums)] += other.class_sums
        both.class_counts[:len(other.class_counts)] += other.class_counts
        return both

    def _widen(self, classes: int) -> None:
        more = max(classes - len(self.class_sums), 0)
        self.class_sums = torch.cat([self.class_sums, self.class_sums.new_zeros(more, self.class_sums.shape[1])])
        self.class_counts = torch.cat([self.class_counts, self.class_counts.new_zeros(more)])

    def _state(self) -> dict[str, Tensor]:
        rest = {"fired": self.fired, "class_sums": self.class_sums, "class_counts": self.class_counts}
        return self.top.state() | rest


@dataclass(eq=False, repr=False)
class Scan(Mapping[str, LayerScan]):
    """What a scan found, by layer: ``top["conv5"].values``.

    Attributes:
        layers: a LayerScan for each layer, in the order of the network.
        k: activations kept of each unit.
        per_image: positions of one image that may be among them.
        count: images seen, without those that could not be read.
        files: names of the images by index, if the images came with names.
        classes: names of the classes by label, if they came with names.
        labels: the class of each image, −1 for none, if they came as a list.
        unreadable: (name, reason) of the images that could not be read, by index.
        shards: the parts (rank, world) of the images that were gone through: image i is in part i mod world.
        provenance: what the caller said about network and images.
    """

    layers: dict[str, LayerScan]
    k: int = 9
    per_image: int = 1
    count: int = 0
    files: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    unreadable: dict[int, tuple[str, str]] = field(default_factory=dict)
    shards: list[tuple[int, int]] = field(default_factory=lambda: [(0, 1)])
    provenance: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, layer: str) -> LayerScan:
        if layer not in self.layers:
            resolve(layer, count_calls(self.layers))  # says what there is, or which calls
            raise UsageError(f"{layer!r} is not in this scan, which holds: {', '.join(self.layers)}")
        return self.layers[layer]

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"Scan of {self.count} images: " + ", ".join(f"{n} ({len(s.fired)})" for n, s in self.layers.items())

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Name and reason of each image that could not be read, in the order of the images."""
        return [self.unreadable[index] for index in sorted(self.unreadable)]

    def merge(self, other: "Scan") -> "Scan":
        """Both together: scans of different shards of the same images by the same network.

        All shards merged, in any order, equal one pass; only the last bits of sums over a class may differ. Raises
        UsageError where the scans do not belong together or hold the same images.
        """
        self._check_alike(other)
        layers = dict(self.layers or other.layers)
        for name in layers if self.layers and other.layers else ():
            layers[name] = self.layers[name].merge(other.layers[name])
        shards = sorted(self.shards + other.shards)
        if shards == [(rank, len(shards)) for rank in range(len(shards))]:
            shards = [(0, 1)]
        unreadable = dict(sorted((self.unreadable | other.unreadable).items()))
        return Scan(layers, self.k, self.per_image, self.count + other.count, self.files, self.classes, self.labels,
                    unreadable, shards, self.provenance)

    def save(self, path: str | Path) -> None:
        """Write the scan to a file, for ``read_scan``: beside it first, then in its place, so it is whole or not there.

        Raises DeconvnetError where that is not possible.
        """
        write_whole(Path(path), _encode(self))

    def _check_alike(self, other: "Scan") -> None:
        keys = ["k", "per_image", "files", "classes", "labels", "provenance"]
        differ = [key for key in keys if getattr(self, key) != getattr(other, key)]
        if self.layers and other.layers and list(self.layers) != list(other.layers):
            differ.append("layers")
        if differ:
            raise UsageError(f"These scans do not belong together: {', '.join(differ)} differ")
        for rank, world in self.shards:
            for rank2, world2 in other.shards:
                if (rank - rank2) % gcd(world, world2) == 0:
                    raise UsageError(f"Both scans hold the same images: part {rank} of {world}, {rank2} of {world2}")


# ---- the pass ----


def scan(net: nn.Module, images: Tensor | Dataset | Iterable, layers: Sequence[str] | None = None, k: int = 9, *,
         batch_size: int = 32, workers: int = 0, per_image: int = 1, device: str | torch.device | None = None,
         shard: tuple[int, int] = (0, 1), strict: bool = False, progress: bool = False,
         provenance: Mapping[str, Any] | None = None, checkpoint: str | Path | None = None,
         every: float = 20.0) -> Scan:
    """The k strongest activations of every unit of the layers, from one forward pass over the images.

    An activation is the positive part of what the named module puts out, at the moment it returns: ``conv5`` and
    ``relu5`` name the same, in-place ReLU or not.

    Args:
        net: any network, in eval mode. It is left as it was found.
        images: a tensor (N, 3, H, W); a torch Dataset of images (3, H, W) or (image, label); or an iterable of batches
            (n, 3, H, W) or (batch, labels). All of one size. Its ``files``, ``classes`` and ``labels``, if it has them,
            go into the result. An image whose ``__getitem__`` raises UnreadableImage is skipped, named and counted.
        layers: names as ``named_modules()`` gives them; by default every Conv2d and Linear.
        k: activations to keep of each unit.
        batch_size: images per forward pass; the last is filled up with zero images, which are not looked at.
        workers: processes that read a Dataset; tensors and iterables are read in this one.
        per_image: positions of one image that may be kept; 1 is the paper's, the strongest of each image.
        device: where to compute; by default where the network is.
        shard: (rank, world): only images rank, rank + world, rank + 2·world …; see ``Scan.merge``.
        strict: raise UnreadableImage at the first image that cannot be read.
        progress: show a progress bar.
        provenance: what to remember about network and images; plain data that JSON can hold.
        checkpoint: a file in which the state is kept while the scan runs, and from which the same call goes on after
            an interruption, to the same result. It is deleted at the end.
        every: seconds between two checkpoints.

    Raises UsageError for wrong arguments, a layer that does not exist, no images, images of different sizes; and
    DeconvnetError, naming layer and image, where an activation is NaN or infinite.
    """
    _check_arguments(k=k, per_image=per_image, batch_size=batch_size, workers=workers, shard=shard)
    _check_mode(net)
    blank = _blank(images, k, per_image, shard, provenance)
    wanted = [layers] if isinstance(layers, str) else layers
    store = _Checkpoint(checkpoint, every)
    if checkpoint is not None:
        store.fingerprint = _fingerprint(net, images, blank, layers=wanted, batch_size=batch_size)
    result = store.load() or blank
    with _placed(net, device) as place, _bar(progress, images, shard) as bar:
        batches = _batches(images, shard, result.count + len(result.unreadable), batch_size, workers)
        with closing(batches), torch.no_grad(), store.kept(result):
            bar.update(result.count + len(result.unreadable))
            _go_through(_Forward(net, wanted, place), batches, result, strict, store, bar)
    _check_seen(result, images)
    store.remove()
    return result


def _go_through(forward: "_Forward", batches: Iterator["_Batch"], result: Scan, strict: bool, store: "_Checkpoint",
                bar: tqdm) -> None:
    """Take every batch into the result."""
    shape: torch.Size | None = None
    if strict and result.unreadable:  # skipped before an interruption
        raise UnreadableImage(*result.skipped[0])
    for batch in batches:
        _check_batch(batch, result, shape, strict)
        found: dict[str, Found] = {}
        if batch.images is not None:
            shape = batch.images.shape[1:]
            found = forward(batch, result)
        labels = torch.tensor([_label(n, label, result) for n, label in zip(batch.numbers, batch.labels, strict=True)])
        with store.busy():
            for layer, offer in found.items():
                result.layers[layer].keep(offer, labels)
            result.count += len(batch.numbers)
            result.unreadable.update({number: (name, reason) for number, name, reason in batch.unreadable})
        store.save_if_due(result)
        bar.update(len(batch.numbers) + len(batch.unreadable))


class _Enough(Exception):
    """All layers have been seen: the rest of the network need not run."""


class _Forward:
    """A forward pass that finds what each layer has to offer, on its way."""

    def __init__(self, net: nn.Module, layers: Sequence[str] | None, device: torch.device) -> None:
        self.net, self.layers, self.device = net, layers, device
        self.dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), None)
        self.names: dict[str, str] = {}  # as ``watch`` says it → as the user says it

    def __call__(self, batch: "_Batch", result: Scan) -> dict[str, Found]:
        """What each layer has to offer, by name. At the first batch the layers are laid out in the result."""
        assert batch.images is not None
        images = batch.images.to(self.device, self.dtype)  # (size, 3, H, W)
        rows = batch.slots if batch.unreadable else slice(len(batch.slots))
        numbers = torch.tensor(batch.numbers)  # (n,)
        if not self.names:
            self._lay_out(images[batch.slots[:1]], result)
        found: dict[str, Found] = {}

        def take(name: str, output: Tensor) -> None:
            if name in self.names:
                layer = self.names[name]
                _check_output(layer, output, len(images))
                try:
                    found[layer] = result.layers[layer].top.look(output[rows], numbers, result.per_image)
                except NotFinite as error:
                    raise _not_finite(layer, error.image, batch, result) from error
                if len(found) == len(self.names):
                    raise _Enough

        with watch(self.net, take), suppress(_Enough):
            self.net(images)
        return found

    def _lay_out(self, image: Tensor, result: Scan) -> None:
        """Find out, with one image, which layers there are, how often each is called and how many units it has."""
        outputs: dict[str, Tensor] = {}
        with watch(self.net, outputs.__setitem__):
            self.net(image)
        calls = count_calls(outputs)
        if self.layers is None:
            kinds = {name for name, module in self.net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
            chosen = [name for name in outputs if name.split("#")[0] in kinds]
        else:
            chosen = [resolve(layer, calls) for layer in self.layers]
        if not chosen:
            raise UsageError(f"No layers to scan: give names. The layers are: {', '.join(calls)}")
        for name in sorted(chosen, key=list(outputs).index):
            layer = name if "#" in name or calls[name] == 1 else f"{name}#1"
            self.names[name] = layer
            _check_output(layer, outputs[name], 1)
            if layer not in result.layers:
                units, dtype = outputs[name].shape[1], outputs[name].dtype
                result.layers[layer] = LayerScan.blank(units, result.k, dtype, len(result.classes))


@contextmanager
def _placed(net: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """The network on a device, and back where it was afterwards."""
    home = next((t.device for t in (*net.parameters(), *net.buffers())), torch.device("cpu"))
    try:
        place = home if device is None else torch.device(device)
        if place != home:
            net.to(place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"Device {str(device)!r} cannot be used: {error}") from error
    try:
        yield place
    finally:
        if place != home:
            net.to(home)


def _bar(progress: bool, images: Any, shard: tuple[int, int]) -> tqdm:
    total = _length(images)
    mine = None if total is None else len(range(shard[0], total, shard[1]))
    return tqdm(total=mine, unit=" images", disable=not progress)


# ---- images, from whatever holds them ----


class _Item(NamedTuple):
    """An image as it was handed over, or why there is none."""

    number: int
    image: Any = None  # (3, H, W)
    label: Any = None
    unreadable: tuple[str, str] | None = None


class _Batch(NamedTuple):
    """Images in their slots of a forward pass; slots of unreadable images, and those left over, hold zeros."""

    images: Tensor | None  # (size, 3, H, W); None if no image could be read
    slots: list[int]       # (n,) rows that hold images
    numbers: list[int]     # (n,) the indices of those images
    labels: list[Any]      # (n,)
    unreadable: list[tuple[int, str, str]]  # index, name, reason
    problem: str = ""      # what is wrong with the images; said here, for an error from a worker shows a traceback


class _Numbered(Dataset):
    """A Dataset or tensor whose items know their index, and whose unreadable images are items too."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __getitem__(self, number: int) -> _Item:
        try:
            item = self.images[number]
        except UnreadableImage as error:
            return _Item(number, unreadable=(error.name, error.reason))
        image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
        return _Item(number, image, label)


def _is_indexed(images: Any) -> bool:
    return isinstance(images, Tensor) or (isinstance(images, Dataset) and not isinstance(images, IterableDataset))


def _length(images: Any) -> int | None:
    """How many images there are; None if that shows only at the end."""
    return len(images) if _is_indexed(images) else None


def _batches(images: Any, shard: tuple[int, int], start: int, size: int, workers: int
             ) -> Generator[_Batch]:
    """The images of a shard from its ``start``-th on, in batches, in order. Closing it ends the workers."""
    rank, world = shard
    if _is_indexed(images):
        numbers = range(rank, len(images), world)[start:]
        chunks: Any = [numbers[i:i + size] for i in range(0, len(numbers), size)]
        yield from DataLoader(_Numbered(images), batch_sampler=chunks, collate_fn=partial(_assemble, size=size),
                              num_workers=0 if isinstance(images, Tensor) else workers,
                              generator=torch.Generator())  # its own: the caller's random numbers stay as they are
    else:
        items = islice(_stream(images), rank + start * world, None, world)
        while chunk := list(islice(items, size)):
            yield _assemble(chunk, size)


def _stream(batches: Iterable) -> Iterator[_Item]:
    """The images of an iterable of batches, one by one."""
    number = 0
    for batch in batches:
        images, labels = (*batch, None)[:2] if isinstance(batch, tuple | list) else (batch, None)
        if not isinstance(images, Tensor) or images.ndim not in (3, 4):
            raise UsageError(f"An iterable must give batches (n, 3, H, W), with labels or without, not {_kind(images)}")
        images = images if images.ndim == 4 else images[None]  # (n, 3, H, W)
        labels = [None] * len(images) if labels is None else torch.as_tensor(labels).flatten().tolist()
        if len(labels) != len(images):
            raise UsageError(f"A batch has {len(images)} images and {len(labels)} labels")
        for image, label in zip(images, labels, strict=True):
            yield _Item(number, image, label)
            number += 1


def _assemble(items: list[_Item], size: int) -> _Batch:
    """A batch of ``size`` slots, each image in the slot of its place."""
    unreadable = [(item.number, *item.unreadable) for item in items if item.unreadable]
    slots = [slot for slot, item in enumerate(items) if not item.unreadable]
    readable = [items[slot] for slot in slots]
    numbers, labels = [item.number for item in readable], [item.label for item in readable]
    problem = next(filter(None, (_fault(item, readable[0]) for item in readable)), "")
    images = None
    if readable and not problem:
        images = torch.zeros(size, *readable[0].image.shape, dtype=readable[0].image.dtype)  # (size, 3, H, W)
        for slot, item in zip(slots, readable, strict=True):
            images[slot] = item.image
    return _Batch(images, slots, numbers, labels, unreadable, problem)


def _fault(item: _Item, first: _Item) -> str:
    image = item.image
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
        return f"Image {item.number} must be a floating-point tensor (3, H, W), not {_kind(image)}"
    if image.shape != first.image.shape:
        return _sizes(first.number, first.image.shape, item.number, image.shape)
    return ""


def _sizes(number: int, shape: Iterable[int], other: int, other_shape: Iterable[int]) -> str:
    return (f"Images of one scan must have one size: image {number} is {tuple(shape)}, image {other} "
            f"{tuple(other_shape)}. Resize and crop them first, for instance with net.preprocess")


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


# ---- what is refused ----


def _check_arguments(k: int, per_image: int, batch_size: int, workers: int, shard: tuple[int, int]) -> None:
    for name, value, least in (("k", k, 1), ("per_image", per_image, 1), ("batch_size", batch_size, 1),
                               ("workers", workers, 0), ("world of shard", shard[1], 1)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    if not 0 <= shard[0] < shard[1]:
        raise UsageError(f"shard is (rank, world) with rank from 0 to world − 1, not {shard}")


def _check_mode(net: nn.Module) -> None:
    """Refuse a network whose answer for one image would depend on chance or on the other images of its batch."""
    for name, module in net.named_modules():
        who = f"{name or 'The network'} ({type(module).__name__})"
        if isinstance(module, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm) and module.training:
            raise UsageError(f"{who} is in training mode: call net.eval() before the scan")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UsageError(f"{who} normalises each image by the batch it is in: it needs track_running_stats=True")


def _check_batch(batch: _Batch, result: Scan, shape: torch.Size | None, strict: bool) -> None:
    if strict and batch.unreadable:
        raise UnreadableImage(*batch.unreadable[0][1:])
    if batch.problem:
        raise UsageError(batch.problem)
    if batch.images is not None and shape not in (None, batch.images.shape[1:]):
        raise UsageError(_sizes(result.shards[0][0], shape or (), batch.numbers[0], batch.images.shape[1:]))


def _check_output(layer: str, output: Tensor, images: int) -> None:
    if output.ndim not in (2, 4) or len(output) != images or not output.is_floating_point():
        raise UsageError(f"Layer {layer!r} puts out {_kind(output)} for {images} images, but a scan needs "
                         "(N, units, H, W) or (N, units). Name the layers that have it: layers=[…]")


def _label(number: int, label: Any, result: Scan) -> int:
    """The class of an image, −1 for none: the label that came with it, or else that of the list."""
    if label is None:
        label = result.labels[number] if result.labels else -1
    try:
        value = max(int(label), -1)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The label of image {number} must be a class number, not {_kind(label)}") from error
    if result.classes and value >= len(result.classes):
        raise UsageError(f"Image {number} has label {value}, but there are {len(result.classes)} classes")
    return value


def _not_finite(layer: str, number: int, batch: _Batch, result: Scan) -> DeconvnetError:
    assert batch.images is not None
    name = f" ({result.files[number]})" if result.files else ""
    whole = batch.images[batch.slots[batch.numbers.index(number)]].isfinite().all()
    cause = f"look at the weights of {layer} and of the layers before it" if whole else "so does the image itself"
    return DeconvnetError(f"Layer {layer!r} puts out NaN or infinity for image {number}{name}: {cause}")


def _check_seen(result: Scan, images: Any) -> None:
    if result.count or (result.shards != [(0, 1)] and _length(images) != 0):  # a shard may be empty
        return
    if not result.unreadable:
        raise UsageError("There are no images to scan")
    name, reason = result.skipped[0]
    raise UsageError(f"None of the {len(result.unreadable)} images could be read; the first is {name}: {reason}")


def _blank(images: Any, k: int, per_image: int, shard: tuple[int, int], provenance: Mapping[str, Any] | None) -> Scan:
    """A scan that has seen no image, with the names that the images bring along."""
    try:
        facts = json.loads(json.dumps(dict(provenance or {})))
    except (TypeError, ValueError) as error:
        raise UsageError(f"provenance must be plain data that JSON can hold: {error}") from error
    if isinstance(images, Tensor) and images.ndim != 4:
        raise UsageError(f"A tensor of images must be (N, 3, H, W), not {_kind(images)}")
    if not (_is_indexed(images) or isinstance(images, Iterable)):
        raise UsageError(f"images must be a tensor, a Dataset or an iterable of batches, not {_kind(images)}")
    files = [os.fspath(file) for file in getattr(images, "files", ())]
    classes = [str(name) for name in getattr(images, "classes", ())]
    labels = [int(label) for label in getattr(images, "labels", ())]
    for name, given in (("files", files), ("labels", labels)):
        if given and len(given) != (_length(images) or len(given)):
            raise UsageError(f"The data set has {_length(images)} images, but {len(given)} {name}")
    return Scan({}, k, per_image, 0, files, classes, labels, {}, [(shard[0], shard[1])], facts)


# ---- files ----

_MARK = b'{"__metadata__":{"deconvnet":"sha256:'  # how the header of a scan begins; then 64 digits, a space, and JSON
_FORMAT = 1


def read_scan(path: str | Path) -> Scan:
    """The scan in a file that ``Scan.save`` wrote.

    Raises DeconvnetError, naming the file and what to do, where there is no such file, or it is something else, cut off
    or changed by as little as a bit.
    """
    return _decode(_read(Path(path)), path)[0]


def _encode(scan: Scan, **more: Any) -> bytes:
    """A scan as a safetensors file; the same scan gives the same bytes. The SHA-256 is that of the rest of the file."""
    tensors = {f"{name}.{key}": t.contiguous() for name, s in scan.layers.items() for key, t in s._state().items()}
    lists = {"files": scan.files, "classes": scan.classes, "labels": scan.labels,
             "unreadable": [(number, *why) for number, why in scan.unreadable.items()]}
    text = json.dumps(lists).encode("ascii")  # any name fits: what is not ASCII, or not even text, is escaped
    tensors["lists"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    about = {"format": _FORMAT, "layers": list(scan.layers), "k": scan.k, "per_image": scan.per_image,
             "count": scan.count, "shards": scan.shards, "provenance": scan.provenance, **more}
    # one key only, for safetensors writes several in a random order
    data = safetensors.torch.save(tensors, {"deconvnet": f"sha256:{'0' * 64} {json.dumps(about)}"})
    start = data.index(_MARK) + len(_MARK)
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + 64:]


def _decode(data: bytes, path: str | Path) -> tuple[Scan, dict[str, Any]]:
    """The scan in the bytes of a file, and all that its header says."""
    start = 8 + len(_MARK)
    if data[8:start] != _MARK:
        raise DeconvnetError(f"{path} is not a scan, or is damaged: give a file that deconvnet scan wrote")
    if hashlib.sha256(data[:start] + b"0" * 64 + data[start + 64:]).hexdigest().encode() != data[start:start + 64]:
        raise DeconvnetError(f"{path} is damaged or cut off: its SHA-256 does not fit. Copy it again from where it "
                             "came, or repeat the scan")
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["deconvnet"].partition(" ")[2])
    if about["format"] != _FORMAT:
        raise DeconvnetError(f"{path} has format {about['format']}, and this version reads {_FORMAT}: install the "
                             "version of deconvnet that wrote it, or repeat the scan")
    tensors = safetensors.torch.load(data)
    lists = json.loads(bytes(tensors["lists"].tolist()))

    def layer(name: str) -> LayerScan:
        part = {key: tensors[f"{name}.{key}"] for key in ("values", "images", "positions")}
        fired, sums, counts = (tensors[f"{name}.{key}"] for key in ("fired", "class_sums", "class_counts"))
        return LayerScan(TopK.from_state(part), fired, sums, counts, about["count"])

    unreadable = {number: (name, reason) for number, name, reason in lists["unreadable"]}
    return Scan({name: layer(name) for name in about["layers"]}, about["k"], about["per_image"], about["count"],
                lists["files"], lists["classes"], lists["labels"], unreadable,
                [(rank, world) for rank, world in about["shards"]], about["provenance"]), about


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeconvnetError(f"{path} cannot be read: {error.strerror or error}. Give a file that deconvnet scan wrote"
                             ) from error


# ---- going on after an interruption ----


class _Checkpoint:
    """The state of a scan in a file, so that the same scan can go on from there. Without a path it does nothing."""

    def __init__(self, path: str | Path | None, every: float) -> None:
        self.path = None if path is None else Path(path)
        self.every = every
        self.fingerprint: dict[str, Any] = {}
        self._saved = time.monotonic()
        self._whole = True  # no batch is half taken in
        self._done = 0

    def load(self) -> Scan | None:
        """The state in the file, or None if there is none. Raises UsageError if it is that of another scan."""
        if self.path is None or not self.path.exists():
            return None
        try:
            scan, about = _decode(_read(self.path), self.path)
        except DeconvnetError as error:
            warnings.warn(f"The scan begins again, for it cannot go on: {error}", stacklevel=3)
            return None
        there, here = about.get("fingerprint", {}), self.fingerprint
        differ = [f"  {key}: {there.get(key)} there, {here.get(key)} here" for key in sorted({*there, *here})
                  if there.get(key) != here.get(key)]
        if differ:
            raise UsageError("\n".join([f"{self.path} is the state of another scan:", *differ,
                                        "Delete the file to begin anew"]))
        self._done = scan.count + len(scan.unreadable)
        return scan

    @contextmanager
    def kept(self, scan: Scan) -> Iterator[None]:
        """Save the state if the block is left early, by Ctrl-C or an error."""
        try:
            yield
        except BaseException:
            if self._whole and scan.count + len(scan.unreadable) > self._done:
                self._save(scan)
            raise

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a batch is taken in; if it is left early, the state is not fit to be saved."""
        self._whole = False
        yield
        self._whole = True

    def save_if_due(self, scan: Scan) -> None:
        """Save the state if the last time is long ago."""
        if time.monotonic() - self._saved >= self.every:
            self._save(scan)

    def remove(self) -> None:
        """Delete the file, the scan being done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _save(self, scan: Scan) -> None:
        if self.path is not None:
            write_whole(self.path, _encode(scan, fingerprint=self.fingerprint))
        self._saved, self._done = time.monotonic(), scan.count + len(scan.unreadable)


def _fingerprint(net: nn.Module, images: Any, blank: Scan, **settings: Any) -> dict[str, Any]:
    """What must be the same for a scan to go on: the caller's provenance, the settings, the weights, the images."""
    weights = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        weights.update(f"{name} {_kind(tensor)}".encode())
        if isinstance(tensor, Tensor):  # a module may keep something else in its extra state
            weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    names = hashlib.sha256(json.dumps([blank.files, blank.classes, blank.labels]).encode()).hexdigest()
    facts = {"k": blank.k, "per_image": blank.per_image, "shard": list(blank.shards[0]), "images": _length(images),
             "names": names, "weights": weights.hexdigest()}
    return json.loads(json.dumps({**blank.provenance, **facts, **settings}))
