"""Checks of notebook 2: pooling, and unpooling by switches."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from . import Wrong, case, close, right

Size = tuple[int, int]


def pool(function: Callable) -> None:
    """Checks ``pool(x, kernel, stride)`` → (pooled, switches)."""
    for words, x, kernel, stride in _maps():
        words = f"{words}, kernel {kernel}, stride {stride}"
        pooled, switches = _pair(words, case(words, function, x, kernel, stride))
        values, cells = _pool(x, kernel, stride)
        windows = _windows(x, kernel, stride)                        # (h, w, kernel, kernel)
        flat = windows.reshape(*windows.shape[:2], -1)
        inside = flat.argmax(-1)
        (h, w), (height, width) = cells.shape, x.shape
        y, across = cells // width, cells % width
        last = flat.shape[-1] - 1 - flat[..., ::-1].argmax(-1)
        i, j = np.mgrid[:h, :w] * stride
        close(f"{words}: the pooled values", pooled, values, mistakes={
            "the largest begins at 0, and here all are negative": values.clip(min=0),
            "windows that do not fit on the map are left out": _overhanging(x, kernel, stride),
            "the switches come first; the values are to come first": cells,
            "windows are laid end to end; they begin one stride apart": _pool(x, kernel, kernel)[0],
            "the mean is taken": windows.mean((2, 3)),
            "the smallest is taken": windows.min((2, 3))})
        close(f"{words}: the switches", switches, cells, mistakes={
            "the cells are counted within the window, not on the map": inside,
            "y is multiplied by the height of the map; a row is as long as the map is wide": y * height + across,
            "x is multiplied instead of y": across * width + y,
            "of equal values the last is taken; the first counts": (i + last // kernel) * width + j + last % kernel,
            "the cells are counted from 1": cells + 1})
    right("the largest value of each window, and where it stood.")


def unpool(function: Callable) -> None:
    """Checks ``unpool(signal, switches, size)`` where no two switches are equal."""
    for words, x, kernel, stride in _maps():
        if kernel == stride:
            _, switches = _pool(x, kernel, stride)
            signal = np.arange(1.0, 1 + switches.size).reshape(switches.shape)
            words = f"{words} was pooled, kernel {kernel}, stride {stride}"
            _unpooled(function, words, signal, switches, x.shape)
            _unpooled(function, f"{words}, a signal with fractions", signal + 0.5, switches, x.shape)
    right("each value is where the maximum was.")


def unpool_summed(function: Callable) -> None:
    """Checks ``unpool_summed(signal, switches, size)`` where windows share their maximum."""
    peak = np.zeros((5, 5))
    peak[2, 2] = 1
    given = [("a peak that four windows share", peak, 3, 2), *_maps()]
    for words, x, kernel, stride in given:
        _, switches = _pool(x, kernel, stride)
        signal = np.roll(np.arange(1.0, 1 + switches.size), 1).reshape(switches.shape)  # the last is not the largest
        words = f"{words}, kernel {kernel}, stride {stride}"
        _unpooled(function, words, signal, switches, x.shape)
        _unpooled(function, f"{words}, a signal below zero", -signal, switches, x.shape)
        _unpooled(function, f"{words}, a signal with fractions", signal + 0.5, switches, x.shape)
    right("values that meet are added; that is the exact transpose of pooling.")


def picking_matrix(function: Callable) -> None:
    """Checks ``picking_matrix(switches, size)`` → (h·w, H·W) of zeros and ones."""
    for words, x, kernel, stride in _maps():
        _, switches = _pool(x, kernel, stride)
        words = f"{words}, kernel {kernel}, stride {stride}"
        expected = np.eye(x.size)[switches.ravel()]                  # (h·w, H·W)
        swapped = (switches % x.shape[1]) * x.shape[0] + switches // x.shape[1]
        close(words, case(words, function, switches, x.shape), expected, mistakes={
            "it is transposed; a row for each pooled value": expected.T,
            "a single row holds all the ones; each pooled value has its own": expected.sum(0, keepdims=True),
            "every row holds the ones of all; row i has only that of value i": expected.max(0) + 0 * expected,
            "the cells are counted column by column": np.eye(x.size)[swapped.ravel()],
            "each row sums to 1 over its window; a picking takes one cell whole": expected / kernel ** 2})
    right("A @ x picks the maxima, and its transpose puts them back and adds.")


def share_of_shared(function: Callable) -> None:
    """Checks ``share_of_shared(switches)`` → 0 … 1."""
    for switches in [[[3, 3, 5], [9, 9, 9]], [[1, 5], [5, 10]], [[12, 12], [12, 12]], [[0, 2], [8, 10]]]:
        found = np.array(switches)
        counts = np.unique(found, return_counts=True)[1]
        words = f"switches {switches}"
        close(words, case(words, function, found), counts[counts > 1].sum() / found.size, mistakes={
            "cells are counted; count the values that go there": (counts > 1).sum() / found.size,
            "the first of those that share is left out": 1 - len(counts) / found.size,
            "that is the share of those that do not": (counts == 1).sum() / found.size,
            "that is the share of the different switches; the share of the values was asked for": (counts > 1).mean(),
            "len(switches) is the number of its rows; switches.size counts its values":
                counts[counts > 1].sum() / len(found),
            "that is how many, not which share": counts[counts > 1].sum(),
            "that is a percentage; a share is 0 … 1": 100 * counts[counts > 1].sum() / found.size})
    right("so many values share their switch with another.")


def _maps() -> Iterator[tuple[str, np.ndarray, int, int]]:
    """What is pooled: the case in words, the map, kernel and stride; the most telling first."""
    random = np.random.default_rng(0)
    yield "the 4×4 map above", np.array([[3, 9, 1, 2], [5, 4, 0, 7], [6, 12, 15, 10], [11, 8, 13, 14]]), 2, 2
    yield "a 4×6 map", random.permutation(24).reshape(4, 6), 2, 2
    yield "a 7×5 map", random.permutation(35).reshape(7, 5), 3, 2
    yield "a 5×5 map, which 2×2 windows do not fill", random.permutation(25).reshape(5, 5), 2, 2
    yield "a 6×8 map, which 3×3 windows two apart do not fill", random.permutation(48).reshape(6, 8), 3, 2
    yield "a map of negative values", random.permutation(24).reshape(6, 4) - 30, 2, 2
    yield "a map with equal values", np.array([[0, 0, 3, 3], [0, 0, 3, 1], [2, 5, 0, 4], [5, 5, 4, 4]]), 2, 2


def _unpooled(function: Callable, words: str, signal: np.ndarray, switches: np.ndarray, size: Size) -> None:
    height, width = size
    summed = np.zeros(height * width)
    np.add.at(summed, switches.ravel(), signal.ravel())
    last, largest, mean = summed.copy(), np.full(height * width, -np.inf), summed.copy()
    last[switches.ravel()] = signal.ravel()
    np.maximum.at(largest, switches.ravel(), signal.ravel())
    largest[np.isinf(largest)] = 0
    counts = np.bincount(switches.ravel(), minlength=height * width)
    mean = summed / counts.clip(min=1)
    swapped = np.zeros(height * width)
    np.add.at(swapped, (switches % width) * width + switches // width if height == width else switches, signal)
    whole = np.zeros(height * width)
    np.add.at(whole, switches.ravel(), np.trunc(signal.ravel()))
    given = case(words, function, signal, switches, size)
    maps = {"values that meet are written over each other; add them": last,
            "of values that meet the largest is kept; add them": largest,
            "of values that meet the mean is taken; add them": mean,
            "what lies below zero is lost; a signal keeps its sign here": summed.clip(min=0),
            "fractions are cut off; make the map of floats, not of whole numbers": whole,
            "y and x are exchanged": swapped}
    mistakes: dict[str, Any] = {cause: out.reshape(size) for cause, out in maps.items()}
    mistakes["it is still flat; give it the shape of the map"] = summed
    mistakes["the values fill their windows; each goes to one cell only"] = _filled(signal, size)
    mistakes["the values stand at the first cell of their windows; look at the switches"] = _first(signal, size)
    close(words, given, summed.reshape(size), mistakes)


def _filled(signal: np.ndarray, size: Size) -> np.ndarray | None:
    """Each value in a whole block, where the blocks fill the map."""
    steps = size[0] // signal.shape[0], size[1] // signal.shape[1]
    out = signal.repeat(steps[0], 0).repeat(steps[1], 1)
    return out if out.shape == tuple(size) else None


def _first(signal: np.ndarray, size: Size) -> np.ndarray:
    """Each value at the first cell of its block."""
    out = np.zeros(size)
    step = size[0] // signal.shape[0]
    out[:step * signal.shape[0]:step, :step * signal.shape[1]:step] = signal
    return out


def _pair(words: str, given: Any) -> tuple[Any, Any]:
    try:
        if isinstance(given, np.ndarray | torch.Tensor) and given.ndim < 3:  # it might fall into two rows
            raise TypeError
        pooled, switches = given
    except (TypeError, ValueError):
        raise Wrong(f"{words}: {given!r} came; expected were two arrays, the pooled values and the switches.") from None
    return pooled, switches


def _pool(x: np.ndarray, kernel: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The library's own way: (h, w) values and switches."""
    pooled, switches = F.max_pool2d(torch.tensor(x[None]).float(), kernel, stride, return_indices=True)
    return pooled[0].numpy(), switches[0].numpy()


def _overhanging(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """The largest value of every window that begins on the map, also of those that reach over its end."""
    return np.array([[x[i:i + kernel, j:j + kernel].max() for j in range(0, x.shape[1], stride)]
                     for i in range(0, x.shape[0], stride)])


def _windows(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """All windows (h, w, kernel, kernel)."""
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel))[::stride, ::stride]
