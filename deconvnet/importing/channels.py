"""Networks that were trained on blue, green, red, turned into the same ones for red, green, blue."""

from typing import cast

import torch
from torch import Tensor, nn

from ..errors import DeconvnetError
from ..receptive import Pair
from ..tape import record


def turn_channels(net: nn.Module, size: Pair, where: str) -> None:
    """Turn a network for blue, green, red into the same one for red, green, blue; ``size`` (H, W) is of its images.

    Its first filters are turned, not the images, so that filters and projections show in true colours everywhere.
    Raises DeconvnetError, naming the file ``where`` it is from, where images do not go straight into convolutions.
    """
    noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    modules, tape = dict(net.eval().named_modules()), record(net, noise)
    first = [modules[call.module] if call.name in ("conv2d", "pad") else None
             for call in tape.calls if 0 in call.inputs]
    if not all(isinstance(conv, nn.Conv2d) and conv.in_channels == 3 and conv.groups == 1 for conv in first):
        raise DeconvnetError(f"{where} is for BGR, and only a network whose images go straight into convolutions of "
                             "three channels can be turned to RGB")
    for conv in {id(conv): conv for conv in first}.values():
        weight = cast(Tensor, cast(nn.Conv2d, conv).weight)
        weight.data = weight.data.flip(1)
