"""What in a reconstruction comes from the filters, what from the switches, and what from the method.

The figure that the paper's critics ask for (Mahendran and Vedaldi 2016, Nie et al. 2018; Adebayo et al. 2018 for the
weights made random from the top): the same activations by other rules, with and without switches, by filters that have
learned nothing, and another unit of the same place, each with its correlation to the deconvnet's picture.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..colours import normalise
from ..errors import UsageError
from ..exhibit import Exhibit
from ..inverses import DECONVNET, bind, filter_transposed, weigh
from ..patches import cut
from ..projection import Projection, project
from ..subject import Opened, Subject
from ..tape import Tape, record_as_far_as
from .activation import Activation, check_layer, check_number, inputs, of_the_default, strongest_among, strongest_of
from .covered import correlation as pearson
from .page import FAINT, Page


class Settings(Subject):
    """Which activations, and how the weights are made random."""

    layer: Annotated[str | None, Field(description="of the activations; none: the last convolution")] = None
    units: Annotated[tuple[int, ...] | None, Field(min_length=1, description="one for each image; none: those that "
                                                                             "fire most, each another")] = None
    image_numbers: Annotated[tuple[int, ...] | None, Field(min_length=1, description="a row for each; none: of those "
                             "looked at, where the units fire most; so for images of one's own")] = (30, 55, 102, 197)
    count: Annotated[int, Field(ge=1, le=12, description="rows, where images are looked for")] = 4
    look: Annotated[int, Field(ge=1, description="images looked at, spread evenly over all")] = 48
    cascade: Annotated[int, Field(ge=1, le=8, description="steps in which the weights are made random, from the top "
                                                          "layer alone to all layers")] = 5
    seed: Annotated[int, Field(ge=0, description="of the random weights")] = 0


@dataclass(frozen=True)
class Column:
    """One way to make a picture: its name, and under which heading it stands."""

    group: str
    name: str


@dataclass(frozen=True, eq=False)
class Row:
    """One activation: its patch (h, w, 3) uint8, and for each column the pixels (3, h, w), or None where there is no
    picture. ``notes`` are words below a picture; ``inside`` (h, w) bool is what lies within the image.
    """

    title: str
    patch: np.ndarray
    pixels: Sequence[np.ndarray | None]
    notes: Sequence[str]
    inside: np.ndarray


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, for the activations that the settings name or lead to."""
    opened = settings.open("figure methods")
    chosen = _choose(opened, settings, progress)
    columns, rows = compare(opened, chosen, settings.cascade, settings.seed)
    return Exhibit(draw(columns, rows), _numbers(columns, rows, chosen), _caption(opened, columns, settings),
                   opened.origin)


def _choose(opened: Opened, settings: Settings, progress: bool) -> list[Activation]:
    """The activations, all settings having been checked before the work."""
    layer, there = check_layer(opened.net, settings.layer)
    for unit in settings.units or ():
        check_number("unit", unit, there, f" in layer {layer!r}")
    numbers = of_the_default(settings, "image_numbers")
    if numbers is None:
        return strongest_among(opened, layer, settings.units, settings.look, settings.count, progress)
    for number in numbers:
        check_number("image", number, len(opened.images))
    if settings.units is not None and len(settings.units) != len(numbers):
        raise UsageError(f"{len(settings.units)} units and {len(numbers)} image_numbers: give one for each, or leave "
                         "one of the two null")
    chosen: list[Activation] = []
    for n, number in enumerate(numbers):
        named = None if settings.units is None else [settings.units[n]]
        chosen += strongest_of(opened, layer, named, number, but={one.unit for one in chosen})
    return chosen


# ---- the pictures ----

def compare(opened: Opened, chosen: Sequence[Activation], cascade: int, seed: int) -> tuple[list[Column], list[Row]]:
    """The columns, and for each activation its pictures. The first is the deconvnet's, to which the others compare."""
    layer, images = chosen[0].layer, inputs(opened.net, opened.images, [one.image for one in chosen])
    units = [(row, one.unit, one.y, one.x) for row, one in enumerate(chosen)]
    tape = record_as_far_as(opened.net, images, layer)
    original = project(tape, layer, units)
    made: dict[Column, Sequence[Tensor | None]] = {
        Column("the rule of the ReLU", "deconvnet"): list(original.pixels),
        Column("the rule of the ReLU", "gradient"): list(project(tape, layer, units, method="gradient").pixels),
        Column("the rule of the ReLU", "guided\nbackpropagation"):
            list(project(tape, layer, units, method="guided").pixels),
        Column("filters\nwithout switches", "unpooled to the\nwindow's centre"):
            list(project(tape, layer, units, unpool="center").pixels),
    }
    weights = weights_below(opened.net, tape, layer)
    steps = list(randomised(opened.net, weights, cascade, seed))
    with_filters = refiltered(tape, opened.net, steps[-1][1])
    made[Column("switches\nwithout filters", "all filters random,\nswitches kept")] = \
        list(project(with_filters, layer, units).pixels)
    for names, net in steps:
        column = Column("weights random from the top down, recorded anew", _span(names))
        made[column] = list(project(of_ones(record_as_far_as(net, images, layer), layer), layer, units).pixels)
    others = _others(tape, layer, units)
    made[Column("another unit", "the strongest other\nat this place")] = _other_pictures(tape, layer, units, others)
    notes = [[""] * (len(made) - 1) + ["none fires here" if other is None else f"{layer}:{other}"] for other in others]
    return list(made), [_row(opened, one, original, row, list(made.values()), notes[row])
                        for row, one in enumerate(chosen)]


