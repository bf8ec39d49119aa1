"""Figure 3: what a network is built of, drawn from what it calls, and as a table.

A chain is drawn as the paper draws its own: boxes of maps that become smaller and deeper, with filters and pooling
windows where they look. A network with branches is drawn as a graph from top to bottom.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import Annotated

import torch
from matplotlib.figure import Figure
from pydantic import Field

from ..describe import Layer, describe
from ..exhibit import Exhibit, Table
from ..inverses import obstacle, sliding
from ..network import Network
from ..receptive import Pair
from ..report import network_name
from ..subject import Opened, Subject
from ..tape import Call, Tape, place_of, record
from .page import FAINT, Page


class Settings(Subject):
    """Which network, and on images of which size. What is in the images does not matter."""

    weights: Annotated[str | None, Field(description="as --weights of deconvnet scan; what ships has a smaller "
                                                     "classifier than the paper's network")] = None
    size: Annotated[int | None, Field(ge=1, description="pixels on a side of images; none: the network's own")] = None


@dataclass(frozen=True)
class Block:
    """What one convolution, pooling, fully connected layer, sum or concatenation puts out.

    Attributes:
        name: the layer's, as ``named_modules()`` gives it.
        kind: ``image``, ``maps``, ``pooled``, ``flat``, ``sum``, ``joined`` or ``other``.
        maps: how many feature maps, or units where it is flat.
        size: (H, W) of a map.
        sources: the numbers of the blocks that it takes.
        kernel, stride: of what slides, else None.
        marks: what else happens to it on the spot, such as ``ReLU``.
        field: (H, W) in pixels of what a unit sees, None where it is not known.
    """

    name: str
    kind: str
    maps: int
    size: Pair
    sources: tuple[int, ...] = ()
    kernel: Pair | None = None
    stride: Pair | None = None
    marks: tuple[str, ...] = ()
    field: Pair | None = None


_KINDS = {"conv2d": "maps", "linear": "flat", "max_pool2d": "pooled", "avg_pool2d": "pooled", "mean": "pooled",
          "adaptive_avg_pool2d": "pooled", "add": "sum", "add_": "sum", "__add__": "sum", "__iadd__": "sum",
          "cat": "joined", "concat": "joined", "concatenate": "joined"}
_MARKS = {"relu": "ReLU", "relu_": "ReLU", "local_response_norm": "contrast norm.", "batch_norm": "batch norm.",
          "dropout": "dropout", "flatten": "", "reshape": "", "view": "", "squeeze": "", "clone": "", "contiguous": ""}


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure and its table."""
    opened = settings.open("figure 3")
    side = settings.size or opened.net.preprocess.size
    layers = describe(opened.net, (side, side), opened.net.preprocess.channels)
    blocks = with_fields(blocks_of(_tape(opened.net, side)), layers)
    caption = _caption(opened, side, blocks)
    rows = table(layers)
    numbers = {"parameters": sum(p.numel() for p in opened.net.parameters()), "size": side,
               "layers": [dict(zip(HEADS, row, strict=True)) for row in rows]}
    title = f"{opened.origin['model']} on {side}×{side} pixels: {numbers['parameters']:,} parameters"
    words = Table(HEADS, rows, caption, opened.origin)
    return Exhibit(draw(blocks, title), numbers, caption, opened.origin, table=words)


# ---- what the network is built of ----

def _tape(net: Network, side: int) -> Tape:
    return record(net, torch.zeros(1, net.preprocess.channels, side, side).to(*place_of(net)))


def blocks_of(tape: Tape) -> list[Block]:
    """The blocks of a network in the order of its calls, the image first."""
    blocks = [Block("image", "image", tape.values[0].shape[1], _size(tape.values[0].shape))]
    at = {0: 0}  # the number of a value → the block that it belongs to
    for call in tape.calls:
        sources = tuple(dict.fromkeys(at[number] for number in call.inputs if number in at))
        kind = _KINDS.get(call.name, "other" if len(sources) > 1 else "")
        if not sources:
            continue
        if kind == "sum" and len(sources) == 1:  # a constant is added
            kind = ""
        if kind:
            blocks.append(_block(call, kind, sources))
            at.update(dict.fromkeys(call.outputs, len(blocks) - 1))
        else:
            blocks[sources[0]] = _marked(blocks[sources[0]], _MARKS.get(call.name, call.name))
            at.update(dict.fromkeys(call.outputs, sources[0]))
    return blocks


