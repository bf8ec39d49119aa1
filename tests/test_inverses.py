"""Every rule against automatic differentiation, examples that can be worked by hand, and every refusal."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import differentiated
from torch import nn

import deconvnet
from deconvnet.errors import DeconvnetError
from deconvnet.inverses import (
    DECONVNET,
    GRADIENT,
    METHODS,
    OPERATIONS,
    mask_both,
    mask_forward,
    pass_through,
    rectify,
    table,
    unpool,
    unpool_to_center,
)
from deconvnet.windows import Signal, fit, inside, join, look_up, rewindow


class Step(nn.Module):
    """One call, as a module with a name."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def whole_map(net, image, layer="0", **options):
    """The projection of the first unit's whole map, in the first channel of the image."""
    tape = deconvnet.record(net, image[None, None])
    return deconvnet.project(tape, layer, [(0, 0)], seed="map", **options).on_canvas()[0, 0]


# ---- unpooling -------------------------------------------------------------------------------------------------------

def test_unpooling_puts_each_value_where_the_maximum_was():
    image = torch.tensor([[1, 2, 5, 3], [4, 3, 1, 2], [1, 1, 0, 9], [7, 1, 2, 3]]).float()
    assert whole_map(nn.Sequential(nn.MaxPool2d(2)), image).tolist() == [
        [0, 0, 5, 0], [4, 0, 0, 0], [0, 0, 0, 9], [7, 0, 0, 0]]


def test_one_activation_is_unpooled_alone():
    tape = deconvnet.record(nn.Sequential(nn.MaxPool2d(2)), torch.arange(16.0).reshape(1, 1, 4, 4))
    found = deconvnet.project(tape, "0", [(0, 0, 1, 0)])
    assert found.pixels.tolist() == [[[[0, 0], [0, 13]]]]
    assert found.origin.tolist() == [[2, 0]]


def test_a_peak_shared_by_four_windows_gets_the_sum_of_four():
    image = torch.zeros(5, 5)
    image[2, 2] = 3
    assert whole_map(nn.Sequential(nn.MaxPool2d(3, 2)), image)[2, 2] == 12
    assert whole_map(nn.Sequential(nn.MaxPool2d(3, 2)), image).sum() == 12


def test_unpooling_to_the_centre_needs_no_switches():
    image = torch.arange(25.0).reshape(5, 5)
    found = whole_map(nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True)), image, unpool="center")
    expected = torch.zeros(5, 5)
    expected[1, 1], expected[1, 3], expected[3, 1], expected[3, 3] = 12, 14, 22, 24
    assert torch.equal(found, expected)


@pytest.mark.parametrize("pool", [
    nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(4, 3, 2, ceil_mode=True), nn.MaxPool2d(2, 1, dilation=3), nn.MaxPool2d((1, 5), (3, 1)),
    nn.MaxPool2d(2, 3),
], ids=str)
def test_unpooling_is_the_backward_pass_of_pooling_bit_for_bit(pool):
    torch.manual_seed(0)
    maps = torch.randn(1, 1, 14, 11).relu().requires_grad_()
    pooled = pool(maps)
    expected = torch.autograd.grad(pooled, maps, pooled.detach())[0]
    assert torch.equal(whole_map(nn.Sequential(pool), maps.detach()[0, 0]), expected[0, 0])


@pytest.mark.parametrize("height, width", [(181, 181), (182, 182), (400, 41), (2, 300_000), (3000, 3000)])
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 2, 1)], ids=str)
def test_places_are_exact_on_maps_of_any_size(height, width, pool):
    maps = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pooled = pool(maps)
    expected = torch.autograd.grad(pooled, maps, pooled.detach())[0]
    assert torch.equal(whole_map(nn.Sequential(pool), maps.detach()[0, 0]), expected[0, 0])


# ---- filtering -------------------------------------------------------------------------------------------------------