def _row(opened: Opened, one: Activation, original: Projection, row: int, made: Sequence[Sequence[Tensor | None]],
         notes: Sequence[str]) -> Row:
    size = (original.pixels.shape[2], original.pixels.shape[3])
    pixels = [None if column[row] is None else column[row].cpu().numpy() for column in made]  # type: ignore[union-attr]
    origin = original.origin[row].tolist()
    inside = cut(np.ones((*original.size, 3), np.uint8), origin, size)[:, :, 0] == 1
    return Row(f"{one.address}\nfires at {one.value:.2f}", cut(opened.images.image(one.image), origin, size), pixels,
               notes, inside)


def weights_below(net: nn.Module, tape: Tape, layer: str) -> list[str]:
    """The names of the parameters that are a layer's filters and those of all layers below it, from the top down."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    reached, found = {tape.number(layer)}, []
    for call in reversed(tape.calls):
        if not reached.isdisjoint(call.outputs):
            reached |= set(call.inputs)
            if DECONVNET.get(call.function) in (filter_transposed, weigh) and id(bind(call).weight) in names:
                found.append(names[id(bind(call).weight)])
    return list(dict.fromkeys(found))


def randomised(net: nn.Module, weights: Sequence[str], steps: int, seed: int) -> list[tuple[list[str], nn.Module]]:
    """Copies of a network in which more and more of some parameters are random, at last all; with their names.

    What is random is normally distributed with the mean and the deviation of what it replaces; the rest, biases too,
    stays. What is random in one copy is the same in the next.
    """
    ends = sorted({round(float(end)) for end in np.linspace(1, len(weights), min(steps, len(weights)))})
    made = []
    for end in ends:
        changed = copy.deepcopy(net)
        generator = torch.Generator().manual_seed(seed)
        parameters = dict(changed.named_parameters())
        for name in weights[:end]:
            old = parameters[name].detach()
            new = torch.randn(old.shape, generator=generator, dtype=torch.float64) * old.double().std().cpu()
            parameters[name].data = (new + old.double().mean().cpu()).to(old)
        made.append((list(weights[:end]), changed))
    return made


def refiltered(tape: Tape, net: nn.Module, other: nn.Module) -> Tape:
    """The tape, switches and all, with another network's filters for the way down."""
    theirs = dict(other.named_parameters())
    swap: Mapping[int, Tensor] = {id(parameter): theirs[name] for name, parameter in net.named_parameters()}

    def swapped(tree: Any) -> Any:
        return tree_map(lambda leaf: swap.get(id(leaf), leaf), tree)

    return replace(tape, calls=[replace(call, args=swapped(call.args), kwargs=swapped(call.kwargs))
                                for call in tape.calls])


def of_ones(tape: Tape, layer: str) -> Tape:
    """The tape with ones for a layer's activations: a random unit may not fire where the trained one did.

    A projection is proportional to the activation it starts from, so that the picture is the same but for its scale.
    """
    values, number = list(tape.values), tape.number(layer)
    values[number] = torch.ones_like(values[number])
    return replace(tape, values=values)


def _others(tape: Tape, layer: str, units: Sequence[tuple[int, int, int, int]]) -> list[int | None]:
    """For each activation the strongest other unit at its place, None where no other fires."""
    found: list[int | None] = []
    for image, unit, y, x in units:
        here = tape.activations(layer)[image, :, y, x].clone()                   # (U,)
        here[unit] = 0
        found.append(int(here.argmax()) if here.max() > 0 else None)
    return found


def _other_pictures(tape: Tape, layer: str, units: Sequence[tuple[int, int, int, int]],
                    others: Sequence[int | None]) -> list[Tensor | None]:
    return [None if other is None else project(tape, layer, [(image, other, y, x)]).pixels[0]
            for (image, _, y, x), other in zip(units, others, strict=True)]


def correlation(one: np.ndarray, other: np.ndarray, inside: np.ndarray) -> tuple[float | None, float | None]:
    """How alike two pictures (3, h, w) are within the image (h, w): Pearson's r of the signed pixels, and of their
    strength, |x| summed over the colours, which says whether they have something in the same places.

    None where one of them is even.
    """
    return (pearson(one[:, inside].ravel(), other[:, inside].ravel()),
            pearson(np.abs(one).sum(0)[inside], np.abs(other).sum(0)[inside]))


