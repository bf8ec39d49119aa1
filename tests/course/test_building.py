"""The checks of notebook 3 accept its solutions and reject what students write first."""

import pytest
import torch
import torch.nn.functional as F
from answers import answers, refused

import deconvnet
from deconvnet.course import building

SOLVED = answers("3_build_a_deconvnet")
CHECKS = {"filter_transposed": "filter_transposed", "unpool": "unpool", "descend": "descend",
          "three_rules": "three_rules", "clamped_relu": "ClampedReLU"}


@pytest.mark.parametrize("name", CHECKS)
def test_the_solution_is_right(name, capsys):
    getattr(building, name)(SOLVED[CHECKS[name]])
    assert capsys.readouterr().out.startswith("Right: ")


def test_the_way_up_is_the_networks_own():
    net = deconvnet.load_model("zfnet")
    image = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0))
    steps, maps = building.climb(net, image, "relu3")
    tape = deconvnet.record(net, image[None])
    assert torch.equal(maps, tape.activations("conv3")[0])
    kinds = ["filter", "rectify", "pool", "normalise"] * 2 + ["filter", "rectify"]
    assert [step.kind for step in steps] == kinds
    assert [step.size[0] for step in steps] == [224, 110, 110, 55, 55, 26, 26, 13, 13, 13]
    pools = [call for call in tape.calls if call.switches is not None][:2]
    found = [step.switches for step in steps if step.switches is not None]
    assert all(torch.equal(switches, pool.switches[0].long()) for switches, pool in zip(found, pools, strict=True))


right = SOLVED["filter_transposed"]


def written_over(signal, weight, stride, padding, size):
    k = weight.shape[2]
    out = torch.zeros(weight.shape[1], size[0] + 2 * padding, size[1] + 2 * padding)
    for y in range(signal.shape[1]):
        for x in range(signal.shape[2]):
            copy = torch.einsum("o,ocij->cij", signal[:, y, x], weight)
            out[:, y * stride:y * stride + k, x * stride:x * stride + k] = copy
    return out[:, padding:padding + size[0], padding:padding + size[1]]


def torchs_own(signal, weight, stride, padding, size):
    return F.conv_transpose2d(signal[None], weight, stride=stride, padding=padding)[0]


def padding_left_on(signal, weight, stride, padding, size):
    return right(signal, weight, stride, 0, (size[0] + 2 * padding, size[1] + 2 * padding))[:, :size[0], :size[1]]


@pytest.mark.parametrize(("wrong", "words"), {
    "flipped": (lambda s, w, stride, p, size: right(s, w.flip(2, 3), stride, p, size), "upside down"),
    "written over": (written_over, "written over each other"),
    "no stride": (lambda s, w, stride, p, size: right(s, w, 1, p, size), "copies lie stride cells apart"),
    "padding left on": (padding_left_on, "cut off at one side only"),
    "torch's size": (torchs_own, "the size that conv_transpose2d gives|expected was"),
    "rectified": (lambda s, w, stride, p, size: right(s, w, stride, p, size).clamp(min=0), "keeps the sign"),
    "channels for units": (lambda s, w, stride, p, size: right(s, w.transpose(0, 1), stride, p, size), "RuntimeError"),
    "the way up": (lambda s, w, stride, p, size: F.conv2d(s[None], w)[0], "shape"),
}.values())
def test_filter_transposed(wrong, words):
    refused(building.filter_transposed, wrong, words)


def scattered(signal, switches, size):
    return SOLVED["unpool"](signal, switches, size)


def overwritten(signal, switches, size):
    flat = torch.zeros(len(signal), size[0] * size[1])
    return flat.scatter(1, switches.flatten(1), signal.flatten(1)).view(-1, *size)


@pytest.mark.parametrize(("wrong", "words"), {
    "written over": (overwritten, "written over each other"),
    "torch's own": (lambda s, switches, size: F.max_unpool2d(s[None], switches[None], 3, 2, output_size=size)[0],
                    "written over each other"),
    "switches of channel 0": (lambda s, switches, size: scattered(s, switches[:1].expand_as(s), size),
                              "those of the first are used for all"),
    "rectified": (lambda s, switches, size: scattered(s, switches, size).clamp(min=0), "that is the next step"),
    "one map": (lambda s, switches, size: scattered(s, switches, size).sum(0), "shape"),
    "flat": (lambda s, switches, size: scattered(s, switches, size).flatten(1), "shape"),
}.values())
def test_unpool(wrong, words):
    refused(building.unpool, wrong, words)


