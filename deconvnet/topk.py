"""The k strongest activations of every unit, kept while images go past, in memory that does not grow with them.

The order is total: value descending, then image, then y, then x. So the result is the same for any batch size, any
order of the updates, any split into parts that are merged. ``torch.topk`` breaks ties as it likes and cannot give this.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import DeconvnetError, UsageError


class NotFinite(DeconvnetError):
    """NaN or infinity where an activation should be; ``image`` is the index of the first image that has it."""

    def __init__(self, image: int) -> None:
        super().__init__(f"NaN or infinity among the activations of image {image}")
        self.image = image


@dataclass(frozen=True)
class Found:
    """What a batch has to offer: the maxima of its images, and the E activations that may be among the strongest."""

    maxima: Tensor     # (N, units) the largest value of each image in each unit; may be negative
    units: Tensor      # (E,) int64
    values: Tensor     # (E,) all > 0
    images: Tensor     # (E,) int64
    positions: Tensor  # (E, 2) int64, (y, x)


class TopK:
    """The k strongest activations of each unit so far.

    Only a value above zero is an activation; where a unit has fewer than k of them, the rest of its row is value 0,
    image −1, position (−1, −1). Every image is to come once: in one update, of one of the parts that are merged.

    Attributes:
        values: (units, k), descending, in the dtype of the maps.
        images: (units, k) int64, index of the image.
        positions: (units, k, 2) int64, (y, x) in the feature map; (0, 0) in a flat layer.
    """

    def __init__(self, units: int, k: int, dtype: torch.dtype = torch.float32) -> None:
        if k < 1:
            raise UsageError(f"k is how many activations to keep of each unit: at least 1, not {k}")
        self.values = torch.zeros(units, k, dtype=dtype)
        self.images = torch.full((units, k), -1)
        self.positions = torch.full((units, k, 2), -1)

    def update(self, maps: Tensor, images: Tensor, per_image: int = 1) -> None:
        """Take in the feature maps of a batch.

        Args:
            maps: (N, units, H, W) or (N, units), on any device.
            images: (N,) int64, the index of each image.
            per_image: how many positions of one image may enter; 1 is the paper's, the strongest of each image.

        Raises NotFinite where a value is NaN or infinite.
        """
        self.keep(self.look(maps, images, per_image))

    def look(self, maps: Tensor, images: Tensor, per_image: int = 1) -> Found:
        """What ``update`` would take in, without changing anything; the arguments are those of ``update``."""
        maps = maps[..., None, None] if maps.ndim == 2 else maps  # (N, U, H, W)
        rows = _row_maxima(maps)  # (N, U, H)
        maxima = _maxima(maps, rows, images)  # (N, U)
        image, unit = self._contenders(maxima, images)  # (P,), (P,)
        which, values, positions = _strongest(maps, rows, image, unit, per_image)  # (E,), (E,), (E, 2)
        return Found(maxima, unit[which], values, images[image[which]], positions)

    def keep(self, found: Found) -> None:
        """Take in what ``look`` found."""
        k = self.values.shape[1]
        rows = found.units.unique()  # (R,) all others stay as they are
        units = torch.cat([rows.repeat_interleave(k), found.units])  # (R·k + E,)
        values = torch.cat([self.values[rows].flatten(), found.values])
        images = torch.cat([self.images[rows].flatten(), found.images])
        positions = torch.cat([self.positions[rows].flatten(0, 1), found.positions])  # (R·k + E, 2)
        order = _in_order(units, values, images)
        counts = torch.bincount(units)[rows]  # (R,) each at least k
        best = order[(counts.cumsum(0) - counts)[:, None] + torch.arange(k)]  # (R, k)
        self.values = self.values.to(values.dtype).index_copy(0, rows, values[best])
        self.images = self.images.index_copy(0, rows, images[best])
        self.positions = self.positions.index_copy(0, rows, positions[best])

    def merge(self, other: "TopK") -> None:
        """Take in what another one, of the same units and k, has kept of other images."""
        if self.values.shape != other.values.shape:
            raise UsageError(f"Only top-k of the same (units, k) can be merged, not {tuple(self.values.shape)} and "
                             f"{tuple(other.values.shape)}")
        unit, rank = (other.values > 0).nonzero(as_tuple=True)  # (E,), (E,)
        none = other.values.new_empty(0, len(other.values))
        self.keep(Found(none, unit, other.values[unit, rank], other.images[unit, rank], other.positions[unit, rank]))

    def state(self) -> dict[str, Tensor]:
        """Everything that ``from_state`` needs: the tensors ``values``, ``images``, ``positions``."""
        return {"values": self.values, "images": self.images, "positions": self.positions}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "TopK":
        """The TopK whose ``state`` this was."""
        top = cls(*state["values"].shape)
        top.values, top.images, top.positions = state["values"], state["images"], state["positions"]
        if not (top.images.shape == top.values.shape and top.positions.shape == (*top.values.shape, 2)):
            raise UsageError("values, images and positions must have the shapes (units, k), (units, k), (units, k, 2)")
        return top

    def _contenders(self, maxima: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Row in the batch (P,) and unit (P,) of the maxima that would be among the k, if each image had only one.

        No other can offer anything, however many positions of an image may enter: k entries, each of another image or
        kept already, stand before its maximum. So at most k maps of a unit are searched for positions.
        """
        k = self.values.shape[1]
        units = ((maxima > 0) & (maxima >= self.values[:, -1])).any(0).nonzero()[:, 0]  # (R,)
        values = torch.cat([self.values[units], maxima.T[units]], 1)  # (R, k + N)
        numbers = torch.cat([self.images[units], images.expand(len(units), -1)], 1)  # (R, k + N)
        order = numbers.argsort(stable=True)
        order = order.gather(1, values.gather(1, order).argsort(descending=True, stable=True))[:, :k]  # (R, k)
        new = order >= k  # (R, k)
        return order[new] - k, units[new.nonzero()[:, 0]]


