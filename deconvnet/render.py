"""Units to sheets: reconstructions beside patches, the sheets of layers, the page of the paper's Figure 2.

Nothing here knows a network or writes a file.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from math import ceil, isqrt
from typing import Literal, Protocol

import numpy as np

from .colours import normalise, robust_scale, shrunk, shrunk_signed
from .errors import UsageError
from .layout import GAP, LABEL, MARGIN, SMALL, TITLE, Sheet, Tile, below, beside, framed, grid, line

SEPARATOR = 1  # pixels between the tiles of a unit

Contrast = Literal["unit", "tile", "layer"]


class UnitTiles(Protocol):
    """What a sheet shows of one unit; a Gallery is one.

    Attributes:
        layer, unit: its address.
        reconstructions: (k, 3, h, w) float, signed.
        patches: (k, h, w, 3) uint8.
        remark: what stands behind the address, such as ``dead``; mostly empty.
    """

    @property
    def layer(self) -> str: ...  # noqa: D102
    @property
    def unit(self) -> int: ...  # noqa: D102
    @property
    def reconstructions(self) -> np.ndarray: ...  # noqa: D102
    @property
    def patches(self) -> np.ndarray: ...  # noqa: D102
    @property
    def remark(self) -> str: ...  # noqa: D102


def _colours(units: Sequence[UnitTiles], contrast: Contrast, size: tuple[int, int]) -> list[np.ndarray]:
    """The reconstructions of each unit as colours (k, h, w, 3): one scale per unit, per tile, or for all.

    They are shrunk to ``size`` before they are scaled: fine strokes fade as they are shrunk, and would look grey.
    """
    signed = [shrunk_signed(np.asarray(unit.reconstructions), size) for unit in units]
    if contrast == "layer":
        scale = robust_scale(np.concatenate([pixels.ravel() for pixels in signed]))
        return [normalise(pixels, scale) for pixels in signed]
    if contrast == "tile":
        return [np.stack([normalise(tile) for tile in pixels]) if len(pixels) else normalise(pixels)
                for pixels in signed]
    if contrast == "unit":
        return [normalise(pixels) for pixels in signed]
    raise UsageError(f"contrast must be unit, tile or layer: {contrast!r}")


def fit(height: int, width: int, tile: int) -> tuple[int, int]:
    """The (height, width) at which a tile is drawn where ``tile`` pixels are allowed on its longer side.

    The largest whole multiple that fits; a tile that is larger than allowed is shrunk to it.
    """
    longest = max(height, width)
    if longest <= tile:
        return height * (tile // longest), width * (tile // longest)
    return max(1, round(height * tile / longest)), max(1, round(width * tile / longest))


def _group(pixels: np.ndarray, size: tuple[int, int], k: int) -> Sheet:
    """The tiles (n ≤ k, h, w, 3) of a unit in a square of k places, those that are missing left blank."""
    height, width = size
    columns = _root(k)
    places = [Sheet(width, height, (Tile(0, 0, width, height, tile),)) for tile in pixels]
    places += [Sheet(width, height)] * (k - len(pixels))
    return grid(places, columns, SEPARATOR)


def _root(count: int) -> int:
    """The columns of a grid that is about square, and wider than high where it cannot be."""
    return isqrt(max(count, 1) - 1) + 1


def _columns(count: int) -> int:
    """The paper's grids: 3×3, 4×4 and 3×4 maps are about square, but the ten of layers 4 and 5 are 5 rows of 2."""
    return 2 if count == 10 else _root(count)


def _labelled(group: Sheet, unit: UnitTiles) -> Sheet:
    """A group under its address; under the bare number where the address is wider than the group."""
    label = line(f"{unit.layer}:{unit.unit} {unit.remark}".rstrip(), LABEL)
    if label.width > group.width:
        label = line(f"{unit.unit} {unit.remark}".rstrip(), LABEL)
    return below(label, group, gap=1)


