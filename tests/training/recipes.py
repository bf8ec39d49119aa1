"""A recipe that is small enough for a test, and pictures without files."""

from pathlib import Path

from torch import Tensor

from deconvnet.training import Recipe, Stage


def recipe(tree: Path, **changes) -> Recipe:
    small = {"train_per_class": 4, "hidden": (8, 8), "batch_norm": True, "init": "he", "batch": 5, "centroids": True,
             "stages": (Stage(epochs=1, size=128), Stage(epochs=1)), "views": "random", "colour": 0.2,
             "renormalise": None, "schedule": "cosine", "decay": 1e-3}
    return Recipe(**{"images": str(tree), **small, **changes})


def tiny(tree: Path, **changes) -> Recipe:
    """One epoch of two steps with a network of four maps a layer: the least that is a run."""
    small = {"widths": (4,) * 5, "hidden": (4,), "train_per_class": 4, "batch": 6, "init": "he", "renormalise": None,
             "stages": (Stage(epochs=1),), "rate": 0.003}
    return Recipe(**{"images": str(tree), **small, **changes})


class Some:
    """Pictures (3, H, W) uint8 in a list, with their labels."""

    def __init__(self, pictures: list[Tensor], labels: list[int]) -> None:
        self.pictures, self.labels = pictures, labels

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index]
