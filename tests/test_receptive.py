"""Receptive-field arithmetic against counting."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deconvnet.receptive import Box, Field, Sliding, Spreading, pair

pairs = st.tuples(st.integers(1, 7), st.integers(1, 7))
boxes = st.builds(Box, st.tuples(st.integers(-9, 9), st.integers(-9, 9)), pairs)
slidings = st.builds(Sliding, pairs, pairs, st.tuples(st.integers(0, 3), st.integers(0, 3)), pairs)


def cells(box):
    return set(itertools.product(*(range(s, s + n) for s, n in zip(*box, strict=True))))


def hull(cells):
    lows, highs = (tuple(map(f, zip(*cells, strict=True))) for f in (min, max))
    return Box(lows, tuple(h - low + 1 for low, h in zip(lows, highs, strict=True)))


def looked_at(slide, y, x):
    """The input cells of one output cell, tap by tap."""
    return {(y * slide.stride[0] - slide.padding[0] + i * slide.dilation[0],
             x * slide.stride[1] - slide.padding[1] + j * slide.dilation[1])
            for i, j in itertools.product(*map(range, slide.kernel))}


@pytest.mark.parametrize(("given", "expected"), [(3, (3, 3)), ((3, 5), (3, 5)), ([3, 5], (3, 5)), ((4,), (4, 4))])
def test_a_pair_is_made_of_one_number_or_two(given, expected):
    assert pair(given) == expected


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(slidings, boxes)
def test_the_box_below_is_the_hull_of_what_its_cells_look_at(slide, box):
    assert slide.below(box) == hull(set().union(*(looked_at(slide, *cell) for cell in cells(box))))


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(slidings, boxes)
def test_the_box_below_what_was_spread_is_the_hull_of_the_cells_that_reach_it(slide, box):
    spread = Spreading(slide.kernel, slide.stride, slide.padding, slide.dilation)
    below = spread.below(box)
    for axis in (0, 1):
        first, size = below.start[axis], below.size[axis]
        wanted = range(box.start[axis], box.start[axis] + box.size[axis])
        reaching = [cell for cell in range(-60, 60) if any(
            cell * slide.stride[axis] - slide.padding[axis] + tap * slide.dilation[axis] in wanted
            for tap in range(slide.kernel[axis]))]
        assert size <= spread.extent(box.size)[axis]
        assert all(first <= cell < first + size for cell in reaching)
        if slide.dilation[axis] == 1 and slide.kernel[axis] >= slide.stride[axis]:  # else there may be gaps
            assert reaching == list(range(first, first + size))


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(boxes, boxes)
def test_the_union_is_the_hull_of_both(one, other):
    assert one.union(other) == other.union(one) == hull(cells(one) | cells(other))


def test_a_field_moves_by_its_stride_and_starts_in_the_padding():
    field = Field((7, 5), (2, 3), (-1, 0))
    assert field.box(0, 0) == Box((-1, 0), (7, 5))
    assert field.box(4, 2) == Box((7, 6), (7, 5))


def test_a_convolution_without_stride_and_padding_stands_still():
    assert Sliding().below(Box((3, -2), (4, 5))) == Box((3, -2), (4, 5))
