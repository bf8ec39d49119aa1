"""Calls that only move values about: slices, parts and permutations, found out by trying the call on numbers."""

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from .receptive import Sliding
from .tape import Call


@dataclass(frozen=True)
class Moves:
    """Where the values of a call's output lie in its input, both as maps.

    Attributes:
        channels: (C,) for each channel of the output, which channel of the input it is.
        slide: where its rows and columns lie.
    """

    channels: Tensor
    slide: Sliding


def moves(call: Call) -> Moves | None:
    """What a call moves; None where images, rows or columns do not stay what they are, as in a transposed map.

    Rows and columns may be cut off, and some left out at even distances.
    """
    before, after = call.given[0].ndim, len(call.shape)
    if min(before, after) < 3 or not prod(call.shape):
        return None
    traced = [_traced(call, range(before)[of], range(after)[of])
              for of in (slice(0, 1), slice(1, -2), slice(-2, -1), slice(-1, None))]
    images, channels, rows, columns = traced
    if images is None or channels is None or images.tolist() != list(range(len(call.given[0]))):
        return None
    vertical, horizontal = _evenly(rows), _evenly(columns)
    if vertical is None or horizontal is None:
        return None
    (top, down), (left, right) = vertical, horizontal
    return Moves(channels, Sliding(stride=(down, right), padding=(-top, -left)))


def _traced(call: Call, axes: Collection[int], made_axes: Collection[int]) -> Tensor | None:
    """Which numbers along some axes of its input a call puts along those of its output; None if along others too."""
    value = call.given[0]
    shape = [size if axis in axes else 1 for axis, size in enumerate(value.shape)]
    numbers = torch.arange(prod(shape), device=value.device).view(shape).expand(value.shape)
    arguments = [numbers if argument is value else argument for argument in call.args]
    result = call.function(*arguments, **{k: numbers if v is value else v for k, v in call.kwargs.items()})
    made = result if isinstance(result, Tensor) else result[call.part]
    line = made[tuple(slice(None) if axis in made_axes else slice(1) for axis in range(made.ndim))]
    repeated = all(axis in made_axes or size == 1 or made.stride(axis) == 0 for axis, size in enumerate(made.shape))
    return line.flatten() if repeated or torch.equal(made, line.expand_as(made)) else None


def _evenly(numbers: Tensor | None) -> tuple[int, int] | None:
    """The first of numbers that rise evenly, and by how much; None where they do not."""
    if numbers is None:
        return None
    first, *others = numbers.tolist()
    step = others[0] - first if others else 1
    return (first, step) if step > 0 and [first, *others] == list(range(first, first + step * len(numbers), step)) \
        else None