def _tile_size(units: Sequence[UnitTiles]) -> tuple[int, int]:
    """The (height, width) of the tiles, which are of one size because one layer has one receptive field."""
    if not units:
        raise UsageError("no units to show")
    shown = [unit for unit in units if len(unit.patches)]
    sizes = {unit.patches.shape[1:3] for unit in shown} | {unit.reconstructions.shape[2:] for unit in shown}
    if len(sizes) > 1:
        raise UsageError(f"the tiles of a sheet must be of one size: {sorted(sizes)}")
    return sizes.pop() if sizes else (1, 1)


def _places(units: Sequence[UnitTiles], k: int | None) -> int:
    """How many places a group has: k, or as many as the fullest unit needs; the paper's nine where all are dead."""
    most = max(len(unit.patches) for unit in units)
    return max(most, k or 0) or 9


def unit_sheet(unit: UnitTiles, zoom: int = 1, k: int | None = None, contrast: Contrast = "unit",
               caption: str = "") -> Sheet:
    """One unit under its address: reconstructions left, patches right in the same order, each pixel ``zoom`` pixels.

    The order is row by row, the strongest first. ``k`` is the number of places (default: as many as there are tiles).
    ``caption``: what stands below, small; at each ", " it may go on in another line.
    """
    if zoom < 1:
        raise UsageError(f"zoom must be a whole number from 1: {zoom}")
    height, width = _tile_size([unit])
    size, places = (height * zoom, width * zoom), _places([unit], k)
    left, right = (_group(pixels, size, places) for pixels in (_colours([unit], contrast, size)[0], unit.patches))
    label = line(f"{unit.layer}:{unit.unit} {unit.remark}".rstrip(), LABEL)
    sheet = below(label, beside(left, right, gap=GAP), gap=1)
    return framed(below(sheet, *(line(words, SMALL) for words in _lines(caption, sheet.width)), gap=1))


def _lines(caption: str, width: int) -> list[str]:
    """A caption in lines no wider than ``width`` pixels, if its parts are not."""
    lines: list[str] = []
    for part in filter(None, caption.split(", ")):
        longer = f"{lines[-1]}, {part}" if lines else ""
        if longer and line(longer, SMALL).width <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def legible(unit: UnitTiles, width: int = 400) -> int:
    """The smallest zoom at which the sheet of a unit is at least ``width`` pixels wide."""
    across = 2 * _root(_places([unit], None)) * _tile_size([unit])[1]  # reconstructions and patches, without gaps
    return ceil(width / across)


def layer_sheet(units: Sequence[UnitTiles], tile: int = 80, k: int | None = None, contrast: Contrast = "unit",
                filters: np.ndarray | None = None, title: str | None = None, columns: int | None = None) -> Sheet:
    """One layer of the paper's Figure 2: the units' reconstructions left, their patches right, in the same order.

    Args:
        units: of one layer, in the order in which they are shown.
        tile: pixels on the longer side of a tile, at most; small tiles are enlarged by whole numbers, large ones shrunk
            smoothly, in pictures and figures alike.
        k: places per unit (default: as many as the fullest unit has tiles); those that are missing stay blank.
        contrast: one scale per unit, per tile, or for the whole layer.
        filters: (units, 3, h, w), the first layer's filters, shown above the patches instead of reconstructions.
        title: above it all (default: the layer's name).
        columns: units per row (default: the paper's grid for 9, 16, 12 and 10 units, else about square).

    Raises UsageError for tiles of different sizes, and for no units.
    """
    size, places = fit(*_tile_size(units), tile), _places(units, k)
    columns = columns or _columns(len(units))
    groups = [_group(shrunk(unit.patches, size), size, places) for unit in units]
    patches = grid([_labelled(group, unit) for group, unit in zip(groups, units, strict=True)], columns, GAP)
    if filters is not None:
        body = below(_filters(units, filters, size, columns), patches, gap=2 * GAP)
    else:
        groups = [_group(pixels, size, places) for pixels in _colours(units, contrast, size)]
        labelled = [_labelled(group, unit) for group, unit in zip(groups, units, strict=True)]
        body = beside(grid(labelled, columns, GAP), patches, gap=MARGIN)
    return framed(below(line(title or units[0].layer, TITLE), body, gap=GAP))


