"""The heart: walk the tape backwards, from chosen activations down to pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from .errors import DeconvnetError, UsageError, check_least
from .inverses import Rule, Table, obstacle, sliding, table
from .receptive import Box, Field, Pair, Sliding, Spreading
from .tape import Call, Tape, as_map, full_precision
from .windows import Signal, fit, inside, join, on_map, rewindow

TOGETHER = 100_000    # pixels that the activations see which travel down together: so many stay in a processor's cache
FEWEST, MOST = 6, 64  # activations that do, whatever they see: with fewer, calls cost more than what they compute

Boxes = tuple[Box, ...]
Onto = Callable[[Signal, Pair, Signal], Signal]
Travels = TypeVar("Travels", Signal, Boxes)


@dataclass
class Projection:
    """Activations as they arrived in pixels, in the order in which they were asked for.

    Attributes:
        pixels: (n, C, h, w) signed, zero where nothing arrived, on each activation's receptive field; where that is
            larger than the image, on the image.
        origin: (n, 2) the (y, x) in the image of each window's top-left pixel; negative at a border.
        values: (n,) the activations themselves; for a whole map, the sum over the map.
        size: (H, W) of the images.
    """

    pixels: Tensor
    origin: Tensor
    values: Tensor
    size: tuple[int, int]

    def on_canvas(self) -> Tensor:
        """The projections placed in whole images (n, C, H, W), zero outside their windows."""
        if not len(self.pixels):
            return self.pixels.new_zeros(0, self.pixels.shape[1], *self.size)
        signal = Signal(self.pixels, self.origin, torch.arange(len(self.pixels)))
        return rewindow(signal, torch.zeros_like(self.origin), self.size).values


def project(tape: Tape, layer: str, units: Sequence[Sequence[int]] | Tensor, *, method: str | Table = "deconvnet",
            unpool: str = "switches", seed: Literal["activation", "map"] = "activation", rows: int | None = None
            ) -> Projection:
    """The projections of chosen activations of a layer down to pixels (Zeiler and Fergus 2014, section 2.1).

    Args:
        tape: what ``record`` gave.
        layer: name of the layer, as ``named_modules()`` gives it; ``relu#2`` for the second call of ``relu``.
        units: one (image, unit, y, x) for each projection: image of the batch, feature map, position on the map.
        method: ``deconvnet``, ``gradient``, ``guided``, or a table of rules of one's own.
        unpool: by the ``switches``, or to the ``center`` of each pooling window; a table of one's own says it itself.
        seed: ``activation``: this one alone, its value, everything else in the layer zero. ``map``: the whole feature
            map of the unit; y and x, if given, are not looked at.
        rows: how many travel down together; by default so many that their windows stay in a processor's cache.

    An activation is the positive part of what the layer puts out; one that is not positive projects to nothing.
    Raises UsageError for a layer, unit or position that does not exist, and DeconvnetError, before anything is
    projected, where a call on the way down has no rule.
    """
    if seed not in ("activation", "map"):
        raise UsageError(f"There is no seed {seed!r}; there are: activation, map")
    check_least(rows=(rows, 1))
    rules = table(method, unpool)
    return send_down(tape, layer, units, rules, _walk(tape, tape.number(layer), rules), seed, rows, in_order=False)


@torch.inference_mode(False)
@torch.no_grad()
@full_precision()
def send_down(tape: Tape, layer: str, units: Sequence[Sequence[int]] | Tensor, rules: Table,
              walk: Callable[[Signal], Signal], seed: str = "activation", rows: int | None = None,
              in_order: bool = True) -> Projection:
    """The same, for whoever watches the signals on their way: ``walk`` takes one on the layer down to the images.

    They come ``in_order`` of the units, or with those together that see as much of the image.
    """
    maps, images = as_map(tape.values[tape.number(layer)]), tape.values[0]            # (N, C, H, W), (N, 3, H, W)
    chosen = _check_units(layer, units, maps, seed)                                   # (n, 4)
    start = _seed_map if seed == "map" else _seed_activation
    field = field_of(tape, layer, _size(maps) if seed == "map" else (1, 1), rules)
    origin, size = _windows(field, chosen[:, 2:], _size(images))
    pixels = maps.new_zeros(len(chosen), images.shape[1], *size)                      # (n, 3, h, w)
    values = maps.new_zeros(len(chosen))                                              # (n,)
    rows = rows or min(max(TOGETHER // (size[0] * size[1]), FEWEST), MOST)
    order = torch.arange(len(chosen)) if in_order else _by_size(origin, size, _size(images))
    for part in order.split(rows) if len(chosen) else ():
        signal = start(maps, chosen[part])
        values[part] = signal.values.sum((1, 2, 3))
        pixels[part] = rewindow(walk(signal), origin[part], size).values
    return Projection(pixels, origin, values, _size(images))


def field_of(tape: Tape, layer: str, size: tuple[int, int] = (1, 1), rules: Table | None = None) -> Field:
    """What the units of a layer see of the image; with ``size``, what patches of so many neighbouring units see.

    Raises DeconvnetError with the call, the module and the remedy where a call on the way down has no rule.
    """
    rules = table() if rules is None else rules
    slides: list[Sliding | None] = []

    def step(call: Call, boxes: Boxes) -> list[Boxes]:
        check(call, rules)
        slide = sliding(call)
        slides.append(slide)
        if slide is None:
            return [(Box((0, 0), _size(as_map(tape.values[number]))),) * len(boxes) for number in call.inputs]
        return [tuple(map(slide.below, boxes))] * len(call.inputs)

    def meet(one: Boxes, other: Boxes) -> Boxes:
        return tuple(map(Box.union, one, other))

    rows, columns = _size(tape.maps(layer))
    corners = tuple(Box(at, size) for at in ((0, 0), (1, 1), (rows, columns)))
    first, second, last = walk_back(tape, tape.number(layer), corners, step, meet)
    field = Field(first.size, (second.start[0] - first.start[0], second.start[1] - first.start[1]), first.start)
    spreads = any(isinstance(slide, Spreading) for slide in slides)
    if field.box(1, 1) == second and field.box(rows, columns) == last and not spreads:
        return field
    # branches of different strides meet, or maps were enlarged: no field slides, so every unit gets the union
    whole = first.union(last)
    return Field(whole.size, (0, 0), whole.start)


def check(call: Call, rules: Table) -> None:
    """Raises DeconvnetError, with the call, the module and the remedy, where a signal cannot travel down a call."""
    problem = obstacle(call, rules)
    if problem:
        raise DeconvnetError(f"Cannot project through {call}: {problem}.")


def walk_back(tape: Tape, number: int, signal: Travels, step: Callable[[Call, Travels], list[Travels]],
              meet: Callable[[Travels, Travels], Travels]) -> Travels:
    """What arrives at the images: ``step`` takes a signal through a call, ``meet`` adds it up where branches meet."""
    signals = {number: signal}
    for call in reversed(tape.calls):
        reached = [signals.pop(output) for output in call.outputs if output in signals]
        for source, part in zip(call.inputs, step(call, reached[0]), strict=True) if reached else ():
            signals[source] = meet(signals[source], part) if source in signals else part
    if 0 not in signals:
        raise DeconvnetError("Cannot project: nothing of this layer depends on the images, as far as torch's own calls "
                             "tell. What is computed elsewhere, or changed through a view, cannot be followed: write "
                             "it in torch's own calls, or look at a layer below it.")
    return signals[0]


def _walk(tape: Tape, number: int, rules: Table) -> Callable[[Signal], Signal]:
    """The way down by the rules of a table."""
    def step(call: Call, signal: Signal) -> list[Signal]:
        return step_down(tape, rules[call.function], call, signal, inside)
    return lambda signal: walk_back(tape, number, signal, step, join)


def step_down(tape: Tape, rule: Rule, call: Call, signal: Signal, onto: Onto = fit) -> list[Signal]:
    """What a rule gives on each input of a call, as far as it is on the map: ``onto`` takes away what is not."""
    sizes = [_size(as_map(tape.values[number])) for number in call.inputs]
    return [onto(part, size, signal) for part, size in zip(rule(call, signal), sizes, strict=True)]


def _size(maps: Tensor) -> tuple[int, int]:
    """(H, W) of feature maps or images."""
    return maps.shape[-2], maps.shape[-1]


def _windows(field: Field, positions: Tensor, image: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """The origins (n, 2) and the size of the receptive fields at some positions (n, 2), no larger than the image."""
    origin = positions * positions.new_tensor(field.stride) + positions.new_tensor(field.start)
    size = min(field.size[0], image[0]), min(field.size[1], image[1])
    return torch.where(positions.new_tensor(size) < positions.new_tensor(field.size), 0, origin), size


def _by_size(origin: Tensor, size: tuple[int, int], image: tuple[int, int]) -> Tensor:
    """The order (n,) of windows by the size of what they see of the image: those that travel together are alike."""
    height, width = on_map(origin, size, image).T
    return (height * (image[1] + 1) + width).argsort(stable=True)


def _seed_activation(maps: Tensor, units: Tensor) -> Signal:
    """One activation per row, everything else zero: windows of a single cell (n, C, 1, 1)."""
    image, unit, y, x = units.T
    values = maps.new_zeros(len(units), maps.shape[1], 1, 1)
    values[torch.arange(len(units)), unit, 0, 0] = maps[image, unit, y, x].clamp(min=0)
    return Signal(values, units[:, 2:], image)


def _seed_map(maps: Tensor, units: Tensor) -> Signal:
    """One whole feature map per row, the other maps zero (n, C, H, W)."""
    image, unit = units[:, 0], units[:, 1]
    values = maps.new_zeros(len(units), *maps.shape[1:])
    values[torch.arange(len(units)), unit] = maps[image, unit].clamp(min=0)
    return Signal(values, torch.zeros_like(units[:, 2:]), image)


def _check_units(layer: str, units: Sequence[Sequence[int]] | Tensor, maps: Tensor, seed: str) -> Tensor:
    """The chosen activations (n, 4) as a tensor; (image, unit) is enough for whole maps."""
    try:
        chosen = torch.as_tensor(units).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"units must be (image, unit, y, x) for each projection: {error}") from None
    if chosen.numel() == 0:
        return torch.zeros(0, 4, dtype=torch.int64)
    if chosen.is_floating_point():
        raise UsageError("units must be whole numbers: (image, unit, y, x) for each projection")
    chosen = chosen.long()
    if seed == "map" and chosen.ndim == 2 and chosen.shape[1] in (2, 4):
        chosen = torch.cat([chosen[:, :2], chosen.new_zeros(len(chosen), 2)], dim=1)
    if chosen.ndim != 2 or chosen.shape[1] != 4:
        raise UsageError(f"units must be (image, unit, y, x) for each projection, not of shape {tuple(chosen.shape)}")
    for column, (what, there) in enumerate(zip(("image", "unit", "row y", "column x"), maps.shape, strict=True)):
        wrong = chosen[(chosen[:, column] < 0) | (chosen[:, column] >= there)]
        if len(wrong):
            where = "on the tape" if what == "image" else f"in layer {layer!r}"
            raise UsageError(f"There is no {what} {int(wrong[0, column])} {where}: it has {there}, 0 to {there - 1}")
    return chosen
