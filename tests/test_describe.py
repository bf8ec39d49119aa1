"""What is said of a network's layers, and receptive fields through the public entrance."""

import pytest
import torch
import torchvision
from deconvnet.models.zfnet import ZFNet
from torch import nn

import deconvnet
from deconvnet.describe import describe, obstacles
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.receptive import Field, Sliding


def by_name(layers):
    return {layer.name: layer for layer in layers}


def test_each_layer_is_described_in_the_order_of_the_calls():
    net = ZFNet(7, (2, 3, 4, 5, 6), (8, 9)).eval()
    layers = describe(net)
    assert [layer.name for layer in layers] == [name for name, _ in net.named_children()]
    found = by_name(layers)
    assert [found[f"conv{n}"].units for n in range(1, 6)] == [2, 3, 4, 5, 6]
    assert found["conv1"].slide == Sliding((7, 7), (2, 2), (1, 1)) and found["conv1"].parameters == 2 * (3 * 49 + 1)
    assert found["pool1"].slide == Sliding((3, 3), (2, 2)) and found["pool1"].kind == "MaxPool2d"
    assert found["norm1"].slide is None and found["relu1"].slide is None and found["relu1"].parameters == 0
    assert found["fc6"].units == 8 and found["fc6"].size == (1, 1) and found["fc6"].slide is None
    assert found["fc8"].field == Field((331, 331), (0, 0), (-49, -49)) and found["fc8"].units == 7
    assert not any(layer.obstacle for layer in layers)


def test_what_has_layers_of_its_own_is_described_by_them():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), nn.Sequential(nn.Flatten()))
    assert [layer.name for layer in describe(net, (8, 8))] == ["0.0", "0.1", "1.0"]


def test_a_module_called_twice_is_described_twice():
    relu = nn.ReLU()
    layers = describe(nn.Sequential(nn.Conv2d(3, 2, 3), relu, nn.Conv2d(2, 3, 3), relu), (8, 8))
    assert [(layer.name, layer.units) for layer in layers] == [("0", 2), ("1#1", 2), ("2", 3), ("1#2", 3)]
    assert layers[3].field == Field((5, 5), (1, 1), (0, 0))


def test_what_cannot_be_mirrored_says_why_and_so_does_all_that_follows():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sigmoid(), nn.Conv2d(2, 2, 3), nn.Flatten(2), nn.Linear(16, 2))
    layers = describe(net, (8, 8))
    assert [bool(layer.obstacle) for layer in layers] == [False, True, True, True, True]
    assert "sigmoid in 1: it has no rule" in layers[2].obstacle and layers[2].field is None
    assert layers[4].units == 2 and "neither feature maps" in layers[4].obstacle


@pytest.mark.parametrize("name", ["vit_b_32", "mobilenet_v3_small"])
def test_every_network_can_be_described_mirrored_or_not(name):
    torch.manual_seed(0)
    layers = describe(getattr(torchvision.models, name)(weights=None).eval(), (224, 224) if "vit" in name else (64, 64))
    assert not layers[0].obstacle and layers[-1].obstacle


def test_the_dtype_and_the_channels_are_those_of_the_network():
    net = nn.Sequential(nn.Conv2d(1, 2, 5, 2)).double()
    assert describe(net, (9, 7), channels=1)[0].size == (3, 2)
    assert deconvnet.receptive_field(net, "0", (9, 7), channels=1) == Field((5, 5), (2, 2), (0, 0))


def test_the_dtype_is_that_of_what_is_computed_with():
    class Counts(nn.Sequential):
        def __init__(self):
            super().__init__()
            self.seen = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)
            self.conv = nn.Conv2d(3, 2, 5)

    assert deconvnet.receptive_field(Counts(), "conv", (8, 8)).size == (5, 5)


def test_the_axes_are_kept_apart():
    net = nn.Sequential(nn.Conv2d(3, 2, (3, 5), (1, 2), (0, 2)), nn.MaxPool2d((2, 1)))
    assert deconvnet.receptive_field(net, "1", (16, 16)) == Field((4, 5), (2, 2), (0, -2))


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_the_field_does_not_depend_on_the_size_of_the_image(size):
    net = torchvision.models.resnet18(weights=None).eval()
    assert deconvnet.receptive_field(net, "layer2.0.conv1", size) == Field((51, 51), (8, 8), (-25, -25))


def test_a_layer_that_does_not_exist_or_cannot_be_followed_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sigmoid())
    with pytest.raises(UsageError, match="no layer '7'"):
        deconvnet.receptive_field(net, "7", (8, 8))
    with pytest.raises(DeconvnetError, match="sigmoid in 1"):
        deconvnet.receptive_field(net, "1", (8, 8))


def test_an_image_that_the_network_cannot_take_is_an_error_that_says_so():
    with pytest.raises(DeconvnetError, match="cannot take an image of 3×4×4"):
        describe(nn.Sequential(nn.Conv2d(3, 2, 7)), (4, 4))


@pytest.mark.parametrize(("first", "words"), [
    (nn.Conv2d(1, 2, 3), r"takes 1×H×W: net.preprocess = .*mean=\(0\.5,\)"),
    (nn.Conv2d(4, 2, 3), "takes 4×H×W, and images from files have 3 channels"),
    (nn.Conv1d(3, 2, 3), "is a Conv1d, and only maps of two dimensions"),
    (nn.Conv3d(3, 2, 3), "is a Conv3d, and only maps of two dimensions"),
    (nn.Conv2d(3, 2, 17), "Another size may suit it"), (nn.Linear(3, 2), "Another size may suit it")])
def test_and_what_to_do_about_it(first, words):
    with pytest.raises(DeconvnetError, match=words):
        describe(nn.Sequential(first), (16, 16))


def test_obstacles_are_those_of_describe_and_default_to_what_has_weights():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    assert list(obstacles(net, size=(16, 16))) == ["2"] and "sigmoid in 1" in obstacles(net, ["2"], (16, 16))["2"]
    assert obstacles(net, ["0"], (16, 16)) == {}
    with pytest.raises(UsageError, match="There is no layer 'conv9'"):
        obstacles(net, ["conv9"], (16, 16))
