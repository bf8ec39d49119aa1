"""First-layer filters: where they may begin, how far they may grow, and how good they look."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compare import PLAIN, measure, radius, share, spectrum
from ..errors import UsageError


@torch.no_grad()
def renormalise(net: nn.Module, limit: float, std: Tensor) -> None:
    """Scales every filter of a convolution whose RMS exceeds ``limit`` back to it (Zeiler and Fergus 2014, section 3).

    The paper's 0.1 belongs to its inputs, pixels of 0..255 less their mean. Dividing an input by c multiplies the
    weights that do the same by c; so the first layer's filters are measured as they would be on such pixels, for
    inputs of 0..1 that were divided by ``std`` (3,).
    """
    scale = (255 * std)[:, None, None]                                           # (3, 1, 1): c, channel by channel
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight / scale if name == "conv1" else layer.weight
            rms = weight.square().mean((1, 2, 3), keepdim=True).sqrt()           # (units, 1, 1, 1)
            layer.weight.mul_((limit / rms).clamp_max(1))


def patches(inputs: Tensor, kernel: int) -> Tensor:
    """The k×k patches of inputs (N, 3, H, W) that are not flat, each less its mean: (patches, 3·k·k).

    Flat are the two fifths with the smallest contrast; patches are centred so that contrast, not brightness, counts.
    """
    every = F.unfold(inputs, kernel, stride=kernel - 2).transpose(1, 2).flatten(0, 1)  # (patches, 3·k·k)
    every = every - every.mean(0)
    contrast = every.unflatten(1, (3, -1)).var(2).mean(1)                        # (patches,)
    return every[contrast > contrast.median() * 0.7]


def whitening(some: Tensor, share: float = 0.1) -> Tensor:
    """The symmetric matrix that gives patches (patches, d) equal variance in all directions that vary: (d, d).

    ``share`` of the mean variance is added to every direction, so that noise is not raised to the level of edges.
    """
    variances, axes = torch.linalg.eigh((some.T @ some / len(some)).double())
    gain = (variances.clamp_min(0) + share * variances.mean()).rsqrt()
    return (axes * gain @ axes.T).float()


def centroids(inputs: Tensor, shape: torch.Size, rounds: int = 25) -> Tensor:
    """Filters (units, 3, k, k) that natural patches gather around: spherical k-means in whitened patches.

    They are edges and colours, found without a label (Coates and Ng 2012). Each is a centroid as it lies in whitened
    space, which is smoother than the one that would whiten patches on the way, and is scaled to responses of deviation
    1. Raises UsageError where the inputs have fewer than ten patches a unit that are not flat.
    """
    some = patches(inputs, shape[-1])
    if len(some) < 10 * shape[0]:
        raise UsageError(f"the pictures have too few edges to find {shape[0]} filters in: set centroids: false")
    transform = whitening(some)
    white = some @ transform                                                     # (patches, 3·k·k)
    centres = F.normalize(white[torch.randperm(len(white))[:shape[0]]])          # (units, 3·k·k)
    for _ in range(rounds):
        likeness = white @ centres.T                                             # (patches, units)
        nearest = likeness.abs().argmax(1, keepdim=True)                         # (patches, 1)
        drawn = torch.zeros_like(centres).index_add_(0, nearest[:, 0], likeness.gather(1, nearest) * white)
        few = torch.bincount(nearest[:, 0], minlength=shape[0]) < 10             # (units,): begin anew elsewhere
        drawn[few] = white[torch.randperm(len(white))[:int(few.sum())]]
        centres = F.normalize(drawn)
    return (centres / (some @ centres.T).std(0)[:, None]).view(shape)


def filter_statistics(weight: Tensor) -> dict[str, float]:
    """How good first-layer filters (units, 3, k, k) look, as shares of the units and as norms.

    ``plain``: more than 70 % of a filter's energy is in its mean colour. ``near_duplicates``: its cosine with another
    one is beyond ±0.9. ``fine``: the median share of energy in the finest half-octave of the filter's own spectrum,
    which is high for noise.
    """
    found, weight = measure(weight), weight.detach().double()
    size = weight.shape[-1]
    norm = torch.from_numpy(found.norm)                                          # (units,)
    return {
        "plain": float((found.plain > PLAIN).mean()),
        "near_duplicates": float((found.likeness > 0.9).mean()),
        "fine": float(share(spectrum(weight, size), radius(size) > 0.36).median()),
        "smallest_norm": float(norm.min()),
        "median_norm": float(norm.median()),
        "largest_norm": float(norm.max()),
    }
