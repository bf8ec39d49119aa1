"""The activations that a figure is about: named by layer, unit and image, or the strongest of some images."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from ..errors import DeconvnetError, UsageError
from ..images import Images
from ..network import Network
from ..projection import field_of
from ..scan import scan
from ..subject import Opened, Subject
from ..tape import Tape, record, record_as_far_as
from ..watching import address, count_calls


class Activation(NamedTuple):
    """One activation: of which unit, in which image, where on the feature map, and how strong."""

    layer: str
    unit: int
    image: int
    y: int
    x: int
    value: float
    file: str

    @property
    def address(self) -> str:
        """The unit's address, such as conv5:147."""
        return f"{self.layer}:{self.unit}"


def check_layer(net: Network, layer: str | None = None) -> tuple[str, int]:
    """The layer and how many units it has; without a name the last convolution that can be projected from.

    Raises UsageError, with the nearest name, where there is no such layer, and DeconvnetError, with the remedy, where
    it cannot be projected from.
    """
    tape = record(net, _blank(net))
    if layer is not None:
        units = tape.activations(layer).shape[1]
        field_of(tape, layer)
        return layer, units
    convolutions = {name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    calls = count_calls(tape.layers)
    for name in reversed([address(key, calls) for key in tape.layers if key.partition("#")[0] in convolutions]):
        if _projects(tape, name):
            return name, tape.activations(name).shape[1]
    raise UsageError("the network has no convolution that can be projected from; name a layer")


def _projects(tape: Tape, layer: str) -> bool:
    try:
        field_of(tape, layer)
    except DeconvnetError:
        return False
    return True


def check_number(what: str, number: int, there: int, where: str = "") -> None:
    """Raises UsageError where there is no unit or image by a number, ``there`` being how many there are, ``where``."""
    if not 0 <= number < there:
        raise UsageError(f"there is no {what} {number}{where}: there are {there}, 0 to {there - 1}")


def strongest_of(opened: Opened, layer: str, units: Sequence[int] | None, image: int, count: int = 1,
                 but: Collection[int] = ()) -> list[Activation]:
    """Units of a layer where each fires most in one image; without units the ``count`` that fire most in it.

    Of the positions those whose receptive field lies within the image go first, so that whole patches are shown.
    ``but`` are units that are not chosen. Raises UsageError for a unit that does not fire in this image.
    """
    tape = record_as_far_as(opened.net, inputs(opened.net, opened.images, [image]), layer)
    maps, name = tape.activations(layer)[0], opened.images.files[image]          # (U, H, W)
    inner = maps * _inside(tape, layer)
    peaks = inner.flatten(1).amax(1)                                             # (U,)
    order = peaks.argsort(descending=True, stable=True).tolist()
    found = []
    for unit in units or [unit for unit in order if unit not in but][:count]:
        if maps[unit].amax() <= 0:
            raise UsageError(f"{layer}:{unit} does not fire in image {image} ({name}); name another, or none")
        best = inner[unit] if peaks[unit] > 0 else maps[unit]
        y, x = divmod(int(best.argmax()), maps.shape[2])
        found.append(Activation(layer, unit, image, y, x, float(maps[unit, y, x]), name))
    return found


def _inside(tape: Tape, layer: str) -> Tensor:
    """1 where the receptive field lies within the image (H, W), else 0; 1 everywhere where it does nowhere."""
    field, images, maps = field_of(tape, layer), tape.values[0], tape.activations(layer)
    axes = []
    for axis in (0, 1):
        start = field.start[axis] + field.stride[axis] * torch.arange(maps.shape[2 + axis])
        axes.append((start >= 0) & (start + field.size[axis] <= images.shape[2 + axis]))
    inside = (axes[0][:, None] & axes[1]).to(maps)
    return inside if inside.any() else torch.ones_like(inside)


def strongest_among(opened: Opened, layer: str, units: Sequence[int] | None, look: int, count: int,
                    progress: bool) -> list[Activation]:
    """Units of a layer where each fires most among ``look`` images, spread evenly over all of them.

    Without units, the ``count`` whose strongest activations are largest, each in an image of its own while there are.
    Raises UsageError for a unit that fires in none of them.
    """
    total = len(opened.images)
    numbers = sorted({n * total // look for n in range(look)})
    found = scan(opened.net, Subset(opened.images, numbers), layers=[layer], k=1, progress=progress)[layer]

    def at(unit: int) -> Activation:
        (y, x), image = found.positions[unit, 0].tolist(), numbers[int(found.images[unit, 0])]
        return Activation(layer, unit, image, y, x, float(found.maximum[unit]), opened.images.files[image])

    for unit in units or ():
        if found.maximum[unit] <= 0:
            raise UsageError(f"{layer}:{unit} fires in none of the {len(numbers)} images looked at; look at more")
    order = list(units or found.maximum.argsort(descending=True, stable=True).tolist())
    firing = [at(unit) for unit in order if found.maximum[unit] > 0]
    if not firing:
        raise UsageError(f"no unit of {layer} fires in any of the {len(numbers)} images looked at; look at more")
    if units:
        return firing
    first = {one.image: one.unit for one in reversed(firing)}                    # the strongest of each image
    return sorted(firing, key=lambda one: first[one.image] != one.unit)[:count]


def of_the_default(settings: Subject, key: str) -> Any:
    """What a key of the settings says; None where it only has its default, which was chosen for other images."""
    others = settings.images != type(settings).model_fields["images"].default
    return None if others and key not in settings.model_fields_set else getattr(settings, key)


def inputs(net: Network, images: Images, numbers: Sequence[int]) -> Tensor:
    """Some images by number as the network takes them (n, 3, H, W)."""
    like = _like(net)
    return torch.stack([images[number][0] for number in numbers]).to(like.device, like.dtype)


def _blank(net: Network) -> Tensor:
    """An even image (1, C, H, W): what calls a network makes does not depend on what is in it."""
    return _like(net).new_zeros(1, net.preprocess.channels, net.preprocess.size, net.preprocess.size)


def _like(net: nn.Module) -> Tensor:
    return next((p.detach() for p in net.parameters() if p.is_floating_point()), torch.zeros(()))