def _row_maxima(maps: Tensor) -> Tensor:
    """The largest value of each row of each map (N, U, H): to find a maximum, one row need be looked at, not a map."""
    n, u, h, w = maps.shape
    if maps.is_contiguous(memory_format=torch.channels_last):  # in three dimensions torch is fifteen times as fast
        return maps.permute(0, 2, 3, 1).reshape(n * h, w, u).amax(1).view(n, h, u).transpose(1, 2)
    return maps.amax(3)


def _maxima(maps: Tensor, rows: Tensor, images: Tensor) -> Tensor:
    """The largest value of each image in each unit (N, U), on the CPU. Raises NotFinite."""
    highest = rows.amax(2).cpu()
    if not maps.sum().isfinite():  # cheap, and finite only if every value is; but it may overflow
        bad = ~(highest.isfinite() & maps.amin((2, 3)).cpu().isfinite()).all(1)  # (N,) NaN goes through both
        if bad.any():
            raise NotFinite(int(images[bad].min()))
    return highest


def _strongest(maps: Tensor, rows: Tensor, image: Tensor, unit: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The m largest values of each of the P maps ``(image, unit)``, as far as they are above zero, on the CPU.

    Which of the P (E,), the values (E,) and their positions (E, 2); of each map the largest first, and of equals the
    first.
    """
    image, unit, width = image.to(maps.device), unit.to(maps.device), maps.shape[3]
    if m == 1:  # argmax gives the first of the maximal ones
        row = rows[image, unit].argmax(1)  # (P,)
        places = (row * width + maps[image, unit, row].argmax(1))[:, None]  # (P, 1)
    else:
        places = maps[image, unit].flatten(1).argsort(descending=True, stable=True)[:, :m]  # (P, m)
    y, x = places // width, places % width  # (P, m), (P, m)
    values = maps[image[:, None], unit[:, None], y, x].cpu()  # (P, m)
    real = values > 0
    return real.nonzero()[:, 0], values[real], torch.stack([y.cpu()[real], x.cpu()[real]], 1)


def _in_order(units: Tensor, values: Tensor, images: Tensor) -> Tensor:
    """The order (E,) by unit, then value descending, then image, then as they came.

    The positions of one image come all at once, equals in the order of y and x, so they need no sorting.
    """
    order = images.argsort(stable=True)
    order = order[values[order].argsort(descending=True, stable=True)]
    return order[units[order].argsort(stable=True)]
