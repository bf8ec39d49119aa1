"""Generated networks, for the properties: nodes as data, from which a module is built and which the oracle reads."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn


@dataclass
class Node:
    """One step of a network: what it is, the numbers of the nodes it takes (−1 is the image), how it slides."""

    kind: str
    sources: tuple
    kernel: tuple = (1, 1)
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    ceil: bool = False
    groups: int = 1
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    statistics: np.ndarray | None = None
    count_padding: bool = True
    style: str = "module"

    def out_size(self, size):
        return tuple(self._out(*axis) for axis in
                     zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True))

    def _out(self, n, k, s, p, d):
        span = n + 2 * p - d * (k - 1) - 1
        out = -(-span // s) + 1 if self.ceil else span // s + 1
        return out - 1 if self.ceil and (out - 1) * s >= n + p else out  # a window must begin on the map or left of it

    def window(self, *position):
        """The slices of the padded input that an output cell looks at."""
        return tuple(slice(o * s, o * s + d * (k - 1) + 1, d) for o, s, d, k in
                     zip(position, self.stride, self.dilation, self.kernel, strict=True))

    def cells(self, position, size):
        """The input cells that an output cell looks at, row by row, without those in the padding."""
        axes = [[c for c in range(o * s - p, o * s - p + d * (k - 1) + 1, d) if 0 <= c < n] for o, s, p, d, k, n in
                zip(position, self.stride, self.padding, self.dilation, self.kernel, size, strict=True)]
        return list(itertools.product(*axes))

    def divisor(self, position, size):
        """By what average pooling divides its sum."""
        if not self.count_padding:
            return len(self.cells(position, size))
        lengths = [min(o * s - p + k, n + p) - (o * s - p) for o, s, p, k, n in
                   zip(position, self.stride, self.padding, self.kernel, size, strict=True)]
        return lengths[0] * lengths[1]

    def middle(self, position, size):
        """The middle of a pooling window as far as it lies on the map."""
        return tuple((max(o * s - p, 0) + min(o * s - p + d * (k - 1), n - 1)) // 2 for o, s, p, d, k, n in
                     zip(position, self.stride, self.padding, self.dilation, self.kernel, size, strict=True))

    def dense(self, channels):
        """The filters (O, I, kh, kw) as one, with zeros between the groups."""
        full = np.zeros((len(self.weight), channels, *self.kernel))
        outputs, inputs = len(self.weight) // self.groups, channels // self.groups
        for g in range(self.groups):
            rows = slice(g * outputs, (g + 1) * outputs)
            full[rows, g * inputs:(g + 1) * inputs] = self.weight[rows]
        return full


@dataclass
class Plan:
    """A generated network and images for it (N, C, H, W)."""

    nodes: list = field(default_factory=list)
    images: np.ndarray | None = None

    def __repr__(self):
        def settings(node):
            return ", ".join(f"{k}={v}" for k, v in vars(node).items() if not isinstance(v, np.ndarray))
        return f"images {self.images.shape}\n" + "\n".join(f"{i}: {settings(n)}" for i, n in enumerate(self.nodes))

    @property
    def named(self):
        """The numbers of the nodes that a module of their own puts out."""
        return [i for i, node in enumerate(self.nodes) if node.kind not in ("relu", "add", "cat")]

    def layer(self, number):
        return f"{self.nodes[number].kind}{number}"


class Network(nn.Module):
    """The network of a plan, in float64 and in evaluation mode."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes
        self.shared_relu = nn.ReLU()
        self.shared_relu_in_place = nn.ReLU(inplace=True)
        for i, node in enumerate(nodes):
            module = getattr(self, f"_{node.kind}", lambda node: None)(node)
            if module is not None:
                self.add_module(f"{node.kind}{i}", module)
        self.double().eval()

    def _conv(self, node):
        outputs, inputs = len(node.weight), node.weight.shape[1] * node.groups
        conv = nn.Conv2d(inputs, outputs, node.kernel, node.stride, node.padding, node.dilation, node.groups)
        conv.weight.data, conv.bias.data = torch.tensor(node.weight), torch.tensor(node.bias)
        return conv

    def _maxpool(self, node):
        return nn.MaxPool2d(node.kernel, node.stride, node.padding, node.dilation, ceil_mode=node.ceil)

    def _avgpool(self, node):
        return nn.AvgPool2d(node.kernel, node.stride, node.padding, node.ceil, node.count_padding)

    def _norm(self, node):
        norm = nn.BatchNorm2d(node.statistics.shape[1])
        for tensor, value in zip((norm.running_mean, norm.running_var, norm.weight, norm.bias), node.statistics,
                                 strict=True):
            tensor.data = torch.tensor(value)
        return norm

    def _relu(self, node):
        return {"module": nn.ReLU(), "in place": nn.ReLU(inplace=True)}.get(node.style)

    def forward(self, x):
        values = []
        for i, node in enumerate(self.nodes):
            values.append(self._run(i, node, *(values[s] if s >= 0 else x for s in node.sources)))
        return values[-1]

    def _run(self, i, node, x, other=None):
        if hasattr(self, f"{node.kind}{i}"):
            return getattr(self, f"{node.kind}{i}")(x)
        if node.kind == "cat":
            return torch.cat([x, other], 1)
        if node.kind == "add":
            return x.add_(other) if node.style == "in place" else x + other
        return {"shared": self.shared_relu, "shared in place": self.shared_relu_in_place, "function": F.relu,
                "function in place": lambda x: F.relu(x, inplace=True), "torch": torch.relu,
                "method": torch.Tensor.relu}[node.style](x)


