"""Damaged ONNX files: each gives our error, or a network that gives what onnxruntime gives for that same file."""

import numpy as np
import pytest
import torch
from onnx_files import elsewhere, model, node, saved

from deconvnet.errors import DeconvnetError
from deconvnet.importing.graph_network import GraphNetwork
from deconvnet.importing.onnx_file import read
from deconvnet.importing.operations import OPERATIONS

pytestmark = pytest.mark.usefixtures("one_thread")


def good():
    """A file in which most of the bytes say what is done, and few are weights."""
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, 1, shape).astype("f") for name, shape in (
        ("w", (2, 3, 3, 3)), ("b", (2,)), ("s", (2,)), ("m", (2,)), ("u", (2, 2, 1, 1)), ("g", (3, 16)))}
    weights |= {"v": np.ones(2, "f"), "to": np.array([1, 16]), "p": np.array([0, 0, 0, 1, 0, 0, 1, 0])}
    return model([
        node("Conv", "x w b", "conv1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]),
        node("Relu", "conv1", "relu1"),
        node("MaxPool", "relu1", "pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1),
        node("LRN", "pool1", "norm1", size=3, alpha=0.1),
        node("BatchNormalization", "norm1 s b m v", "bn"),
        node("Conv", "bn u", "conv2", kernel_shape=[1, 1]),
        node("Add", "conv2 bn", "add"),
        node("Concat", "add conv2", "cat", axis=1),
        node("Pad", "cat p", "padded"),
        node("AveragePool", "padded", "mean", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Reshape", "mean to", "flat"),
        node("Gemm", "flat g", "fc", transB=1),
        node("Softmax", "fc", "y"),
    ], [1, 3, 12, 12], weights, rank=2, opset=13).SerializeToString()


def mutate(content, random):
    """The bytes with one thing wrong."""
    at, length = int(random.integers(len(content))), int(random.integers(1, 9))
    kinds = ["bit", "byte", "cut", "delete", "double", "insert", "zero"]
    kind = random.choice(kinds, p=[0.3, 0.3, *[0.08] * 5])
    head, tail = content[:at], content[at + length:]
    return kind, {
        "bit": head + bytes([content[at] ^ 1 << int(random.integers(8))]) + content[at + 1:],
        "byte": head + random.bytes(1) + content[at + 1:],
        "cut": head,
        "delete": head + tail,
        "double": head + content[at:at + length] * 2 + tail,
        "insert": head + random.bytes(length) + content[at:],
        "zero": head + bytes(length) + tail,
    }[kind]


def outcome(content, folder):
    """"refused", or "same" as onnxruntime; what it is otherwise."""
    try:
        net = GraphNetwork(read(saved(content, folder), OPERATIONS), (12, 12))
        if net.channels * net.size[0] * net.size[1] > 10**6:
            return "large"
        image = np.random.default_rng(1).normal(0, 1, (1, net.channels, *net.size)).astype("f")
        with torch.no_grad():
            ours = net(torch.from_numpy(image)).numpy()
    except DeconvnetError as error:
        assert str(folder) in str(error) or "node" in str(error) or "weights" in str(error), error
        return "refused"
    try:
        ((theirs, *_),) = elsewhere(content, [image])
    except Exception as error:  # onnxruntime's own, of many kinds
        return f"only ours: {error}"
    same = ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
    return "same" if same else f"different: {ours.ravel()[:4]} {ours.shape}, {theirs.ravel()[:4]} {theirs.shape}"


@pytest.mark.parametrize(("seed", "count"), [(0, 600), pytest.param(1, 10_000, marks=pytest.mark.extended)])
def test_damaged_files(tmp_path, seed, count):
    content, random, found = good(), np.random.default_rng(seed), {}
    assert outcome(content, tmp_path) == "same"
    for number in range(count):
        kind, damaged = mutate(content, random)
        found[number, kind] = outcome(damaged, tmp_path)
    odd = {key: what for key, what in found.items() if what not in ("refused", "same", "large")}
    assert not odd, f"{len(odd)}:\n" + "\n".join(f"{key}: {what[:250]}" for key, what in odd.items())
    assert min(list(found.values()).count(what) for what in ("refused", "same")) > count / 10


@pytest.mark.parametrize("length", [0, 1, 10])
def test_a_file_that_is_cut_off_nearly_everywhere(tmp_path, length):
    with pytest.raises(DeconvnetError, match=r"net\.onnx"):
        read(saved(good()[:length], tmp_path), OPERATIONS)
