"""What a figure or a table is about: a network and images, opened together, with their provenance."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .images import Images, open_images
from .network import Network, load_model
from .provenance import provenance
from .report import network_name
from .settings import Part


class Subject(Part):
    """The network and the images that a figure or table is about."""

    model: Annotated[str, Field(min_length=1, description="as --model of deconvnet scan")] = "zfnet"
    weights: Annotated[str | None, Field(description="as --weights of deconvnet scan")] = "demo"
    images: Annotated[str, Field(min_length=1, description="as deconvnet scan --images")] = "builtin:photographs-apart"

    def open(self, command: str) -> "Opened":
        """The network and the images. ``command`` is what made the result, such as ``figure 7``. Raises UsageError."""
        net = load_model(self.model, self.weights)
        images = open_images(self.images, net.preprocess)
        own = self.model_dump(mode="json", exclude={"model", "weights", "images"})
        return Opened(net, images, provenance(command, own, net, images, self.model, self.weights, self.images))


@dataclass(frozen=True)
class Opened:
    """A network, images, and their provenance."""

    net: Network
    images: Images
    origin: dict[str, Any]

    def __str__(self) -> str:
        return f"{network_name(self.origin)} on {self.origin['images']}"
