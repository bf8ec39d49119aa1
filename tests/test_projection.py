"""Projections against Captum, against automatic differentiation, and against loops; and what holds of all of them."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import NeuronDeconvolution
from deconvnet.models.alexnet import AlexNet
from deconvnet.models.zfnet import ZFNet
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Network, plans
from oracles import BACKWARD_OF_RELU, SlowNetwork, differentiated
from torch import nn

import deconvnet
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.inverses import DECONVNET, pass_through, rectify
from deconvnet.projection import Projection

BLIND = {function: pass_through if rule is rectify else rule for function, rule in DECONVNET.items()}
RELUS = {name: lambda signal, x, rule=rule: rule(torch.as_tensor(signal), torch.as_tensor(x)).numpy()
         for name, rule in BACKWARD_OF_RELU.items()}


def properties(examples):
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


def randomised(net):
    """The network in evaluation mode, with batch-norm statistics as if it had been trained."""
    random = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
                                      (module.weight.data, 0.5, 1.5), (module.bias.data, -0.3, 0.3)):
                tensor.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)
    return net.eval()


def built(name, **settings):
    torch.manual_seed(0)
    return randomised(getattr(torchvision.models, name)(weights=None, **settings))


NETWORKS = {  # how to build it, image size, layers
    "alexnet": (lambda: built("alexnet"), 112, ["features.3", "features.6", "features.10", "classifier.4"]),
    "vgg16": (lambda: built("vgg16", num_classes=2, init_weights=False).features, 48, ["2", "12", "21"]),
    "vgg11_bn": (lambda: built("vgg11_bn", num_classes=2, init_weights=False).features, 64, ["4", "11", "18"]),
    "squeezenet1_1": (lambda: built("squeezenet1_1"), 96,
                      ["features.3.expand3x3", "features.7", "features.12.expand1x1"]),
    "resnet18": (lambda: built("resnet18"), 96, ["layer1.1.conv2", "layer2.0.downsample.1", "layer3.1.bn2", "fc"]),
    "densenet121": (lambda: built("densenet121"), 64, ["features.denseblock1.denselayer3.conv2",
                                                       "features.transition1.conv",
                                                       "features.denseblock3.denselayer2.conv2"]),
    "zfnet": (lambda: randomised(ZFNet(10, hidden=(16, 16), norm=False)), 224, ["conv2", "conv4", "conv5"]),
}
FUNCTIONAL = {  # Captum sees no ReLU that is not a module
    "googlenet": (lambda: built("googlenet", init_weights=False), 96, ["inception3a.branch3.1.bn", "inception4b"]),
    "inception_v3": (lambda: built("inception_v3", init_weights=False), 96, ["Mixed_5b.branch5x5_2.bn", "Mixed_6a"]),
}
MORE = {
    "zfnet with norm": (lambda: ZFNet(10, hidden=(16, 16)).eval(), 224, ["conv3", "relu5", "fc7"]),
    "alexnet, two towers": (lambda: AlexNet(10, hidden=(16, 16)).eval(), 227, ["conv3", "pool5", "fc6"]),
    "resnext50_32x4d": (lambda: built("resnext50_32x4d"), 64, ["layer3.0.conv3"]),
    "mnasnet0_5": (lambda: built("mnasnet0_5"), 64, ["layers.9.0.layers.6"]),
}
CHEAP = ["alexnet", "vgg11_bn", "squeezenet1_1", "resnet18", "densenet121", "googlenet", *MORE]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    """Each network is built once."""
    nets = {}

    def get(name, dtype=torch.float32):
        build, size, layers = (NETWORKS | FUNCTIONAL | MORE)[name]
        if name not in nets:
            nets.clear()  # one at a time: some are large
            nets[name] = build()
        images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 4 - 2
        return nets[name].to(dtype), images.to(dtype), layers

    return get


def interior_and_corner(tape, layer):
    """The strongest unit in the middle of the map and the strongest in its last corner."""
    maps = tape.activations(layer)
    _, _, height, width = maps.shape
    places = [(height // 2, width // 2), (height - 1, width - 1)]
    return [(0, int(maps[0, :, y, x].argmax()), y, x) for y, x in places]


def assert_close(ours, theirs, tolerance):
    """Relative L2, projection by projection; none of them empty."""
    for one, other in zip(ours, theirs, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= tolerance * other.norm()


def captum(net, images, layer, units):
    """Captum multiplies by nothing: the derivative of the deconvnet, times the activation."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    module, outputs = net.get_submodule(layer), []
    with torch.no_grad(), module.register_forward_hook(lambda module, args, output: outputs.append(output.clone())):
        net(images)
    canvases = []
    for _, unit, y, x in units:
        unit = (unit, y, x) if outputs[0].ndim == 4 else unit
        value = outputs[0][0][unit]
        derivative = NeuronDeconvolution(net, module).attribute(images.clone().requires_grad_(), unit)[0]
        canvases.append(derivative.detach() * value)
    return torch.stack(canvases)


