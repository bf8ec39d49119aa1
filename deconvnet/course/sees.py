"""Checks of notebook 1: what a unit sees."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..patches import cut
from ..receptive import Sliding
from . import Wrong, case, close, right

Layers = Sequence[tuple[int, int, int]]


def cells_below(function: Callable) -> None:
    """Checks ``cells_below(first, count, kernel, stride, padding)`` → (first, count), one step down."""
    for first, count, kernel, stride, padding in [(3, 4, 5, 2, 1), (0, 1, 3, 2, 1), (1, 1, 3, 2, 1), (0, 1, 7, 2, 0),
                                                  (4, 3, 5, 2, 2), (5, 4, 3, 1, 1), (2, 3, 2, 3, 0)]:
        begin, last = first * stride - padding, (count - 1) * stride + kernel
        words = (f"first {first}, count {count}, kernel {kernel}, stride {stride}, padding {padding}: "
                 "(the first cell below, how many)")
        beside = "cells that lie between two windows belong to the stretch too" if kernel < stride else (
            "windows are laid end to end; they begin one stride apart")
        given = case(words, function, first, count, kernel, stride, padding)
        close(words, given, _below([(kernel, stride, padding)], first, count), mistakes={
            "the padding is not counted; cell 0 begins at −padding": (first * stride, last),
            "the padding is added, and should be subtracted": (first * stride + padding, last),
            beside: (begin, count * kernel),
            "the padding is not counted, and windows are laid end to end": (first * stride, count * kernel),
            "one stride too many: between count cells there are count − 1 steps": (begin, count * stride + kernel),
            "the cells are counted without the length of the last window": (begin, count * stride),
            "that is the last cell instead of how many": (begin, begin + last - 1),
            "that is the end instead of how many": (begin, begin + last)})
    right("that is what neighbouring cells look at, one step down.")


def trace(function: Callable) -> None:
    """Checks ``trace(layers, cell)`` → (first pixel, how many pixels)."""
    zfnet = [(7, 2, 1), (3, 2, 0), (5, 2, 0), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    for layers, cell in [(zfnet[:3], 3), ([], 4), ([(3, 2, 1)], 2), (zfnet[:2], 0), (zfnet[:3], 13), (zfnet[:5], 0),
                         (zfnet, 6), ([(11, 4, 2), (3, 2, 0), (5, 1, 2)], 3)]:
        words = f"layers {layers}, cell {cell}: (first pixel, pixels)"
        begin, pixels = _below(layers, cell)
        close(words, case(words, function, layers, cell), _below(layers, cell), mistakes={
            "the layers are walked from the image up; begin with the last": _below(layers[::-1], cell),
            "the padding is not counted": _below([(k, s, 0) for k, s, _ in layers], cell),
            "the cell is stepped down through its own layer only": _below(layers[-1:], cell),
            "the last layer is left out": _below(layers[:-1], cell),
            "the first layer is left out": _below(layers[1:], cell),
            "that is the last pixel instead of how many": (begin, begin + pixels - 1),
            "that is the end instead of how many": (begin, begin + pixels),
            "each step begins at the cell that was asked for; begin at the one that the step above gave":
                (_below(layers[:1], cell)[0], pixels),
            "it begins at cell 0 and forgets which cell was asked for": _below(layers, 0)})
    right(f"one activation of conv5 sees {_below(zfnet, 6)[1]} pixels, and cell 0 begins at {_below(zfnet, 0)[0]}.")


def patch(function: Callable) -> None:
    """Checks ``patch(image, top, left, height, width)`` → (height, width, 3) uint8, 128 outside."""
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    for words, (top, left, height, width) in {
            "inside the image": (1, 2, 3, 4), "over the top and left border": (-2, -1, 4, 4),
            "over the bottom and right border": (4, 6, 4, 5), "larger than the image": (-2, -3, 11, 13),
            "wholly outside the image": (-5, 2, 3, 3), "below the image": (9, 2, 3, 3)}.items():
        where = f"{words}: {height}×{width} from ({top}, {left}) of a 6×8 image"
        expected = cut(image, (top, left), (height, width))
        black = np.where(cut(np.ones_like(image), (top, left), (height, width)) == 1, expected, 0)
        corner = np.full_like(expected, 128)
        piece = image[max(top, 0):max(top + height, 0), max(left, 0):max(left + width, 0)]
        corner[:piece.shape[0], :piece.shape[1]] = piece
        given = case(where, function, image, top, left, height, width)
        close(where, given, expected, mistakes={
            "the outside is 0, which would look black; mid-grey is 128": black,
            "the piece lies in the corner of the patch; leave as much grey before it as the window reaches over":
                corner,
            "the piece is moved into the image; leave as much grey before it as the window reaches over":
                cut(image, (max(top, 0), max(left, 0)), (height, width)),
            "the part outside is cut off; every patch keeps its size": piece,
            "a negative index counts from the far end": image[top:top + height, left:left + width],
            "y and x are exchanged": cut(image, (left, top), (height, width)),
            "the border is repeated; outside there is no photograph": image[
                np.clip(np.arange(top, top + height), 0, 5)][:, np.clip(np.arange(left, left + width), 0, 7)]})
        if not isinstance(given, np.ndarray):
            raise Wrong(f"{where}: the values are right, but in a {type(given).__name__}; a picture is a NumPy array.")
        if given.dtype != np.uint8:
            raise Wrong(f"{where}: the values are right, but of type {given.dtype}; a picture is uint8.")
    right("every patch has its size, and what lies outside the photograph is grey.")


def strongest(function: Callable) -> None:
    """Checks ``strongest(maps, k)`` → [(image, y, x), …], strongest first."""
    random = np.random.default_rng(0).permutation(6 * 4 * 5).reshape(6, 4, 5) + 1.0
    silent = random.copy()
    silent[[1, 4]] = 0
    for words, maps, k in [("six maps of 4×5, k = 3", random, 3), ("k = 9 and only six maps", random, 9),
                           ("a unit that is silent in photographs 1 and 4", silent, 6),
                           ("a unit that never fires", np.zeros((3, 4, 5)), 2)]:
        given, expected = _places(words, case(words, function, maps, k)), _strongest(maps, k)
        if len({place[0] for place in given}) < len(given):
            raise Wrong(f"{words}: {given} came, and one photograph is there more than once. Expected was {expected}.")
        if len(given) != len(expected):
            zero = " A value of 0 is no activation." if len(given) > len(expected) else ""
            raise Wrong(f"{words}: {len(given)} came; expected were {len(expected)}: {expected}.{zero}")
        close(f"{words}: (image, y, x)", given, expected, mistakes={
            "the weakest stands first; sort descending": _strongest(maps, maps.size)[::-1][:k],
            "they stand in the order of the photographs; sort by the activation": sorted(expected),
            "these are the first photographs, not the strongest": sorted(_strongest(maps, len(maps)))[:k],
            "x stands before y": [(n, x, y) for n, y, x in expected]})
    right("one activation for each photograph, the strongest first, and none where the unit is silent.")


def project_first_layer(function: Callable) -> None:
    """Checks ``project_first_layer(filters, unit, activation)`` → (3, 7, 7)."""
    filters = torch.randn(6, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    for unit, activation in [(0, 1.0), (4, 2.5), (5, 0.0)]:
        one, words = filters[unit], f"unit {unit}, activation {activation}"
        given = case(words, function, filters, unit, activation)
        turned = activation * one.flip(1, 2)
        close(words, given, activation * one, mistakes={
            "the filter is turned upside down; a pixel gets the weight by which it came": turned,
            "the activation is left out": one,
            "all filters are added up; only this unit's has a part": activation * filters.sum(0),
            "a ReLU is applied; pixels stay signed": (activation * one).clamp(min=0),
            "the colours are added up": (activation * one).sum(0),
            "unit is not looked at": activation * filters[0]})
    right("a projection of layer 1 is the unit's filter times its activation.")


def _below(layers: Layers, first: int, count: int = 1) -> tuple[int, int]:
    """The first and how many of the cells under the layers, from the image up, that ``count`` cells look at."""
    for kernel, stride, padding in reversed(layers):
        slide = Sliding((kernel, 1), (stride, 1), (padding, 0))
        first, count = slide.start((first, 0))[0], slide.extent((count, 1))[0]
    return first, count


def _places(words: str, given: Any) -> list[tuple[int, int, int]]:
    try:
        return [(int(image), int(y), int(x)) for image, y, x in given]
    except (TypeError, ValueError):
        raise Wrong(f"{words}: {given!r} came; expected was a list of (image, y, x).") from None


def _strongest(maps: np.ndarray, k: int) -> list[tuple[int, int, int]]:
    """By sorting all activations, and skipping those of photographs that are there already."""
    found: dict[int, tuple[int, int, int]] = {}
    for number in np.argsort(-maps, axis=None, kind="stable"):
        image, y, x = map(int, np.unravel_index(number, maps.shape))
        if maps[image, y, x] > 0:
            found.setdefault(image, (image, y, x))
    return list(found.values())[:k]
