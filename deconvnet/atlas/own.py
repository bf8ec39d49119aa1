"""A picture of one's own: where the units of a layer fire in it, and the strongest activations projected."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..colours import normalise
from ..network import Network
from ..patches import cut
from ..projection import project
from ..tape import place_of, record_as_far_as
from .pictures import webp

MOST = 9     # activations that are shown, as many as of a unit in the paper
SMALL = 64   # pixels on the longer side of a tile up to which it is kept without loss: it is much enlarged

Place = tuple[int, int, int]  # unit, y, x


@dataclass(frozen=True)
class Tile:
    """One activation.

    Attributes:
        unit, y, x: which, and where on the feature map.
        value: how strong it is.
        box: its receptive field in the picture, (top, left, bottom, right) in pixels, half-open; it may pass the edge.
        reconstruction, patch: WebP files of the box's size.
    """

    unit: int
    y: int
    x: int
    value: float
    box: tuple[int, int, int, int]
    reconstruction: bytes
    patch: bytes


@dataclass(frozen=True)
class Seen:
    """What a layer makes of a picture.

    Attributes:
        whole: what the network sees of the picture, as a WebP file.
        size: its (height, width).
        tiles: the strongest activations, strongest first; none where nothing fires.
    """

    whole: bytes
    size: tuple[int, int]
    tiles: list[Tile]


def look(net: Network, image: Image.Image, layer: str, unit: int | None = None,
         check: Callable[[], None] = lambda: None) -> Seen:
    """The strongest activations of a layer in one picture, each projected to pixels.

    Args:
        net: the network.
        image: any RGB picture; the network's preprocessing takes of it what the network sees.
        layer: the layer's full address, as a scan has it.
        unit: the unit whose nine strongest peaks are looked for; None: the nine units that fire most, each once.
        check: called between the steps of the work; what it raises ends the work.

    The tiles of one unit share a scale, those of different units have one each. Raises UsageError for a layer or unit
    that does not exist, and DeconvnetError where a value is not finite or a call has no rule.
    """
    view = net.preprocess.view(image)
    batch = net.preprocess.tensor(view)[None]                                    # (1, 3, H, W)
    tape = record_as_far_as(net, batch.to(*place_of(net)), layer)
    maps = tape.activations(layer)[0]                                            # (C, H, W)
    places = strongest_units(maps) if unit is None else [(unit, y, x) for y, x in peaks(maps[unit])]
    found = []
    for place in places:
        check()
        found.append(project(tape, layer, [(0, *place)]))
    signed = [p.pixels[0].float().cpu().expand(3, -1, -1).numpy() for p in found]  # (3, h, w) each
    origins = [(int(y), int(x)) for p in found for y, x in p.origin]
    shown = np.asarray(view)                                                     # (H, W, 3)
    tiles = [_tile(place, p.values.item(), origin, colours, shown) for place, p, origin, colours in
             zip(places, found, origins, _colours(signed, together=unit is not None), strict=True)]
    return Seen(webp(shown, quality=90), shown.shape[:2], tiles)


def peaks(values: Tensor) -> list[tuple[int, int]]:
    """Where a feature map (H, W) has its nine strongest peaks, as (y, x), the strongest first.

    A peak is above zero and no lower than its eight neighbours; of peaks that touch each other the first counts.
    """
    highest = F.max_pool2d(values[None, None], 3, 1, 1)[0, 0]
    there = ((values == highest) & (values > 0)).nonzero()                       # (n, 2) by y, then x
    order = values[tuple(there.T)].sort(descending=True, stable=True).indices
    chosen: list[tuple[int, int]] = []
    for y, x in there[order].tolist():
        if len(chosen) == MOST:
            break
        if all(max(abs(y - b), abs(x - a)) > 1 for b, a in chosen):
            chosen.append((y, x))
    return chosen


def strongest_units(maps: Tensor) -> list[Place]:
    """The nine units of feature maps (C, H, W) that fire most, the strongest first, each with where it does."""
    values, at = maps.flatten(1).max(1)                                          # (C,), (C,)
    units = values.sort(descending=True, stable=True).indices[:MOST].tolist()
    return [(unit, *divmod(int(at[unit]), maps.shape[2])) for unit in units if values[unit] > 0]


def _colours(signed: Sequence[np.ndarray], together: bool) -> list[np.ndarray]:
    """Signed pixels (3, h, w) as colours (h, w, 3), on one scale or each on its own."""
    return list(normalise(np.stack(signed))) if together and signed else [normalise(pixels) for pixels in signed]


def _tile(place: Place, value: float, origin: tuple[int, int], colours: np.ndarray, shown: np.ndarray) -> Tile:
    height, width = colours.shape[:2]
    patch = cut(shown, origin, (height, width))
    sharp = max(height, width) <= SMALL
    box = (*origin, origin[0] + height, origin[1] + width)
    return Tile(*place, value, box, webp(colours, sharp, quality=85), webp(patch, sharp, quality=85))