# ---- against others --------------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name in NETWORKS for layer in NETWORKS[name][2]])
def test_agrees_with_captum(network, name, layer):
    net, images, _ = network(name)
    tape = deconvnet.record(net, images)
    units = interior_and_corner(tape, layer)
    assert_close(deconvnet.project(tape, layer, units).on_canvas(), captum(net, images, layer, units), 1e-5)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_captum_to_the_last_digits_in_float64(network, name):
    net, images, layers = network(name, torch.float64)
    tape = deconvnet.record(net, images)
    for layer in layers[:3]:
        units = interior_and_corner(tape, layer)
        assert_close(deconvnet.project(tape, layer, units).on_canvas(), captum(net, images, layer, units), 1e-12)


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_agrees_with_a_clamped_backward_pass_where_relus_are_functions(network, name):
    net, images, layers = network(name)
    tape = deconvnet.record(net, images)
    for layer in layers:
        units = interior_and_corner(tape, layer)
        expected = differentiated(net, images, layer, units, "deconvnet")
        assert_close(deconvnet.project(tape, layer, units).on_canvas(), expected, 1e-5)


@pytest.mark.parametrize("method", BACKWARD_OF_RELU)
@pytest.mark.parametrize("name", CHEAP)
def test_every_method_is_a_backward_pass_with_its_own_relu(network, name, method):
    net, images, layers = network(name)
    tape = deconvnet.record(net, images)
    layer = layers[-1]
    units = interior_and_corner(tape, layer)
    expected = differentiated(net, images, layer, units, method)
    assert_close(deconvnet.project(tape, layer, units, method=method).on_canvas(), expected, 1e-5)


@pytest.mark.parametrize("method", BACKWARD_OF_RELU)
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "zfnet with norm"])
def test_a_whole_map_is_a_backward_pass_of_the_map(network, name, method):
    net, images, layers = network(name)
    tape = deconvnet.record(net, images)
    units = interior_and_corner(tape, layers[0])[:1]
    expected = differentiated(net, images, layers[0], units, method, seed="map")
    found = deconvnet.project(tape, layers[0], units, method=method, seed="map")
    assert_close(found.on_canvas(), expected, 1e-5)
    assert torch.allclose(found.values, tape.activations(layers[0])[0, units[0][1]].sum())


# ---- generated networks, against loops -------------------------------------------------------------------------------

def places(tape, layer, image=0):
    """The first corner, the last corner and the strongest place of the first and of the last unit."""
    maps = tape.activations(layer)[image]
    units, height, width = maps.shape
    peaks = [divmod(int(maps[unit].argmax()), width) for unit in (0, units - 1)]
    return [(image, 0, 0, 0), (image, units - 1, height - 1, width - 1), (image, 0, *peaks[0]),
            (image, units - 1, *peaks[1])]


def slow(plan, number, units, method="deconvnet", center=False):
    canvases = []
    for image, *place in units:
        network = SlowNetwork(plan.nodes, plan.images[image])
        signal = np.zeros_like(network.values[number])
        signal[tuple(place)] = max(network.values[number][tuple(place)], 0)
        canvases.append(network.down(number, signal, RELUS[method], center))
    return torch.tensor(np.stack(canvases))


def equal(one, other, tolerance=1e-10):
    return bool((one - other).norm() <= tolerance * other.norm())


def record(plan):
    net = Network(plan.nodes)
    return net, deconvnet.record(net, torch.tensor(plan.images))


@properties(1000)
@given(plans(), st.data())
def test_the_projection_is_what_loops_give(plan, data):
    number = data.draw(st.sampled_from(plan.named))
    tape = record(plan)[1]
    units = places(tape, plan.layer(number), image=1)
    assert equal(deconvnet.project(tape, plan.layer(number), units).on_canvas(), slow(plan, number, units))


