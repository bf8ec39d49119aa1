"""Fast contrast normalisation against torch's own, and against its definition where torch has none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deconvnet.contrast import FastContrast, local_response_norm

pytestmark = pytest.mark.usefixtures("one_thread")

FORMATS = [torch.contiguous_format, torch.channels_last]
KRIZHEVSKY = (5, 5e-4, 0.75, 2.0)


def some_maps(shape, memory_format=torch.contiguous_format):
    """Maps of very different sizes, a third of them zero."""
    seed = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=seed) * 10 ** torch.empty(shape).uniform_(-3, 3, generator=seed)
    kept = torch.rand(shape, generator=seed) > 0.3
    return (values * kept).contiguous(memory_format=memory_format)


def relative(got, expected):
    return ((got.double() - expected).abs() / expected.abs().clamp(min=1e-30)).max()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 5, 16])
@pytest.mark.parametrize("size, alpha, beta, k", [KRIZHEVSKY, (1, 1e-2, 0.75, 1.0), (2, 0.1, 0.5, 1.0),
                                                  (4, 1e-4, 1.0, 0.5), (7, 1.0, 0.6, 1e-3), (40, 1e-3, 0.75, 1.0)])
def test_equals_torch_to_a_millionth(size, alpha, beta, k, channels, memory_format):
    maps = some_maps((3, channels, 4, 5), memory_format=memory_format)
    before = maps.clone()
    expected = F.local_response_norm(maps.double(), size, alpha, beta, k)
    got = local_response_norm(maps, size, alpha, beta, k)
    assert relative(got, expected) < 1e-6
    assert got.stride() == maps.stride() and got.dtype == maps.dtype and torch.equal(maps, before)
    assert relative(local_response_norm(maps.double(), size, alpha, beta, k), expected) < 1e-13


def test_an_image_s_result_depends_on_no_other():
    maps = some_maps((6, 7, 5, 3))
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    together = local_response_norm(maps, *KRIZHEVSKY)
    assert torch.equal(local_response_norm(maps[order], *KRIZHEVSKY), together[order])
    maps[2, 3, 1, 1] = torch.nan
    with_nan = local_response_norm(maps, *KRIZHEVSKY)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(with_nan[others], together[others])
    assert with_nan[2].isnan().nonzero().tolist() == [[c, 1, 1] for c in range(1, 6)]  # two maps to each side


def test_squares_that_overflow_leave_nothing_as_in_torch():
    maps = torch.full((1, 5, 1, 1), 1e30)
    assert torch.equal(F.local_response_norm(maps, *KRIZHEVSKY), torch.zeros(1, 5, 1, 1))
    assert torch.equal(local_response_norm(maps, *KRIZHEVSKY), torch.zeros(1, 5, 1, 1))


@pytest.fixture
def calls(monkeypatch):
    """The sizes that the fast function is called with."""
    seen = []

    def noted(maps, size, *rest):
        seen.append(size)
        return local_response_norm(maps, size, *rest)

    monkeypatch.setattr("deconvnet.contrast.local_response_norm", noted)
    return seen


def test_any_network_s_normalisation_goes_through_it(calls):
    maps = some_maps((2, 6, 3, 3))
    with FastContrast():
        got = [nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)(maps), F.local_response_norm(maps, 3),
               F.local_response_norm(input=maps, size=4, k=0.5, beta=1.0)]
    assert calls == [5, 3, 4]
    expected = [F.local_response_norm(maps.double(), *KRIZHEVSKY), F.local_response_norm(maps.double(), 3),
                F.local_response_norm(maps.double(), 4, k=0.5, beta=1.0)]
    assert all(relative(one, other) < 1e-6 for one, other in zip(got, expected, strict=True))
    F.local_response_norm(maps, 5)
    assert len(calls) == 3  # nothing of it is left outside of the block


@pytest.mark.parametrize("maps", [
    some_maps((2, 6, 9)), some_maps((2, 6, 3, 3, 2)), torch.zeros(0, 6, 3, 3),
    some_maps((2, 6, 3, 3)).requires_grad_(),
], ids=["lines", "volumes", "nothing", "gradients"])
def test_what_is_torch_s_to_compute(maps, calls):
    with FastContrast():
        got = F.local_response_norm(maps, 5)
    expected = F.local_response_norm(maps, 5)
    assert not calls and got.shape == expected.shape and got.requires_grad == maps.requires_grad
    assert torch.equal(got, expected)


def test_everything_else_is_left_alone():
    with FastContrast():
        assert torch.equal(torch.ones(2) + 1, torch.full((2,), 2.0))
        with pytest.raises(TypeError):
            F.local_response_norm(torch.ones(1, 2, 3, 3))
