"""Figure 7: what a network makes of an image when a grey square covers one part of it after another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from ..colours import normalise, robust_scale
from ..errors import UsageError
from ..exhibit import Exhibit
from ..images import BUILTIN, Images, Photographs, open_images
from ..layout import printable, shortened
from ..projection import project
from ..scan import scan
from ..scanned import LayerScan
from ..subject import Opened, Subject
from ..tape import Tape, place_of, record_as_far_as
from .covered import Box, correlation, cover, covered, grey, positions, ranks, shares, squares
from .panels import LARGE, blank, panel, picture, words
from .responses import addresses, respond
from .shown import Shown, choose, class_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of the photographs that ship, those views that the network takes for what they show; a cat, for want of a class of
# cats, is followed as the cougar's face that the network takes it for.
DEFAULT: dict[str, str | int | None] = {
    "chelsea@0.75+000+056": "cougar_face", "coffee@0.56+000+056": "cup", "camera@0.88+075+075": "camera"}
BATCH = 32
OTHERS = 3    # projections from other images
DEPTH = 40    # how many of a map's strongest images are kept, to find three of different photographs
LEGEND, REST = 10, 220  # classes that the legend names; the paper's longest has ten; grey for the others
DRAWN = (84 / 224, 12 / 224)  # where the paper draws the square, (y, x) as parts of the side
JET = 64      # colours; MATLAB's default of the time


class Settings(Subject):
    """Which images, and how they are covered."""

    images: Annotated[str, Field(min_length=1, description="where the images are that are shown; as deconvnet scan "
                                                           "--images")] = "builtin:photographs"
    shown: Annotated[dict[str, str | int | None], Field(
        description="image: its class among the network's, null for that of its folder; the default is for "
                    "builtin:photographs, and of other images so many random ones are shown")] = DEFAULT
    count: Annotated[int, Field(ge=1, le=12, description="how many random ones; the paper shows 3")] = 3
    seed: Annotated[int, Field(ge=0, description="of the random choice")] = 0
    others: Annotated[str | None, Field(description="the images among which a map's three strongest are found; null: "
                                                    "the same, of builtin:photographs those that lie apart")] = None
    layer: Annotated[str, Field(min_length=1, description="whose strongest map is followed")] = "conv5"
    square: Annotated[int, Field(ge=1, description="side of the grey square, in pixels of the view")] = 50
    stride: Annotated[int, Field(ge=1, description="pixels from one position to the next")] = 6


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What a network made of an image at each position of the square, (rows, columns).

    Attributes:
        total: the sum over the positions of the followed map.
        probabilities: (rows, columns, classes), None where the network has no classes.
        clean: the sum over the map in the image as it is.
    """

    total: np.ndarray
    probabilities: np.ndarray | None
    clean: float


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the figure.

    Attributes:
        picture: (H, W, 3) uint8, the image with the square.
        total: (rows, columns) of the followed map.
        projections: (h, w, 3) uint8 each, the image's own first.
        probability: (rows, columns) of the true class; None where there is none.
        best: (rows, columns) the number of the most probable class; None where there are no classes.
        names: of the classes in ``best``, by number.
        label: what stands under the picture.
        unit: the followed map.
        agreement: of projection and occlusion; None where there is none.
    """

    picture: np.ndarray
    total: np.ndarray
    projections: Sequence[np.ndarray]
    probability: np.ndarray | None
    best: np.ndarray | None
    names: Mapping[int, str]
    label: str
    unit: str
    agreement: float | None


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, after a scan of the other images and a forward pass for each position of the square."""
    opened = settings.open("figure 7")
    shown, notes = choose(opened.net, opened.images, settings.shown, DEFAULT, settings.count, settings.seed)
    (layer,) = addresses(opened.net, shown[0].input, [settings.layer])
    boxes = squares(positions(shown[0].input.shape[-1], settings.square, settings.stride), settings.square)
    others = _others(opened, settings)
    top = scan(opened.net, others, layers=[layer], k=DEPTH, progress=progress)
    rows, numbers = zip(*[_look(opened, one, layer, boxes, top[layer], others) for one in
                          tqdm(shown, desc="occlusion", unit=" images", disable=not progress)], strict=True)
    if any(len(row.projections) < OTHERS + 1 for row in rows):
        notes.append(f"Some maps fire in fewer than {OTHERS} other images: fewer projections are drawn.")
    data = {"square": settings.square, "stride": settings.stride, "images": numbers}
    return Exhibit(draw(rows), data, _caption(opened, settings, rows, numbers, notes), opened.origin)


