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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from .batches import Batch, batches, is_indexed, kind, length, unequal
from .describe import fingerprint
from .errors import DeconvnetError, UnreadableImage, UsageError
from .files import write_whole
from .scanned import LayerScan, Scan, decode, encode, read_bytes
from .tape import Enough, count_calls, full_precision, resolve, watch
from .topk import Found, NotFinite


def scan(net: nn.Module, images: Tensor | Dataset | Iterable, layers: Sequence[str] | None = None, k: int = 9, *,
         batch_size: int = 32, workers: int = 0, per_image: int = 1, device: str | torch.device | None = None,
         shard: tuple[int, int] = (0, 1), strict: bool = False, progress: bool = False,
         provenance: Mapping[str, Any] | None = None, checkpoint: str | Path | None = None,
         every: float = 20.0, out: str | Path | None = None) -> Scan:
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
        out: a file to save the result in. Only when it is there is the checkpoint deleted.

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
    with _placed(net, device) as place, full_precision(), _bar(progress, images, shard) as bar:
        stream = batches(images, shard, result.count + len(result.unreadable), batch_size, workers)
        with closing(stream), torch.no_grad(), store.kept(result):
            bar.update(result.count + len(result.unreadable))
            _go_through(_Forward(net, wanted, place), stream, result, strict, store, bar)
    _check_seen(result, images)
    if out is not None:
        result.save(out)
    store.remove()
    return result


def _go_through(forward: "_Forward", batches: Iterator[Batch], result: Scan, strict: bool, store: "_Checkpoint",
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
        numbers = torch.tensor(batch.numbers)  # (n,)
        with store.busy():
            for layer, offer in found.items():
                result.layers[layer].keep(offer, numbers, labels)
            result.count += len(batch.numbers)
            result.unreadable.update({number: (name, reason) for number, name, reason in batch.unreadable})
        store.save_if_due(result)
        bar.update(len(batch.numbers) + len(batch.unreadable))


class _Forward:
    """A forward pass that finds what each layer has to offer, on its way."""

    def __init__(self, net: nn.Module, layers: Sequence[str] | None, device: torch.device) -> None:
        self.net, self.layers, self.device = net, layers, device
        self.dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), None)
        self.names: dict[str, str] = {}  # as ``watch`` says it → as the user says it

    def __call__(self, batch: Batch, result: Scan) -> dict[str, Found]:
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
                    raise Enough

        with watch(self.net, take), suppress(Enough):
            self.net(images)
        return found

    def _lay_out(self, image: Tensor, result: Scan) -> None:
        """Find out, with one image, which layers there are, how often each is called and how many units it has."""
        outputs: dict[str, Tensor] = {}
        try:
            with watch(self.net, outputs.__setitem__):
                self.net(image)
        except RuntimeError as error:
            raise DeconvnetError(f"The network cannot take an image of {tuple(image.shape[1:])}: {error}. Preprocess "
                                 "the images as it expects them.") from error
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
    total = length(images)
    mine = None if total is None else len(range(shard[0], total, shard[1]))
    return tqdm(total=mine, unit=" images", disable=not progress)


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


def _check_batch(batch: Batch, result: Scan, shape: torch.Size | None, strict: bool) -> None:
    if strict and batch.unreadable:
        raise UnreadableImage(*batch.unreadable[0][1:])
    if batch.problem:
        raise UsageError(batch.problem)
    if batch.images is not None and shape not in (None, batch.images.shape[1:]):
        raise UsageError(unequal(result.shards[0][0], shape or (), batch.numbers[0], batch.images.shape[1:]))


def _check_output(layer: str, output: Tensor, images: int) -> None:
    if output.ndim not in (2, 4) or len(output) != images or not output.is_floating_point():
        raise UsageError(f"Layer {layer!r} puts out {kind(output)} for {images} images, but a scan needs "
                         "(N, units, H, W) or (N, units). Name the layers that have it: layers=[…]")


def _label(number: int, label: Any, result: Scan) -> int:
    """The class of an image, −1 for none: the label that came with it, or else that of the list."""
    if label is None:
        label = result.labels[number] if result.labels else -1
    try:
        value = max(int(label), -1)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The label of image {number} must be a class number, not {kind(label)}") from error
    if result.classes and value >= len(result.classes):
        raise UsageError(f"Image {number} has label {value}, but there are {len(result.classes)} classes")
    return value


def _not_finite(layer: str, number: int, batch: Batch, result: Scan) -> DeconvnetError:
    assert batch.images is not None
    name = f" ({result.files[number]})" if result.files else ""
    whole = batch.images[batch.slots[batch.numbers.index(number)]].isfinite().all()
    cause = f"look at the weights of {layer} and of the layers before it" if whole else "so does the image itself"
    return DeconvnetError(f"Layer {layer!r} puts out NaN or infinity for image {number}{name}: {cause}")


def _check_seen(result: Scan, images: Any) -> None:
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


def _blank(images: Any, k: int, per_image: int, shard: tuple[int, int], provenance: Mapping[str, Any] | None) -> Scan:
    """A scan that has seen no image, with the names that the images bring along."""
    try:
        facts = json.loads(json.dumps(dict(provenance or {})))
    except (TypeError, ValueError) as error:
        raise UsageError(f"provenance must be plain data that JSON can hold: {error}") from error
    if isinstance(images, Tensor) and images.ndim != 4:
        raise UsageError(f"A tensor of images must be (N, 3, H, W), not {kind(images)}")
    if not (is_indexed(images) or isinstance(images, Iterable)):
        raise UsageError(f"images must be a tensor, a Dataset or an iterable of batches, not {kind(images)}")
    files = [os.fspath(file) for file in _given(images, "files")]
    classes = [str(name) for name in _given(images, "classes")]
    labels = [int(label) for label in _given(images, "labels")]
    for name, given in (("files", files), ("labels", labels)):
        if given and len(given) != (length(images) or len(given)):
            raise UsageError(f"The data set has {length(images)} images, but {len(given)} {name}")
    return Scan({}, k, per_image, 0, files, classes, labels, {}, [(shard[0], shard[1])], facts)


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
            scan, about = decode(read_bytes(self.path), self.path)
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
            write_whole(self.path, encode(scan, fingerprint=self.fingerprint))
        self._saved, self._done = time.monotonic(), scan.count + len(scan.unreadable)


def _fingerprint(net: nn.Module, images: Any, blank: Scan, **settings: Any) -> dict[str, Any]:
    """What must be the same for a scan to go on: the caller's provenance, the settings, the weights, the images."""
    names = hashlib.sha256(json.dumps([blank.files, blank.classes, blank.labels]).encode()).hexdigest()
    facts = {"k": blank.k, "per_image": blank.per_image, "shard": list(blank.shards[0]), "images": length(images),
             "names": names, "weights": fingerprint(net)}
    return json.loads(json.dumps({**blank.provenance, **facts, **settings}))
