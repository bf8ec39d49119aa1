"""A module for each operation of ONNX: torch's own where it is the same, else one that calls torch's own functions.

``OPERATIONS`` is the table. A function in it takes a ``Making``, which knows the node and the constants, and gives the
module and the names of the values that it is called with. What differs between versions of an operation is read as the
operator's own history says (onnx.ai/onnx/operators).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DeconvnetError
from ..receptive import Pair
from .onnx_file import Node
from .padding import PaddedAvgPool2d, PaddedConv2d, PaddedMaxPool2d, Window, symmetric

LIMIT = 2**28  # numbers in one tensor (1 GiB); what a file asks for beyond that is a mistake or an attack

Made = tuple[nn.Module, list[str]]


class Unsupported(DeconvnetError):
    """A node in a form that is not run."""


@dataclass(frozen=True)
class Making:
    """A node in the making of its module.

    Attributes:
        node: what the file says of it.
        constants: every value that does not depend on the image, by name.
        opset: the version of ONNX's operations.
        batch: the number of images that the file fixes; None where it leaves it open.
    """

    node: Node
    constants: Mapping[str, Tensor]
    opset: int
    batch: int | None

    def refuse(self, reason: str) -> Unsupported:
        """The error that names the node."""
        return Unsupported(f"the node {self.node.name} ({self.node.kind}): {reason}")

    def has(self, number: int) -> bool:
        """Whether an input is there."""
        return len(self.node.inputs) > number and self.node.inputs[number] != ""

    def constant(self, number: int) -> Tensor | None:
        """An input that does not depend on the image; None where it is left out. Unsupported where it does."""
        if not self.has(number):
            return None
        if self.node.inputs[number] not in self.constants:
            raise self.refuse(f"its input {number} depends on the image, and only a constant has a meaning here")
        return self.constants[self.node.inputs[number]]

    def weights(self, number: int) -> nn.Parameter | None:
        """The same as a parameter."""
        found = self.constant(number)
        if found is not None and not found.is_floating_point():
            raise self.refuse(f"its input {number} must be floating-point")
        return None if found is None else nn.Parameter(found.contiguous())

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute, or what the operation's definition says where it is left out."""
        return self.node.attributes.get(name, default)

    def numbers(self, name: str, number: int) -> list[int] | None:
        """Whole numbers that are an attribute in old versions of an operation and an input in new ones."""
        if name in self.node.attributes:
            return list(self.node.attributes[name])
        found = self.constant(number)
        return None if found is None else [int(value) for value in found.flatten().tolist()]

    def number(self, name: str, number: int, default: float) -> float:
        """The same for a single number, or its default."""
        found = None if name in self.node.attributes else self.constant(number)
        return float(self.attribute(name, default) if found is None else found.reshape(()).item())

    def pair(self, name: str, default: Pair) -> Pair:
        """An attribute of two numbers (y, x), at least 1."""
        found = tuple(self.attribute(name, default))
        if len(found) != 2 or min(found) < 1:
            raise self.refuse(f"{name} must be two numbers of at least 1, and is {list(found)}: only maps in two "
                              "dimensions are run")
        return found

    def window(self, kernel: Pair) -> Window:
        """How the node slides."""
        pads = self.attribute("pads", (0, 0, 0, 0))
        auto = self.attribute("auto_pad", "NOTSET")
        if len(pads) != 4 or min(pads) < 0 or auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise self.refuse(f"pads {list(pads)}, auto_pad {auto} say nothing that is run in two dimensions")
        return Window(kernel, self.pair("strides", (1, 1)), self.pair("dilations", (1, 1)), tuple(pads), auto,
                      bool(self.attribute("ceil_mode", 0)))

    def only_first_output(self) -> None:
        """Unsupported where the node makes more than one value: masks, positions, statistics of a batch."""
        if any(self.node.outputs[1:]):
            raise self.refuse("only its first output is made here")

    def alone(self, module: nn.Module) -> Made:
        """The module, called with the first input."""
        return module, [self.node.inputs[0]]

    def called(self, function: Callable[..., Any], inputs: int = 1) -> Made:
        """A module that calls a function with the first inputs; those that are constants are kept in the module."""
        names = self.node.inputs[:inputs]
        places = [self.constants.get(name) if number else None for number, name in enumerate(names)]
        return self._function(function, places, names)

    def combined(self, function: Callable[..., Any]) -> Made:
        """The same with all inputs, of which the first too may be a constant."""
        names = self.node.inputs
        return self._function(function, [self.constants.get(name) for name in names], names)

    def _function(self, function: Callable[..., Any], places: Sequence[Tensor | None], names: Sequence[str]) -> Made:
        module = type(self.node.kind, (Function,), {})(function, places)  # so that ``describe`` says what it is
        return module, [name for name, place in zip(names, places, strict=True) if place is None]


