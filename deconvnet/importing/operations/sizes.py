"""Operations that reckon with sizes and places, and constants."""

from functools import partial
from math import prod

import torch
from torch import Tensor

from .making import LIMIT, Made, Making, Table, Unsupported


def _shape(making: Making) -> Made:
    start, end = making.attribute("start", 0), making.attribute("end", None)
    return making.called(lambda values: torch.tensor(values.shape[start:end], dtype=torch.int64))


def _gather(making: Making) -> Made:
    where, axis = making.constant(1), making.attribute("axis", 0)
    if where is None or where.is_floating_point():
        raise making.refuse("its places must be whole numbers")
    return making.called(partial(_gathered, where=where.long(), axis=axis))


def _gathered(values: Tensor, where: Tensor, axis: int) -> Tensor:
    axis %= values.ndim
    size = values.shape[axis]
    if bool(((where < -size) | (where >= size)).any()):
        raise Unsupported(f"it takes places outside the {size} there are")
    shape = [*values.shape[:axis], *where.shape, *values.shape[axis + 1:]]
    flat = (where % size).flatten().to(values.device)
    return torch.reshape(torch.index_select(values, axis, flat), shape)


def _constant(making: Making) -> Made:
    attributes = making.node.attributes
    if "value" in attributes:
        value = attributes["value"]
    elif "value_float" in attributes or "value_floats" in attributes:
        value = torch.tensor(attributes.get("value_float", attributes.get("value_floats")), dtype=torch.float32)
    elif "value_int" in attributes or "value_ints" in attributes:
        value = torch.tensor(attributes.get("value_int", attributes.get("value_ints")), dtype=torch.int64)
    else:
        raise making.refuse("only constants of numbers are read")
    return making.calling(lambda constant: constant, [value], ["value"])


def _constant_of_shape(making: Making) -> Made:
    shape = making.numbers("", 0) or []
    value = making.attribute("value", torch.zeros(1))
    if min(shape, default=1) < 0 or prod(shape) > LIMIT or value.numel() != 1:
        raise making.refuse(f"a constant of {shape} is not made")
    return making.calling(lambda constant: constant, [value.reshape(()).expand(shape).contiguous()], ["value"])


SIZES: Table = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "Shape": _shape,
}
