"""Figure 1: the deconvnet drawn for a real activation, stage by stage down to pixels, beside the network's way up.

The paper draws one layer with maps of its fancy; here are all layers below one activation, with the maps that a network
really has. Order and words are the paper's: unpool by the switches, rectify, filter, and the next layer's begin.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor

from ..exhibit import Exhibit
from ..gallery import cut
from ..inverses import (
    DECONVNET,
    Signal,
    filter_transposed,
    fit,
    join,
    rectify,
    rewindow,
    scale,
    share,
    sliding,
    spread,
    spread_adaptive,
    spread_mean,
    unpool,
    weigh,
)
from ..projection import walk_back
from ..render import normalise, robust_scale
from ..subject import Opened, Subject
from ..tape import Call, Tape, as_map, record_as_far_as
from .activation import Activation, check_layer, check_number, inputs, of_the_default, strongest_among, strongest_of
from .page import ACCENT, FAINT, Page


class Settings(Subject):
    """Which activation, and how much of its way down is drawn."""

    layer: Annotated[str | None, Field(description="where the way begins; none: the last convolution")] = None
    unit: Annotated[int | None, Field(ge=0, description="none: the one that fires most in the image")] = None
    image: Annotated[int | None, Field(ge=0, description="its number; none: the one of those looked at in which the "
                                                         "unit fires most; so for images of one's own")] = 30
    look: Annotated[int, Field(ge=1, description="images looked at, spread evenly over all")] = 48
    maps: Annotated[int, Field(ge=1, le=12, description="strongest maps drawn at each stage")] = 5
    stages: Annotated[int, Field(ge=4, le=60, description="stages drawn at most, the first third and the last")] = 24


@dataclass(frozen=True, eq=False)
class Stage:
    """The signal after one step down, with what the network had there on its way up.

    Attributes:
        step: ``seed``, ``unpool``, ``rectify``, ``filter`` or ``spread`` (average pooling's).
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


_STEPS = {unpool: "unpool", rectify: "rectify", filter_transposed: "filter", weigh: "filter", spread: "spread",
          spread_adaptive: "spread", spread_mean: "spread"}
_PASSED = {"local_response_norm": "contrast norm. passed through", "batch_norm": "times batch norm's scale",
           "cat": "split into the parts"}


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, for the activation that the settings name or lead to."""
    opened = settings.open("figure 1")
    one = _choose(opened, settings, progress)
    tape = record_as_far_as(opened.net, inputs(opened.net, opened.images, [one.image]), one.layer)
    stages = shortened(with_chosen(descend(tape, one), one.unit, settings.maps), settings.stages)
    drawing = draw(stages, opened.images.image(one.image), f"{one.address} at ({one.y}, {one.x}): {one.value:.2f}")
    return Exhibit(drawing, _numbers(one, stages), _caption(opened, one, stages), opened.origin)


def _choose(opened: Opened, settings: Settings, progress: bool) -> Activation:
    """The activation, all settings having been checked before the work."""
    layer, units = check_layer(opened.net, settings.layer)
    wanted = None if settings.unit is None else [settings.unit]
    for unit in wanted or ():
        check_number(f"unit in {layer}", unit, units)
    image = of_the_default(settings, "image")
    if image is None:
        return strongest_among(opened, layer, wanted, settings.look, 1, progress)[0]
    check_number("image", image, len(opened.images))
    return strongest_of(opened, layer, wanted, image)[0]


@torch.no_grad()
def descend(tape: Tape, one: Activation) -> list[Stage]:
    """Every step of one activation's way down, from the activation to pixels, for a tape of its image alone.

    The last stage's signal is what ``project`` gives, on the same window (Zeiler and Fergus 2014, section 2.1).
    """
    maps, number = tape.activations(one.layer), tape.number(one.layer)           # (1, C, H, W)
    seed = maps.new_zeros(1, maps.shape[1], 1, 1)
    seed[0, one.unit] = maps[0, one.unit, one.y, one.x]
    start = Signal(seed, torch.tensor([[one.y, one.x]], device=seed.device), torch.tensor([0], device=seed.device))
    notes = _Notes(tape, number)
    first = notes.stage("seed", one.layer, "", _around(start, maps), maps)
    arrived = walk_back(tape, number, start, notes.step, notes.meet)
    last = notes.stages[-1]
    pixels = notes.stage(last.step, last.module, last.how, arrived, tape.values[0])  # where branches met, their sum
    return [first, *notes.stages[:-1], replace(pixels, passed=last.passed, follows=last.follows)]


class _Notes:
    """What is noted on the way down, step by step."""

    def __init__(self, tape: Tape, number: int) -> None:
        self.tape = tape
        self.stages: list[Stage] = []
        self.now = {number}            # the values that the last stage's signal lies on
        self.passed: list[str] = []    # what has been passed since then, in words

    def step(self, call: Call, signal: Signal) -> list[Signal]:
        """The paper's rule for a call, noted where it is a stage of its own."""
        rule, value = DECONVNET[call.function], as_map(self.tape.values[call.inputs[0]])
        sizes = [as_map(self.tape.values[number]).shape[-2:] for number in call.inputs]
        parts = [fit(part, (size[0], size[1])) for part, size in zip(rule(call, signal), sizes, strict=True)]
        follows = not self.now.isdisjoint(call.outputs)
        if rule in _STEPS:
            maps = as_map(_before(self.tape, call.inputs[0])) if rule is rectify else value
            made = self.stage(_STEPS[rule], call.module, _how(call), parts[0], maps, _switched(call, parts[0]))
            self.stages.append(replace(made, follows=follows))
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
              switches: np.ndarray | None = None) -> Stage:
        """A stage in arrays."""
        size = (signal.values.shape[2], signal.values.shape[3])
        whole = Signal(maps, torch.zeros_like(signal.origin), signal.image)
        y, x = signal.origin[0].tolist()
        return Stage(step, module, how, tuple(dict.fromkeys(self.passed)), signal.values[0].cpu().numpy(),
                     rewindow(whole, signal.origin, size).values[0].cpu().numpy(), switches, (y, x),
                     (maps.shape[2], maps.shape[3]))


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
    """The kernel and stride of a call, such as ``3×3, stride 2``."""
    slide = sliding(call)
    if DECONVNET[call.function] is rectify or slide is None:
        return ""
    stride = str(slide.stride[0]) if slide.stride[0] == slide.stride[1] else f"{slide.stride[0]}×{slide.stride[1]}"
    return f"{slide.kernel[0]}×{slide.kernel[1]}, stride {stride}"


