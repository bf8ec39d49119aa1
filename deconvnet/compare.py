"""Filter settings in numbers: what the paper's section 4.1 argues by eye, measured on filters and on projections.

A frequency is in cycles per pixel of the image, whatever the size of a kernel: filters and projections are laid on
zeros before the Fourier transform, so that their spectra have the same fine grid, and the energy in a spectrum is that
of the pixels (Parseval). A small kernel has a blurred spectrum all the same: of a plain 7×7 filter 81 % of the energy
lies below 1/8, of an 11×11 one 84 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .receptive import Pair

LOW, HIGH = 1 / 8, 3 / 8  # cycles per pixel: the lowest band lies below, the highest at and above; they end at 1/2
ALIKE = 0.95  # |cosine| beyond which two filters are near-duplicates
PLAIN = 0.7  # of a filter's energy in its mean colour: more, and it shows no pattern
FAINT = 0.1  # of the median norm: a filter with less looks grey beside the others


@dataclass(frozen=True, eq=False)
class Filters:
    """What is measured of each filter; every attribute is (units,) float64, NaN where a filter of zeros has none.

    Attributes:
        norm: the root of the sum of squares.
        frequency: where its power spectrum, summed over colours, is highest; cycles per pixel, 0 to √½.
        orientation: in which direction it oscillates there, in degrees from the x axis towards the y axis, which points
            down: 0 to below 180; 0 is an upright stripe. NaN where the frequency is 0.
        low: the share of its energy below 1/8 cycle per pixel, in any direction.
        high: the share of its energy at and above 3/8 cycle per pixel.
        plain: the share of its energy in its mean colour.
        likeness: the highest |cosine| with another filter.
    """

    norm: np.ndarray
    frequency: np.ndarray
    orientation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    plain: np.ndarray
    likeness: np.ndarray


def measure(weight: Tensor) -> Filters:
    """What is to be measured of first-layer filters (units, 3, k, k)."""
    weight = weight.detach().cpu().double()
    energy = weight.square().sum((1, 2, 3))                                      # (units,)
    power = spectrum(weight)                                                     # (units, n, n)
    distance = radius(power.shape[-1])                                           # (n, n)
    frequency, orientation = _peak(power)
    found = {
        "norm": energy.sqrt(), "frequency": frequency, "orientation": orientation,
        "low": share(power, distance < LOW), "high": share(power, distance >= HIGH),
        "plain": weight.mean((2, 3)).square().sum(1) * weight[0, 0].numel() / energy,
        "likeness": likeness(weight),
    }
    return Filters(**{name: value.numpy() for name, value in found.items()})


def likeness(weight: Tensor) -> Tensor:
    """The highest |cosine| of each filter (units, …) with another one, (units,); 0 where there is no other."""
    unit = F.normalize(weight.flatten(1), dim=1)                                 # (units, 3·k·k)
    return (unit @ unit.T).abs().fill_diagonal_(0).amax(1)


def spectrum(pixels: Tensor, size: int | None = None) -> Tensor:
    """The power (n, size, size) of pixels (n, C, h, w), summed over C; frequencies in the order of ``fftfreq``.

    ``size``: of the zeros that the pixels are laid on; by default a power of two that is at least twice their side, and
    at least 64.
    """
    if size is None:
        size = max(64, 2 ** (2 * max(pixels.shape[-2:]) - 1).bit_length())
    return torch.fft.fft2(pixels.double(), s=(size, size)).abs().square().sum(1)


def radius(size: int) -> Tensor:
    """How far each bin of a spectrum (size, size) is from 0, in cycles per pixel."""
    along = torch.fft.fftfreq(size, dtype=torch.double)
    return torch.hypot(along[:, None], along)


def share(power: Tensor, where: Tensor) -> Tensor:
    """Which part of the energy of each spectrum (n, size, size) lies where a mask (size, size) is true, (n,)."""
    return power[:, where].sum(1) / power.sum((1, 2))


def beyond(power: Tensor, limit: tuple[float, float]) -> Tensor:
    """Which part of the energy of each spectrum (n, size, size) reaches a frequency (y, x) along its axis, (n,).

    A square grid of samples carries the square of frequencies below its limit; what lies on its edge counts as beyond.
    """
    along = torch.fft.fftfreq(power.shape[-1], dtype=torch.double).abs()         # (size,)
    return share(power, (along[:, None] >= limit[0]) | (along >= limit[1]))


def nyquist(stride: Pair) -> tuple[float, float]:
    """The frequency (y, x), in cycles per pixel, up to which the maps of a layer with this stride carry what they see.

    From there on a map with one sample every ``stride`` pixels confuses it with something slower: aliasing.
    """
    return 1 / (2 * stride[0]), 1 / (2 * stride[1])


def counts(found: Filters) -> dict[str, float]:
    """Shares of the filters, 0 to 1, that the paper speaks of.

    ``faint``: norm below a tenth of the median. ``near_duplicates``: |cosine| with another filter above 0.95.
    ``plain``: more than 70 % of the energy in the mean colour. ``slow`` and ``fast``: more than half of the energy in
    the lowest or the highest band; ``between``: neither.
    """
    slow, fast = found.low > 0.5, found.high > 0.5                               # (units,); NaN is neither
    shares = {
        "faint": found.norm < FAINT * np.median(found.norm),
        "near_duplicates": found.likeness > ALIKE,
        "plain": found.plain > PLAIN,
        "slow": slow, "fast": fast, "between": ~(slow | fast) & (found.norm > 0),
    }
    return {name: float(which.mean()) for name, which in shares.items()}


def distribution(values: np.ndarray) -> dict[str, float | int | None]:
    """How many values are no NaN, and their minimum, quartiles and maximum; None where there are none."""
    there = values[~np.isnan(values)]
    names = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
    steps = np.quantile(there, (0, 0.25, 0.5, 0.75, 1)).tolist() if len(there) else [None] * 5
    return {"count": len(there), **dict(zip(names, steps, strict=True))}


def distributions(found: Filters) -> dict[str, Mapping[str, float | int | None]]:
    """The distribution of everything that was measured of the filters, by its name."""
    return {part.name: distribution(getattr(found, part.name)) for part in fields(found)}


def _peak(power: Tensor) -> tuple[Tensor, Tensor]:
    """Frequency (n,) and orientation (n,) in degrees of the highest power (n, size, size); NaN where there is none."""
    size = power.shape[-1]
    along = torch.fft.fftfreq(size, dtype=torch.double)                          # (size,)
    place = power.flatten(1).argmax(1)                                           # (n,)
    y, x = along[place // size], along[place % size]
    frequency = torch.hypot(y, x)
    orientation = torch.rad2deg(torch.atan2(y, x)) % 180
    nothing = torch.full_like(frequency, torch.nan)
    orientation = torch.where(frequency > 0, orientation, nothing)
    return torch.where(power.sum((1, 2)) > 0, frequency, nothing), orientation
