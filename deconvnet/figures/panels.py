"""Panels: axes placed to the pixel on a drawing, for pictures that keep their pixels and text that stays text."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..exhibit import DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL, LARGE = 7, 8.5  # points


def blank(width: int, height: int) -> "Figure":
    """A white drawing of so many pixels at the resolution of exhibits."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")


def panel(figure: "Figure", box: tuple[int, int, int, int]) -> "Axes":
    """Axes in the box (x, y, width, height), in pixels from the top left."""
    width, height = figure.get_size_inches() * DPI
    x, y, w, h = box
    return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))


def picture(figure: "Figure", box: tuple[int, int, int, int], pixels: np.ndarray, frame: str | None = None) -> "Axes":
    """A picture (h, w, 3) uint8 in a box, shrunk smoothly if it is larger; ``frame``: the colour of a line around."""
    axes = panel(figure, box)
    axes.imshow(shrunk(pixels, box[3], box[2]), interpolation="none", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame is not None)
        spine.set_color(frame)
        spine.set_linewidth(2)
    return axes


def words(figure: "Figure", x: float, y: float, text: str, size: float = SMALL, align: str = "left",
          color: str = "black", rotation: float = 0) -> None:
    """A line of text whose top is at (x, y) in pixels from the top left; turned text is centred on it."""
    width, height = figure.get_size_inches() * DPI
    vertical = "center" if rotation else "top"
    figure.text(x / width, 1 - y / height, text, fontsize=size, ha=align, va=vertical, color=color, rotation=rotation,
                parse_math=False)  # a $ in a name is no formula


def shrunk(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels (h, w, 3) uint8, shrunk to the size where they are larger."""
    if pixels.shape[0] <= height and pixels.shape[1] <= width:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