def _block(call: Call, kind: str, sources: tuple[int, ...]) -> Block:
    slide = sliding(call) if kind in ("maps", "pooled") and not obstacle(call) else None
    marks = {"max_pool2d": "max pool", "avg_pool2d": "average pool", "adaptive_avg_pool2d": "average pool",
             "mean": "mean"}.get(call.name, call.name if kind == "other" else "")
    return Block(call.module, kind, call.shape[1] if len(call.shape) > 1 else 1, _size(call.shape), sources,
                 slide.kernel if slide else None, slide.stride if slide else None, (marks,) if marks else ())


def _marked(block: Block, mark: str) -> Block:
    return replace(block, marks=(*block.marks, mark)) if mark and mark not in block.marks else block


def _size(shape: Sequence[int]) -> Pair:
    return (shape[2], shape[3]) if len(shape) == 4 else (1, 1)


def with_fields(blocks: Sequence[Block], layers: Sequence[Layer]) -> list[Block]:
    """The blocks with the receptive fields of the layers that made them."""
    fields = {layer.name: layer.field.size for layer in layers if layer.field is not None}
    return [replace(block, field=fields.get(block.name)) if block.kind in ("maps", "pooled") else block
            for block in blocks]


def is_chain(blocks: Sequence[Block]) -> bool:
    """Whether each block takes the one before it and nothing else."""
    return all(block.sources == (number,) for number, block in enumerate(blocks[1:]))


HEADS = ("layer", "kind", "maps", "height", "width", "kernel", "stride", "padding", "field", "every", "from",
         "parameters")


def table(layers: Sequence[Layer]) -> list[tuple[str | int | None, ...]]:
    """A row for each layer, as ``describe`` tells them; None where there is nothing to tell.

    Field, every and from: the receptive field of the unit at (i, j) is so large, in pixels, and begins at
    from + (i, j)·every.
    """
    rows: list[tuple[str | int | None, ...]] = []
    for layer in layers:
        slide, field = layer.slide, layer.field
        slides = (_by(slide.kernel), _by(slide.stride), _by(slide.padding)) if slide else (None, None, None)
        sees = (_by(field.size), _by(field.stride), _by(field.start)) if field else (None, None, None)
        rows.append((layer.name, layer.kind, layer.units, *layer.size, *slides, *sees, layer.parameters or None))
    return rows


def _by(pair: Pair) -> str:
    """(7, 7) as 7, (7, 5) as 7×5."""
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"


# ---- the drawing ----

def draw(blocks: Sequence[Block], title: str) -> Figure:
    """A chain as the paper's Figure 3, anything else as a graph."""
    return _chain(blocks, title) if is_chain(blocks) else _graph(blocks, title)


# ---- a chain ----

LINE, FACES, WORDS, SIDE = 13, 2.15, 1.25, 0.25   # blocks on a line; inches: for faces, for words, at the sides
COLOURS = {"image": "#f4e9d8", "maps": "#dbe6f1", "pooled": "#f3ddcf", "flat": "#dcebdc", "sum": "white",
           "joined": "white", "other": "#eeeeee", "again": "white"}


