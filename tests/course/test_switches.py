"""The checks of notebook 2 accept its solutions and reject what students write first."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import answers, refused

from deconvnet.course import switches

NAMES = ["pool", "unpool", "unpool_summed", "picking_matrix", "share_of_shared"]
SOLVED = answers("2_switches")


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_right(name, capsys):
    getattr(switches, name)(SOLVED[name])
    assert capsys.readouterr().out.startswith("Right: ")


def pooled(x, kernel, stride):
    values, cells = F.max_pool2d(torch.tensor(x[None]).float(), kernel, stride, return_indices=True)
    return values[0].numpy(), cells[0].numpy()


def changed(how):
    """A pooling whose switches are changed: ``how(y, x, map)``."""
    def pool(x, kernel, stride):
        values, cells = pooled(x, kernel, stride)
        return values, how(cells // x.shape[1], cells % x.shape[1], x)
    return pool


def within_the_window(x, kernel, stride):
    values, cells = pooled(x, kernel, stride)
    i, j = np.mgrid[:values.shape[0], :values.shape[1]] * stride
    return values, (cells // x.shape[1] - i) * kernel + cells % x.shape[1] - j


def last_of_equals(x, kernel, stride):
    values, cells = pooled(x[::-1, ::-1].copy(), kernel, stride)
    if (x.shape[0] - kernel) % stride or (x.shape[1] - kernel) % stride:  # turned round, other windows do not fit
        return pooled(x, kernel, stride)
    return values[::-1, ::-1], (x.size - 1 - cells)[::-1, ::-1]


def over_the_border(x, kernel, stride):
    """As many windows as strides fit, which is right for the maps where kernel and stride are equal."""
    values, cells = F.max_pool2d(torch.tensor(x[None]).float(), kernel, stride, ceil_mode=True, return_indices=True)
    return [a[0, :x.shape[0] // stride, :x.shape[1] // stride].numpy() for a in (values, cells)]


@pytest.mark.parametrize(("wrong", "words"), {
    "within the window": (within_the_window, "within the window, not on the map"),
    "times the height": (changed(lambda y, x, m: y * m.shape[0] + x), "multiplied by the height"),
    "x times the width": (changed(lambda y, x, m: x * m.shape[1] + y), "x is multiplied instead of y"),
    "from 1": (changed(lambda y, x, m: y * m.shape[1] + x + 1), "counted from 1"),
    "from zero up": (lambda x, k, s: (pooled(x, k, s)[0].clip(min=0), pooled(x, k, s)[1]), "all are negative"),
    "the last of equals": (last_of_equals, "the last is taken; the first counts"),
    "the stride forgotten": (lambda x, k, s: pooled(x, k, k), r"shape \(2, 1\) came; expected was \(3, 2\)"),
    "ceil": (lambda x, k, s: [a[0].numpy() for a in F.max_pool2d(torch.tensor(x[None]).float(), k, s, ceil_mode=True,
                                                                return_indices=True)], r"expected was \(2, 2\)"),
    "the mean": (lambda x, k, s: (F.avg_pool2d(torch.tensor(x[None]).float(), k, s)[0], 0), "the mean is taken"),
    "no switches": (lambda x, k, s: pooled(x, k, s)[0], "expected were two arrays"),
    "no switches, flat": (lambda x, k, s: pooled(x, k, s)[0].ravel(), "expected were two arrays"),
    "switches first": (lambda x, k, s: pooled(x, k, s)[::-1], "the values are to come first"),
    "the kernel forgotten": (over_the_border, "6×8 map.*(?s:.*)windows that do not fit on the map are left out"),
}.values())
def test_pool(wrong, words):
    refused(switches.pool, wrong, words)


def flat(signal, cells, size):
    out = np.zeros(size[0] * size[1])
    np.add.at(out, cells.ravel(), signal.ravel())
    return out


def exchanged(signal, cells, size):
    out = np.zeros(size)
    for value, cell in zip(signal.flat, cells.flat, strict=True):
        y, x = divmod(int(cell), size[1])
        out[x, y] += value
    return out


def in_blocks(signal, cells, size):
    return signal.repeat(size[0] // len(signal), 0).repeat(size[1] // len(signal[0]), 1)


def at_the_corner(signal, cells, size):
    out = np.zeros(size)
    out[::size[0] // len(signal), ::size[1] // len(signal[0])] = signal
    return out


def by_the_height(signal, cells, size):
    out = np.zeros(size)
    for value, cell in zip(signal.flat, cells.flat, strict=True):
        y, x = divmod(int(cell), size[0])
        out[y, x] += value
    return out


def in_whole_numbers(signal, cells, size):
    out = np.zeros(size, int)
    for value, cell in zip(signal.flat, cells.flat, strict=True):
        y, x = divmod(int(cell), size[1])
        out[y, x] += value
    return out


@pytest.mark.parametrize("check", [switches.unpool, switches.unpool_summed])
@pytest.mark.parametrize(("wrong", "words"), {
    "flat": (flat, "still flat"),
    "x before y": (exchanged, "y and x are exchanged|raised IndexError"),
    "divided by the height": (by_the_height, r"raised IndexError: .*line \d+"),
    "nothing": (lambda signal, cells, size: None, "Does it end in return"),
    "whole numbers": (in_whole_numbers, "with fractions.*(?s:.*)fractions are cut off"),
}.values())
def test_unpool_both(check, wrong, words):
    refused(check, wrong, words)


@pytest.mark.parametrize(("wrong", "words"), {
    "blocks": (in_blocks, "fill their windows"), "corner": (at_the_corner, "at the first cell"),
    "the signal itself": (lambda signal, cells, size: signal, r"expected was \(4, 4\)")}.values())
def test_unpool(wrong, words):
    refused(switches.unpool, wrong, words)


def largest(signal, cells, size):
    out = np.full(size[0] * size[1], -np.inf)
    np.maximum.at(out, cells.ravel(), signal.ravel())
    return np.where(np.isinf(out), 0, out).reshape(size)


def one_line(signal, cells, size):
    out = np.zeros(size[0] * size[1])
    out[cells.ravel()] += signal.ravel()
    return out.reshape(size)


@pytest.mark.parametrize(("wrong", "words"), {
    "exercise 2 again": (SOLVED["unpool"], "written over each other"),
    "one line": (one_line, "written over each other"),
    "the largest": (largest, "the largest is kept"),
    "the mean": (lambda signal, cells, size: (flat(signal, cells, size) / np.bincount(
        cells.ravel(), minlength=size[0] * size[1]).clip(min=1)).reshape(size), "the mean is taken"),
    "rectified": (lambda signal, cells, size: flat(signal, cells, size).clip(min=0).reshape(size), "below zero is"),
}.values())
def test_unpool_summed(wrong, words):
    refused(switches.unpool_summed, wrong, words)


def matrix(cells, size):
    return np.eye(size[0] * size[1])[cells.ravel()]


@pytest.mark.parametrize(("wrong", "words"), {
    "transposed": (lambda cells, size: matrix(cells, size).T, "it is transposed"),
    "one row": (lambda cells, size: matrix(cells, size).sum(0, keepdims=True), "each pooled value has its own"),
    "by columns": (lambda cells, size: matrix(cells % size[1] * size[0] + cells // size[1], size), "column by column"),
    "all in every row": (lambda cells, size: matrix(cells, size).max(0) + np.zeros((cells.size, 1)), "every row holds"),
    "means": (lambda cells, size: matrix(cells, size) / 4, "takes one cell whole"),
    "a map": (lambda cells, size: matrix(cells, size).sum(0).reshape(size), "shape"),
}.values())
def test_picking_matrix(wrong, words):
    refused(switches.picking_matrix, wrong, words)


def counts(cells):
    return np.unique(cells, return_counts=True)[1]


@pytest.mark.parametrize(("wrong", "words"), {
    "cells": (lambda cells: (counts(cells) > 1).sum() / cells.size, "cells are counted"),
    "duplicates": (lambda cells: 1 - len(counts(cells)) / cells.size, "the first of those that share is"),
    "not": (lambda cells: (counts(cells) == 1).sum() / cells.size, "expected was|those that do not"),
    "cells by cells": (lambda cells: (counts(cells) > 1).mean(), "share of the different switches"),
    "by the rows": (lambda cells: counts(cells)[counts(cells) > 1].sum() / len(cells), "number of its rows"),
    "how many": (lambda cells: counts(cells)[counts(cells) > 1].sum(), "how many, not which share"),
    "per cent": (lambda cells: 100 * counts(cells)[counts(cells) > 1].sum() / cells.size, "a share is 0 … 1"),
}.values())
def test_share_of_shared(wrong, words):
    refused(switches.share_of_shared, wrong, words)
