"""Each operation against onnxruntime, on generated geometry and in every form that its versions gave it."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_files import difference, elsewhere, model, node, saved
from oracles import differentiated
from torch import nn

import deconvnet
from deconvnet.errors import DeconvnetError
from deconvnet.importing.graph_network import GraphNetwork
from deconvnet.importing.onnx_file import read
from deconvnet.importing.operations import OPERATIONS

pytestmark = pytest.mark.usefixtures("one_thread")

properties = settings(max_examples=150, derandomize=True, deadline=None, database=None)
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(0, 1, shape).astype("f")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("operations")


def network(made, folder):
    """The network of a model; images are 6×6 where it does not say."""
    return GraphNetwork(read(saved(made, folder), OPERATIONS), (6, 6))


def both(made, images, folder):
    """What ours and onnxruntime give for each of the images, which ours takes all at once."""
    net = network(made, folder)
    with torch.no_grad():
        ours = net(torch.from_numpy(images)).numpy()
    theirs = [found for (found,) in elsewhere(made, [images[n:n + 1] for n in range(len(images))])]
    return ours, np.concatenate(theirs)


def agree(made, images, folder, bound=1e-5):
    ours, theirs = both(made, images, folder)
    assert difference(ours, theirs) < bound


# ---- what slides -----------------------------------------------------------------------------------------------------

@st.composite
def sliding(draw, dilated=True, most=3):
    """Attributes of a convolution or pooling, and the (H, W) of a map with room for it."""
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(pairs)
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto.startswith("SAME"):  # onnxruntime has it only without gaps, in the kernel or between windows
        dilated, stride = False, tuple(map(min, stride, kernel))
    dilation = draw(pairs) if dilated else (1, 1)
    found = {"kernel_shape": kernel, "strides": stride} | ({"dilations": dilation} if dilated else {})
    if auto == "NOTSET":
        found["pads"] = [draw(st.integers(0, min(most, k - 1))) for k in (*kernel, *kernel)]
    else:
        found["auto_pad"] = auto
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(draw(st.integers(e, e + 7)) for e in extents)
    return found, size


@properties
@given(sliding(), st.sampled_from([(4, 6, 1), (4, 6, 2), (3, 3, 3), (2, 8, 2), (1, 3, 1)]), st.booleans())
def test_convolution(folder, geometry, channels, biased):
    (attributes, size), (inputs, outputs, groups) = geometry, channels
    weights = {"w": normal(outputs, inputs // groups, *attributes["kernel_shape"])} | (
        {"b": normal(outputs)} if biased else {})
    made = model([node("Conv", "x w b" if biased else "x w", group=groups, **attributes)], ["N", inputs, *size],
                 weights)
    agree(made, normal(2, inputs, *size), folder)
    assert isinstance(network(made, folder).y, nn.Conv2d)


@properties
@given(sliding(), st.booleans())
def test_max_pooling(folder, geometry, ceil):
    attributes, size = geometry
    made = model([node("MaxPool", "x", ceil_mode=int(ceil), **attributes)], ["N", 2, *size])
    agree(made, normal(2, 2, *size), folder)


@properties
@given(sliding(dilated=False), st.booleans(), st.booleans())
def test_average_pooling(folder, geometry, ceil, counted):
    attributes, size = geometry
    made = model([node("AveragePool", "x", ceil_mode=int(ceil), count_include_pad=int(counted), **attributes)],
                 ["N", 2, *size])
    agree(made, normal(2, 2, *size), folder)


@settings(properties, max_examples=80)
@given(sliding(), sliding(), sliding(dilated=False), st.booleans())
def test_projections_through_every_padding(folder, first, pooling, average, ceil):
    """Switches and windows stay where they belong, whatever was added around a map."""
    (one, size), (two, _), (three, _) = first, pooling, average
    made = model([node("Conv", "x w", "a", **one), node("Relu", "a", "b"),
                  node("MaxPool", "b", "c", ceil_mode=int(ceil), **two),
                  node("AveragePool", "c", "d", **three), node("Conv", "d v", "y", kernel_shape=[1, 1])],
                 [1, 3, *(n + 8 for n in size)], {"w": normal(4, 3, *one["kernel_shape"]), "v": normal(5, 4, 1, 1)})
    try:
        net = network(made, folder).double()
    except DeconvnetError as error:
        assert "cannot run" in str(error)
        assume(False)
    images = torch.from_numpy(normal(2, 3, *(n + 8 for n in size))).double()
    tape = deconvnet.record(net, images)
    units = [tuple(place) for place in np.argwhere(tape.activations("y").numpy() > 0)[::7][:4]]
    assume(units)
    ours = deconvnet.project(tape, "y", units).on_canvas()
    theirs = differentiated(net, images, "y", units, "deconvnet")
    assert (ours - theirs).abs().max() <= 1e-12 * max(theirs.abs().max(), 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(folder, dtype):
    """What is added around a map for a maximum is no maximum in any of them."""
    made = model([node("Conv", "x w", "a"), node("MaxPool", "a", kernel_shape=[3, 3], pads=[2, 2, 0, 0])], [1, 3, 9, 9],
                 {"w": -np.abs(normal(2, 3, 1, 1))})
    net, images = network(made, folder), torch.from_numpy(np.abs(normal(1, 3, 9, 9)))
    assert torch.allclose(net.to(dtype)(images.to(dtype)).double(), net.double()(images.double()), atol=0.1)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_gaps_in_the_kernel_with_automatic_padding(folder, auto, stride):
    """What onnxruntime has not: reckoned by hand."""
    weight, images = normal(4, 3, 2, 4), torch.from_numpy(normal(1, 3, 8, 10))
    made = model([node("Conv", "x w", auto_pad=auto, dilations=[3, 2], strides=stride)], [1, 3, 8, 10], {"w": weight})
    ours = network(made, folder)(images)
    total = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip((8, 10), stride, (4, 7), strict=True)]
    first = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
    padded = torch.nn.functional.pad(images, (first[1], total[1] - first[1], first[0], total[0] - first[0]))
    theirs = torch.nn.functional.conv2d(padded, torch.from_numpy(weight), stride=stride, dilation=(3, 2))
    assert torch.allclose(ours, theirs, atol=1e-5) and ours.shape[2:] == (-(-8 // stride[0]), -(-10 // stride[1]))


# ---- everything else -------------------------------------------------------------------------------------------------

def i64(*values):
    return np.array(values, "int64")


def f32(*values):
    return np.array(values, "f")


def one(kind, inputs="x", weights=(), opset=17, rank=4, **attributes):
    """A graph of a single node."""
    return [node(kind, inputs, **attributes)], weights, opset, rank


def statistics(n=6):
    return {"s": normal(n), "b": normal(n), "m": normal(n), "v": np.abs(normal(n)) + 0.5}


MAPS = {  # on maps (N, 6, 4, 5)
    "relu": one("Relu"),
    "leaky relu": one("LeakyRelu", alpha=0.3),
    "leaky relu, by default": one("LeakyRelu"),
    "sigmoid": one("Sigmoid"),
    "clip 0 to 6, opset 6": one("Clip", opset=7, min=0.0, max=6.0),
    "clip −0.5 to 0.5": one("Clip", "x l h", {"l": np.float32(-0.5), "h": np.float32(0.5)}),
    "clip from below": one("Clip", "x l", {"l": np.float32(0.25)}),
    "clip 0 to 6": one("Clip", "x l h", {"l": np.float32(0), "h": np.float32(6)}),
    "clip at 0": one("Clip", "x l", {"l": np.float32(0)}),
    "clip of nothing": one("Clip"),
    "local response normalisation": one("LRN", size=3, alpha=0.5, beta=0.6, bias=1.5),
    "local response normalisation, by default": one("LRN", size=5),
    "batch normalisation": one("BatchNormalization", "x s b m v", statistics(), epsilon=1e-3),
    "batch normalisation, opset 7": one("BatchNormalization", "x s b m v", statistics(), 7),
    "global average": one("GlobalAveragePool"),
    "add a constant": one("Add", "x c", {"c": normal(6, 1, 1)}),
    "add the other way round": one("Add", "c x", {"c": normal(1, 6, 1, 1)}),
    "subtract from a constant": one("Sub", "c x", {"c": normal(6, 1, 1)}),
    "multiply by a constant": one("Mul", "x c", {"c": normal(6, 1, 1)}),
    "divide by a constant": one("Div", "x c", {"c": np.abs(normal(6, 1, 1)) + 1}),
    "add itself": one("Add", "x x"),
    "sum of three": one("Sum", "x x x"),
    "sum of one": one("Sum"),
    "concatenation": one("Concat", "x x", axis=1),
    "concatenation, axis from behind": one("Concat", "x x x", axis=-3),
    "flatten": one("Flatten", rank=2),
    "flatten, from behind": one("Flatten", rank=2, axis=-3),
    "reshape": one("Reshape", "x c", {"c": i64(-1, 120)}, rank=2),
    "reshape, keeping": one("Reshape", "x c", {"c": i64(0, 3, 2, -1)}),
    "shuffle": ([node("Reshape", "x c", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
                 node("Reshape", "b d")], {"c": i64(0, 2, 3, 4, 5), "d": i64(0, 6, 4, 5)}, 17, 4),
    "reshape to a size of its own": ([node("Shape", "x", "a"), node("Gather", "a n", "b", axis=0),
                                      node("Unsqueeze", "b z", "c"), node("Concat", "c m", "d", axis=0),
                                      node("Reshape", "x d")], {"n": np.array(0), "z": i64(0), "m": i64(-1)}, 17, 2),
    "shape of some": ([node("Shape", "x", "a", start=0, end=2), node("Concat", "a m", "d", axis=0),
                       node("Reshape", "x d")], {"m": i64(-1)}, 17, 3),
    "flat in the network's own words": ([
        node("Shape", "x", "a"), node("Slice", "a z o", "n"), node("Slice", "a o f", "r"), node("Gather", "r z", "c"),
        node("Gather", "r o", "h"), node("Gather", "r t", "w"), node("Mul", "c h", "p"), node("Mul", "p w", "q"),
        node("Cast", "q", "k", to=7), node("Concat", "n k", "s", axis=0), node("Reshape", "x s")],
        {"z": i64(0), "o": i64(1), "t": i64(2), "f": i64(4)}, 17, 2),
    "transpose": one("Transpose", perm=[0, 2, 3, 1]),
    "transpose back": ([node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Relu", "a", "b"),
                        node("Transpose", "b", perm=[0, 3, 1, 2])], (), 17, 4),
    "unsqueeze and squeeze": ([node("Unsqueeze", "x c", "a"), node("Squeeze", "a c")], {"c": i64(2, 4)}, 17, 4),
    "unsqueeze, opset 9": ([node("Unsqueeze", "x", "a", axes=[2]), node("Squeeze", "a", axes=[2])], (), 9, 4),
    "identity": one("Identity"),
    "dropout": one("Dropout", "x r t", {"r": np.float32(0.5), "t": np.array(False)}),
    "dropout, opset 9, with its mask": ([node("Dropout", "x", "y m", ratio=0.4)], (), 9, 4),
    "softmax": one("Softmax", axis=1),
    "softmax, opset 9": one("Softmax", opset=9),
    "softmax, opset 11, axis 2": one("Softmax", opset=11, axis=2),
    "softmax, from behind": one("Softmax"),
    "logarithm of softmax": one("LogSoftmax", axis=-3),
    "pad": one("Pad", "x p", {"p": i64(0, 0, 1, 2, 0, 0, 3, 0)}),
    "pad, channels and a value": one("Pad", "x p v", {"p": i64(0, 1, 0, 0, 0, 2, 0, 0), "v": np.float32(2)}),
    "pad, negative": one("Pad", "x p", {"p": i64(0, 0, 1, -1, 0, 0, -2, 2)}),
    "pad, opset 9": one("Pad", opset=9, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.5),
    "pad, some axes": one("Pad", "x p v a", {"p": i64(1, 2, 3, 4), "v": np.float32(0),
                                                                 "a": i64(-1, 2)}, 18),
    "pad by reflection": one("Pad", "x p", {"p": i64(0, 0, 1, 2, 0, 0, 3, 0)}, mode="reflect"),
    "pad by the edge": one("Pad", "x p", {"p": i64(0, 0, 1, 2, 0, 0, 3, 0)}, mode="edge"),
    "pad by nothing": one("Pad", "x p", {"p": i64(*[0] * 8)}),
    "mean over maps": one("ReduceMean", axes=[2, 3]),
    "mean over maps, flat, opset 18": one("ReduceMean", "x a", {"a": i64(-1, -2)}, 18, 2, keepdims=0),
    "slice of channels": one("Slice", "x s e a", {"s": i64(1), "e": i64(5), "a": i64(1)}),
    "slice, in steps, to the end": one("Slice", "x s e a t", {"s": i64(1, -3), "e": i64(10**9, -1), "a": i64(1, -1),
                                                              "t": i64(2, 1)}),
    "slice, opset 9": one("Slice", opset=9, starts=[1, 2], ends=[3, 4], axes=[2, 3]),
    "slice to half of its own size": ([
        node("Shape", "x", "a"), node("Gather", "a o", "c"), node("Div", "c t", "h"), node("Slice", "x z h o", "u"),
        node("Slice", "x h c o", "v"), node("Concat", "v u", axis=1)],
        {"o": i64(1), "t": i64(2), "z": i64(0)}, 17, 4),
    "gather channels": one("Gather", "x c", {"c": i64(2, -1, 0)}, axis=1),
    "split in halves": ([node("Split", "x", "a b", axis=1), node("Add", "b a")], (), 13, 4),
    "split in parts": ([node("Split", "x c", "a b d", axis=1), node("Concat", "d a b", axis=1)],
                       {"c": i64(1, 2, 3)}, 17, 4),
    "split in parts, opset 11": ([node("Split", "x", "a b", axis=1, split=[2, 4]), node("Concat", "b a", axis=1)],
                                 (), 11, 4),
    "split, one part unused": ([node("Split", "x", "a b", axis=-3), node("Relu", "b")], (), 13, 4),
    "constants made on the way": ([
        node("Constant", "", "c", value=numpy_helper.from_array(i64(6))), node("ConstantOfShape", "c", "k",
        value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])), node("Unsqueeze", "k o", "w"),
        node("Mul", "x w")], {"o": i64(1, 2)}, 17, 4),
    "a constant number": ([node("Constant", "", "c", value_float=2.5), node("Mul", "x c")], (), 17, 4),
    "constant numbers": ([node("Constant", "", "c", value_ints=[0, -1]), node("Reshape", "x c")], (), 17, 2),
    "a constant that is scaled": ([node("Mul", "c d", "e"), node("Add", "x e")],
                                  {"c": normal(6, 1, 1), "d": normal(1)}, 17, 4),
    "values without a use": ([node("Relu", "x", "unused"), node("Sigmoid", "x")], (), 17, 4),
}
FLAT = {  # on what is flat (N, 6)
    "gemm": one("Gemm", "x w b", {"w": normal(3, 6), "b": normal(3)}, rank=2, transB=1),
    "gemm, scaled, the other way": one("Gemm", "x w b", {"w": normal(6, 3), "b": normal(1, 3)}, rank=2, alpha=0.5,
                                       beta=2.0),
    "gemm, one bias": one("Gemm", "x w b", {"w": normal(6, 3), "b": f32(2)}, rank=2),
    "gemm, without": one("Gemm", "x w", {"w": normal(6, 3)}, rank=2),
    "product and bias": ([node("MatMul", "x w", "a"), node("Add", "a b")], {"w": normal(6, 3), "b": normal(3)}, 17, 2),
    "batch normalisation": one("BatchNormalization", "x s b m v", statistics(), rank=2),
    "softmax": one("Softmax", opset=9, rank=2),
}


@pytest.mark.parametrize("name", MAPS)
def test_operation(folder, name):
    nodes, weights, opset, rank = MAPS[name]
    agree(model(nodes, ["N", 6, 4, 5], weights, opset, rank=rank), 3 * normal(3, 6, 4, 5), folder)


@pytest.mark.parametrize("name", FLAT)
def test_operation_on_what_is_flat(folder, name):
    nodes, weights, opset, rank = FLAT[name]
    flat = [node("Flatten", "x", "flat"), *nodes]
    for inner in nodes:
        inner.input[:] = ["flat" if value == "x" else value for value in inner.input]
    agree(model(flat, ["N", 6, 1, 1], weights, opset, rank=rank), 3 * normal(3, 6, 1, 1), folder)


OLD = {  # before opset 7, which onnxruntime does not run: as the same written in the new way
    "reshape": (one("Reshape", opset=1, rank=2, shape=[0, -1]), MAPS["flatten"]),
    "broadcasting": (one("Add", "x c", {"c": np.arange(6, dtype="f")}, 6, broadcast=1, axis=1),
                     one("Add", "x c", {"c": np.arange(6, dtype="f").reshape(6, 1, 1)})),
    "dropout": (one("Dropout", opset=6, is_test=1, ratio=0.5), one("Identity")),
    "batch normalisation": (one("BatchNormalization", "x s b m v", stats := statistics(), 1, is_test=1,
                                consumed_inputs=[0, 0, 0, 1, 1], spatial=1),
                            one("BatchNormalization", "x s b m v", stats)),
    "pad": (one("Pad", opset=1, paddings=[0, 0, 1, 2, 0, 0, 3, 0]), one("Pad", "x p", {
        "p": i64(0, 0, 1, 2, 0, 0, 3, 0)})),
    "relu": (one("Relu", opset=1, consumed_inputs=[0]), one("Relu")),
    "concatenation": (one("Concat", "x x", opset=1), one("Concat", "x x", axis=1)),
}


@pytest.mark.parametrize("name", OLD)
def test_old_operation(folder, name):
    images = torch.from_numpy(normal(2, 6, 4, 5))
    (nodes, weights, opset, rank), new = OLD[name]
    old = model(nodes, ["N", 6, 4, 5], weights, opset, rank=rank, ir=3)
    new = model(new[0], ["N", 6, 4, 5], *new[1:3], rank=new[3])
    assert torch.equal(network(old, folder)(images), network(new, folder)(images))
