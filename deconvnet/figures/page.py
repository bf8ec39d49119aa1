"""A page in inches, from the top left: tiles that keep their pixels, words that stay words, arrows and boxes."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..exhibit import DPI
from ..layout import printable

LINE = 1.35  # from one line of words to the next, in sizes of the font
DARK, FAINT, ACCENT = "black", "0.45", "#b03020"


class Page:
    """An empty page of ``width``×``height`` inches. ``figure`` is what has been drawn on it so far."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI)
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self.axes.set_axis_off()

    def tile(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> None:
        """Pixels (h, w, 3), uint8, in the box whose top left corner is (x, y); enlarged without smoothing."""
        self.axes.imshow(pixels, extent=(x, x + width, y + height, y), interpolation="none", aspect="auto")

    def words(self, x: float, y: float, text: str, size: float = 8, **options: Any) -> None:
        """Words from (x, y) on, downwards where they have several lines; ``size`` in points."""
        style = {"va": "top", "ha": "left", "linespacing": LINE, "color": DARK, **options}
        self.axes.text(x, y, printable(text), fontsize=size, parse_math=False, **style)  # a $ in a name is no formula

    def arrow(self, start: tuple[float, float], end: tuple[float, float], color: str = DARK, style: str = "-|>",
              bend: float = 0.0) -> None:
        """An arrow from one (x, y) to another; ``bend`` is how far it swings out, relative to its length."""
        looks = {"arrowstyle": style, "color": color, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0,
                 "mutation_scale": 9, "connectionstyle": f"arc3,rad={bend}"}
        self.axes.annotate("", xy=end, xytext=start, arrowprops=looks)

    def box(self, x: float, y: float, width: float, height: float, color: str = DARK, line: float = 0.8,
            fill: str | None = None) -> None:
        """The outline of a box whose top left corner is (x, y), filled where a colour is given."""
        self.shape([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], color, line, fill)

    def shape(self, corners: list[tuple[float, float]], color: str = DARK, line: float = 0.8,
              fill: str | None = None) -> None:
        """The outline of a polygon, filled where a colour is given."""
        from matplotlib.patches import Polygon

        self.axes.add_patch(Polygon(corners, closed=True, edgecolor=color, linewidth=line, facecolor=fill or "none"))