def _look(opened: Opened, one: Shown, layer: str, boxes: Sequence[Box], found: LayerScan, others: Images
          ) -> tuple[Row, dict[str, Any]]:
    """An image's row of the figure, and the numbers in it."""
    tape = record_as_far_as(opened.net, _placed(opened.net, one.input[None]), layer)
    own = strongest(tape, layer)
    seen = occlude(opened.net, one.input, grey(opened.net.preprocess), boxes, layer, own[0])
    strangers = _strangers(found, own[0], one.name, others)
    agree = agreement(tape, layer, own, seen, boxes)
    tiles, unit = _projections(opened.net, tape, layer, own, others, strangers), f"{layer}:{own[0]}"
    return _row(opened, one, seen, tiles, unit, agree, boxes), \
        _numbers(opened, one, seen, unit, agree, [others.files[n] for n, *_ in strangers])


# ---- what is measured ----


def strongest(tape: Tape, layer: str, image: int = 0) -> tuple[int, int, int]:
    """The (unit, y, x) of the strongest activation of a layer in an image."""
    maps = tape.activations(layer)[image]                                        # (C, H, W)
    unit, y, x = np.unravel_index(int(maps.flatten().argmax()), maps.shape)
    return int(unit), int(y), int(x)


def occlude(net: nn.Module, image: Tensor, filling: Tensor, boxes: Sequence[Box], layer: str, unit: int,
            batch_size: int = BATCH) -> Occlusion:
    """What the network makes of an input (3, H, W) with the filling (3, H, W) in each box of a square grid of boxes.

    One forward pass for each position, in batches; of each only the sum over the map of ``unit`` and the classes'
    probabilities are kept. ``layer`` is a full address.
    """
    keep = {layer: lambda maps: maps[:, unit].flatten(1).sum(1)}
    clean = respond(net, [image[None]], keep).kept[layer]
    seen = respond(net, covered(image, filling, boxes, batch_size), keep)
    columns = sum(box[0] == boxes[0][0] for box in boxes)
    chances = None if seen.probabilities is None else \
        seen.probabilities.reshape(-1, columns, seen.probabilities.shape[1]).numpy()
    return Occlusion(seen.kept[layer].reshape(-1, columns).numpy(), chances, float(clean))


def agreement(tape: Tape, layer: str, activation: tuple[int, int, int], seen: Occlusion, boxes: Sequence[Box]
              ) -> dict[str, float | None]:
    """How well a projection says which parts of the image the map depends on, as correlations over the positions.

    On one side stands the projection's energy, the sum of its squared pixels, inside the square; on the other, by how
    much the square lowers the map's total activation. ``spearman``: of the ranks; ``pearson``: of the values, both for
    the one activation that the figure shows; ``spearman_map`` for the projection of the whole map.
    """
    drop = (seen.clean - seen.total).ravel()
    unit, y, x = activation
    alone = project(tape, layer, [(0, unit, y, x)]).on_canvas()[0]
    whole = project(tape, layer, [(0, unit, y, x)], seed="map").on_canvas()[0]   # (3, H, W)
    inside, inside_whole = (shares(p.double().square().sum(0).cpu().numpy(), boxes) for p in (alone, whole))
    return {"spearman": correlation(ranks(inside), ranks(drop)), "pearson": correlation(inside, drop),
            "spearman_map": correlation(ranks(inside_whole), ranks(drop))}


def _placed(net: nn.Module, image: Tensor) -> Tensor:
    return image.to(*place_of(net))


# ---- the projections ----

Found = tuple[int, int, int]  # image, y, x


def _others(opened: Opened, settings: Settings) -> Images:
    """The images among which a map's strongest are found."""
    if settings.others is not None:
        return open_images(settings.others, opened.net.preprocess)
    if settings.images in BUILTIN:
        return open_images("builtin:photographs-apart", opened.net.preprocess)
    return opened.images


def _strangers(found: LayerScan, unit: int, own: str, others: Images) -> list[Found]:
    """The strongest activations of a map in three other images; of the built-in ones, in three other photographs."""
    source = _source if isinstance(others, Photographs) else str
    used, chosen = {source(own)}, list[Found]()
    for number, (y, x) in zip(found.images[unit].tolist(), found.positions[unit].tolist(), strict=True):
        if number >= 0 and len(chosen) < OTHERS and source(others.files[number]) not in used:
            used.add(source(others.files[number]))
            chosen.append((number, y, x))
    return chosen


def _source(view: str) -> str:
    """The photograph that a built-in view shows a part of."""
    return view.partition("@")[0]