@pytest.mark.parametrize("method", ["gradient", "guided"])
@properties(200)
@given(plan=plans(), data=st.data())
def test_other_methods_are_what_loops_give(method, plan, data):
    number = data.draw(st.sampled_from(plan.named))
    tape = record(plan)[1]
    units = places(tape, plan.layer(number))
    found = deconvnet.project(tape, plan.layer(number), units, method=method).on_canvas()
    assert equal(found, slow(plan, number, units, method))


@properties(100)
@given(plans(blocks=("conv", "relu", "maxpool", "maxpool", "branches")), st.data())
def test_unpooling_to_the_centre_is_what_loops_give(plan, data):
    number = data.draw(st.sampled_from(plan.named))
    tape = record(plan)[1]
    units = places(tape, plan.layer(number))
    found = deconvnet.project(tape, plan.layer(number), units, unpool="center").on_canvas()
    assert equal(found, slow(plan, number, units, center=True))


@properties(100)
@given(plans(), st.data())
def test_what_every_layer_puts_out_is_kept_although_the_network_overwrites_it(plan, data):
    tape = record(plan)[1]
    expected = SlowNetwork(plan.nodes, plan.images[1]).values
    for number in plan.named:
        found = tape.activations(plan.layer(number))[1].numpy()
        assert np.allclose(found, np.maximum(expected[number], 0), rtol=1e-10, atol=1e-12)


@properties(1000)
@given(plans(), st.data())
def test_without_rectification_the_way_down_is_the_exact_adjoint(plan, data):
    """⟨Ax, y⟩ = ⟨x, Aᵀy⟩ for the switches of the recorded image and any x; A leaves out biases and ReLUs."""
    number = data.draw(st.sampled_from(plan.named))
    tape = record(plan)[1]
    network = SlowNetwork(plan.nodes, plan.images[0])
    x = np.random.default_rng(0).normal(size=network.image.shape)
    up = network.linear(x)[number]
    units = places(tape, plan.layer(number))
    down = deconvnet.project(tape, plan.layer(number), units, method=BLIND).on_canvas()
    for (_, *place), canvas in zip(units, down, strict=True):
        y = max(network.values[number][tuple(place)], 0)
        there = up[tuple(place)] * y
        size = np.linalg.norm(x) * canvas.norm().item()
        assert abs(there - (x * canvas.numpy()).sum()) <= 1e-10 * max(size, abs(there), 1e-300)


@properties(100)
@given(plans(relus=False, biases=False), st.data())
def test_of_a_linear_network_the_projection_gives_the_activation_back(plan, data):
    """⟨x, Aᵀy⟩ = ⟨Ax, y⟩ = y² for the image itself, through the public entrance and without an oracle."""
    number = data.draw(st.sampled_from(plan.named))
    tape = record(plan)[1]
    down = deconvnet.project(tape, plan.layer(number), places(tape, plan.layer(number)), method="gradient")
    back = (down.on_canvas() * tape.values[0][0]).sum((1, 2, 3))
    assert torch.allclose(back, down.values**2, rtol=1e-9, atol=1e-12)


@properties(100)
@given(plans(blocks=("conv", "relu", "maxpool", "residual"), last=True), st.data(), st.floats(0.01, 100))
def test_the_way_down_is_positively_homogeneous(plan, data, factor):
    """Filters of the last layer times a: the activation and what one activation brings both grow by a, so a² in all."""
    number = data.draw(st.sampled_from([n for n in plan.named if plan.nodes[n].kind in ("conv", "norm")]))
    layer = plan.layer(number)
    net, tape = record(plan)
    units = places(tape, layer)
    before = deconvnet.project(tape, layer, units)
    module = net.get_submodule(layer)
    module.weight.data *= factor
    module.bias.data *= factor
    after = deconvnet.project(deconvnet.record(net, tape.values[0]), layer, units)
    assert equal(after.pixels, before.pixels * factor**2, 1e-9)


@properties(60)
@given(plans(biases=False), st.data())
def test_a_network_without_biases_projects_an_image_twice_as_strong_twice_as_strongly(plan, data):
    net, tape = record(plan)
    layer = plan.layer(data.draw(st.sampled_from(plan.named)))
    units = places(tape, layer)
    twice = deconvnet.record(net, tape.values[0] * 2)
    assert torch.equal(deconvnet.project(twice, layer, units).pixels, deconvnet.project(tape, layer, units).pixels * 2)