def _chain(blocks: Sequence[Block], title: str) -> Figure:
    lines = [range(start, min(start + LINE, len(blocks))) for start in range(0, len(blocks), LINE)]
    sizes = [_solid(block, max(blocks[0].size)) for block in blocks]
    widths = [max(side + depth + 0.32, 1.16) for side, depth in sizes]
    page = Page(max(sum(widths[n] for n in line) for line in lines) + 2 * SIDE, 0.4 + len(lines) * (FACES + WORDS))
    page.words(SIDE, 0.12, title, 10, weight="bold")
    labels = _layers(blocks)
    for row, line in enumerate(lines):
        x, y = SIDE, 0.4 + row * (FACES + WORDS) + FACES / 2 + 0.15  # y: the middle of the faces
        for number in line:
            _face(page, x, y, blocks[number], *sizes[number])
            if number + 1 in line:
                _look(page, x, y, blocks[number], blocks[number + 1], sizes[number], x + widths[number],
                      sizes[number + 1])
            page.words(x, y + FACES / 2, "\n".join(_facts(blocks[number])), 6.5)
            x += widths[number]
        _brackets(page, [(labels[n], widths[n]) for n in line], y + FACES / 2 + WORDS - 0.42)
    return page.figure


def _solid(block: Block, image: int) -> tuple[float, float]:
    """The side of a block's face and its depth, in inches; sizes and numbers differ too much to be drawn to scale."""
    if block.kind == "flat" or block.size == (1, 1):
        return 0.14, 0.0
    return 0.3 + 0.95 * (max(block.size) / image) ** 0.5, 0.045 * log2(block.maps + 1)


def _face(page: Page, x: float, y: float, block: Block, side: float, depth: float) -> None:
    """A box of maps, or a column of units."""
    colour = COLOURS[block.kind]
    if depth == 0:
        height = min(0.5 + 0.1 * log2(block.maps + 1), FACES - 0.3)
        page.box(x, y - height / 2, side, height, fill=colour)
        return
    top, right, dx, dy = y - side / 2, x + side, depth, -0.6 * depth
    page.shape([(x, top), (x + dx, top + dy), (right + dx, top + dy), (right, top)], fill=colour)
    page.shape([(right, top), (right + dx, top + dy), (right + dx, top + side + dy), (right, top + side)], fill=colour)
    page.box(x, top, side, side, fill=colour)


def _look(page: Page, x: float, y: float, block: Block, after: Block, solid: tuple[float, float], end: float,
          other: tuple[float, float]) -> None:
    """The filter or the pooling window on a face, and the lines to the one value that it gives."""
    side, depth = solid
    target = (end + 0.1 * other[0], y + 0.1 * other[0])
    if after.kernel is None or depth == 0:
        page.arrow((x + side + depth + 0.04, y), (end - 0.04, y), FAINT)
        return
    width = max(side * min(after.kernel[0] / max(block.size), 1), 0.08)
    left, top = max(x + 0.88 * side - width, x), min(y + 0.1 * side, y + side / 2 - width)
    page.box(left, top, width, width, line=0.9, fill="white" if after.kind == "pooled" else None)
    for corner in (top, top + width):
        page.axes.plot([left + width, target[0]], [corner, target[1]], color="0.3", linewidth=0.6)


def _facts(block: Block) -> list[str]:
    """What stands below a block: sizes, what made it, what else happens to it."""
    size = f"{block.maps:,} units" if block.kind == "flat" else f"{block.maps:,} × {_across(block.size)}"
    how = "" if block.kernel is None else f"{_across(block.kernel)}, stride {_by(block.stride or (1, 1))}"
    sees = "" if block.field is None else f"sees {_across(block.field)}"
    name = block.name if block.kind != "image" else ""
    return [line for line in (size, name, how, *block.marks, sees) if line]


def _across(size: Pair) -> str:
    return f"{size[0]}×{size[1]}"


def _layers(blocks: Sequence[Block]) -> list[str]:
    """The paper's names: the input image, layers 1, 2 … with their pooling and normalisation, and the output."""
    labels, n = [], 0
    for number, block in enumerate(blocks):
        n += block.kind in ("maps", "flat")
        last = number == len(blocks) - 1 and block.kind == "flat"
        labels.append("Input image" if n == 0 else "Output" if last else f"Layer {n}")
    return labels


