"""Layers that give an image the same bits whatever row of a batch it is in, and whatever the other images are.

A product of matrices rounds differently in different rows, where these do not all lie on even addresses in memory or do
not divide evenly among the threads. Then what a scan finds would depend, in its last bits, on how the images are split.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

EVEN = 16  # rows, and values to a row, come in multiples of it: 64 bytes in float32, and as much for each thread


class EvenRows(TorchFunctionMode):
    """While open, torch computes on the CPU with as many rows, and as many values to a row, as ``EVEN`` divides.

    What is missing is filled up with zeros, which change nothing but the rounding. That is for ``F.linear`` and for the
    convolutions that torch takes for plain products: those of 1×1 and those in float64. Most layers lack nothing.
    Convolutions in float64 with groups stay as they are.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        rule = _RULES.get(func)
        result = rule(*args, **(kwargs or {})) if rule else None
        return func(*args, **(kwargs or {})) if result is None else result


def _linear(input: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """The result, named as torch names the arguments; None where it is torch's to compute."""
    if not _on_cpu(input) or input.ndim < 2:
        return None
    rows = input.flatten(0, -2)  # (N, inputs)
    wider, more = -rows.shape[1] % EVEN, -rows.shape[0] % EVEN
    if not (wider or more):
        return None
    even = F.linear(F.pad(rows, (0, wider, 0, more)), F.pad(weight, (0, wider)) if wider else weight, bias)
    return even[:len(rows)].reshape(*input.shape[:-1], -1)


def _conv2d(input: Any, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
            dilation: Any = 1, groups: int = 1) -> Tensor | None:
    """The result, named as torch names the arguments; None where it is torch's to compute."""
    if not _on_cpu(input) or input.ndim != 4 or groups > 1:
        return None
    units, channels = weight.shape[:2]
    wider, more = -channels % EVEN, -units % EVEN
    product = weight.shape[2:] == (1, 1) or input.dtype == torch.float64
    if not (product and (wider or more)):
        return None
    form = torch.contiguous_format if input.is_contiguous() else torch.channels_last
    images = F.pad(input, (0, 0, 0, 0, 0, wider)).contiguous(memory_format=form)  # (N, C', H, W)
    filters = F.pad(weight, (0, 0, 0, 0, 0, wider, 0, more))  # (U', C', h, w)
    bias = None if bias is None else F.pad(bias, (0, more))  # (U',)
    return F.conv2d(images, filters, bias, stride, padding, dilation)[:, :units].contiguous(memory_format=form)


_RULES = {F.linear: _linear, F.conv2d: _conv2d}


def _on_cpu(input: Any) -> bool:
    return isinstance(input, Tensor) and input.device.type == "cpu" and input.numel() > 0