@properties(100)
@given(plans(), st.data())
def test_many_at_once_are_one_by_one(plan, data):
    layer = plan.layer(data.draw(st.sampled_from(plan.named)))
    net, tape = record(plan)
    units = [*places(tape, layer, 1), *places(tape, layer, 0)]
    together = deconvnet.project(tape, layer, units)
    in_threes = deconvnet.project(tape, layer, units, rows=3)
    assert equal(in_threes.pixels, together.pixels, 1e-12)
    assert torch.equal(in_threes.origin, together.origin)
    alone = {image: deconvnet.record(net, tape.values[0][image:image + 1]) for image in (0, 1)}
    for row, (image, *place) in enumerate(units):
        one = deconvnet.project(alone[image], layer, [(0, *place)])
        assert equal(one.pixels[0], together.pixels[row], 1e-12)
        assert torch.equal(one.origin[0], together.origin[row])


# ---- the receptive field ---------------------------------------------------------------------------------------------

def seen(net, image, number_of_units, place):
    """Which rows and which columns of the image a unit sees: where NaN along the whole line reaches its value."""
    _, height, width = image.shape
    lines = [(slice(None), i) for i in range(height)] + [(..., j) for j in range(width)]
    poisoned = image.repeat(height + width, 1, 1, 1)
    for row, line in enumerate(lines):
        poisoned[row][line] = torch.nan
    with torch.no_grad():
        reached = net(poisoned)[:, number_of_units, *place].isnan().tolist()
    return [i for i in range(height) if reached[i]], [j for j in range(width) if reached[height + j]]


@properties(150)
@given(plans(), st.data())
def test_a_unit_sees_its_field_and_nothing_else(plan, data):
    """No line outside the box reaches the unit; where the box lies in the image, its outermost lines do."""
    net, tape = record(plan)
    number = data.draw(st.sampled_from(plan.named))
    until = Network(plan.nodes[:number + 1])
    until.load_state_dict(net.state_dict(), strict=False)
    layer, image = plan.layer(number), tape.values[0][0]
    maps = tape.activations(layer)
    _, _, height, width = maps.shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = deconvnet.receptive_field(net, layer, tuple(image.shape[1:]), len(image)).box(y, x)
    axes = [(s, s + n, n_image) for s, n, n_image in zip(*box, image.shape[1:], strict=True)]
    reached = seen(until, image, 0, (y, x))
    for (first, stop, _), lines in zip(axes, reached, strict=True):
        assert all(first <= line < stop for line in lines)
    if all(first >= 0 and stop <= size for first, stop, size in axes):
        assert [(lines[0], lines[-1] + 1) for lines in reached] == [axis[:2] for axis in axes]


@properties(100)
@given(plans(), st.data())
def test_pixels_outside_the_field_leave_the_activation_as_it_is_bit_for_bit(plan, data):
    net, tape = record(plan)
    layer = plan.layer(data.draw(st.sampled_from(plan.named)))
    images = tape.values[0]
    for image, unit, y, x in places(tape, layer):
        box = deconvnet.receptive_field(net, layer, tuple(images.shape[2:]), images.shape[1]).box(y, x)
        inside = torch.zeros(images.shape[2:], dtype=torch.bool)
        rows, columns = (slice(max(s, 0), max(s + n, 0)) for s, n in zip(*box, strict=True))
        inside[rows, columns] = True
        changed = deconvnet.record(net, torch.where(inside, images, images * 3 + 1))
        assert torch.equal(changed.activations(layer)[image, unit, y, x], tape.activations(layer)[image, unit, y, x])


@properties(100)
@given(plans(), st.data())
def test_the_window_is_the_receptive_field_and_holds_everything_that_arrives(plan, data):
    number = data.draw(st.sampled_from(plan.named))
    layer = plan.layer(number)
    net, tape = record(plan)
    units = places(tape, layer)
    found = deconvnet.project(tape, layer, units)
    image = tuple(tape.values[0].shape[2:])
    field = deconvnet.receptive_field(net, layer, image, tape.values[0].shape[1])
    assert found.size == image
    assert tuple(found.pixels.shape[2:]) == tuple(map(min, field.size, image))
    for (_, _, y, x), origin, canvas in zip(units, found.origin.tolist(), slow(plan, number, units), strict=True):
        box = field.box(y, x)
        assert origin == [s if n <= m else 0 for s, n, m in zip(*box, image, strict=True)]
        rows, columns = (slice(max(s, 0), max(s + n, 0)) for s, n in zip(*box, strict=True))
        canvas[:, rows, columns] = 0
        assert not canvas.any()


