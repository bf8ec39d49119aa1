"""Transposed convolution by three ways that give the same: which one is the fastest depends on what is filtered."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from .receptive import Pair, Sliding

NARROW = 4                   # output channels up to which strided filters are taken phase by phase: the last step
SPARSE, SAMPLED = 1 / 8, 16  # share of values that are not zero up to which these alone are taken; told by every 16th
CHANNELS, ROW = 128, 512     # fewer channels, or shorter filters of one, are filtered faster by torch, zeros and all
SUMS = 2 ** 23               # numbers that are held meanwhile, at most; larger blocks come from the system each time


def convolve_transposed(values: Tensor, weight: Tensor, slide: Sliding, groups: int = 1) -> Tensor:
    """What ``conv_transpose2d`` gives of values (n, C, h, w) and weights (C, c, kh, kw), up to rounding.

    That is (n, c · groups, H, W), without padding, by the kernel (the weights'), stride and dilation of ``slide``.
    """
    if groups == 1 and weight.shape[1] <= NARROW:
        if max(slide.stride) > 1 and slide.dilation == (1, 1):
            return _in_phases(values, weight, slide.stride)
    elif groups == 1 and _is_sparse(values, weight):
        return _of_nonzero(values, weight, slide)
    return F.conv_transpose2d(values, weight, stride=slide.stride, dilation=slide.dilation, groups=groups)


def _in_phases(values: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """Faster where c is small and the stride is not 1.

    With a stride of s each pixel gets every s-th weight only. So the pixels of one phase, s apart, are a convolution of
    stride 1; it gives all phases as channels, which are then laid side by side.
    """
    (sy, sx), (c, kh, kw) = stride, weight.shape[1:]
    my, mx = -(-kh // sy), -(-kw // sx)                                  # weights that meet in a pixel, per axis
    padded = F.pad(weight, (0, mx * sx - kw, 0, my * sy - kh))
    taps = padded.view(-1, c, my, sy, mx, sx).flip(2, 4).permute(1, 3, 5, 0, 2, 4)           # (c, sy, sx, C, my, mx)
    phases = F.conv2d(values, taps.flatten(0, 2), padding=(my - 1, mx - 1))                  # (n, c·sy·sx, h', w')
    n, _, h, w = phases.shape
    pixels = phases.view(n, c, sy, sx, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c, h * sy, w * sx)
    height, width = ((size - 1) * s + k for size, s, k in zip(values.shape[2:], stride, (kh, kw), strict=True))
    return pixels[:, :, :height, :width]


def _is_sparse(values: Tensor, weight: Tensor) -> bool:
    """Whether so few values are not zero that it pays to filter these alone: after a seed, after unpooling and ReLU."""
    suits = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    sums = values[:, 0].numel() * weight[0].numel()
    if not suits or len(weight) < CHANNELS or weight[0].numel() < ROW or sums > SUMS:
        return False
    some = values[:, ::SAMPLED]  # counting all of them takes as long as filtering does
    return int(some.count_nonzero()) <= SPARSE * some.numel()


def _of_nonzero(values: Tensor, weight: Tensor, slide: Sliding) -> Tensor:
    """Faster where most values are zero.

    Of each cell only the channels that are not zero are looked up: their filters, times their values, are summed, and
    these sums are laid onto the pixels that the cell reaches.
    """
    (n, channels, h, w), (c, kh, kw) = values.shape, weight.shape[1:]
    if (h, w) == (1, 1) and slide.dilation == (1, 1):                    # the sums are the pixels
        return _weighted(values.flatten(1), weight.flatten(1)).view(n, c, kh, kw)
    filters = weight.permute(0, 2, 3, 1).flatten(1)                      # (C, kh·kw·c)
    sums = _weighted(values.permute(0, 2, 3, 1).reshape(-1, channels), filters).view(n, h, w, kh, kw, c)
    pixels = values.new_zeros(n, *slide.extent((h, w)), c)
    for y, x in product(range(kh), range(kw)):
        rows, columns = (slice(first * d, first * d + (size - 1) * s + 1, s)
                         for first, size, s, d in zip((y, x), (h, w), slide.stride, slide.dilation, strict=True))
        pixels[:, rows, columns] += sums[:, :, :, y, x]
    return pixels.permute(0, 3, 1, 2).contiguous()                       # (n, c, H, W)


def _weighted(values: Tensor, rows: Tensor) -> Tensor:
    """``values @ rows``, (m, C) times (C, …), from the values that are not zero."""
    flat, channels = values.flatten(), values.shape[1]
    there = flat.nonzero()[:, 0]
    begins = torch.searchsorted(there, torch.arange(0, len(flat), channels))
    return F.embedding_bag(there % channels, rows, begins, mode="sum", per_sample_weights=flat[there])
