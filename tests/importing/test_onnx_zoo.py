"""The networks of the model zoo that onnx brings along, with random weights: up as onnxruntime, down as autograd."""

import numpy as np
import pytest
import torch
from onnx_files import LIGHT, difference, elsewhere, light, saved
from oracles import differentiated
from torch import nn

import deconvnet
from deconvnet.describe import describe, obstacles

pytestmark = pytest.mark.usefixtures("one_thread")

ZOO = sorted(path.stem.removeprefix("light_") for path in LIGHT.glob("*.onnx"))


def images(count):
    return np.random.default_rng(1).normal(0, 1, (count, 3, 224, 224)).astype("f")


def test_all_nine_are_there():
    assert ZOO == ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
                   "squeezenet", "vgg19", "zfnet512"]


WIDE = ["bvlc_alexnet", "vgg19", "zfnet512"]  # up to 570 MB of weights, most of them between flat layers


@pytest.mark.parametrize(("name", "hidden"), [
    *((name, 64) for name in ZOO), *(pytest.param(name, 4096, marks=pytest.mark.extended) for name in WIDE)])
def test_up_as_onnxruntime_and_down_as_autograd(name, hidden, tmp_path):
    model = light(name, hidden)
    net = deconvnet.load_model(str(saved(model, tmp_path)))
    check_up(model, net)
    del model
    check_down(net)


def check_up(model, net):
    """The values of nodes all over the graph, and what comes out."""
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "Concat", "Sum", "MaxPool")]
    chosen = [*nodes[::max(len(nodes) // 12, 1)], nodes[-1]]
    kept = {}
    hooks = [net.get_submodule(node.name).register_forward_hook(
        lambda module, args, output, name=node.output[0]: kept.update({name: output})) for node in chosen]
    batch = images(2)  # the files say one image; ours takes any number
    with torch.no_grad():
        ours = net(torch.from_numpy(batch))
    [hook.remove() for hook in hooks]
    for number, found in enumerate(elsewhere(model, [batch[:1], batch[1:]], list(kept))):
        for mine, theirs in zip((ours, *kept.values()), found, strict=True):
            assert difference(mine[number:number + 1], theirs) < 1e-4


def check_down(net):
    """The strongest units of the deepest convolution, under which all the others lie; in double precision, in which no
    two ways to round put a maximum of so many layers in another place."""
    net.double()
    convs = [path for path, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    assert obstacles(net, convs) == {}
    batch = torch.from_numpy(images(1)).double()
    tape = deconvnet.record(net, batch)
    maps = tape.activations(convs[-1])[0]
    units = [(0, *np.unravel_index(int(place), maps.shape)) for place in maps.flatten().topk(2).indices]
    ours = deconvnet.project(tape, convs[-1], units).on_canvas()
    theirs = differentiated(net, batch, convs[-1], units, "deconvnet")
    assert theirs.abs().amax((1, 2, 3)).min() > 0
    assert (ours - theirs).norm() <= 1e-10 * theirs.norm()


def test_layers_are_what_the_file_says(tmp_path):
    net = deconvnet.load_model(str(LIGHT / "light_zfnet512.onnx"))
    rows = describe(net)
    assert [(row.name, row.kind, row.units, row.size) for row in rows[:4]] == [
        ("n0", "Conv2d", 96, (109, 109)), ("n1", "ReLU", 96, (109, 109)), ("n2", "LocalResponseNorm", 96, (109, 109)),
        ("n3", "MaxPool2d", 96, (54, 54))]
    assert [row.name for row in rows if row.obstacle] == [rows[-1].name] and rows[-1].kind == "Softmax"
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in net.parameters()) > 60_000_000
