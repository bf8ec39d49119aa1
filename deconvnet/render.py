"""Arrays to pictures: a unit's reconstructions beside its patches, sheets of units, the page of the paper's Figure 2.

A sheet is a layout: where each tile lies and where each word stands. ``picture`` draws it pixel by pixel, ``figure`` as
a vector page; both show the same. Nothing here knows a network or writes a file.
"""

import io
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from math import ceil, isqrt
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from .errors import DeconvnetError, UsageError
from .images import GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = 255  # behind the tiles, and where one is missing
QUANTILE = 0.995  # of |x|: a few outliers may saturate so that the rest can be seen
SEPARATOR = 1  # pixels between the tiles of a unit
GAP = 8  # pixels between units
MARGIN = 24  # pixels between reconstructions and patches, and between layers
LABEL, TITLE = 12, 18  # font sizes, in pixels

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


# ---- numbers to colours ----


def robust_scale(pixels: np.ndarray) -> float:
    """The value that becomes black or white: the 99.5 % quantile of |x| over all pixels; 0 where all are zero.

    Raises DeconvnetError for NaN and infinity, which would otherwise look like an even grey.
    """
    sizes = np.abs(_floats(pixels)).ravel()
    if sizes.size == 0:
        return 0.0
    largest = sizes.max()
    if not np.isfinite(largest):
        raise DeconvnetError("a reconstruction holds NaN or infinity, which no picture can show")
    return float(_quantile(sizes, QUANTILE) or largest)  # so sparse that the quantile is 0: the largest


def _quantile(values: np.ndarray, share: float) -> float:
    """``np.quantile``, five times as fast where few lie above it: these and some more are told from the rest first."""
    most = values[values >= np.quantile(values[::16], 4 * share - 3)]  # four times as many as lie above it, about
    above = (len(values) - 1) * (1 - share)  # by how much the quantile's place is from the end of what is sorted
    if above >= len(most) - 1:  # the sample was not like the whole
        return float(np.quantile(values, share))
    return float(np.quantile(most, 1 - above / (len(most) - 1)))


def normalise(pixels: np.ndarray, scale: float | None = None) -> np.ndarray:
    """The pixels (…, 3, h, w), signed, as colours (…, h, w, 3), uint8: zero is 128, −scale is 1 and scale is 255.

    What lies beyond the scale saturates. ``scale`` defaults to the robust scale of all the pixels that are given, so
    that tiles given together can be compared. All zeros are an even mid-grey.
    """
    scale = robust_scale(pixels) if scale is None else scale
    colours = _floats(pixels) / (scale or 1.0)
    np.clip(colours, -1, 1, out=colours)
    colours *= 127
    np.rint(colours, out=colours)
    colours += GREY
    return np.moveaxis(colours.astype(np.uint8), -3, -1)                         # (…, h, w, 3)


def _floats(pixels: np.ndarray) -> np.ndarray:
    """The same in float32, or in float64 if they are given so: that is thrice as slow, and no eye sees it."""
    return np.asarray(pixels, dtype=np.result_type(pixels, np.float32))


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


def shrunk_signed(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Signed pixels (k, 3, h, w), shrunk to (height, width) where they are larger."""
    if not len(pixels) or max(pixels.shape[2:]) <= max(size):
        return pixels
    planes = [_shrink(Image.fromarray(plane), size) for plane in np.concatenate(pixels).astype(np.float32)]
    return np.stack(planes).reshape(*pixels.shape[:2], *size)


def shrunk(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (k, h, w, 3), shrunk to (height, width) where they are larger."""
    if not len(pixels) or max(pixels.shape[1:3]) <= max(size):
        return pixels
    return np.stack([_shrink(Image.fromarray(tile), size) for tile in pixels])


def _shrink(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))


# ---- the layout ----


@dataclass(frozen=True)
class Tile:
    """Pixels (h, w, 3), uint8, drawn into the box of ``width``×``height`` at (x, y)."""

    x: int
    y: int
    width: int
    height: int
    pixels: np.ndarray


@dataclass(frozen=True)
class Text:
    """Words on one line, whose top left corner is (x, y)."""

    x: int
    y: int
    size: int
    words: str


