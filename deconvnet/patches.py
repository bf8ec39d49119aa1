"""The pixels that a patch shows: those of an image, in a window that may reach beyond it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import UsageError
from .images import GREY

Inverse = Callable[[Tensor], np.ndarray]
"""Inputs (n, 3, H, W) → pixels (n, H, W, 3) uint8."""


def cut(image: np.ndarray, origin: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The window of ``size`` (h, w) at ``origin`` (y, x) of an image (H, W, 3), mid-grey where it lies outside."""
    (top, left), (height, width) = origin, size
    window = np.full((height, width, 3), GREY, dtype=np.uint8)                   # (h, w, 3)
    part = image[max(top, 0):max(top + height, 0), max(left, 0):max(left + width, 0)]
    y, x = max(-top, 0), max(-left, 0)
    window[y:y + part.shape[0], x:x + part.shape[1]] = part
    return window


def stretched(inputs: Tensor) -> np.ndarray:
    """Inputs (n, 3 or 1, H, W) as pixels (n, H, W, 3) uint8, each image from its smallest to its largest value.

    For images of which nobody says how they were preprocessed: light and colour are not the photograph's.
    """
    values = inputs.detach().cpu().double()                                      # (n, c, H, W)
    if values.shape[1] not in (1, 3):
        raise UsageError(f"the images have {values.shape[1]} channels, and a patch shows 1 or 3: give inverse=…")
    low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    share = (values - low) / torch.where(high > low, high - low, 1.0)
    return (share * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def inverse_of(net: nn.Module, images: Any) -> Inverse:
    """That of ``images.preprocess`` or ``net.preprocess``; where there is neither, ``stretched``."""
    for owner in (images, net):
        inverse = getattr(getattr(owner, "preprocess", None), "inverse", None)
        if inverse is not None:
            return inverse
    return stretched