def _span(names: Sequence[str]) -> str:
    """Which layers are random: ``conv5``, ``conv5 to conv3``."""
    layers = [name.rpartition(".")[0] or name for name in names]
    layers = [name if len(name) <= 16 else f"…{name[-15:]}" for name in layers]  # as wide as a picture
    return layers[0] if len(layers) == 1 else f"{layers[0]} to\n{layers[-1]}"


# ---- the drawing ----

TILE, GAP, BETWEEN, HEAD, FOOT = 1.1, 0.06, 0.2, 0.98, 0.46  # inches


def draw(columns: Sequence[Column], rows: Sequence[Row]) -> Figure:
    """A row for each activation: its patch, then a picture for each column, with its correlation to the first.

    Each picture has a symmetric scale of its own, with zero as mid-grey: methods differ in size by orders of magnitude.
    """
    places = _places(columns)
    page = Page(places[-1] + TILE + 0.15, HEAD + len(rows) * (TILE + FOOT))
    page.words(0.15, HEAD - 0.26, "image patch", 7.5, va="center")
    _heads(page, columns, places)
    for n, row in enumerate(rows):
        y = HEAD + n * (TILE + FOOT)
        height, width = row.patch.shape[:2]
        high, wide = TILE * height / max(height, width), TILE * width / max(height, width)
        page.tile(0.15, y, wide, high, row.patch)
        page.words(0.15, y + TILE + 0.03, row.title, 6.5)
        for x, pixels, words in zip(places, row.pixels, legends(row), strict=True):
            if pixels is not None:
                page.tile(x, y, wide, high, normalise(pixels))
            page.words(x, y + TILE + 0.03, words, 6.5)
    return page.figure


def legends(row: Row) -> list[str]:
    """What stands below each picture: its correlations to the first, and its note."""
    found = []
    for pixels, note in zip(row.pixels, row.notes, strict=True):
        first = row.pixels[0]
        if first is None or pixels is None or pixels is first:
            found.append(note or ("the original" if pixels is first else "–"))
        else:
            r, where = correlation(first, pixels, row.inside)
            found.append(f"r {_short(r)}   where {_short(where)}" + (f"\n{note}" if note else ""))
    return found


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _places(columns: Sequence[Column]) -> list[float]:
    """Where each column begins, with more room between groups."""
    x, places = 0.15 + TILE + BETWEEN, []
    for n, column in enumerate(columns):
        x += BETWEEN - GAP if n and column.group != columns[n - 1].group else 0
        places.append(x)
        x += TILE + GAP
    return places


def _heads(page: Page, columns: Sequence[Column], places: Sequence[float]) -> None:
    for n, (column, x) in enumerate(zip(columns, places, strict=True)):
        page.words(x, HEAD - 0.26, column.name, 7.5, va="center")
        if n == 0 or column.group != columns[n - 1].group:
            end = max(place for place, other in zip(places, columns, strict=True) if other.group == column.group) + TILE
            page.words(x, 0.42, column.group, 8, va="bottom", weight="bold")
            page.arrow((x, 0.46), (end, 0.46), FAINT, "-")


def _numbers(columns: Sequence[Column], rows: Sequence[Row], chosen: Sequence[Activation]) -> dict[str, Any]:
    """The activations with the correlations of every column, and their means over the activations."""
    names = [f"{column.group}: {column.name}".replace("\n", " ") for column in columns]
    table = [[(None, None) if pixels is None or row.pixels[0] is None else
              correlation(row.pixels[0], pixels, row.inside) for pixels in row.pixels] for row in rows]
    means = {name: [_mean([cells[n][k] for cells in table]) for k in (0, 1)] for n, name in enumerate(names)}
    return {"columns": names, "mean_correlations": means,
            "activations": [{**one._asdict(), "notes": list(row.notes),
                             "correlations": dict(zip(names, own, strict=True))}
                            for one, row, own in zip(chosen, rows, table, strict=True)]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _caption(opened: Opened, columns: Sequence[Column], settings: Settings) -> str:
    return (f"The same activations of {opened} by several methods. Three rules of the ReLU: the deconvnet's, the "
            "gradient's and guided backpropagation's (the last two with the derivative of contrast normalisation). "
            "Filters without switches: unpooled to the centre of each window. Switches without filters: the trained "
            "network's switches, but random filters on the way down. Then networks whose weights are random, from the "
            "top layer down to all, with normally distributed numbers of the same mean and deviation (seed "
            f"{settings.seed}), biases kept, and their switches recorded anew; they start from 1, whatever the unit "
            "puts out there. Last the strongest other unit at the same place. Below each, r: the correlation of its "
            "signed pixels with those of the deconvnet; where: that of their strength, |x| summed over the colours, "
            "which says how far both have something at the same places (all fade towards the border of the field, so "
            "that some is always there). Each picture has a symmetric scale of its own, with zero as mid-grey. The "
            "paper has no such figure.")