def _switched(call: Call, signal: Signal) -> np.ndarray | None:
    """Where under a window any pooling window of the whole map had its maximum (C, h, w)."""
    if call.switches is None or DECONVNET[call.function] is not unpool:
        return None
    height, width = call.given[0].shape[-2:]
    marks = call.given[0].new_zeros(1, call.switches.shape[1], height * width)
    marks.scatter_(2, call.switches.flatten(2), 1.0)
    whole = Signal(marks.view(1, -1, height, width), torch.zeros_like(signal.origin), signal.image)
    size = (signal.values.shape[2], signal.values.shape[3])
    return (rewindow(whole, signal.origin, size).values[0] > 0).cpu().numpy()


def with_chosen(stages: Sequence[Stage], unit: int, count: int) -> list[Stage]:
    """The stages, each with the maps that are drawn: the unit, then the ``count`` strongest, then the three colours.

    From an unpooling to the filtering below it the maps are the same, those that are strongest before the filtering.
    """
    chosen: list[tuple[int, ...]] = []
    for stage, below in reversed(list(zip(stages, [*stages[1:], None], strict=True))):
        if below is None:
            chosen.insert(0, tuple(range(len(stage.signal))))
        elif stage.step == "seed":
            chosen.insert(0, (unit,))
        elif below.step != "filter" and below.follows and len(below.signal) == len(stage.signal):
            chosen.insert(0, chosen[0])
        else:
            strength = np.abs(stage.signal).max((1, 2))
            order = np.argsort(-strength, kind="stable")[:count]
            chosen.insert(0, tuple(int(n) for n in order if strength[n] > 0))
    return [replace(stage, chosen=own) for stage, own in zip(stages, chosen, strict=True)]


