"""Units by number, as a user or a program gives them, and the classes that a network's last units stand for."""

from collections.abc import Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from .errors import UsageError
from .layout import shortened
from .watching import learned, uncompiled, watch

LONGEST = 32  # characters of a name: more have no room above nine tiles


def parse_units(text: str, layer: str, count: int) -> list[int]:
    """The units that ``3,17,90-95`` names, in that order, each once; UsageError for what is not among ``count``.

    ``layer`` is the one that has ``count`` units: the error names it.
    """
    units: dict[int, None] = {}
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if not (_is_number(first) and (_is_number(last) if dash else True)):
            raise UsageError(f"units are numbers and ranges such as 3,17,90-95, not {text!r}")
        begin, end = int(first), int(last or first)
        if begin > end:
            raise UsageError(f"the range {word.strip()} runs backwards: {end}-{begin}")
        check_unit(end, layer, count)
        units.update(dict.fromkeys(range(begin, end + 1)))
    return list(units)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


def check_unit(unit: int, layer: str, count: int) -> None:
    """Raises UsageError for what is no unit of a layer that has so many."""
    if not 0 <= unit < count:
        raise UsageError(f"there is no unit {unit} in layer {layer!r}: it has {count}, 0 to {count - 1}")


def check_units(units: Sequence[Any], layer: str, count: int) -> list[int]:
    """The numbers of units, whatever kind of whole numbers they are given as; else as ``check_unit``."""
    numbers = [_whole(unit) for unit in units]
    for unit in numbers:
        check_unit(unit, layer, count)
    return numbers


def _whole(unit: Any) -> int:
    try:
        return index(unit)
    except TypeError as error:
        raise UsageError(f"units are whole numbers, not {unit!r}") from error


def class_names(net: nn.Module, layer: str, count: int, image: Tensor) -> list[str]:
    """What each of a layer's units stands for: a class of the network, if the layer is its output; else none.

    Args:
        net: the network; its ``classes`` count where they are a list of words.
        layer: with ``count`` units.
        image: (1, C, H, W), which the network is run on to see which layer it calls last.

    Each name is its first word or words, up to a comma, in at most 32 characters.
    """
    net = uncompiled(net)
    classes = getattr(net, "classes", None)
    if not isinstance(classes, list | tuple) or len(classes) != count or not all(isinstance(c, str) for c in classes):
        return []
    layers = learned(net)
    called: list[str] = []
    try:
        with torch.no_grad(), watch(net, lambda name, _: called.append(name)):
            net(image)
    except Exception:  # only the lower layers take images of that size, so that it has no output
        return []
    last = [name for name in called if name.partition("#")[0] in layers][-1:]
    if last != [layer]:
        return []
    return [shortened(" ".join(name.partition(",")[0].split()), LONGEST) for name in classes]