def _filters(units: Sequence[UnitTiles], filters: np.ndarray, patch: tuple[int, int], columns: int) -> Sheet:
    """The filters themselves, each on its own scale, larger than a patch and in the order of the groups below."""
    if len(filters) != len(units):
        raise UsageError(f"{len(units)} units and {len(filters)} filters: one is needed for each")
    height, width = fit(filters.shape[2], filters.shape[3], max(patch) * 3 // 2)
    tiles = [Sheet(width, height, (Tile(0, 0, width, height, normalise(weights)),))
             for weights in shrunk_signed(filters, (height, width))]
    return grid(tiles, columns, SEPARATOR)


def reconstruction_sheet(units: Sequence[UnitTiles], tile: int = 80, k: int | None = None, contrast: Contrast = "unit",
                         title: str | None = None, columns: int | None = None) -> Sheet:
    """The reconstructions of one layer's units without their patches, as in the paper's Figure 6; see layer_sheet."""
    size, places = fit(*_tile_size(units), tile), _places(units, k)
    groups = [_group(pixels, size, places) for pixels in _colours(units, contrast, size)]
    labelled = [_labelled(group, unit) for group, unit in zip(groups, units, strict=True)]
    body = grid(labelled, columns or _columns(len(units)), GAP)
    return framed(below(line(title or units[0].layer, TITLE), body, gap=GAP))


def filter_sheet(filters: np.ndarray, title: str | None = None, together: bool = True, columns: int = 16,
                 zoom: int = 5, rows: int | None = None) -> Sheet:
    """All filters (units, 3, h, w) of a layer that looks at pixels, row by row, enlarged.

    ``together``: on one scale, the paper's way in Figure 6, which shows those that dominate and those that are dead;
    otherwise each on its own. ``rows``: so many, filled column by column as there, whatever ``columns`` says.
    """
    if not len(filters):
        raise UsageError("no filters to show")
    height, width = filters.shape[2] * zoom, filters.shape[3] * zoom
    scale = robust_scale(filters) if together else None
    tiles = [Sheet(width, height, (Tile(0, 0, width, height, normalise(weights, scale)),)) for weights in filters]
    if rows is not None:
        columns = ceil(len(tiles) / rows)
        tiles += [Sheet(width, height)] * (rows * columns - len(tiles))
        tiles = [tiles[column * rows + row] for row in range(rows) for column in range(columns)]
    body = grid(tiles, columns, SEPARATOR)
    return framed(below(line(title, TITLE), body, gap=GAP) if title else body)


def figure_2(layers: Sequence[Sequence[UnitTiles]], filters: np.ndarray | None = None, tile: int = 80,
             k: int | None = None, contrast: Contrast = "unit", titles: Iterable[str] | None = None) -> Sheet:
    """All layers on one page, as the paper arranges them where there are five; otherwise one below the other.

    Layer 1 is top left (its filters above their patches, where filters are given) and layer 2 top right, both on
    smaller tiles; layer 3 below; 4 and 5 side by side at the bottom. The arguments are those of ``layer_sheet``.
    """
    if not layers:
        raise UsageError("no layers to show")
    titles = list(titles) if titles is not None else [f"Layer {n + 1}" for n in range(len(layers))]
    paper = len(layers) == 5
    sizes = [tile * 7 // 10 if paper and n < 2 else tile for n in range(len(layers))]
    sheets = [layer_sheet(units, size, k, contrast, filters if n == 0 else None, title)
              for n, (units, size, title) in enumerate(zip(layers, sizes, titles, strict=True))]
    if paper:
        top, bottom = (beside(*pair, gap=MARGIN) for pair in (sheets[:2], sheets[3:]))
        sheets = [top, sheets[2], bottom]
    return reduce(lambda above, sheet: below(above, sheet, gap=GAP), sheets)
