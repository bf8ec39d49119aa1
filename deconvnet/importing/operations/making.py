"""What an operation's module is made from: the node, the constants, and how ONNX says a window slides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...errors import DeconvnetError
from ...receptive import Pair
from ..graph import Node
from .padding import Window

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
        return self.calling(function, places, names)

    def combined(self, function: Callable[..., Any]) -> Made:
        """The same with all inputs, of which the first too may be a constant."""
        names = self.node.inputs
        return self.calling(function, [self.constants.get(name) for name in names], names)

    def calling(self, function: Callable[..., Any], places: Sequence[Tensor | None], names: Sequence[str]) -> Made:
        """A module that calls a function with the values of these names, and with constants where places have them."""
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


Table = dict[str, Callable[[Making], Made]]  # an operation's name in ONNX → what makes its module
