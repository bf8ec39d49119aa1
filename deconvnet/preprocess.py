"""Pictures to what a network is given, and exactly back."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
import torch
from PIL import Image

from .decoding import to_rgb
from .errors import UsageError


def usual_resize(size: int) -> int:
    """The length of the shorter side, in pixels, of which a view of ``size`` is usually the centre: 256 for 224."""
    return 256 if 224 <= size <= 256 else round(size * 8 / 7)


@dataclass(frozen=True)
class Preprocess:
    """Image → network input: short side to ``resize`` (antialiased), centre ``size``×``size``, (x − mean) / std.

    ``mean`` and ``std`` are per channel (R, G, B) in units of 0..1; the defaults are torchvision's for ImageNet. One
    number in each is for networks of one channel: they get images in grey (Pillow's luma).
    ``mean_picture`` (channels, size, size), is subtracted instead of ``mean`` where it is given, in the same units: the
    paper's per-pixel mean. Raises UsageError where a value makes no sense.

    ``reduced`` JPEGs are decoded at the smallest of 1, 1/2, 1/4 and 1/8 of their size that is still twice what is
    needed. That makes photographs of twelve million pixels three to four times as fast, and other pixels of them: by
    1.4 of 255 on average, by 14 in one of a hundred, which exchanges about one in twenty of the strongest activations.

    With ``stretch`` both sides become ``resize``, whatever the picture's shape, as Caffe's tools make them.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    mean_picture: np.ndarray | None = field(default=None, repr=False, compare=False)
    reduced: bool = False
    stretch: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.size, Integral) and isinstance(self.resize, Integral)):
            raise UsageError(f"size and resize must be whole numbers of pixels: {self.size!r}, {self.resize!r}")
        if not 1 <= self.size <= self.resize:
            raise UsageError(f"size must be from 1 to resize: size={self.size}, resize={self.resize}")
        for key in ("mean", "std"):  # lists come from YAML and JSON; a tuple compares equal to a tuple only
            value = tuple(float(x) for x in getattr(self, key))
            if len(value) not in (1, 3) or not np.isfinite(value).all():
                raise UsageError(f"{key} must be three finite numbers, or one for networks of one channel: {value}")
            object.__setattr__(self, key, value)
        if min(self.std) <= 0 or max(self.std) > 100 or max(map(abs, self.mean)) > 100:
            raise UsageError(f"std must be above 0 and up to 100, mean within ±100: {self.std}, {self.mean}")
        if len(self.mean) != len(self.std):
            raise UsageError(f"mean and std must have one number for each channel: {self.mean}, {self.std}")
        if self.mean_picture is not None and self.mean_picture.shape != (self.channels, self.size, self.size):
            raise UsageError(f"mean_picture must be {(self.channels, self.size, self.size)}: {self.mean_picture.shape}")

    @property
    def channels(self) -> int:
        """How many channels the network's input has: 3, or 1 for grey."""
        return len(self.mean)

    def settings(self) -> dict[str, Any]:
        """The values as data for JSON; of a mean picture there is the SHA-256 only."""
        values: dict[str, Any] = {"size": self.size, "resize": self.resize, "mean": self.mean, "std": self.std}
        if self.reduced:
            values["reduced"] = True
        if self.stretch:
            values["stretch"] = True
        if self.mean_picture is None:
            return values
        pixels = np.ascontiguousarray(self.mean_picture, dtype=np.float32)
        return {**values, "mean_picture_sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}

    @property
    def enough(self) -> int | None:
        """The pixels on the short side that a picture must have where it may be decoded smaller than it is."""
        return 2 * self.resize if self.reduced else None

    @property
    def _subtracted(self) -> Any:
        """What is subtracted from pixels (H, W, C)."""
        return self.mean if self.mean_picture is None else self.mean_picture.transpose(1, 2, 0).astype(np.float64)

    def view(self, image: Image.Image) -> Image.Image:
        """What the network sees of an image, as an RGB picture of ``size``×``size`` pixels; grey where that is all."""
        sides = image.size if self.stretch else (min(image.size),) * 2
        width, height = (self.size * side / self.resize for side in sides)  # of the centre, in the image's own pixels
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return self.seen(window(to_rgb(image), (left, top, left + width, top + height), self.size))

    def seen(self, picture: Image.Image) -> Image.Image:
        """An RGB picture without the colours that the network does not see."""
        return picture.convert("L").convert("RGB") if self.channels == 1 else picture

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """The network's input (C, size, size), float32, for one image."""
        return self.tensor(self.view(image))

    def tensor(self, view: Image.Image) -> torch.Tensor:
        """The pixels of an RGB picture, (C, H, W) float32, normalised and not resized."""
        return self.inputs(torch.from_numpy(np.array(view))[None])[0].contiguous()

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """The pixels (n, H, W, 3) uint8 of RGB pictures as (n, C, H, W) float32, normalised and not resized.

        On the device of the pixels, and the same to the bit on each: what was computed in float64, then rounded. In
        memory they are channels-last, as pixels are, and as a forward pass is fastest.
        """
        pixels = _luma(pixels) if self.channels == 1 else pixels                 # (n, H, W, C)
        if self.mean_picture is not None:
            exact = ((pixels.cpu().numpy() / 255 - self._subtracted) / self.std).astype(np.float32)
            return torch.from_numpy(exact).to(pixels.device).permute(0, 3, 1, 2)
        together = 1 if pixels.device.type == "cpu" else max(len(pixels), 1)     # one image stays in a CPU's cache
        table = torch.from_numpy(self._table).to(pixels.device).flatten()        # (C·256,)
        first = 256 * torch.arange(self.channels, dtype=torch.int32, device=pixels.device)
        first = first.expand(together, *pixels.shape[1:]).contiguous()           # where each value's channel begins
        found = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
        for some, values in zip(pixels.split(together), found.split(together), strict=True):
            torch.index_select(table, 0, (some + first).flatten(), out=values.view(-1))
        return found.permute(0, 3, 1, 2)

    @cached_property
    def _table(self) -> np.ndarray:
        """What each value of a pixel becomes in each channel, (C, 256) float32: that is faster than the arithmetic."""
        values = np.arange(256)[:, None] / 255                                   # (256, 1) 0..1
        return np.ascontiguousarray(((values - self._subtracted) / self.std).astype(np.float32).T)

    def inverse(self, tensor: torch.Tensor) -> np.ndarray:
        """The pixels (…, H, W, 3), uint8, of inputs (…, C, H, W): bit for bit those that went in."""
        values = tensor.detach().to("cpu", torch.float64, copy=True).movedim(-3, -1)          # (…, H, W, C)
        std, subtracted = (torch.as_tensor(each, dtype=torch.float64) for each in (self.std, self._subtracted))
        pixels = values.mul_(std).add_(subtracted).mul_(255).round_().clamp_(0, 255).byte()
        return pixels.expand(*pixels.shape[:-1], 3).contiguous().numpy()


def _luma(pixels: torch.Tensor) -> torch.Tensor:
    """RGB pixels (n, H, W, 3) uint8 in grey (n, H, W, 1), as Pillow rounds it; what is grey stays as it is."""
    red, green, blue = pixels.int().unbind(-1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[..., None]


def window(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    """The part (left, top, right, bottom) of an image as a picture of ``size``×``size`` pixels, bicubic, antialiased.

    It equals that part of the whole image resized, but the whole is never made: 256×1,280,000 for a 1×5000 image.
    """
    left, top, right, bottom = box
    inside = (max(left, 0.0), max(top, 0.0), min(right, image.width), min(bottom, image.height))  # rounding only
    return image.resize((size, size), Image.Resampling.BICUBIC, box=inside)
