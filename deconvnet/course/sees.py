"""Checks of notebook 1: what a unit sees."""

from collections.abc import Callable

from ..receptive import Sliding
from . import case, close, right


def cells_below(function: Callable) -> None:
    """Checks ``cells_below(first, count, kernel, stride, padding)`` → (first, count) one step down."""
    for first, count, kernel, stride, padding in [(0, 1, 3, 1, 0), (2, 1, 3, 2, 0), (0, 1, 7, 2, 1), (4, 3, 5, 2, 2)]:
        slide = Sliding((kernel, kernel), (stride, stride), (padding, padding))
        words = f"cells {first} … {first + count - 1}, kernel {kernel}, stride {stride}, padding {padding}"
        close(words, case(words, function, first, count, kernel, stride, padding),
              (slide.start((first, first))[0], slide.extent((count, count))[0]))
    right("that is how one step down is counted.")
