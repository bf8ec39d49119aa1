"""Table 5: Caltech-256, accuracy from 15, 30, 45 and 60 images a class upon frozen features."""

from typing import Annotated

from pydantic import Field

from ..exhibit import Table
from . import caltech

PAPER = {
    "Sohn et al. 2011": {15: "35.1", 30: "42.1", 45: "45.7", 60: "47.9"},
    "Bo et al. 2013": {15: "40.5 ± 0.4", 30: "48.0 ± 0.2", 45: "51.9 ± 0.2", 60: "55.2 ± 0.3"},
    "the paper's network, from scratch": {15: "9.0 ± 1.4", 30: "22.5 ± 0.7", 45: "31.2 ± 0.5", 60: "38.8 ± 1.4"},
    "the paper's network, trained on ImageNet": {15: "65.7 ± 0.2", 30: "70.6 ± 0.2", 45: "72.7 ± 0.4",
                                                 60: "74.2 ± 0.3"},
}
ROWS: dict[caltech.Like, str] = {"scratch": "the paper's network, from scratch",
                                 "pretrained": "the paper's network, trained on ImageNet"}


class Settings(caltech.Settings):
    """The paper's numbers of images, on the folder that torchvision.datasets.Caltech256 makes, without the clutter."""

    images: Annotated[str, Field(min_length=1, description=(
        "a folder of images as torchvision lays it out, or one with a folder for each class"))] = "caltech256"
    leave_out: Annotated[tuple[str, ...], Field(description="classes that do not count")] = ("257.clutter",)
    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(
        min_length=1, description="images a class to learn from")] = (15, 30, 45, 60)


def make(settings: Settings, progress: bool = True) -> Table:
    """The table, after a forward pass over all images for each network."""
    return caltech.compare("5", settings, PAPER, ROWS, progress)
