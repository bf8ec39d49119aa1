"""The networks of the paper: parameters, map sizes and receptive fields as printed, and both routes to a patch."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from deconvnet.models.alexnet import AlexNet
from deconvnet.models.layers import ContrastNorm
from deconvnet.models.zfnet import ZFNet
from torch import nn
from torch.overrides import TorchFunctionMode

import deconvnet

WIDE = (96, 256, 512, 1024, 512)


@pytest.mark.parametrize(("build", "parameters"), [
    (ZFNet, 62_357_608), (lambda: ZFNet(widths=WIDE), 107_627_624), (AlexNet, 60_965_224),
    (lambda: AlexNet(groups=1), 62_378_344)], ids=["zfnet", "wide", "two towers", "dense replica"])
def test_the_number_of_parameters_is_the_papers(build, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == parameters


def test_each_layer_of_zfnet_has_the_parameters_of_the_table():
    with torch.device("meta"):
        net = ZFNet()
    counts = [sum(p.numel() for p in net.get_submodule(f"conv{n}").parameters()) for n in range(1, 6)]
    assert counts == [14_208, 614_656, 885_120, 1_327_488, 884_992] and sum(counts) == 3_726_464


MAPS = {
    "zfnet": (ZFNet, 224, {"conv1": (96, 110), "relu1": (96, 110), "pool1": (96, 55), "norm1": (96, 55),
                           "conv2": (256, 26), "pool2": (256, 13), "conv3": (384, 13), "conv4": (384, 13),
                           "conv5": (256, 13), "pool5": (256, 6), "fc6": 4096, "fc7": 4096, "fc8": 1000}),
    "wide": (lambda: ZFNet(widths=WIDE), 224, {"conv3": (512, 13), "conv4": (1024, 13), "conv5": (512, 13),
                                               "pool5": (512, 6), "fc8": 1000}),
    "alexnet": (AlexNet, 227, {"conv1": (96, 55), "pool1": (96, 27), "conv2": (256, 27), "pool2": (256, 13),
                               "conv3": (384, 13), "conv4": (384, 13), "conv5": (256, 13), "pool5": (256, 6),
                               "fc6": 4096, "fc7": 4096, "fc8": 1000}),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_maps_have_the_sizes_of_the_paper(name):
    build, size, expected = MAPS[name]
    with torch.device("meta"):
        net, x = build().eval(), torch.zeros(2, 3, size, size)
    for layer, module in net.named_children():
        x = module(x)
        if layer in expected:
            e = expected[layer]
            assert tuple(x.shape) == ((2, e) if isinstance(e, int) else (2, e[0], e[1], e[1])), layer


def test_the_order_inside_a_layer_is_the_papers():
    assert list(dict(ZFNet(2, (2,) * 5, (2, 2)).named_children())) == [
        "conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2", "conv3", "relu3", "conv4", "relu4",
        "conv5", "relu5", "pool5", "flatten", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]
    assert list(dict(AlexNet(2, hidden=(2, 2)).named_children()))[:8] == [
        "conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]



FIELDS = {  # layer: (size, stride, start), paper.md's tables
    "zfnet": (lambda: ZFNet(2, (2,) * 5, (2, 2)), 224, {
        "conv1": (7, 2, -1), "pool1": (11, 4, -1), "conv2": (27, 8, -1), "pool2": (43, 16, -1), "conv3": (75, 16, -17),
        "conv4": (107, 16, -33), "conv5": (139, 16, -49), "pool5": (171, 32, -49)}),
    "alexnet": (lambda: AlexNet(2, hidden=(2, 2)), 227, {
        "conv1": (11, 4, 0), "pool1": (19, 8, 0), "conv2": (51, 8, -16), "pool2": (67, 16, -16), "conv3": (99, 16, -32),
        "conv4": (131, 16, -48), "conv5": (163, 16, -64), "pool5": (195, 32, -64)}),
    "torchvision's alexnet": (lambda: torchvision.models.alexnet(weights=None).features, 224, {
        "0": (11, 4, -2), "2": (19, 8, -2), "3": (51, 8, -18), "5": (67, 16, -18), "6": (99, 16, -34),
        "8": (131, 16, -50), "10": (163, 16, -66), "12": (195, 32, -66)}),
    "vgg16": (lambda: torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], False), 64, {
        "0": (3, 1, None), "2": (5, 1, None), "4": (6, 2, None), "5": (10, 2, None), "7": (14, 2, None),
        "9": (16, 4, None), "10": (24, 4, None), "12": (32, 4, None), "14": (40, 4, None), "16": (44, 8, None),
        "17": (60, 8, None), "19": (76, 8, None), "21": (92, 8, None), "23": (100, 16, None), "24": (132, 16, None),
        "26": (164, 16, None), "28": (196, 16, None), "30": (212, 32, None)}),
}


@pytest.fixture(scope="module")
def network():
    nets = {}
    return lambda name: nets.setdefault(name, FIELDS[name][0]().eval())


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name in FIELDS for layer in FIELDS[name][2]])
def test_the_receptive_field_is_that_of_the_table(network, name, layer):
    size, stride, start = FIELDS[name][2][layer]
    field = deconvnet.receptive_field(network(name), layer, (FIELDS[name][1],) * 2)
    assert field.size == (size, size) and field.stride == (stride, stride)
    assert start is None or field.start == (start, start)


@pytest.mark.parametrize(("layer", "first", "last"), [
    ("conv1", 109, 115), ("pool1", 107, 117), ("conv2", 103, 129), ("pool2", 95, 137), ("conv3", 79, 153),
    ("conv4", 63, 169), ("conv5", 47, 185), ("pool5", 47, 217)])
def test_the_centre_unit_of_zfnet_sees_what_the_table_says(network, layer, first, last):
    net = network("zfnet")
    centre = deconvnet.record(net, torch.zeros(1, 3, 224, 224)).activations(layer).shape[-1] // 2
    box = deconvnet.receptive_field(net, layer).box(centre, centre)
    assert (box.start[0], box.start[0] + box.size[0] - 1) == (first, last)


@pytest.mark.parametrize(("layer", "units", "inside", "corner"), [
    ("conv1", 110, range(1, 110), 6), ("conv2", 26, range(1, 25), 26), ("conv3", 13, range(2, 11), 58),
    ("conv4", 13, range(3, 10), 74), ("conv5", 13, range(4, 9), 90), ("pool5", 6, range(2, 4), None)])
def test_the_units_whose_field_lies_in_the_image_are_those_of_the_table(network, layer, units, inside, corner):
    field = deconvnet.receptive_field(network("zfnet"), layer)
    boxes = [field.box(i, 0) for i in range(units)]
    assert [i for i, box in enumerate(boxes) if 0 <= box.start[0] <= 224 - box.size[0]] == list(inside)
    assert corner is None or boxes[0].start[0] + boxes[0].size[0] == corner


# ---- two routes: whole images, or patches run through the filter -----------------------------------------------------

@pytest.fixture(scope="module")
def routes():
    """Activations of layer 1 by both routes (units, y, x), and which of them have their field inside the image."""
    torch.manual_seed(0)
    net = ZFNet(2, (8, 2, 2, 2, 2), (2, 2)).double().eval()
    first = nn.Sequential(net.conv1, net.relu1)
    image = torch.randn(3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        whole = first(image[None])[0]
    field = deconvnet.receptive_field(net, "conv1", (224, 224))
    patches, inside = torch.zeros_like(whole), torch.zeros(whole.shape[1:], dtype=torch.bool)
    for y in range(whole.shape[1]):
        for x in range(whole.shape[2]):
            (top, left), (height, width) = field.box(y, x)
            patch = image[:, max(top, 0):top + height, max(left, 0):left + width]
            inside[y, x] = patch.shape[1:] == (7, 7)
            patch = patch if inside[y, x] else F.interpolate(patch[None], (7, 7))[0]  # the crop lacks the zeros
            patches[:, y, x] = F.conv2d(patch[None], net.conv1.weight, net.conv1.bias)[0, :, 0, 0].relu()
    return whole, patches, inside


def test_both_routes_agree_on_layer_1_where_the_field_lies_inside(routes):
    whole, patches, inside = routes
    assert whole.shape[1:] == (30, 30) and inside.sum() == 900 - 59
    assert torch.allclose(whole[:, inside], patches[:, inside], rtol=1e-12, atol=1e-13)


def test_both_routes_differ_at_the_padded_border(routes):
    whole, patches, inside = routes
    different = (whole - patches).abs().amax(0) > 1e-6
    assert torch.equal(different, ~inside)


# ---- contrast normalisation ------------------------------------------------------------------------------------------

def test_contrast_norm_is_krizhevskys_formula():
    torch.manual_seed(0)
    maps = torch.rand(1, 7, 2, 3, dtype=torch.float64) * 200
    expected = torch.zeros_like(maps)
    for unit in range(7):
        energy = sum(maps[:, near] ** 2 for near in range(max(unit - 2, 0), min(unit + 3, 7)))
        expected[:, unit] = maps[:, unit] / (2 + 1e-4 * energy) ** 0.75
    assert torch.allclose(ContrastNorm().eval()(maps), expected, rtol=1e-12)
    assert torch.allclose(ContrastNorm().train()(maps), expected, rtol=1e-12)


def test_networks_start_in_training_mode_and_give_one_score_for_each_class():
    net = ZFNet(3, (2,) * 5, (4, 4))
    assert net.training
    assert net.eval()(torch.rand(2, 3, 224, 224)).shape == (2, 3)
    assert math.isclose(net.drop6.p, 0.5)


# ---- contrast normalisation -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("maps", [1, 2, 5, 96])
def test_contrast_norm_is_the_same_while_training(maps: int) -> None:
    x = (torch.randn(2, maps, 5, 4, dtype=torch.double) * 60).requires_grad_()
    norm, seed = ContrastNorm(), torch.randn(2, maps, 5, 4, dtype=torch.double)
    expected = F.local_response_norm(x, 5, 5e-4, 0.75, 2.0)
    (gradient,) = torch.autograd.grad((norm.train()(x) * seed).sum(), x)
    torch.testing.assert_close(norm.train()(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * seed).sum(), x)[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(norm.eval()(x), expected, rtol=0, atol=0)


def test_contrast_norm_is_called_by_its_name_when_it_is_used() -> None:
    class Names(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            called.append(function.__name__)
            return function(*args, **(kwargs or {}))

    called: list[str] = []
    with Names():
        ContrastNorm().eval()(torch.rand(1, 6, 2, 2))
    assert "local_response_norm" in called and "conv2d" not in called


# ---- variants ----

@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("kernel", [5, 6, 7, 11, 15])
def test_other_first_layers_leave_the_maps_above_as_they_are(kernel, stride):
    with torch.device("meta"):
        net, x, sizes = ZFNet(2, (2,) * 5, (2,), kernel=kernel, stride=stride).eval(), torch.zeros(1, 3, 224, 224), {}
        for layer, module in net.named_children():
            x = module(x)
            sizes[layer] = x.shape[-1]
    assert net.conv1.kernel_size == (kernel, kernel) and net.conv1.stride == (stride, stride)
    expected = {2: (110, 55, 26, 13), 4: (55, 27, 27, 13)}[stride]
    assert tuple(sizes[layer] for layer in ("conv1", "pool1", "conv2", "pool2")) == expected
    assert {sizes[layer] for layer in ("conv3", "conv4", "conv5")} == {13} and sizes["pool5"] == 6


@pytest.mark.parametrize(("kernel", "stride", "size"), [(7, 2, 75), (11, 2, 79), (7, 4, 95), (11, 4, 99)])
def test_units_of_the_variants_step_as_far_and_look_as_wide_as_they_should(kernel, stride, size):
    net = ZFNet(2, (2,) * 5, (2,), kernel=kernel, stride=stride).eval()
    field = deconvnet.receptive_field(net, "conv3", (224, 224))
    # by hand: conv1, pool1, conv2; then pool2 and conv3, whose inputs lie 8 and 16 pixels apart at either stride
    assert size == kernel + 2 * stride + 4 * 2 * stride + 2 * 8 + 2 * 16
    assert field.size == (size, size) and field.stride == (16, 16)


def parts(net):
    return [name for name, module in net.named_children() if isinstance(module, nn.Conv2d | nn.Linear)]



def count_by_hand(alexnet, without, hidden, classes=1000):
    """Weights and biases, layer by layer, from the papers' tables."""
    kernels, groups = ((11, 5, 3, 3, 3), (1, 2, 1, 2, 2)) if alexnet else ((7, 5, 3, 3, 3), (1,) * 5)
    inputs, total = 3, 0
    for n, (units, kernel, group) in enumerate(zip((96, 256, 384, 384, 256), kernels, groups, strict=True), 1):
        if n not in without:
            total += units * kernel * kernel * inputs // group + units
            inputs = units
    inputs *= 36
    for units in (*hidden, classes) if hidden is not None else ():
        total += units * inputs + units
        inputs = units
    return total


