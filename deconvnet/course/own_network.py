"""Checks of notebook 8, your own network; and what it looks at: drawn shapes, and small networks of many kinds."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..describe import obstacles, receptive_field
from ..errors import DeconvnetError
from . import Wrong, case, close, right

SHAPES = ["disc", "triangle", "square", "cross"]
SIDE = 48  # pixels
_FINE = 4  # drawn so many times as large and shrunk: smooth edges


# ---- what is to be told apart ----


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Dark shapes at random places on light grounds: pixels (count, 48, 48, 3) uint8, and the number of each in SHAPES.

    Size, turn, place and both colours are random, and there is some noise; the same seed draws the same.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(SHAPES)
    pixels = np.stack([_shape(SHAPES[label], random) for label in labels])
    return np.clip(pixels + random.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8), labels


def _shape(name: str, random: np.random.Generator) -> np.ndarray:
    """One shape without noise (48, 48, 3)."""
    ground, ink = (tuple(map(int, random.integers(*span, 3))) for span in ((150, 256), (0, 110)))
    picture = Image.new("RGB", (SIDE * _FINE, SIDE * _FINE), ground)
    draw = ImageDraw.Draw(picture)
    radius, turn = random.uniform(8, 15) * _FINE, random.uniform(0, 2 * math.pi)
    x, y = random.uniform(radius, SIDE * _FINE - radius, 2)

    def points(count: int, reach: float) -> list[tuple[float, float]]:
        angles = [turn + 2 * math.pi * n / count for n in range(count)]
        return [(x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in angles]

    if name == "disc":
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=ink)
    elif name == "cross":
        ends = points(4, radius)
        for bar in ends[::2], ends[1::2]:
            draw.line(bar, fill=ink, width=round(radius / 2.2))
    else:
        draw.polygon(points({"triangle": 3, "square": 4}[name], 1.1 * radius), fill=ink)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)


# ---- small networks of many kinds ----


class _Net(nn.Module):
    """Two convolutions, ``conv1`` and ``conv2``, with something between them: a module, a function, or both."""

    def __init__(self, between: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(channels, 4, 3, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (N, 4, h, w) of images (N, 3, H, W)."""
        return self.conv2(self.between(self.conv1(x)))


def zoo() -> dict[str, nn.Module]:
    """Small networks by name; from ``conv2`` of some nothing can be projected. They take 24×24 pixels."""
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    nets = {
        "ReLU": _Net(nn.ReLU()),
        "functional ReLU, in place": _Net(F.relu_),
        "leaky ReLU": _Net(nn.LeakyReLU(0.1)),
        "sigmoid": _Net(nn.Sigmoid()),
        "GELU": _Net(nn.GELU()),
        "batch norm, evaluating": _Net(nn.BatchNorm2d(4)).eval(),
        "batch norm, training": _Net(nn.BatchNorm2d(4)).train(),
        "group norm": _Net(nn.GroupNorm(2, 4)),
        "dropout, evaluating": _Net(nn.Dropout(0.5)).eval(),
        "dropout, training": _Net(nn.Dropout(0.5)).train(),
        "average pooling": _Net(nn.AvgPool2d(2)),
        "residual sum": _Net(lambda x: x + F.relu(x)),
        "concatenation": _Net(lambda x: torch.cat([x, F.relu(x)], 1), channels=8),
        "gate": _Net(lambda x: x * F.relu(x)),
    }
    torch.random.set_rng_state(torch_state)
    return {name: net if "training" in name else net.eval() for name, net in nets.items()}


_TRAVELS = {
    "ReLU": "the signal is rectified",
    "functional ReLU, in place": "calls are recorded, not modules, and the values are kept before they are overwritten",
    "leaky ReLU": "the signal goes through the same rectifier: what is negative is multiplied by its slope",
    "batch norm, evaluating": "it is a scale per channel",
    "dropout, evaluating": "it does nothing",
    "average pooling": "it is a filter of equal weights, and these are transposed",
    "residual sum": "each summand gets the whole signal",
    "concatenation": "each part gets the channels that it gave",
}


def refused(function: Callable) -> None:
    """Checks ``refused()`` → the names of those networks of the zoo from which nothing can be projected."""
    nets = zoo()
    why = {name: found for name, net in nets.items() if (found := obstacles(net, ["conv2"], (24, 24)).get("conv2"))}
    given = case("the zoo", function)
    if not isinstance(given, set | list | tuple | frozenset):
        raise Wrong(f"the zoo: {given!r} came; expected was a set of names, such as {{'ReLU', 'gate'}}")
    strangers = sorted(map(str, set(given) - set(nets)))
    if strangers:
        raise Wrong(f"the zoo: there is no {strangers[0]!r}. There are: {', '.join(nets)}")
    for name in nets:
        if name in given and name not in why:
            raise Wrong(f"{name}: it is not refused. On the way down {_TRAVELS[name]}")
        if name in why and name not in given:
            raise Wrong(f"{name}: it is refused. {why[name]}")
    right(f"these {len(why)} are refused, and the other {len(nets) - len(why)} are not.")


# ---- batch normalisation folded away ----


