"""Figure 8: images of like things, the same named part of each covered, and random places for comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from ..errors import UsageError
from ..exhibit import Exhibit
from ..images import WINDOW, Images, Photographs, Pictures, Preprocess
from ..layout import LABEL, TITLE, Sheet, Text, Tile, printable
from ..subject import Opened, Subject
from .covered import Box, cover, random_boxes
from .panels import shrunk
from .shown import find

Parts = dict[str, dict[str, Box]]  # image → part → box

# Two faces that ship, a cat's and a woman's, each seen in more than one view; right and left are theirs.
DEFAULT: Parts = {
    "chelsea@0.75+000+056": {"right eye": (58, 43, 114, 99), "left eye": (75, 154, 131, 210),
                             "nose": (154, 112, 210, 168)},
    "chelsea@0.75+000+113": {"right eye": (58, 0, 114, 42), "left eye": (75, 97, 131, 153),
                             "nose": (154, 55, 210, 111)},
    "astronaut@0.88+000+075": {"right eye": (74, 89, 102, 117), "left eye": (74, 127, 102, 155),
                               "nose": (96, 106, 124, 134)},
    "astronaut@0.88+000+149": {"right eye": (74, 15, 102, 43), "left eye": (74, 53, 102, 81),
                               "nose": (96, 32, 124, 60)},
    "astronaut@1.31+000+149": {"right eye": (111, 96, 153, 138), "left eye": (114, 154, 156, 196),
                               "nose": (142, 125, 184, 167)},
}


class Faces(Subject):
    """Images with named parts, for Figure 8 and Table 1."""

    images: Annotated[str, Field(min_length=1, description="as deconvnet scan --images")] = "builtin:photographs"
    parts: Annotated[Parts, Field(
        min_length=2, description="image: part: [top, left, bottom, right], half-open, in pixels of the image's file "
                                  "when upright, or of the built-in view; the same parts for each image")] = DEFAULT
    seed: Annotated[int, Field(ge=0, description="of the random places")] = 0

    @field_validator("parts")
    @classmethod
    def _alike(cls, parts: Parts) -> Parts:
        first, wanted = next(iter(parts.items()))
        if not wanted:
            raise ValueError(f"{first} has no parts")
        for image, own in parts.items():
            if set(own) != set(wanted):
                raise ValueError(f"every image needs the same parts: {first} has {', '.join(wanted)}; "
                                 f"{image} has {', '.join(own) or 'none'}")
            for part, (top, left, bottom, right) in own.items():
                if not (0 <= top < bottom and 0 <= left < right):
                    raise ValueError(f"{image}: {part}: [{top}, {left}, {bottom}, {right}] is no box: "
                                     "[top, left, bottom, right], from 0, bottom below top, right beyond left")
        return parts


class Settings(Faces):
    """Which images and parts, and how many random places."""

    random: Annotated[int, Field(ge=0, le=10, description="columns with a random place covered")] = 3


@dataclass(frozen=True, eq=False)
class Face:
    """An image with its parts.

    Attributes:
        name: the image's.
        pixels: (H, W, 3) uint8, what the network sees.
        input: (3, H, W) float, the same as the network takes it.
        boxes: part → box, in pixels of what the network sees.
        preprocess: how the one becomes the other.
    """

    name: str
    pixels: np.ndarray
    input: Tensor
    boxes: Mapping[str, Box]
    preprocess: Preprocess


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure. Nothing is computed: it shows what Table 1 measures."""
    opened = settings.open("figure 8")
    faces = open_faces(opened.images, settings.parts)
    places = random_places(faces, settings.random, settings.seed)
    columns = list(faces[0].boxes) + ["random"] * settings.random
    rows = [[face.pixels] + [cover(face.pixels, box) for box in [*face.boxes.values(), *own]]
            for face, own in zip(faces, places, strict=True)]
    data = {"images": [{"image": face.name, "parts": {part: list(box) for part, box in face.boxes.items()},
                        "random": [list(box) for box in own]} for face, own in zip(faces, places, strict=True)]}
    return Exhibit(draw(rows, ["original", *columns]), data, _caption(opened, settings), opened.origin)


# ---- images with parts ----


def open_faces(images: Images, parts: Parts) -> list[Face]:
    """The images with their parts in pixels of what the network sees, all in the order of the first image's parts.

    Raises UsageError for an image that does not exist, or whose box lies outside of it or of what the network sees.
    """
    order = next(iter(parts.values()))
    faces = []
    for number, (name, own) in zip(find(images, list(parts)), parts.items(), strict=True):
        geometry = _Geometry.of(images, number)
        boxes = {part: geometry.seen(f"parts: {printable(name)}: {part}", own[part]) for part in order}
        view = images.view(number)
        faces.append(Face(name, np.asarray(view), images.preprocess.tensor(view), boxes, images.preprocess))
    return faces


