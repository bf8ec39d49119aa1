"""Signals on windows of feature maps: looking up what lies under them, moving, cutting and adding them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .receptive import Pair, Sliding


@dataclass
class Signal:
    """What travels down: n windows of one feature map, each of its own image; zero outside the map.

    Attributes:
        values: (n, C, h, w).
        origin: (n, 2) the map's (y, x) of each window's top-left cell; negative beyond the border. Always on the CPU.
        image: (n,) which image of the batch each window belongs to. Always on the CPU.
    """

    values: Tensor
    origin: Tensor
    image: Tensor


def look_up(maps: Tensor, signal: Signal, dtype: torch.dtype | None = None) -> Tensor:
    """What lies under each of the signal's windows (n, C, h, w) on the maps (N, C, H, W); outside the map, its edge.

    ``dtype``: of what comes back; by default that of the maps.
    """
    h, w = signal.values.shape[-2:]
    found = maps.new_empty(len(signal.values), maps.shape[1], h, w, dtype=dtype)
    for row, image, (y, x) in zip(found, signal.image.tolist(), signal.origin.tolist(), strict=True):
        top, bottom, above = _overlap(y, h, maps.shape[2])
        left, right, before = _overlap(x, w, maps.shape[3])
        # row by row, because a slice is copied ten times as fast as cells that are looked up one by one
        there = maps[image, :, above:above + bottom - top, before:before + right - left]
        row[:, top:bottom, left:right] = there
        if bottom - top < h:
            row[:, :top, left:right] = there[:, :1]
            row[:, bottom:, left:right] = there[:, -1:]
        if right - left < w:
            row[:, :, :left] = row[:, :, left:left + 1]
            row[:, :, right:] = row[:, :, right - 1:right]
    return found


def _overlap(first: int, length: int, size: int) -> tuple[int, int, int]:
    """Where in a window of ``length`` cells, from ``first`` on, those of a line of ``size`` are: begin, end.

    At least one, so where the two do not meet it stands for the nearest. And which cell of the line is there first.
    """
    begin = min(max(-first, 0), length - 1)
    end = min(max(size - first, begin + 1), length)
    return begin, end, min(max(first + begin, 0), size - 1)


def rewindow(signal: Signal, origin: Tensor, size: Pair) -> Signal:
    """The signal on other windows, of ``size`` from ``origin`` (n, 2): cut where they are smaller, 0 where larger."""
    old, shifts = signal.values.shape[-2:], origin - signal.origin               # (n, 2)
    values = signal.values.new_zeros(*signal.values.shape[:2], *size)
    rows: Iterable[tuple[int | slice, list[int]]] = enumerate(shifts.tolist())
    if len(shifts) and bool((shifts == shifts[0]).all()):  # one copy for all rows is cheaper than a copy for each
        rows = [(slice(None), shifts[0].tolist())]
    for row, shift in rows:
        begin, end = zip(*(_common(*axis) for axis in zip(shift, old, size, strict=True)), strict=True)
        there = signal.values[row, ..., begin[0] + shift[0]:end[0] + shift[0], begin[1] + shift[1]:end[1] + shift[1]]
        values[row, ..., begin[0]:end[0], begin[1]:end[1]] = there
    return Signal(values, origin, signal.image)


def _common(shift: int, old: int, new: int) -> tuple[int, int]:
    """Begin and end, in a line of ``new`` cells, of those that a line of ``old`` cells has too, ``shift`` before it."""
    begin = min(max(-shift, 0), new)
    return begin, max(min(old - shift, new), begin)


def fit(signal: Signal, size: Pair, above: Signal) -> Signal:
    """The signal with zeros outside a map of ``size``, and no larger than the map.

    It is written into where it can be, that is, where its values are not those of the signal ``above`` it.
    """
    h, w = signal.values.shape[-2:]
    if h > size[0] or w > size[1]:
        origin = torch.stack([torch.zeros_like(o) if n > m else o
                              for o, n, m in zip(signal.origin.T, (h, w), size, strict=True)], dim=1)
        signal = rewindow(signal, origin, (min(h, size[0]), min(w, size[1])))
        h, w = signal.values.shape[-2:]
    outside = [(row, y, x) for row, (y, x) in enumerate(signal.origin.tolist())
               if y < 0 or x < 0 or y + h > size[0] or x + w > size[1]]
    if outside and signal.values.untyped_storage().data_ptr() == above.values.untyped_storage().data_ptr():
        signal = replace(signal, values=signal.values.clone())
    for row, y, x in outside:
        values = signal.values[row]                                      # (C, h, w)
        values[:, :max(-y, 0)] = 0
        values[:, max(size[0] - y, 0):] = 0
        values[:, :, :max(-x, 0)] = 0
        values[:, :, max(size[1] - x, 0):] = 0
    return signal


def inside(signal: Signal, size: Pair, above: Signal) -> Signal:
    """The same on windows no larger than any of them needs, moved from the border onto the map: less travels down."""
    shape = (signal.values.shape[2], signal.values.shape[3])
    most = on_map(signal.origin, shape, size).amax(0).clamp(min=1)                           # (2,)
    h, w = most.tolist()
    if (h, w) == shape:
        return fit(signal, size, above)  # zeros cost less than a copy
    return rewindow(signal, torch.minimum(signal.origin.clamp(min=0), most.new_tensor(size) - most), (h, w))


def on_map(origin: Tensor, shape: Pair, size: Pair) -> Tensor:
    """How many rows and columns (n, 2) of windows of one shape are on a map of ``size``; none where it is below 1."""
    return torch.minimum(origin + origin.new_tensor(shape), origin.new_tensor(size)) - origin.clamp(min=0)


def join(one: Signal, other: Signal) -> Signal:
    """The sum of two signals on one map, on the union of their windows."""
    if torch.equal(one.origin, other.origin) and one.values.shape == other.values.shape:
        return replace(one, values=one.values + other.values)
    sizes = [one.origin.new_tensor(s.values.shape[-2:]) for s in (one, other)]
    origin = torch.minimum(one.origin, other.origin)                                            # (n, 2)
    stop = torch.maximum(one.origin + sizes[0], other.origin + sizes[1])
    h, w = (stop - origin).amax(0).tolist()
    values = rewindow(one, origin, (h, w)).values + rewindow(other, origin, (h, w)).values
    return Signal(values, origin, one.image)


def cells_of(signal: Signal) -> tuple[Tensor, Tensor]:
    """The rows (n, h) and columns (n, w) of the map under each window."""
    h, w = signal.values.shape[-2:]
    y, x = signal.origin[:, :1], signal.origin[:, 1:]
    return y + torch.arange(h), x + torch.arange(w)


def below(origin: Tensor, slide: Sliding) -> Tensor:
    """The origins (n, 2), on the input of a call that slides, of what lies under windows on its output."""
    return origin * origin.new_tensor(slide.stride) - origin.new_tensor(slide.padding)


def scatter(signal: Signal, cells: Tensor, slide: Sliding) -> Signal:
    """The signal's values on the windows below, each at its flat cell (n, C, h, w) there, summed where they meet."""
    n, channels, h, w = signal.values.shape
    height, width = slide.extent((h, w))
    flat = signal.values.new_zeros(n, channels, height * width)
    flat.scatter_add_(2, cells.flatten(2), signal.values.flatten(2))
    return Signal(flat.view(n, channels, height, width), below(signal.origin, slide), signal.image)