def test_transposed_filtering_is_correlation_with_filters_flipped_both_ways():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, (3, 5)).double()
    tape = deconvnet.record(nn.Sequential(conv), torch.rand(1, 3, 9, 9, dtype=torch.float64))
    signal = tape.activations("0") * torch.tensor([1.0, 0])[:, None, None]
    flipped = conv.weight.flip(2, 3).transpose(0, 1)
    expected = F.conv2d(F.pad(signal, (4, 4, 2, 2)), flipped)
    assert torch.allclose(deconvnet.project(tape, "0", [(0, 0)], seed="map").on_canvas(), expected, rtol=1e-12)


def test_the_bias_has_no_part_in_the_way_down():
    conv = nn.Conv2d(1, 1, 1)
    conv.weight.data.fill_(2)
    conv.bias.data.fill_(100)
    tape = deconvnet.record(nn.Sequential(conv), torch.ones(1, 1, 1, 1))
    assert deconvnet.project(tape, "0", [(0, 0, 0, 0)]).pixels.item() == 204


def test_pixels_stay_signed_but_what_is_filtered_is_rectified():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 1, bias=False))
    image = torch.ones(1, 1, 1, 1)
    for first, second, expected in ((-1.0, -1.0, 0), (1.0, 2.0, 4)):
        net[0].weight.data.fill_(first)
        net[2].weight.data.fill_(second)
        assert deconvnet.project(deconvnet.record(net, image), "2", [(0, 0, 0, 0)]).pixels.item() == expected
    net[0].weight.data.fill_(-3)
    assert deconvnet.project(deconvnet.record(net, -image), "0", [(0, 0, 0, 0)]).pixels.item() == -9


# ---- every call that has a rule --------------------------------------------------------------------------------------

def pool_with_indices(x):
    pooled, _ = F.max_pool2d(x, 2, return_indices=True)
    return pooled


