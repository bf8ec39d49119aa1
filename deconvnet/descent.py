"""The way down of one activation, step by step: what figures and pages show of what ``project`` does.

Order and words are the paper's: unpool by the switches, rectify, filter, and the next layer's begin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .inverses import (
    DECONVNET,
    filter_again,
    filter_transposed,
    rectify,
    scale,
    share,
    sliding,
    slope_of,
    spread,
    spread_adaptive,
    spread_mean,
    unpool,
    weigh,
)
from .projection import Projection, send_down, step_down, walk_back
from .tape import Call, Tape, as_map
from .windows import Signal, fit, join, rewindow


@dataclass(frozen=True, eq=False)
class Stage:
    """The signal after one step down, with what the network had there on its way up.

    Attributes:
        step: ``seed``, ``unpool``, ``rectify``, ``filter``, ``spread`` (average pooling's), or ``pass`` where none of
            them lies between the activation and pixels.
        module: the layer whose step it is.
        how: the kernel and the stride, in words.
        passed: what lay between this step and the one above it and is not drawn, in words.
        signal: (C, h, w) signed, on a window of the maps.
        maps: (C, h, w) the network's own values in the same window, zero outside the map.
        switches: (C, h, w) bool, where a maximum was, of an unpooling.
        origin: (y, x) of the window on the map.
        size: (H, W) of the whole map.
        follows: whether it takes what the stage before it gave.
        chosen: the numbers of the maps that are drawn.
        count: how many maps there are.
    """

    step: str
    module: str
    how: str
    passed: tuple[str, ...]
    signal: np.ndarray
    maps: np.ndarray
    switches: np.ndarray | None
    origin: tuple[int, int]
    size: tuple[int, int]
    follows: bool = True
    chosen: tuple[int, ...] = ()
    count: int = 0


_STEPS = {unpool: "unpool", rectify: "rectify", filter_transposed: "filter", filter_again: "filter", weigh: "filter",
          spread: "spread", spread_adaptive: "spread", spread_mean: "spread"}
_PASSED = {"local_response_norm": "contrast norm. passed through", "batch_norm": "times batch norm's scale",
           "cat": "split into the parts"}


Keep = Callable[[list[Stage], int], list[Stage]]


def descend(tape: Tape, layer: str, units: Sequence[Sequence[int]], before_relu: bool = True,
            keep: Keep | None = None) -> tuple[Projection, list[list[Stage]]]:
    """What ``project`` gives, and of each activation every step of its way down, from the activation to pixels.

    Args:
        tape, layer, units: as for ``project``: one (image, unit, y, x) for each activation.
        before_relu: where a ReLU worked in place, compute again what the network had before it, for the stages that
            rectify; else those show what it left.
        keep: what to keep of the stages of a way, given them and the unit; by default all, which is much.

    The last stage's signal is the projection, on the same window but for what lies outside the image (Zeiler and Fergus
    2014, section 2.1).
    """
    notes = _Notes(tape, layer, before_relu)
    ways: list[list[Stage]] = []

    def walk(signal: Signal) -> Signal:
        arrived, stages = notes.walk(signal)
        for way in map(list, zip(*stages, strict=True)):
            ways.append(keep(way, int(units[len(ways)][1])) if keep else way)
        return arrived

    return send_down(tape, layer, units, DECONVNET, walk), ways


class _Notes:
    """What is noted on the way down, step by step, of the n activations that go together."""

    def __init__(self, tape: Tape, layer: str, before_relu: bool) -> None:
        self.tape, self.layer, self.before_relu = tape, layer, before_relu

    def walk(self, start: Signal) -> tuple[Signal, list[list[Stage]]]:
        """What arrives, and the stages, of each of which there are n."""
        number = self.tape.number(self.layer)
        self.stages: list[list[Stage]] = []
        self.now = {number}            # the values that the last stage's signal lies on
        self.passed: list[str] = []    # what has been passed since then, in words
        maps = self.tape.maps(self.layer)                                        # (N, C, H, W)
        first = [replace(stage, maps=stage.maps.clip(min=0))
                 for stage in self.stage("seed", self.layer, "", _around(start, maps), maps)]
        arrived = walk_back(self.tape, number, start, self.step, self.meet)
        self.stages = self.stages or [self.stage("pass", "", "", arrived, self.tape.values[0])]
        last = self.stages[-1][0]
        pixels = self.stage(last.step, last.module, last.how, arrived, self.tape.values[0])  # where branches met: sums
        return arrived, [first, *self.stages[:-1],
                         [replace(stage, passed=last.passed, follows=last.follows) for stage in pixels]]

    def step(self, call: Call, signal: Signal) -> list[Signal]:
        """The paper's rule for a call, noted where it is a stage of its own."""
        rule, value = DECONVNET[call.function], as_map(self.tape.values[call.inputs[0]])
        parts = step_down(self.tape, rule, call, signal)
        follows = not self.now.isdisjoint(call.outputs)
        if rule in _STEPS:
            again = rule is rectify and self.before_relu
            maps = as_map(_before(self.tape, call.inputs[0])) if again else value
            made = self.stage(_STEPS[rule], call.module, _how(call), parts[0], maps, _switched(call, signal, parts[0]))
            self.stages.append([replace(stage, follows=follows) for stage in made])
            self.now, self.passed = set(call.inputs), []
        elif follows:
            self.now |= set(call.inputs)
            self.passed += [_PASSED[call.name]] if call.name in _PASSED else []
        return parts

    def meet(self, one: Signal, other: Signal) -> Signal:
        """The sum of two branches."""
        self.passed.append("branches added")
        return join(one, other)

    def stage(self, step: str, module: str, how: str, signal: Signal, maps: Tensor,
              switches: np.ndarray | None = None) -> list[Stage]:
        """A stage in arrays, of each of the n; ``switches`` (n, C, h, w)."""
        passed = tuple(dict.fromkeys(self.passed))
        there = _under(maps, signal)                                             # (n, C, h, w)
        size = (maps.shape[2], maps.shape[3])
        return [Stage(step, module, how, passed, own, below, None if switches is None else switches[row], (y, x), size,
                      count=len(own))
                for row, (own, below, (y, x)) in enumerate(zip(_array(signal.values), there, signal.origin.tolist(),
                                                               strict=True))]


