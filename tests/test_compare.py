"""Filters and projections in numbers: gratings, noise, plain colours, duplicates and aliasing that are known."""

import numpy as np
import pytest
import torch

from deconvnet.compare import (
    Filters,
    beyond,
    counts,
    distribution,
    distributions,
    likeness,
    measure,
    nyquist,
    radius,
    share,
    spectrum,
)

KERNELS = (7, 11)


def grating(size, frequency, degrees, phase=0.5):
    """A grey wave (3, size, size) that oscillates along a direction, from the x axis towards the y axis (down)."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.double)] * 2, indexing="ij")
    turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.double))
    return torch.sin(2 * torch.pi * frequency * (x * turn.cos() + y * turn.sin()) + phase).expand(3, -1, -1)


def apart(one, other):
    """How many degrees two orientations are apart; 179 and 1 are 2."""
    return abs((one - other + 90) % 180 - 90)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120, 150])
@pytest.mark.parametrize("frequency", [0.2, 0.25, 0.3, 0.4])
def test_a_grating_is_measured_with_its_own_frequency_and_orientation(kernel, degrees, frequency):
    found = measure(grating(kernel, frequency, degrees)[None])
    assert found.frequency[0] == pytest.approx(frequency, abs=0.03)
    assert apart(found.orientation[0], degrees) < 8


def test_a_long_grating_is_measured_almost_exactly():
    found = measure(grating(31, 0.17, 37.0)[None])
    assert found.frequency[0] == pytest.approx(0.17, abs=1 / 64) and apart(found.orientation[0], 37) < 4


def test_frequencies_do_not_depend_on_the_size_of_the_kernel():
    small, large = (measure(grating(kernel, 0.25, 20)[None]) for kernel in KERNELS)
    assert small.frequency[0] == pytest.approx(large.frequency[0], abs=0.02)


def test_padded_spectra_keep_the_energy():
    pixels = torch.randn(4, 3, 7, 9, dtype=torch.double)
    power = spectrum(pixels)
    assert power.shape == (4, 64, 64)
    torch.testing.assert_close(power.sum((1, 2)) / 64**2, pixels.square().sum((1, 2, 3)))
    assert spectrum(torch.zeros(1, 3, 33, 20)).shape == (1, 128, 128)


@pytest.mark.parametrize("kernel", KERNELS)
def test_white_noise_fills_each_band_as_its_area(kernel):
    noise = torch.randn(3000, 3, kernel, kernel, generator=torch.Generator().manual_seed(0))
    found = measure(noise)
    area = [float((radius(64) < 1 / 8).double().mean()), float((radius(64) >= 3 / 8).double().mean())]
    assert [found.low.mean(), found.high.mean()] == pytest.approx(area, abs=0.01)
    assert area == pytest.approx([np.pi / 64, 1 - np.pi * 9 / 64], abs=0.01)


@pytest.mark.parametrize(("kernel", "low"), [(7, 0.81), (11, 0.84)])
def test_a_plain_colour_oscillates_nowhere(kernel, low):
    colour = torch.tensor([1.0, -0.5, 0.2])[:, None, None].expand(3, kernel, kernel)
    found = measure(torch.stack([colour, -3 * colour]))
    assert found.frequency.tolist() == [0, 0] and np.isnan(found.orientation).all()
    assert found.plain == pytest.approx([1, 1]) and found.likeness == pytest.approx([1, 1])
    assert found.low == pytest.approx([low, low], abs=0.005)  # as the module says
    assert counts(found) == {"faint": 0, "near_duplicates": 1, "plain": 1, "slow": 1, "fast": 0, "between": 0}


def test_duplicates_are_found_turned_over_and_scaled_but_not_others():
    one, other = grating(7, 0.2, 0), grating(7, 0.2, 90)
    found = likeness(torch.stack([one, -2 * one, other, one + 0.1 * other]))
    assert (found[[0, 1, 3]] > 0.95).all() and found[2] < 0.95
    assert likeness(one[None]).tolist() == [0]


def test_faint_filters_and_those_of_zeros():
    filters = torch.stack([grating(7, 0.25, 10 * n) for n in range(8)])
    filters[3] *= 0.05
    filters[4] = 0
    found = measure(filters)
    assert counts(found)["faint"] == 2 / 8 and found.norm[4] == 0
    values = [getattr(found, name)[4] for name in ("frequency", "orientation", "low", "high", "plain")]
    assert np.isnan(values).all() and found.likeness[4] == 0
    assert distributions(found)["frequency"]["count"] == 7 and distributions(found)["norm"]["count"] == 8


def test_counts_tell_slow_from_fast_from_between():
    filters = torch.stack([grating(11, f, 0, phase=1.5) for f in (0.02, 0.05, 0.25, 0.45)])
    assert counts(measure(filters)) == {"faint": 0, "near_duplicates": 0, "plain": 0.25, "slow": 0.5, "fast": 0.25,
                                        "between": 0.25}


@pytest.mark.parametrize(("frequency", "degrees", "stride", "aliased"), [
    (0.2, 0, 2, False), (0.2, 0, 4, True), (0.2, 90, 4, True), (0.08, 0, 4, False), (0.35, 0, 2, True),
    (0.3, 45, 2, False),  # 0.21 along each axis: a square grid carries it
    (0.4, 45, 2, True),
])
def test_a_projection_is_aliased_where_its_frequency_is_more_than_the_stride_carries(frequency, degrees, stride,
                                                                                    aliased):
    found = beyond(spectrum(grating(51, frequency, degrees)[None]), nyquist((stride, stride)))
    assert found[0] > 0.85 if aliased else found[0] < 0.1


def test_aliasing_adds_up_over_colours_and_axes():
    slow, fast = grating(64, 4 / 64, 0), grating(64, 20 / 64, 90)
    half = beyond(spectrum(torch.stack([slow + fast, torch.stack([slow[0], slow[0], fast[0]])])), nyquist((2, 2)))
    assert half.tolist() == pytest.approx([1 / 2, 1 / 3], abs=0.02)
    assert beyond(spectrum(fast[None]), nyquist((1, 2))) < 0.05  # stride 1 downwards carries it
    assert beyond(spectrum(fast[None]), nyquist((2, 1))) > 0.9
    assert share(spectrum(fast[None]), radius(128) >= 0) == 1


def test_a_distribution_passes_over_what_is_not_there():
    assert distribution(np.array([3.0, np.nan, 1.0, 2.0])) == {
        "count": 3, "minimum": 1, "lower_quartile": 1.5, "median": 2, "upper_quartile": 2.5, "maximum": 3}
    assert distribution(np.array([np.nan]))["median"] is None


def test_measures_are_the_same_every_time_and_leave_the_weights_alone():
    weight = torch.randn(20, 3, 7, 7).requires_grad_()
    before = weight.detach().clone()
    once, again = measure(weight), measure(weight)
    assert isinstance(once, Filters)
    assert all(np.array_equal(value, getattr(again, name), equal_nan=True) for name, value in vars(once).items())
    assert torch.equal(weight.detach(), before)
