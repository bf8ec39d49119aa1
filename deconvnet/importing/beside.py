"""What stands beside a network's file, in a YAML of the same name: how its images are made, what its classes are."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ..config import LIMIT, load
from ..errors import UsageError
from ..images import Preprocess, usual_resize
from ..settings import Part, must_be

Three = tuple[float, float, float]
Each = tuple[float] | Three  # a number for the one channel of grey images, or for each of three

_FOR_EACH = must_be("a number for each channel in square brackets, three of them, or one where images are grey")
_WORDNET = re.compile(r"^n\d{8}\s+")  # before the names in ImageNet's own lists
PRESETS: dict[str, tuple[str, int, Each, Each]] = {  # channels, largest value of a pixel, mean, std
    "zoo-imagenet": ("RGB", 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # most of the ONNX model zoo
    "caffe": ("BGR", 255, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)),             # BVLC's: AlexNet, CaffeNet, GoogLeNet
    "caffe-vgg": ("BGR", 255, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),    # VGG, and Kaiming He's ResNets
}
_GREY: tuple[str, int, Each, Each] = ("", 1, (0.0,), (1.0,))


class Beside(Part):
    """The keys of the YAML; what it does not say is as the preset has it, which is ``zoo-imagenet`` by default."""

    preset: Annotated[Literal["zoo-imagenet", "caffe", "caffe-vgg"], Field(description="a convention by name")] = (
        "zoo-imagenet")
    channels: Annotated[Literal["RGB", "BGR"] | None, Field(description="their order")] = None
    scale: Annotated[Literal[1, 255] | None, Field(description="what white is before the mean is subtracted")] = None
    mean: Annotated[Each | None, _FOR_EACH, Field(description="subtracted, in that order and scale")] = None
    std: Annotated[Each | None, _FOR_EACH, Field(description="divided by, in that order and scale")] = None
    size: Annotated[int | None, Field(ge=1, description="side of the images, where the file leaves it open")] = None
    resize: Annotated[int | None, Field(ge=1, description="the short side before the centre is cut out")] = None
    stretch: Annotated[bool, Field(description="whether both sides are resized, and not the short one")] = False
    classes: Annotated[tuple[str, ...] | str, must_be("a list of names, or the name of a text file with one a line"),
                       Field(description="names, or a text file beside with one a line")] = ()
    sha256: Annotated[str | None, Field(description="of the network's file, which must be that one")] = None

    @field_validator("classes")
    @classmethod
    def _beside(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if isinstance(value, str) and Path(value).name != value:
            raise ValueError("must be the name of a file in the same folder")
        return value

    def reversed(self) -> bool:
        """Whether the network takes blue, green, red."""
        return (self.channels or PRESETS[self.preset][0]) == "BGR"

    def preprocess(self, size: int, channels: int = 3) -> Preprocess:
        """How images of that size are made, in red, green, blue, or in grey for networks of one channel.

        No preset is for those: what the YAML does not say is then 0 for black and 1 for white. Raises UsageError where
        a value makes no sense.
        """
        _, scale, mean, std = PRESETS[self.preset] if channels == 3 else _GREY
        scale, mean, std = self.scale or scale, self.mean or mean, self.std or std
        if {len(mean), len(std)} != {channels}:
            raise UsageError(f"mean and std must have one number for each channel, of which there are {channels}")
        order = slice(None, None, -1 if self.reversed() else 1)
        both: list[list[float]] = [list(mean)[order], list(std)[order]]
        means, stds = (tuple(value / scale for value in values) for values in both)
        resize = self.resize or usual_resize(size)
        return Preprocess(size, resize, means, stds, stretch=self.stretch)


def read_beside(file: Path) -> Beside:
    """What the YAML of the same name says; nothing, where there is none. Raises UsageError, naming the key."""
    yaml = path_beside(file)
    return load(yaml, Beside) if yaml.is_file() else Beside()


def path_beside(file: Path) -> Path:
    """Where that YAML is looked for: net.yaml for net.onnx, or net.yml or net.YAML where only that is there."""
    places = [file.with_suffix(ending) for ending in (".yaml", ".yml", ".YAML", ".YML")]
    return next((place for place in places if place.is_file()), places[0])


def read_classes(file: Path, beside: Beside) -> list[str]:
    """The names of the classes, from the YAML or from the text file that it names; ImageNet's numbers are taken off."""
    if not isinstance(beside.classes, str):
        return [_WORDNET.sub("", name) for name in beside.classes]
    text = file.with_name(beside.classes)
    try:
        if text.stat().st_size > LIMIT:
            raise UsageError(f"{text}: larger than {LIMIT:,} bytes; are these the classes?")
        lines = text.read_text(encoding="utf-8").splitlines()
        return [_WORDNET.sub("", line.strip()) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path_beside(file)}: classes: {text} cannot be read as text: {error}") from error
