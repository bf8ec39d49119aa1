"""The checks of notebook 1 accept its solutions and reject what students write first."""

import numpy as np
import pytest
from answers import answers, refused

from deconvnet.course import sees
from deconvnet.patches import cut

NAMES = ["cells_below", "trace", "patch", "strongest", "project_first_layer"]


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_right(name, capsys):
    getattr(sees, name)(answers("1_what_a_unit_sees")[name])
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize(("wrong", "words"), {
    "no padding": (lambda f, n, k, s, p: (f * s, (n - 1) * s + k), "padding is not counted"),
    "padding added": (lambda f, n, k, s, p: (f * s + p, (n - 1) * s + k), "padding is added"),
    "end to end": (lambda f, n, k, s, p: (f * s - p, n * k), "end to end"),
    "end to end, no padding": (lambda f, n, k, s, p: (f * s, n * k), "padding is not counted, and windows"),
    "not what lies between": (lambda f, n, k, s, p: (f * s - p, len({s * i + j for i in range(n) for j in range(k)})),
                              "between two windows belong"),
    "one stride too many": (lambda f, n, k, s, p: (f * s - p, n * s + k), "one stride too many"),
    "no kernel": (lambda f, n, k, s, p: (f * s - p, n * s), "without the length of the last window"),
    "the last cell": (lambda f, n, k, s, p: (f * s - p, f * s - p + (n - 1) * s + k - 1), "last cell instead"),
    "the end": (lambda f, n, k, s, p: (f * s - p, f * s - p + (n - 1) * s + k), "end instead of how many"),
    "only the first": (lambda f, n, k, s, p: f * s - p, r"shape \(\) came; expected was \(2,\)"),
    "kernel for stride": (lambda f, n, k, s, p: (f * k - p, (n - 1) * s + k), "expected was"),
    "no return": (lambda f, n, k, s, p: None, "Does it end in return"),
}.values())
def test_cells_below(wrong, words):
    refused(sees.cells_below, wrong, words)


def down(layers, cell, padded=1):
    first, count = cell, 1
    for kernel, stride, padding in layers:
        first, count = first * stride - padded * padding, (count - 1) * stride + kernel
    return first, count


@pytest.mark.parametrize(("wrong", "words"), {
    "upwards": (down, "walked from the image up"),
    "no padding": (lambda layers, cell: down(layers[::-1], cell, 0), "padding is not counted"),
    "top layer only": (lambda layers, cell: down(layers[-1:], cell), "own layer only"),
    "without the top layer": (lambda layers, cell: down(layers[:-1][::-1], cell), "the last layer is left out"),
    "without the first layer": (lambda layers, cell: down(layers[1:][::-1], cell), "the first layer is left out"),
    "cell 0": (lambda layers, cell: down(layers[::-1], 0), "which cell was asked for"),
    "the cell for the layer": (lambda layers, cell: layers[cell], "raised IndexError"),
    "the last pixel": (lambda layers, cell: (down(layers[::-1], cell)[0], sum(down(layers[::-1], cell)) - 1),
                       "last pixel instead"),
    "the end": (lambda layers, cell: (down(layers[::-1], cell)[0], sum(down(layers[::-1], cell))), "the end instead"),
    "every step from the top": (lambda layers, cell: (down(layers[:1], cell)[0], down(layers[::-1], cell)[1]),
                                "the step above gave"),
    "the size alone": (lambda layers, cell: down(layers[::-1], cell)[1], r"shape \(\) came"),
}.values())
def test_trace(wrong, words):
    refused(sees.trace, wrong, words)


def window(image, y, x, h, w, outside):
    out = np.full((h, w, 3), outside, dtype=np.uint8)
    piece = image[max(y, 0):max(y + h, 0), max(x, 0):max(x + w, 0)]
    return out, piece


def black(image, y, x, h, w):
    out = cut(image, (y, x), (h, w))
    out[cut(np.ones_like(image), (y, x), (h, w)) == 128] = 0
    return out


