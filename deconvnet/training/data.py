"""Data: folders and torchvision's data sets, split into what is learned from and what is held out, and read."""

import hashlib
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..errors import DeconvnetError, UnreadableImage, UsageError
from ..files import write_whole
from ..images import Pictures, Preprocess, open_images, to_rgb
from ..sealed import Damaged, seal, unseal
from .recipe import Recipe
from .stopping import wait_for_the_parent
from .views import SHORT_SIDE, central_square, cut


@dataclass
class Data:
    """The pictures of a recipe, and what is measured on those that are learned from.

    Attributes:
        train: what is learned from.
        held_out: what is not.
        classes: the names of the classes.
        manifest: SHA-256 by which the files are known.
        unreadable: the files that could not be read, with the reason.
        mean: of the training pixels (3,), in 0..1, each picture as its thumbnail of 32×32, so that all count alike.
        std: the standard deviation of the thumbnails' pixels (3,).
        mean_picture: the mean of the central squares (3, 256, 256) in 0..1, the paper's per-pixel mean.
    """

    train: "PictureSet"
    held_out: "PictureSet"
    classes: list[str]
    manifest: str
    unreadable: dict[str, str] = field(default_factory=dict)
    mean: Tensor = field(default_factory=lambda: torch.full((3,), 0.5))
    std: Tensor = field(default_factory=lambda: torch.full((3,), 0.25))
    mean_picture: Tensor = field(default_factory=lambda: torch.full((3, SHORT_SIDE, SHORT_SIDE), 0.5))


def load(recipe: Recipe, notes: Path | None = None, progress: bool = True) -> Data:
    """The pictures of a recipe, split and read. Raises what ``split`` and ``read`` raise."""
    data = split(recipe)
    read(data, recipe, notes, progress)
    return data


def read(data: Data, recipe: Recipe, notes: Path | None = None, progress: bool = True) -> None:
    """Reads every picture once, to find those that cannot be read, and to measure the mean.

    They are kept in memory as far as ``recipe.memory`` goes; of a larger set only what was found is kept, in the file
    ``notes`` too, so that the next run need not read all of it again. Raises UsageError where none can be read.
    """
    if notes is not None and _recall(data, recipe, notes):
        return
    found = _Survey(recipe.memory * 2**30)
    for pictures in (data.train, data.held_out):
        found.read(pictures, recipe.workers, progress)
    found.settle(data)
    if not len(data.train):
        name, reason = next(iter(data.unreadable.items()))
        raise UsageError(f"none of the images to learn from can be read; the first: {name}: {reason}")
    _check_held_out(recipe, data.held_out.numbers)
    if notes is not None and data.train.kept is None:
        _note(data, recipe, notes)


def notes(data: Data) -> list[str]:
    """What to know before a run: how many images there are of what, and what is there but will not be used."""
    counts = [torch.bincount(torch.tensor(pictures.labels, dtype=torch.int64), minlength=len(data.classes))
              for pictures in (data.train, data.held_out)]                       # (classes,) each
    lines = [f"{len(data.train):,} images of {len(data.classes)} classes to learn from, {len(data.held_out):,} to "
             "measure on"]
    for count, what in zip(counts, ("to learn from", "to measure on"), strict=True):
        none = [name for name, number in zip(data.classes, count.tolist(), strict=True) if not number]
        if none:
            named = ", ".join(map(repr, none[:3])) + (", …" if none[3:] else "")  # a name need not be valid UTF-8
            lines.append(f"no image {what} in {len(none)} of {len(data.classes)} classes: {named}")
    if counts[1].sum() == 0:
        lines[-1] = "nothing to measure on: for an accuracy, set held_out, or a train_per_class that leaves images"
    ignored = getattr(getattr(data.train.source, "images", None), "ignored", 0)
    return lines + ([f"{ignored:,} files are no images by their ending, and are passed over"] if ignored else [])


# ---- sources ----


