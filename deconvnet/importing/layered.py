"""Networks that are written down: a list of layers, each with its kind and the layers it takes, and weights by name.

No code is needed for such a network, nor run. Layers become the nodes of a graph, as those of an ONNX file do.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..errors import DeconvnetError
from ..receptive import Pair
from ..settings import Part, must_be
from .graph import Graph, Node
from .graph_network import GraphNetwork
from .weights import near_name

IMAGE = "image"  # what the first layer takes
_OPSET = 13

Size = Annotated[int, Field(ge=1, le=4096)]
Amount = Annotated[int, Field(ge=0, le=4096)]
Sizes = Annotated[Size | tuple[Size, Size], must_be("a whole number from 1 to 4096, or two in square brackets: [y, x]")]
Amounts = Annotated[Amount | tuple[Amount, Amount],
                    must_be("a whole number from 0 to 4096, or two in square brackets: [y, x]")]
Names = Annotated[str | tuple[str, ...], must_be("the name of a layer above, or a list of such names")]

Kind = Literal["convolution", "linear", "batch_norm", "relu", "max_pool", "average_pool", "global_average_pool", "lrn",
               "flatten", "concatenate", "add"]


class Layer(Part):
    """A layer: its name, its kind, and the keys that go with that kind; two numbers in a list are (y, x)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$", description="also that of its weights: NAME.weight")]
    kind: Annotated[Kind, Field(description="what it does")]
    of: Annotated[Names, Field(description="what it takes; default: the layer above")] = ()
    kernel: Annotated[Sizes | None, Field(description="of a pooling window, in cells")] = None
    stride: Annotated[Sizes, Field(description="in cells")] = 1
    padding: Annotated[Amounts, Field(description="on each side, in cells")] = 0
    dilation: Annotated[Sizes, Field(description="from cell to cell of a filter")] = 1
    groups: Annotated[Size, Field(description="of channels that are filtered apart")] = 1
    ceil: Annotated[bool, Field(description="whether sizes are rounded up")] = False
    slope: Annotated[float, Field(ge=0, lt=1, description="of a leaky ReLU below 0")] = 0.0
    size: Annotated[Size, Field(description="channels that are normalised over")] = 5
    alpha: Annotated[float, Field(gt=0, description="of the normalisation; divided by size")] = 1e-4
    beta: Annotated[float, Field(gt=0, description="its exponent")] = 0.75
    k: Annotated[float, Field(gt=0, description="its constant")] = 1.0
    epsilon: Annotated[float, Field(gt=0, description="added to a variance")] = 1e-5

    @model_validator(mode="after")
    def _goes_together(self) -> "Layer":
        keys = _KINDS[self.kind].keys
        if wrong := sorted(self.model_fields_set - {"name", "kind", "of", *keys}):
            known = ", ".join(keys) or "none"
            raise ValueError(f"{self.name}: {', '.join(wrong)}: no key of {self.kind}, which has: {known}")
        if "kernel" in keys and not {"kernel", "stride"} <= self.model_fields_set:
            raise ValueError(f"{self.name}: {self.kind} needs kernel and stride")
        if self.name == IMAGE:
            raise ValueError(f"{IMAGE} is what the images are called, and no layer")
        return self


@dataclass(frozen=True)
class _Operation:
    """How a kind of layer is run: ONNX's operation, its attributes, and the tensors that it learned."""

    name: Callable[[Layer], str]
    attributes: Callable[[Layer], dict[str, Any]]
    keys: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()  # of the first of them; the others have a number for each unit


def _sliding(layer: Layer) -> dict[str, Any]:
    return {"strides": _pair(layer.stride), "pads": _pair(layer.padding) * 2}


def _pooling(layer: Layer) -> dict[str, Any]:
    return {**_sliding(layer), "kernel_shape": _pair(layer.kernel or 1), "ceil_mode": int(layer.ceil),
            "count_include_pad": 1}


def _pair(value: int | tuple[int, int]) -> Pair:
    return (value, value) if isinstance(value, int) else value


def _plain(operation: str) -> _Operation:
    return _Operation(lambda _: operation, lambda _: {})


_WINDOW = ("kernel", "stride", "padding", "ceil")
_KINDS = {
    "convolution": _Operation(lambda _: "Conv",
                         lambda layer: {**_sliding(layer), "dilations": _pair(layer.dilation), "group": layer.groups},
                         ("stride", "padding", "dilation", "groups"), ("weight", "bias"),
                         ("units", "channels of a group", "height", "width")),
    "linear": _Operation(lambda _: "Gemm", lambda _: {"transB": 1}, (), ("weight", "bias"), ("units", "values")),
    "batch_norm": _Operation(lambda _: "BatchNormalization", lambda layer: {"epsilon": layer.epsilon}, ("epsilon",),
                        ("weight", "bias", "running_mean", "running_var"), ("units",)),
    "relu": _Operation(lambda layer: "LeakyRelu" if layer.slope else "Relu", lambda layer: {"alpha": layer.slope},
                  ("slope",)),
    "max_pool": _Operation(lambda _: "MaxPool", _pooling, _WINDOW),
    "average_pool": _Operation(lambda _: "AveragePool", _pooling, _WINDOW),
    "global_average_pool": _plain("GlobalAveragePool"),
    "lrn": _Operation(lambda _: "LRN", lambda layer: {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta,
                                                 "bias": layer.k}, ("size", "alpha", "beta", "k")),
    "flatten": _plain("Flatten"),
    "concatenate": _Operation(lambda _: "Concat", lambda _: {"axis": 1}),
    "add": _plain("Sum"),
}