@pytest.mark.parametrize("hidden", [(4096, 4096), (2048,), (), None], ids=str)
@pytest.mark.parametrize("without", [(), (3,), (4,), (3, 4), (4, 3)], ids=str)
@pytest.mark.parametrize("build", [ZFNet, AlexNet])
def test_layers_that_are_left_out_are_out_and_the_rest_fits(build, without, hidden):
    with torch.device("meta"):
        net = build(hidden=hidden, without=without).eval()
        scores = net(torch.zeros(2, 3, *[224 if build is ZFNet else 227] * 2))
    classifier = [] if hidden is None else [*["fc6", "fc7"][:len(hidden)], "fc8"]
    assert parts(net) == [f"conv{n}" for n in range(1, 6) if n not in without] + classifier
    assert not {f"relu{n}" for n in without} & set(dict(net.named_children()))
    assert scores.shape == ((2, 256, 6, 6) if hidden is None else (2, 1000))
    assert sum(p.numel() for p in net.parameters()) == count_by_hand(build is AlexNet, without, hidden)


def test_the_counts_by_hand_are_those_that_the_papers_print():
    assert count_by_hand(False, (), (4096, 4096)) == 62_357_608 and count_by_hand(True, (), (4096, 4096)) == 60_965_224


@pytest.mark.parametrize(("build", "hidden"), [(ZFNet, (4,)), (AlexNet, ()), (ZFNet, None)])
def test_variants_compute_on_the_cpu_too(build, hidden):
    net = build(3, hidden=hidden, without=(3, 4)).eval()
    with torch.no_grad():
        scores = net(torch.rand(1, 3, *[224 if build is ZFNet else 227] * 2))
    assert scores.isfinite().all() and scores.shape[1] == (256 if hidden is None else 3)


