"""What a network makes of many inputs: something of each layer's activations, and the classes' probabilities."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import DeconvnetError, UsageError
from ..tape import as_map, full_precision, place_of
from ..watching import count_calls, resolve, watch

Keep = Callable[[Tensor], Tensor]  # activations (n, C, H, W) → what is kept of each, (n, …)


@dataclass
class Responses:
    """What was kept of each layer, (N, …) by name; and the probabilities (N, classes), None if there are no classes."""

    kept: dict[str, Tensor]
    probabilities: Tensor | None


@torch.no_grad()
def respond(net: nn.Module, batches: Iterable[Tensor], keep: Mapping[str, Keep]) -> Responses:
    """One forward pass for each batch (n, 3, H, W), of which no more stays in memory than is kept.

    ``keep`` says for each layer what to keep of its activations, the positive part of what it puts out; its names are
    full addresses, as ``addresses`` gives them. Raises DeconvnetError where a layer or the output is NaN or infinite.
    """
    kept: dict[str, list[Tensor]] = {layer: [] for layer in keep}
    outputs: list[Tensor] = []

    def take(name: str, output: Tensor) -> None:
        if name in keep:  # at once, for a ReLU in place may come
            kept[name].append(_finite(keep[name](as_map(output).clamp(min=0)), name).cpu())

    with watch(net, take), full_precision():
        for batch in batches:
            outputs.append(_finite(net(batch.to(*place_of(net))), "the output").cpu())
    return Responses({layer: torch.cat(parts) for layer, parts in kept.items()}, probabilities(torch.cat(outputs)))


@torch.no_grad()
def addresses(net: nn.Module, image: Tensor, layers: Sequence[str]) -> list[str]:
    """The layers' full addresses, found with one image (3, H, W).

    Raises UsageError for a layer that does not exist, is ambiguous, or puts out neither (N, C, H, W) nor (N, C).
    """
    sizes: dict[str, int] = {}
    try:
        with watch(net, lambda name, output: sizes.__setitem__(name, output.ndim)):
            output = net(image[None].to(*place_of(net)))
    except RuntimeError as error:
        raise DeconvnetError(f"the network cannot take an image of {tuple(image.shape)}: {error}") from error
    if not isinstance(output, Tensor):
        raise UsageError(f"the network puts out a {type(output).__name__}, and a figure needs a tensor")
    found = [resolve(layer, count_calls(sizes)) for layer in layers]
    for layer in found:
        if sizes[layer] not in (2, 4):
            raise UsageError(f"layer {layer!r} puts out neither feature maps (N, C, H, W) nor a row (N, C)")
    return found


def probabilities(outputs: Tensor) -> Tensor | None:
    """The softmax of what a network puts out (N, classes), or that itself where each row is a distribution already.

    None where it is not one number for each of several classes.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return None
    is_distribution = bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-4).all())
    return outputs if is_distribution else outputs.float().softmax(1)


def batched(inputs: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Inputs (3, H, W) stacked in batches of ``size``; the last may be smaller."""
    waiting: list[Tensor] = []
    for one in inputs:
        waiting.append(one)
        if len(waiting) == size:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)


def _finite(values: Tensor, where: str) -> Tensor:
    if not bool(values.isfinite().all()):
        raise DeconvnetError(f"{where}: NaN or infinity; look at the weights of this layer and of those before it")
    return values
