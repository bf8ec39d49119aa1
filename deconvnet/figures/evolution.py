"""Figure 4: how features evolve while a network is trained: the strongest activation of some maps, epoch by epoch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import Field, field_validator

from ..colours import normalise, robust_scale, shrunk_signed
from ..describe import fingerprint, obstacles
from ..errors import DeconvnetError, UsageError
from ..exhibit import DPI, Exhibit
from ..gallery import Gallery, gallery
from ..images import open_images
from ..layout import GAP, MARGIN, TITLE, Sheet, Tile, below, beside, empty, framed, grid, line, printable
from ..network import has_weights, load_model
from ..provenance import provenance
from ..render import fit
from ..report import Chosen, choose_units, numbers
from ..scan import scan
from ..scanned import Scan
from ..settings import Part
from ..subject import Opened

BAR = 3  # pixels: the height of the mark above a cell whose image is another one than before
SETTLED = 0.5  # a layer has settled once so much is as at the last epoch, of its units or in correlation


class Settings(Part):
    """Which snapshots, which maps, and how."""

    model: Annotated[str, Field(min_length=1, description="as --model of deconvnet scan")] = "zfnet"
    weights: Annotated[str | None, Field(description="the snapshots: their folder, as deconvnet train writes it, or a "
                                         "name or path in which {epoch} stands for two digits")] = "epoch-{epoch}"
    images: Annotated[str, Field(min_length=1, description="as deconvnet scan --images")] = "builtin:photographs-apart"
    epochs: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, description="the columns; one "
                      "without a snapshot is drawn empty")] = (1, 2, 5, 10, 20, 30, 40, 64)
    layers: Annotated[tuple[str, ...], Field(min_length=1, description="a block of the figure for each")] = (
        "conv1", "conv2", "conv3", "conv4", "conv5")
    units: Annotated[str | None, Field(description="such as conv5:147,conv3:5-9; none: random ones")] = None
    count: Annotated[int, Field(ge=1, le=64, description="random maps of each layer; the paper shows 6")] = 6
    seed: Annotated[int, Field(ge=0, description="of the random choice")] = 0
    contrast: Annotated[Literal["cell", "unit"], Field(description="one scale for each cell, or for each map")] = "cell"

    @field_validator("epochs")
    @classmethod
    def _ascending(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if list(epochs) != sorted(set(epochs)):
            raise ValueError("epochs must rise from one to the next")
        return epochs

    def snapshot(self, epoch: int) -> str:
        """The weights of an epoch, as ``--weights`` takes them."""
        pattern = str(self.weights)
        if "{epoch}" not in pattern:
            pattern = str(Path(pattern) / "epoch-{epoch}.safetensors")
        return pattern.replace("{epoch}", f"{epoch:02}")


# ---- what is drawn ----


@dataclass(frozen=True, eq=False)
class Cell:
    """A map at an epoch.

    Attributes:
        pixels: (3, h, w) float, signed: the projection of its strongest activation; None where there is none.
        changed: whether the image behind it is another one than at the last epoch before that has one.
        remark: why there are no pixels: ``no snapshot`` or ``silent``; else empty.
    """

    pixels: np.ndarray | None
    changed: bool = False
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Block:
    """A layer of the figure: for each of its units a row of cells, one for each epoch."""

    layer: str
    units: Sequence[int]
    rows: Sequence[Sequence[Cell]]


def draw(blocks: Sequence[Block], epochs: Sequence[int], tile: int = 64, contrast: str = "cell") -> Sheet:
    """The figure: a block for each layer, two beside each other, with a row for each map and a column for each epoch.

    ``tile``: pixels on the longer side of a cell, at most. A bar above a cell: another image than at the epoch before.
    """
    sheets = [_block(block, f"Layer {n}: {block.layer}", epochs, tile, contrast) for n, block in enumerate(blocks, 1)]
    return framed(below(grid(sheets, 2, MARGIN), _legend(contrast), gap=MARGIN))


def _block(block: Block, title: str, epochs: Sequence[int], tile: int, contrast: str) -> Sheet:
    shapes = {cell.pixels.shape[1:] for row in block.rows for cell in row if cell.pixels is not None}
    if len(shapes) > 1:
        raise UsageError(f"the cells of a layer must be of one size: {sorted(shapes)}")
    height, width = shapes.pop() if shapes else (tile, tile)
    size = fit(height, width, tile)
    cells = [line(""), *(line(f"{'epoch ' if n == 0 else ''}{epoch}") for n, epoch in enumerate(epochs))]
    for unit, row in zip(block.units, block.rows, strict=True):
        cells += [_raised(line(str(unit))), *_row(row, size, contrast)]
    return below(line(printable(title), TITLE), grid(cells, 1 + len(epochs), 4), gap=GAP // 2)


def _row(row: Sequence[Cell], size: tuple[int, int], contrast: str) -> Iterator[Sheet]:
    """The cells of one map, of (height, width) ``size``; shrunk before they are scaled, because fine strokes fade."""
    signed = [None if cell.pixels is None else shrunk_signed(cell.pixels[None], size)[0] for cell in row]
    there = [pixels for pixels in signed if pixels is not None]
    scale = robust_scale(np.stack(there)) if contrast == "unit" and there else None
    for cell, pixels in zip(row, signed, strict=True):
        if pixels is None:
            yield _raised(empty(size[1], size[0], *cell.remark.split()))
        else:
            picture = Sheet(size[1], size[0], (Tile(0, 0, size[1], size[0], normalise(pixels, scale)),))
            yield _raised(picture, cell.changed)


def _raised(sheet: Sheet, bar: bool = False) -> Sheet:
    """A cell with room for a bar above it, and the bar."""
    above = Sheet(sheet.width, BAR, (_black(sheet.width),) if bar else ())
    return below(above, sheet, gap=1)


def _black(width: int) -> Tile:
    return Tile(0, 0, width, BAR, np.zeros((1, 1, 3), dtype=np.uint8))


def _legend(contrast: str) -> Sheet:
    sample = Sheet(40, 8, (Tile(0, 5, 40, BAR, np.zeros((1, 1, 3), dtype=np.uint8)),))
    words = "bar above a cell: its image is another one than at the epoch before. Zero is mid-grey; each " \
        f"{'cell' if contrast == 'cell' else 'row'} has one symmetric scale."
    return beside(sample, line(words), gap=GAP)


def draw_settling(settling: Mapping[str, Mapping[str, Sequence[float | None]]], epochs: Sequence[int]) -> Figure:
    """Curves over the epochs, a line for each layer: what ``settle`` found. None is a gap."""
    titles = {"correlation": "projections: correlation\nwith the last epoch's", "same": "units whose image is\nthat of "
              "the last epoch", "changed": "units whose image is another\nthan at the epoch before"}
    figure = Figure(figsize=(10, 3.4), dpi=DPI, layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, 3, sharex=True, sharey=True), titles.items(), strict=True):
        for number, (layer, found) in enumerate(settling.items()):
            values = [np.nan if value is None else value for value in found[key]]
            axes.plot(range(len(epochs)), values, marker="os^Dv"[number % 5], markersize=4, linewidth=1.2,
                      color=str(0.75 - 0.75 * number / max(len(settling) - 1, 1)), label=printable(layer))
        axes.set(title=title, xlabel="epoch", ylim=(-0.05, 1.05), xticks=range(len(epochs)))
        axes.set_xticklabels([str(epoch) for epoch in epochs])
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


# ---- what is computed ----


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, after a scan of all images by each snapshot."""
    there = [epoch for epoch in settings.epochs
             if settings.weights is not None and has_weights(settings.model, settings.snapshot(epoch))]
    opened = _open(settings, there)
    scans: dict[int, Scan] = {}
    shown: dict[int, dict[str, list[Gallery]]] = {}
    chosen: Chosen = {}
    for epoch in reversed(there):  # the last first: it says which maps fire
        net = load_model(settings.model, settings.snapshot(epoch))
        scans[epoch] = scan(net, opened.images, layers=list(settings.layers), k=1, progress=progress)
        chosen = chosen or _choose(scans[epoch], settings)
        shown[epoch] = {layer: list(gallery(net, scans[epoch], layer, units, opened.images, progress=progress))
                        for layer, units in chosen.items()}
    blocks = [_gather(layer, units, settings.epochs, shown) for layer, units in chosen.items()]
    settling = {layer: settle(blocks[n], [_first_images(scans.get(epoch), layer) for epoch in settings.epochs])
                for n, layer in enumerate(chosen)}
    drawn = [{"epoch": epoch, **numbers(one)} for epoch in there for units in shown[epoch].values() for one in units]
    return Exhibit(draw(blocks, settings.epochs, contrast=settings.contrast),
                   {"epochs": list(settings.epochs), "settling": settling, "cells": drawn},
                   _caption(opened, settings, there, settling), opened.origin,
                   {"settling": draw_settling(settling, settings.epochs)})


