"""A forward pass that finds, on its way, what each layer has to offer to the strongest activations."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from .batches import Batch, kind
from .contrast import FastContrast
from .errors import DeconvnetError, UsageError
from .rows import EvenRows
from .scanned import LayerScan, Scan
from .topk import Found, NotFinite
from .watching import Enough, address, count_calls, learned, resolve, watch

ROUNDING = 1e-3  # of a layer's largest value; two memory formats may differ by less, as a gallery from its scan


class Forward:
    """A forward pass that finds what each layer has to offer, on its way.

    On a CPU it is channels-last where the network bears that: torch's convolutions and poolings are faster so. Whether
    it does is found out with an image of noise, so that it is the same for all batches and parts of a scan.
    """

    def __init__(self, net: nn.Module, layers: Sequence[str] | None, device: torch.device) -> None:
        self.net, self.layers, self.device = net, layers, device
        self.dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), None)
        self.names: dict[str, str] = {}  # as ``watch`` says it → as the user says it
        self.format = torch.contiguous_format

    def __call__(self, batch: Batch, result: Scan) -> dict[str, Found]:
        """What each layer has to offer, by name. At the first batch the layers are laid out in the result."""
        assert batch.images is not None
        images = batch.images.to(self.device, self.dtype)  # (size, 3, H, W)
        rows = batch.slots if batch.unreadable else slice(len(batch.slots))
        numbers = torch.tensor(batch.numbers)  # (n,)
        if not self.names:
            self._lay_out(images[batch.slots[:1]], result)
            self.format = best_format(self._outputs, images[:1])
        found: dict[str, Found] = {}

        def take(name: str, output: Tensor) -> None:
            if name in self.names:
                layer = self.names[name]
                _check_output(layer, output, len(images))
                try:
                    found[layer] = result.layers[layer].top.look(output[rows], numbers, result.per_image)
                except NotFinite as error:
                    raise _not_finite(layer, error.image, batch, result) from error
                if len(found) == len(self.names):
                    raise Enough

        with watch(self.net, take), suppress(Enough), FastContrast(), EvenRows():
            self.net(images.contiguous(memory_format=self.format))
        return found

    def _lay_out(self, image: Tensor, result: Scan) -> None:
        """Find out, with one image, which layers there are, how often each is called and how many units it has."""
        outputs: dict[str, Tensor] = {}
        try:
            with watch(self.net, outputs.__setitem__):
                self.net(image)
        except RuntimeError as error:
            raise DeconvnetError(f"The network cannot take an image of {tuple(image.shape[1:])}: {error}. Preprocess "
                                 "the images as it expects them.") from error
        calls = count_calls(outputs)
        if self.layers is None:
            default = learned(self.net)
            chosen = [name for name in outputs if name.split("#")[0] in default]
        else:
            chosen = [resolve(layer, calls) for layer in self.layers]
        if not chosen:
            raise UsageError(f"No layers to scan: give names. The layers are: {', '.join(calls)}")
        for name in sorted(chosen, key=list(outputs).index):
            layer = address(name, calls)
            self.names[name] = layer
            _check_output(layer, outputs[name], 1)
            if layer not in result.layers:
                units, dtype = outputs[name].shape[1], outputs[name].dtype
                result.layers[layer] = LayerScan.blank(units, result.k, dtype, len(result.classes))

    def _outputs(self, images: Tensor) -> dict[str, Tensor]:
        """What the layers put out, by name as ``watch`` says it, or what the network wrote over it."""
        outputs: dict[str, Tensor] = {}

        def take(name: str, output: Tensor) -> None:
            if name in self.names:
                outputs[name] = output
                if len(outputs) == len(self.names):
                    raise Enough

        with watch(self.net, take), suppress(Enough):
            self.net(images)
        return outputs


def best_format(outputs: Callable[[Tensor], Mapping[str, Tensor]], like: Tensor) -> torch.memory_format:
    """Channels-last, if float32 maps on a CPU come out of it as they otherwise would; of a batch ``like`` this one.

    ``outputs``: of images, what some layers put out, by name.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return torch.contiguous_format
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    try:
        plain = outputs(noise)
        other = outputs(noise.contiguous(memory_format=torch.channels_last))
    except Exception:  # ``view`` of what does not lie as the network thinks; or it wants no noise
        return torch.contiguous_format
    same = all((plain[name] - other[name]).abs().max() <= ROUNDING * plain[name].abs().max() for name in plain)
    return torch.channels_last if same else torch.contiguous_format


def _check_output(layer: str, output: Tensor, images: int) -> None:
    if output.ndim not in (2, 4) or len(output) != images or not output.is_floating_point():
        raise UsageError(f"Layer {layer!r} puts out {kind(output)} for {images} images, but a scan needs "
                         "(N, units, H, W) or (N, units). Name the layers that have it: layers=[…]")


def _not_finite(layer: str, number: int, batch: Batch, result: Scan) -> DeconvnetError:
    assert batch.images is not None
    name = f" ({result.files[number]})" if result.files else ""
    whole = batch.images[batch.slots[batch.numbers.index(number)]].isfinite().all()
    cause = f"look at the weights of {layer} and of the layers before it" if whole else (
        "the image itself holds some. Look at how it is preprocessed, or leave it out")
    return DeconvnetError(f"Layer {layer!r} puts out NaN or infinity for image {number}{name}: {cause}")
