"""The pictures of an atlas: WebP, many small ones in one file, so that a page needs few requests."""

import io
from collections.abc import Sequence
from math import ceil, isqrt

import numpy as np
from PIL import Image

from ..colours import normalise, robust_scale, shrunk, shrunk_signed
from ..descent import Stage
from ..gallery import Gallery

LARGEST = 112           # pixels on the longer side of a tile on a unit's page, at most
TINY, SMALL = 16, 40    # tiles up to the one are kept without loss, up to the other at twice the size, for WebP halves
                        # colours, and a page enlarges them
CELL = 96               # pixels on a side of a unit in the grid of its layer
ACROSS, DOWN = 8, 4     # units in one sprite of a layer
MAPS, MAP, GAP = 3, 32, 16  # maps of each stage of a way down, pixels on a side of one, and between three and three
BLANK = (72, 76, 88)    # where there is nothing: bluish, for grey is zero


def webp(pixels: np.ndarray, lossless: bool = False, quality: int = 60) -> bytes:
    """Pixels (h, w, 3), uint8, as a WebP file; the same bytes every time."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=lossless, quality=0 if lossless else quality, method=2)
    return file.getvalue()


def unit_picture(one: Gallery) -> tuple[bytes, tuple[int, int]]:
    """A unit's reconstructions on the left and its patches on the right, in rows of three; and the (h, w) of a tile."""
    size = tile_size(one)
    times = 2 if TINY < max(size) <= SMALL else 1
    left, right = (montage(tiles, 3).repeat(times, axis=0).repeat(times, axis=1) for tiles in _tiles(one, size))
    content = webp(np.concatenate([left, right], axis=1), max(size) <= TINY, 80 if times > 1 else 50)
    return content, (size[0] * times, size[1] * times)


def tile_size(one: Gallery) -> tuple[int, int]:
    """The (height, width) of a unit's tiles on its page: the receptive field's, or smaller where that is large."""
    height, width = one.patches.shape[1:3]
    longest = max(height, width)
    if longest <= LARGEST:
        return height, width
    return max(1, round(height * LARGEST / longest)), max(1, round(width * LARGEST / longest))


def _tiles(one: Gallery, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions, on one scale, and patches, both (k, h, w, 3)."""
    return normalise(shrunk_signed(one.reconstructions, size)), shrunk(one.patches, size)


def _blank(*shape: int) -> np.ndarray:
    """Pixels (*shape, 3), uint8, with nothing in them."""
    return np.full((*shape, 3), BLANK, dtype=np.uint8)


def montage(tiles: np.ndarray, columns: int, gap: int = 0, places: int = 0) -> np.ndarray:
    """Tiles (n, h, w, 3) in rows, with ``gap`` pixels between; blank up to ``places``."""
    count, height, width = tiles.shape[:3]
    rows = ceil(max(count, places) / columns)
    page = _blank(rows * (height + gap) - gap, columns * (width + gap) - gap)
    for number, tile in enumerate(tiles):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        page[y:y + height, x:x + width] = tile
    return page


class Sprites:
    """The grid of a layer: its units' reconstructions, or their patches, 32 in each file."""

    def __init__(self, units: int, k: int) -> None:
        self.k = k
        count = ceil(units / (ACROSS * DOWN))
        blank = _blank(count, DOWN * CELL, ACROSS * CELL)
        self.sides = blank, blank.copy()

    def add(self, one: Gallery) -> None:
        """Puts a unit in its cell."""
        columns = isqrt(max(self.k, 1) - 1) + 1
        room = (CELL - (columns - 1)) // columns
        size = _within(one.patches.shape[1:3], room)
        sprite, place = divmod(one.unit, ACROSS * DOWN)
        for side, tiles in zip(self.sides, _tiles(one, size), strict=True):
            cell = montage(_filled(tiles, room), columns, 1, self.k)[:CELL, :CELL]
            y, x = place // ACROSS * CELL, place % ACROSS * CELL
            y, x = y + (CELL - cell.shape[0]) // 2, x + (CELL - cell.shape[1]) // 2
            side[sprite][y:y + cell.shape[0], x:x + cell.shape[1]] = cell

    def files(self) -> dict[str, bytes]:
        """The sprites by the names of their files: r0.webp … of reconstructions, p0.webp … of patches."""
        return {f"{letter}{number}.webp": webp(page) for letter, side in zip("rp", self.sides, strict=True)
                for number, page in enumerate(side)}


def _within(size: Sequence[int], room: int) -> tuple[int, int]:
    """The (height, width) at which a tile fits into a square, if it must shrink."""
    share = min(1.0, room / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _filled(tiles: np.ndarray, room: int) -> np.ndarray:
    """Small tiles (n, h, w, 3) enlarged to fill their place on the longer side."""
    height, width = (round(side * room / max(tiles.shape[1:3])) for side in tiles.shape[1:3])
    return np.stack([_nearest(tile, (height, width)) for tile in tiles])


def _nearest(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(tile).resize(size[::-1], Image.Resampling.NEAREST))


def way_picture(stages: Sequence[Stage]) -> bytes:
    """The way down: a row for each stage, with three maps of the signal, three of the network's and their switches.

    Each three have one symmetric scale, on which zero is mid-grey; of the switches those that are set are white. The
    pixels at the end are the strongest reconstruction of the unit's page, and so have no row.
    """
    rows = []
    for stage in stages[:-1]:
        signal, maps = (_scaled(values) for values in (stage.signal, stage.maps))
        switches = np.zeros((0, 1, 1, 3), np.uint8) if stage.switches is None else _white(stage.switches)
        between = _blank(MAP, GAP)
        rows.append(np.concatenate([_three(signal), between, _three(maps), between, _three(switches)], axis=1))
    return webp(np.concatenate(rows), quality=40)


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Maps (n, h, w) as colours; most of an unpooled map is zero, and does not count for the scale."""
    return normalise(np.repeat(maps[:, None], 3, axis=1), robust_scale(maps[maps != 0]))


def _white(switches: np.ndarray) -> np.ndarray:
    return np.repeat(np.where(switches, 255, 64).astype(np.uint8)[..., None], 3, axis=3)


def _three(tiles: np.ndarray) -> np.ndarray:
    """Up to three maps (n, h, w, 3) side by side, each as large as its place."""
    places = [_blank(MAP, MAP) for _ in range(MAPS)]
    for number, tile in enumerate(tiles[:MAPS]):
        how = Image.Resampling.NEAREST if max(tile.shape[:2]) <= MAP else Image.Resampling.BOX
        places[number] = np.asarray(Image.fromarray(tile).resize((MAP, MAP), how))
    return np.concatenate(places, axis=1)


def whole_picture(pixels: np.ndarray, side: int) -> bytes:
    """A whole image (H, W, 3), uint8, of at most ``side`` pixels on its longer side."""
    size = _within(pixels.shape[:2], side)
    return webp(shrunk(pixels[None], size)[0])
