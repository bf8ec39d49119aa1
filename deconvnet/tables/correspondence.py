"""Table 1: do features change alike when the same part of like things is covered, and more so than at random places?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from ..exhibit import Row, Table
from ..figures.correspondence import Face, Faces, of_whom, open_faces, random_places
from ..figures.covered import Box, covered, grey
from ..figures.responses import addresses, respond
from ..layout import printable
from ..subject import Opened

PAPER = {"right eye": ("0.067 ± 0.007", "0.069 ± 0.015"), "left eye": ("0.069 ± 0.007", "0.068 ± 0.013"),
         "nose": ("0.079 ± 0.017", "0.069 ± 0.011"), "random": ("0.107 ± 0.017", "0.073 ± 0.014")}
BATCH = 16
ROUNDING = 1e-5  # of the largest activation: what is smaller comes from the last bits, and its sign from chance


class Settings(Faces):
    """Which images, parts and layers, and how many random places."""

    layers: Annotated[tuple[str, ...], Field(min_length=1, description="whose features are compared; the paper's are "
                                                                       "its layers 5 and 7")] = ("conv5", "fc7")
    random: Annotated[int, Field(ge=1, le=1000, description="random places of each image")] = 10


@dataclass(frozen=True)
class Delta:
    """How differently the features of a layer change from image to image.

    ``mean`` and ``deviation`` (standard, of a population) over all ``values``: for each pair of images, and for each
    random place where there are several, the share of features whose change differs in sign.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return float(np.std(self.values))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f}"


def make(settings: Settings, progress: bool = True) -> Table:
    """The table, after a forward pass for each image as it is and with each part and each random place covered."""
    opened = settings.open("table 1")
    faces = open_faces(opened.images, settings.parts)
    layers = addresses(opened.net, faces[0].input, settings.layers)
    deltas = measure(opened.net, faces, random_places(faces, settings.random, settings.seed), layers, progress)
    rows: list[Row] = [[printable(part), *map(str, found), *PAPER.get(part.lower(), (None, None))]
                       for part, found in deltas.items()]
    heads = ["covered", *layers, "paper: layer 5", "paper: layer 7"]
    return Table(heads, rows, _caption(opened, settings, layers), opened.origin, _numbers(deltas, layers))


def measure(net: nn.Module, faces: Sequence[Face], places: Sequence[Sequence[Box]], layers: Sequence[str],
            progress: bool = False) -> dict[str, list[Delta]]:
    """For each part, and for the random places together, a Delta for each layer (full addresses)."""
    parts = list(faces[0].boxes)
    changes = [signs(net, face, [*face.boxes.values(), *own], layers) for face, own in
               zip(tqdm(faces, desc="table 1", unit=" images", disable=not progress), places, strict=True)]
    found: dict[str, list[Delta]] = {}
    for row in range(len(parts) + len(places[0])):
        name = parts[row] if row < len(parts) else "random"
        new = [differing([own[layer][row] for own in changes]) for layer in layers]
        old = found.get(name, [Delta(())] * len(layers))
        found[name] = [Delta(a.values + b) for a, b in zip(old, new, strict=True)]
    return found


def signs(net: nn.Module, face: Face, boxes: Sequence[Box], layers: Sequence[str]) -> dict[str, np.ndarray]:
    """For each layer the signs (boxes, features) int8 of ε = x − x̃: features less those with a box covered.

    1, −1, or 0 where nothing changes; a change of less than a hundred-thousandth of the layer's largest activation is
    rounding, and no change.
    """
    keep = dict.fromkeys(layers, _row)
    plain = respond(net, [face.input[None]], keep).kept                          # each (1, features)
    other = respond(net, covered(face.input, grey(face.preprocess), boxes, BATCH), keep).kept
    return {layer: sign(plain[layer] - other[layer], float(plain[layer].max()) * ROUNDING) for layer in layers}


def _row(maps: Tensor) -> Tensor:
    return maps.flatten(1)


def sign(change: Tensor, least: float) -> np.ndarray:
    """The signs int8 of changes: −1, 0 or 1; 0 for those of at most ``least``."""
    return ((change > least).byte() - (change < -least).byte()).char().numpy()


def differing(changes: Sequence[np.ndarray]) -> tuple[float, ...]:
    """For each pair of images the share of features whose signs differ: the Hamming distance over their number."""
    return tuple(float(np.mean(a != b)) for a, b in combinations(changes, 2))


def _numbers(deltas: dict[str, list[Delta]], layers: Sequence[str]) -> dict[str, Any]:
    return {part: {layer: {"mean": one.mean, "deviation": one.deviation, "pairs": list(one.values)}
                   for layer, one in zip(layers, found, strict=True)} for part, found in deltas.items()}


def _caption(opened: Opened, settings: Settings, layers: Sequence[str]) -> str:
    return (f"Table 1 for {opened}: {', '.join(map(printable, settings.parts))}. For each image ε is its features "
            "(activations after the ReLU, before pooling) less those with a part covered by mid-grey (128); Δ is the "
            "share of features whose ε differs in sign (−, 0 or +) between two images: the mean over all pairs of "
            f"images ± standard deviation. Lower is more alike. Random: {settings.random} places of each image (seed "
            f"{settings.seed}), of the sizes of its own parts in turn; mean and deviation over pairs and places. A "
            "change below a hundred-thousandth of the layer's largest activation counts as none."
            + of_whom(opened.images, settings.parts) + " The paper's values are for five photographs of dogs and a "
            "network trained on ImageNet; it gives neither boxes nor the number of random places nor what ± is, and "
            "its sum over pairs is printed as a mean.")