def _brackets(page: Page, spans: Sequence[tuple[str, float]], y: float) -> None:
    """A line with its name under the blocks of each layer."""
    x = SIDE
    for n, (label, width) in enumerate(spans):
        if n == 0 or label != spans[n - 1][0]:
            whole = sum(w for other, w in spans if other == label)
            page.arrow((x, y), (x + whole - 0.12, y), FAINT, "-")
            page.words(x + (whole - 0.12) / 2, y + 0.05, label, 8, ha="center", weight="bold")
        x += width


# ---- a graph ----

WIDE, HIGH, ROOM, STRIP = 1.62, 0.5, 0.24, 20  # inches: a block and the room below it; levels on a strip at most


@dataclass(frozen=True)
class _Place:
    """Where a block lies: the strip, the level within it, and the middle of the block within the strip, in inches."""

    strip: int
    level: int
    x: float


def _graph(blocks: Sequence[Block], title: str) -> Figure:
    levels = _levels(blocks)
    strips, heads = _strips(blocks, levels)
    places = [_Place(*strips[level], x) for level, x in zip(levels, _across_levels(blocks, levels), strict=True)]
    again = {strip: _Place(strip, 0, places[number].x) for strip, number in heads.items()}  # drawn once more on top
    extents = [_extent([*places, *again.values()], strip) for strip in range(places[-1].strip + 1)]
    lefts = [SIDE + sum(end - start + 0.5 for start, end in extents[:n]) - extents[n][0] for n in range(len(extents))]
    page = Page(lefts[-1] + extents[-1][1] + SIDE, 0.6 + (max(p.level for p in places) + 1) * (HIGH + ROOM))
    page.words(SIDE, 0.12, title, 10, weight="bold")
    for number, block in enumerate(blocks):
        for source in block.sources:
            goes_on = places[source].strip != places[number].strip
            above = again[places[number].strip] if goes_on else places[source]
            kind = "again" if goes_on else blocks[source].kind
            _edge(page, lefts[above.strip], above, places[number], _height(kind), places)
    for block, place in zip(blocks, places, strict=True):
        _node(page, lefts[place.strip] + place.x, _top(place), block)
    for strip, number in heads.items():
        _node(page, lefts[strip] + again[strip].x, _top(again[strip]), replace(blocks[number], kind="again"))
    return page.figure


def _top(place: _Place) -> float:
    return 0.5 + place.level * (HIGH + ROOM)


def _levels(blocks: Sequence[Block]) -> list[int]:
    """How many blocks lie on the longest way from the image to each."""
    levels: list[int] = []
    for block in blocks:
        levels.append(1 + max((levels[source] for source in block.sources), default=-1))
    return levels


def _strips(blocks: Sequence[Block], levels: Sequence[int]) -> tuple[dict[int, tuple[int, int]], dict[int, int]]:
    """The strip of each level and its place there; and the block that each strip but the first takes up again on top.

    A strip ends where a single block is all that goes on.
    """
    spans = [(levels[source], levels[n]) for n, block in enumerate(blocks) for source in block.sources]
    narrow = [level for level in levels if levels.count(level) == 1 and not any(a < level < b for a, b in spans)]
    found: dict[int, tuple[int, int]] = {}
    heads: dict[int, int] = {}
    strip, first = 0, 0
    for level in range(max(levels) + 1):
        end = min((n for n in narrow if n > level), default=max(levels))
        if level - 1 in narrow and level - first > STRIP // 4 and end - first >= STRIP:
            strip, first = strip + 1, level - 1
            heads[strip] = list(levels).index(level - 1)
        found[level] = (strip, level - first)
    return found, heads