def settle(block: Block, images: Sequence[np.ndarray | None]) -> dict[str, Any]:
    """How a layer settles, epoch by epoch; None where there is no snapshot, or nothing to compare.

    ``images``: for each epoch the image behind the strongest activation of every unit of the layer (units,), −1 for
    none; None without a snapshot.

    ``correlation``: between the projections that are drawn and the last epoch's, about zero, in the receptive field
    wherever it lies, mean of the maps. ``same``: the share of all units whose image is that of the last epoch, of those
    that fire in both. ``changed``: the share whose image is another one than at the epoch before that has a snapshot.
    ``settled_images`` and ``settled``: the index of the epoch from which on ``same`` and ``correlation`` stay at or
    above 0.5.
    """
    known = [n for n, found in enumerate(images) if found is not None]
    correlation: list[float | None] = [None] * len(images)
    same, changed = list(correlation), list(correlation)
    for place, n in enumerate(known):
        pairs = [_correlation(row[n].pixels, row[known[-1]].pixels) for row in block.rows]
        correlation[n] = _mean([value for value in pairs if value is not None])
        same[n] = _share(images[n], images[known[-1]], np.equal)
        changed[n] = _share(images[n], images[known[place - 1]], np.not_equal) if place else None
    return {"correlation": correlation, "same": same, "changed": changed,
            "settled_images": _settled(same, known), "settled": _settled(correlation, known)}


