"""A graph as a module: it runs node by node, with torch's own calls, so that a tape sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import DeconvnetError
from .graph import Graph, Node
from .operations import OPERATIONS
from .operations.making import LIMIT, Making, Unsupported
from .operations.shapes import Reshape

_TAKEN = ("layers", "classes", "preprocess", "outputs", "sha256")  # what is put on a network later


@dataclass(frozen=True)
class _Step:
    """One call: of which module, with which values, making which, and which nobody needs any more."""

    module: str
    inputs: list[str]
    outputs: list[str]
    done: list[str]


class GraphNetwork(nn.Module):
    """The network of a graph, a module for each of its nodes, under the node's name; in evaluation mode.

    A call takes images (N, C, H, W) and gives the graph's first output. N may be any number, also where the file fixes
    one; sizes may differ from the file's where its operations allow it. Raises DeconvnetError, naming the node, where
    something cannot run.

    Attributes:
        size: (H, W) of the images for which it was laid out.
        channels: C of the images.
        outputs: how many numbers it gives for an image.
    """

    def __init__(self, graph: Graph, size: tuple[int, int]) -> None:
        """Args: what a file says, and the size of images where it leaves that open."""
        super().__init__()
        height, width = graph.shape[2] or size[0], graph.shape[3] or size[1]
        self.size, self.channels = (height, width), graph.shape[1] or 3
        self._image, self._output = graph.image, graph.outputs[0]
        self._reckoning: set[str] = set()  # modules that make sizes, and are no layers: nobody watches their calls
        self._steps = _with_ends(list(self._build(graph)), self._output)
        self.register_buffer("sha256", torch.frombuffer(bytearray.fromhex(graph.sha256), dtype=torch.uint8))
        self._check_finite()
        self.outputs = self._lay_out(graph.shape[0])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """The graph's first output for images (N, C, H, W)."""
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise DeconvnetError(f"The network takes images (N, {self.channels}, H, W), not {tuple(images.shape)}.")
        values = {self._image: images}
        for step in self._steps:
            given = [values[name] for name in step.inputs]
            module = getattr(self, step.module)
            try:
                made = module.forward(*given) if step.module in self._reckoning else module(*given)
            except (RuntimeError, IndexError, Unsupported) as error:
                raise _cannot_run(step, module, given, error) from error
            values.update(zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=False))
            for name in step.done:
                del values[name]
        return values[self._output]

    def _build(self, graph: Graph) -> Iterator[_Step]:
        """A module for each node, but for those that only compute constants: these are computed now."""
        constants = dict(graph.constants)
        for node in graph.nodes:
            fixed = all(name in constants for name in filter(None, node.inputs))
            module, names = _make(Making(node, constants, graph.opset, None if fixed else graph.shape[0]))
            if fixed:
                constants.update(_computed(node, module, [constants[name] for name in names]))
                continue
            name = node.name
            while hasattr(self, name) or name in _TAKEN:
                name += "_"
            self.add_module(name, module)
            yield _Step(name, names, list(node.outputs), [])
        if self._output in constants or self._output == self._image:
            raise DeconvnetError("what the graph gives does not depend on the images")

    def _check_finite(self) -> None:
        bad = [name for name, tensor in self.state_dict().items()
               if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
        if bad:
            raise DeconvnetError(f"NaN or infinity among the weights: {', '.join(bad)}")

    def _lay_out(self, batch: int | None) -> int:
        """Go through the graph without computing, to find what cannot run and what does not keep images apart.

        Gives the numbers that come out for an image.
        """
        images = batch or 1
        first, second = (self._shapes(n, batch) for n in (images, images + 1))
        for step in self._steps:
            for name in filter(None, step.outputs):
                one, other = first.get(name), second.get(name)
                if one and other and (one[1:] != other[1:] or one[0] * (images + 1) != other[0] * images):
                    raise DeconvnetError(f"the node {step.module} does not keep the images of a batch apart: it gives "
                                         f"{one} for {images} and {other} for {images + 1}")
        self._reckoning.update(step.module for step in self._steps if not first.keys() & set(step.outputs))
        output = first.get(self._output)
        if not output or output[0] != images:
            raise DeconvnetError(f"the graph gives {output} for {images} images, and not a row for each")
        return int(torch.Size(output[1:]).numel())

    def _shapes(self, images: int, batch: int | None) -> dict[str, tuple[int, ...]]:
        """The shapes of all floating-point values by name, from tensors that have no memory."""
        values = {self._image: torch.empty(images, self.channels, *self.size, device="meta")}
        for step in self._steps:
            module, given = getattr(self, step.module), [values[name] for name in step.inputs]
            try:
                made = _without_memory(module, given)
                if isinstance(module, Reshape) and images == batch:
                    _check_literal(module, given[0], made[0])
            except Exception as error:
                raise _cannot_run(step, module, given, error) from error
            values.update(zip(step.outputs, made, strict=False))
        return {name: tuple(value.shape) for name, value in values.items() if value.is_floating_point()}


def _make(making: Making) -> tuple[nn.Module, list[str]]:
    try:
        return OPERATIONS[making.node.kind](making)
    except DeconvnetError:
        raise
    except Exception as error:  # the checker does not look at the values of attributes
        raise making.refuse(f"{type(error).__name__}: {error}") from error


def _computed(node: Node, module: nn.Module, given: list[Tensor]) -> dict[str, Tensor]:
    """What a node makes of constants."""
    try:
        _without_memory(module, [value.to("meta") for value in given])
        with torch.no_grad():
            made = module.eval()(*given)
    except Exception as error:
        raise Unsupported(f"the node {node.name} ({node.kind}): {error}") from error
    made = made if isinstance(made, tuple) else (made,)
    return {name: value.detach() for name, value in zip(node.outputs, made, strict=False) if name}


def _without_memory(module: nn.Module, given: list[Tensor]) -> tuple[Tensor, ...]:
    """What a module makes, on the meta device. Unsupported where one is too large to be meant."""
    own = {name: tensor.to("meta") for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    made = functional_call(module.eval(), own, tuple(given))
    made = made if isinstance(made, tuple) else (made,)
    for value in made:
        if value.numel() > LIMIT or not all(value.shape):
            raise Unsupported(f"it would make values of {tuple(value.shape)}")
    return made


def _check_literal(module: Reshape, given: Tensor, made: Tensor) -> None:
    """The file's own batch must be what its shape begins with."""
    literal = torch.reshape(given, module.literal(given)).shape
    if literal != made.shape:
        raise Unsupported(f"it says {tuple(literal)}, which is not read as a batch: {tuple(made.shape)}")


def _cannot_run(step: _Step, module: nn.Module, given: list[Tensor], error: Exception) -> DeconvnetError:
    shapes = ", ".join(str(tuple(value.shape)) for value in given)
    weight = getattr(module, "weight", None)
    learned = f" with weights {tuple(weight.shape)}" if isinstance(weight, Tensor) else ""
    return DeconvnetError(f"The node {step.module} cannot run on {shapes}{learned}: {' '.join(str(error).split())}")


def _with_ends(steps: list[_Step], output: str) -> list[_Step]:
    """The steps, each with the names of the values that nobody needs after it."""
    later = {output}
    for step in reversed(steps):
        unused = (name for name in (*step.inputs, *step.outputs) if name and name not in later)
        step.done.extend(dict.fromkeys(unused))
        later.update(step.inputs)
    return steps
