"""What the notebooks look at: pictures side by side, and small arrays with their numbers.

Each function gives a picture that shows itself where it is the last line of a cell.
"""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

DPI = 100
Cells = Iterable[tuple[int, int]]


def row(pictures: Sequence[Any], titles: Sequence[str] = (), height: float = 2.2, boxes: Sequence[Any] = (),
        caption: str = "") -> Image.Image:
    """Pictures side by side, each under its title and with its pixels unsmoothed.

    Args:
        pictures: arrays (h, w, 3) uint8, or feature maps (h, w), which are drawn from black, their smallest value, to
            white, their largest.
        titles: one for each picture.
        height: of a picture, in inches.
        boxes: for each picture None, or one box ((y, x), (height, width)) or a list of them, drawn in red.
        caption: stands below.
    """
    arrays = [_array(picture) for picture in pictures]
    widths = [max(height * array.shape[1] / array.shape[0], 0.6) for array in arrays]
    figure, axes = _panels(widths, height, titles, caption)
    for one, array in zip(axes, arrays, strict=True):
        one.imshow(array, cmap="gray", interpolation="nearest" if array.shape[0] < height * DPI else "antialiased")
    for one, found in zip(axes, boxes, strict=False):
        for (y, x), (h, w) in [] if found is None else found if isinstance(found, list) else [found]:
            one.add_patch(Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor="red", linewidth=1.5))
    return _drawn(figure)


def tables(arrays: Sequence[Any], titles: Sequence[str] = (), marks: Sequence[Cells | None] = (), cell: float = 0.42,
           caption: str = "") -> Image.Image:
    """Small arrays (h, w) side by side with the numbers in their cells: orange above zero, purple below, NaN grey.

    Args:
        arrays: what to show; a row of numbers (w,) is a table of one row.
        titles: one for each.
        marks: for each array None, or the (y, x) of cells to be framed in red.
        cell: the side of a cell, in inches.
        caption: stands below.
    """
    shown = [np.atleast_2d(_array(array)) for array in arrays]
    height = max(len(array) for array in shown) * cell
    figure, axes = _panels([array.shape[1] * cell for array in shown], height, titles, caption)
    largest = max(1e-12, *(float(np.nanmax(np.abs(array), initial=0)) for array in shown)) * 1.6  # so: never too dark
    for one, array in zip(axes, shown, strict=True):
        one.imshow(array, cmap="PuOr_r", vmin=-largest, vmax=largest)
        one.set_facecolor("0.5")
        one.set_anchor("N")
        for (y, x), value in np.ndenumerate(array):
            words = "" if np.isnan(value) else f"{value + 0.0:.3g}".replace("-", "−")
            one.text(x, y, words, ha="center", va="center", fontsize=9)
        for line in range(max(array.shape)):
            one.axhline(line - 0.5, color="0.75", linewidth=0.6)
            one.axvline(line - 0.5, color="0.75", linewidth=0.6)
        one.set_xlim(-0.5, array.shape[1] - 0.5)
        one.set_ylim(array.shape[0] - 0.5, -0.5)
    for one, cells in zip(axes, marks, strict=False):
        for y, x in cells or ():
            one.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="red", linewidth=2))
    return _drawn(figure)


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _panels(widths: Sequence[float], height: float, titles: Sequence[str], caption: str) -> tuple[Figure, list[Axes]]:
    """A drawing with one empty panel for each width, all sizes in inches."""
    gap, side = 0.25, 0.1
    above = 0.1 + 0.19 * max((title.count("\n") + 1 for title in titles), default=0)
    below = 0.1 + 0.19 * (caption.count("\n") + 1 if caption else 0)
    total, tall = sum(widths) + gap * (len(widths) - 1) + 2 * side, above + height + below
    figure = Figure(figsize=(max(total, 0.07 * max(map(len, caption.split("\n")))), tall), dpi=DPI, facecolor="white")
    wide = figure.get_figwidth()
    axes, x = [], side
    for number, width in enumerate(widths):
        axes.append(figure.add_axes((x / wide, below / tall, width / wide, height / tall)))
        axes[-1].set_xticks([])
        axes[-1].set_yticks([])
        axes[-1].set_title(titles[number] if number < len(titles) else "", fontsize=9, pad=4, parse_math=False)
        x += width + gap
    figure.text(side / wide, 0.08 / tall, caption, fontsize=9, va="bottom", parse_math=False)
    return figure, axes


def _drawn(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file)
