"""The recipe: everything that decides what a training run gives, as one checked set of values."""

from inspect import signature
from itertools import accumulate
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from ..models import MODELS
from ..network import native_size
from ..settings import Part

Side = Annotated[int, Field(ge=128, le=512)]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class Stage(Part):
    """Some epochs with views of one size; a network learns faster on small views and is finished on large ones."""

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    size: Annotated[Side | None, Field(description="side of the views in pixels; none: the network's own")] = None
    rate: Annotated[float, Field(gt=0, le=1, description="learning rate, as a share of the recipe's")] = 1


class Recipe(Part):
    """How a network is trained. Where the paper says it (Zeiler and Fergus 2014, section 3), the default is that.

    Not so for ``mean``, ``std``, ``schedule`` and ``test``, which configs/train/zfnet_paper.yaml sets, and for
    ``train_per_class``. ``init: paper`` belongs to the paper's ``std``: on inputs of deviation 1 the signal dies out.
    """

    # the images
    images: Annotated[str, Field(min_length=1, description=(
        "folder with one subfolder a class; torchvision:NAME, which is downloaded; or builtin:photographs"))]
    held_out: Annotated[str | None, Field(min_length=1, description=(
        "a folder of its own with the images to measure on; none: what train_per_class leaves, or without it the test "
        "part of torchvision's set, where that has one"))] = None
    train_per_class: Annotated[Count | None, Field(description="images a class to learn from; none: all")] = 30
    test_per_class: Annotated[Count | None, Field(description="images a class to measure on, at most")] = None
    seed: Annotated[int, Field(ge=0)] = 0

    # the network
    network: Annotated[Literal["zfnet", "zfnet_wide", "alexnet", "alexnet_dense"], Field()] = "zfnet"
    widths: Annotated[tuple[Width, Width, Width, Width, Width] | None, Field(description="of conv1 … conv5")] = None
    hidden: Annotated[tuple[Width, ...], Field(max_length=2, description="units of fc6 and fc7")] = (4096, 4096)
    without: Annotated[tuple[int, ...], Field(description="convolutional layers that are left out")] = ()
    kernel: Annotated[int | None, Field(ge=5, le=15, description="side of conv1's filters")] = None
    stride: Annotated[Literal[2, 4] | None, Field(description="of conv1")] = None
    norm: Annotated[bool, Field(description="contrast normalisation")] = True
    batch_norm: Annotated[bool, Field(description="while training; folded away at the end. Not the paper's")] = False
    init: Annotated[Literal["paper", "he"], Field(description="Gaussian 0.01, or He's")] = "paper"
    centroids: Annotated[bool, Field(description=(
        "conv1 begins with k-means centroids of the images' patches. Not the paper's"))] = False
    first_rate: Annotated[float, Field(ge=0, le=1, description="conv1's learning rate, as a share of the others'")] = 1

    # the descent
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = (Stage(epochs=70),)
    batch: Annotated[int, Field(ge=1, le=4096, description="over all processes together")] = 128
    rate: Annotated[float, Field(gt=0, le=10, description="learning rate at its highest")] = 1e-2
    schedule: Annotated[Literal["constant", "cosine", "plateau"], Field(description=(
        "plateau: a tenth whenever the held-out error has not fallen for `patience` epochs; cosine: to 0 in each stage"
    ))] = "constant"
    patience: Annotated[Count, Field(description="epochs without a fall of the error, for plateau")] = 5
    drops: Annotated[tuple[Count, ...], Field(description="epochs after which the rate is a tenth of before")] = ()
    warmup: Annotated[int, Field(ge=0, description="steps in which the rate rises from 0")] = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    decay: Annotated[float, Field(ge=0, le=1, description="weight decay. Not the paper's")] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1, description="in fc6 and fc7")] = 0.5
    smoothing: Annotated[float, Field(ge=0, lt=1, description="of the labels. Not the paper's")] = 0.0
    renormalise: Annotated[float | None, Field(gt=0, description=(
        "largest RMS of a convolution's filter; the paper's 0.1 is for pixels of 0..255. None: no limit"))] = 0.1

    # the views
    views: Annotated[Literal["ten", "random"], Field(description=(
        "ten: the paper's sub-crops, corners and centre, flipped or not; random: any part from min_area up"))] = "ten"
    min_area: Annotated[float, Field(gt=0, le=1, description="of random views, as a share of the picture")] = 0.3
    colour: Annotated[float, Field(ge=0, lt=1, description="jitter of brightness, contrast, balance, saturation")] = 0.0
    mean: Annotated[Literal["channel", "pixel"], Field(description="is subtracted; the paper's: pixel")] = "channel"
    std: Annotated[tuple[float, float, float] | None, Field(description=(
        "what inputs of 0..1 are divided by; none: measured. 1/255 gives the paper's inputs, about −128..128"))] = None

    # what is kept
    test: Annotated[Literal["centre", "ten"], Field(description="views that the final figures average over")] = "centre"
    measure: Annotated[Count, Field(description="epochs from one held-out accuracy to the next; plateau: 1")] = 5
    snapshots: Annotated[tuple[Count, ...], Field(description="epochs after which the network is kept, too")] = ()
    small_snapshots: Annotated[bool, Field(description="of the convolutions only, a byte a weight")] = False

    # the machine: but for the precision, this changes nothing but speed and memory
    precision: Annotated[Literal["float32", "bfloat16"], Field(description="of the arithmetic")] = "float32"
    workers: Annotated[int, Field(ge=0, le=64, description="processes that cut views")] = 0
    memory: Annotated[float, Field(ge=0, description="GiB of pictures to keep; more are decoded each time")] = 4.0
    downloads: Annotated[str, Field(description="folder where torchvision's data sets are put")] = "data"
    minutes: Annotated[float, Field(gt=0, description="between checkpoints, beside those after each epoch")] = 10.0

    @model_validator(mode="after")
    def _is_possible(self) -> "Recipe":
        if self.batch_norm and self.batch == 1:
            raise ValueError("batch_norm: true needs a batch of at least 2")
        if self.size(self.epochs - 1) != native_size(self.network):
            raise ValueError(f"stages: the last must have views of {native_size(self.network)}, the network's own; "
                             f"it has {self.stages[-1].size}")
        if self.mean == "pixel" and self.views != "ten":
            raise ValueError("mean: pixel needs views: ten, whose places in the picture are known")
        for key, epochs in (("snapshots", self.snapshots), ("drops", self.drops)):
            if max(epochs, default=0) > self.epochs:
                raise ValueError(f"{key}: there is no epoch {max(epochs)}: the stages have {self.epochs} together")
        self._check_network()
        return self

    def _check_network(self) -> None:
        known = signature(MODELS[self.network]).parameters
        unknown = [key for key in self.arguments if key not in known]
        if unknown:
            raise ValueError(f"{self.network} has no {unknown[0]}")
        if not set(self.without) <= {3, 4}:  # without layer 2 or 5 there is no classifier to train
            raise ValueError(f"without: layers 3 and 4 may be left out, not {sorted(set(self.without) - {3, 4})}")
        with torch.device("meta"):  # of the rest the network itself knows best
            MODELS[self.network](**self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the network is built with, but for its classes and batch normalisation."""
        values = {"widths": self.widths, "hidden": self.hidden, "without": self.without or None, "kernel": self.kernel,
                  "stride": self.stride, "norm": None if self.norm else False}
        return {key: value for key, value in values.items() if value is not None}

    @property
    def epochs(self) -> int:
        """The epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def stage(self, epoch: float) -> tuple[Stage, float]:
        """The stage that an epoch lies in, counted from 0, and how much of it is over then (0..1)."""
        ends = accumulate(stage.epochs for stage in self.stages)
        return next((stage, 1 - (end - epoch) / stage.epochs)
                    for stage, end in zip(self.stages, ends, strict=True) if epoch < end)

    def size(self, epoch: int) -> int:
        """The side of the views in an epoch, counted from 0."""
        return self.stage(epoch)[0].size or native_size(self.network)

    def told(self) -> dict[str, Any]:
        """What a card says of a recipe: everything but where the images lie, and the machine's part."""
        return self.model_dump(mode="json", exclude={"images", "held_out", "workers", "memory", "downloads", "minutes"})

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on: what bears on the descent. One more snapshot does not."""
        kept = {"snapshots", "small_snapshots", "test"}
        if self.schedule != "plateau":  # which follows what is measured
            kept.add("measure")
        return {key: value for key, value in self.told().items() if key not in kept}