def test_a_unit_that_sees_nothing_but_padding_brings_nothing_to_the_image():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 1, 2, padding=3)).eval()
    net[0].bias.data.fill_(1)
    found = deconvnet.project(deconvnet.record(net, torch.rand(1, 1, 1, 1)), "0", [(0, 0, 0, 0), (0, 0, 5, 5)])
    assert found.values.tolist() == [1, 1]
    assert found.on_canvas().shape == (2, 1, 1, 1) and not found.on_canvas().any()


class Unlike(nn.Module):
    """Two branches of different strides: no one stride moves the field of what they meet in."""

    def __init__(self):
        super().__init__()
        self.strided = nn.Conv2d(3, 2, 3, 2, 1)  # 16 → 8
        self.wide = nn.Conv2d(3, 2, 9)           # 16 → 8
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.last(torch.cat([self.strided(x), self.wide(x)], 1))


def test_branches_of_different_strides_lose_nothing():
    torch.manual_seed(0)
    net, images = Unlike().double().eval(), torch.rand(1, 3, 16, 16, dtype=torch.float64)
    tape = deconvnet.record(net, images)
    units = [(0, int(tape.activations("last")[0, :, i, i].argmax()), i, i) for i in (0, 3, 7)]
    found = deconvnet.project(tape, "last", units).on_canvas()
    assert equal(found, differentiated(net, images, "last", units, "deconvnet"))


SHIPPED = {"zfnet": (lambda: ZFNet(2, (4, 4, 4, 4, 4), (4, 4)), 224),
           "alexnet": (lambda: AlexNet(2, hidden=(4, 4)), 227)}


@pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5"])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_field_in_a_shipped_network_is_exact(name, layer):
    build, size = SHIPPED[name]
    torch.manual_seed(0)
    net = build().double().eval()
    image = torch.rand(3, size, size, dtype=torch.float64)
    units = deconvnet.record(net, image[None]).activations(layer).shape[-1]
    y = x = units // 2
    (top, left), (height, width) = deconvnet.receptive_field(net, layer, (size, size)).box(y, x)
    assert min(top, left) >= 0 and max(top + height, left + width) <= size
    poisoned = image.repeat(5, 1, 1, 1)
    outside = torch.ones(size, size, dtype=torch.bool)
    outside[top:top + height, left:left + width] = False
    poisoned[0, :, outside] = torch.nan
    for row, line in enumerate([(top,), (top + height - 1,), (..., left), (..., left + width - 1)], start=1):
        poisoned[row][(slice(None), *line)] = torch.nan
    until = nn.Sequential(*list(net.children())[:list(dict(net.named_children())).index(layer) + 1])
    with torch.no_grad():
        value, *reached = until(poisoned)[:, :, y, x]
        assert torch.equal(value, until(image[None])[0, :, y, x])
    assert all(v.isnan().all() for v in reached)


# ---- what is asked for -----------------------------------------------------------------------------------------------

def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    return deconvnet.record(net, torch.rand(2, 3, 8, 8))


def test_what_is_not_positive_is_no_activation_and_projects_to_nothing():
    net = nn.Sequential(nn.Conv2d(3, 1, 3)).eval()
    nn.init.constant_(net[0].bias, -1e3)
    found = deconvnet.project(deconvnet.record(net, torch.rand(1, 3, 8, 8)), "0", [(0, 0, 2, 2)])
    assert found.values.tolist() == [0] and not found.pixels.any()


def test_a_layer_and_its_relu_name_the_same_activations():
    tape = small()
    units = [(0, 1, 2, 3), (1, 2, 0, 0)]
    assert torch.equal(deconvnet.project(tape, "0", units).pixels, deconvnet.project(tape, "1", units).pixels)


def test_nothing_asked_is_nothing_given():
    found = deconvnet.project(small(), "0", [])
    assert found.pixels.shape == (0, 3, 3, 3) and found.on_canvas().shape == (0, 3, 8, 8)


def test_units_may_be_a_tensor_and_maps_need_no_position():
    tape = small()
    assert torch.equal(deconvnet.project(tape, "0", torch.tensor([[0, 1, 2, 3]])).pixels,
                       deconvnet.project(tape, "0", [(0, 1, 2, 3)]).pixels)
    assert torch.equal(deconvnet.project(tape, "0", [(0, 1)], seed="map").pixels,
                       deconvnet.project(tape, "0", [(0, 1, 2, 3)], seed="map").pixels)


