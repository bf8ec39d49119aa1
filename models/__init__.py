"""Networks by name. They import torch and nothing of deconvnet."""

from collections.abc import Callable
from functools import partial

from torch import nn

from .alexnet import AlexNet
from .zfnet import ZFNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "zfnet": ZFNet,                                                # the paper's, Figure 3
    "zfnet_wide": partial(ZFNet, widths=(96, 256, 512, 1024, 512)),  # Table 3, last rows
    "alexnet": AlexNet,                                            # Krizhevsky's two towers
    "alexnet_dense": partial(AlexNet, groups=1),                   # the paper's replica of it, without towers
}
