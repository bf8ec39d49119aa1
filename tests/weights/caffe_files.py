"""Caffe's files, written here: small networks in the forms of AlexNet, CaffeNet, ZF, VGG and others, and their weights.

The binary format is protobuf's, and the field numbers are those of BVLC's caffe.proto.
"""

import re

import numpy as np


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, content):
    """A field of bytes, of which strings and messages are made."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array, old=False):
    """A BlobProto; of old, its four sizes stand apart."""
    data = field(5, np.ascontiguousarray(array, "<f4").tobytes())
    if old:
        sizes = (*(1,) * (4 - array.ndim), *array.shape)
        return b"".join(varint(n << 3) + varint(size) for n, size in enumerate(sizes, 1)) + data
    return field(7, field(1, b"".join(map(varint, array.shape)))) + data


def caffemodel(layers, old=False):
    """A NetParameter of {name: (type, arrays)}; of old, with V1 layers, whose types are numbers."""
    made = b""
    for name, (kind, arrays) in layers.items():
        if old:
            number = {"Convolution": 4, "InnerProduct": 14}[kind]
            blobs = b"".join(field(6, blob(array, old)) for array in arrays)
            made += field(2, field(4, name.encode()) + varint(5 << 3) + varint(number) + blobs)
        else:
            blobs = b"".join(field(7, blob(array)) for array in arrays)
            made += field(100, field(1, name.encode()) + field(2, kind.encode()) + blobs)
    return field(1, b"small") + made


# ---- networks ----

def layer(name, kind, bottom, top=None, **parameters):
    """A layer in the text of a prototxt."""
    body = "\n".join(f"  {key} {{ {' '.join(f'{k}: {v}' for k, v in value.items())} }}"
                     for key, value in parameters.items())
    bottoms = "".join(f'  bottom: "{b}"\n' for b in ([bottom] if isinstance(bottom, str) else bottom))
    return f'layer {{\n  name: "{name}"\n  type: "{kind}"\n{bottoms}  top: "{top or name}"\n{body}\n}}\n'


def conv(name, bottom, units, kernel, **more):
    return layer(name, "Convolution", bottom, convolution_param={"num_output": units, "kernel_size": kernel, **more})


def relu(name, at):
    return layer(name, "ReLU", at, at)


def pool(name, bottom, kernel=3, stride=2, kind="MAX", **more):
    return layer(name, "Pooling", bottom, pooling_param={"pool": kind, "kernel_size": kernel, "stride": stride, **more})


def lrn(name, bottom, alpha=0.0001, size=5, beta=0.75):
    return layer(name, "LRN", bottom, lrn_param={"local_size": size, "alpha": alpha, "beta": beta})


def fc(name, bottom, units):
    return layer(name, "InnerProduct", bottom, inner_product_param={"num_output": units})


def dropout(name, at):
    return layer(name, "Dropout", at, at, dropout_param={"dropout_ratio": 0.5})


def header(size):
    return f'name: "small"\ninput: "data"\ninput_dim: 10\ninput_dim: 3\ninput_dim: {size}\ninput_dim: {size}\n'


def tail(below):
    """The two fully connected layers at the end, with what Caffe puts between and after them."""
    return (fc("fc6", below, 20) + relu("relu6", "fc6") + dropout("drop6", "fc6") + fc("fc8", "fc6", 10)
            + layer("prob", "Softmax", "fc8"))


def alexnet():
    """Norm before pool; two groups."""
    return (header(67) + conv("conv1", "data", 12, 11, stride=4) + relu("relu1", "conv1")
            + lrn("norm1", "conv1", 0.02) + pool("pool1", "norm1")
            + conv("conv2", "pool1", 16, 5, pad=2, group=2) + relu("relu2", "conv2") + lrn("norm2", "conv2", 0.02)
            + pool("pool2", "norm2") + conv("conv3", "pool2", 12, 3, pad=1) + relu("relu3", "conv3") + tail("conv3"))


def caffenet():
    """Pool before norm; the input as a layer."""
    shape = ('layer { name: "data" type: "Input" top: "data"\n'
             '  input_param { shape: { dim: 1 dim: 3 dim: 67 dim: 67 } } }\n')
    return ('# CaffeNet, small\nname: "CaffeNet"\n' + shape + conv("conv1", "data", 12, 11, stride=4)
            + relu("relu1", "conv1") + pool("pool1", "conv1") + lrn("norm1", "pool1", 0.02)
            + conv("conv2", "norm1", 16, 5, pad=2, group=2) + relu("relu2", "conv2") + pool("pool2", "conv2")
            + lrn("norm2", "pool2", 0.02) + tail("norm2"))


def zf():
    """Caffe's rounding up of pooled sizes: 30 → 15 and 14 → 7 by windows of three."""
    return (header(64) + conv("conv1", "data", 12, 7, stride=2, pad=1) + relu("relu1", "conv1")
            + lrn("norm1", "conv1", 0.02, 3) + pool("pool1", "norm1") + conv("conv2", "pool1", 16, 5, stride=2)
            + relu("relu2", "conv2") + pool("pool2", "conv2", 3, 2, pad=1) + tail("pool2"))


