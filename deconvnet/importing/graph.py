"""A network as a graph of ONNX's operations and constants, before it is a module."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        kind: the operation, as ONNX calls it.
        name: of its layer: the node's own or, where it has none, its first output's; safe as a module's and a file's
            name, and unlike every other.
        inputs: the names of the values it takes; empty where an optional one is left out.
        outputs: the names of those it makes; empty where nobody takes it.
        attributes: numbers, lists of numbers, text, and tensors as NumPy arrays.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """A network: what an ONNX file says, or a list of layers.

    Attributes:
        nodes: those on which the outputs depend, each after those whose values it takes.
        constants: tensors by name: weights, and the numbers that shape the graph.
        image: the name of the value that the graph takes.
        shape: (N, C, H, W) of it; None where the file leaves a size open.
        outputs: the names of the values that it gives.
        opset: the version of ONNX's operations.
        sha256: of the file or the list, in hex.
    """

    nodes: list[Node]
    constants: dict[str, Tensor]
    image: str
    shape: tuple[int | None, ...]
    outputs: list[str]
    opset: int
    sha256: str
