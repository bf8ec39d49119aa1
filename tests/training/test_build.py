"""Networks to train: first weights, and what folds away folds exactly."""

from pathlib import Path

import pytest
import torch
from deconvnet.models.zfnet import ZFNet
from recipes import recipe
from torch import nn

from deconvnet.training.build import build, fold


def test_adaptive_pooling_is_pool5_at_224() -> None:
    maps = torch.rand(2, 3, 13, 13)
    assert torch.equal(nn.AdaptiveMaxPool2d(6)(maps), nn.MaxPool2d(3, 2, ceil_mode=True)(maps))


def test_fold_gives_the_same_scores(tree: Path) -> None:
    settings = recipe(tree)
    net = build(settings, 5)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):  # as after training: nothing is 0 or 1
            for value in (layer.running_mean, layer.bias.data):
                value.normal_(0, 0.2)
            for value in (layer.running_var, layer.weight.data):
                value.uniform_(0.5, 2)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        before, after = net.eval()(images), fold(net, settings)(images)
    assert before.std() > 0.01
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    assert {name for name, _ in fold(net, settings).named_children()} == {name for name, _ in ZFNet().named_children()}


def test_paper_initialisation(tree: Path) -> None:
    net = build(recipe(tree, init="paper", centroids=False, batch_norm=False, dropout=0.25), 3)
    assert all(float(p.detach().std()) == pytest.approx(0.01, rel=0.1) for p in net.parameters() if p.numel() > 999)
    assert all(not p.any() for name, p in net.named_parameters() if name.endswith("bias"))
    assert net.drop6.p == net.drop7.p == 0.25
