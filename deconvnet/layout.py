"""Where each tile lies and where each word stands: sheets, put beside and below each other, and drawn.

``picture`` draws a sheet pixel by pixel, ``figure`` as a vector page; both show the same.
"""

import io
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = 255  # behind the tiles, and where one is missing
GAP = 8  # pixels between units
MARGIN = 24  # pixels between reconstructions and patches, and between layers
SMALL, LABEL, TITLE = 9, 12, 18  # font sizes, in pixels


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
            draw.text((text.x, text.y), text.words, fill=(0, 0, 0), font=_font(text.size, text.words))
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


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _font(size: int, words: str) -> Font:
    """Pillow's font; where that lacks a letter, as of most languages, the one that matplotlib brings."""
    return _usual(size) if words.isascii() or all(_has(letter) for letter in words) else _rich(size)


@cache
def _usual(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _rich(size: int) -> Font:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", round(0.9 * size))


@cache
def _has(letter: str) -> bool:
    """Whether Pillow's font has a letter: it draws one and the same box for what it lacks."""
    font = _usual(TITLE)
    return not isinstance(font, ImageFont.FreeTypeFont) or list(font.getmask(letter)) != list(font.getmask("\uffff"))


def line(words: str, size: int = LABEL) -> Sheet:
    """One line of text, as wide as it is."""
    return Sheet(ceil(_font(size, words).getlength(words)), ceil(1.3 * size), texts=(Text(0, 0, size, words),))


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
    words = below(*(line(words, SMALL) for words in lines), gap=0)
    frame = Sheet(width, height, (Tile(0, 0, width, height, pixels),))
    _, texts = _at(words, max(3, (width - words.width) // 2), max(2, (height - words.height) // 2))
    return Sheet(width, height, frame.tiles, tuple(texts))


def printable(text: str) -> str:
    """The text as any terminal and font takes it: what is not text in the name of a file or folder is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """The same in at most so many characters, with an ellipsis for what is left out."""
    return printable(text if len(text) <= most else f"{text[:most - 1]}…")
