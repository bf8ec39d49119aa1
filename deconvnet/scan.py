"""One pass over any number of images: the strongest activations of every unit of every layer, and what else it shows.

Memory does not grow with the number of images, but for the list of their names. The result is the same for any worker
count, split into shards and resume point, and for any batch size as far as the network computes the same (kernels may
round differently for another batch size, which is why every batch is filled up to the same size).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from .batches import Batch, batches, is_indexed, kind, length, unequal
from .describe import fingerprint
from .errors import UnreadableImage, UsageError, check_least
from .files import sole_writer
from .forward import Forward
from .resume import EVERY, Checkpoint, fingerprint_of
from .scanned import CLASSES, Scan
from .tape import full_precision
from .topk import Found
from .watching import uncompiled


def scan(net: nn.Module, images: Tensor | Dataset | Iterable, layers: Sequence[str] | None = None, k: int = 9, *,
         batch_size: int = 32, workers: int = 0, per_image: int = 1, device: str | torch.device | None = None,
         shard: tuple[int, int] = (0, 1), strict: bool = False, progress: bool = False,
         provenance: Mapping[str, Any] | None = None, checkpoint: str | Path | None = None,
         every: float = EVERY, out: str | Path | None = None) -> Scan:
    """The k strongest activations of every unit of the layers, from one forward pass over the images.

    An activation is the positive part of what the named module puts out, at the moment it returns: ``conv5`` and
    ``relu5`` name the same, in-place ReLU or not.

    Args:
        net: any network, in eval mode, compiled or not. It is left as it was found.
        images: a tensor (N, 3, H, W); a torch Dataset of images (3, H, W) or (image, label); or an iterable of batches
            (n, 3, H, W) or (batch, labels). All of one size. Its ``files``, ``classes`` and ``labels``, if it has them,
            go into the result. An image whose ``__getitem__`` raises UnreadableImage is skipped, named and counted.
        layers: names as ``named_modules()`` gives them; by default every Conv2d and Linear.
        k: activations to keep of each unit.
        batch_size: images per forward pass; the last is filled up with zero images, which are not looked at.
        workers: processes that read a Dataset, and skip an image at which they crash, or hang for a minute. With 0 this
            one does, and ends with it; tensors and iterables are always read here.
        per_image: positions of one image that may be kept; 1 is the paper's, the strongest of each image.
        device: where to compute; by default where the network is.
        shard: (rank, world): only images rank, rank + world, rank + 2·world …, as on one of several machines;
            ``Scan.merge`` puts the parts together.
        strict: raise UnreadableImage at the first image that cannot be read.
        progress: show a progress bar.
        provenance: what to remember about network and images; plain data that JSON can hold.
        checkpoint: a file in which the state is kept while the scan runs, and from which the same call goes on after
            an interruption, to the same result; the state before the last is beside it, as NAME.previous. Both are
            deleted at the end. Only one process at a time may have it.
        every: seconds between two checkpoints; more where saving one takes long.
        out: a file to save the result in. Only when it is there is the checkpoint deleted. Only one process at a time
            may write it.

    Raises UsageError for wrong arguments, a layer that does not exist, no images, images of different sizes; and
    DeconvnetError, naming layer and image, where an activation is NaN or infinite, and where another process has the
    checkpoint or the file.
    """
    net = uncompiled(net)
    weights = "" if checkpoint is None and shard == (0, 1) else fingerprint(net)
    blank = blank_scan(images, k, per_image, shard, provenance, weights)
    wanted = [layers] if isinstance(layers, str) else layers
    _check_files(checkpoint, out)
    with nullcontext() if out is None else sole_writer(Path(out)), placed(net, device) as place:
        facts = {} if checkpoint is None else fingerprint_of(net, weights, images, blank, place, layers=wanted,
                                                             batch_size=batch_size)
        store = Checkpoint(checkpoint, every, facts)
        with store.alone():
            found = go_on(net, images, blank, store, wanted, place, batch_size=batch_size, workers=workers,
                          strict=strict, progress=progress)
            conclude(found, images, store, out)
    return found


def go_on(net: nn.Module, images: Any, blank: Scan, store: Checkpoint, layers: Sequence[str] | None,
          place: torch.device, *, batch_size: int, workers: int, strict: bool, progress: bool) -> Scan:
    """The scan of all images in the shard of ``blank``, from the last state in the store on.

    The network is in its ``place`` already. The other arguments, and the errors, are those of ``scan``.
    """
    check_least(batch_size=(batch_size, 1), workers=(workers, 0))
    _check_mode(net)
    result, shard = store.load(blank), blank.shards[0]
    if strict and result.unreadable:  # skipped before an interruption
        raise UnreadableImage(*result.skipped[0])
    if store.over:
        return result
    seen = result.count + len(result.unreadable)
    stream = batches(images, shard, seen, batch_size, workers, place)
    with (full_precision(), _bar(progress, images, shard) as bar, closing(stream), torch.no_grad(),
          store.kept(result)):
        bar.update(seen)
        _go_through(Forward(net, layers, place), stream, result, strict, store, bar)
    return result


def conclude(found: Scan, images: Any, store: Checkpoint, out: str | Path | None) -> None:
    """Puts the result in its file, if it is to have one, and only then deletes the state.

    Ctrl-C in between leaves a state of the whole scan. Raises UsageError where no image could be read.
    """
    if not found.count:
        store.remove()  # so that the same command looks at the images again, once that is mended
    check_seen(found, images)
    with store.kept(found):
        if out is not None:
            found.write(Path(out))
        store.remove()


def _go_through(forward: Forward, batches: Iterator[Batch], result: Scan, strict: bool, store: Checkpoint,
                bar: tqdm) -> None:
    """Take every batch into the result."""
    shape: torch.Size | None = None
    for batch in batches:
        _check_batch(batch, result, shape, strict)
        found: dict[str, Found] = {}
        if batch.images is not None:
            shape = batch.images.shape[1:]
            found = forward(batch, result)
        labels = torch.tensor([_label(n, label, result) for n, label in zip(batch.numbers, batch.labels, strict=True)])
        numbers = torch.tensor(batch.numbers)  # (n,)
        with store.busy():
            for layer, offer in found.items():
                result.layers[layer].keep(offer, numbers, labels)
            result.count += len(batch.numbers)
            result.unreadable.update({number: (name, reason) for number, name, reason in batch.unreadable})
        store.save_if_due(result)
        bar.update(len(batch.numbers) + len(batch.unreadable))


@contextmanager
def placed(net: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
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
    total = length(images)
    mine = None if total is None else len(range(shard[0], total, shard[1]))
    part = None if shard[1] == 1 else f"part {shard[0] + 1} of {shard[1]}"
    return tqdm(total=mine, desc=part, unit=" images", disable=not progress)


# ---- what is refused ----


def _check_files(checkpoint: str | Path | None, out: str | Path | None) -> None:
    """The state, and the one before, are deleted when the result is there, so that it cannot be one of these files."""
    if out is not None and Path(out).absolute() in (file.absolute() for file in Checkpoint(checkpoint).files):
        raise UsageError(f"checkpoint, or the state that is kept beside it, and out are the same file, {out}: give "
                         "another one to either")


def _check_mode(net: nn.Module) -> None:
    """Refuse a network whose answer for one image would depend on chance or on the other images of its batch."""
    for name, module in net.named_modules():
        who = f"{name or 'The network'} ({type(module).__name__})"
        if isinstance(module, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm) and module.training:
            raise UsageError(f"{who} is in training mode: call net.eval() before the scan")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UsageError(f"{who} normalises each image by the batch it is in: it needs track_running_stats=True")


def _check_batch(batch: Batch, result: Scan, shape: torch.Size | None, strict: bool) -> None:
    if strict and batch.unreadable:
        raise UnreadableImage(*batch.unreadable[0][1:])
    if batch.images is not None and shape not in (None, batch.images.shape[1:]):
        raise UsageError(unequal(result.shards[0][0], shape or (), batch.numbers[0], batch.images.shape[1:]))


def _label(number: int, label: Any, result: Scan) -> int:
    """The class of an image, −1 for none: the label that came with it, or else that of the list."""
    if label is None:
        label = result.labels[number] if result.labels else -1
    try:
        value = max(int(label), -1)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"The label of image {number} must be a class number, not {kind(label)}") from error
    if result.classes and value >= len(result.classes):
        raise UsageError(f"Image {number} has label {value}, but there are {len(result.classes)} classes")
    if value >= CLASSES and not result.classes:
        raise UsageError(f"Image {number} has label {value}, and the numbers of classes without names lie below "
                         f"{CLASSES:,}: if it is no class, such as a number of the image, leave it out")
    return value


def check_seen(result: Scan, images: Any) -> None:
    """Raises UsageError where no image could be read, but for a part, in which there may be none."""
    if result.count or (result.shards != [(0, 1)] and length(images) != 0):  # a shard may be empty
        return
    if not result.unreadable:
        raise UsageError("There are no images to scan")
    name, reason = result.skipped[0]
    raise UsageError(f"None of the {len(result.unreadable)} images could be read; the first is {name}: {reason}")


def _given(images: Any, name: str) -> Any:
    """A list that the images bring along; empty where they do not, or say None."""
    found = getattr(images, name, None)
    return () if found is None else found


def blank_scan(images: Any, k: int, per_image: int, shard: tuple[int, int],
               provenance: Mapping[str, Any] | None, weights: str) -> Scan:
    """A scan that has seen no image, with the names that the images bring along; of a part also with the ``weights``,
    the fingerprint of the network. Raises UsageError as ``scan`` does.
    """
    check_least(k=(k, 1), per_image=(per_image, 1))
    if not 0 <= shard[0] < shard[1]:
        raise UsageError(f"shard is (rank, world) with rank from 0 to world − 1, not {shard}")
    try:
        facts = json.loads(json.dumps(dict(provenance or {})))
    except (TypeError, ValueError) as error:
        raise UsageError(f"provenance must be plain data that JSON can hold: {error}") from error
    if isinstance(images, Tensor) and images.ndim != 4:
        raise UsageError(f"A tensor of images must be (N, C, H, W), not {kind(images)}; a series is a map of one row "
                         "(N, C, 1, L)")
    if not (is_indexed(images) or isinstance(images, Iterable)):
        raise UsageError(f"images must be a tensor, a Dataset or an iterable of batches, not {kind(images)}")
    files = [os.fspath(file) for file in _given(images, "files")]
    classes = [str(name) for name in _given(images, "classes")]
    labels = [int(label) for label in _given(images, "labels")]
    for name, given in (("files", files), ("labels", labels)):
        if given and len(given) != (length(images) or len(given)):
            raise UsageError(f"The data set has {length(images)} images, but {len(given)} {name}")
    return Scan({}, k, per_image, 0, files, classes, labels, {}, [(shard[0], shard[1])], facts,
                weights if shard[1] > 1 else "")