class Source(Protocol):
    """Where pictures come from: a name and a class number for each (−1: none), and the picture itself."""

    files: list[str]
    labels: list[int]
    classes: list[str]

    @property
    def manifest(self) -> str:
        """SHA-256 by which this set of images is known."""

    def picture(self, number: int) -> Image.Image:
        """The picture, RGB. Raises UnreadableImage."""


class Files:
    """A folder with one subfolder a class, tar files that say classes, or the built-in photographs."""

    def __init__(self, name: str) -> None:
        self.images = open_images(name, Preprocess())
        self.files, self.labels, self.classes = self.images.files, self.images.labels, self.images.classes

    @property
    def manifest(self) -> str:
        """SHA-256 over names and sizes in bytes of the files."""
        return self.images.manifest

    def picture(self, number: int) -> Image.Image:
        """The whole picture of a file, or a view of a photograph. Raises UnreadableImage."""
        return self.images.picture(number) if isinstance(self.images, Pictures) else self.images.view(number)


TORCHVISION: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    # name: what asks for the part to learn from, and for the part to measure on (none: there is one part only)
    **dict.fromkeys(("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST"), ({"train": True}, {"train": False})),
    **dict.fromkeys(("STL10", "SVHN", "GTSRB", "Flowers102", "Food101", "DTD"),
                    ({"split": "train"}, {"split": "test"})),
    "OxfordIIITPet": ({"split": "trainval"}, {"split": "test"}),
    "FGVCAircraft": ({"split": "trainval"}, {"split": "test"}),
    "Country211": ({"split": "train"}, {"split": "valid"}),
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT"), ({}, None)),
    "FakeData": ({"size": 64, "num_classes": 2}, {"size": 32, "num_classes": 2, "random_offset": 1000}),  # noise
}


class Torchvision:
    """One of torchvision's classification sets, downloaded if need be."""

    def __init__(self, name: str, root: str, options: dict[str, Any]) -> None:
        from torchvision import datasets

        make = getattr(datasets, name)
        download = {"root": root, "download": True} if "download" in signature(make).parameters else {}
        try:
            self.data = make(**download, **options)
        except Exception as error:  # no network, a changed checksum, half an archive, or a package that it needs
            raise DeconvnetError(f"torchvision:{name} cannot be had: {error}\nFetch it by hand into {root}, or give a "
                                 "folder with one subfolder a class") from error
        self.name = f"{name} {options}"
        self.labels = [int(label) for label in _labels(self.data)]
        self.files = [f"{name}/{number:07}" for number in range(len(self.labels))]
        named = getattr(self.data, "classes", None) or getattr(self.data, "categories", None)
        self.classes = [str(c) for c in named] if named else [str(c) for c in range(max(self.labels, default=-1) + 1)]

    @property
    def manifest(self) -> str:
        """SHA-256 over the name of the set and its labels; torchvision checks the files against its own sums."""
        return hashlib.sha256(f"{self.name} {self.labels}".encode()).hexdigest()

    def picture(self, number: int) -> Image.Image:
        """The picture, RGB. Raises UnreadableImage."""
        try:
            return to_rgb(self.data[number][0])
        except Exception as error:  # torchvision lets anything through that a decoder raises
            raise UnreadableImage(self.files[number], " ".join(str(error).split())[:200]) from error


def _labels(data: Any) -> Any:
    for name in ("targets", "labels", "_labels", "y"):
        if hasattr(data, name):
            return getattr(data, name)
    return [label for _, label in (getattr(data, "_samples", None) or data)]


def _files(recipe: Recipe, key: str) -> Files:
    """The folder that a key of the recipe names. Raises UsageError, which names that key."""
    try:
        return Files(getattr(recipe, key))
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error


