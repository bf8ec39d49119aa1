"""What a network is made of: its layers, their maps, their receptive fields, and whether they can be mirrored."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import DeconvnetError
from .inverses import sliding
from .projection import field_of
from .receptive import Field, Sliding
from .tape import Call, Tape, place_of, record
from .watching import address, count_calls, learned, uncompiled


@dataclass(frozen=True)
class Layer:
    """One layer of a network.

    Attributes:
        name: as ``named_modules()`` gives it; ``name#1``, ``name#2`` … where a module is called more than once.
        kind: the class of its module.
        units: feature maps, or features where the layer is fully connected.
        size: (H, W) of its map; (1, 1) where it is fully connected.
        slide: kernel, stride, padding and dilation; None where it does not slide.
        field: what its units see of the image; None where the layer cannot be mirrored.
        parameters: how many numbers it learned.
        obstacle: why it cannot be projected down to pixels, with the remedy; empty where it can.
    """

    name: str
    kind: str
    units: int
    size: tuple[int, int]
    slide: Sliding | None
    field: Field | None
    parameters: int
    obstacle: str = ""


def receptive_field(net: nn.Module, layer: str, size: tuple[int, int] = (224, 224), channels: int = 3) -> Field:
    """The receptive field of a layer's units in images of ``size`` (H, W): ``.size``, ``.stride``, ``.start``, (y, x).

    Unit (i, j) sees the pixels from ``start + (i, j)·stride``, ``size`` of them, before clipping to the image. Raises
    UsageError where there is no such layer and DeconvnetError where a call below it cannot be followed.
    """
    return field_of(_record_noise(net, size, channels), layer)


def describe(net: nn.Module, size: tuple[int, int] = (224, 224), channels: int = 3) -> list[Layer]:
    """Every layer without layers of its own that a forward pass of ``size`` (H, W) calls, in the order of the calls."""
    net = uncompiled(net)
    tape = _record_noise(net, size, channels)
    leaves = {name: module for name, module in net.named_modules() if not any(module.children())}
    calls = count_calls(tape.layers)
    made = {output: call for call in tape.calls for output in call.outputs}

    def layers() -> Iterator[Layer]:
        for key, number in tape.layers.items():
            name = key.partition("#")[0]
            if name in leaves and number > 0:
                yield _layer(tape, address(key, calls), made.get(number), leaves[name])

    return list(layers())


def obstacles(net: nn.Module, layers: Sequence[str] | None = None,
              size: tuple[int, int] = (224, 224), channels: int = 3) -> dict[str, str]:
    """Why nothing can be projected from some layers, by name; those from which something can are left out.

    ``layers`` defaults to all convolutions and fully connected layers. Raises UsageError where there is no such layer.
    """
    net = uncompiled(net)
    tape = _record_noise(net, size, channels)
    if layers is None:
        default, calls = learned(net), count_calls(tape.layers)
        layers = [address(key, calls) for key in tape.layers if key.partition("#")[0] in default]
    found = {}
    for layer in layers:
        tape.number(layer)
        try:
            field_of(tape, layer)
        except DeconvnetError as error:
            found[layer] = str(error)
    return found


def fingerprint(net: nn.Module) -> str:
    """The SHA-256, as hex, of a network's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(uncompiled(net).state_dict().items()):
        if isinstance(tensor, Tensor):  # a module may keep something else in its extra state
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _layer(tape: Tape, name: str, call: Call | None, module: nn.Module) -> Layer:
    units, height, width, *_ = *tape.values[tape.number(name)].shape[1:], 1, 1, 1
    field, obstacle = None, ""
    try:
        field = field_of(tape, name)
    except DeconvnetError as error:
        obstacle = str(error)
    parameters = sum(p.numel() for p in module.parameters())
    slides = call and not obstacle and call.name in ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d",
                                                     "adaptive_avg_pool2d", "adaptive_max_pool2d")
    return Layer(name, type(module).__name__, units, (height, width), sliding(call) if call and slides else None, field,
                 parameters, obstacle)


def _record_noise(net: nn.Module, size: tuple[int, int], channels: int) -> Tape:
    """A tape of one image of noise: the geometry does not depend on what is in it."""
    noise = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    try:
        return record(net, noise.to(*place_of(net)))
    except RuntimeError as error:
        raise DeconvnetError(f"The network cannot take an image of {channels}×{size[0]}×{size[1]}: {error}. "
                             f"{_remedy(net, channels)}") from error


def _remedy(net: nn.Module, channels: int) -> str:
    """What to do where a network cannot take an image, by the first convolution that it has."""
    first = next((m for m in net.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if isinstance(first, nn.Conv1d | nn.Conv3d):
        return (f"Its first convolution is a {type(first).__name__}, and only maps of two dimensions are followed: a "
                "series goes as maps of one row (N, C, 1, L), through a Conv2d.")
    if first is None or first.in_channels == channels:
        return "Another size may suit it; the network's preprocess decides."
    if first.in_channels in (1, 3):
        each = ", ".join(["0.5"] * 3) if first.in_channels == 3 else "0.5,"
        return (f"Its first convolution takes {first.in_channels}×H×W: net.preprocess = deconvnet.images.Preprocess("
                f"SIZE, RESIZE, mean=({each}), std=({each})) makes such images.")
    return (f"Its first convolution takes {first.in_channels}×H×W, and images from files have 3 channels, or 1: in "
            "Python, record, project and scan take any number.")