def build_layers(layers: Sequence[Layer], state: Mapping[str, Tensor], size: int, keras: bool = False,
                 channels: int = 3) -> GraphNetwork:
    """The network of a list of layers, in evaluation mode, for images (N, channels, size, size), with its weights.

    A bias may be missing, nothing else, and nothing may be left over. The filters of ``keras`` are (height, width,
    channels, units), its rows (values, units), and a map is flattened with its channels last. Raises DeconvnetError
    with everything that does not fit, or with the layer that cannot run on what it gets.
    """
    sources = _sources(layers)
    state = {name: value for name, value in state.items() if not name.endswith(".num_batches_tracked")}
    if keras:
        state = {name: value.permute(_from_keras(value)).contiguous() for name, value in state.items()}
    if problems := [*_names_that_do_not_fit(layers, state), *_shapes_that_do_not_fit(layers, state)]:
        raise DeconvnetError("The weights do not fit the layers:\n  " + "\n  ".join(problems))
    constants = {name: value.float() for name, value in state.items()}
    nodes = [_node(layer, sources[layer.name], constants) for layer in layers]
    if keras:
        _flatten_with_channels_first(nodes, constants, (channels, size, size))
    text = json.dumps([layer.model_dump() for layer in layers], sort_keys=True)
    return GraphNetwork(_graph(nodes, constants, channels, nodes[-1].outputs[0], text), (size, size))


def _sources(layers: Sequence[Layer]) -> dict[str, list[str]]:
    """What each layer takes, by its name. DeconvnetError for what stands nowhere above."""
    sources: dict[str, list[str]] = {}
    above = IMAGE
    for layer in layers:
        taken = [layer.of] if isinstance(layer.of, str) else list(layer.of) or [above]
        unknown = [name for name in taken if name not in (IMAGE, *sources)]
        if unknown or layer.name in sources:
            raise DeconvnetError(f"layers: {layer.name}: " + (f"takes {unknown[0]}, and no layer above is called so"
                                                              if unknown else "is there twice"))
        if len(taken) > 1 and layer.kind not in ("concatenate", "add"):
            raise DeconvnetError(f"layers: {layer.name}: {layer.kind} takes one layer, not {len(taken)}")
        sources[layer.name], above = taken, layer.name
    return sources


def _graph(nodes: Sequence[Node], constants: Mapping[str, Tensor], channels: int, output: str, text: str) -> Graph:
    return Graph(list(nodes), dict(constants), IMAGE, (None, channels, None, None), [output], _OPSET,
                 hashlib.sha256(text.encode()).hexdigest())


def _node(layer: Layer, sources: list[str], constants: Mapping[str, Tensor]) -> Node:
    kind = _KINDS[layer.kind]
    weights = [f"{layer.name}.{part}" for part in kind.weights]
    inputs = (*sources, *(name if name in constants else "" for name in weights))
    return Node(kind.name(layer), layer.name, inputs, (layer.name,), kind.attributes(layer))


# ---- whether weights fit ----

def _names_that_do_not_fit(layers: Sequence[Layer], state: Mapping[str, Tensor]) -> Iterator[str]:
    wanted = {f"{layer.name}.{part}" for layer in layers for part in _KINDS[layer.kind].weights}
    extra = sorted(state.keys() - wanted)
    for name in sorted(wanted - state.keys()):
        if not name.endswith(".bias") or name.replace(".bias", ".running_mean") in wanted:
            yield f"missing: {name}{near_name(name, extra)}"
    for name in extra:
        yield f"not in the network: {name} {tuple(state[name].shape)}"


def _shapes_that_do_not_fit(layers: Sequence[Layer], state: Mapping[str, Tensor]) -> Iterator[str]:
    for layer in layers:
        kind = _KINDS[layer.kind]
        found = {part: state[f"{layer.name}.{part}"] for part in kind.weights if f"{layer.name}.{part}" in state}
        units = len(found["weight"]) if "weight" in found and found["weight"].ndim else 0
        for part, value in found.items():
            right = value.ndim == len(kind.axes) if part == "weight" else value.shape == (units,)
            if not right or not value.numel():
                shape = f"({', '.join(kind.axes)})" if part == "weight" else f"({units},)"
                yield f"misshapen: {layer.name}.{part} is {tuple(value.shape)}, and should be {shape}"
            if not value.is_floating_point():
                yield f"of another kind: {layer.name}.{part} is {value.dtype}, and should be floating-point"


# ---- as Keras lays them out ----

def _from_keras(value: Tensor) -> list[int]:
    """The order of a tensor's axes that makes it PyTorch's."""
    return {4: [3, 2, 0, 1], 2: [1, 0]}.get(value.ndim, list(range(value.ndim)))


def _flatten_with_channels_first(nodes: Sequence[Node], constants: dict[str, Tensor],
                                 image: tuple[int, int, int]) -> None:
    """Puts the columns of those rows that take a flattened map in the order in which PyTorch flattens it."""
    made = {node.name: number for number, node in enumerate(nodes)}
    for node in nodes:
        above = nodes[made[node.inputs[0]]] if node.inputs[0] in made else None
        if node.kind == "Gemm" and above and above.kind == "Flatten":
            before = _graph(nodes[:made[above.name]], constants, image[0], above.inputs[0], "")
            with torch.no_grad():
                shape = GraphNetwork(before, image[1:])(torch.zeros(1, *image)).shape  # (1, C, H, W)
            rows = constants[node.inputs[1]]                                     # (units, H·W·C)
            if rows.shape[1] != shape.numel():
                raise DeconvnetError(f"misshapen: {node.inputs[1]} takes {rows.shape[1]} values, and gets "
                                     f"{shape.numel()}")
            apart = rows.view(len(rows), *shape[2:], shape[1])
            constants[node.inputs[1]] = apart.permute(0, 3, 1, 2).flatten(1).contiguous()
