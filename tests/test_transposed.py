"""Transposed convolution: whichever way is taken, torch's result; and which one is taken."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deconvnet import transposed
from deconvnet.receptive import Sliding
from deconvnet.transposed import convolve_transposed


def some(n, channels, h, w, share, dtype=torch.float64):
    """Values of which about that share is not zero, as ReLU and unpooling leave them, negative ones too."""
    return torch.randn(n, channels, h, w, dtype=dtype) * (torch.rand(n, channels, h, w) < share)


@pytest.fixture(params=["_in_phases", "_of_nonzero", "conv_transpose2d"])
def only(request, monkeypatch):
    """One way, all others failing."""
    ways = {"_in_phases": transposed, "_of_nonzero": transposed, "conv_transpose2d": F}
    for name, where in ways.items():
        if name != request.param:
            monkeypatch.setattr(where, name, lambda *_, **__: pytest.fail("the wrong way"))
    return request.param


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=500, deadline=None)
@given(st.tuples(st.integers(1, 11), st.integers(1, 11)), pairs, st.just((1, 1)) | pairs, st.integers(1, 7),
       st.integers(1, 7), st.integers(1, 8), st.sampled_from([1, 1, 1, 2]), st.sampled_from([0, 0.02, 0.1, 0.3, 1]))
def test_every_way_gives_what_torch_gives(kernel, stride, dilation, h, w, channels, groups, share):
    values = some(3, 6, h, w, share)
    weight = torch.randn(6, channels, *kernel, dtype=torch.float64)
    expected = F.conv_transpose2d(values, weight, stride=stride, dilation=dilation, groups=groups)
    with patch.multiple(transposed, CHANNELS=1, ROW=1, SAMPLED=1):  # so that small ones go every way
        found = convolve_transposed(values, weight, Sliding(kernel, stride, (2, 3), dilation), groups)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous() or channels <= transposed.NARROW  # the steps below are slower on other layouts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 9])
@pytest.mark.parametrize("dilation", [1, 3])
def test_where_little_is_not_zero_only_that_is_looked_up(size, dtype, dilation):
    values, weight = some(4, 64, size, size, 0.05, dtype), torch.randn(64, 32, 5, 5, dtype=dtype)
    expected = F.conv_transpose2d(values, weight, stride=2, dilation=dilation)
    found = transposed._of_nonzero(values, weight, Sliding((5, 5), (2, 2), dilation=(dilation, dilation)))
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_each_way_is_taken_where_it_pays(only):
    channels, share = {"_in_phases": (3, 0.05), "_of_nonzero": (32, 0.05), "conv_transpose2d": (32, 0.5)}[only]
    convolve_transposed(some(2, 128, 9, 9, share), torch.randn(128, channels, 5, 5).double(), Sliding((5, 5), (2, 2)))


@pytest.mark.parametrize("values, channels, side, groups", [
    (some(2, 128, 9, 9, 0.05), 32, 5, 2),
    (some(2, 128, 9, 9, 0.05, torch.bfloat16), 32, 5, 1),
    (some(2, 128, 9, 9, 1).to("meta"), 32, 5, 1),
    (some(1, 128, 110, 110, 0.01), 32, 5, 1),
    (some(2, 127, 9, 9, 0.05), 32, 5, 1),
    (some(2, 128, 9, 9, 0.05), 56, 3, 1),
], ids=["groups", "bfloat16", "not on a CPU", "sums that would take much memory", "few channels", "short filters"])
def test_otherwise_it_is_left_to_torch(values, channels, side, groups, monkeypatch):
    monkeypatch.setattr(transposed, "_of_nonzero", lambda *_: pytest.fail("the wrong way"))
    weight = values.new_empty(values.shape[1], channels, side, side)
    convolve_transposed(values, weight, Sliding((side, side), (2, 2)), groups)


def test_infinity_and_nan_are_not_lost():
    values = torch.zeros(1, 128, 3, 3)
    values[0, 5, 1, 1], values[0, 6, 0, 0] = float("inf"), float("nan")
    found = convolve_transposed(values, torch.ones(128, 512, 1, 1), Sliding())
    assert found[0, :, 1, 1].isinf().all() and found[0, :, 0, 0].isnan().all() and (found[0, :, 2] == 0).all()