def _across_levels(blocks: Sequence[Block], levels: Sequence[int]) -> list[float]:
    """The middle of each block in inches: below what it takes, side by side where there are several on a level."""
    xs = [0.0] * len(blocks)
    for level in range(max(levels) + 1):
        row = [n for n, own in enumerate(levels) if own == level]
        wish = {n: _mean([xs[source] for source in blocks[n].sources]) for n in row}
        row.sort(key=lambda n: (wish[n], n))
        if len({levels[s] for n in row for s in blocks[n].sources}) == 1 and len(set(wish.values())) == len(row):
            spread = [wish[n] for n in row]  # each goes on below its own
        else:
            middle = _mean(list(wish.values()))
            spread = [middle + (k - (len(row) - 1) / 2) * (WIDE + 0.2) for k in range(len(row))]
        for n, x in zip(row, spread, strict=True):
            xs[n] = x
    return xs


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _extent(places: Sequence[_Place], strip: int) -> tuple[float, float]:
    own = [place.x for place in places if place.strip == strip]
    return min(own) - WIDE / 2, max(own) + WIDE / 2 + 0.35  # room for the ways round on the right


def _edge(page: Page, left: float, above: _Place, below: _Place, height: float, places: Sequence[_Place]) -> None:
    """A line from a block to one that takes it, round what lies between them."""
    start, end = (left + above.x, _top(above) + height), (left + below.x, _top(below))
    between = [p.x for p in places if p.strip == above.strip and above.level < p.level < below.level]
    turn = end[1] - 0.12
    points = [start, (start[0], turn), (end[0], turn)]
    if between:
        free = all(abs(x - above.x) > WIDE / 2 for x in between)
        way = left + (above.x if free else max(*between, above.x, below.x) + WIDE / 2 + 0.15)
        points = [start, (start[0], start[1] + 0.08), (way, start[1] + 0.08), (way, turn), (end[0], turn)]
    page.axes.plot([x for x, _ in points], [y for _, y in points], color="0.35", linewidth=0.8)
    page.arrow((end[0], turn), end, "0.35")


def _height(kind: str) -> float:
    return 0.22 if kind in ("sum", "joined", "again") else HIGH


def _node(page: Page, x: float, y: float, block: Block) -> None:
    """A block with its name, sizes and kernel; a sum or a concatenation as a small one."""
    if block.kind in ("sum", "joined", "again"):
        words = {"sum": "+", "again": "from the left"}.get(block.kind, f"joined: {block.maps:,}")
        words += f", {', '.join(block.marks)}" if block.marks and block.kind != "again" else ""
        width = min(max(1.2, 0.15 + 0.05 * len(words)), WIDE)
        page.box(x - width / 2, y, width, _height(block.kind), fill=COLOURS[block.kind])
        page.words(x, y + _height(block.kind) / 2, words, 6, ha="center", va="center")
        return
    page.box(x - WIDE / 2, y, WIDE, HIGH, fill=COLOURS[block.kind])
    how = [] if block.kernel is None else [f"{_across(block.kernel)}/{_by(block.stride or (1, 1))}"]
    size = f"{block.maps:,} units" if block.kind == "flat" else f"{block.maps:,} × {_across(block.size)}"
    name = block.name if len(block.name) <= 28 else f"…{block.name[-27:]}"
    lines = [name, ", ".join([*how, *block.marks]), size]
    page.words(x, y + HIGH / 2, "\n".join(line for line in lines if line), 6, ha="center", va="center")


def _caption(opened: Opened, side: int, blocks: Sequence[Block]) -> str:
    how = ("Boxes of feature maps and columns of units, from left to right, with the filters and pooling windows where "
           "they look; faces grow with the root of the map's side, depths with the logarithm of the number of maps. A "
           "layer is a convolution or fully connected, with what follows it" if is_chain(blocks) else
           "Blocks from top to bottom, strip by strip: name, kernel/stride and what else happens to it, feature maps "
           "and their size; + adds maps, joined puts one behind the other")
    return (f"Figure 3 for {network_name(opened.origin)} on images of "
            f"{side}×{side} pixels, drawn from what a forward pass calls. {how}. In the table, field, every and from: "
            "the unit at (i, j) sees so many pixels on a side, beginning at from + (i, j)·every; a negative start lies "
            "in the padding. The paper gives no paddings: where its network is shown, they are those that give its "
            "sizes. It draws its network alone, and no receptive fields.")
