"""First-layer filters: k-means finds edges, renormalisation keeps its radius, statistics count what they say."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from recipes import recipe

from deconvnet.training.build import build
from deconvnet.training.filters import centroids, filter_statistics, patches, renormalise, whitening


def test_whitening_makes_directions_equal_and_holds_back_noise() -> None:
    axes = torch.linalg.qr(torch.randn(12, 12, dtype=torch.double)).Q
    deviations = torch.logspace(-3, 2, 12, dtype=torch.double)
    some = torch.linalg.qr(torch.randn(500, 12, dtype=torch.double)).Q * 500**0.5 * deviations @ axes.T
    after = (some @ whitening(some, 0.001).double() @ axes).square().mean(0)
    torch.testing.assert_close(after[-2:], torch.ones(2, dtype=torch.double), rtol=0.2, atol=0)
    assert (after.diff() > 0).all() and after[0] < 1e-4


def test_patches_are_those_of_the_images_without_the_flat_ones() -> None:
    inputs = torch.randn(2, 3, 12, 9)
    inputs[1, :, :6] = 0.5  # flat
    every = torch.stack([inputs[n, :, y:y + 4, x:x + 4].flatten()
                         for n in range(2) for y in range(0, 9, 2) for x in range(0, 6, 2)])
    kept = patches(inputs, 4)
    centred = every - every.mean(0)
    assert 15 <= len(kept) < len(every) == 30
    assert all((centred - patch).abs().amax(1).min() < 1e-6 for patch in kept)
    assert not any((kept - (patch - every.mean(0))).abs().amax(1).min() < 1e-6 for patch in every if patch.std() == 0)


def test_centroids_find_the_edges_that_images_are_made_of() -> None:
    torch.manual_seed(0)
    edges = torch.stack([torch.cat([torch.ones(3, 7, 4), -torch.ones(3, 7, 3)], 2)] * 2)
    edges[1] = edges[1].mT.clone()  # across and down
    inputs = torch.cat([edges[torch.randint(2, (600,))] * torch.randn(600, 1, 1, 1), torch.randn(600, 3, 7, 7) * 0.1])
    inputs[:600] += 0.1 * torch.randn(600, 3, 7, 7)
    filters = centroids(inputs, torch.Size((2, 3, 7, 7)))
    likeness = F.cosine_similarity(filters.flatten(1)[:, None], edges.flatten(1), dim=2).abs()
    assert likeness.amax(0).min() > 0.9
    responses = patches(inputs, 7) @ filters.flatten(1).T
    torch.testing.assert_close(responses.std(0), torch.ones(2), rtol=1e-3, atol=0)


def test_centroids_that_gather_nothing_begin_anew() -> None:
    torch.manual_seed(0)
    three = torch.randn(3, 3, 7, 7)  # six units for three patches: some begin equal, and one gets nothing
    filters = centroids(three.repeat(100, 1, 1, 1), torch.Size((6, 3, 7, 7)))
    assert filters.isfinite().all() and (filters.flatten(1).norm(dim=1) > 0).all()


def test_renormalise_scales_what_is_too_large_and_nothing_else(tree: Path) -> None:
    net = build(recipe(tree), 3)
    std = torch.tensor([0.2, 0.25, 0.5])
    scale = 255 * std[:, None, None]
    filters = torch.randn(96, 3, 7, 7)
    sizes = torch.linspace(0.01, 0.3, 96)
    filters *= sizes[:, None, None, None] / filters.square().mean((1, 2, 3), keepdim=True).sqrt()
    with torch.no_grad():
        net.conv1.weight.copy_(filters * scale)  # on inputs divided by std, what `filters` are on pixels of 0..255
        net.conv2.weight[7] = 3.0
    before = net.conv1.weight.detach().clone()
    others = net.conv2.weight.detach()[:7].clone()
    renormalise(net, 0.1, std)
    rms = (net.conv1.weight / scale).square().mean((1, 2, 3)).sqrt().detach()
    torch.testing.assert_close(rms, sizes.clamp_max(0.1), rtol=1e-3, atol=0)
    torch.testing.assert_close(F.cosine_similarity(net.conv1.weight.flatten(1), before.flatten(1)), torch.ones(96))
    assert torch.equal(net.conv2.weight[:7], others)
    torch.testing.assert_close(net.conv2.weight[7], torch.full((96, 5, 5), 0.1))


def test_filter_statistics_of_filters_made_for_it() -> None:
    edge = torch.ones(3, 7, 7)
    edge[:, :, 3:] = -1
    checks = (torch.arange(49) % 2 * 2 - 1.0).view(1, 7, 7).expand(3, 7, 7)
    coloured = checks * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    filters = torch.stack([torch.ones(3, 7, 7), edge, -2 * edge, edge.mT, checks, coloured, 1 + checks])
    found = filter_statistics(filters)
    assert found["plain"] == pytest.approx(1 / 7) and found["near_duplicates"] == pytest.approx(2 / 7)
    assert found["largest_norm"] == pytest.approx(2 * 147**0.5)
    assert filter_statistics(checks[None])["fine"] > 0.9
    assert filter_statistics(edge[None])["fine"] < 0.2
