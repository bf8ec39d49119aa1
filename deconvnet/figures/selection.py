"""Figure 6: how the paper came to its filters: the first and second layers of two networks, side by side.

The same, for any two networks and without panel (a), is what ``deconvnet compare`` draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isqrt
from typing import Annotated, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor, nn

from ..compare import (
    ALIKE,
    FAINT,
    HIGH,
    LOW,
    Filters,
    beyond,
    counts,
    distribution,
    distributions,
    measure,
    nyquist,
    spectrum,
)
from ..describe import Layer, describe
from ..errors import DeconvnetError, UsageError
from ..exhibit import DPI, Exhibit, Table
from ..gallery import Gallery, gallery
from ..layout import GAP, MARGIN, TITLE, Sheet, below, beside, empty, framed, line, printable
from ..network import has_weights, load_model
from ..render import filter_sheet, reconstruction_sheet
from ..report import MOST, choose_units, numbers
from ..scan import scan
from ..settings import Part
from ..subject import Opened, Subject

STEPS = np.arange(1, 32) / 64  # cycles per pixel: where the curves of the projections' energy have their points


class Side(Part):
    """A network of the comparison."""

    model: Annotated[str, Field(min_length=1, description="as --model of deconvnet scan")]
    weights: Annotated[str | None, Field(description="as --weights of deconvnet scan")] = None
    first: Annotated[str | None, Field(description="the layer that looks at pixels; none: its first convolution")
                     ] = None
    second: Annotated[str | None, Field(description="the layer above it; none: the second convolution")] = None


UNRESTRAINED = Side(model="zfnet", weights="unrestrained")


class Settings(Part):
    """Which networks, and how much of them."""

    left: Annotated[Side, Field(description="panels b and d")] = Side(model="alexnet_dense", weights="demo")
    right: Annotated[Side, Field(description="panels c and e")] = Side(model="zfnet", weights="demo")
    unrestrained: Annotated[Side | None, Field(description="panel a: a first layer that was trained without "
                                               "renormalisation; none: no such panel")] = UNRESTRAINED
    images: Annotated[str, Field(min_length=1, description="as deconvnet scan --images")] = "builtin:photographs-apart"
    count: Annotated[int, Field(ge=1, le=64, description="random maps of each second layer in panels d and e")] = 15
    measured: Annotated[int, Field(ge=1, le=MOST, description="random maps of each second layer whose projections are "
                                   "measured")] = 64
    top: Annotated[int, Field(ge=1, le=100, description="activations of each map")] = 9
    seed: Annotated[int, Field(ge=0, description="of the random choices")] = 0


@dataclass(frozen=True, eq=False)
class Seen:
    """What a comparison shows of a network.

    Attributes:
        name: what to call it.
        first, second: the names of its first two layers.
        stride: of the first layer, (y, x), in pixels.
        weight: (units, 3, h, w), the filters of the first layer.
        filters: what is measured of them.
        dead: how many of them fire in no image.
        shown: the galleries of the second layer that are drawn.
        aliased: (measured maps,) the share of their projections' energy that the first layer's stride cannot carry.
        energy: (measured maps, steps) the share at and above each of the frequencies STEPS, along either axis.
    """

    name: str
    first: str
    second: str
    stride: tuple[int, int]
    weight: np.ndarray
    filters: Filters
    dead: int
    shown: Sequence[Gallery]
    aliased: np.ndarray
    energy: np.ndarray


# ---- what is drawn ----


def draw_filters(weight: np.ndarray | None, title: str, side: int = 44) -> Sheet:
    """A panel of filters (units, 3, h, w), column by column, 9 rows for the paper's 96, all on one symmetric scale.

    ``side``: pixels on the side of a filter, at most. Without filters the panel is an empty frame that says so.
    """
    if weight is None:
        body = empty(11 * (side + 1), 9 * (side + 1), "no weights")
        return framed(below(line(printable(title), TITLE), body, gap=GAP))
    rows = max(isqrt(len(weight)), 1)
    return filter_sheet(weight, printable(title), zoom=max(side // max(weight.shape[2:]), 1), rows=rows)


def draw(panels: Sequence[Sheet], groups: Sequence[Sheet]) -> Sheet:
    """The page: the panels of filters above, the groups of projections below."""
    return below(beside(*panels, gap=MARGIN // 2), beside(*groups, gap=MARGIN // 2), gap=GAP)


def draw_numbers(sides: Sequence[Seen]) -> Figure:
    """Histograms of what is measured of each filter and projection, a line for each network."""
    figure = Figure(figsize=(11, 5.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 4).flatten()
    for place, (key, title, edges) in zip(axes, _HISTOGRAMS, strict=False):
        _histogram(place, [(side.name, getattr(side.filters, key)) for side in sides], edges)
        _labels(place, title, "share of filters")
    _histogram(axes[6], [(side.name, side.aliased) for side in sides], np.linspace(0, 1, 21))
    _labels(axes[6], "layer 2: share of energy that the\nstride of layer 1 cannot carry", "share of maps")
    _curves(axes[7], sides)
    figure.legend(handles=axes[0].patches, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


_HISTOGRAMS = [
    ("norm", "norm of a filter", None),
    ("frequency", "dominant frequency,\ncycles per pixel", np.linspace(0, 0.72, 19)),
    ("orientation", "orientation of that, degrees\n(0: upright stripes)", np.linspace(0, 180, 13)),
    ("low", "energy below 1/8\ncycle per pixel", np.linspace(0, 1, 21)),
    ("high", "energy at and above 3/8\ncycle per pixel", np.linspace(0, 1, 21)),
    ("likeness", "highest |cosine| with\nanother filter", np.linspace(0, 1, 21)),
]
_LINES = (("#c05020", "-"), ("#204080", "--"))  # told apart without colour too


def _histogram(axes: Axes, values: Sequence[tuple[str, np.ndarray]], edges: np.ndarray | None) -> None:
    """Shares of the values in each bin, as outlines."""
    there = [(name, found[~np.isnan(found)]) for name, found in values]
    if edges is None:
        edges = np.linspace(0, max([float(found.max()) for _, found in there if len(found)] or [1]) * 1.001 or 1, 19)
    for (name, found), (color, style) in zip(there, _LINES, strict=True):
        share = np.histogram(found, edges)[0] / max(len(found), 1)
        axes.stairs(share, edges, color=color, linestyle=style, linewidth=1.4, label=printable(name))
    axes.set_xlim(edges[0], edges[-1] + 0.01 * (edges[-1] - edges[0]))


def _curves(axes: Axes, sides: Sequence[Seen]) -> None:
    """The mean share of the projections' energy at and above a frequency, and what each first layer carries."""
    for side, (color, style) in zip(sides, _LINES, strict=True):
        if len(side.energy):
            axes.plot(STEPS, side.energy.mean(0), color=color, linestyle=style, linewidth=1.4)
        axes.axvline(min(nyquist(side.stride)), color=color, linestyle=style, linewidth=0.8, alpha=0.6)
    axes.set(ylim=(0, 1), xlim=(0, 0.5))
    _labels(axes, "layer 2: energy at and above\na frequency (upright: limits)", "mean share", "cycles per pixel")