def walk(rectify=lambda signal: signal.clamp(min=0), unpool=scattered, bias=False, order=reversed):
    """A descent with one of its parts changed."""
    def descend(steps, signal):
        for step in order(steps):
            if step.kind == "filter":
                part = step.layer
                signal = signal - part.bias[:, None, None] if bias else signal
                signal = right(signal, part.weight, part.stride[0], part.padding[0], step.size)
            elif step.kind == "rectify":
                signal = rectify(signal)
            elif step.kind == "pool":
                signal = unpool(signal, step.switches, step.size)
        return signal
    return descend


def normalising(steps, signal):
    for step in reversed(steps):
        signal = step.layer(signal[None])[0] if step.kind == "normalise" else walk()([step], signal)
    return signal


@pytest.mark.parametrize(("wrong", "words"), {
    "no ReLU": (walk(rectify=lambda signal: signal), "nothing rectifies the signal"),
    "a ReLU below": (lambda steps, signal: walk()(steps, signal).clamp(min=0), "the pixels are rectified too"),
    "a bias": (walk(bias=True), "the values differ"),
    "written over": (walk(unpool=overwritten), "the values differ"),
    "upwards": (walk(order=list), "raised RuntimeError|the values differ|shape"),
    "the norm of the way up": (normalising, "the values differ"),
    "its sign": (lambda steps, signal: -walk()(steps, signal), "minus sign too many"),
    "no return": (lambda steps, signal: None, "Does it end in return"),
}.values())
def test_descend(wrong, words):
    refused(building.descend, wrong, words)


def rules(deconvnet=lambda x, s: s.clamp(min=0), gradient=lambda x, s: s * (x > 0),
          guided=lambda x, s: s.clamp(min=0) * (x > 0)):
    return lambda x, s: (deconvnet(x, s), gradient(x, s), guided(x, s))


@pytest.mark.parametrize(("wrong", "words"), {
    "exchanged": (rules(lambda x, s: s * (x > 0), lambda x, s: s.clamp(min=0)),
                  r"deconvnet: (.*\n)*.*rule of gradient"),
    "x ≥ 0": (rules(gradient=lambda x, s: s * (x >= 0)), r"gradient: (.*\n)*.*mask is x ≥ 0"),
    "times x": (rules(gradient=lambda x, s: s * x.clamp(min=0)), "it is multiplied by x"),
    "x itself": (rules(lambda x, s: x.clamp(min=0)), "x itself comes back"),
    "guided is gradient": (rules(guided=lambda x, s: s * (x > 0)), r"guided: (.*\n)*.*rule of gradient"),
    "unchanged": (rules(lambda x, s: s), "let through as it is"),
    "one of three": (lambda x, s: s.clamp(min=0), "Tensor came; expected were three"),
}.values())
def test_three_rules(wrong, words):
    refused(building.three_rules, wrong, words)


def relu(down, up=lambda x: x.clamp(min=0)):
    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return up(x)

        @staticmethod
        def backward(context, grad):
            return down(context.saved_tensors[0], grad)
    return Mine


@pytest.mark.parametrize(("wrong", "words"), {
    "the gradient": (lambda x, grad: grad * (x > 0), "the gradient of the ReLU"),
    "guided": (lambda x, grad: grad.clamp(min=0) * (x > 0), "guided backpropagation"),
    "nothing": (lambda x, grad: grad, "let through as it is"),
    "the wrong half": (lambda x, grad: grad.clamp(max=0), "the negative part is kept"),
    "x": (lambda x, grad: x.clamp(min=0), "x comes back"),
    "an error": (lambda x, grad: grad.clamp(least=0), "raised TypeError"),
}.values())
def test_clamped_relu(wrong, words):
    refused(building.clamped_relu, relu(wrong), words)


def test_clamped_relu_upwards():
    refused(building.clamped_relu, relu(lambda x, grad: grad.clamp(min=0), up=torch.clone), "upwards")