RELUS = ("module", "in place", "shared", "shared in place", "function", "function in place", "torch", "method")
BLOCKS = ("conv", "conv", "relu", "maxpool", "avgpool", "norm", "residual", "branches")


class _Writer:
    """Draws one block after another, keeping track of the size of the map."""

    def __init__(self, draw, relus, biases):
        self.draw, self.relus, self.biases = draw, relus, biases
        self.random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.nodes = []
        self.channels = draw(st.integers(1, 3))
        self.size = draw(st.tuples(st.integers(5, 15), st.integers(5, 15)))
        self.images = self.random.normal(size=(2, self.channels, *self.size))
        self.now = -1

    def append(self, kind, *sources, **settings):
        node = Node(kind, sources or (self.now,), **settings)
        self.nodes.append(node)
        self.size = node.out_size(self.size)
        self.now = len(self.nodes) - 1
        return self.now

    def slide(self, largest, paddings=3, dilated=True, half=False):
        """Kernel, stride, padding and dilation that fit the map, both axes on their own."""
        axes = []
        for n in self.size:
            p = self.draw(st.integers(0, paddings))
            k = self.draw(st.integers(1, min(largest, n + 2 * p)))
            d = self.draw(st.integers(1, 2)) if dilated and 2 * (k - 1) + 1 <= n + 2 * p * (not half) else 1
            if half:  # a pooling window without a cell of the map would be minus infinity
                p = min(p, k // 2) * (d == 1)
                k = min(k, n + 2 * p)
            axes.append((k, self.draw(st.integers(1, 4)), p, d))
        return dict(zip(("kernel", "stride", "padding", "dilation"), zip(*axes, strict=True), strict=True))

    def filters(self, outputs, kernel, groups=1):
        weight = self.random.normal(size=(outputs, self.channels // groups, *kernel)) / np.sqrt(np.prod(kernel))
        return {"weight": weight, "bias": self.random.normal(size=outputs) * 0.3 * self.biases, "kernel": kernel}

    def conv(self):
        slide = self.slide(11)
        groups = self.draw(st.sampled_from([g for g in (1, 2, 3) if self.channels % g == 0]))
        outputs = groups * self.draw(st.integers(1, 4 // groups))
        self.append("conv", groups=groups, **slide | self.filters(outputs, slide["kernel"], groups))
        self.channels = outputs

    def same(self, source, outputs, kernel, size):
        """A convolution that keeps the size of the map."""
        self.size = size
        return self.append("conv", source, padding=(kernel // 2,) * 2, **self.filters(outputs, (kernel, kernel)))

    def relu(self):
        if self.relus:
            styles = RELUS if self.now >= 0 else [style for style in RELUS if "in place" not in style]
            self.append("relu", style=self.draw(st.sampled_from(styles)))

    def maxpool(self):
        self.append("maxpool", ceil=self.draw(st.booleans()), **self.slide(4, 2, half=True))

    def avgpool(self):
        options = {"ceil": self.draw(st.booleans()), "count_padding": self.draw(st.booleans())}
        self.append("avgpool", **options, **self.slide(4, 2, dilated=False, half=True))

    def norm(self):
        mean, weight, bias = self.random.normal(size=(3, self.channels))
        variance = self.random.uniform(0.5, 2, self.channels)
        self.append("norm", statistics=np.stack([mean * self.biases, variance, weight, bias * self.biases]))

    def residual(self):
        """relu(x + conv(relu(conv(x)))), sums in place or not."""
        start, size = self.now, self.size
        self.same(start, self.channels, self.draw(st.sampled_from([1, 3, 5])), size)
        self.relu()
        branch = self.same(self.now, self.channels, 3, size)
        self.append("add", branch, start, style=self.draw(st.sampled_from(["in place", "plain"])))
        self.relu()

    def branches(self):
        """Convolutions of different kernels side by side, one of them behind a pooling or not."""
        start, size = self.now, self.size
        kernels = self.draw(st.lists(st.sampled_from([1, 3, 5, 7]), min_size=2, max_size=2, unique=True))
        one = self.same(start, 2, kernels[0], size)
        if self.draw(st.booleans()):
            start = self.append("maxpool", start, kernel=(3, 3), padding=(1, 1))
        other = self.same(start, 1, kernels[1], size)
        self.append("cat", one, other)
        self.channels = 3


@st.composite
def plans(draw, blocks=BLOCKS, relus=True, biases=True, last=False):
    """Networks of one to five blocks, with a convolution at the end of some of them, or of all."""
    writer = _Writer(draw, relus, biases)
    for block in draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=4)):
        getattr(writer, block)()
    if last or draw(st.booleans()) or not Plan(writer.nodes).named:
        writer.conv()
    return Plan(writer.nodes, writer.images)
