"""Local response normalisation as ``torch.onnx.export`` writes it: step by step, read as the one operation that it is.

ONNX has LRN; torch writes what it computes, x / (k + alpha · mean of x² over n channels)^beta, as eight operations,
which nothing could be projected through, and its older exporter as thirty:

    Mul(x, x), Reshape to (N, 1, C, H, W), Pad, AveragePool over (n, 1, 1), Squeeze, Reshape, Mul, Add, Pow, Div(x, …)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_OLD_PADDING: list[tuple[str, Mapping[int, list[int]]]] = [  # how the older exporter turns torch's list into ONNX's
    ("Cast", {}), ("Reshape", {1: [-1]}), ("Transpose", {}),
    ("Slice", {1: [-1], 2: [-2**63 + 1], 3: [0], 4: [-1]}), ("Reshape", {1: [-1, 2]}), ("Concat", {})]


def with_norms(onnx: ModuleType, graph: Any) -> list[Any]:
    """The nodes of a graph, with an LRN in the place of each Div that ends such steps, and without what only it took.

    Whatever differs from them in anything stays as it is.
    """
    written = list(graph.node)
    nodes = _Nodes(onnx, {name: node for node in written for name in node.output},
                   {tensor.name: tensor for tensor in graph.initializer})
    read = [_norm(nodes, node) or node for node in written]
    outputs = {value.name for value in graph.output}
    needless = _needed(written, outputs) - _needed(read, outputs)
    return [node for node in read if id(node) not in needless]


class _SomethingElse(Exception):
    """These are other steps."""


@dataclass(frozen=True)
class _Nodes:
    """The nodes of a graph by what they make, and its constants by name."""

    onnx: ModuleType
    made: Mapping[str, Any]
    constants: Mapping[str, Any]

    def above(self, node: Any, number: int, *kinds: str) -> Any:
        """The node that makes an input, which is of one of these kinds."""
        found = self.made.get(node.input[number]) if len(node.input) > number else None
        return _checked(found, found is not None and not found.domain and found.op_type in kinds)

    def numbers(self, node: Any, number: int) -> list[float]:
        """An input that is a constant in the file itself; empty where it is left out."""
        name = node.input[number] if len(node.input) > number else ""
        if not name:
            return []
        maker, tensor = self.made.get(name), self.constants.get(name)
        if maker is not None and maker.op_type == "Constant" and len(maker.attribute) == 1:
            tensor = maker.attribute[0].t
        return self.array(_checked(tensor, tensor is not None))

    def array(self, tensor: Any) -> list[float]:
        """The numbers of a tensor that is in the file itself."""
        return self.onnx.numpy_helper.to_array(_checked(tensor, not tensor.external_data)).ravel().tolist()

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes by name."""
        return {attribute.name: self.onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _checked(value: Any, right: bool) -> Any:
    if not right:
        raise _SomethingElse
    return value


def _norm(nodes: _Nodes, node: Any) -> Any | None:
    """The LRN that a node ends; None where it does something else."""
    if node.op_type != "Div" or len(node.input) != 2:
        return None
    try:
        power = nodes.above(node, 1, "Pow")
        added = nodes.above(power, 0, "Add")
        scaled = nodes.above(added, 0, "Mul")
        size = _channels(nodes, scaled, node.input[0])
        factors = [nodes.numbers(part, 1) for part in (scaled, added, power)]
        _checked(factors, all(len(factor) == 1 for factor in factors))
    except _SomethingElse:
        return None
    (alpha,), (k,), (beta,) = factors
    return nodes.onnx.helper.make_node("LRN", [node.input[0]], list(node.output), re.sub("(?i)div", "LRN", node.name),
                                       size=size, alpha=alpha, beta=beta, bias=k)


def _channels(nodes: _Nodes, scaled: Any, image: str) -> int:
    """The number of channels over which the squares of the image are averaged, before they are scaled."""
    pooled, back = _pooled(nodes, scaled)
    padded = nodes.above(pooled, 0, "Pad")
    viewed = nodes.above(padded, 0, "Reshape")
    squared = nodes.above(viewed, 0, "Mul")
    window = nodes.attributes(pooled)
    size = window.pop("kernel_shape", [0])[0]
    plain = {"strides": [1, 1, 1], "pads": [0] * 6, "dilations": [1, 1, 1], "auto_pad": b"NOTSET", "ceil_mode": 0}
    _checked(window, all(window.get(name, value) == value for name, value in plain.items()))
    _checked(pooled, nodes.attributes(pooled)["kernel_shape"] == [size, 1, 1])
    _checked(squared, list(squared.input) == [image, image])
    _check_padding(nodes, padded, size // 2, (size - 1) // 2)
    _check_shapes(nodes, viewed, back)
    return size


def _pooled(nodes: _Nodes, scaled: Any) -> tuple[Any, Any | None]:
    """The pooling whose values are scaled, and the Reshape to the image's shape between them, if there is one."""
    last = nodes.above(scaled, 0, "Reshape", "Squeeze")
    back = last if last.op_type == "Reshape" else None
    squeezed = nodes.above(last, 0, "Squeeze", "If") if back else last
    if squeezed.op_type == "If":  # whether the axis is of length 1, which it is: both branches come to the same
        ends = [branch.node[-1] for branch in nodes.attributes(squeezed).values() if branch.node]
        _checked(ends, [end.op_type for end in ends] == ["Squeeze", "Identity"])
        pooled = nodes.made.get(ends[0].input[0])
        same = pooled is not None and pooled.op_type == "AveragePool" and ends[1].input[0] in pooled.output
        return _checked(pooled, same), back
    axes = nodes.numbers(squeezed, 1) or nodes.attributes(squeezed).get("axes")
    _checked(axes, axes == [1])
    return nodes.above(squeezed, 0, "AveragePool"), back


def _check_padding(nodes: _Nodes, padded: Any, before: int, after: int) -> None:
    """Zeros are added before and after the channels, and nothing elsewhere."""
    said = nodes.attributes(padded)
    _checked(said, said.get("mode", b"constant") == b"constant" and not said.get("value", 0))
    _checked(padded, not any(nodes.numbers(padded, 2)) and not nodes.numbers(padded, 3))
    if "pads" not in said and nodes.made.get(padded.input[1], padded).op_type == "Cast":
        _checked(padded, _as_torch_lists(nodes, padded) == [0, 0, 0, 0, before, after])
    else:
        amounts = said.get("pads") or nodes.numbers(padded, 1)
        _checked(padded, amounts == [0, 0, before, 0, 0, 0, 0, after, 0, 0])


def _as_torch_lists(nodes: _Nodes, padded: Any) -> list[float]:
    """The amounts in torch's order, the last axis first, which the older exporter turns into ONNX's in the file."""
    below, number = padded, 1
    for kind, constants in _OLD_PADDING:
        below, number = nodes.above(below, number, kind), 0
        _checked(below, all(nodes.numbers(below, place) == value for place, value in constants.items()))
    zeros = nodes.above(below, 1, "ConstantOfShape")
    value = nodes.attributes(zeros).get("value")
    _checked(zeros, nodes.numbers(zeros, 0) == [4] and (value is None or not any(nodes.array(value))))
    return nodes.numbers(below, 0)


def _check_shapes(nodes: _Nodes, viewed: Any, back: Any | None) -> None:
    """The maps get an axis of length 1 before their channels, and lose it again; what is reckoned is not looked at."""
    try:
        shape = nodes.numbers(viewed, 1)
        again = nodes.numbers(back, 1)[:3] if back else [shape[0], *shape[2:4]]
    except _SomethingElse:
        return
    _checked(shape, len(shape) == 5 and shape[1] == 1 and again == [shape[0], *shape[2:4]])


def _needed(nodes: Any, outputs: set[str]) -> set[int]:
    """Those nodes, by their id, on which the outputs depend."""
    wanted, needed = set(outputs), set()
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            needed.add(id(node))
    return needed