def _labels(axes: Axes, title: str, vertical: str, horizontal: str = "") -> None:
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(vertical, fontsize=8)
    axes.set_xlabel(horizontal, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


# ---- what is computed ----


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, after a scan of the first two layers of both networks."""
    return compare(settings, progress, "figure 6")[0]


def compare(settings: Settings, progress: bool = True, command: str = "compare") -> tuple[Exhibit, Table]:
    """The figure, and its numbers as a table. ``command`` is what made them, for their provenance."""
    bare = _unrestrained(settings.unrestrained)
    opened = [_open(side, settings, command) for side in (settings.left, settings.right)]
    sides = [_see(one, layers, settings, progress) for one, layers in opened]
    origin = {"command": f"deconvnet {command}", "settings": settings.model_dump(mode="json", include=_OWN),
              "networks": [one.origin for one, _ in opened]}
    table = Table(["", *(side.name for side in sides)], _rows(sides), _definitions(sides), origin)
    caption = _caption([one for one, _ in opened], sides, settings, bare is not None)
    exhibit = Exhibit(_page(settings, bare, sides), {"networks": [_numbers(side) for side in sides]}, caption, origin,
                      {"numbers": draw_numbers(sides)})
    return exhibit, table


_OWN = {"count", "measured", "top", "seed"}  # the settings that name no file


def _page(settings: Settings, bare: np.ndarray | None, sides: Sequence[Seen]) -> Sheet:
    letters = iter(_letters(settings))
    panels = []
    if settings.unrestrained:
        panels.append(draw_filters(bare, f"(a) {settings.unrestrained.model}, no renormalisation"))
    panels += [draw_filters(side.weight, f"({next(letters)}) {side.name}: {side.first}") for side in sides]
    groups = [reconstruction_sheet(side.shown, 54, settings.top, columns=5,
                                   title=printable(f"({next(letters)}) {side.name}: {side.second}")) for side in sides]
    return draw(panels, groups)


def _letters(settings: Settings) -> str:
    """The panels of the two networks, first layers first: the paper's letters where there is a panel (a)."""
    return "bcde" if settings.unrestrained else "abcd"


def _see(opened: Opened, layers: tuple[Layer, Layer], settings: Settings, progress: bool) -> Seen:
    """What there is to see of a network, after a scan of all images."""
    first, second = layers
    top = scan(opened.net, opened.images, layers=[first.name, second.name], k=settings.top, progress=progress)
    drawn, measured = (choose_units(top, [second.name], None, count, settings.seed)[second.name]
                       for count in (settings.count, settings.measured))
    both = sorted({*drawn, *measured})
    made = {one.unit: one for one in gallery(opened.net, top, second.name, both, opened.images, progress=progress)}
    if not drawn:
        raise DeconvnetError(f"{_name(opened)}: no unit of {second.name} fires in any image")
    weight = opened.net.get_submodule(first.name.partition("#")[0]).weight
    assert isinstance(weight, Tensor) and first.slide is not None
    stride = first.slide.stride
    energy = [_reach(made[unit], stride) for unit in measured if len(made[unit].values)]
    return Seen(_name(opened), first.name, second.name, stride, weight.detach().cpu().numpy(), measure(weight),
                len(top[first.name].dead), [made[unit] for unit in drawn],
                np.array([carried for carried, _ in energy]), np.array([curve for _, curve in energy]))


def _reach(one: Gallery, stride: tuple[int, int]) -> tuple[float, list[float]]:
    """Of the energy of all projections of a unit, the share beyond what a stride carries, and beyond each of STEPS."""
    power = spectrum(torch.from_numpy(one.reconstructions)).sum(0, keepdim=True)  # (1, n, n)
    return float(beyond(power, nyquist(stride))), [float(beyond(power, (step, step))) for step in STEPS.tolist()]


def _name(opened: Opened) -> str:
    weights = opened.origin["weights"]
    return printable(f"{opened.origin['model']} ({weights})" if weights else str(opened.origin["model"]))


# ---- what is refused ----


def _open(side: Side, settings: Settings, command: str) -> tuple[Opened, tuple[Layer, Layer]]:
    """A network with the images, and its first two layers. Raises UsageError for what cannot be compared."""
    opened = Subject(model=side.model, weights=side.weights, images=settings.images).open(command)
    convolutions = [module for module in opened.net.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise UsageError(f"{side.model} has no convolution, so it has no filters to compare")
    size = opened.net.preprocess.size
    layers = {layer.name: layer for layer in describe(opened.net, (size, size), convolutions[0].in_channels)}
    slides = [name for name, layer in layers.items() if _module(opened.net, name) is not None]
    first, second = (_layer(side.model, layers, wanted, slides, n)
                     for n, wanted in enumerate((side.first, side.second)))
    module = _module(opened.net, first.name)
    if module is None or module.in_channels != 3 or module.groups != 1:
        channels = "is no convolution" if module is None else f"has filters of {module.weight.shape[1]} channels"
        raise UsageError(f"{side.model}: {first.name} {channels}, and only filters of 3 can be shown as colours")
    if second.obstacle:
        raise DeconvnetError(second.obstacle)
    return opened, (first, second)


def _module(net: nn.Module, layer: str) -> nn.Conv2d | None:
    """The convolution by a layer's name; None where it is something else."""
    module = net.get_submodule(layer.partition("#")[0])
    return module if isinstance(module, nn.Conv2d) else None


def _layer(model: str, layers: Mapping[str, Layer], wanted: str | None, slides: Sequence[str], n: int) -> Layer:
    """The layer that is named, or the n-th convolution. Raises UsageError, with near matches, where there is none."""
    if wanted is None and len(slides) <= n:
        raise UsageError(f"{model} has {len(slides)} convolution, and a comparison shows the first two layers")
    name = wanted or slides[n]
    if name not in layers:
        near = get_close_matches(name, layers, 1)
        raise UsageError(f"{model} has no layer {name!r}." + (f" Did you mean {near[0]!r}?" if near else "")
                         + f" Its convolutions are: {', '.join(slides)}")
    return layers[name]


def _unrestrained(side: Side | None) -> np.ndarray | None:
    """The filters of panel (a); None without such a panel, and where its weights do not ship."""
    if side is None or (side == UNRESTRAINED and not has_weights(side.model, str(side.weights))):
        return None
    net = load_model(side.model, side.weights)
    modules = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and side.first in (None, name)]
    if not modules or modules[0][1].weight.shape[1] != 3:
        raise UsageError(f"{side.model}: {side.first or 'the first layer'} is no convolution that looks at 3 channels")
    return modules[0][1].weight.detach().numpy()


# ---- what is said ----


def _numbers(side: Seen) -> dict[str, Any]:
    """Everything measured of a network, as data for JSON."""
    quarter = side.energy[:, int(np.flatnonzero(STEPS == 0.25)[0])] if len(side.energy) else np.array([])
    return {
        "network": side.name, "first": side.first, "second": side.second, "stride": list(side.stride),
        "filters": {"count": len(side.weight), "dead": side.dead, "shares": counts(side.filters),
                    "distributions": distributions(side.filters)},
        "projections": {
            "nyquist": list(nyquist(side.stride)), "aliased": distribution(side.aliased),
            "from_a_quarter": distribution(quarter),
            "steps": STEPS.tolist(), "energy": side.energy.mean(0).tolist() if len(side.energy) else []},
        "each": {**{key: [None if np.isnan(v) else v for v in values.tolist()]
                    for key, values in vars(side.filters).items()}, "aliased": side.aliased.tolist()},
        "units": [numbers(one) for one in side.shown],
    }


def _rows(sides: Sequence[Seen]) -> list[list[str]]:
    """The table: what was measured, for each network."""
    found = [_numbers(side) for side in sides]

    def row(name: str, words: Any) -> list[str]:
        return [name, *(words(one) for one in found)]

    spread = [("norm", "norm"), ("dominant frequency, cycles per pixel", "frequency"),
              ("orientation, degrees", "orientation"), ("energy below 1/8 cycle per pixel", "low"),
              ("energy at and above 3/8", "high"), ("highest |cosine| with another filter", "likeness")]
    shares = [("faint filters", "faint"), ("near-duplicates", "near_duplicates"), ("plain colours", "plain"),
              ("mostly lowest band", "slow"), ("mostly highest band", "fast"), ("neither", "between")]
    return [
        row("filters, stride", lambda one: f"{one['filters']['count']}, {one['stride'][0]}"),
        *(row(name, lambda one, key=key: _spread(one["filters"]["distributions"][key])) for name, key in spread),
        row("dead filters", lambda one: str(one["filters"]["dead"])),
        *(row(name, lambda one, key=key: f"{one['filters']['shares'][key]:.1%}") for name, key in shares),
        row("limit of the first layer, cycles per pixel", lambda one: f"{min(one['projections']['nyquist']):.3g}"),
        row("layer 2: energy at and above the limit", lambda one: _spread(one["projections"]["aliased"])),
        row("layer 2: energy at and above 1/4", lambda one: _spread(one["projections"]["from_a_quarter"])),
    ]


def _spread(found: Mapping[str, Any]) -> str:
    """Median, quartiles and extremes in one cell."""
    if not found["count"]:
        return "–"
    values = [f"{found[key]:.3g}" for key in ("median", "lower_quartile", "upper_quartile", "minimum", "maximum")]
    return "{} [{}, {}] {} … {}".format(*values)


def _definitions(sides: Sequence[Seen]) -> str:
    return ("Median [quartiles] smallest … largest, of the first layer's filters and of the projections of "
            f"{' and '.join(str(len(side.aliased)) for side in sides)} random maps of the second. Frequencies are in "
            "cycles per pixel of the image, on spectra padded with zeros; the dominant one is where the power, summed "
            "over colours, is highest; an orientation of 0 degrees is an upright stripe. The lowest band lies below "
            f"{LOW:g}, the highest at and above {HIGH:g}. Dead: fires in no image. Faint: a norm below {FAINT:g} of "
            f"the median. Near-duplicate: |cosine| with another one above {ALIKE:g}. Plain: more than 70 % of the "
            "energy in the mean colour. A first layer of stride s carries frequencies below 1/(2s) along each axis; "
            "what projections hold at and above is finer than its map can tell from something coarser: aliasing.")


def _caption(opened: Sequence[Opened], sides: Sequence[Seen], settings: Settings, bare: bool) -> str:
    b, c, d, e = list(_letters(settings))
    what = "Figure 6" if settings.unrestrained else "Filter settings"
    return (f"{what} for {opened[0]} and {opened[1]}: {_first_panel(settings.unrestrained, bare)}({b}, {c}) the first "
            "layers, column by column, all filters of a panel on one symmetric scale, so that those that dominate and "
            f"those that are dead show; ({d}, {e}) {settings.count} random maps of the second layers (seed "
            f"{settings.seed}), and for each its {settings.top} strongest activations, projected to pixels (deconvnet, "
            "unpooled by the switches), on one scale a map. Zero is mid-grey. "
            f"{' '.join(_sentence(one) for one in sides)} The page of numbers has the distributions. The paper trained "
            "on ImageNet, and shows both layers without numbers, with a contrast that it does not define.")


def _first_panel(side: Side | None, there: bool) -> str:
    if side is None:
        return ""
    if there:
        return "(a) the first layer of a network that was trained without renormalisation; "
    return f"(a) is empty, because weights {side.weights!r} of {side.model} do not ship; "


def _sentence(side: Seen) -> str:
    """What the numbers say of a network, in a sentence."""
    share, median = counts(side.filters), distribution(side.aliased)["median"]
    aliased = "" if median is None else \
        f", and {median:.0%} of the energy of its second layer's projections (median) at and above " \
        f"{min(nyquist(side.stride)):.3g} cycles per pixel, which a stride of {side.stride[0]} cannot carry"
    return (f"{side.name}: {side.dead} of {len(side.weight)} filters dead, {share['slow']:.0%} mostly in the lowest "
            f"band, {share['fast']:.0%} mostly in the highest, {share['between']:.0%} between, "
            f"{share['near_duplicates']:.0%} near-duplicates{aliased}.")
