"""Operations that put values elsewhere: shapes, axes, borders, parts."""

from collections.abc import Sequence
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .making import Made, Making, Table, Unsupported


class Reshape(nn.Module):
    """The values in another shape.

    Where the file says how many images there are, and the shape begins with that number, it is read as the batch, so
    that any number of images may go through.
    """

    def __init__(self, shape: Sequence[int], batch: int | None, zero: bool) -> None:
        super().__init__()
        self.shape, self.batch, self.zero = tuple(shape), batch, zero

    def literal(self, values: Tensor) -> list[int]:
        """The shape just as the file has it."""
        return [values.shape[n] if size == 0 and not self.zero else size for n, size in enumerate(self.shape)]

    def forward(self, values: Tensor) -> Tensor:
        """The values in that shape."""
        shape = self.literal(values)
        if shape and shape[0] == self.batch:
            shape[0] = len(values) if -1 in shape else -1
        return torch.reshape(values, shape)


def _reshape(making: Making) -> Made:
    if making.attribute("shape", None) is None and making.node.inputs[1] not in making.constants:
        return making.called(_reshaped, 2)
    shape = making.numbers("shape", 1) or []
    return making.alone(Reshape(shape, making.batch, bool(making.attribute("allowzero", 0))))


def _reshaped(values: Tensor, shape: Tensor) -> Tensor:
    return torch.reshape(values, [size or values.shape[n] for n, size in enumerate(shape.tolist())])


def _flatten(making: Making) -> Made:
    axis = making.attribute("axis", 1)
    return making.alone(nn.Flatten()) if axis == 1 else making.called(partial(_flat_in_two, axis=axis))


def _flat_in_two(values: Tensor, axis: int) -> Tensor:
    rows = prod(values.shape[:axis if axis >= 0 else values.ndim + axis])
    return torch.reshape(values, (rows, values.numel() // max(rows, 1)))


def _transpose(making: Making) -> Made:
    return making.called(partial(_permuted, order=making.attribute("perm", None)))


def _permuted(values: Tensor, order: Sequence[int] | None) -> Tensor:
    order = range(values.ndim)[::-1] if order is None else order
    moved = [n for n, axis in enumerate(order) if n != axis]
    return torch.transpose(values, *moved) if len(moved) == 2 else torch.permute(values, tuple(order))


def _unsqueeze(making: Making) -> Made:
    return making.called(partial(_widened, axes=making.numbers("axes", 1) or []))


def _widened(values: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in sorted(axis % (values.ndim + len(axes)) for axis in axes):
        values = torch.unsqueeze(values, axis)
    return values


def _squeeze(making: Making) -> Made:
    axes = making.numbers("axes", 1)
    if axes is None:
        raise making.refuse("without axes it may drop the batch; say which to drop")
    return making.called(partial(_narrowed, axes=axes))


def _narrowed(values: Tensor, axes: Sequence[int]) -> Tensor:
    dropped = {axis % values.ndim for axis in axes}
    if any(values.shape[axis] != 1 for axis in dropped):
        raise Unsupported(f"it drops axes {list(axes)} of {tuple(values.shape)}, which are not of length 1")
    return torch.reshape(values, [size for axis, size in enumerate(values.shape) if axis not in dropped])


def _concat(making: Making) -> Made:
    axis = making.attribute("axis", 1)
    return making.combined(lambda *values: torch.cat(values, axis))


def _split(making: Making) -> Made:
    sizes, axis = making.numbers("split", 1), making.attribute("axis", 0)
    return making.called(partial(_parts, sizes=sizes, count=len(making.node.outputs), axis=axis))


def _parts(values: Tensor, sizes: list[int] | None, count: int, axis: int) -> tuple[Tensor, ...]:
    parts = torch.chunk(values, count, axis) if sizes is None else torch.split(values, sizes, axis)
    if len(parts) != count:
        raise Unsupported(f"it splits {tuple(values.shape)} into {len(parts)} parts, and has {count} outputs")
    return parts


def _pad(making: Making) -> Made:
    amounts = making.numbers("pads" if "paddings" not in making.node.attributes else "paddings", 1) or []
    mode, axes = making.attribute("mode", "constant"), making.numbers("axes", 3)
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes or len(amounts) % 2:
        raise making.refuse(f"mode {mode}, pads {amounts} are not run")
    value = making.number("value", 2, 0.0)
    return making.called(partial(_padded, amounts=amounts, axes=axes, mode=modes[mode], value=value))


def _padded(values: Tensor, amounts: Sequence[int], axes: Sequence[int] | None, mode: str, value: float) -> Tensor:
    half = len(amounts) // 2
    where = range(half) if axes is None else [axis % values.ndim for axis in axes]
    sides = {axis: (amounts[n], amounts[half + n]) for n, axis in enumerate(where)}
    first = min((axis for axis, pair in sides.items() if any(pair)), default=None)
    if first is None:
        return values
    pairs = [sides.get(axis, (0, 0)) for axis in range(values.ndim - 1, first - 1, -1)]
    flat = [amount for pair in pairs for amount in pair]
    value = max(min(value, torch.finfo(torch.float32).max), torch.finfo(torch.float32).min)  # no infinity on a tape
    return F.pad(values, flat, value=value) if mode == "constant" else F.pad(values, flat, mode)


def _mean(making: Making) -> Made:
    axes, keep = making.numbers("axes", 1), bool(making.attribute("keepdims", 1))
    if not axes:
        raise making.refuse("without axes it works across the images of a batch")
    return making.called(lambda values: values.mean(tuple(axis % values.ndim for axis in axes), keepdim=keep))


def _slice(making: Making) -> Made:
    axes, steps = making.numbers("axes", 3), making.numbers("steps", 4)
    if min(steps or [1]) < 1:
        raise making.refuse("only steps of at least 1 are run")
    function = partial(_sliced, axes=axes, steps=steps)
    if "starts" not in making.node.attributes:
        return making.called(function, 3)
    ends = [torch.tensor(making.attribute(name, [])) for name in ("starts", "ends")]  # before opset 10
    return making.calling(function, [None, *ends], [making.node.inputs[0], "", ""])


def _sliced(values: Tensor, starts: Tensor, ends: Tensor, axes: list[int] | None, steps: list[int] | None) -> Tensor:
    whole, count = [slice(None)] * values.ndim, len(starts)
    for axis, *cut in zip(axes or range(count), starts.tolist(), ends.tolist(), steps or [1] * count, strict=True):
        whole[axis % values.ndim] = slice(*cut)
    return values[tuple(whole)]


SHAPES: Table = {
    "Concat": _concat,
    "Flatten": _flatten,
    "Pad": _pad,
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