FUNCTIONS = {
    "x + x": lambda x: x + x, "x + 1": lambda x: x + 1, "1 + x": lambda x: 1 + x,
    "torch.add": lambda x: torch.add(x, x),
    "sum of a list": lambda x: sum([x, x.relu(), x]), "x.add_(x)": lambda x: x.clone().add_(x),
    "+=": lambda x: x.clone().__iadd__(x), "x plus a constant": lambda x: x + torch.ones(1, 4, 1, 1),
    "cat": lambda x: torch.cat([x, x.relu(), x], 1), "cat from the end": lambda x: torch.cat((x, x), dim=-3),
    "concat": lambda x: torch.concat(tensors=[x, x], dim=1),
    "cat(axis=)": lambda x: torch.cat([x, x], axis=1),
    "relu": torch.relu, "x.relu": lambda x: x.relu(), "relu_": lambda x: torch.relu_(x.clone()),
    "x.relu_": lambda x: x.clone().relu_(), "F.relu_": lambda x: F.relu_(x.clone()),
    "F.relu in place": lambda x: F.relu(x.clone(), inplace=True), "F.relu(input=)": lambda x: F.relu(input=x),
    "flatten": lambda x: torch.flatten(x, 1), "x.flatten": lambda x: x.flatten(start_dim=1),
    "reshape": lambda x: x.reshape(len(x), -1), "view": lambda x: x.view(x.size(0), -1),
    "squeeze": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), "flat twice": lambda x: x.flatten(1).flatten(1),
    "mean": lambda x: x.mean((2, 3)), "mean, kept": lambda x: torch.mean(x, [-1, -2], keepdim=True),
    "mean(dim=)": lambda x: x.mean(dim=(3, 2)),
    "adaptive, even": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive, odd": lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
    "adaptive, larger": lambda x: F.adaptive_avg_pool2d(x, 17),
    "adaptive, one axis": lambda x: F.adaptive_avg_pool2d(x, (None, 3)),
    "average": lambda x: F.avg_pool2d(x, 2), "average, padded": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average, ceil": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average, without padding": lambda x: F.avg_pool2d(x, (3, 5), (2, 3), 1, True, False),
    "average, divisor": lambda x: F.avg_pool2d(x, 3, 2, divisor_override=5),
    "maximum": lambda x: F.max_pool2d(x, 3, 2, 1), "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2),
    "maximum and switches": pool_with_indices,
    "maximum(kernel_size=)": lambda x: F.max_pool2d(x, kernel_size=2, ceil_mode=True),
    "dropout": lambda x: F.dropout(x, training=False), "dropout of nothing": lambda x: F.dropout(x, 0.0, training=True),
    "alpha dropout": lambda x: F.alpha_dropout(x, training=False), "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.contiguous(),
    "contrast norm": lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 1.0),
    "batch norm without weights": lambda x: F.batch_norm(x, torch.full((4,), 0.1).double(),
                                                         torch.full((4,), 2.0).double()),
    "linear": lambda x: F.linear(x.flatten(1), torch.linspace(-1, 1, 3 * 360).reshape(3, 360).double()),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_gradient_of_every_call_is_that_of_torch(function):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Step(function)).double().eval()
    images = torch.randn(2, 3, 12, 11, dtype=torch.float64)
    tape = deconvnet.record(net, images)
    maps = tape.activations("1")
    units = [(1, u, y, x) for u, y, x in (maps[1] > 0).nonzero()[::7].tolist()]
    expected = differentiated(net, images, "1", units)
    assert expected.any()
    found = deconvnet.project(tape, "1", units, method="gradient").on_canvas()
    assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("conv", [
    nn.Conv2d(3, 4, 4, padding="same"), nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)),
    nn.Conv2d(3, 4, 3, padding="valid"), nn.Conv2d(3, 6, 5, 3, 2, groups=3), nn.Conv2d(3, 4, 2, dilation=4, padding=3),
    nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
], ids=str)
def test_the_gradient_of_every_convolution_is_that_of_torch(conv):
    torch.manual_seed(0)
    net = nn.Sequential(conv).double().eval()
    images = torch.randn(1, 3, 12, 11, dtype=torch.float64)
    tape = deconvnet.record(net, images)
    units = [(0, u, y, x) for u, y, x in (tape.activations("0")[0] > 0).nonzero().tolist()]
    found = deconvnet.project(tape, "0", units, method="gradient").on_canvas()
    assert torch.allclose(found, differentiated(net, images, "0", units), rtol=1e-11, atol=1e-13)


# ---- refusals --------------------------------------------------------------------------------------------------------

def overwritten_through_a_view(x):
    x[:, :1].mul_(2)
    return x.relu()


class Unknown(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.numpy() * 2)