def _under(maps: Tensor, signal: Signal) -> np.ndarray:
    """What lies under the windows of a signal, (n, C, h, w), zero outside the map."""
    size = (signal.values.shape[2], signal.values.shape[3])
    parts = []
    for image, origin in zip(signal.image.tolist(), signal.origin, strict=True):
        whole = Signal(maps[image, None], torch.zeros_like(signal.origin[:1]), signal.image[:1])  # (1, C, H, W)
        parts.append(rewindow(whole, origin[None], size).values)
    return _array(torch.cat(parts))


def _array(values: Tensor) -> np.ndarray:
    """The values for numpy, which has no bfloat16."""
    return values.to(torch.float32 if values.dtype == torch.bfloat16 else values.dtype).cpu().numpy()


def _around(signal: Signal, maps: Tensor, most: int = 15) -> Signal:
    """A single activation with the zeros around it: the whole map, or as much of a large one as can be seen."""
    size = (min(most, maps.shape[2]), min(most, maps.shape[3]))
    room = signal.origin.new_tensor([maps.shape[2] - size[0], maps.shape[3] - size[1]])
    origin = torch.minimum((signal.origin - signal.origin.new_tensor(size) // 2).clamp(min=0), room)
    return rewindow(signal, origin, size)


def _before(tape: Tape, number: int) -> Tensor:
    """A value as it was before a ReLU in place wrote over it: computed again by the call that made it."""
    maker = next((call for call in tape.calls if number in call.outputs), None)
    rule = DECONVNET.get(maker.function) if maker else None
    if maker and rule is share and len(maker.given) == 2:
        return maker.given[0] + maker.given[1]
    return maker.function(*maker.args, **maker.kwargs) if maker and rule in (filter_transposed, scale) else \
        tape.values[number]


def _how(call: Call) -> str:
    """The kernel and stride of a call, such as ``3×3, stride 2``; of a leaky ReLU its slope."""
    if DECONVNET[call.function] is rectify:
        slope = slope_of(call)
        return "learned slopes" if isinstance(slope, Tensor) else f"slope {slope:g}" if slope else ""
    slide = sliding(call)
    if slide is None:
        return ""
    stride = str(slide.stride[0]) if slide.stride[0] == slide.stride[1] else f"{slide.stride[0]}×{slide.stride[1]}"
    return f"{slide.kernel[0]}×{slide.kernel[1]}, stride {stride}"


def _switched(call: Call, signal: Signal, arrived: Signal) -> np.ndarray | None:
    """Where any pooling window had its maximum (n, C, h, w), in the windows of what arrived from a signal."""
    if call.switches is None or DECONVNET[call.function] is not unpool:
        return None
    slide = sliding(call)
    assert slide is not None
    n, channels, h, w = signal.values.shape
    # a pooling window beside those of the signal may reach into what arrived
    reach = [d * (k - 1) // s for d, k, s in zip(slide.dilation, slide.kernel, slide.stride, strict=True)]
    ones = signal.values.new_ones(n, channels, h + 2 * reach[0], w + 2 * reach[1])
    around = Signal(ones, signal.origin - signal.origin.new_tensor(reach), signal.image)
    marks = unpool(call, fit(around, (call.shape[-2], call.shape[-1]), signal))[0]
    size = (arrived.values.shape[2], arrived.values.shape[3])
    return _array(rewindow(marks, arrived.origin, size).values) > 0


def with_chosen(stages: Sequence[Stage], unit: int, count: int) -> list[Stage]:
    """The stages, each with the maps that are drawn: the unit, then the ``count`` strongest, then the three colours.

    From an unpooling to the filtering below it the maps are the same, those that are strongest before the filtering;
    where rectification leaves none of them, those that are strongest before it.
    """
    chosen: list[tuple[int, ...]] = []
    for stage, below in reversed(list(zip(stages, [*stages[1:], None], strict=True))):
        if below is None:
            chosen.insert(0, tuple(range(len(stage.signal))))
        elif stage.step == "seed":
            chosen.insert(0, (unit,))
        elif below.step != "filter" and below.follows and len(below.signal) == len(stage.signal) and chosen[0]:
            chosen.insert(0, chosen[0])
        else:
            strength = np.abs(stage.signal).max((1, 2))
            order = np.argsort(-strength, kind="stable")[:count]
            chosen.insert(0, tuple(int(n) for n in order if strength[n] > 0))
    return [replace(stage, chosen=own) for stage, own in zip(stages, chosen, strict=True)]


def chosen_only(stages: Sequence[Stage], unit: int, count: int) -> list[Stage]:
    """The stages with nothing but the maps that ``with_chosen`` chooses, which need a hundredth of the memory."""
    def trimmed(stage: Stage) -> Stage:
        own = list(stage.chosen)
        switches = None if stage.switches is None else stage.switches[own]
        return replace(stage, signal=stage.signal[own], maps=stage.maps[own], switches=switches)
    return [trimmed(stage) for stage in with_chosen(stages, unit, count)]


def shortened(stages: Sequence[Stage], most: int) -> list[Stage]:
    """The stages, or where they are more than ``most`` the first third and the last two thirds of so many."""
    if len(stages) <= most:
        return list(stages)
    head, tail = stages[:most // 3], stages[len(stages) - (most - most // 3):]
    left_out = f"… {len(stages) - most} stages in between are not drawn"
    return [*head, replace(tail[0], follows=False, passed=(left_out,)), *tail[1:]]