def _settled(values: Sequence[float | None], known: Sequence[int]) -> int | None:
    """The first of the known indices from which on the values stay at or above the threshold."""
    settled = None
    for n in reversed(known):
        if (values[n] or 0.0) < SETTLED:
            break
        settled = n
    return settled


def _correlation(one: np.ndarray | None, other: np.ndarray | None) -> float | None:
    if one is None or other is None:
        return None
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one.astype(np.float64) * other).sum() / size) if size else None


def _share(one: np.ndarray | None, other: np.ndarray | None, relation: Any) -> float | None:
    """Of the units that fire in both, the share for which a relation holds between their images."""
    assert one is not None and other is not None
    both = (one >= 0) & (other >= 0)                                             # (units,)
    return _mean(relation(one, other)[both].astype(float).tolist())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _gather(layer: str, units: Sequence[int], epochs: Sequence[int],
            shown: Mapping[int, Mapping[str, Sequence[Gallery]]]) -> Block:
    """The cells of a layer from the galleries of its units at each epoch that has a snapshot."""
    rows = []
    for slot in range(len(units)):
        before: str | None = None
        row = []
        for epoch in epochs:
            one = shown[epoch][layer][slot] if epoch in shown else None
            row.append(_cell(one, before))
            before = one.files[0] if one is not None and one.files else before
        rows.append(row)
    return Block(layer, units, rows)


def _cell(one: Gallery | None, before: str | None) -> Cell:
    if one is None:
        return Cell(None, remark="no snapshot")
    if not one.files:
        return Cell(None, remark="image missing" if one.missing else "silent")
    return Cell(one.reconstructions[0], changed=before is not None and one.files[0] != before)


def _first_images(top: Scan | None, layer: str) -> np.ndarray | None:
    return None if top is None else top[layer].images[:, 0].numpy()


def _choose(top: Scan, settings: Settings) -> Chosen:
    """The maps to draw: those that are named, or random ones of those that fire at the last epoch."""
    named = settings.units is not None
    layers = None if named and ":" in str(settings.units) else list(settings.layers)
    chosen = choose_units(top, layers, settings.units, None if named else settings.count, settings.seed)
    return {layer: units for layer, units in chosen.items() if units}


