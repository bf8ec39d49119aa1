"""Networks to train: built by a recipe, and folded into what ships."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import MODELS
from .filters import centroids
from .recipe import Recipe


def build(recipe: Recipe, classes: int, inputs: Tensor | None = None, rank: int = 0, world: int = 1) -> nn.Module:
    """The network of a recipe with its first weights, drawn from the seed, ready to train.

    ``inputs`` (N, 3, H, W): what conv1 finds its first filters in, where the recipe has ``centroids``. ``rank`` and
    ``world``: which part of each batch it will see.
    """
    torch.manual_seed(recipe.seed)
    net = MODELS[recipe.network](classes, **recipe.arguments, batch_norm=recipe.batch_norm)
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            if recipe.init == "paper":
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Dropout):
            setattr(net, name, PartDropout(recipe.dropout, rank, world))
    net.pool5 = nn.AdaptiveMaxPool2d(6)  # at the network's own size the same windows as pool5's; 6×6 at others too
    if recipe.centroids and inputs is not None:
        net.conv1.weight.data = centroids(inputs, net.conv1.weight.shape)
    return net


class PartDropout(nn.Dropout):
    """Dropout for part ``rank`` of ``world`` of a batch, drawn for all of it: the parts drop what the whole would."""

    def __init__(self, p: float, rank: int, world: int) -> None:
        super().__init__(p)
        self.rank, self.world = rank, world

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x, (N, …)."""
        if not self.training or self.world == 1:
            return super().forward(x)
        return x * F.dropout(x.new_ones(len(x) * self.world, *x.shape[1:]), self.p)[self.rank::self.world]


def fold(net: nn.Module, recipe: Recipe) -> nn.Module:
    """The same network without batch normalisation, in eval mode, on the CPU: scores equal to rounding.

    A convolution w, b and the normalisation (x − μ)/√(σ² + ε)·γ + β become w·g, (b − μ)·g + β with g = γ/√(σ² + ε).
    """
    layers = dict(net.named_children())
    state = {}
    for name, layer in layers.items():
        if not isinstance(layer, nn.Conv2d | nn.Linear) or layer.bias is None:
            continue
        weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
        batch_norm = layers.get("bn" + name[-1])
        if isinstance(batch_norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
            mean, variance = batch_norm.get_buffer("running_mean"), batch_norm.get_buffer("running_var")
            gain = batch_norm.weight.double() / (variance.double() + batch_norm.eps).sqrt()  # (units,)
            weight, bias = weight * gain.view(-1, *[1] * (weight.ndim - 1)), (bias - mean) * gain + batch_norm.bias
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.detach().float().cpu(), bias.detach().float().cpu()
    folded = MODELS[recipe.network](state["fc8.bias"].numel(), **recipe.arguments)
    folded.load_state_dict(state)
    return folded.eval()
