"""TopK against a full sort of all activations: ties, zeros, batches, orders, parts."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import sorted_activations

from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.topk import NotFinite, TopK

pytestmark = pytest.mark.usefixtures("one_thread")


sizes = st.integers(1, 4)


@st.composite
def activations(draw):
    """Maps (N, U, H, W) of few different values, so that most are tied or not positive; and the images' numbers."""
    n, units, height, width = draw(st.integers(1, 12)), draw(sizes), draw(sizes), draw(sizes)
    values = draw(st.sampled_from([(-1.0, 0.0, 1.0), (0.0, 0.25, 0.5), (-2.0, -1.0, 0.0), (1.0,), (-0.0, 3.0, 1e-30)]))
    seed = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    maps = torch.tensor(values)[torch.randint(len(values), (n, units, height, width), generator=seed)]
    images = torch.randperm(50, generator=seed)[:n]
    return maps, images


@st.composite
def parts(draw, n):
    """The rows 0 … n−1 in any order, cut into batches."""
    order = draw(st.permutations(range(n)))
    cuts = sorted(draw(st.sets(st.integers(0, n), max_size=4)) | {0, n})
    return [torch.tensor(order[a:b], dtype=torch.long) for a, b in itertools.pairwise(cuts)]


def entries(top):
    """What a TopK holds, in the form of the oracle; checks that the rest of each row is empty."""
    found = []
    for values, images, positions in zip(top.values, top.images, top.positions, strict=True):
        number = int((values > 0).sum())
        assert values[number:].eq(0).all() and images[number:].eq(-1).all() and positions[number:].eq(-1).all()
        found.append([(v.item(), i.item(), tuple(p.tolist()))
                      for v, i, p in zip(values[:number], images[:number], positions[:number], strict=True)])
    return found


@settings(max_examples=300, deadline=None)
@given(st.data(), activations(), st.integers(1, 20), st.integers(1, 20))
def test_updates_in_any_batches_and_order_equal_a_full_sort(data, given_maps, k, per_image):
    maps, images = given_maps
    top = TopK(maps.shape[1], k)
    for rows in data.draw(parts(len(maps))):
        top.update(maps[rows], images[rows], per_image)
    assert entries(top) == sorted_activations(maps, images, k, per_image)


@settings(max_examples=200, deadline=None)
@given(st.data(), activations(), st.integers(1, 12), st.integers(1, 5))
def test_merged_parts_equal_a_full_sort(data, given_maps, k, per_image):
    maps, images = given_maps
    top = TopK(maps.shape[1], k)
    for rows in data.draw(parts(len(maps))):
        part = TopK(maps.shape[1], k)
        part.update(maps[rows], images[rows], per_image)
        top.merge(TopK.from_state(part.state()))
    assert entries(top) == sorted_activations(maps, images, k, per_image)


@pytest.mark.parametrize("per_image", [1, 1000])
def test_large_maps_with_many_ties(per_image):
    maps = torch.randint(0, 4, (3, 2, 40, 37), generator=torch.Generator().manual_seed(0)).float()
    top = TopK(2, 50)
    top.update(maps, torch.tensor([7, 3, 5]), per_image)
    assert entries(top) == sorted_activations(maps, [7, 3, 5], 50, per_image)


def test_shapes_dtypes_and_the_empty_entries():
    top = TopK(3, 9)
    assert top.values.shape == (3, 9) and top.values.dtype == torch.float32 and top.values.eq(0).all()
    assert top.images.shape == (3, 9) and top.images.dtype == torch.int64 and top.images.eq(-1).all()
    assert top.positions.shape == (3, 9, 2) and top.positions.dtype == torch.int64 and top.positions.eq(-1).all()


def test_a_flat_layer_has_position_zero():
    top = TopK(2, 3)
    top.update(torch.tensor([[1.0, 0.0], [2.0, -1.0]]), torch.tensor([4, 5]))
    assert entries(top) == [[(2.0, 5, (0, 0)), (1.0, 4, (0, 0))], []]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_values_keep_the_dtype_of_the_maps(dtype):
    maps = torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    top = TopK(2, 4, dtype)
    top.update(maps, torch.arange(5))
    assert top.values.dtype == dtype
    assert entries(top) == sorted_activations(maps, range(5), 4)


def test_maps_in_any_memory_layout():
    maps = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    top = TopK(3, 4)
    top.update(maps.to(memory_format=torch.channels_last), torch.arange(5))
    assert entries(top) == sorted_activations(maps, range(5), 4)


@pytest.mark.parametrize("per_image", [1, 3])
@settings(max_examples=100, deadline=None)
@given(activations(), st.integers(1, 20))
def test_ties_in_maps_that_lie_channels_last(per_image, given_maps, k):
    maps, images = given_maps
    top = TopK(maps.shape[1], k)
    top.update(maps.contiguous(memory_format=torch.channels_last), images, per_image)
    assert entries(top) == sorted_activations(maps, images, k, per_image)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_name_the_image(value):
    maps = torch.ones(4, 2, 3, 3)
    maps[2, 1, 0, 2] = value
    top = TopK(2, 9)
    with pytest.raises(NotFinite, match="image 12") as error:
        top.update(maps, torch.tensor([10, 11, 12, 13]))
    assert error.value.image == 12 and isinstance(error.value, DeconvnetError)
    assert entries(top) == [[], []]  # nothing of the batch was taken in


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_large_values_are_finite_though_their_sum_is_not(memory_format):
    maps = torch.full((4, 3, 5, 5), 3e38).contiguous(memory_format=memory_format)
    top = TopK(3, 2)
    top.update(maps, torch.arange(4))
    assert entries(top) == sorted_activations(maps, range(4), 2)
    maps[3, 1, 4, 4] = -float("inf")  # beside it the largest value is finite
    with pytest.raises(NotFinite, match="image 3"):
        top.update(maps, torch.arange(4))


def test_the_maps_are_left_alone():
    maps = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    before = maps.clone()
    TopK(2, 9).update(maps, torch.arange(4), 3)
    assert torch.equal(maps, before)


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="at least 1"):
        TopK(3, 0)
    with pytest.raises(UsageError, match="same"):
        TopK(3, 9).merge(TopK(3, 5))
    with pytest.raises(UsageError, match="shapes"):
        TopK.from_state({**TopK(3, 9).state(), "images": torch.zeros(3, 8)})
