"""What stands in the YAML of weights or of a whole network: names, preprocessing, classes; data, never code."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ..config import load
from ..errors import DeconvnetError, UsageError
from ..models import MODELS
from .beside import Beside, read_classes
from .downloads import weights_by_name
from .graph_network import GraphNetwork
from .layered import Layer, build_layers
from .weights import WRAPPER, Trained, check_sha256, read_weights, rename

# the keys that say how images are made
_IMAGES = {"preset", "channels", "scale", "mean", "std", "size", "resize", "stretch"}


class Description(Beside):
    """The keys: a network, or none where the YAML is given as weights; its weights; how images are made for it.

    ``network`` is a name of ours or of torchvision, ``layers`` a list of layers. ``rename`` is as in
    ``weights.rename``. ``weights`` and ``classes`` name files in the folder of the YAML, or of ``--weights``.
    """

    network: Annotated[str | None, Field(description="zfnet and so on, or torchvision:NAME")] = None
    layers: Annotated[tuple[Layer, ...] | None, Field(min_length=1, description="the network, layer by layer")] = None
    weights: Annotated[str | None, Field(description=".safetensors, .npz, .pt or .pth, in the same folder")] = None
    rename: Annotated[dict[str, str | None], Field(default_factory=dict, description="their names: ours")]
    layout: Annotated[Literal["torch", "keras"], Field(description="the order of the axes of filters")] = "torch"

    @field_validator("weights")
    @classmethod
    def _in_the_folder(cls, value: str | None) -> str | None:
        if value is not None and Path(value).name != value:
            raise ValueError("must be the name of a file in the same folder; --weights may lie elsewhere")
        return value

    @field_validator("network")
    @classmethod
    def _no_code(cls, value: str | None) -> str | None:
        if value is not None and value not in MODELS and not value.startswith("torchvision:"):
            raise ValueError(f"must be {', '.join(MODELS)} or torchvision:NAME; code of one's own is named on the "
                             "command line alone: --model file.py:function --weights this.yaml")
        return value

    @model_validator(mode="after")
    def _one_network(self) -> "Description":
        if self.network and self.layers:
            raise ValueError("network and layers: say one of them")
        if self.layout == "keras" and not self.layers:
            raise ValueError("layout: keras goes with layers alone")
        return self

    @property
    def says_images(self) -> bool:
        """Whether it says how images are made."""
        return bool(_IMAGES & self.model_fields_set)


def is_description(path: str | Path) -> bool:
    """Whether a file is such a YAML, by its name."""
    return Path(path).suffix.lower() in (".yaml", ".yml")


def load_description(path: Path) -> Description:
    """The YAML, checked. Raises UsageError, naming the file and every wrong key."""
    return load(path, Description)


def read_trained(path: Path, said: Description, size: int, weights: str | Path | None = None) -> Trained:
    """The weights that a YAML speaks of, renamed, and what it says of them. ``size`` is of images if it says none.

    Raises UsageError where they are not there, and DeconvnetError, naming the file, where they are not as it says.
    """
    if weights is None and said.weights is None:
        raise UsageError(f"{path}: weights: name their file, or give it with --weights")
    file = path.with_name(str(said.weights)) if weights is None else Path(weights)
    if not file.is_file():
        raise UsageError(f"There is no weights file {file}." + ("" if weights else f" {path} names it.")
                         + _by_name(said, file.name))
    check_sha256(file, said.sha256, path)
    weights_there = read_weights(file)
    try:
        state = rename(weights_there, {theirs.removeprefix(WRAPPER): ours for theirs, ours in said.rename.items()})
        preprocess = said.preprocess(said.size or size, len(said.mean or (0, 0, 0)))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return Trained(state, str(file), _classes(path, file, said), preprocess, said.reversed())


def _by_name(said: Description, name: str) -> str:
    """What to do where the name of torchvision's weights stands for a file, as a sentence; else nothing."""
    source, _, model = (said.network or "").rpartition(":")
    if source != "torchvision" or name not in weights_by_name(model):
        return ""
    return (f" torchvision's own weights are no file, and come with all that a YAML would say: --model {said.network} "
            f"--weights {name}, without the YAML.")


def build_written(path: Path, said: Description, trained: Trained) -> GraphNetwork:
    """The network that a YAML lists layer by layer, with its weights. Raises DeconvnetError, naming both files."""
    assert said.layers is not None and trained.preprocess is not None
    try:
        net = build_layers(said.layers, trained.state, trained.preprocess.size, said.layout == "keras",
                           trained.preprocess.channels)
    except DeconvnetError as error:
        raise DeconvnetError(f"{path}, with {trained.where}: {error}") from error
    if trained.classes and len(trained.classes) != net.outputs:
        raise UsageError(f"{path}: classes: {len(trained.classes)} names for a network with {net.outputs} outputs")
    return net


def _classes(path: Path, file: Path, said: Description) -> list[str]:
    """The names of the classes; a list beside the weights will do. ImageNet's own numbers are taken off."""
    inside = isinstance(said.classes, str) and not path.with_name(said.classes).is_file()
    beside = file if inside and file.with_name(str(said.classes)).is_file() else path
    return read_classes(beside, said)

