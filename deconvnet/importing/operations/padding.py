"""Convolution and pooling with ONNX's paddings, which may differ from side to side or depend on the map.

Where torch can slide in the same way by itself, it does; else the map is padded first.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...receptive import Pair

Sides = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class Window:
    """How an operation slides over its map, as ONNX says it (Operators: Conv, MaxPool, AveragePool).

    Attributes:
        kernel, stride, dilation: (y, x).
        pads: how much is added on each side, where ``auto`` is NOTSET.
        auto: SAME_UPPER and SAME_LOWER pad so that there is one window for each stride, the odd cell after or before
            the map; VALID does not pad.
        ceil: whether a last window may reach beyond the padded map.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Sides = (0, 0, 0, 0)
    auto: Literal["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"] = "NOTSET"
    ceil: bool = False

    @property
    def extent(self) -> Pair:
        """What the window covers, with the gaps of its dilation (y, x)."""
        y, x = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return y, x

    def around(self, size: Pair) -> Sides:
        """How much is added on each side of a map of ``size``."""
        if not self.auto.startswith("SAME"):
            return self.pads if self.auto == "NOTSET" else (0, 0, 0, 0)
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, self.stride, self.extent, strict=True)]
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        first, last = (less, more) if self.auto == "SAME_UPPER" else (more, less)
        return first[0], first[1], last[0], last[1]

    @property
    def fixed(self) -> Pair | None:
        """The padding as torch has it; None where it differs from side to side, or from map to map."""
        if self.auto.startswith("SAME") and self.stride != (1, 1):
            return None
        return symmetric(self.around((1, 1)))

    def count(self, size: Pair) -> Pair:
        """How many windows there are on a map of ``size`` (y, x); none begins beyond what was added before it."""
        y, x = (self._count(axis, n, *self.around(size)[axis::2]) for axis, n in enumerate(size))
        return y, x

    def _count(self, axis: int, n: int, before: int, after: int) -> int:
        return _windows(n, before, after, self.extent[axis], self.stride[axis], self.ceil)

    def torch_counts(self, size: Pair, ceil: bool) -> Pair:
        """How many windows torch has, whose padding is on both sides what ours is before the map."""
        befores = self.around(size)[:2]
        y, x = (_windows(n, b, b, e, s, ceil) for n, b, e, s in
                zip(size, befores, self.extent, self.stride, strict=True))
        return y, x


def _windows(n: int, before: int, after: int, extent: int, stride: int, ceil: bool) -> int:
    span = n + before + after - extent
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= n + before else count


def size_of(maps: Tensor) -> Pair:
    """(H, W)."""
    return maps.shape[-2], maps.shape[-1]


def symmetric(sides: Sides) -> Pair | None:
    """The padding as torch has it, or None where it differs from side to side."""
    top, left, bottom, right = sides
    return (top, left) if (top, left) == (bottom, right) else None


def pad(maps: Tensor, sides: Sides, value: float = 0.0) -> Tensor:
    """The maps with so much added on each side; as they are where that is nothing."""
    top, left, bottom, right = sides
    return F.pad(maps, (left, right, top, bottom), value=value) if any(sides) else maps


class PaddedConv2d(nn.Conv2d):
    """A convolution whose padding differs from side to side or depends on the map."""

    window: Window

    def forward(self, maps: Tensor) -> Tensor:
        """The feature maps (N, O, H', W')."""
        sides = self.window.around(size_of(maps))
        both = symmetric(sides)
        return F.conv2d(maps if both else pad(maps, sides), self.weight, self.bias, self.stride, both or 0,
                        self.dilation, self.groups)


class PaddedMaxPool2d(nn.MaxPool2d):
    """Max-pooling whose padding differs from side to side or depends on the map.

    The cells added after a map are never a maximum: it only matters how many windows they make room for.
    """

    window: Window

    def forward(self, maps: Tensor) -> Tensor:
        """The pooled maps (N, C, H', W')."""
        window, size = self.window, size_of(maps)
        top, left, *_ = window.around(size)
        ceil = _as_torch(window, size)
        if ceil is not None:
            return F.max_pool2d(maps, window.kernel, window.stride, (top, left), window.dilation, ceil)
        bottom, right = (max((o - 1) * s + e - n - b, 0) for o, s, e, n, b in
                         zip(window.count(size), window.stride, window.extent, size, (top, left), strict=True))
        lowest = torch.finfo(maps.dtype).min  # never a maximum; finite, because infinity on a tape is an error
        return F.max_pool2d(pad(maps, (top, left, bottom, right), lowest), window.kernel, window.stride, 0,
                            window.dilation)


class PaddedAvgPool2d(nn.AvgPool2d):
    """Average pooling whose padding differs from side to side or depends on the map."""

    window: Window

    def forward(self, maps: Tensor) -> Tensor:
        """The pooled maps (N, C, H', W')."""
        window, size = self.window, size_of(maps)
        sides, ceil = window.around(size), _as_torch(window, size)
        if ceil is not None and (not self.count_include_pad or symmetric(sides)):
            return F.avg_pool2d(maps, window.kernel, window.stride, sides[:2], ceil, self.count_include_pad)
        means = self._pooled(pad(maps, sides), window.count(size))
        if self.count_include_pad:
            return means
        ones = torch.ones(1, 1, *size, dtype=maps.dtype, device=maps.device)
        return torch.div(means, self._pooled(pad(ones, sides), window.count(size)))

    def _pooled(self, padded: Tensor, count: Pair) -> Tensor:
        found = F.avg_pool2d(padded, self.window.kernel, self.window.stride, 0, self.window.ceil)
        return found if size_of(found) == count else found[:, :, :count[0], :count[1]]


def _as_torch(window: Window, size: Pair) -> bool | None:
    """The ceil mode in which torch's own pooling has just these windows; None where there is none."""
    befores = window.around(size)[:2]
    if any(2 * b > k for b, k in zip(befores, window.kernel, strict=True)):  # torch adds no more than half a window
        return None
    return next((c for c in (False, True) if window.torch_counts(size, c) == window.count(size)), None)