def test_windows_are_placed_by_their_origin():
    pixels = torch.arange(8.0).reshape(2, 1, 2, 2) + 1
    canvas = Projection(pixels, torch.tensor([[-1, 0], [2, 1]]), torch.ones(2), (3, 3)).on_canvas()
    assert canvas[0, 0].tolist() == [[3, 4, 0], [0, 0, 0], [0, 0, 0]]
    assert canvas[1, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 5, 6]]


@pytest.mark.parametrize(("unit", "message"), [
    ((2, 0, 0, 0), "no image 2 on the tape: it has 2, 0 to 1"),
    ((0, 4, 0, 0), "no unit 4 in layer '0': it has 4, 0 to 3"),
    ((0, -1, 0, 0), "no unit -1 in layer '0'"),
    ((0, 0, 6, 0), "no row y 6 in layer '0': it has 6, 0 to 5"),
    ((0, 0, 0, 6), "no column x 6 in layer '0'"),
])
def test_a_unit_that_does_not_exist_is_an_error_that_lists_what_does(unit, message):
    with pytest.raises(UsageError, match=message):
        deconvnet.project(small(), "0", [(0, 0, 0, 0), unit])


@pytest.mark.parametrize("units", [[(0, 0)], [(0, 0, 0)], (0, 0, 0, 0), [(0, 0, 0.5, 0)], [(0, 0), (0, 0, 0, 0)],
                                   [("0", "a", "b", "c")], None])
def test_units_that_are_no_addresses_are_refused(units):
    with pytest.raises(UsageError, match="units must be"):
        deconvnet.project(small(), "0", units)


@pytest.mark.parametrize("choice", ["method", "unpool", "seed"])
def test_a_choice_that_does_not_exist_is_an_error_that_lists_what_does(choice):
    with pytest.raises(UsageError, match=r"no \w+ 'nonsense'; there are: \w+"):
        deconvnet.project(small(), "0", [(0, 0, 0, 0)], **{choice: "nonsense"})


def _silence(call, signal):
    return [replace(part, values=part.values * 0) for part in DECONVNET[call.function](call, signal)]


def test_a_table_of_ones_own_decides():
    tape = small()
    silent = {**DECONVNET, torch.conv2d: _silence, nn.functional.conv2d: _silence}
    assert not deconvnet.project(tape, "1", [(0, 0, 0, 0)], method=silent).pixels.any()
    assert deconvnet.project(tape, "1", [(0, u, 0, 0) for u in range(4)]).pixels.any()
    with pytest.raises(UsageError, match="says itself how it unpools"):
        deconvnet.project(tape, "1", [(0, 0, 0, 0)], method=silent, unpool="center")


@pytest.mark.parametrize("rows", [0, -1, 1.5])
def test_how_many_go_together_is_a_whole_number_from_one(rows):
    with pytest.raises(UsageError, match="rows must be a whole number, 1 at least"):
        deconvnet.project(small(), "1", [(0, 0, 0, 0)], rows=rows)


def test_a_call_that_the_table_lacks_stops_before_any_rule_is_followed():
    followed = []

    def watched(rule):
        return lambda call, signal: (followed.append(call.name), rule(call, signal))[1]

    table = {f: watched(rule) for f, rule in DECONVNET.items() if f not in (torch.conv2d, nn.functional.conv2d)}
    with pytest.raises(DeconvnetError, match="Cannot project through conv2d in 0: it has no rule; look at a layer"):
        deconvnet.project(small(), "4", [(0, 0, 0, 0)], method=table)
    assert not followed


def test_projections_ask_for_no_gradient_and_work_in_inference_mode():
    tape = small()
    assert not deconvnet.project(tape, "0", [(0, 0, 0, 0)], method="gradient").pixels.requires_grad
    with torch.inference_mode():
        net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.LocalResponseNorm(2), nn.ReLU(inplace=True)).eval()
        tape = deconvnet.record(net, torch.rand(1, 3, 8, 8))
        inside = deconvnet.project(tape, "2", [(0, 0, 0, 0)], method="gradient")
    assert torch.equal(inside.pixels, deconvnet.project(tape, "2", [(0, 0, 0, 0)], method="gradient").pixels)
