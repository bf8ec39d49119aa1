"""Table 4: Caltech-101, accuracy from 15 and from 30 images a class upon frozen features."""

from typing import Annotated

from pydantic import Field

from ..exhibit import Table
from ..transfer.trial import TOYS
from . import caltech

PAPER = {
    "Bo et al. 2013": {15: "", 30: "81.4 ± 0.33"},
    "Yang et al. 2009": {15: "73.2", 30: "84.3"},
    "the paper's network, from scratch": {15: "22.8 ± 1.5", 30: "46.5 ± 1.7"},
    "the paper's network, trained on ImageNet": {15: "83.8 ± 0.5", 30: "86.5 ± 0.5"},
}
ROWS: dict[caltech.Like, str] = {"scratch": "the paper's network, from scratch",
                                 "pretrained": "the paper's network, trained on ImageNet"}


class Settings(caltech.Settings):
    """The same as of all of Caltech; torchvision's category of clutter does not count."""

    leave_out: Annotated[tuple[str, ...], Field(description="classes that do not count")] = ("BACKGROUND_Google", *TOYS)


def make(settings: Settings, progress: bool = True) -> Table:
    """The table, after a forward pass over all images for each network."""
    return caltech.compare("4", settings, PAPER, ROWS, progress)