def _open(recipe: Recipe) -> tuple[Source, Source | None]:
    """What to learn from, and what to measure on where it is a set of its own."""
    kind, _, name = recipe.images.rpartition(":")
    if kind != "torchvision":
        return _files(recipe, "images"), _files(recipe, "held_out") if recipe.held_out else None
    if name not in TORCHVISION:
        raise UsageError(f"images: there is no torchvision:{name}; there are {', '.join(sorted(TORCHVISION))}")
    first, second = TORCHVISION[name]
    train = Torchvision(name, recipe.downloads, first)
    if recipe.held_out:
        return train, _files(recipe, "held_out")
    own = second is not None and recipe.train_per_class is None
    return train, Torchvision(name, recipe.downloads, second or {}) if own else None


# ---- the split ----


def split(recipe: Recipe) -> Data:
    """The pictures of a recipe before any is read."""
    source, other = _open(recipe)
    if len(source.classes) < 2:
        raise UsageError(f"training needs at least two classes: {recipe.images} has {len(source.classes)}; "
                         "put the images of each class into a folder of its own")
    labelled = [number for number, label in enumerate(source.labels) if label >= 0]  # none beside the class folders
    learned = _draw(source, labelled, recipe.seed, recipe.train_per_class)
    left = sorted(set(labelled) - set(learned))
    if other is None:
        other, left = source, _draw(source, left, recipe.seed, recipe.test_per_class)
        manifest = source.manifest
    else:
        strangers = set(other.classes) - set(source.classes)
        if strangers:
            raise UsageError(f"held_out: {recipe.held_out} has the class {min(strangers)}, and {recipe.images} has not")
        left = [number for number, label in enumerate(other.labels) if label >= 0]
        left = _draw(other, left, recipe.seed, recipe.test_per_class)
        manifest = hashlib.sha256(f"{source.manifest} {other.manifest}".encode()).hexdigest()
    _check_held_out(recipe, left)
    held_out = PictureSet(other, left, [source.classes.index(name) for name in other.classes])
    return Data(PictureSet(source, learned), held_out, source.classes, manifest)


def _check_held_out(recipe: Recipe, numbers: list[int]) -> None:
    if recipe.schedule == "plateau" and not numbers:
        raise UsageError("schedule: plateau needs held-out images: set train_per_class or held_out")


def _draw(source: Source, numbers: list[int], seed: int, per_class: int | None) -> list[int]:
    """Of the numbers ``per_class`` of every class, drawn by the seed (none: all), in their order."""
    def lot(number: int) -> bytes:
        return hashlib.sha256(f"{seed}/{source.files[number]}".encode("utf-8", "surrogateescape")).digest()

    taken: dict[int, list[int]] = {}
    for number in sorted(numbers, key=lot):
        taken.setdefault(source.labels[number], []).append(number)
    return sorted(number for members in taken.values() for number in members[:per_class])


# ---- reading ----


class PictureSet(Dataset):
    """Some pictures of a source by number: (3, H, W) uint8 with a short side of at most 256.

    Attributes:
        numbers: which pictures of the source these are.
        labels: the class of each.
        kept: the pictures themselves, if they are in memory.
    """

    def __init__(self, source: Source, numbers: list[int], classes: list[int] | None = None) -> None:
        self.source, self.numbers = source, numbers
        self.labels = [source.labels[n] if classes is None else classes[source.labels[n]] for n in numbers]
        self.kept: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(index) if self.kept is None else self.kept[index]

    def read(self, index: int) -> Tensor:
        """The picture from its source. Raises UnreadableImage."""
        picture = self.source.picture(self.numbers[index])
        share = SHORT_SIDE / min(picture.size)
        if share < 1:
            picture = picture.resize((round(picture.width * share), round(picture.height * share)))
        return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())   # (3, H, W) uint8

    def leave_out(self, files: set[str]) -> None:
        """Forgets the pictures of these files."""
        left = [i for i, number in enumerate(self.numbers) if self.source.files[number] not in files]
        self.numbers, self.labels = [self.numbers[i] for i in left], [self.labels[i] for i in left]