NO_RULE = "it has no rule; look at a layer below it"
REFUSED = {
    "hardtanh": (nn.Hardtanh(), "only a lower bound of 0"),
    "hardtanh, up to 0": (nn.Hardtanh(-6, 0), "only a lower bound of 0"),
    "silu": (nn.SiLU(), NO_RULE),
    "leaky_relu": (nn.LeakyReLU(-0.1), "a negative slope"), "prelu": (nn.PReLU(4, -0.1), "a negative slope"),
    "gelu": (nn.GELU(), NO_RULE), "sigmoid": (nn.Sigmoid(), NO_RULE),
    "softmax": (nn.Softmax(1), NO_RULE),
    "interpolate": (nn.Upsample(scale_factor=2, mode="bilinear"), "repeating each cell"),
    "interpolate, unevenly": (nn.Upsample(size=9), "repeating each cell"),
    "interpolate, smaller": (nn.Upsample(size=3), "repeating each cell"),
    "instance_norm": (nn.InstanceNorm2d(4), NO_RULE),
    "group_norm": (nn.GroupNorm(2, 4), NO_RULE), "layer_norm": (nn.LayerNorm(6), NO_RULE),
    "pad": (nn.ReflectionPad2d(1), "only constant borders"), "pixel_shuffle": (nn.PixelShuffle(2), NO_RULE),
    "pad, of a convolution": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "only constant borders"),
    "pad, of the batch": (Step(lambda x: F.pad(x, (0,) * 6 + (0, 1))), "it adds images"),
    "transpose": (Step(lambda x: x.transpose(2, 3)), "only slices, parts and permutations of channels"),
    "permute": (Step(lambda x: x.permute(0, 1, 3, 2)), "only slices, parts and permutations of channels"),
    "permute, of images": (Step(lambda x: x.permute(1, 0, 2, 3)), "only slices, parts and permutations of channels"),
    "flip": (Step(lambda x: x.flip(3)), "only slices, parts"), "chunk": (Step(lambda x: x.chunk(2)[1]), "only slices"),
    "__getitem__, of images": (Step(lambda x: x[[1, 0]]), "only slices, parts and permutations of channels"),
    "__getitem__, of rows": (Step(lambda x: x[:, :, [0, 3, 4]]), "only slices, parts and permutations of channels"),
    "__getitem__, by cells": (Step(lambda x: x[:, [0, 1, 2, 3, 0, 1], [5, 0, 1, 2, 3, 4]][:, None]), "only slices"),
    "__getitem__, by images": (Step(lambda x: x[[[0], [1]], [[0, 1], [2, 3]]]), "only slices, parts and permutations"),
    "mul": (Step(lambda x: x * x), "a gate"), "mul, by a mask": (Step(lambda x: x * (x > 0)), "by a mask"),
    "mul, enlarging": (Step(lambda x: x.mean((2, 3), keepdim=True) * torch.ones(1, 4, 5, 5)), "the maps' shape"),
    "div": (Step(lambda x: torch.div(x, 2, rounding_mode="floor")), "without rounding"),
    "div, by the image": (Step(lambda x: torch.ones(1) / x.clamp(min=1)), "only dividing by a constant"),
    "div, of two": (Step(lambda x: x / x.clamp(min=1)), "a gate"), "__rdiv__": (Step(lambda x: 1 / (x + 99)), NO_RULE),
    "sub": (Step(lambda x: x - x.mean((2, 3), keepdim=True)), "only the plain sum"),
    "adaptive_max_pool2d": (nn.AdaptiveMaxPool2d(4), "only where it divides the map evenly"),
    "clamp": (Step(lambda x: x.clamp(max=6)), "only a lower bound of 0"),
    "clamp, above 0": (Step(lambda x: x.clamp(0.1, 6)), "only a lower bound of 0"),
    "clamp, by tensors": (Step(lambda x: torch.clamp(x, torch.zeros(()))), "only bounds that are numbers"),
    "maximum": (Step(lambda x: torch.maximum(x, torch.ones(()))), "only the maximum with 0"),
    "maximum, of two": (Step(lambda x: torch.maximum(x, x + 1)), "only the maximum with 0"),
    "_threshold": (nn.Threshold(0.1, 20), "only a lower bound of 0"),
    "rrelu": (nn.RReLU().train(), "it is in training mode; call net.eval() first"),
    "batch_norm": (nn.BatchNorm2d(4).train(), "it is in training mode; call net.eval() first"),
    "batch_norm, of the batch": (nn.BatchNorm2d(4, track_running_stats=False), "track_running_stats=True"),
    "dropout": (nn.Dropout().train(), "it is in training mode; call net.eval() first"),
    "add, broadcast": (Step(lambda x: x + x.mean((2, 3), keepdim=True)), "only the plain sum of tensors of one shape"),
    "add, of a constant that is larger": (Step(lambda x: x.mean((2, 3), keepdim=True) + torch.ones(1, 4, 5, 5)),
                                          "only the plain sum"),
    "add, weighted": (Step(lambda x: torch.add(x, x, alpha=2)), "only the plain sum"),
    "add, into an argument": (Step(lambda x: torch.add(x, x.relu(), out=x)), "leave that out"),
    "cat, of rows": (Step(lambda x: torch.cat([x, x], 2)), "only the concatenation of channels"),
    "cat, of columns": (Step(lambda x: torch.cat([x, x], axis=3)), "only the concatenation of channels"),
    "cat, with a constant": (Step(lambda x: torch.cat([x, torch.zeros(2, 1, 6, 6)], 1)),
                             "of tensors made from the image"),
    "mean, of a row": (Step(lambda x: x.mean(3, keepdim=True)), "only the mean over the whole map"),
    "flatten, of rows": (Step(lambda x: x.flatten(2).flatten(1)), "neither feature maps"),
    "view, as other maps": (Step(lambda x: x.view(2, 2, 12, 6)), "only flattening"),
    "pad, of what is flat": (Step(lambda x: F.pad(x.flatten(1), (0, 1))), "only for feature maps"),
    "chunk, of what is flat": (Step(lambda x: x.flatten(1).chunk(2, 1)[0]), "only for feature maps"),
    "linear, on maps": (nn.Linear(6, 6), "only what is flat"),
    "conv2d, with filters from the image": (Step(lambda x: F.conv2d(x, x[:, :, :2, :2])),
                                            "to be transposed; look at a layer below it"),
    "mul, by a number from the image": (Step(lambda x: x * x.mean()), "a number that is computed from the image"),
    "conv2d, with the image as filters": (Step(lambda x: F.conv2d(torch.ones(1, 4, 8, 8), x)), "its weights depend"),
    "relu, after writing through a view": (Step(overwritten_through_a_view), "changed through a view"),
    "add, with something from elsewhere": (Step(lambda x: x + torch.from_numpy(x.numpy() * 2)),
                                           "no recorded call made"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_rule_is_refused_by_name_with_module_and_remedy(case):
    module, remedy = REFUSED[case]
    training = module.training
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(module)).eval()
    module.train(training and isinstance(module, (nn.BatchNorm2d, nn.Dropout, nn.RReLU)))
    if "of the batch" in case:
        module.eval()
    tape = deconvnet.record(net, torch.rand(2, 3, 8, 8))
    with pytest.raises(DeconvnetError) as error:
        deconvnet.project(tape, "1.0", [(0, 0)], seed="map")
    message = str(error.value)
    assert remedy in message
    assert message.startswith(f"Cannot project through {case.split(',')[0]} in 1.0: ")