# ---- what is refused, and what is said ----


def _open(settings: Settings, there: Sequence[int]) -> Opened:
    """The last snapshot, and the images. What is wrong with a snapshot, a layer or a unit is said here, before work."""
    if not there:
        raise UsageError(_no_snapshots(settings))
    hashes = {}
    for epoch in there:
        net = load_model(settings.model, settings.snapshot(epoch))
        hashes[str(epoch)] = fingerprint(net)
    images = open_images(settings.images, net.preprocess)
    size = net.preprocess.size
    probe = scan(net, torch.zeros(1, net.preprocess.channels, size, size), layers=list(settings.layers), k=1)
    if settings.units is not None:
        _choose(probe, settings)
    for obstacle in obstacles(net, list(settings.layers), (size, size), net.preprocess.channels).values():
        raise DeconvnetError(obstacle)
    own = settings.model_dump(mode="json", exclude={"model", "weights", "images"})
    origin = provenance("figure 4", own, net, images, settings.model, settings.weights, settings.images)
    return Opened(net, images, {**origin, "snapshots_sha256": hashes})


def _no_snapshots(settings: Settings) -> str:
    """What to say where no epoch has a snapshot: what was looked for, and what there is."""
    if settings.weights is None:
        return (f"figure 4 needs snapshots of {settings.model}: give the folder where deconvnet train wrote them with "
                "--weights, such as runs/NAME/snapshots")
    looked = Path(settings.snapshot(settings.epochs[0]))
    if not looked.parent.is_dir():
        beside = [path.name for path in looked.parent.parent.glob("*") if path.is_dir()]
        near = get_close_matches(looked.parent.name, beside, 1)
        hint = f" Did you mean {looked.parent.parent / near[0]}?" if near else ""
        return f"there is no folder {looked.parent}.{hint}"
    found = sorted(path.name for path in looked.parent.glob("*.safetensors")) if looked.parent.name else []
    return (f"there is no snapshot {looked} of {settings.model}, nor one of another of the epochs "
            f"{', '.join(map(str, settings.epochs))}. "
            + (f"There are: {', '.join(found[:12])}" if found else "Give their folder with --weights"))


def _caption(opened: Opened, settings: Settings, there: Sequence[int],
             settling: Mapping[str, Mapping[str, Any]]) -> str:
    missing = [str(epoch) for epoch in settings.epochs if epoch not in there]
    which = f"the maps {settings.units}" if settings.units else \
        f"{settings.count} random maps of each layer (seed {settings.seed})"
    parts = [
        f"Figure 4 for {opened}, epochs {', '.join(map(str, there))} of its training: {which}, one a row, and for each "
        f"epoch, one a column, the strongest activation over {len(opened.images):,} images, projected to pixels "
        "(deconvnet, unpooled by the switches). Zero is mid-grey, and "
        f"each {'cell' if settings.contrast == 'cell' else 'map'} has one symmetric scale. A bar above a cell: the "
        "image behind it is another one than at the epoch before.",
        f"No snapshot: epoch {', '.join(missing)}." if missing else "",
        *(_sentence(layer, found, settings.epochs) for layer, found in settling.items()),
        "The paper looks through the whole training set of ImageNet, 1.3 million images, with the network that it "
        "trained on them; its contrast is not defined.",
    ]
    return " ".join(part for part in parts if part)


def _sentence(layer: str, found: Mapping[str, Any], epochs: Sequence[int]) -> str:
    """What the numbers say about a layer: when it settles, and how often its images change."""
    changes = [value for value in found["changed"] if value is not None]
    if not changes:
        return f"{printable(layer)}: one epoch alone shows no change."
    known = [n for n, value in enumerate(found["same"]) if value is not None]
    images, pictures = (f"from epoch {epochs[found[key]]} on" if found[key] in known[:-1] else "only at the last epoch"
                        for key in ("settled_images", "settled"))
    return (f"{printable(layer)}: at least half of all its units have the image of the last epoch {images}, its "
            f"projections resemble the last ones (correlation ≥ {SETTLED}) {pictures}, and {changes[-1]:.0%} of its "
            "units change image at the last step.")