def shortened(stages: Sequence[Stage], most: int) -> list[Stage]:
    """The stages, or where they are more than ``most`` the first third and the last two thirds of so many."""
    if len(stages) <= most:
        return list(stages)
    head, tail = stages[:most // 3], stages[len(stages) - (most - most // 3):]
    left_out = f"… {len(stages) - most} stages in between are not drawn"
    return [*head, replace(tail[0], follows=False, passed=(left_out,)), *tail[1:]]


# ---- the drawing ----

TILE, GAP, LARGE = 0.62, 0.07, 1.6       # inches: a map, between two, the pixels at the bottom
ZONE, SIDE, MIDDLE, TOP = 0.48, 1.75, 0.95, 0.95  # between rows, for the labels, between the columns, the heading


def draw(stages: Sequence[Stage], picture: np.ndarray, title: str) -> Figure:
    """The deconvnet's way down on the left, the network's way up on the right, level with each other.

    ``stages`` from the activation to the pixels, ``picture`` (H, W, 3) uint8 what the network saw. Each row of maps has
    one symmetric scale, zero is mid-grey.
    """
    column = max(max(len(stage.chosen) for stage in stages[:-1]) * (TILE + GAP), 2 * LARGE + 0.25)
    rows = sum((TILE + ZONE) * (2 if stage.step == "unpool" else 1) for stage in stages[:-1])
    last = 2 if stages[-1].step == "unpool" else 1
    page = Page(2 * (SIDE + column) + MIDDLE, TOP + rows + (last - 1) * (TILE + ZONE) + LARGE + 0.45)
    left, right = SIDE, SIDE + column + MIDDLE
    page.words(page.axes.get_xlim()[1] / 2, 0.12, title, 12, ha="center")
    page.words(left, 0.47, "Deconvnet, downwards", 10, weight="bold")
    page.words(right, 0.47, "Convnet, upwards", 10, weight="bold")
    y = TOP
    for above, stage, below in zip([None, *stages[:-1]], stages, [*stages[1:], None], strict=True):
        if above is not None:
            y += _step(page, left, right, column, y, stage, above)
        if below is None:
            _pixels(page, left, right, y, stage, picture)
        else:
            _row(page, left, right, column, y, above, stage, below)
            y += TILE
    return page.figure


def _row(page: Page, left: float, right: float, column: float, y: float,
         above: Stage | None, stage: Stage, below: Stage) -> None:
    """The signal on the left and the network's maps on the right, the same maps in the same order."""
    for x, values in ((left, stage.signal), (right, stage.maps)):
        shown = values[list(stage.chosen)]
        _maps(page, x, y, shown, stage.chosen)
        label = "\n".join([_size(values), _window(stage), f"black to white ±{_scale(shown):.3g}"])
        name = _name(stage, above) if x == left else _upward_name(stage, below)
        place, side = (left - 0.12, "right") if x == left else (right + column + 0.02, "left")
        page.words(place, y - 0.03, name, 7.5, ha=side, weight="bold")
        page.words(place, y + 0.13, label, 6.5, ha=side, color=FAINT)


def _maps(page: Page, x: float, y: float, maps: np.ndarray, numbers: Sequence[int]) -> None:
    scale = _scale(maps)
    for n, (number, one) in enumerate(zip(numbers, maps, strict=True)):
        start = x + n * (TILE + GAP)
        page.tile(start, y, TILE, TILE, normalise(np.repeat(one[None], 3, axis=0), scale))
        page.words(start + TILE / 2, y + TILE + 0.015, str(number), 5.5, ha="center", color=FAINT)


def _scale(maps: np.ndarray) -> float:
    """The robust scale of what is not zero: most of an unpooled map is, and would count as the rest of it."""
    return robust_scale(maps[maps != 0])


def _step(page: Page, left: float, right: float, column: float, y: float, stage: Stage, above: Stage) -> float:
    """The arrows between two rows, with the switches where there are some; how much room they take."""
    room = ZONE
    if stage.switches is not None:
        room += TILE + ZONE
        _switches(page, left, right, column, y + ZONE, stage)
        page.arrow((right + 0.12, y + ZONE - 0.04), (right + 0.12, y + 0.03))
    down, up = _words(stage)
    if stage.follows:
        page.arrow((left + 0.12, y + 0.03), (left + 0.12, y + room - 0.03))
        page.arrow((right + 0.12, y + room - 0.03), (right + 0.12, y + room - ZONE + 0.03))
    page.words(left + 0.28, y + room - 0.19, down, 7, va="center")
    page.words(right + 0.28, y + room - 0.19, up, 7, va="center")
    return room


def _switches(page: Page, left: float, right: float, column: float, y: float, stage: Stage) -> None:
    """The switches of an unpooling, which go from the network's way up to the deconvnet's way down."""
    assert stage.switches is not None
    for n, number in enumerate(stage.chosen):
        marks = np.where(stage.switches[number], 255, 64).astype(np.uint8)
        page.tile(right + n * (TILE + GAP), y, TILE, TILE, np.repeat(marks[:, :, None], 3, axis=2))
    label, middle = right + column + 0.02, y + TILE / 2
    page.words(label, y - 0.03, "Switches", 7.5, weight="bold", color=ACCENT)
    page.words(label, y + 0.13, "white: a pooling window\nhad its maximum here", 6.5, color=FAINT)
    page.arrow((right - 0.06, middle), (left + 0.2, middle), ACCENT)
    page.words(right - MIDDLE / 2, middle - 0.17, "switches", 7.5, ha="center", color=ACCENT)


def _words(stage: Stage) -> tuple[str, str]:
    """What a step does, on the way down and on the way up."""
    down, up = {  # the paper's words
        "unpool": ("max unpooling", "max pooling"), "rectify": ("rectified linear", "rectified linear"),
        "filter": ("convolutional filtering {Fᵀ}", "convolutional filtering {F}"),
        "spread": ("spread evenly", "average pooling"),
    }[stage.step]
    about = f" {stage.module}" + (f", {stage.how}" if stage.how else "")
    notes = "; ".join(stage.passed or (() if stage.follows else ("another branch",)))
    return f"{down}{about}" + (f"\n({notes})" if notes else ""), f"{up}{about}"


def _pixels(page: Page, left: float, right: float, y: float, stage: Stage, picture: np.ndarray) -> None:
    """The bottom: the reconstruction in pixels, the patch behind it, and where that lies in the image."""
    height, width = stage.signal.shape[1:]
    high, wide = LARGE * height / max(height, width), LARGE * width / max(height, width)
    page.tile(left, y, wide, high, normalise(stage.signal))
    page.words(left - 0.12, y - 0.03, "Reconstruction\nin pixels", 7.5, ha="right", weight="bold")
    about = [_size(stage.signal), _window(stage), f"black to white ±{robust_scale(stage.signal):.3g}"]
    page.words(left - 0.12, y + 0.27, "\n".join(about), 6.5, ha="right", color=FAINT)
    page.tile(right, y, wide, high, cut(picture, stage.origin, (height, width)))
    page.words(right, y + LARGE + 0.04, "patch: the receptive field", 6.5, color=FAINT)
    scale, x = LARGE / max(picture.shape[:2]), right + LARGE + 0.2
    page.tile(x, y, picture.shape[1] * scale, picture.shape[0] * scale, picture)
    (top, first), bottom, end = stage.origin, min(stage.origin[0] + height, picture.shape[0]), \
        min(stage.origin[1] + width, picture.shape[1])
    top, first = max(top, 0), max(first, 0)
    page.box(x + first * scale, y + top * scale, (end - first) * scale, (bottom - top) * scale, ACCENT, 1.5)
    page.words(x, y + LARGE + 0.04, "the image and the field in it", 6.5, color=FAINT)


def _name(stage: Stage, above: Stage | None) -> str:
    """What the signal at this place is called."""
    if stage.step == "rectify" and above is not None and above.step == "unpool":
        return "Rectified unpooled maps"
    return {"seed": "One activation", "unpool": "Unpooled maps", "rectify": "Rectified maps",
            "filter": "Reconstruction", "spread": "Spread maps"}[stage.step]


def _upward_name(stage: Stage, below: Stage) -> str:
    """What the network's maps at this place are called; it depends on what comes before them on the way up."""
    if stage.step in ("seed", "rectify"):
        return "Feature maps" if stage.step == "rectify" else "Feature map"
    return {"unpool": "Pooled maps", "rectify": "Rectified feature maps", "spread": "Averaged maps"}.get(
        below.step, "Feature maps")


def _size(values: np.ndarray) -> str:
    return f"of {len(values)} maps" if len(values) != 3 else "three colours"


def _window(stage: Stage) -> str:
    height, width = stage.signal.shape[1:]
    if (height, width) == stage.size:
        return f"{height}×{width}, all of it"
    return f"{height}×{width} of {stage.size[0]}×{stage.size[1]}"


def _numbers(one: Activation, stages: Sequence[Stage]) -> dict[str, Any]:
    """The activation, and of each stage the step, the sizes, and the maps drawn with their strengths."""
    return {
        "activation": {**one._asdict(), "address": one.address},
        "stages": [{
            "step": stage.step, "module": stage.module, "how": stage.how, "passed": list(stage.passed),
            "maps": len(stage.signal), "size": list(stage.size), "window": list(stage.signal.shape[1:]),
            "origin": list(stage.origin), "drawn": list(stage.chosen),
            "strongest": [float(np.abs(stage.signal[n]).max()) for n in stage.chosen],
        } for stage in stages],
    }


def _caption(opened: Opened, one: Activation, stages: Sequence[Stage]) -> str:
    return (f"Figure 1 for {opened}: the way of {one.address} at ({one.y}, {one.x}), an activation of {one.value:.2f} "
            f"in image {one.image} ({one.file}), down to pixels. Left, from top to bottom, the deconvnet's signal: "
            "unpooled by the switches, rectified, filtered with the transposed filters, layer after layer. Right, read "
            "upwards, what the network had in the same window of the same maps. Drawn are the strongest maps of each "
            f"of {len(stages)} stages, with their numbers; each row has one symmetric scale, zero is mid-grey. Values "
            "that meet where overlapping windows share a maximum are summed, contrast normalisation is passed through, "
            "no bias takes part, and pixels are not rectified. The paper draws one layer as a diagram, without an "
            "activation of a real network, and enlarges one unpooling below it.")