class Function(nn.Module):
    """A call of a function in a graph, with its constants in their places among the values that it is called with."""

    def __init__(self, function: Callable[..., Any], places: Sequence[Tensor | None]) -> None:
        super().__init__()
        self.function = function
        self.whole = {n: p for n, p in enumerate(places) if p is not None and not p.is_floating_point()}
        for number, place in enumerate(places):
            if place is not None and number not in self.whole:
                self.register_buffer(f"constant{number}", place)
        self.count = len(places)

    def forward(self, *values: Tensor) -> Any:
        """What the function gives."""
        given = iter(values)
        return self.function(*(self._place(number, given) for number in range(self.count)))

    def _place(self, number: int, given: Any) -> Tensor:
        if number in self.whole:  # sizes and positions are reckoned with on the CPU
            return self.whole[number]
        return getattr(self, f"constant{number}") if hasattr(self, f"constant{number}") else next(given)


# ---- what learned ----

def _conv(making: Making) -> Made:
    weight, bias = making.weights(1), making.weights(2)
    if weight is None or weight.ndim != 4:
        raise making.refuse("only convolutions in two dimensions are run")
    groups, (outputs, inputs, height, width) = making.attribute("group", 1), weight.shape
    if groups < 1 or outputs % groups or making.pair("kernel_shape", (height, width)) != (height, width):
        raise making.refuse(f"weights {tuple(weight.shape)} do not go with its group or kernel_shape")
    window = making.window((height, width))
    both = symmetric(window.around((1, 1))) if _same_for_all(window) else None
    padded = both is None
    conv = (PaddedConv2d if padded else nn.Conv2d)(inputs * groups, outputs, window.kernel, window.stride, both or 0,
                                                   window.dilation, groups, bias is not None, device="meta")
    if isinstance(conv, PaddedConv2d):
        conv.window = window
    conv.weight = weight
    if bias is not None:
        conv.bias = bias
    return making.alone(conv)


def _same_for_all(window: Window) -> bool:
    """Whether a map's size has no bearing on its padding."""
    return not window.auto.startswith("SAME") or window.stride == (1, 1)


def _gemm(making: Making) -> Made:
    weight, bias = making.weights(1), making.constant(2)
    if weight is None or weight.ndim != 2 or making.attribute("transA", 0):
        raise making.refuse("only a product of flat values (N, C) and constant weights is run")
    alpha, beta = making.attribute("alpha", 1.0), making.attribute("beta", 1.0)
    rows = weight.data if making.attribute("transB", 0) else weight.data.T
    if bias is not None and (bias.numel() not in (1, len(rows)) or bias.numel() != bias.shape[-1:].numel()):
        raise making.refuse(f"its bias {tuple(bias.shape)} must be one number for each of {len(rows)} outputs")
    return making.alone(_linear(rows if alpha == 1 else rows * alpha,
                                None if bias is None else (bias.flatten() * beta).expand(len(rows))))


def _matmul(making: Making) -> Made:
    weight = making.constants.get(making.node.inputs[1])
    if weight is None or weight.ndim != 2:
        return making.combined(torch.matmul)
    return making.alone(_linear(weight.T, None))


