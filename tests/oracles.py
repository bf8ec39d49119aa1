"""The slow, obvious versions that the tests compare with."""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F


def sorted_activations(maps, images, k, per_image=1):
    """Values, images and positions of the k strongest of each unit, by sorting all activations of all images.

    ``maps`` is (N, U, H, W), ``images`` the index of each. Lists: [unit][rank], fewer than k where fewer are positive.
    """
    found = []
    for unit in range(maps.shape[1]):
        entries = []
        for row, image in enumerate(images):
            own = [(-maps[row, unit, y, x].item(), int(image), y, x)
                   for y in range(maps.shape[2]) for x in range(maps.shape[3]) if maps[row, unit, y, x] > 0]
            entries += sorted(own)[:per_image]
        found.append([(-value, image, (y, x)) for value, image, y, x in sorted(entries)[:k]])
    return found


def mean_maximum_by_class(maps, labels):
    """For each class the mean over its images of the largest activation of each unit, one by one; 0 without images."""
    table = []
    for label in range(max(labels) + 1):
        rows = [row for row, own in enumerate(labels) if own == label]
        table.append([sum(max(maps[row, unit].max().item(), 0) for row in rows) / max(len(rows), 1)
                      for unit in range(maps.shape[1])])
    return table


# ---- the way down, by automatic differentiation ----------------------------------------------------------------------

BACKWARD_OF_RELU = {
    "deconvnet": lambda signal, x: signal.clamp(min=0),
    "gradient": lambda signal, x: signal * (x > 0),
    "guided": lambda signal, x: signal.clamp(min=0) * (x > 0),
}


class _ReLU(torch.autograd.Function):
    """A ReLU with the backward rule of a method, which touches nothing in place."""

    @staticmethod
    def forward(ctx, x, method):
        ctx.save_for_backward(x.clone())  # the network may go on to overwrite it
        ctx.method = method
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        return BACKWARD_OF_RELU[ctx.method](signal, *ctx.saved_tensors), None


@contextmanager
def backward_of(method):
    """While open, every ReLU goes backward by the rule of a method; in the deconvnet, contrast normalisation does not
    take part."""
    def relu(input, inplace=False):
        return _ReLU.apply(input, method)

    def normalised_without_gradient(x, *args, **kwargs):
        return normalise(x, *args, **kwargs).detach() + (x - x.detach())

    normalise = F.local_response_norm
    with ExitStack() as patches:
        for where in (F, torch, torch.Tensor):
            for name in ("relu", "relu_"):
                patches.enter_context(patch.object(where, name, relu))
        if method == "deconvnet":
            patches.enter_context(patch.object(F, "local_response_norm", normalised_without_gradient))
        yield


def differentiated(net, images, layer, units, method="gradient", seed="activation"):
    """What ``project`` is to give on the whole images (n, C, H, W): one backward pass for each of the units."""
    images = images.clone().requires_grad_()
    name, _, call = layer.partition("#")
    outputs = []

    def keep(module, args, output):
        outputs.append(output)
        return output.clone()  # so that the network overwrites a copy

    hook = net.get_submodule(name).register_forward_hook(keep)
    with backward_of(method):
        net(images)
        hook.remove()
        output = outputs[int(call or 1) - 1]
        output = output if output.ndim == 4 else output[:, :, None, None]
        canvases = []
        for image, unit, y, x in units:
            seeds = torch.zeros_like(output)
            place = (image, unit, y, x) if seed == "activation" else (image, unit)
            seeds[place] = output.detach().clamp(min=0)[place]
            canvases.append(torch.autograd.grad(output, images, seeds, retain_graph=True)[0][image])
    return torch.stack(canvases)


# ---- the way up and the way down, in loops ---------------------------------------------------------------------------

