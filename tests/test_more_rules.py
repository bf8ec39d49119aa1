"""The rules of later networks, on generated geometry, against automatic differentiation with the nonlinearity
exchanged; all networks of torchvision; inputs of other shapes than colour pictures.
"""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import differentiated
from PIL import Image
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

import deconvnet
from deconvnet import cli
from deconvnet.describe import describe, obstacles
from deconvnet.errors import UsageError
from deconvnet.images import Preprocess

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = ("deconvnet", "gradient", "guided")


# ---- the oracle: automatic differentiation through rectifiers that go backward as a method says ----------------------

def backward_of_rectifier(method, signal, x, slope, low, high):
    """What is negative is multiplied by the slope: of the signal, of the derivative, or of one after the other."""
    def lean(values, where):
        return torch.where(where, values, values * slope)

    if method == "deconvnet":
        return lean(signal, signal > 0)
    derivative = lean(signal, (x > low) & (x < high))
    return derivative if method == "gradient" else lean(derivative, derivative > 0)


class _Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, settings):
        ctx.save_for_backward(x.clone())
        ctx.settings = settings
        return y.clone()

    @staticmethod
    def backward(ctx, signal):
        method, slope, low, high = ctx.settings
        return backward_of_rectifier(method, signal, *ctx.saved_tensors, slope, low, high), None, None


RECTIFIERS = {  # name: (where it lies, its slope, lower and upper bound from its arguments after the input)
    "leaky_relu": ((F,), lambda negative_slope=0.01, inplace=False: (negative_slope, 0, torch.inf)),
    "prelu": ((F, torch), lambda weight: (weight[:, None, None].detach(), 0, torch.inf)),
    "rrelu": ((F,), lambda lower, upper, training=False, inplace=False: ((lower + upper) / 2, 0, torch.inf)),
    "relu6": ((F,), lambda inplace=False: (0, 0, 6)),
    "hardtanh": ((F,), lambda min_val=-1, max_val=1, inplace=False: (0, min_val, max_val)),
    "threshold": ((F,), lambda threshold, value, inplace=False: (0, threshold, torch.inf)),
    "clamp": ((torch, torch.Tensor), lambda min=None, max=None: (0, min, torch.inf if max is None else max)),
    "clamp_min": ((torch, torch.Tensor), lambda min: (0, min, torch.inf)),
    "maximum": ((torch,), lambda other: (0, 0, torch.inf)),
}


@contextmanager
def rectifiers(method):
    """While open, every rectifier but the plain ReLU goes backward by the rule of a method."""
    def exchanged(function, settings):
        def rectifier(input, *args, **kwargs):
            with torch.no_grad():
                y = function(input.clone(), *args, **kwargs)
            return _Rectifier.apply(input, y, (method, *settings(*args, **kwargs)))
        return rectifier

    with ExitStack() as patches:
        for name, (places, settings_of) in RECTIFIERS.items():
            for place in places:
                patches.enter_context(patch.object(place, name, exchanged(getattr(place, name), settings_of)))
        yield


def expected(net, images, layer, units, method, seed="activation"):
    with rectifiers(method):
        return differentiated(net, images, layer, units, method, seed)


def assert_same(found, wanted, tolerance):
    """Relative L2, projection by projection."""
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


# ---- generated networks ----------------------------------------------------------------------------------------------

class Step(nn.Module):
    """A few calls as a module, with what they need of modules and constants."""

    def __init__(self, name, function, *needed):
        super().__init__()
        self.name, self.function = name, function
        self.parts = nn.ModuleList(part for part in needed if isinstance(part, nn.Module))
        self.constants = nn.ParameterList(part for part in needed if not isinstance(part, nn.Module))
        self.requires_grad_(False)

    def forward(self, x):
        return self.function(x, *self.parts, *self.constants)

    def extra_repr(self):
        return self.name


def slopes(channels):
    return torch.linspace(0, 1.5, channels, dtype=torch.float64)


