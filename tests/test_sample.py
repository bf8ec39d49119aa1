"""The sample of images that a scan keeps: even, the same however the images come, and what is counted from it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deconvnet import sample
from deconvnet.sample import Sample


def splitmix64(number):
    """The mixing as its authors write it, in whole numbers of Python."""
    top = (1 << 64) - 1
    mixed = (number + 0x9E3779B97F4A7C15) & top
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & top
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & top
    return mixed ^ (mixed >> 31)


def test_the_places_are_those_of_splitmix64():
    numbers = torch.cat([torch.arange(200), torch.randint(0, 2**62, (200,))])
    places = sample._places(numbers).tolist()
    assert [place % 2**64 for place in places] == [splitmix64(number) for number in numbers.tolist()]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 4), st.randoms(use_true_random=False))
def test_any_order_batches_and_parts_give_the_same(count, batch, parts, random):
    maxima = torch.randn(count, 3, generator=torch.Generator().manual_seed(count))
    order = list(range(count))
    random.shuffle(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "SIZE", 20)
        samples = [Sample.blank(3) for _ in range(parts)]
        for start in range(0, count, batch):
            numbers = torch.tensor(order[start:start + batch])
            samples[start // batch % parts].keep(numbers, maxima[numbers])
        whole = samples[0]
        for other in samples[1:]:
            whole = whole.merge(other)
    expected = sorted(range(count), key=lambda n: (splitmix64(n) + 2**63) % 2**64)[:20]  # signed order
    assert whole.images.tolist() == expected
    assert torch.equal(whole.maxima, maxima[expected].clamp(min=0))


def test_the_sample_is_even():
    full = Sample.blank(1)
    for start in range(0, 100_000, 1000):
        full.keep(torch.arange(start, start + 1000), torch.ones(1000, 1))
    assert len(full.images) == sample.SIZE
    tenths = torch.bincount(full.images // 10_000, minlength=10)
    assert tenths.min() > 25 and tenths.max() < 80  # 51 expected in each


def test_likeness_is_the_correlation():
    values = torch.rand(50, 4)
    values[:, 1] = 2 * values[:, 0] + 1
    values[:, 3] = 0.7  # never varies
    one = Sample(torch.arange(50), values)
    expected = np.corrcoef(values[:, :3].double().numpy().T)
    np.testing.assert_allclose(one.likeness()[:3, :3], expected, atol=1e-6)
    assert one.likeness()[3].abs().max() == 0
    assert Sample.blank(3).likeness().shape == (3, 3)
