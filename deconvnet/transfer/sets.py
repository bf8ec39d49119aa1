"""Sets of images to learn classes from: folders as torchvision lays them out, without the classes that do not count."""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image

from ..errors import UsageError
from ..images import Images, Preprocess, open_images
from ..training.data import split
from ..training.recipe import Recipe

INSIDE = ("caltech101/101_ObjectCategories", "101_ObjectCategories", "caltech256/256_ObjectCategories",
          "256_ObjectCategories")
"""Where, below the folder that is named, torchvision's Caltech101 and Caltech256 have the folders of the classes."""


class Chosen(Images):
    """Some images of a set, by number."""

    def __init__(self, images: Images, numbers: Sequence[int]) -> None:
        self.inner, self.numbers, self.preprocess = images, list(numbers), images.preprocess
        self.files = [images.files[number] for number in numbers]
        self.labels, self.classes = [images.labels[number] for number in numbers], images.classes

    @property
    def manifest(self) -> str:
        """SHA-256 (hex) over the whole set's and the names of those chosen."""
        names = "\0".join(self.files).encode("utf-8", "surrogateescape")
        return hashlib.sha256(self.inner.manifest.encode() + names).hexdigest()

    def view(self, index: int) -> Image.Image:
        """What the network sees of one image, as a PIL picture. Raises UnreadableImage."""
        return self.inner.view(self.numbers[index])


def class_folders(images: str) -> str:
    """The folder that has the folders of the classes, where torchvision put it; or what was named, if it is that."""
    return next((str(Path(images) / inside) for inside in INSIDE if (Path(images) / inside).is_dir()), images)


def labelled(images: str, preprocess: Preprocess, leave_out: Collection[str] = ()) -> Images:
    """The images of a folder that have a class, but for the classes that are left out. Raises UsageError."""
    found = open_images(class_folders(images), preprocess)
    if not found.classes:
        raise UsageError(f"{images} has no classes: put the images of each class into a folder of its own")
    out = {number for number, name in enumerate(found.classes) if name in leave_out}
    numbers = [number for number, label in enumerate(found.labels) if label >= 0 and label not in out]
    return found if len(numbers) == len(found) else Chosen(found, numbers)


def learned_from(images: str, found: Images, seed: int, per_class: int) -> set[int]:
    """The numbers of the images that ``deconvnet train`` learned from, given its seed and images a class."""
    recipe = Recipe(images=class_folders(images), seed=seed, train_per_class=per_class)
    pictures = split(recipe).train
    names = {pictures.source.files[number] for number in pictures.numbers}
    return {number for number, file in enumerate(found.files) if file in names}
