"""Operations cell by cell: bounds, arithmetic, softmax, casts."""

from collections.abc import Callable
from functools import partial
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .making import Made, Making, Table, Unsupported


def _clip(making: Making) -> Made:
    least, most = making.number("min", 1, -inf), making.number("max", 2, inf)
    if least == 0 and most >= torch.finfo(torch.float32).max:
        return making.alone(nn.ReLU())
    if (least, most) == (0, 6):
        return making.alone(nn.ReLU6())
    return making.called(partial(torch.clamp, min=least, max=most))


def _dropout(making: Making) -> Made:
    making.only_first_output()
    training = making.constant(2)
    if training is not None and bool(training.reshape(()).item()):
        raise making.refuse("it is in training mode")
    return making.alone(nn.Dropout())


def _softmax(making: Making, logarithm: bool = False) -> Made:
    axis = making.attribute("axis", -1 if making.opset >= 13 else 1)
    if making.opset >= 13:
        return making.called(partial(_over_axis, axis=axis, logarithm=logarithm))
    return making.called(partial(_over_rest, axis=axis, logarithm=logarithm))


def _over_axis(values: Tensor, axis: int, logarithm: bool) -> Tensor:
    if axis % values.ndim == 0:
        raise Unsupported("it works across the images of a batch")
    return F.log_softmax(values, axis) if logarithm else F.softmax(values, axis)


def _over_rest(values: Tensor, axis: int, logarithm: bool) -> Tensor:
    """Before opset 13 it worked over all axes from ``axis`` on together."""
    axis %= values.ndim
    if all(size == 1 for size in values.shape[axis + 1:]):
        return _over_axis(values, axis, logarithm)
    return _over_axis(values.flatten(axis), axis, logarithm).view_as(values)


def _arithmetic(function: Callable[..., Tensor], making: Making) -> Made:
    axis = making.attribute("axis", None)
    if axis is not None:  # before opset 7, the axis with which the second's first one goes
        return making.combined(partial(_aligned, function, axis=axis))
    return making.combined(function)


def _aligned(function: Callable[..., Tensor], one: Tensor, other: Tensor, axis: int) -> Tensor:
    after = one.ndim - axis % one.ndim - other.ndim
    return function(one, other.reshape(*other.shape, *[1] * after))


def _divide(one: Tensor, other: Tensor) -> Tensor:
    return torch.div(one, other, rounding_mode=None if one.is_floating_point() else "trunc")


def _sum(*values: Tensor) -> Tensor:
    total, *others = values
    for other in others:
        total = torch.add(total, other)
    return total


_TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}  # TensorProto.DataType


def _cast(making: Making) -> Made:
    if making.attribute("to", 0) not in _TYPES:
        raise making.refuse("only casts to FLOAT, DOUBLE, INT32, INT64 and BOOL are run")
    return making.called(partial(_to, dtype=_TYPES[making.attribute("to", 0)]))


def _to(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The values as ``dtype``; floating-point ones stay as precise as the network is."""
    return values if values.is_floating_point() and dtype.is_floating_point else values.to(dtype)


CELLS: Table = {
    "Add": partial(_arithmetic, torch.add),
    "Cast": _cast,
    "Clip": _clip,
    "Div": partial(_arithmetic, _divide),
    "Dropout": _dropout,
    "Identity": lambda making: making.alone(nn.Identity()),
    "LeakyRelu": lambda making: making.alone(nn.LeakyReLU(making.attribute("alpha", 0.01))),
    "LogSoftmax": partial(_softmax, logarithm=True),
    "Mul": partial(_arithmetic, torch.mul),
    "Relu": lambda making: making.alone(nn.ReLU()),
    "Sigmoid": lambda making: making.alone(nn.Sigmoid()),
    "Softmax": _softmax,
    "Sub": partial(_arithmetic, torch.sub),
    "Sum": lambda making: making.combined(_sum),
}