def _projections(net: nn.Module, tape: Tape, layer: str, own: Found, others: Images, found: Sequence[Found]
                 ) -> list[np.ndarray]:
    """The projections as colours (h, w, 3), all on one scale, the image's own first."""
    unit, y, x = own
    signed = [project(tape, layer, [(0, unit, y, x)]).pixels]
    for number, row, column in found:
        other = record_as_far_as(net, _placed(net, others[number][0][None]), layer)
        signed.append(project(other, layer, [(0, unit, row, column)]).pixels)
    pixels = torch.cat(signed).float().cpu().expand(-1, 3, -1, -1).numpy()       # (n, 3, h, w)
    return list(normalise(pixels, robust_scale(pixels)))


# ---- the drawing ----

CELL, GAP, EDGE, HEAD, FOOT, SIDE = 280, 26, 14, 40, 44, 190  # pixels


def draw(rows: Sequence[Row]) -> "Figure":
    """The figure: (a) image, (b) total activation, (c) projections, (d) probability, (e) most probable class.

    Where no row has a probability, (d) is left out; where none has classes, (e).
    """
    columns = [_draw_a, _draw_b, _draw_c]
    columns += [_draw_d] if any(row.probability is not None for row in rows) else []
    columns += [_draw_e] if any(row.best is not None for row in rows) else []
    step = CELL + GAP
    extra = 50 * (_draw_d in columns) + SIDE * (_draw_e in columns)
    figure = blank(2 * EDGE + step * len(columns) - GAP + extra, HEAD + len(rows) * (CELL + FOOT))
    for number, column in enumerate(columns):
        x = EDGE + number * step + 50 * (column is _draw_e and _draw_d in columns)
        words(figure, x + CELL / 2, 12, f"({chr(97 + number)}) {column.__doc__}", LARGE, "center")
        for place, row in enumerate(rows):
            column(figure, (x, HEAD + place * (CELL + FOOT), CELL, CELL), row)
    return figure


def _draw_a(figure: "Figure", box: Box, row: Row) -> None:
    """image, with the square"""
    picture(figure, box, row.picture)
    words(figure, box[0] + CELL / 2, box[1] + CELL + 6, row.label, align="center")


def _draw_b(figure: "Figure", box: Box, row: Row) -> None:
    """total activation of the map"""
    _map(figure, box, row.total)
    words(figure, box[0] + CELL / 2, box[1] + CELL + 6, f"{row.unit}: {row.total.min():.3g} (blue) to "
          f"{row.total.max():.3g} (red)", align="center")


