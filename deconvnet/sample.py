"""How strongly every unit answers to an even sample of the images, in memory that does not grow with them.

The strongest activations say little about all the others. A sample of the images says how the activations of a unit are
distributed, and which units answer to the same images.
"""

import torch
from torch import Tensor

SIZE = 512  # images; a correlation over so many is right to about 0.04


class Sample:
    """The maxima of up to ``SIZE`` images in each unit of a layer.

    Which images are in it depends on their numbers alone: those whose numbers are scattered to the lowest places. So
    it is the same for any batch size, order and split into parts that are merged, and for all layers.

    Attributes:
        images: (S,) int64, the indices of the images, in the order of their places.
        maxima: (S, units), the strongest activation of each unit in each; 0 where it does not fire.
    """

    def __init__(self, images: Tensor, maxima: Tensor) -> None:
        self.images, self.maxima = images, maxima

    @classmethod
    def blank(cls, units: int, dtype: torch.dtype = torch.float32) -> "Sample":
        """A sample of no images."""
        return cls(torch.zeros(0, dtype=torch.int64), torch.zeros(0, units, dtype=dtype))

    def keep(self, images: Tensor, maxima: Tensor) -> None:
        """Take in images that were not seen before: their indices (N,) and maxima (N, units), which may be negative."""
        if len(self.images) == SIZE:  # most images come too late, and none of their maxima need be copied
            early = _places(images) <= _places(self.images[-1:])
            images, maxima = images[early], maxima[early]
        together = torch.cat([self.images, images])
        order = _order(together)[:SIZE]
        self.images = together[order]
        self.maxima = torch.cat([self.maxima, maxima.clamp(min=0)])[order]

    def merge(self, other: "Sample") -> "Sample":
        """The sample of both, seen over different images."""
        both = Sample(self.images, self.maxima)
        both.keep(other.images, other.maxima)
        return both

    def likeness(self) -> Tensor:
        """The correlation of the units' maxima over the images (units, units) float32; 0 where a unit never varies."""
        centred = self.maxima.double() - self.maxima.double().mean(0)  # (S, U)
        size = centred.norm(dim=0)  # (U,)
        unit = torch.where(size > 1e-9 * self.maxima.double().norm(dim=0), centred / size.clamp(min=1e-300), 0.0)
        return (unit.T @ unit).clamp(-1, 1).float()


def _places(images: Tensor) -> Tensor:
    """Where each number is scattered to (N,) int64; no two numbers to the same place.

    The mixing of splitmix64 (Steele, Lea and Flood 2014), in arithmetic that wraps around.
    """
    mixed = images + -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shifted to the right without the sign, which torch has for signed numbers only."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _order(images: Tensor) -> Tensor:
    return _places(images).argsort()