def fold(function: Callable) -> None:
    """Checks ``fold(conv, norm)`` → one convolution that does what both do in evaluation."""
    for words, bias, affine in [("a convolution without bias, and batch norm", False, True),
                                ("a convolution with bias, and batch norm", True, True),
                                ("batch norm without weight and bias of its own (affine=False)", True, False)]:
        conv, norm = _pair(bias, affine)
        before = copy.deepcopy((conv.state_dict(), norm.state_dict()))
        made = case(words, partial(function, conv, norm))  # themselves, to see whether they are changed
        _unchanged(words, (conv, norm), before)
        _check_fold(words, made, conv, norm)
    right("the convolution alone gives the same maps, and the same projections.")


def _pair(bias: bool, affine: bool) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    conv, norm = nn.Conv2d(3, 5, 3, 2, 1, bias=bias), nn.BatchNorm2d(5, eps=0.1, affine=affine).eval()
    conv.weight.data = numbers(5, 3, 3, 3)
    norm.running_mean, norm.running_var = numbers(5), numbers(5, low=0.05, high=3)
    if conv.bias is not None:
        conv.bias.data = numbers(5)
    if affine:
        norm.weight.data, norm.bias.data = numbers(5), numbers(5)
    return conv, norm


def _unchanged(words: str, modules: Sequence[nn.Module], before: Sequence[dict[str, Tensor]]) -> None:
    for module, old in zip(modules, before, strict=True):
        if any(not torch.equal(value, old[name]) for name, value in module.state_dict().items()):
            raise Wrong(f"{words}: your function has changed the {type(module).__name__} that it was given. Make a new "
                        "convolution, or a copy (copy.deepcopy)")


def _check_fold(words: str, made: Any, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    if not isinstance(made, nn.Conv2d):
        raise Wrong(f"{words}: {type(made).__name__} came; expected was an nn.Conv2d. Does it end in return?")
    if (made.stride, made.padding) != (conv.stride, conv.padding):
        raise Wrong(f"{words}: stride {made.stride} and padding {made.padding} came; expected were {conv.stride} and "
                    f"{conv.padding}, those of the convolution that was given")
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    gamma = torch.ones(5) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros(5) if norm.bias is None else norm.bias.detach()
    bias = torch.zeros(5) if conv.bias is None else conv.bias.detach()
    weight, factor = conv.weight.detach(), gamma / torch.sqrt(variance + norm.eps)

    def scaled(factor: Tensor) -> Tensor:
        return weight * factor[:, None, None, None]

    close(f"{words}, the weights", made.weight, scaled(factor), {
        "eps is not added to the variance": scaled(gamma / torch.sqrt(variance)),
        "the root of the variance is missing": scaled(gamma / (variance + norm.eps)),
        "the weight of the batch norm is missing": scaled(factor / gamma),
        "the weights are not scaled": weight})
    if made.bias is None:
        raise Wrong(f"{words}: the convolution that came has no bias. Batch norm shifts, even where the convolution "
                    "does not: nn.Conv2d(…, bias=True)")
    close(f"{words}, the bias", made.bias, (bias - mean) * factor + beta, {
        "the running mean is not subtracted": bias * factor + beta,
        "the convolution's own bias is not scaled": bias - mean * factor + beta,
        "the convolution's own bias is lost": beta - mean * factor,
        "the running mean is not scaled": bias * factor - mean + beta,
        "the bias of the batch norm is missing": (bias - mean) * factor,
        "the bias of the batch norm is scaled too": (bias - mean + beta) * factor})


# ---- a network of one's own ----

FIELD = 20, 48  # pixels that a unit of ``last`` is to see


def network(function: Callable) -> None:
    """Checks ``build()`` → a network of one's own for the shapes, whose layer ``last`` can be projected."""
    net = case("build()", function)
    if isinstance(net, type) or not isinstance(net, nn.Module):
        what = f"the class {net.__name__}, without ()" if isinstance(net, type) else type(net).__name__
        raise Wrong(f"build(): {what} came; expected was a network, an nn.Module")
    if any(module.training for module in net.modules()):
        raise Wrong("build(): the network is in training mode. End in return net.eval()")
    if not isinstance(dict(net.named_modules()).get("last"), nn.Conv2d):
        layers = ", ".join(name for name, _ in net.named_modules() if name)
        raise Wrong(f"build(): there is no convolution called last, of which the pictures are to be made. The layers "
                    f"are: {layers}")
    scores = case("build(), two images of 48×48 pixels", partial(_scores, net))
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if shape != (2, len(SHAPES)):
        raise Wrong(f"build(), two images of 48×48 pixels: {shape} came; expected were scores {(2, len(SHAPES))}, one "
                    "for each shape")
    problem = obstacles(net, ["last"], (SIDE, SIDE)).get("last")
    if problem:
        raise Wrong(f"build(): nothing can be projected from last. {problem}")
    _check_field(net)
    right("it takes the shapes, and every unit of last can be projected to pixels.")


def _scores(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return net(torch.zeros(2, 3, SIDE, SIDE))


def _check_field(net: nn.Module) -> None:
    try:
        size = receptive_field(net, "last", (SIDE, SIDE)).size
    except DeconvnetError as error:
        raise Wrong(f"build(): {error}") from error
    if min(size) < FIELD[0]:
        raise Wrong(f"build(): a unit of last sees {size[0]}×{size[1]} pixels; expected were at least {FIELD[0]}, "
                    "about half a shape. Pool between the convolutions, or take larger ones")
    if max(size) > FIELD[1]:
        raise Wrong(f"build(): a unit of last sees {size[0]}×{size[1]} pixels, more than the image has; expected "
                    f"were at most {FIELD[1]}, or else it cannot say where. Pool less, or take smaller convolutions")