def _linear(rows: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(rows.shape[1], rows.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(rows.contiguous())
    if bias is not None:
        linear.bias = nn.Parameter(bias.contiguous())
    return linear


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of maps or of what is flat."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def _batch_norm(making: Making) -> Made:
    making.only_first_output()
    if making.attribute("training_mode", 0) or not making.attribute("spatial", 1):
        raise making.refuse("it is not in evaluation mode with one scale for each channel, which alone is run")
    scale, bias, mean, variance = (making.weights(number) for number in range(1, 5))
    if scale is None or bias is None or mean is None or variance is None:
        raise making.refuse("statistics are missing")
    if {tuple(t.shape) for t in (scale, bias, mean, variance)} != {(len(scale),)}:
        raise making.refuse("its statistics are not one number for each channel")
    norm = BatchNorm(len(scale), making.attribute("epsilon", 1e-5), device="meta")
    norm.weight, norm.bias, norm.running_mean, norm.running_var = scale, bias, mean.data, variance.data
    norm.num_batches_tracked = None
    return making.alone(norm)


# ---- windows ----

def _max_pool(making: Making) -> Made:
    making.only_first_output()
    window = _pooling_window(making)
    both = _plain(window)
    if both is not None:
        return making.alone(nn.MaxPool2d(window.kernel, window.stride, both, window.dilation, ceil_mode=window.ceil))
    pool = PaddedMaxPool2d(window.kernel, window.stride, 0, window.dilation)
    pool.window = window
    return making.alone(pool)


def _average_pool(making: Making) -> Made:
    window = _pooling_window(making)
    if window.dilation != (1, 1):
        raise making.refuse("average pooling with gaps (dilations) is not run")
    counted = bool(making.attribute("count_include_pad", 0))
    both = _plain(window)
    if both is not None:
        return making.alone(nn.AvgPool2d(window.kernel, window.stride, both, window.ceil, counted))
    pool = PaddedAvgPool2d(window.kernel, window.stride, 0, window.ceil, counted)
    pool.window = window
    return making.alone(pool)


def _pooling_window(making: Making) -> Window:
    """How the node slides; each of its windows has some of the map in it."""
    window = making.window(making.pair("kernel_shape", (0, 0)))
    if any(amount >= kernel for amount, kernel in zip(window.pads, window.kernel * 2, strict=True)):
        raise making.refuse(f"pads {list(window.pads)} leave windows of {list(window.kernel)} without a cell of the "
                            "map")
    return window


def _plain(window: Window) -> Pair | None:
    """The padding with which torch's own pooling is the same on every map; None where there is none."""
    both = symmetric(window.around((1, 1))) if _same_for_all(window) else None
    if both is None or (window.auto != "NOTSET" and window.ceil):
        return None
    return both if all(2 * b <= k for b, k in zip(both, window.kernel, strict=True)) else None


def _lrn(making: Making) -> Made:
    size, alpha, beta = (making.attribute(*known) for known in (("size", 0), ("alpha", 1e-4), ("beta", 0.75)))
    if size < 1 or size % 2 == 0 or not (alpha > 0 and beta > 0):
        raise making.refuse(f"normalisation over {size} channels, alpha {alpha:g}, beta {beta:g} is not run; only over "
                            "an odd number, alpha and beta above 0")
    return making.alone(nn.LocalResponseNorm(size, alpha, beta, making.attribute("bias", 1.0)))


# ---- cell by cell ----

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


# ---- shapes ----

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


# ---- sizes and constants ----

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


def _slice(making: Making) -> Made:
    axes, steps = making.numbers("axes", 3), making.numbers("steps", 4)
    if min(steps or [1]) < 1:
        raise making.refuse("only steps of at least 1 are run")
    function = partial(_sliced, axes=axes, steps=steps)
    if "starts" not in making.node.attributes:
        return making.called(function, 3)
    ends = [torch.tensor(making.attribute(name, [])) for name in ("starts", "ends")]  # before opset 10
    return making._function(function, [None, *ends], [making.node.inputs[0], "", ""])


def _sliced(values: Tensor, starts: Tensor, ends: Tensor, axes: list[int] | None, steps: list[int] | None) -> Tensor:
    whole, count = [slice(None)] * values.ndim, len(starts)
    for axis, *cut in zip(axes or range(count), starts.tolist(), ends.tolist(), steps or [1] * count, strict=True):
        whole[axis % values.ndim] = slice(*cut)
    return values[tuple(whole)]


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
    return making._function(lambda constant: constant, [value], ["value"])


def _constant_of_shape(making: Making) -> Made:
    shape = making.numbers("", 0) or []
    value = making.attribute("value", torch.zeros(1))
    if min(shape, default=1) < 0 or prod(shape) > LIMIT or value.numel() != 1:
        raise making.refuse(f"a constant of {shape} is not made")
    return making._function(lambda constant: constant, [value.reshape(()).expand(shape).contiguous()], ["value"])


OPERATIONS: dict[str, Callable[[Making], Made]] = {
    "Add": partial(_arithmetic, torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": partial(_arithmetic, _divide),
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda making: making.alone(nn.AdaptiveAvgPool2d(1)),
    "Identity": lambda making: making.alone(nn.Identity()),
    "LRN": _lrn,
    "LeakyRelu": lambda making: making.alone(nn.LeakyReLU(making.attribute("alpha", 0.01))),
    "LogSoftmax": partial(_softmax, logarithm=True),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": partial(_arithmetic, torch.mul),
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": lambda making: making.alone(nn.ReLU()),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": lambda making: making.alone(nn.Sigmoid()),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": partial(_arithmetic, torch.sub),
    "Sum": lambda making: making.combined(_sum),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