def test_what_only_another_branch_does_is_no_obstacle():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Sigmoid()

        def forward(self, x):
            return self.left(x), self.right(x)

    tape = deconvnet.record(Forked(), torch.rand(1, 3, 8, 8))
    assert deconvnet.project(tape, "left", [(0, 0, 0, 0)]).pixels.shape == (1, 3, 3, 3)
    with pytest.raises(DeconvnetError, match="sigmoid in right"):
        deconvnet.project(tape, "right", [(0, 0, 0, 0)])


# ---- methods ---------------------------------------------------------------------------------------------------------

def test_methods_differ_in_the_rows_of_relu_and_contrast_norm_only():
    for method, rule in (("gradient", mask_forward), ("guided", mask_both)):
        different = {f: METHODS[method][f] for f in DECONVNET if METHODS[method][f] is not DECONVNET[f]}
        assert {r for f, r in different.items() if f is not F.local_response_norm} == {rule}
        assert {f for f, r in DECONVNET.items() if r is rectify} | {F.local_response_norm} == set(different)
    for function in (F.local_response_norm, F.dropout, F.dropout2d, F.alpha_dropout):
        assert DECONVNET[function] is pass_through


def test_unpooling_changes_the_rows_of_max_pooling_only():
    for method in METHODS:
        centred = table(method, "center")
        changed = {f for f in DECONVNET if centred[f] is not METHODS[method][f]}
        assert changed == {f for f, rule in DECONVNET.items() if rule is unpool}
        assert {centred[f] for f in changed} == {unpool_to_center}


def test_every_operation_has_a_rule_in_every_method():
    assert all(set(rules) == set(OPERATIONS) for rules in METHODS.values())
    assert table("gradient") == GRADIENT