def in_the_corner(image, y, x, h, w):
    out, piece = window(image, y, x, h, w, 128)
    out[:piece.shape[0], :piece.shape[1]] = piece
    return out


def repeated(image, y, x, h, w):
    return image[np.clip(np.arange(y, y + h), 0, 5)][:, np.clip(np.arange(x, x + w), 0, 7)]


@pytest.mark.parametrize(("wrong", "words"), {
    "black": (black, "would look black"),
    "in the corner": (in_the_corner, "lies in the corner of the patch"),
    "moved": (lambda image, y, x, h, w: cut(image, (max(y, 0), max(x, 0)), (h, w)), "moved into the image"),
    "a list": (lambda image, y, x, h, w: cut(image, (y, x), (h, w)).tolist(), "in a list; a picture is a NumPy array"),
    "smaller": (lambda image, y, x, h, w: window(image, y, x, h, w, 0)[1], "every patch keeps its size"),
    "a plain slice": (lambda image, y, x, h, w: image[y:y + h, x:x + w], "counts from the far end"),
    "x before y": (lambda image, y, x, h, w: cut(image, (x, y), (h, w)), "y and x are exchanged"),
    "repeated": (repeated, "the border is repeated"),
    "floats": (lambda image, y, x, h, w: cut(image, (y, x), (h, w)).astype(float), "of type float64"),
}.values())
def test_patch(wrong, words):
    refused(sees.patch, wrong, words)


def sorted_places(maps, k, key):
    found = [(n, *map(int, np.unravel_index(one.argmax(), one.shape))) for n, one in enumerate(maps) if one.max() > 0]
    return sorted(found, key=key(maps))[:k]


def by_value(maps):
    return lambda place: -maps[place]


@pytest.mark.parametrize(("wrong", "words"), {
    "weakest first": (lambda maps, k: sorted_places(maps, 99, by_value)[::-1][:k], "weakest stands first"),
    "in order": (lambda maps, k: sorted(sorted_places(maps, k, by_value)), "order of the photographs"),
    "the first": (lambda maps, k: sorted_places(maps, k, lambda maps: lambda place: place[0]), "first photographs"),
    "x before y": (lambda maps, k: [(n, x, y) for n, y, x in sorted_places(maps, k, by_value)], "x stands before y"),
    "several of one": (lambda maps, k: [np.unravel_index(n, maps.shape) for n in np.argsort(-maps, axis=None)[:k]],
                       "more than once"),
    "silent ones too": (lambda maps, k: [(n, *map(int, np.unravel_index(maps[n].argmax(), maps[n].shape)))
                                         for n in np.argsort(-maps.max((1, 2)))[:k]], "0 is no activation"),
    "values": (lambda maps, k: sorted(maps.max((1, 2)))[::-1][:k], r"expected was a list of \(image, y, x\)"),
    "no return": (lambda maps, k: None, r"None came; expected was a list"),
    "one too few": (lambda maps, k: sorted_places(maps, k - 1, by_value), "2 came; expected were 3"),
}.values())
def test_strongest(wrong, words):
    refused(sees.strongest, wrong, words)


@pytest.mark.parametrize(("wrong", "words"), {
    "flipped": (lambda filters, unit, a: a * filters[unit].flip(1, 2), "upside down"),
    "not scaled": (lambda filters, unit, a: filters[unit], "activation is left out"),
    "all filters": (lambda filters, unit, a: a * filters.sum(0), "all filters are added up"),
    "rectified": (lambda filters, unit, a: (a * filters[unit]).clamp(min=0), "pixels stay signed"),
    "grey": (lambda filters, unit, a: (a * filters[unit]).sum(0), "shape"),
    "unit 0": (lambda filters, unit, a: a * filters[0], "unit is not looked at"),
}.values())
def test_project_first_layer(wrong, words):
    refused(sees.project_first_layer, wrong, words)
