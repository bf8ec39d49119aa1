"""ONNX models for the tests, and what onnxruntime makes of them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"  # networks of the model zoo, without their weights


def light(name, hidden=4096, seed=0):
    """One of the zoo's networks as a model, with random weights where the file has constants only.

    ``hidden``: the units of the fully connected layers that have 4096 in the zoo, and most of the weights.
    """
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = {name: np.where(shape == 4096, hidden, shape) for name, shape in shapes.items()}
    del model.graph.value_info[:]
    random, kept, made = np.random.default_rng(seed), [], {}
    roles = _roles(model.graph)
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            made[node.output[0]] = _weights(roles[node.output[0]], shapes[node.input[0]], random)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in made.items())
    model.ir_version = 4  # weights need not be inputs as well
    images = [value for value in model.graph.input if value.name not in shapes]
    del model.graph.input[:]
    model.graph.input.extend(images)
    return model


def _roles(graph):
    """(operation, number of the input) that each value is first taken as, through what only widens it."""
    roles = {}
    for node in reversed(graph.node):
        for number, name in enumerate(node.input):
            roles[name] = roles[node.output[0]] if node.op_type == "Unsqueeze" else (node.op_type, number)
    return roles


def _weights(role, shape, random):
    shape = tuple(int(n) for n in shape)
    if role in (("Conv", 1), ("Gemm", 1)):
        some = random.standard_normal(min(int(np.prod(shape)), 1_000_003), dtype="f")  # a prime: no two rows are alike
        return np.resize(some * np.float32(np.sqrt(2 / np.prod(shape[1:]))), shape)
    if role in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)):
        return random.uniform(0.5, 1.5, shape).astype("f")
    return random.normal(0, 0.1, shape).astype("f")


def model(nodes, shape, weights=(), opset=17, output="y", rank=4, ir=8, **keywords):
    """A model of nodes, from images ``x`` of that shape to ``output`` of that rank; weights are arrays by name."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(weights).items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if ir < 4:  # weights were inputs with a default
        inputs += [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in tensors]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)]
    graph = helper.make_graph(nodes, "made", inputs, outputs, tensors, **keywords)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


def elsewhere(model, images, names=()):
    """What onnxruntime gives for each of some images: the first output and, by name, other values."""
    content = model if isinstance(model, bytes) else with_outputs(model, names).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    wanted = [session.get_outputs()[0].name, *names]
    return [session.run(wanted, {session.get_inputs()[0].name: np.asarray(image)}) for image in images]


def with_outputs(model, names):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def saved(model, folder, name="net.onnx"):
    path = folder / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def difference(ours, theirs):
    """The largest difference, relative to the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