class _Attempts(Dataset):
    """The pictures of a set, or why there is none."""

    def __init__(self, pictures: PictureSet) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor | UnreadableImage:
        try:
            return self.pictures.read(index)
        except UnreadableImage as error:
            return error


class _Survey:
    """Reads sets of pictures: what cannot be read, what fits into memory, and what the first set looks like."""

    def __init__(self, room: float) -> None:
        self.room, self.count = room, 0
        self.kept: list[list[Tensor]] = []
        self.unreadable: dict[str, str] = {}  # file → reason
        self.sums = torch.zeros(2, 3, dtype=torch.int64)  # of the thumbnails' pixels, and of their squares: exact
        self.square = torch.zeros(3, SHORT_SIDE, SHORT_SIDE, dtype=torch.int64)

    def read(self, pictures: PictureSet, workers: int, progress: bool) -> None:
        first = not self.kept
        self.kept.append([])
        loader = DataLoader(_Attempts(pictures), batch_size=None, num_workers=workers,
                            worker_init_fn=wait_for_the_parent)
        for item in tqdm(loader, "reading", disable=not progress, unit="image"):
            if isinstance(item, UnreadableImage):
                self.unreadable[item.name] = item.reason
                if progress:
                    tqdm.write(f"skipped: {item.name!r}: {item.reason}")  # the name need not be valid UTF-8
                continue
            if first:
                self._measure(item)
            self.room -= item.numel()
            if self.room >= 0:
                self.kept[-1].append(item)
            else:
                self.kept = [[] for _ in self.kept]

    def _measure(self, picture: Tensor) -> None:
        thumbnail = cut(picture, (0, 0, *picture.shape[1:]), 32).long()          # (3, 32, 32)
        self.sums += torch.stack([thumbnail.sum((1, 2)), thumbnail.square().sum((1, 2))])
        self.square += cut(picture, central_square(picture), SHORT_SIDE)
        self.count += 1

    def settle(self, data: Data) -> None:
        """Puts what was found where it belongs."""
        data.unreadable = self.unreadable
        for pictures, kept in zip((data.train, data.held_out), self.kept, strict=True):
            pictures.leave_out(set(self.unreadable))
            pictures.kept = kept if self.room >= 0 else None
        _describe(data, self.sums, self.square, self.count)


def _describe(data: Data, sums: Tensor, square: Tensor, count: int) -> None:
    """Mean and deviation from the sums over the training pictures."""
    n = max(2, count * 32 * 32)
    mean = sums[0].double() / n
    variance = (sums[1].double() - n * mean.square()) / (n - 1)
    data.mean = (mean / 255).float()
    data.std = (variance.clamp_min(0).sqrt() / 255).clamp_min(1 / 255).float()  # pictures of one colour have none
    data.mean_picture = (square.double() / max(1, count) / 255).float()


# ---- what was found, for the next time ----


def _about(data: Data, recipe: Recipe) -> dict[str, Any]:
    return {"images": data.manifest, "seed": recipe.seed, "train_per_class": recipe.train_per_class,
            "test_per_class": recipe.test_per_class}


def _note(data: Data, recipe: Recipe, file: Path) -> None:
    tensors = {"mean": data.mean, "std": data.std, "mean_picture": data.mean_picture}
    write_whole(file, seal(tensors, {**_about(data, recipe), "unreadable": data.unreadable}))


def _recall(data: Data, recipe: Recipe, file: Path) -> bool:
    """Whether the file tells what reading all pictures would; if so, it is in ``data``."""
    try:
        tensors, about = unseal(file.read_bytes())
    except (OSError, Damaged):  # not there, or no good: the pictures tell it again
        return False
    unreadable = about.pop("unreadable", None)
    if about != _about(data, recipe):
        return False
    data.unreadable, data.mean, data.std = unreadable, tensors["mean"], tensors["std"]
    data.mean_picture = tensors["mean_picture"]
    for pictures in (data.train, data.held_out):
        pictures.leave_out(set(unreadable))
    return True
