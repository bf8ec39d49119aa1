"""Figure 1: the deconvnet drawn for a real activation, stage by stage down to pixels, beside the network's way up.

The paper draws one layer with maps of its fancy; here are all layers below one activation, with the maps that a network
really has. Order and words are the paper's: unpool by the switches, rectify, filter, and the next layer's begin.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field

from ..colours import normalise, robust_scale
from ..descent import Stage, descend, shortened, with_chosen
from ..exhibit import Exhibit
from ..patches import cut
from ..subject import Opened, Subject
from ..tape import record_as_far_as
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


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, for the activation that the settings name or lead to."""
    opened = settings.open("figure 1")
    one = _choose(opened, settings, progress)
    tape = record_as_far_as(opened.net, inputs(opened.net, opened.images, [one.image]), one.layer)
    _, (way,) = descend(tape, one.layer, [(0, one.unit, one.y, one.x)])
    stages = shortened(with_chosen(way, one.unit, settings.maps), settings.stages)
    drawing = draw(stages, opened.images.image(one.image), f"{one.address} at ({one.y}, {one.x}): {one.value:.2f}")
    return Exhibit(drawing, _numbers(one, stages), _caption(opened, one, stages), opened.origin)


def _choose(opened: Opened, settings: Settings, progress: bool) -> Activation:
    """The activation, all settings having been checked before the work."""
    layer, units = check_layer(opened.net, settings.layer)
    wanted = None if settings.unit is None else [settings.unit]
    for unit in wanted or ():
        check_number("unit", unit, units, f" in layer {layer!r}")
    image = of_the_default(settings, "image")
    if image is None:
        return strongest_among(opened, layer, wanted, settings.look, 1, progress)[0]
    check_number("image", image, len(opened.images))
    return strongest_of(opened, layer, wanted, image)[0]


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
        "spread": ("spread evenly", "average pooling"), "pass": ("passed through", "passed through"),
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