def vgg(old=False):
    """Small filters; of old, in the words of 2014."""
    text = (header(32) + conv("conv1_1", "data", 8, 3, pad=1) + relu("relu1_1", "conv1_1")
            + conv("conv1_2", "conv1_1", 8, 3, pad=1) + relu("relu1_2", "conv1_2") + pool("pool1", "conv1_2", 2, 2)
            + conv("conv2_1", "pool1", 12, 3, pad=1) + relu("relu2_1", "conv2_1") + pool("pool2", "conv2_1", 2, 2)
            + tail("pool2"))
    if old:
        kinds = {"Convolution": "CONVOLUTION", "ReLU": "RELU", "Pooling": "POOLING", "InnerProduct": "INNER_PRODUCT",
                 "Dropout": "DROPOUT", "Softmax": "SOFTMAX"}
        text = re.sub(r'type: "(\w+)"', lambda found: f"type: {kinds[found[1]]}", text.replace("layer {", "layers {"))
    return text


def branches():
    """What GoogLeNet and ResNet have beside: branches, sums, averages, batch normalisation, a global pool."""
    return (header(33) + conv("conv1/7x7_s2", "data", 8, 7, stride=2, pad=3, bias_term="false")
            + layer("bn1", "BatchNorm", "conv1/7x7_s2", "conv1/7x7_s2", batch_norm_param={"eps": 0.0001})
            + layer("scale1", "Scale", "conv1/7x7_s2", "conv1/7x7_s2", scale_param={"bias_term": "true"})
            + layer("leaky", "ReLU", "conv1/7x7_s2", "conv1/7x7_s2", relu_param={"negative_slope": 0.1})
            + pool("pool1", "conv1/7x7_s2") + conv("a/1x1", "pool1", 6, 1) + relu("a/relu", "a/1x1")
            + conv("b/3x3", "pool1", 6, 3, pad=2, dilation=2) + layer("sum", "Eltwise", ["a/1x1", "b/3x3"])
            + pool("c/pool", "pool1", 3, 1, "AVE", pad=1) + layer("both", "Concat", ["sum", "c/pool"])
            + layer("all", "Pooling", "both", pooling_param={"pool": "AVE", "global_pooling": "true"})
            + fc("fc8", "all", 10) + layer("prob", "Softmax", "fc8"))


NETWORKS = {  # name: (its text, the shapes of what its layers learned)
    "alexnet": (alexnet(), {"conv1": [(12, 3, 11, 11), (12,)], "conv2": [(16, 6, 5, 5), (16,)],
                            "conv3": [(12, 16, 3, 3), (12,)], "fc6": [(20, 12 * 3 * 3), (20,)],
                            "fc8": [(10, 20), (10,)]}),
    "caffenet": (caffenet(), {"conv1": [(12, 3, 11, 11), (12,)], "conv2": [(16, 6, 5, 5), (16,)],
                              "fc6": [(20, 16 * 3 * 3), (20,)], "fc8": [(10, 20), (10,)]}),
    "zf": (zf(), {"conv1": [(12, 3, 7, 7), (12,)], "conv2": [(16, 12, 5, 5), (16,)], "fc6": [(20, 16 * 4 * 4), (20,)],
                  "fc8": [(10, 20), (10,)]}),
    "vgg": (vgg(), {"conv1_1": [(8, 3, 3, 3), (8,)], "conv1_2": [(8, 8, 3, 3), (8,)], "conv2_1": [(12, 8, 3, 3), (12,)],
                    "fc6": [(20, 12 * 8 * 8), (20,)], "fc8": [(10, 20), (10,)]}),
    "branches": (branches(), {"conv1/7x7_s2": [(8, 3, 7, 7)], "bn1": [(8,), (8,), (1,)], "scale1": [(8,), (8,)],
                              "a/1x1": [(6, 8, 1, 1), (6,)], "b/3x3": [(6, 8, 3, 3), (6,)], "fc8": [(10, 14), (10,)]}),
}


def random_weights(shapes, seed=0):
    """{layer: (type, arrays)} of a scale that neither dies nor explodes; variances and their factor are positive."""
    rng = np.random.default_rng(seed)
    kinds = {"bn": "BatchNorm", "scale": "Scale", "fc": "InnerProduct"}
    made = {}
    for name, listed in shapes.items():
        kind = next((kind for start, kind in kinds.items() if name.startswith(start)), "Convolution")
        arrays = [rng.normal(size=shape) * (np.prod(shape[1:]) / 2) ** -0.5 for shape in listed]
        made[name] = (kind, [np.abs(a) + 0.5 for a in arrays] if kind == "BatchNorm" else arrays)
    return made