@dataclass(frozen=True)
class _Geometry:
    """Where in an image the square lies that the network sees: (top, left) and side, in the image's own pixels."""

    height: int
    width: int
    top: float
    left: float
    side: float
    size: int  # of what the network sees

    @classmethod
    def of(cls, images: Images, number: int) -> "_Geometry":
        preprocess = images.preprocess
        if isinstance(images, Photographs):
            return cls(WINDOW, WINDOW, 0, 0, WINDOW, preprocess.size)
        if not isinstance(images, Pictures):
            raise UsageError("parts are boxes in photographs of a folder or built-in ones")
        if preprocess.stretch:
            raise UsageError("parts are boxes in pictures that keep their shape, and this network's are stretched")
        width, height = images.picture(number).size
        side = preprocess.size * min(width, height) / preprocess.resize
        return cls(height, width, (height - side) / 2, (width - side) / 2, side, preprocess.size)

    def seen(self, where: str, box: Box) -> Box:
        """A box in pixels of what the network sees. Raises UsageError that begins with ``where``."""
        top, left, bottom, right = box
        if bottom > self.height or right > self.width:
            raise UsageError(f"{where}: {list(box)} lies outside the image, which has {self.height} rows and "
                             f"{self.width} columns")
        scale = self.size / self.side
        found = (round((top - self.top) * scale), round((left - self.left) * scale),
                 round((bottom - self.top) * scale), round((right - self.left) * scale))
        if min(found) < 0 or max(found) > self.size or found[0] >= found[2] or found[1] >= found[3]:
            raise UsageError(f"{where}: {list(box)} lies outside what the network sees of the image, rows "
                             f"{self.top:.0f} to {self.top + self.side:.0f} and columns {self.left:.0f} to "
                             f"{self.left + self.side:.0f}, or is too small to be seen")
        return found


def random_places(faces: Sequence[Face], count: int, seed: int) -> list[list[Box]]:
    """For each image so many boxes at random places, of the sizes of its own parts in turn."""
    generator = torch.Generator().manual_seed(seed)
    places = []
    for face in faces:
        own = list(face.boxes.values())
        sizes = [(bottom - top, right - left) for top, left, bottom, right in
                 (own[n % len(own)] for n in range(count))]
        places.append(random_boxes(sizes, face.pixels.shape[0], generator))
    return places


# ---- the drawing ----

SIDE, GAP, MARGIN = 150, 8, 12  # pixels


def draw(rows: Sequence[Sequence[np.ndarray]], heads: Sequence[str]) -> Sheet:
    """The figure: a row for each image, of pictures (h, w, 3) uint8, under the heads of the columns."""
    if any(len(row) != len(heads) for row in rows):
        raise UsageError(f"each row needs {len(heads)} pictures, one for each head")
    step, top = SIDE + GAP, MARGIN + TITLE + GAP
    tiles = [Tile(MARGIN + x * step, top + y * step, SIDE, SIDE, shrunk(pixels, SIDE, SIDE))
             for y, row in enumerate(rows) for x, pixels in enumerate(row)]
    texts = [Text(MARGIN + x * step, MARGIN, LABEL + 2, printable(head)) for x, head in enumerate(heads)]
    return Sheet(2 * MARGIN + step * len(heads) - GAP, top + step * len(rows) - GAP + MARGIN, tuple(tiles),
                 tuple(texts))


def of_whom(images: Images, parts: Any) -> str:
    """What a caption must say of the faces that ship; empty for one's own."""
    if parts != DEFAULT or not isinstance(images, Photographs):
        return ""
    return (" The five images are views, in several places and sizes, of only two faces, a cat's and a woman's, which "
            "is what scikit-image's photographs have to offer: this shows the method, and is no evidence.")


def _caption(opened: Opened, settings: Settings) -> str:
    parts = ", ".join(next(iter(settings.parts.values())))
    return (f"Figure 8 for {opened}: images as the network sees them; with these parts covered by mid-grey (128): "
            f"{parts}; and with random places covered (seed {settings.seed}), of the sizes of the image's own parts in "
            "turn, which may meet them." + of_whom(opened.images, settings.parts) +
            " Right and left are the animal's own. The paper shows five dogs seen from the front, and gives neither "
            "the boxes nor their sizes.")
