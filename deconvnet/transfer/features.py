"""Features: what frozen layers say of images, computed once, kept in files, and found again."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from tqdm.auto import tqdm

from ..batches import batches
from ..describe import fingerprint
from ..errors import DeconvnetError, UnreadableImage, UsageError
from ..files import write_whole
from ..images import Images, decoder
from ..network import Network
from ..sealed import Damaged, seal, unseal
from ..settings import Part
from ..tape import full_precision
from ..watching import Enough, count_calls, resolve, watch


class Pooling(Part):
    """How feature maps become features: large maps are pooled to a small grid first.

    The paper does not say how it made features of its early layers: the 55×55 maps of layer 1 have 290,400 values. Six
    by six is what the last pooling gives, so that the features of ``pool5`` are those of the network itself.
    """

    grid: Annotated[int, Field(ge=1, le=64, description="maps larger than this are pooled to grid × grid")] = 6
    by: Annotated[Literal["max", "mean"], Field(description="of each cell of the grid")] = "max"


@dataclass(frozen=True)
class Features:
    """Of each layer the features (N, d) float32 of all images; rows of images that could not be read are zero."""

    layers: Mapping[str, np.ndarray]
    unreadable: Mapping[int, str]  # image → reason


def features(net: Network, images: Images, layers: Sequence[str], pooling: Pooling, store: str | None = None,
             batch_size: int = 32, progress: bool = False) -> Features:
    """The features of images at some layers, from one forward pass, or from the folder ``store`` where they are kept.

    A feature is the positive part of what the named module puts out, as everywhere: ``conv5`` and ``relu5`` name the
    same. A file belongs to one network, one set of images, one preprocessing, layer and pooling, and is used for no
    other. Raises UsageError for a layer that does not exist, before any image is read.
    """
    layers = list(dict.fromkeys(layers))
    _check_layers(net, layers)
    about = {layer: _about(net, images, layer, pooling) for layer in layers}
    files = {layer: _file(store, about[layer]) for layer in layers}
    kept = {layer: found for layer in layers if (found := _recall(files[layer], about[layer])) is not None}
    missing = [layer for layer in layers if layer not in kept]
    if missing:
        made = _compute(net, images, missing, pooling, batch_size, progress)
        for layer in missing:
            kept[layer] = Features({layer: made.layers[layer]}, made.unreadable)
            _keep(files[layer], kept[layer], about[layer])
    unreadable = kept[layers[0]].unreadable
    return Features({layer: kept[layer].layers[layer] for layer in layers}, unreadable)


# ---- the forward pass ----

def _check_layers(net: Network, layers: Sequence[str]) -> None:
    seen: list[str] = []
    size = net.preprocess.size
    place = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        with watch(net, lambda name, _: seen.append(name)), torch.inference_mode():
            net(torch.zeros(1, 3, size, size, device=place))
    except RuntimeError as error:
        raise DeconvnetError(f"The network cannot take an image of {size}×{size}: {error}. Its preprocess decides on "
                             "the size") from error
    for layer in layers:
        resolve(layer, count_calls(seen))


def _compute(net: Network, images: Images, layers: Sequence[str], pooling: Pooling, batch_size: int,
             progress: bool) -> Features:
    """The features from the images themselves."""
    rows: dict[str, np.ndarray] = {}
    unreadable: dict[int, str] = {}
    place = next((p.device for p in net.parameters()), torch.device("cpu"))
    with tqdm(total=len(images), desc="features", unit=" images", disable=not progress) as bar:
        for batch in batches(images, (0, 1), 0, batch_size, 0):
            if batch.images is not None:
                for layer, values in _forward(net, batch.images.to(place), layers, pooling).items():
                    found = rows.setdefault(layer, np.zeros((len(images), values.shape[1]), np.float32))
                    found[batch.numbers] = values[batch.slots].numpy()
            unreadable.update({number: reason for number, _, reason in batch.unreadable})
            bar.update(len(batch.numbers) + len(batch.unreadable))
    if not rows:
        number, reason = next(iter(unreadable.items()))
        raise UnreadableImage(images.files[number], reason)
    _check_finite(rows)
    return Features(rows, unreadable)


def _forward(net: Network, inputs: Tensor, layers: Sequence[str], pooling: Pooling) -> dict[str, Tensor]:
    """Of each layer the features (n, d) of a batch; the network stops once the last has been seen."""
    found: dict[str, Tensor] = {}

    def take(name: str, output: Tensor) -> None:
        for layer in layers:
            if name in (layer, layer.removesuffix("#1")):
                found[layer] = pooled(output.clamp(min=0), pooling).float().cpu()
        if len(found) == len(layers):
            raise Enough

    with watch(net, take), suppress(Enough), full_precision(), torch.inference_mode():
        net(inputs)
    return found


def pooled(maps: Tensor, pooling: Pooling) -> Tensor:
    """Feature maps (N, C, H, W), or what is flat (N, C), as features (N, d): maps larger than the grid are pooled."""
    if maps.ndim == 4 and max(maps.shape[2:]) > pooling.grid:
        size = tuple(min(side, pooling.grid) for side in maps.shape[2:])
        pool: Callable[..., Any] = F.adaptive_max_pool2d if pooling.by == "max" else F.adaptive_avg_pool2d
        maps = pool(maps, size)
    return maps.flatten(1)


def _check_finite(rows: Mapping[str, np.ndarray]) -> None:
    for layer, values in rows.items():
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if len(bad):
            raise DeconvnetError(f"Layer {layer!r} puts out NaN or infinity for image {bad[0]}: look at the weights")


# ---- files ----

def _about(net: Network, images: Images, layer: str, pooling: Pooling) -> dict[str, Any]:
    """All that features depend on."""
    return {"weights_sha256": fingerprint(net), "network_sha256": hashlib.sha256(repr(net).encode()).hexdigest(),
            "images_sha256": images.manifest, "preprocess": json.loads(json.dumps(net.preprocess.settings())),
            "decoder": decoder(), "layer": layer, "pooling": pooling.model_dump()}


def _file(store: str | None, about: Mapping[str, Any]) -> Path | None:
    """Where features are kept; the name tells the layer and, by a hash, everything else."""
    if store is None:
        return None
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    name = "".join(letter if letter.isalnum() else "-" for letter in about["layer"])[:40]
    return Path(store) / f"{name}-{digest[:16]}.safetensors"


def _recall(file: Path | None, about: Mapping[str, Any]) -> Features | None:
    """The features in a file; None where there is none, or a damaged one, whose place a new one will take."""
    try:
        tensors, said = unseal(file.read_bytes()) if file else ({}, {})
    except (FileNotFoundError, Damaged):
        return None
    except OSError as error:
        raise DeconvnetError(f"{file} cannot be read: {error.strerror}") from error
    if not tensors:
        return None
    unreadable = {int(number): reason for number, reason in said.pop("unreadable").items()}
    if said != about:
        differ = ", ".join(key for key in about if said.get(key) != about[key])
        raise UsageError(f"{file} holds features of something else (what differs: {differ}). Delete it, or give "
                         "another folder for features")
    return Features({about["layer"]: tensors["features"].numpy()}, unreadable)


def _keep(file: Path | None, found: Features, about: Mapping[str, Any]) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"features: {file.parent} cannot be made: {error.strerror}") from error
    values = torch.from_numpy(found.layers[about["layer"]])
    unreadable = {str(number): reason for number, reason in found.unreadable.items()}
    write_whole(file, seal({"features": values}, {**about, "unreadable": unreadable}))