# ---- windows, against whole canvases ---------------------------------------------------------------------------------

@st.composite
def signals(draw, rows=2):
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    values = torch.arange(1.0, 1 + rows * 2 * h * w).reshape(rows, 2, h, w)
    corner = st.integers(-7, 7)
    origin = draw(st.lists(st.tuples(corner, corner), min_size=rows, max_size=rows))
    return Signal(values, torch.tensor(origin if draw(st.booleans()) else origin[:1] * rows), torch.arange(rows))


def canvas(signal, reach=24):
    """The signal on a large canvas whose middle is the map's corner, cell by cell."""
    whole = torch.zeros(*signal.values.shape[:2], 2 * reach, 2 * reach)
    for row, (y, x) in enumerate(signal.origin.tolist()):
        h, w = signal.values.shape[2:]
        whole[row, :, reach + y:reach + y + h, reach + x:reach + x + w] += signal.values[row]
    return whole


def on_map(whole, size, reach=24):
    """A canvas with zeros where the map is not."""
    frame = torch.zeros_like(whole)
    frame[:, :, reach:reach + size[0], reach:reach + size[1]] = 1
    return whole * frame


windows = settings(max_examples=150, derandomize=True, database=None, deadline=None)
sizes = st.tuples(st.integers(1, 8), st.integers(1, 8))


@windows
@given(signals(), sizes, st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=2))
def test_a_new_window_shows_the_same_signal(signal, size, origin):
    origin = torch.tensor(origin)
    moved = rewindow(signal, origin, size)
    frame = canvas(Signal(torch.ones(2, 2, *size), origin, signal.image))
    assert torch.equal(canvas(moved), canvas(signal) * frame)


@windows
@given(signals(), sizes)
def test_fitting_leaves_nothing_outside_the_map_and_everything_inside(signal, size):
    before = signal.values.clone()
    fitted = fit(signal, size, above=signal)
    assert torch.equal(signal.values, before), "what others may still look at stays as it is"
    in_place = fit(Signal(before, signal.origin, signal.image), size, above=signal)
    assert torch.equal(in_place.values, fitted.values) and torch.equal(in_place.origin, fitted.origin)
    assert fitted.values.shape[2] <= size[0] and fitted.values.shape[3] <= size[1]
    assert torch.equal(canvas(fitted), on_map(canvas(signal), size))


@windows
@given(signals(), sizes)
def test_windows_moved_inside_a_map_lose_nothing_that_is_on_it_and_are_no_larger_than_needed(signal, size):
    before = signal.values.clone()
    moved = inside(signal, size, above=signal)
    assert torch.equal(signal.values, before), "what others may still look at stays as it is"
    assert torch.equal(canvas(moved), on_map(canvas(signal), size))
    needed = [[min(o + n, m) - max(o, 0) for o, n, m in zip(row, signal.values.shape[2:], size, strict=True)]
              for row in signal.origin.tolist()]
    assert list(moved.values.shape[2:]) == torch.tensor(needed).amax(0).clamp(min=1).tolist()


@windows
@given(signals(), signals())
def test_signals_that_meet_are_added_on_their_union(one, other):
    assert torch.equal(canvas(join(one, other)), canvas(one) + canvas(other))


@windows
@given(signals(), sizes)
def test_what_lies_under_a_window_is_the_map_and_outside_it_the_edge(signal, size):
    maps = torch.arange(float(2 * 3 * size[0] * size[1])).reshape(2, 3, *size)
    found = look_up(maps, signal)
    for row, (y, x) in enumerate(signal.origin.tolist()):
        for i, j in torch.cartesian_prod(*map(torch.arange, signal.values.shape[2:])).tolist():
            inside = min(max(y + i, 0), size[0] - 1), min(max(x + j, 0), size[1] - 1)
            assert torch.equal(found[row, :, i, j], maps[row, :, *inside])
