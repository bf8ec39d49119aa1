"""Local response normalisation as torch's exporters write it, in many steps: a layer here, if it is just that."""

import io
import warnings
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx_files import difference, elsewhere, saved
from test_onnx_damage import mutate, outcome
from torch import nn

import deconvnet
from deconvnet.errors import DeconvnetError

pytestmark = pytest.mark.usefixtures("one_thread")
EXPORTERS = {"default": {"dynamo": True, "external_data": False, "verbose": False},
             "older": {"dynamo": False, "opset_version": 17}}


def network(size=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(size, 0.7, 0.6, 1.5), nn.ReLU(), nn.Conv2d(6, 8, 3),
                         nn.LocalResponseNorm(5, 0.5), nn.Flatten(), nn.Linear(8 * 4 * 4, 5)).eval()


@cache
def exported(exporter, size=3):
    """The bytes that torch writes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        torch.onnx.export(network(size), (torch.zeros(1, 3, 8, 8),), file, **EXPORTERS[exporter])
    return file.getvalue()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_what_torch_exports_is_what_it_was(tmp_path, exporter):
    net, own = deconvnet.load_model(str(saved(exported(exporter), tmp_path))), network()
    first, second = (module for module in net.modules() if isinstance(module, nn.LocalResponseNorm))
    assert [first.size, second.size, second.k] == [3, 5, 1]
    assert [first.alpha, first.beta, first.k] == pytest.approx([0.7, 0.6, 1.5])
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        ours = net(images)
        assert torch.allclose(ours, own(images), atol=1e-6)
    theirs = [elsewhere(exported(exporter), [image[None].numpy()])[0][0] for image in images]
    assert difference(ours, np.concatenate(theirs)) < 1e-5
    conv = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)][1]
    places = [(n, unit, 1, 2) for n in range(4) for unit in range(8)]
    projections = (deconvnet.project(deconvnet.record(*way), layer, places).pixels
                   for way, layer in (((net, images), conv), ((own, images), "3")))
    assert torch.equal(*projections)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_even_number_of_channels_is_refused_as_anywhere(tmp_path, exporter):
    with pytest.raises(DeconvnetError, match=r"LRN\): normalisation over 4 channels"):
        deconvnet.load_model(str(saved(exported(exporter, 4), tmp_path)))


# ---- what is something else ------------------------------------------------------------------------------------------

def first(model, kind):
    return next(node for node in model.graph.node if node.op_type == kind)


def constant(change, kind, number):
    """Changes a constant that the first node of a kind takes."""
    def changed(model):
        name = first(model, kind).input[number]
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(numpy_helper.to_array(tensor).copy())), name))
    return changed


def attribute(kind, name, numbers):
    def changed(model):
        next(a for a in first(model, kind).attribute if a.name == name).ints[:] = numbers
    return changed


def wired(kind, number, name):
    """The first node of a kind takes another value."""
    def changed(model):
        node = first(model, kind)
        node.input[number] = name or first(model, "Conv").output[0]
    return changed


ELSE = {
    "one axis further": constant(lambda shape: [1, 6, 1, 6, -1], "Reshape", 1),
    "on one side alone": constant(lambda amounts: [0, 0, 2, 0, 0, 0, 0, 0, 0, 0], "Pad", 1),
    "across the map": constant(lambda amounts: [0, 0, 0, 1, 0, 0, 0, 0, 1, 0], "Pad", 1),
    "not around zero": lambda model: first(model, "Pad").input.append("1.bias_of_pad"),
    "windows across the map": attribute("AveragePool", "kernel_shape", [3, 3, 1]),
    "every second channel": attribute("AveragePool", "strides", [2, 1, 1]),
    "more around": attribute("AveragePool", "pads", [1, 0, 0, 1, 0, 0]),
    "another axis": constant(lambda axes: [0], "Squeeze", 1),
    "an exponent for each channel": constant(lambda beta: np.full((6, 1, 1), 0.6, "f"), "Pow", 1),
    "no squares": wired("Mul", 1, "x_squared"),
    "of something else": wired("Div", 0, "x_squared"),
    "a power of another base": wired("Add", 0, ""),
}


@pytest.mark.parametrize("change", ELSE)
def test_what_differs_in_anything_is_not_taken_for_it(tmp_path, change):
    model = onnx.load_model_from_string(exported("default"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "1.bias_of_pad"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 6, 6, 6), "f"), "x_squared"))
    ELSE[change](model)
    with pytest.raises(DeconvnetError, match="does not run: Pow"):
        deconvnet.load_model(str(saved(model, tmp_path)))


@pytest.mark.parametrize(("old", "new"), [  # constants of the older exporter's, by what they are: no two are alike
    ([1, 1, 6, 6, -1], [1, 1, 3, 12, -1]), ([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0]), ([-1, 2], [2, -1])])
def test_no_more_is_it_in_the_older_form(tmp_path, old, new):
    model = onnx.load_model_from_string(exported("older"))
    node = next(node for node in model.graph.node if node.op_type == "Constant"
                and numpy_helper.to_array(node.attribute[0].t).tolist() == old)
    node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(new)))
    with pytest.raises(DeconvnetError, match="does not run: Equal, If, Pow"):
        deconvnet.load_model(str(saved(model, tmp_path)))


def test_no_other_file_is_opened_for_its_numbers(tmp_path):
    model = onnx.load_model_from_string(exported("default"))
    name = first(model, "Pow").input[1]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(DeconvnetError, match="does not run: Pow"):
        deconvnet.load_model(str(saved(model, tmp_path)))


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.extended)])
def test_damaged_files(tmp_path, exporter, count):
    """Each is refused, or what onnxruntime makes of the same file; shapes that are reckoned are not looked at by us."""
    random, found = np.random.default_rng(0), []
    for _ in range(count):
        found.append(outcome(mutate(exported(exporter), random)[1], tmp_path))
    wrong = ("different",) if exporter == "older" else ("different", "only ours")
    assert not [what for what in found if what.startswith(wrong)]
    assert min(found.count(what) for what in ("refused", "same")) > count / 10