NONLINEAR = {
    "relu": lambda c: lambda x: F.relu(x), "leaky relu": lambda c: lambda x: F.leaky_relu(x, 0.2),
    "leaky relu in place": lambda c: nn.LeakyReLU(0.1, inplace=True), "relu6": lambda c: lambda x: F.relu6(x),
    "relu6, module": lambda c: nn.ReLU6(inplace=True), "hardtanh": lambda c: nn.Hardtanh(0, 0.5),
    "threshold": lambda c: nn.Threshold(0.2, 0), "clamp": lambda c: lambda x: x.clamp(0, 0.7),
    "clamp(min)": lambda c: lambda x: torch.clamp(x, min=0), "clamp_min": lambda c: lambda x: x.clamp_min(0),
    "maximum": lambda c: lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype)), "rrelu": lambda c: nn.RReLU(),
    "prelu": lambda c: lambda x: F.prelu(x, slopes(c).to(x.dtype)), "prelu, one": lambda c: nn.PReLU(init=0.3),
}


class Writer:
    """Draws one step after another, keeping track of the maps by running them."""

    def __init__(self, draw):
        self.draw = draw
        torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
        size = draw(st.tuples(st.integers(5, 12), st.integers(5, 12)))
        self.images = torch.randn(2, draw(st.integers(1, 4)), *size, dtype=torch.float64)
        self.now, self.steps = self.images, []

    def add(self, step, name="", *needed):
        module = step if isinstance(step, nn.Module) else Step(name, step, *needed)
        module = module.double().eval()
        with torch.no_grad():
            self.now = module(self.now.clone())
        self.steps.append(module)

    def number(self, low, high):
        return self.draw(st.integers(low, high))

    def conv(self):
        _, c, h, w = self.now.shape
        groups = self.draw(st.sampled_from([g for g in (1, 2, 3, 4) if c % g == 0]))
        k = self.number(1, min(3, h)), self.number(1, min(3, w))
        padding = self.number(0, 2), self.number(0, 2)
        self.add(nn.Conv2d(c, groups * self.number(1, 2), k, self.number(1, 2), padding, groups=groups))

    def nonlinear(self):
        name = self.draw(st.sampled_from(sorted(NONLINEAR)))
        self.add(Step(name, NONLINEAR[name](self.now.shape[1])))

    def transposed(self):
        c = self.now.shape[1]
        groups = self.draw(st.sampled_from([g for g in (1, 2, 3) if c % g == 0]))
        pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
        stride, dilation = self.draw(pairs), self.draw(pairs)
        extra = tuple(self.number(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
        kernel = self.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        reach = [(n - 1) * s + d * (k - 1) + e for n, s, d, k, e in  # of what comes out, but for the last cell
                 zip(self.now.shape[2:], stride, dilation, kernel, extra, strict=True)]
        padding = tuple(self.number(0, min(2, r // 2)) for r in reach)
        self.add(nn.ConvTranspose2d(c, groups * self.number(1, 2), kernel, stride, padding, extra, groups,
                                    dilation=dilation))

    def enlarge(self):
        factors = self.number(1, 3), self.number(1, 2)
        self.add(nn.Upsample(scale_factor=factors))

    def pad(self):
        _, c, h, w = self.now.shape
        sides = [self.number(-(n // 3), 2) for n in (w, w, h, h)]
        channels = [self.number(-(c // 3), 2) for _ in range(2)] if self.draw(st.booleans()) else []
        value = self.draw(st.sampled_from([0.0, 1.5]))
        self.add(lambda x: F.pad(x, [*sides, *channels], value=value), f"pad {sides} {channels} {value}")

    def slice(self):
        _, c, h, w = self.now.shape
        index = [slice(None)]
        for n in (c, h, w):
            start = self.number(0, n // 3)
            index.append(slice(start, self.number(start + 1 + n // 3, n), self.number(1, 3)))
        self.add(lambda x: x[tuple(index)], f"slice {index}")

    def shuffle(self):
        c = self.now.shape[1]
        groups = self.draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))

        def by_hand(x):
            n, c, h, w = x.shape
            return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)

        self.add(self.draw(st.sampled_from([nn.ChannelShuffle(groups), by_hand])), f"shuffle {groups}")

    def parts(self):
        """A residual block on one part of the channels, as in ShuffleNet; the order of the parts exchanged."""
        c = self.now.shape[1]
        first = self.number(0, c)
        sizes = [size for size in (first, c - first) if size]

        def parts(x, conv):
            one, *others = x.split(sizes, 1)
            return torch.cat([*others, F.relu(conv(one))], 1)

        self.add(parts, f"split {sizes}", nn.Conv2d(sizes[0], sizes[0], 3, padding=1))

    def bordered(self):
        """A sum of which one summand has a border put around it."""
        _, c, h, w = self.now.shape
        if min(h, w) > 2:
            self.add(lambda x, conv: x + F.pad(F.relu(conv(x)), (1, 1, 1, 1)), "bordered", nn.Conv2d(c, c, 3))

    def permute(self):
        order = self.draw(st.permutations(range(self.now.shape[1])))
        self.add(lambda x: x[:, order], f"channels {order}")

    def colours(self):
        """As torchvision's networks change the normalisation of their images."""
        c = self.now.shape[1]
        self.add(lambda x: torch.cat([torch.unsqueeze(x[:, i], 1) * (i - 0.5) + 0.1 * i for i in range(c)], 1),
                 "each channel")

    def arithmetic(self):
        per_channel = torch.randn(1, self.now.shape[1], 1, 1, dtype=torch.float64) + 2
        per_cell = torch.randn(self.now.shape[2:], dtype=torch.float64) + 2
        ways = {"a × x": lambda x, a, b: a * x, "x / a": lambda x, a, b: x / a, "x × cells": lambda x, a, b: x * b,
                "×=": lambda x, a, b: x.clone().mul_(-1.5), "1 − x": lambda x, a, b: 1 - x,
                "x − y": lambda x, a, b: F.relu(x) - 0.5 * x, "y − x": lambda x, a, b: 2 * x - F.relu(x),
                "x − x": lambda x, a, b: x - x, "−x": lambda x, a, b: -x, "a − x": lambda x, a, b: a - x,
                "rsub": lambda x, a, b: torch.rsub(x, F.relu(x)), "/=": lambda x, a, b: x.clone().div_(3)}
        name = self.draw(st.sampled_from(sorted(ways)))
        self.add(ways[name], name, per_channel, per_cell)

    def maximum(self):
        h, w = self.now.shape[2:]
        goal = [self.draw(st.sampled_from([o for o in range(1, n + 1) if n % o == 0])) for n in (h, w)]
        self.add(nn.AdaptiveMaxPool2d(goal))

    def flat_and_back(self):
        shape = self.now.shape[1:]
        self.add(lambda x: x.flatten(1).view(len(x), *shape), "flat and back")


STEPS = ("conv", "transposed", "enlarge", "pad", "slice", "shuffle", "parts", "bordered",
         "permute", "colours", "arithmetic", "maximum", "flat_and_back")


@st.composite
def networks(draw, steps=STEPS):
    """A network of the rules of later networks, in float64, and two images for it."""
    writer = Writer(draw)
    for step in ("conv", *draw(st.lists(st.sampled_from(steps), min_size=1, max_size=4)), "conv"):
        if draw(st.booleans()) and writer.steps:
            writer.nonlinear()
        if writer.now.shape[2] * writer.now.shape[3] <= 1500:
            getattr(writer, step)()
    return nn.Sequential(*writer.steps).eval(), writer.images


def places(tape, layer, image=1):
    """Corners, the strongest place of the first and the last unit: (image, unit, y, x)."""
    maps = tape.activations(layer)[image]
    units, height, width = maps.shape
    peaks = [divmod(int(maps[unit].argmax()), width) for unit in (0, units - 1)]
    return [(image, 0, 0, 0), (image, units - 1, height - 1, width - 1), (image, 0, 0, width - 1),
            (image, 0, *peaks[0]), (image, units - 1, *peaks[1])]


def check(net, images, method, tolerance):
    layer = str(len(net) - 1)
    tape = deconvnet.record(net, images)
    units = places(tape, layer)
    found = deconvnet.project(tape, layer, units, method=method)
    assert_same(found.on_canvas(), expected(net, images, layer, units, method), tolerance)


def generated(examples):
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


@pytest.mark.parametrize("method", METHODS)
@generated(150)
@given(networks())
def test_generated_networks_are_differentiated_with_their_own_rectifiers(method, drawn):
    net, images = drawn
    check(net, images, method, 1e-12)


@generated(50)
@given(networks())
def test_in_single_precision_too(drawn):
    net, images = drawn
    check(net.float(), images.float(), "gradient", 1e-5)


@pytest.mark.extended
@pytest.mark.parametrize("method", METHODS)
@generated(3000)
@given(networks())
def test_many_generated_networks_are_differentiated_with_their_own_rectifiers(method, drawn):
    net, images = drawn
    check(net, images, method, 1e-12)


# ---- by hand, and one by one -----------------------------------------------------------------------------------------

def pixel(between, image, second=1.0):
    """What comes down to one pixel: a convolution of one weight, 1, something, and one of weight ``second``."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), between, nn.Conv2d(1, 1, 1, bias=False)).eval()
    net[0].weight.data.fill_(1)
    net[2].weight.data.fill_(second)
    return deconvnet.project(deconvnet.record(net, torch.full((1, 1, 1, 1), image)), "2", [(0, 0, 0, 0)]).pixels.item()


def test_what_is_negative_comes_through_a_leaky_rectifier_with_its_slope():
    assert pixel(nn.ReLU(), -4.0, -1) == 0
    assert pixel(nn.LeakyReLU(0.25), -4.0, -1) == -0.25  # −4 · 0.25 · −1 = 1 goes up; 1 · −1 · 0.25 comes down
    assert pixel(nn.LeakyReLU(0.25), 4.0, 2) == 16       # 8 goes up, 8 · 2 comes down
    assert pixel(nn.PReLU(init=0.5), -4.0, -1) == -1


def test_an_upper_bound_has_no_part_in_the_way_down():
    assert pixel(nn.ReLU6(), 3.0, 10) == 300  # 30 goes up; 300 comes down, and not 6
    assert pixel(nn.Hardtanh(0, 2), 3.0, 10) == 200


def shuffled(groups):
    def shuffle(x):
        n, c, h, w = x.shape
        return x.reshape(n, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)
    return shuffle


MOVES = {  # on (2, 6, 8, 6)
    "shuffle, 2": nn.ChannelShuffle(2), "shuffle, 3": nn.ChannelShuffle(3), "by hand, 2": shuffled(2),
    "by hand, 3": shuffled(3), "chunk": lambda x: x.chunk(4, 1)[1],
    "last chunk": lambda x: torch.chunk(x, 4, dim=-3)[2],
    "split": lambda x: torch.split(x, [1, 3, 2], 1)[1], "unbind": lambda x: x.unbind(1)[3].unsqueeze(1),
    "narrow": lambda x: x.narrow(1, 2, 3), "narrow rows": lambda x: torch.narrow(x, 2, 3, 4),
    "select": lambda x: x.select(1, 4)[:, None], "flip": lambda x: x.flip(1), "last": lambda x: x[:, -1:],
    "every other": lambda x: x[:, ::2, 1::2, 2::3], "cropped": lambda x: x[..., 1:-1, 2:],
    "one channel twice": lambda x: x[:, [5, 0, 0]],
    "by a mask": lambda x: x[:, torch.tensor([True, False] * 3)], "new axes": lambda x: x[:, None, :, :, :].squeeze(1),
    "regrouped": lambda x: x.view(2, 3, 2, 8, 6)[:, 1], "unflatten": lambda x: x.unflatten(1, (2, 3))[:, :, 0],
    "transposed groups": lambda x: x.view(2, 3, 2, 8, 6).transpose(1, 2).reshape(2, 6, 8, 6),
    "parts exchanged": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "part used twice": lambda x: x.chunk(2, 1)[0] * 2,
    "negated": lambda x: -x, "subtracted from": lambda x: 1 - x, "a difference": lambda x: x[:, :3] - 3 * x[:, 3:],
    "row of one": lambda x: x[:, :, 3:4], "padded": lambda x: F.pad(x, (1, 2, 3, -2), value=7.0),
    "channels padded": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)), "cut": lambda x: F.pad(x, (-1, -2)),
    "maximum of all": lambda x: F.adaptive_max_pool2d(x, 1), "maxima": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "maximum and switches": lambda x: F.adaptive_max_pool2d(x, (None, 2), return_indices=True)[0],
}


@pytest.mark.parametrize("name", MOVES)
def test_every_way_to_move_values_is_undone(name):
    torch.manual_seed(0)
    step = MOVES[name] if isinstance(MOVES[name], nn.Module) else Step(name, MOVES[name])
    net = nn.Sequential(nn.Conv2d(3, 6, 3), step).double().eval()
    images = torch.randn(2, 3, 10, 8, dtype=torch.float64)
    maps = deconvnet.record(net, images).activations("1")
    units = [(1, *place) for place in (maps[1] > 0).nonzero()[::3].tolist()]
    wanted = differentiated(net, images, "1", units)
    assert wanted.any()
    found = deconvnet.project(deconvnet.record(net, images), "1", units)
    assert torch.allclose(found.on_canvas(), wanted, rtol=1e-12, atol=1e-14)
    if "max" not in name:  # where a maximum lies is not known before it is seen
        assert found.pixels.shape[2:] == (3, 3)


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (0, 2, 1, 0)])
def test_a_border_of_minus_infinity_is_the_padding_of_a_maximum(sides):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConstantPad2d(sides, -torch.inf), nn.MaxPool2d(3, 2), nn.Conv2d(4, 2, 2))
    images = torch.randn(2, 3, 10, 11)
    tape = deconvnet.record(net.eval(), images)
    units = places(tape, "3")
    found = deconvnet.project(tape, "3", units).on_canvas()
    assert_same(found, expected(net, images, "3", units, "gradient"), 1e-5)
    if set(sides) == {1}:
        usual = nn.Sequential(net[0], nn.Identity(), nn.MaxPool2d(3, 2, 1), net[3])
        assert torch.equal(found, deconvnet.project(deconvnet.record(usual, images), "3", units).on_canvas())


def test_what_a_border_cuts_off_reaches_the_other_summand_all_the_same():
    torch.manual_seed(0)
    step = Step("bordered", lambda x, conv: x + F.pad(conv(x), (1, 1, 1, 1)), nn.Conv2d(4, 4, 3))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), step).double().eval()
    images = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    maps = deconvnet.record(net, images).activations("1")[0]
    units = [(0, int(maps[:, y, x].argmax()), y, x) for y, x in ((0, 0), (0, 3), (6, 6))]
    found = deconvnet.project(deconvnet.record(net, images), "1", units).on_canvas()
    assert found.flatten(1).any(1).all()
    assert_same(found, differentiated(net, images, "1", units), 1e-12)


def test_batch_normalisation_folded_into_its_convolution_gives_the_same_projections():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 4, 3, groups=4),
                        nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, 2)).double().eval()
    with torch.no_grad():
        for norm in (net[1], net[4]):
            for tensor in (norm.running_mean, norm.bias):
                tensor.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.normal_()  # some are negative
    folded = nn.Sequential(*(fuse_conv_bn_eval(net[n], net[n + 1]) if n in (0, 3) else net[n] for n in (0, 2, 3, 5, 6)))
    images = torch.randn(2, 3, 14, 14, dtype=torch.float64)
    before, after = deconvnet.record(net, images), deconvnet.record(folded, images)
    units = places(before, "6")
    assert deconvnet.project(before, "6", units).pixels.any()
    assert_same(deconvnet.project(after, "4", units).pixels, deconvnet.project(before, "6", units).pixels, 1e-12)


def test_without_switches_a_projection_knows_nothing_of_its_image():
    """All-convolutional (Springenberg et al. 2014): of two images, one unit's projections differ in strength alone."""
    def alike(pooling):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pooling, nn.Conv2d(8, 8, 3), nn.ReLU(),
                            nn.Conv2d(8, 4, 3, 2))
        images = torch.rand(2, 3, 20, 20)
        tape = deconvnet.record(net.eval(), images)
        unit = int(tape.activations("5")[:, :, 1, 1].amin(0).argmax())
        found = deconvnet.project(tape, "5", [(0, unit, 1, 1), (1, unit, 1, 1)])
        assert (found.values > 0).all() and found.pixels.any()
        one, other = found.pixels / found.values[:, None, None, None]
        assert_same(found.on_canvas(), expected(net, images, "5", [(n, unit, 1, 1) for n in (0, 1)], "deconvnet"), 1e-5)
        return torch.allclose(one, other, rtol=1e-4, atol=1e-6)

    assert alike(nn.Conv2d(8, 8, 3, 2, groups=2)) and not alike(nn.MaxPool2d(2))


@pytest.mark.parametrize("net", [
    nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.Conv2d(4, 2, 3)),
    nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3)),
    nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Upsample(scale_factor=3), nn.Conv2d(4, 2, 3, 2)),
], ids=["transposed", "enlarged", "enlarged by 3, reduced by 2"])
def test_the_field_of_what_was_enlarged_is_all_that_its_units_see(net):
    layer = str(len(net) - 1)
    field = deconvnet.receptive_field(net, layer, (24, 24))
    assert field.stride == (0, 0)  # no one stride moves it
    image = torch.zeros(1, 3, 24, 24, requires_grad=True)
    maps = net(image)
    for y in range(maps.shape[2]):
        reached = torch.autograd.grad(maps[0, :, y].sum(), image, retain_graph=True)[0].abs().sum((0, 1, 3)).nonzero()
        assert field.start[0] <= int(reached.min()) and int(reached.max()) < field.start[0] + field.size[0]


def test_a_field_that_slides_at_its_corners_only_is_not_taken_for_one_that_slides():
    """Rows 0, 1 and 4 see the pixels 0, 1 and 4, but row 2 sees pixel 1."""
    net = nn.Sequential(nn.Upsample(scale_factor=2), Step("thirds", lambda x: x[:, :, ::3, ::3]),
                        nn.Upsample(scale_factor=3), Step("halves", lambda x: x[:, :, 1::2, 1::2]))
    image = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    found = deconvnet.project(deconvnet.record(net, image), "3", [(0, 0, 2, 2)]).on_canvas()[0, 0]
    assert found[1, 1] == 6 and found.sum() == 6


# ---- the networks of torchvision -------------------------------------------------------------------------------------

MIRRORED = ("alexnet", "densenet", "googlenet", "inception", "mnasnet", "mobilenet_v2", "regnet_x", "resnet", "resnext",
            "shufflenet", "squeezenet", "vgg", "wide_resnet")
REFUSED = {  # family: the call that stops what comes down from its last layer, and why
    "convnext": ("permute", "only slices, parts and permutations of channels"),
    "efficientnet": ("silu", "lets some of what is negative through"),
    "maxvit": ("tanh", "squashes"),
    "mobilenet_v3": ("hardswish", "lets some of what is negative through"),
    "regnet_y": ("mul", "squeeze-and-excitation"),
    "swin": ("permute", "only slices, parts and permutations of channels"),
    "vit": ("__getitem__", "only slices, parts and permutations of channels"),
}
NAMES = torchvision.models.list_models(module=torchvision.models)
GIANTS = ("regnet_y_128gf", "vit_h_14")  # more than 600 million weights


def family(name):
    return next(family for family in (*REFUSED, *MIRRORED) if name.startswith(family))


def built(name):
    """A network of torchvision with random weights, and the size of images for it."""
    torch.manual_seed(0)
    options = {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    with torch.no_grad():
        net = torchvision.models.get_model(name, weights=None, **options).eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.normal_(1, 0.3)
    size = {"vit": 224, "maxvit": 224, "inception": 96, "alexnet": 96}.get(family(name), 64)
    return net, (size, size)


def last_layer(net, tape, kind):
    """The last layer of some kind that the network calls."""
    return [name for name in tape.layers if isinstance(net.get_submodule(name.split("#")[0]), kind)][-1]


def check_of_torchvision(name):
    net, size = built(name)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    tape = deconvnet.record(net, images)
    if family(name) in REFUSED:
        call, reason = REFUSED[family(name)]
        (message,) = obstacles(net, [last_layer(net, tape, nn.Linear)], size).values()
        assert message.startswith(f"Cannot project through {call}") and reason in message
        return
    assert obstacles(net, None, size) == {}
    for layer in {last_layer(net, tape, nn.Conv2d), last_layer(net, tape, nn.Conv2d | nn.Linear)}:
        maps = tape.activations(layer)[0]
        place = maps.shape[1] - 1, maps.shape[2] // 2
        units = [(0, int(maps[:, y, x].argmax()), y, x) for y, x in (place, (0, 0))]
        found = deconvnet.project(tape, layer, units).on_canvas()
        assert found.any() and torch.isfinite(found).all()
        assert_same(found, expected(net, images, layer, units, "deconvnet"), 1e-5)


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v2", "regnet_x_400mf", "shufflenet_v2_x0_5", "convnext_tiny",
                                  "efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf", "swin_t", "vit_b_32"])
def test_a_network_of_torchvision_is_mirrored_or_refused_by_name(name):
    check_of_torchvision(name)


@pytest.mark.extended
@pytest.mark.parametrize("name", [name for name in NAMES if name not in GIANTS])
def test_every_network_of_torchvision_is_mirrored_or_refused_by_name(name):
    check_of_torchvision(name)


def test_no_family_of_torchvision_is_forgotten():
    assert {family(name) for name in NAMES} == {*MIRRORED, *REFUSED}


# ---- networks of one channel, and of many ----------------------------------------------------------------------------

def of_channels(channels, size=28):
    """A small network for images of so many channels, MNIST-like."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
                        nn.Flatten(), nn.Linear(8 * (size // 2 - 2) ** 2, 10)).eval()
    net.preprocess = Preprocess(size, size, (0.4,), (0.3,)) if channels == 1 else None
    return net


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_channels_is_scanned_and_projected(channels):
    net = of_channels(channels)
    images = torch.randn(5, channels, 28, 28, generator=torch.Generator().manual_seed(1))
    top = deconvnet.scan(net, images, k=2, progress=False)
    assert len(describe(net, (28, 28), channels)) == 7 and obstacles(net, None, (28, 28), channels) == {}
    tape = deconvnet.record(net, images)
    for layer in ("3", "6"):
        unit = int(top[layer].maximum.argmax())
        entry = (int(top[layer].images[unit, 0]), unit, *top[layer].positions[unit, 0].tolist())
        found = deconvnet.project(tape, layer, [entry])
        assert found.pixels.shape[1] == channels
        assert torch.allclose(found.values[0], top[layer].values[unit, 0])
        assert_same(found.on_canvas(), expected(net, images, layer, [entry], "deconvnet"), 1e-5)


def test_a_gallery_of_one_channel_is_grey_and_one_of_many_says_what_to_do():
    net, images = of_channels(1), torch.rand(6, 1, 28, 28)
    top = deconvnet.scan(net, images, layers=["3"], k=3, progress=False)
    (made,) = deconvnet.gallery(net, top, "3", [0], images)
    assert made.reconstructions.shape[1] == 3 and made.patches.shape[-1] == 3 and made.reconstructions.any()
    assert (made.reconstructions == made.reconstructions[:, :1]).all() and (made.patches == made.patches[..., :1]).all()
    net, images = of_channels(4), torch.rand(6, 4, 28, 28)
    top = deconvnet.scan(net, images, layers=["3"], k=3, progress=False)
    unit = int(top["3"].maximum.argmax())
    with pytest.raises(UsageError, match=r"have 4 channels, and a picture shows 1 or 3. Choose .*deconvnet.project"):
        list(deconvnet.gallery(net, top, "3", [unit], images))


GREY_NETWORK = '''
import torch
from torch import nn
import deconvnet.images


def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 5), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))
    net.preprocess = deconvnet.images.Preprocess(28, 28, (0.4,), (0.3,))
    return net
'''


def test_a_network_of_one_channel_goes_through_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.py").write_text(GREY_NETWORK, encoding="utf-8")
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(random.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(tmp_path / f"images/{n}.png")
    for command in (["describe", "grey.py:build"],
                    ["scan", "--model", "grey.py:build", "--images", "images", "--out", "top.safetensors"],
                    ["gallery", "top.safetensors", "--out", "sheets"], ["atlas", "top.safetensors", "--out", "atlas"]):
        assert cli.main(command) == 0, capsys.readouterr().err
    assert (tmp_path / "sheets/3.png").exists() and (tmp_path / "atlas/index.html").exists()


def test_the_grey_of_a_picture_is_pillows_and_comes_back_to_the_bit():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))
    preprocess = Preprocess(50, 50, (0.4,), (0.3,))
    made = preprocess(picture)
    assert made.shape == (1, 50, 50)
    expected = np.asarray(picture.convert("L"))
    assert np.array_equal(preprocess.inverse(made), np.repeat(expected[..., None], 3, -1))
    assert torch.equal(preprocess.tensor(picture), made)
    assert np.array_equal(np.asarray(preprocess.view(picture))[..., 0], expected)
    assert torch.allclose(made[0].double(), torch.tensor(expected / 255 - 0.4) / 0.3)


@pytest.mark.parametrize(("mean", "std"), [((0.1, 0.2), (0.1, 0.2)), ((0.1,), (0.1, 0.2, 0.3)), ((), ())])
def test_a_mean_for_another_number_of_channels_is_refused(mean, std):
    with pytest.raises(UsageError, match=r"one for networks of one|one number for each"):
        Preprocess(mean=mean, std=std)


class Other(nn.Module):
    """A convolution, and then something else on what it puts out, flat again."""

    def __init__(self, shape, module):
        super().__init__()
        self.conv, self.shape, self.other = nn.Conv2d(3, 4, 3), shape, module

    def forward(self, x):
        y = self.other(self.conv(x).reshape(-1, *self.shape))
        return (y[0] if isinstance(y, tuple) else y).reshape(len(x), -1)


class Attention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)[0]


SERIES, VOLUME, DEPENDS = "as maps of one row (N, C, 1, L)", "volumes have no rule", "computed from the image itself"
OTHER_DIMENSIONS = {  # what it makes of (4, 6, 6); the module; what is said
    "conv1d": ((4, 36), nn.Conv1d(4, 4, 3), SERIES), "conv3d": ((1, 4, 6, 6), nn.Conv3d(1, 4, 3), VOLUME),
    "conv_transpose1d": ((4, 36), nn.ConvTranspose1d(4, 4, 3), SERIES),
    "conv_transpose3d": ((1, 4, 6, 6), nn.ConvTranspose3d(1, 4, 3), VOLUME),
    "max_pool1d": ((4, 36), nn.MaxPool1d(2), SERIES), "max_pool3d": ((1, 4, 6, 6), nn.MaxPool3d(2), VOLUME),
    "avg_pool1d": ((4, 36), nn.AvgPool1d(2), SERIES), "avg_pool3d": ((1, 4, 6, 6), nn.AvgPool3d(2), VOLUME),
    "adaptive_avg_pool1d": ((4, 36), nn.AdaptiveAvgPool1d(1), SERIES),
    "adaptive_max_pool3d": ((1, 4, 6, 6), nn.AdaptiveMaxPool3d(1), VOLUME),
    "lstm": ((4, 36), nn.LSTM(36, 4, batch_first=True), DEPENDS), "gru": ((4, 36), nn.GRU(36, 4), DEPENDS),
    "rnn_tanh": ((4, 36), nn.RNN(36, 4), DEPENDS),
    "multi_head_attention_forward": ((4, 36), Attention(36, 2), DEPENDS),
    "linear": ((4, 36), nn.Linear(36, 4), "neither feature maps"),
    "layer_norm": ((4, 36), nn.LayerNorm(36), DEPENDS), "glu": ((4, 36), nn.GLU(), DEPENDS),
    "lp_pool2d": ((4, 6, 6), nn.LPPool2d(2, 2), "a norm of its window"),
    "amax": ((4, 6, 6), Step("amax", lambda x: x.amax((2, 3))), "keeps no switch"),
    "normalize": ((4, 36), Step("normalize", lambda x: F.normalize(x)), DEPENDS),
    "elu": ((4, 6, 6), nn.ELU(), "lets some of what is negative through"),
    "tanh": ((4, 6, 6), nn.Tanh(), "squashes"),
}


@pytest.mark.parametrize("name", OTHER_DIMENSIONS)
def test_what_is_not_on_maps_or_not_linear_is_refused_by_name_with_the_reason(name):
    shape, module, words = OTHER_DIMENSIONS[name]
    net = nn.Sequential(Other(shape, module)).eval()
    message = obstacles(net, ["0"], (8, 8))["0"]
    assert message.startswith(f"Cannot project through {name} in 0.other: ") and words in message
    assert deconvnet.record(net, torch.rand(2, 3, 8, 8)).activations("0").ndim == 4  # a scan can look at it


@pytest.mark.parametrize("images", [torch.rand(2, 3, 40), torch.rand(2, 1, 5, 8, 8)], ids=["series", "volumes"])
def test_series_and_volumes_are_refused_with_what_to_do(images):
    net = nn.Sequential(nn.Conv1d(3, 2, 3) if images.ndim == 3 else nn.Conv3d(1, 2, 3)).eval()
    for refused in (lambda: deconvnet.record(net, images),
                    lambda: deconvnet.scan(net, images, layers=["0"], progress=False)):
        with pytest.raises(UsageError, match=r"\(N, C, H, W\), not .*; a series is a map of one row \(N, C, 1, L\)"):
            refused()


def test_a_series_goes_through_as_maps_of_one_row():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, (1, 5)), nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Conv2d(3, 2, (1, 3))).eval()
    images = torch.randn(2, 2, 1, 40)
    tape = deconvnet.record(net, images)
    units = places(tape, "3")
    found = deconvnet.project(tape, "3", units)
    assert found.pixels.shape[2:] == (1, 10)
    assert_same(found.on_canvas(), expected(net, images, "3", units, "deconvnet"), 1e-5)