@dataclass(frozen=True)
class Sheet:
    """A layout of tiles and words, in pixels from the top left."""

    width: int
    height: int
    tiles: tuple[Tile, ...] = ()
    texts: tuple[Text, ...] = ()

    def picture(self) -> Image.Image:
        """The sheet as an RGB picture. Tiles are enlarged without smoothing."""
        canvas = Image.new("RGB", (self.width, self.height), (PAPER, PAPER, PAPER))
        for tile in self.tiles:
            canvas.paste(_resized(tile), (tile.x, tile.y))
        draw = ImageDraw.Draw(canvas)
        for text in self.texts:
            draw.text((text.x, text.y), text.words, fill=(0, 0, 0), font=_font(text.size))
        return canvas

    def png(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """The picture as a PNG file with the metadata as its text; the same bytes every time."""
        info = PngImagePlugin.PngInfo()
        for key, value in (metadata or {}).items():
            info.add_itxt(key, value)
        file = io.BytesIO()
        self.picture().save(file, "PNG", pnginfo=info, compress_level=4,
                            compress_type=zlib.Z_RLE)  # a third of the time of the default, photographs 3 % larger
        return file.getvalue()

    def figure(self, dpi: int = 144) -> "Figure":
        """The sheet as a matplotlib figure: text stays text, tiles keep their pixels; 1/dpi inch for each of ours."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width / dpi, self.height / dpi), dpi=dpi)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0), autoscale_on=False)
        axes.set_axis_off()
        for tile in self.tiles:
            extent = (tile.x, tile.x + tile.width, tile.y + tile.height, tile.y)
            axes.imshow(tile.pixels, extent=extent, interpolation="none", aspect="auto")
        for text in self.texts:  # 0.8: matplotlib's font is wider than the one that the layout was measured with
            axes.text(text.x, text.y + 0.1 * text.size, text.words, fontsize=0.8 * text.size * 72 / dpi, va="top",
                      parse_math=False)  # a $ in a name is no formula
        return figure

    def pdf(self, metadata: Mapping[str, str] | None = None, dpi: int = 144) -> bytes:
        """The figure as a PDF file, each tile with its own pixels and no date; the same bytes every time.

        ``metadata`` may hold Title, Author, Subject and Keywords.
        """
        import matplotlib

        file = io.BytesIO()
        with warnings.catch_warnings(), matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: text that is text
            warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
            self.figure(dpi).savefig(file, format="pdf", metadata={**(metadata or {}), "CreationDate": None})
        return file.getvalue()


def _resized(tile: Tile) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(tile.pixels))
    return image.resize((tile.width, tile.height), Image.Resampling.NEAREST)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def line(words: str, size: int = LABEL) -> Sheet:
    """One line of text, as wide as it is."""
    return Sheet(ceil(_font(size).getlength(words)), ceil(1.3 * size), texts=(Text(0, 0, size, words),))


def _at(sheet: Sheet, x: int, y: int) -> tuple[list[Tile], list[Text]]:
    tiles = [Tile(tile.x + x, tile.y + y, tile.width, tile.height, tile.pixels) for tile in sheet.tiles]
    return tiles, [Text(text.x + x, text.y + y, text.size, text.words) for text in sheet.texts]


def grid(sheets: Sequence[Sheet], columns: int, gap: int) -> Sheet:
    """The sheets row by row, every column as wide and every row as high as its largest."""
    widths = [max(sheet.width for sheet in sheets[column::columns]) for column in range(min(columns, len(sheets)))]
    rows = [sheets[start:start + columns] for start in range(0, len(sheets), columns)]
    tiles: list[Tile] = []
    texts: list[Text] = []
    y = 0
    for row in rows:
        for column, sheet in enumerate(row):
            new_tiles, new_texts = _at(sheet, sum(widths[:column]) + gap * column, y)
            tiles += new_tiles
            texts += new_texts
        y += max(sheet.height for sheet in row) + gap
    return Sheet(sum(widths) + gap * (len(widths) - 1), y - gap, tuple(tiles), tuple(texts))


def beside(*sheets: Sheet, gap: int) -> Sheet:
    """The sheets from left to right."""
    return grid(sheets, len(sheets), gap)


def below(*sheets: Sheet, gap: int) -> Sheet:
    """The sheets from top to bottom."""
    return grid(sheets, 1, gap)


def framed(sheet: Sheet) -> Sheet:
    """The sheet with white around it."""
    tiles, texts = _at(sheet, GAP, GAP)
    return Sheet(sheet.width + 2 * GAP, sheet.height + 2 * GAP, tuple(tiles), tuple(texts))


def empty(width: int, height: int, *lines: str) -> Sheet:
    """A frame with nothing in it but some words, where there is nothing to show."""
    pixels = np.full((height, width, 3), 200, dtype=np.uint8)
    pixels[1:-1, 1:-1] = PAPER
    size = LABEL - 3
    words = below(*(line(words, size) for words in lines), gap=0)
    frame = Sheet(width, height, (Tile(0, 0, width, height, pixels),))
    _, texts = _at(words, max(3, (width - words.width) // 2), max(2, (height - words.height) // 2))
    return Sheet(width, height, frame.tiles, tuple(texts))


# ---- units and layers ----


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


def unit_sheet(unit: UnitTiles, zoom: int = 1, k: int | None = None, contrast: Contrast = "unit") -> Sheet:
    """One unit under its address: reconstructions left, patches right in the same order, each pixel ``zoom`` pixels.

    The order is row by row, the strongest first. ``k`` is the number of places (default: as many as there are tiles).
    """
    if zoom < 1:
        raise UsageError(f"zoom must be a whole number from 1: {zoom}")
    height, width = _tile_size([unit])
    size, places = (height * zoom, width * zoom), _places([unit], k)
    left, right = (_group(pixels, size, places) for pixels in (_colours([unit], contrast, size)[0], unit.patches))
    label = line(f"{unit.layer}:{unit.unit} {unit.remark}".rstrip(), LABEL)
    return framed(below(label, beside(left, right, gap=GAP), gap=1))


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