def _draw_c(figure: "Figure", box: Box, row: Row) -> None:
    """projections of the map"""
    side = (CELL - 8) // 2
    for number, tile in enumerate(row.projections):
        x, y = box[0] + 2 + (number % 2) * (side + 4), box[1] + 2 + (number // 2) * (side + 4)
        picture(figure, (x, y, side, side), tile, "black" if number == 0 else None)
    agree = "–" if row.agreement is None else f"{row.agreement:.2f}"
    words(figure, box[0] + CELL / 2, box[1] + CELL + 6, f"own image framed; agrees with (b): {agree}",
          align="center")


def _draw_d(figure: "Figure", box: Box, row: Row) -> None:
    """probability of the true class"""
    if row.probability is None:
        words(figure, box[0] + CELL / 2, box[1] + CELL / 2, "no class given", align="center", color="0.4")
        return
    axes = _map(figure, box, row.probability)
    scale = panel(figure, (box[0] + CELL + 8, box[1], 10, CELL))
    figure.colorbar(axes.images[0], cax=scale).ax.tick_params(labelsize=6, length=2, pad=1)


def _draw_e(figure: "Figure", box: Box, row: Row) -> None:
    """most probable class"""
    if row.best is None:
        return
    classes, colours = legend(row.best)
    table = np.full((*row.best.shape, 3), REST, np.uint8)
    for number, colour in zip(classes, colours, strict=True):
        table[row.best == number] = colour
    picture(figure, box, table)
    lines = [(row.names[number], colour) for number, colour in zip(classes, colours, strict=True)]
    rest = len(np.unique(row.best)) - len(classes)
    for place, (name, colour) in enumerate([*lines, *([(f"{rest} others", (REST,) * 3)] if rest else [])]):
        x, y = box[0] + CELL + 8, box[1] + 4 + place * 24
        panel(figure, (x, y, 14, 14)).set(facecolor=[c / 255 for c in colour], xticks=[], yticks=[])
        words(figure, x + 20, y, shortened(name, 22))


def legend(best: np.ndarray) -> tuple[list[int], list[tuple[int, ...]]]:
    """The classes of a map that its legend names, the most frequent first, and a colour for each."""
    import matplotlib

    numbers, counts = np.unique(best, return_counts=True)
    chosen = [int(n) for n in numbers[np.lexsort((numbers, -counts))][:LEGEND]]
    palette = matplotlib.colormaps["jet"](np.linspace(0.04, 0.96, max(len(chosen), 2)))[:, :3]
    return chosen, [tuple(round(255 * c) for c in colour) for colour in palette[:len(chosen)]]


def _map(figure: "Figure", box: Box, values: np.ndarray) -> "Axes":
    import matplotlib

    axes = panel(figure, box)
    axes.imshow(values, cmap=matplotlib.colormaps["jet"].resampled(JET), interpolation="none", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


# ---- what is said ----


def _row(opened: Opened, one: Shown, seen: Occlusion, tiles: Sequence[np.ndarray], unit: str,
         agree: Mapping[str, float | None], boxes: Sequence[Box]) -> Row:
    best = None if seen.probabilities is None else seen.probabilities.argmax(2)
    names = {} if best is None else {int(n): class_name(opened.net, int(n)) for n in np.unique(best)}
    places = sorted({box[0] for box in boxes})
    top, left = (min(places, key=lambda place: abs(place - part * one.pixels.shape[0])) for part in DRAWN)
    square = boxes[0][2] - boxes[0][0]
    drawn = cover(one.pixels, (top, left, top + square, left + square))
    label = printable(one.name) if one.target is None else f"class: {one.title}"
    return Row(drawn, seen.total, tiles, true_probability(seen, one.target), best, names, label, unit,
               agree["spearman"])


def true_probability(seen: Occlusion, target: int | None) -> np.ndarray | None:
    """The probability (rows, columns) of a class; None where there is none. Raises UsageError for one too many."""
    if seen.probabilities is None or target is None:
        return None
    if target >= seen.probabilities.shape[2]:
        raise UsageError(f"there is no class {target}: the network puts out {seen.probabilities.shape[2]}")
    return seen.probabilities[:, :, target]


def _numbers(opened: Opened, one: Shown, seen: Occlusion, unit: str, agree: Mapping[str, float | None],
             others: Sequence[str]) -> dict[str, Any]:
    true, found = true_probability(seen, one.target), seen.probabilities
    return {
        "image": one.name, "class": None if one.target is None else class_name(opened.net, one.target), "map": unit,
        "clean_total": seen.clean, "total": seen.total.tolist(), "agreement": dict(agree), "others": list(others),
        "probability": None if true is None else true.tolist(),
        "most_probable": None if found is None else found.argmax(2).tolist(),
        "classes": None if found is None else
        {int(n): class_name(opened.net, int(n)) for n in np.unique(found.argmax(2))},
    }


def _caption(opened: Opened, settings: Settings, rows: Sequence[Row], numbers: Sequence[Mapping[str, Any]],
             notes: Sequence[str]) -> str:
    alone, whole = (", ".join("–" if one["agreement"][key] is None else f"{one['agreement'][key]:.2f}"
                              for one in numbers) for key in ("spearman", "spearman_map"))
    places = rows[0].total.shape
    parts = [
        f"Figure 7 for {opened}: {', '.join(printable(one['image']) for one in numbers)}. (a) The image with a square "
        f"of {settings.square} pixels of mid-grey (128), which goes over it in {places[0]}×{places[1]} places, every "
        f"{settings.stride} pixels. (b) For each position of the square, the sum over all positions of the feature map "
        f"of {settings.layer} whose strongest activation is the strongest in the image as it is. (c) The projection of "
        "that activation (framed) and of the map's strongest in three other images, on one scale, zero mid-grey. The "
        "agreement is the rank correlation over all positions of the projection's energy inside the square with what "
        f"the square takes from the map's total: {alone}; and were the whole map projected: {whole}."]
    if any(row.probability is not None for row in rows):
        parts.append("(d) The probability of the true class.")
    if any(row.best is not None for row in rows):
        parts.append("The last column: the most probable class.")
    if settings.shown == DEFAULT and isinstance(opened.images, Photographs):
        parts.append("The images are views of scikit-image's photographs, the classes those that the network, trained "
                     "on Caltech-101, takes them for: cup and camera are true, and the cat, of which it has no class, "
                     "is followed as a cougar's face.")
    parts.append("The paper does not give the size of its square, which was measured in the picture, or its stride, "
                 "which follows from 30×30 positions; its networks and images are ImageNet's.")
    return " ".join([*parts, *notes])
