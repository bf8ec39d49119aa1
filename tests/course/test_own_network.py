"""Notebook 8: what is right passes, and the mistakes that students make are told."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from answers import answers, refused
from torch import nn

from deconvnet.course import own_network as check
from deconvnet.describe import obstacles

RIGHT = answers("8_your_own_network")


@pytest.mark.parametrize("exercise", ["refused", "fold", "network"])
def test_the_solution_is_right(exercise, capsys):
    getattr(check, exercise)(RIGHT[{"network": "build"}.get(exercise, exercise)])
    assert capsys.readouterr().out.startswith("Right: ")


# ---- what is drawn, and the zoo ----

def test_the_shapes_are_the_same_every_time_and_differ_with_the_seed():
    pixels, labels = check.shapes(8, 3)
    assert pixels.shape == (8, 48, 48, 3) and pixels.dtype == np.uint8 and labels.tolist() == [0, 1, 2, 3] * 2
    assert np.array_equal(pixels, check.shapes(8, 3)[0]) and not np.array_equal(pixels, check.shapes(8, 4)[0])


def test_a_shape_is_dark_whole_and_of_its_kind():
    pixels, labels = check.shapes(200, 0)
    dark = pixels.mean(3) < 128                                             # (200, 48, 48)
    assert not dark[:, [0, 0, -1, -1], [0, -1, 0, -1]].any(), "a corner is ground"
    share = np.array([dark[labels == label].mean() for label in range(4)])
    areas = np.pi, 1.21 * 3 * 3 ** 0.5 / 4, 1.21 * 2, 4 / 2.2 - 1 / 2.2 ** 2  # of disc, triangle, square, cross
    assert share / share[0] == pytest.approx(np.array(areas) / areas[0], abs=0.12)


def test_the_zoo_leaves_torchs_random_numbers_alone_and_tells_all_that_travels():
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    nets = check.zoo()
    assert torch.equal(torch.rand(1), first)
    assert set(check._TRAVELS) == {name for name, net in nets.items() if not obstacles(net, ["conv2"], (24, 24))}


# ---- what is refused ----

@pytest.mark.parametrize(("change", "words"), [
    (lambda names: names - {"GELU"}, "^GELU: it is refused. Cannot project through gelu"),
    (lambda names: names | {"leaky ReLU"}, "it is not refused. On the way down the signal goes through the same rect"),
    (lambda names: names - {"batch norm, training"}, "it is refused. .*training mode; call net.eval"),
    (lambda names: names - {"gate"}, "^gate: it is refused. Cannot project through mul"),
    (lambda names: names | {"batch norm, evaluating"}, "it is not refused. On the way down it is a scale per channel"),
    (lambda names: names | {"functional ReLU, in place"}, "it is not refused. .*calls are recorded, not modules"),
    (lambda names: names | {"residual sum"}, "it is not refused. .*each summand gets the whole signal"),
    (lambda names: set(), "it is refused"),
    (lambda names: names | {"tanh"}, "there is no 'tanh'. There are: ReLU"),
    (lambda names: "gate", "'gate' came; expected was a set of names"),
    (lambda names: None, "None came; expected was a set of names")])
def test_refused(change, words):
    refused(check.refused, lambda: change(RIGHT["refused"]()), words)


# ---- folding ----

def _fold(conv, norm, eps=True, root=True, gamma=True, weights=True, mean="scaled", own="scaled", beta=True, bias=True,
          stride=True, copied=True):
    """The solution, with the mistakes that one can make in it."""
    variance = norm.running_var + (norm.eps if eps else 0)
    factor = 1 / (variance.sqrt() if root else variance)
    if gamma and norm.weight is not None:
        factor = factor * norm.weight
    zero = torch.zeros(len(factor))
    made = nn.Conv2d(3, 5, 3, 2 if stride else 1, 1, bias=bias) if copied else conv
    made.weight.data = (conv.weight * (factor if weights else 1 + zero)[:, None, None, None]).detach()
    old = zero if conv.bias is None else conv.bias.detach().clone()
    shift = {"scaled": -norm.running_mean * factor, "missing": zero, "as it is": -norm.running_mean}[mean]
    shift = shift + {"scaled": old * factor, "as it is": old, "lost": zero}[own]
    if bias:
        more = norm.bias if beta and norm.bias is not None else zero
        made.bias = nn.Parameter((shift + more * (factor if beta == "scaled" else 1)).detach())
    return made


def _mistake(**how):
    return lambda conv, norm: _fold(conv, norm, **how)


@pytest.mark.parametrize(("wrong", "words"), [
    (_mistake(eps=False), "the weights: .*eps is not added"),
    (_mistake(root=False), "the weights: .*the root of the variance is missing"),
    (_mistake(gamma=False), "the weights: .*the weight of the batch norm is missing"),
    (_mistake(weights=False), "the weights: .*the weights are not scaled"),
    (_mistake(mean="missing"), "the bias: .*the running mean is not subtracted"),
    (_mistake(own="as it is"), "with bias.*the bias: .*own bias is not scaled"),
    (_mistake(own="lost"), "with bias.*the bias: .*own bias is lost"),
    (_mistake(mean="as it is"), "the bias: .*the running mean is not scaled"),
    (_mistake(beta="scaled"), "the bias: .*the bias of the batch norm is scaled too"),
    (_mistake(beta=False), "the bias: .*the bias of the batch norm is missing"),
    (_mistake(bias=False), "has no bias. Batch norm shifts"),
    (_mistake(stride=False), r"stride \(1, 1\) and padding \(1, 1\) came"),
    (_mistake(copied=False), "has changed the Conv2d that it was given"),
    (lambda conv, norm: nn.Sequential(conv, norm), "Sequential came; expected was an nn.Conv2d"),
    (lambda conv, norm: (conv.bias * norm.weight).sum(), "raised TypeError"),
    (lambda conv, norm: None, "NoneType came")])
def test_fold(wrong, words):
    refused(check.fold, wrong, f"(?s){words}")


def test_where_batch_norm_has_no_weight_a_fold_that_needs_one_is_told():
    def needs(conv, norm):
        return _fold(conv, norm) if norm.weight * 1 is not None else None
    refused(check.fold, needs, r"affine=False\): your function raised TypeError")


# ---- a network of one's own ----

def _build(between=nn.ReLU, pools=2, outputs=4, name="last", evaluating=True, kernel=5):
    layers = OrderedDict(conv1=nn.Conv2d(3, 4, kernel, padding=kernel // 2), relu1=between(), bn1=nn.BatchNorm2d(4))
    for number in range(pools):
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers |= {name: nn.Conv2d(4, 4, kernel, padding=kernel // 2), "relu2": nn.ReLU(),
               "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "scores": nn.Linear(4, outputs)}
    return nn.Sequential(layers).train(not evaluating)


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda: _build(evaluating=False), "in training mode. End in return net.eval"),
    (lambda: _build(nn.Sigmoid), "nothing can be projected from last. Cannot project through sigmoid in relu1"),
    (lambda: _build(nn.GELU), "Cannot project through gelu in relu1"),
    (lambda: _build(pools=0), "sees 9×9 pixels; expected were at least 20, about half"),
    (lambda: _build(pools=4), "sees 84×84 pixels, more than the image has"),
    (lambda: _build(outputs=10), r"two images .* \(2, 10\) came; expected were scores \(2, 4\)"),
    (lambda: _build(name="conv2"), "no convolution called last.*The layers are: conv1, relu1, bn1, pool0, pool1, con"),
    (lambda: nn.Sequential(OrderedDict(last=nn.Conv2d(1, 4, 3))).eval(), "two images of 48×48 pixels: .*RuntimeError"),
    (lambda: nn.Sequential, "the class Sequential, without"),
    (lambda: None, "NoneType came; expected was a network"),
    (lambda: nn.Conv2d(3), "raised TypeError")])
def test_network(wrong, words):
    refused(check.network, wrong, words)


def test_a_plain_network_will_do(capsys):
    check.network(_build)
    assert "Right" in capsys.readouterr().out