class SlowNetwork:
    """A network from ``networks.py`` on one image (C, H, W), in NumPy, cell by cell.

    ``up`` computes the value of every node, ``linear`` the same without biases and rectifications and with the switches
    of ``up``; ``down`` brings a signal on a node to the pixels.
    """

    def __init__(self, nodes, image):
        self.nodes, self.image = nodes, image
        self.switches = {}
        self.values = self.up(image)

    def up(self, image):
        return self._forward(image, real=True)

    def linear(self, image):
        return self._forward(image, real=False)

    def _forward(self, image, real):
        values = []
        for number, node in enumerate(self.nodes):
            inputs = [image if source < 0 else values[source] for source in node.sources]
            values.append(getattr(self, f"_{node.kind}_up")(number, node, real, *inputs))
        return values

    def down(self, start, signal, rectify, center=False):
        """The signal (C, H, W) on a node's value in pixels; ``rectify(signal, x)`` is what happens at a ReLU of x."""
        signals = {start: signal}
        self.rectify, self.center = rectify, center
        for number in reversed(range(start + 1)):
            if number in signals:
                node = self.nodes[number]
                inputs = [self.image if source < 0 else self.values[source] for source in node.sources]
                parts = getattr(self, f"_{node.kind}_down")(number, node, signals.pop(number), *inputs)
                for source, part in zip(node.sources, parts, strict=True):
                    signals[source] = signals.get(source, 0) + part
        return signals[-1]

    # each kind of node

    def _conv_up(self, number, node, real, x):
        padded = np.pad(x, [(0, 0), *[(p, p) for p in node.padding]])
        out = np.zeros((len(node.weight), *(size for size in node.out_size(x.shape[1:]))))
        for y, x_ in np.ndindex(*out.shape[1:]):
            out[:, y, x_] = np.tensordot(node.dense(len(x)), padded[:, *node.window(y, x_)], 3)
        return out + node.bias[:, None, None] * real

    def _conv_down(self, number, node, signal, x):
        padded = np.zeros((len(x), *(n + 2 * p for n, p in zip(x.shape[1:], node.padding, strict=True))))
        for y, x_ in np.ndindex(*signal.shape[1:]):
            if signal[:, y, x_].any():
                padded[:, *node.window(y, x_)] += np.tensordot(signal[:, y, x_], node.dense(len(x)), 1)
        (top, left), (height, width) = node.padding, x.shape[1:]
        return [padded[:, top:top + height, left:left + width]]

    def _relu_up(self, number, node, real, x):
        return np.maximum(x, 0) if real else x

    def _relu_down(self, number, node, signal, x):
        return [self.rectify(signal, x)]

    def _maxpool_up(self, number, node, real, x):
        out = np.zeros((len(x), *node.out_size(x.shape[1:])))
        for cell in np.ndindex(*out.shape):
            if real:
                self.switches[number, *cell] = max(node.cells(cell[1:], x.shape[1:]), key=lambda c: x[cell[0], *c])
            out[cell] = x[cell[0], *self.switches[number, *cell]]
        return out

    def _maxpool_down(self, number, node, signal, x):
        below = np.zeros_like(x)
        for cell in np.argwhere(signal):
            unit, *position = map(int, cell)
            goal = node.middle(position, x.shape[1:]) if self.center else self.switches[number, unit, *position]
            below[unit, *goal] += signal[tuple(cell)]
        return [below]

    def _avgpool_up(self, number, node, real, x):
        out = np.zeros((len(x), *node.out_size(x.shape[1:])))
        for y, x_ in np.ndindex(*out.shape[1:]):
            for cell in node.cells((y, x_), x.shape[1:]):
                out[:, y, x_] += x[:, *cell] / node.divisor((y, x_), x.shape[1:])
        return out

    def _avgpool_down(self, number, node, signal, x):
        below = np.zeros_like(x)
        for y, x_ in np.ndindex(*signal.shape[1:]):
            for cell in node.cells((y, x_), x.shape[1:]) if signal[:, y, x_].any() else ():
                below[:, *cell] += signal[:, y, x_] / node.divisor((y, x_), x.shape[1:])
        return [below]

    def _norm_up(self, number, node, real, x):
        mean, variance, weight, bias = (v[:, None, None] for v in node.statistics)
        return (x - mean * real) / np.sqrt(variance + 1e-5) * weight + bias * real

    def _norm_down(self, number, node, signal, x):
        _, variance, weight, _ = (v[:, None, None] for v in node.statistics)
        return [signal * weight / np.sqrt(variance + 1e-5)]

    def _add_up(self, number, node, real, one, other):
        return one + other

    def _add_down(self, number, node, signal, one, other):
        return [signal, signal]

    def _cat_up(self, number, node, real, one, other):
        return np.concatenate([one, other])

    def _cat_down(self, number, node, signal, one, other):
        return [signal[:len(one)], signal[len(one):]]
