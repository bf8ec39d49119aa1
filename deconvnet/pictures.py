"""Images by number: what every set of them gives, wherever it has them from."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image

from .batches import Pixels
from .preprocess import Preprocess


class Images(Pixels):
    """Images by number, as network inputs with labels: what a scan reads. An item is ((3, H, W) float32, label).

    Attributes:
        preprocess: how a picture becomes an input.
        files: a name for each image, the same on every machine.
        labels: a class number for each image, −1 where it has none.
        classes: the names of the classes.
    """

    preprocess: Preprocess
    files: list[str]
    labels: list[int]
    classes: list[str]

    @property
    def manifest(self) -> str:
        """SHA-256 (hex) by which this set of images is known."""
        raise NotImplementedError

    def view(self, index: int) -> Image.Image:
        """What the network sees of one image, as a PIL picture. Raises UnreadableImage."""
        raise NotImplementedError

    def image(self, index: int) -> np.ndarray:
        """The same as pixels, (H, W, 3) uint8. Raises UnreadableImage."""
        return np.asarray(self.view(index))

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """The network's inputs (n, 3, H, W), float32, of pixels (n, H, W, 3) uint8."""
        return self.preprocess.inputs(pixels)

    def __len__(self) -> int:
        return len(self.files)


class Pictures(Images):
    """Images of any size, of which the network sees the middle.

    Attributes:
        ignored: files or members that are no images by their ending.
        limit: the pixels allowed in one image.
    """

    ignored: int
    limit: int

    def picture(self, index: int, enough: int | None = None) -> Image.Image:
        """The whole of one image, as a PIL picture; ``enough`` as in read_image. Raises UnreadableImage."""
        raise NotImplementedError

    def view(self, index: int) -> Image.Image:
        """What the network sees of one image, as a PIL picture. Raises UnreadableImage."""
        return self.preprocess.view(self.picture(index, self.preprocess.enough))


def manifest_of(sizes: Iterable[tuple[str, int]]) -> str:
    """The SHA-256 (hex) over the names and sizes in bytes of images."""
    digest = hashlib.sha256()
    for name, size in sizes:
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))  # names need not be valid UTF-8
    return digest.hexdigest()