def test_only_the_convolutions_may_miss_layers_2_and_5():
    with torch.device("meta"):
        net = ZFNet(hidden=None, without=(2, 5))
        assert parts(net) == ["conv1", "conv3", "conv4"] and net.conv3.in_channels == 96
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 384, 55, 55)


@pytest.mark.parametrize(("build", "first"), [(ZFNet, "pool1"), (AlexNet, "norm1")])
def test_batch_normalisation_is_between_each_layer_and_its_relu(build, first):
    with torch.device("meta"):
        names = list(dict(build(2, hidden=(4, 4), batch_norm=True).named_children()))
        few = list(dict(build(2, hidden=(4,), without=(3,), batch_norm=True).named_children()))
    assert names[:4] == ["conv1", "bn1", "relu1", first]
    for n in range(1, 8):
        layer = f"{'conv' if n < 6 else 'fc'}{n}"
        at = names.index(layer)
        assert names[at:at + 3] == [layer, f"bn{n}", f"relu{n}"]
    assert "bn8" not in names and not {"bn3", "bn7"} & set(few)


@pytest.mark.parametrize("build", [ZFNet, AlexNet])
def test_without_contrast_normalisation_nothing_else_changes(build):
    with torch.device("meta"):
        names, without = (list(dict(build(2, hidden=(4,), norm=norm).named_children())) for norm in (True, False))
    assert [name for name in names if not name.startswith("norm")] == without != names


@pytest.mark.parametrize(("build", "wrong", "says"), [
    (ZFNet, {"stride": 3}, "stride must be 2 or 4: 3"), (ZFNet, {"kernel": 4}, "kernel must be at least 5: 4"),
    (ZFNet, {"without": (1,)}, r"not \[1\]"), (ZFNet, {"without": (3, 6)}, r"not \[6\]"),
    (ZFNet, {"without": (2,)}, "do not fit the classifier"), (ZFNet, {"without": (5,)}, "do not fit the classifier"),
    (AlexNet, {"without": (5, 2)}, r"not \[2, 5\]"), (ZFNet, {"widths": (1, 2, 3, 4)}, "widths"),
    (ZFNet, {"hidden": (1, 2, 3)}, "hidden"), (AlexNet, {"hidden": (1, 2, 3)}, "hidden")])
def test_variants_that_cannot_be_are_refused(build, wrong, says):
    with torch.device("meta"), pytest.raises(ValueError, match=says):
        build(**wrong)
