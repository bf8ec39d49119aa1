"""Receptive-field arithmetic, without tensors. Everything is in (y, x) order, 0-based, and boxes are half-open."""

from dataclasses import dataclass
from typing import NamedTuple

Pair = tuple[int, int]


def pair(value: int | tuple[int, ...] | list[int]) -> Pair:
    """(y, x) of what torch accepts for a kernel size, stride, padding or dilation: one number or two."""
    if isinstance(value, int):
        return value, value
    y, *x = value
    return int(y), int(x[0]) if x else int(y)


class Box(NamedTuple):
    """A rectangle of a feature map or an image: its top-left corner, negative beyond the border, and its size."""

    start: Pair
    size: Pair

    def union(self, other: "Box") -> "Box":
        """The smallest box that holds both."""
        start = _each(min, self.start, other.start)
        stop = _each(max, _each(int.__add__, *self), _each(int.__add__, *other))
        return Box(start, _each(int.__sub__, stop, start))


@dataclass(frozen=True)
class Sliding:
    """How a convolution or a pooling slides over its input."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def start(self, start: Pair) -> Pair:
        """The first input cell, per axis, that the output cells from ``start`` on look at."""
        return _each(lambda o, s, p: o * s - p, start, self.stride, self.padding)

    def extent(self, size: Pair) -> Pair:
        """How many input cells ``size`` neighbouring output cells span, per axis."""
        return _each(lambda n, k, s, d: (n - 1) * s + d * (k - 1) + 1, size, self.kernel, self.stride, self.dilation)

    def below(self, box: Box) -> Box:
        """The box of the input that a box of the output looks at."""
        return Box(self.start(box.start), self.extent(box.size))


class Spreading(Sliding):
    """How a transposed convolution, or an enlargement, lays each cell of its input out over ``kernel`` output cells.

    What is padding to a convolution it cuts off from its output.
    """

    def start(self, start: Pair) -> Pair:
        """The first input cell, per axis, that reaches the output cells from ``start`` on."""
        return _each(lambda o, s, p, k, d: -((d * (k - 1) - o - p) // s), start, self.stride, self.padding, self.kernel,
                     self.dilation)

    def extent(self, size: Pair) -> Pair:
        """How many neighbouring input cells reach ``size`` neighbouring output cells at most, per axis."""
        return _each(lambda n, k, s, d: (n - 1 + d * (k - 1)) // s + 1, size, self.kernel, self.stride, self.dilation)

    def below(self, box: Box) -> Box:
        """The box of the input cells that reach a box of the output, at least one cell per axis."""
        start = self.start(box.start)
        size = _each(lambda first, o, n, p, s: max((o + n - 1 + p) // s - first + 1, 1), start, *box, self.padding,
                     self.stride)
        return Box(start, size)


@dataclass(frozen=True)
class Field:
    """What the units of a layer see of the image, in pixels: unit (i, j) sees ``size`` from ``start + (i, j)·stride``.

    ``start`` is negative where padding lies inside the field; ``stride`` is 0 where every unit sees the same
    (fully connected layers).
    """

    size: Pair
    stride: Pair
    start: Pair

    def box(self, y: int, x: int) -> Box:
        """The receptive field of the unit at (y, x), not clipped to the image."""
        return Box(_each(lambda s, i, j: s + i * j, self.start, (y, x), self.stride), self.size)


def _each(function, *pairs: Pair) -> Pair:
    y, x = (function(*axis) for axis in zip(*pairs, strict=True))
    return y, x
