"""What is recorded, under which names, and what is refused; and that the network is left as it was found."""

import copy
import operator

import pytest
import torch
import torch.nn.functional as F
import torchvision
from oracles import differentiated
from torch import nn
from torch.nn.modules import module as torch_module

import deconvnet
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.inverses import DECONVNET
from deconvnet.tape import record_as_far_as
from deconvnet.watching import count_calls, resolve, watch


class Net(nn.Module):
    """A network of named modules and a forward of one's own."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            self.add_module(name, module)
        self.double().eval()

    def forward(self, x):
        return self.run(self, x)


def conv(inputs=3, outputs=4):
    torch.manual_seed(inputs * outputs)
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def images(n=2):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def names(tape):
    return [call.name for call in tape.calls]


def agrees(net, layer, method="gradient"):
    """Whether what is projected is what automatic differentiation gives, for every positive activation of one row."""
    tape = deconvnet.record(net, images())
    units = [(1, u, 3, x) for u, x in (tape.activations(layer)[1, :, 3] > 0).nonzero().tolist()]
    found = deconvnet.project(tape, layer, units, method=method).on_canvas()
    return len(units) > 3 and torch.allclose(found, differentiated(net, images(), layer, units, method), rtol=1e-11)


METHODS = pytest.mark.parametrize("method", ["deconvnet", "gradient", "guided"])


# ---- calls, however they are written ---------------------------------------------------------------------------------

RELUS = {
    "module": lambda net, x: net.relu(x), "module in place": lambda net, x: net.relu_in_place(x),
    "function": lambda net, x: F.relu(x), "function in place": lambda net, x: F.relu(x, inplace=True),
    "F.relu_": lambda net, x: F.relu_(x), "torch": lambda net, x: torch.relu(x),
    "torch.relu_": lambda net, x: torch.relu_(x), "method": lambda net, x: x.relu(),
    "method in place": lambda net, x: x.relu_(),
}


@METHODS
@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_it_does_not_matter_how_a_relu_is_called(relu, method):
    net = Net(lambda net, x: net.two(relu(net, net.one(x))), one=conv(), two=conv(4, 5), relu=nn.ReLU(),
              relu_in_place=nn.ReLU(inplace=True))
    tape = deconvnet.record(net, images())
    assert torch.equal(tape.activations("one"), net.one(images()).relu())
    assert len(tape.calls) == 3
    assert agrees(net, "two", method)


@METHODS
def test_one_relu_used_five_times_is_five_calls(method):
    def forward(net, x):
        for layer in (net.one, net.two, net.three, net.four, net.five):
            x = net.relu(layer(x))
        return x

    net = Net(forward, one=conv(), two=conv(4, 4), three=conv(4, 4), four=conv(4, 4), five=conv(4, 4), relu=nn.ReLU())
    tape = deconvnet.record(net, images())
    for n, layer in enumerate(("one", "two", "three", "four", "five"), start=1):
        assert torch.equal(tape.activations(f"relu#{n}"), tape.activations(layer))
    assert agrees(net, "relu#5", method)
    with pytest.raises(UsageError, match="called 5 times; say which call: relu#1, relu#2, relu#3, relu#4, relu#5"):
        tape.activations("relu")
    with pytest.raises(UsageError, match="called 5 times"):
        tape.activations("relu#6")


SUMS = {"+=": operator.iadd, "add_": torch.Tensor.add_, "+": operator.add, "torch.add": torch.add}


@METHODS
@pytest.mark.parametrize("add", SUMS.values(), ids=SUMS)
def test_a_sum_in_place_leaves_its_summand_as_it_was(add, method):
    net = Net(lambda net, x: net.out(F.relu(add(net.one(x), net.two(x)), inplace=True)),
              one=conv(), two=conv(), out=conv(4, 5))
    tape = deconvnet.record(net, images())
    assert torch.equal(tape.activations("one"), net.one(images()).relu())
    assert torch.equal(tape.activations("two"), net.two(images()).relu())
    assert agrees(net, "out", method)


@METHODS
def test_a_sum_in_place_after_a_relu_in_place_changes_neither_activation_nor_mask(method):
    def forward(net, x):
        y = net.relu(net.one(x))
        y += net.two(x)
        return net.out(y)

    net = Net(forward, one=conv(), two=conv(), out=conv(4, 5), relu=nn.ReLU(inplace=True))
    tape = deconvnet.record(net, images())
    assert torch.equal(tape.activations("one"), net.one(images()).relu())
    assert torch.equal(tape.activations("relu"), net.one(images()).relu())
    assert agrees(net, "out", method)


@METHODS
def test_what_was_used_before_a_relu_in_place_is_kept_as_it_was_used(method):
    def forward(net, x):
        y = net.one(x)
        z = net.norm(y)
        return net.out(z + F.relu(y, inplace=True))

    net = Net(forward, one=conv(), out=conv(4, 5), norm=nn.LocalResponseNorm(3, 1.0))
    assert agrees(net, "out", method)


@METHODS
def test_a_mask_survives_what_happens_to_the_input_of_its_relu(method):
    def forward(net, x):
        y = net.one(x)
        z = F.relu(y)
        y.add_(10)
        return net.out(z + y)

    assert agrees(Net(forward, one=conv(), out=conv(4, 5)), "out", method)


def test_resnet_keeps_what_batch_norm_put_out_before_the_shortcut_was_added():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None).eval()
    seen = {}
    hooks = [block.bn2.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out.clone()}))
             for name, block in net.named_modules() if hasattr(block, "bn2")]
    x = torch.randn(1, 3, 64, 64)
    tape = deconvnet.record(net, x)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 8
    for name, output in seen.items():
        assert torch.equal(tape.activations(f"{name}.bn2"), output.relu())
        assert torch.equal(tape.activations(name), tape.activations(f"{name}.relu#2"))


@METHODS
def test_a_list_that_the_network_changes_after_the_call_is_recorded_as_it_was(method):
    def forward(net, x):
        parts = [net.one(x), net.two(x)]
        y = net.out(torch.cat(parts, 1))
        parts.clear()
        return y

    net = Net(forward, one=conv(), two=conv(), out=conv(8, 5))
    assert agrees(net, "out", method)


def test_switches_are_those_of_the_pooling():
    tape = deconvnet.record(nn.Sequential(nn.MaxPool2d(2)), torch.arange(16.0).reshape(1, 1, 4, 4))
    assert tape.calls[0].switches.tolist() == [[[[5, 7], [13, 15]]]]


@pytest.mark.parametrize("width, dtype", [(2 ** 14 - 1, torch.int16), (2 ** 14, torch.int32)])
def test_switches_have_no_more_bytes_than_their_places_need(width, dtype):
    maps = torch.zeros(1, 1, 2, width)
    maps[..., -1, -1] = 1
    tape = deconvnet.record(nn.Sequential(nn.MaxPool2d(2)), maps)
    assert tape.calls[0].switches.dtype == dtype
    assert width % 2 or tape.calls[0].switches[..., -1] == 2 * width - 1


def test_the_memory_of_a_tape_is_that_of_its_values_and_switches_each_counted_once():
    tape = deconvnet.record(nn.Sequential(nn.MaxPool2d(2), nn.ReLU(inplace=True)), torch.zeros(1, 1, 4, 4))
    assert tape.memory == 16 * 4 + 4 * 4 + 4 * 2  # images, what is pooled and rectified in place, places


def test_a_network_that_asks_for_the_places_of_maxima_gets_torchs_own():
    net = Net(lambda net, x: F.max_unpool2d(*net.pool(x), 2), pool=nn.MaxPool2d(2, return_indices=True))
    images = torch.rand(1, 1, 4, 4)
    assert torch.equal(deconvnet.record(net, images).values[-1], net(images))


def test_a_network_may_take_the_places_of_maxima_as_they_lie_in_memory():
    net = Net(lambda net, x: sum(one.view(2, -1) for one in net.pool(x)), pool=nn.MaxPool2d(2, return_indices=True))
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(deconvnet.record(net, images).values[-1], net(images))


def test_the_network_puts_out_what_it_would_have():
    torch.manual_seed(0)
    net = nn.Sequential(conv(), nn.MaxPool2d(2, return_indices=True)).eval().double()
    seen = []
    hook = net.register_forward_hook(lambda module, args, output: seen.append(output))
    deconvnet.record(net, images())
    hook.remove()
    expected = net(images())
    assert torch.equal(seen[0][0], expected[0]) and torch.equal(seen[0][1], expected[1])


@pytest.mark.parametrize("make", [
    lambda net, x: net.out(net.one(x) + net.table),
    lambda net, x: net.out(net.one(x) + torch.ones(4, 1, 1)),
    lambda net, x: net.out(net.one(x) + torch.arange(8).double()),
    lambda net, x: F.conv2d(net.one(x), net.out.weight * 2),
], ids=["a buffer", "ones", "a position code", "weights computed on the fly"])
def test_constants_may_be_registered_or_made_on_the_way(make):
    net = Net(make, one=conv(), out=conv(4, 5), name=nn.Identity())
    net.register_buffer("table", torch.randn(4, 8, 8, dtype=torch.float64))
    named = Net(lambda outer, x: outer.net(x), net=net)
    assert agrees(named, "net")


# ---- what cannot be followed -----------------------------------------------------------------------------------------

class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.numpy() * 2)

    @staticmethod
    def backward(ctx, signal):
        return signal * 2


def changed_through_a_view(net, x):
    y = net.one(x)
    y[:, 0].mul_(2)
    return net.out(y)


def changed_last_through_a_view(net, x):
    y = net.out(net.one(x))
    y[:, 0].mul_(2)
    return y


LOST = {
    "a tensor of unknown origin": lambda net, x: net.out(net.one(x) + net.plain[:2]),
    "a branch computed in NumPy": lambda net, x: net.out(net.one(x) + torch.from_numpy(net.two(x).numpy() * 2)),
    "everything computed in NumPy": lambda net, x: net.out(torch.from_numpy(net.one(x).numpy() * 2)),
    "a custom function": lambda net, x: net.out(Custom.apply(net.one(x))),
    "a custom function beside": lambda net, x: net.out(Custom.apply(net.one(x)) + net.two(x)),
    "changed through a view": changed_through_a_view,
    "changed through a view at last": changed_last_through_a_view,
    "changed by index": lambda net, x: net.out(operator.setitem(y := net.one(x), (0, 0), 1.0) or y),
    "filters of unknown origin": lambda net, x: net.out(F.conv2d(net.one(x), net.plain)),
}


@pytest.mark.parametrize("forward", LOST.values(), ids=LOST)
def test_what_cannot_be_followed_is_refused(forward):
    net = Net(forward, one=conv(), two=conv(), out=conv(4, 5))
    net.plain = torch.randn(4, 4, 8, 8, dtype=torch.float64)
    named = Net(lambda outer, x: outer.net(x), net=net)
    with pytest.raises(DeconvnetError, match="Cannot project"):
        deconvnet.project(deconvnet.record(named, images()), "net", [(0, 0, 0, 0)])


def test_activations_that_were_changed_through_a_view_are_still_those_of_the_layer():
    net = Net(changed_through_a_view, one=conv(), out=conv(4, 5))
    assert torch.equal(deconvnet.record(net, images()).activations("one"), net.one(images()).relu())


def test_a_layer_that_does_not_depend_on_the_images_is_refused():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(1, 4, 8, 8))

        def forward(self):
            return self.weight * 2

    tape = deconvnet.record(Net(lambda net, x: net.one(x) + net.table(), one=conv(), table=Table()), images())
    with pytest.raises(DeconvnetError, match="nothing of this layer depends on the images"):
        deconvnet.project(tape, "table", [(0, 0, 0, 0)])


@pytest.mark.parametrize("bad", [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [1], None,
                                 torch.zeros(0, 3, 8, 8), torch.zeros(1, 3, 0, 8)], ids=str)
def test_images_that_are_no_batch_are_refused(bad):
    with pytest.raises(UsageError, match=r"images must be a floating-point tensor \(N, C, H, W\), not "):
        deconvnet.record(nn.Sequential(conv()), bad)


def test_a_layer_that_does_not_exist_is_an_error_that_lists_what_does():
    tape = deconvnet.record(Net(lambda net, x: net.conv1(x), conv1=conv(), relu1=nn.ReLU()), images())
    with pytest.raises(UsageError, match=r"no layer 'conv'\. Did you mean 'conv1'\? The layers are: conv1$"):
        tape.activations("conv")
    with pytest.raises(UsageError, match="no layer 'relu1'"):
        tape.activations("relu1")  # it exists, but the forward never calls it


def test_a_layer_that_puts_out_no_feature_maps_is_refused_by_name():
    net = Net(lambda net, x: net.line(net.one(x).flatten(2)), one=conv(), line=nn.Linear(64, 2))
    with pytest.raises(UsageError, match=r"Layer 'line' puts out \(2, 4, 2\)"):
        deconvnet.record(net, images()).activations("line")


@pytest.mark.parametrize(("layer", "calls", "key"), [
    ("a", {"a": 1}, "a"), ("a#1", {"a": 1}, "a"), ("a#1", {"a": 2}, "a"), ("a#2", {"a": 2}, "a#2")])
def test_an_address_has_one_key(layer, calls, key):
    assert resolve(layer, calls) == key


def test_calls_are_counted_by_name():
    assert count_calls(["a", "b", "a#2", "a#3"]) == {"a": 3, "b": 1}


# ---- NaN and infinity ------------------------------------------------------------------------------------------------

def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                         nn.LocalResponseNorm(2), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 3), nn.Linear(3, 2)).double().eval()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("layer", ["0", "1", "5", "8", "9"])
def test_nan_or_infinity_in_any_weight_stops_and_names_the_layer(layer, value):
    net = small_network()
    net.get_submodule(layer).weight.data.view(-1)[0] = value
    with pytest.raises(DeconvnetError, match=f"NaN or infinity in layer '{layer}' .*for image 0"):
        deconvnet.record(net, images().abs())


@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"])
def test_infinity_that_arises_in_any_layer_stops_and_names_it(layer):
    class Burst(nn.Module):
        def forward(self, x):
            x = x.clone()
            return x / (torch.arange(len(x)).double() != 1).double().view(-1, *[1] * (x.ndim - 1))

    net = small_network()
    setattr(net, layer, Burst())
    with pytest.raises(DeconvnetError, match=f"infinity in layer '{layer}' .*for image 1 "):
        deconvnet.record(net, images(3) + 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinity_in_the_images_stops(value):
    bad = images(4)
    bad[2, 1, 3, 3] = value
    with pytest.raises(DeconvnetError, match="NaN or infinity in the images, for image 2"):
        deconvnet.record(small_network(), bad)


def test_values_whose_sum_overflows_are_no_infinity():
    net = nn.Sequential(nn.Identity(), nn.ReLU())
    assert deconvnet.record(net, torch.full((1, 3, 8, 8), 3e38)).activations("1").isfinite().all()


# ---- the network is left as it was found -----------------------------------------------------------------------------

def state(net):
    hooks = [{k: len(v) for k, v in vars(m).items() if "hooks" in k} for m in net.modules()]
    everywhere = {k: len(v) for k, v in vars(torch_module).items() if k.startswith("_global") and isinstance(v, dict)}
    return (hooks, everywhere, [m.training for m in net.modules()],
            [(p.requires_grad, p.grad, p.dtype, p._version) for p in net.parameters()], torch.is_grad_enabled(),
            list(net.state_dict()), [list(vars(m)) for m in net.modules()])


def left_as_it_was(net, run):
    before, tensors = state(net), copy.deepcopy(net.state_dict())
    run(net)
    return state(net) == before and all(torch.equal(t, tensors[name]) for name, t in net.state_dict().items())


def record_and_project(net):
    for method in ("deconvnet", "gradient", "guided"):
        deconvnet.project(deconvnet.record(net, images()), "5", [(0, 0, 0, 0)], method=method)


class Stop(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


def stopped_by(error):
    def run(net):
        last = net[5]
        net[5] = Stop(error)
        try:
            with pytest.raises(type(error)):
                deconvnet.record(net, images())
        finally:
            net[5] = last
    return run


def stopped_by_nan(net):
    with pytest.raises(DeconvnetError):
        deconvnet.record(net, images() * torch.nan)


RUNS = {"projected": record_and_project, "an error inside": stopped_by(ValueError("broken")),
        "Ctrl-C": stopped_by(KeyboardInterrupt()), "NaN": stopped_by_nan}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("prepare", [lambda net: net.eval(), lambda net: net.eval().requires_grad_(False)],
                         ids=["eval", "frozen"])
def test_the_network_is_left_as_it_was_found(prepare, run):
    assert left_as_it_was(prepare(small_network()), run)


@pytest.mark.parametrize("run", [lambda net: deconvnet.record(net, images()), RUNS["an error inside"]],
                         ids=["recorded", "an error inside"])
def test_in_training_mode_too_the_running_statistics_are_left_as_they_were(run):
    assert left_as_it_was(small_network().train(), run)


def test_recording_a_thousand_times_leaves_no_hook_and_follows_no_gradient():
    net = nn.Sequential(nn.Conv2d(3, 2, 3)).double()
    hooks = len(torch_module._global_forward_hooks)
    tapes = [deconvnet.record(net, images().requires_grad_()) for _ in range(100)]
    assert len(torch_module._global_forward_hooks) == hooks
    assert not any(value.requires_grad for tape in tapes for value in tape.values[1:])


@pytest.mark.parametrize("first", [nn.Identity(), nn.ReLU(inplace=True), nn.Dropout(inplace=True)])
def test_the_images_are_left_as_they_were(first):
    x = images()
    tape = deconvnet.record(nn.Sequential(first, small_network()).eval(), x)
    assert torch.equal(x, images())
    x.zero_()
    assert tape.activations("0").any()  # nor does the tape change with them


class Precision(nn.Module):
    def forward(self, x):
        self.seen = torch.backends.cudnn.allow_tf32
        return x.relu()


def test_convolutions_are_computed_in_full_precision_up_and_down():
    before = torch.backends.cudnn.allow_tf32
    net, seen = nn.Sequential(Precision()), []
    table = {**DECONVNET, torch.Tensor.relu: lambda call, s: [seen.append(torch.backends.cudnn.allow_tf32), s][1:]}
    deconvnet.project(deconvnet.record(net, images()), "0", [(0, 0, 0, 0)], method=table)
    assert net[0].seen is False and seen == [False]
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_tape_as_far_as_a_layer_is_the_same_and_the_rest_is_not_run():
    net = small_network()
    whole = deconvnet.project(deconvnet.record(net, images()), "5", [(0, 0, 0, 0), (1, 1, 2, 2)])
    net[6] = Stop(ValueError("not to be called"))
    hooks = len(torch_module._global_forward_hooks)
    tape = record_as_far_as(net, images(), "5")
    assert list(tape.layers) == ["0", "1", "2", "3", "4", "5"] and len(torch_module._global_forward_hooks) == hooks
    assert torch.equal(deconvnet.project(tape, "5", [(0, 0, 0, 0), (1, 1, 2, 2)]).pixels, whole.pixels)


@pytest.mark.parametrize("layers", [("2", "5"), ("5", "2"), ("5", "5")])
def test_a_tape_as_far_as_several_layers_ends_with_the_last_of_them(layers):
    net = small_network()
    net[6] = Stop(ValueError("not to be called"))
    assert list(record_as_far_as(net, images(), *layers).layers) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(("last", "calls"), [("relu#1", 1), ("relu#2", 2)])
def test_a_tape_as_far_as_one_call_of_a_module_ends_with_that_call(last, calls):
    net = Net(lambda net, x: net.relu(net.two(net.relu(net.one(x)))), one=conv(), two=conv(4, 4), relu=nn.ReLU())
    tape = record_as_far_as(net, images(), last)
    assert names(tape).count("relu") == calls
    assert torch.equal(tape.activations(last), deconvnet.record(net, images()).activations(last))


@pytest.mark.parametrize("write", [lambda x: x.__ipow__(2), lambda x: x.__ifloordiv__(2), lambda x: x.__imod__(2)],
                         ids=["**=", "//=", "%="])
def test_arithmetic_in_place_is_recorded_and_refused_by_name(write):
    net = Net(lambda net, x: net.out(write(net.one(x))), one=conv(), out=conv(4, 5)).double()
    tape = deconvnet.record(net, images())
    with pytest.raises(DeconvnetError, match="has no rule"):
        deconvnet.project(tape, "out", [(0, 0, 0, 0)])


def test_a_branch_that_comes_back_as_a_new_tensor_is_refused():
    net = Net(lambda net, x: net.out(net.one(x) + torch.tensor(net.two(x).numpy() * 2)), one=conv(), two=conv(),
              out=conv(4, 5)).double()
    with pytest.raises(DeconvnetError, match="no recorded call made"):
        deconvnet.project(deconvnet.record(net, images()), "out", [(0, 0, 0, 0)])


def test_watching_names_each_call_and_starts_again_with_each_pass():
    relu = nn.ReLU()
    net = nn.Sequential(conv(), relu, nn.Sequential(conv(4, 4), relu)).double()
    seen = []
    with watch(net, lambda name, output: seen.append(name)):
        net(images())
        net(images())
    net(images())
    assert seen == ["0", "1", "2.0", "1#2", "2"] * 2
