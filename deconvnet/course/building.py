"""Checks of notebook 3: a deconvnet from its parts, how far it is a gradient, and the way up that it begins with."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inverses import DECONVNET, Table, pass_through, rectify
from ..projection import project
from ..tape import record
from . import Wrong, case, close, right

Size = tuple[int, int]
KINDS = {nn.Conv2d: "filter", nn.ReLU: "rectify", nn.MaxPool2d: "pool"}


class Step(NamedTuple):
    """One layer on the way up, with what its way down will need.

    Attributes:
        name: of the layer, such as ``conv1``.
        kind: ``filter``, ``rectify``, ``pool`` or ``normalise``.
        layer: the module itself; a filter has ``.weight``, ``.stride[0]`` and ``.padding[0]``.
        size: (H, W) of the map that it was given.
        switches: (C, h, w) of a pooling; otherwise None.
    """

    name: str
    kind: str
    layer: nn.Module
    size: Size
    switches: Tensor | None


@torch.no_grad()
def climb(net: nn.Module, image: Tensor, last: str) -> tuple[list[Step], Tensor]:
    """The steps of one image (3, H, W) up to the layer ``last``, and what that put out (C, h, w)."""
    steps, value = [], image[None]                                       # (1, 3, H, W)
    for name, layer in net.named_children():
        size, switches = (value.shape[2], value.shape[3]), None
        if isinstance(layer, nn.MaxPool2d):
            value, switches = F.max_pool2d(value, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                                           layer.ceil_mode, return_indices=True)
            switches = switches[0]
        else:
            value = layer(value)
        steps.append(Step(name, KINDS.get(type(layer), "normalise"), layer, size, switches))
        if name == last:
            break
    return steps, value[0]


# ---- the checks ----

def filter_transposed(function: Callable) -> None:
    """Checks ``filter_transposed(signal, weight, stride, padding, size)`` → (C, H, W)."""
    for words, signal, weight, stride, padding, size in _filterings():
        words = f"{words}: kernel {weight.shape[2]}, stride {stride}, padding {padding}, map {size[0]}×{size[1]}"
        expected = _transposed(signal, weight, stride, padding, size)
        assert expected is not None
        close(words, case(words, function, signal, weight, stride, padding, size), expected, mistakes={
            "the filter is turned upside down; each pixel gets the weight by which it contributed":
                _transposed(signal, weight.flip(2, 3), stride, padding, size),
            "where copies of the filter overlap they are written over each other; add them":
                _laid(signal, weight, stride, padding, size),
            "the padding is left on, or cut off at one side only; cell 0 begins at −padding":
                _transposed(signal, weight, stride, 0, (size[0] + 2 * padding, size[1] + 2 * padding), size),
            "the stride is not counted; copies lie stride cells apart":
                _transposed(signal, weight, 1, padding, size) if stride > 1 else None,
            "a ReLU is applied; filtering keeps the sign": expected.clamp(min=0),
            "the map has the size that conv_transpose2d gives; cells that no filter saw get zero": F.conv_transpose2d(
                signal[None], weight, stride=stride, padding=padding)[0]})
    right("each value of the signal lays a copy of its filter on the map below, and they add up.")


def unpool(function: Callable) -> None:
    """Checks ``unpool(signal, switches, size)`` → (C, H, W), values that meet summed."""
    generator = torch.Generator().manual_seed(0)
    for channels, (height, width), ceil in [(1, (5, 5), False), (3, (7, 5), False), (2, (8, 6), True)]:
        maps = torch.rand(channels, height, width, generator=generator)
        pooled, switches = F.max_pool2d(maps, 3, 2, ceil_mode=ceil, return_indices=True)
        signal = torch.randn(pooled.shape, generator=generator)
        expected = _scattered(signal, switches, maps.shape)
        words = f"{channels} channels, {height}×{width} pooled by 3×3/2{' in ceil mode' if ceil else ''}"
        written = torch.zeros(channels, height * width).scatter(1, switches.flatten(1), signal.flatten(1))
        close(words, case(words, function, signal, switches, (height, width)), expected, mistakes={
            "values that meet are written over each other; add them": written.view(maps.shape),
            "every channel has its switches; those of the first are used for all": _scattered(
                signal, switches[:1].expand_as(switches), maps.shape),
            "a ReLU is applied; that is the next step": expected.clamp(min=0),
            "all channels are put on one map": expected.sum(0),
            "the map is still flat": expected.flatten(1)})
    right("each channel by its own switches, and values that meet are added.")


def descend(function: Callable) -> None:
    """Checks ``descend(steps, signal)`` → (3, H, W), against the library, on small networks."""
    for words, net, image, last in _networks():
        steps, maps = climb(net, image, last)
        unit = int(maps.amax((1, 2)).argmax())
        y, x = divmod(int(maps[unit].argmax()), maps.shape[2])
        signal = torch.zeros_like(maps)
        signal[unit, y, x] = maps[unit, y, x]
        tape, where = record(net, image[None]), [(0, unit, y, x)]

        def by(method: str | Table, tape=tape, where=where, last=last) -> Tensor:
            return project(tape, last, where, method=method).on_canvas()[0]

        with torch.no_grad():
            given = case(words, function, steps, signal)
        close(words, given, by("deconvnet"), tolerance=1e-4, mistakes={
            "nothing rectifies the signal on its way down": by(_without_rectifying()),
            "the pixels are rectified too; below the last filtering they stay signed": by("deconvnet").clamp(min=0),
            "the signal is rectified by the mask of the way up; look at the signal itself": by("gradient"),
            "the signal is masked by the way up and by its own sign; that is guided backpropagation": by("guided"),
            "there is a minus sign too many": -by("deconvnet")})
    right("that is a deconvnet, and the library's gives the same.")


def three_rules(function: Callable) -> None:
    """Checks ``three_rules(x, signal)`` → (deconvnet, gradient, guided)."""
    x = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]]).expand(5, 5)
    signals = [("the table above", x, x.T * 2), ("all below zero", -x.abs() - 1, x.T), ("zeros", torch.zeros(2, 2),
                                                                                     torch.ones(2, 2))]
    for words, forward, signal in signals:
        given = case(words, function, forward, signal)
        if not isinstance(given, tuple | list) or len(given) != 3:
            raise Wrong(f"{words}: {type(given).__name__} came; expected were three: deconvnet, gradient, guided.")
        deconvnet, gradient = signal.clamp(min=0), signal * (forward > 0)
        guided = gradient.clamp(min=0)
        rules = {"deconvnet": deconvnet, "gradient": gradient, "guided": guided}
        for (name, expected), one in zip(rules.items(), given, strict=True):
            others = {f"that is the rule of {other}": rules[other] for other in rules if other != name}
            close(f"{words}, {name}", one, expected, mistakes=others | {
                "the mask is x ≥ 0; where x is 0 nothing passed upwards": signal * (forward >= 0),
                "x itself comes back instead of the signal": forward.clamp(min=0),
                "it is multiplied by x; a mask is 0 or 1": signal * forward.clamp(min=0),
                "the signal is let through as it is": signal})
    right("deconvnet asks for the sign of the signal, the gradient for that of the way up, guided for both.")


def clamped_relu(function: Any) -> None:
    """Checks ``ClampedReLU``, an autograd function: a ReLU upwards, and the deconvnet's rule downwards."""
    generator = torch.Generator().manual_seed(0)
    x, signal = (torch.randn(4, 5, generator=generator) for _ in range(2))
    close("upwards", case("upwards", function.apply, x), x.clamp(min=0))

    def down(x: Tensor, signal: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(function.apply(leaf), leaf, signal)[0]

    close("downwards", case("downwards", down, x, signal), signal.clamp(min=0), mistakes={
        "that is the gradient of the ReLU; the deconvnet does not ask what passed upwards": signal * (x > 0),
        "that is guided backpropagation; the deconvnet asks for one sign only": (signal * (x > 0)).clamp(min=0),
        "the signal is let through as it is": signal,
        "the negative part is kept": signal.clamp(max=0),
        "x comes back instead of the signal": x.clamp(min=0)})
    right("autograd now rectifies as a deconvnet does.")


# ---- cases and oracles ----

def _filterings() -> Iterator[tuple[str, Tensor, Tensor, int, int, Size]]:
    """What is filtered: in words, the signal, the filters, stride, padding, size; the most telling first."""
    generator = torch.Generator().manual_seed(0)
    signal, weight = torch.tensor([[[1.0, 0], [0, 10]]]), torch.tensor([[[[1.0, 2], [3, 4]]]])
    yield "the table above", signal, weight, 1, 0, (3, 3)
    for words, into, out, kernel, stride, padding, size in [
            ("overlapping copies", 1, 1, 3, 2, 0, (7, 7)), ("a padding", 1, 1, 3, 1, 1, (5, 5)),
            ("3 channels from 2", 2, 3, 3, 1, 0, (5, 6)), ("a last row that no filter sees", 1, 1, 3, 2, 1, (6, 6)),
            ("layer 1 in small: 3 colours from 4 units", 4, 3, 7, 2, 1, (16, 14))]:
        weight = torch.randn(into, out, kernel, kernel, generator=generator)
        shape = F.conv2d(torch.zeros(1, out, *size), weight, stride=stride, padding=padding).shape[1:]
        yield words, torch.randn(shape, generator=generator), weight, stride, padding, size


def _transposed(signal: Tensor, weight: Tensor, stride: int, padding: int, size: Size, part: Size | None = None
                ) -> Tensor | None:
    """By autograd, whose way down through a convolution is its transpose; None where the sizes do not fit.

    ``part``: only so much of the map, from its top left.
    """
    with torch.enable_grad():
        below = torch.zeros(1, weight.shape[1], *size, requires_grad=True)
        above = F.conv2d(below, weight, stride=stride, padding=padding)
        above = above[:, :, :signal.shape[1], :signal.shape[2]]
        if above.shape[1:] != signal.shape:
            return None
        height, width = part or size
        return torch.autograd.grad(above, below, signal[None])[0][0, :, :height, :width]


def _laid(signal: Tensor, weight: Tensor, stride: int, padding: int, size: Size) -> Tensor:
    """The copies of the filters laid one over the other, the last on top."""
    kernel = weight.shape[2]
    out = torch.zeros(weight.shape[1], size[0] + 2 * padding, size[1] + 2 * padding)
    for y in range(signal.shape[1]):
        for x in range(signal.shape[2]):
            copy = torch.einsum("o,ocij->cij", signal[:, y, x], weight)
            out[:, y * stride:y * stride + kernel, x * stride:x * stride + kernel] = copy
    return out[:, padding:padding + size[0], padding:padding + size[1]]


def _scattered(signal: Tensor, switches: Tensor, shape: torch.Size) -> Tensor:
    flat = torch.zeros(shape[0], shape[1] * shape[2])
    return flat.scatter_add(1, switches.flatten(1), signal.flatten(1)).view(shape)


def _networks() -> Iterator[tuple[str, nn.Module, Tensor, str]]:
    """Small random networks: in words, the network, an image, and the layer to begin at."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        filters = [nn.Conv2d(3, 6, 5, 2, 1), nn.Conv2d(6, 8, 3, 1, 1), nn.Conv2d(8, 5, 3, 1, 1)]
        image = torch.randn(3, 24, 21)
    conv1, conv2, conv3 = filters
    yield ("filter, rectify, filter, rectify", nn.Sequential(
        *(conv1, nn.ReLU(), conv2, nn.ReLU())).eval(), image, "3")
    yield ("with a pooling between", nn.Sequential(
        conv1, nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), conv2, nn.ReLU()).eval(), image, "4")
    yield ("with two poolings and a normalisation", nn.Sequential(
        conv1, nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), conv2,
        nn.ReLU(), nn.MaxPool2d(3, 2), conv3, nn.ReLU()).eval(), image, "8")


def _without_rectifying() -> Table:
    return {function: pass_through if rule is rectify else rule for function, rule in DECONVNET.items()}
