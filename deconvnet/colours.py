"""Numbers to colours: signed pixels around mid-grey, and pictures made smaller."""

import numpy as np
from PIL import Image

from .errors import DeconvnetError
from .images import GREY

QUANTILE = 0.995  # of |x|: a few outliers may saturate so that the rest can be seen
MANY = 10_000  # values, of fewer the quantile is as fast without detour


def robust_scale(pixels: np.ndarray) -> float:
    """The value that becomes black or white: the 99.5 % quantile of |x| over all pixels; 0 where all are zero.

    Raises DeconvnetError for NaN and infinity, which would otherwise look like an even grey.
    """
    sizes = np.abs(_floats(pixels)).ravel()
    if sizes.size == 0:
        return 0.0
    largest = sizes.max()
    if not np.isfinite(largest):
        raise DeconvnetError("a reconstruction holds NaN or infinity, which no picture can show")
    return float(_quantile(sizes) or largest)  # so sparse that the quantile is 0: the largest


def _quantile(values: np.ndarray) -> float:
    """The QUANTILE that ``np.quantile`` gives, of many values up to five times as fast: most lie below it, unsorted."""
    if len(values) >= MANY:
        most = values[values >= np.quantile(values[::16], 4 * QUANTILE - 3)]  # some four times as many as lie above it
        above = (len(values) - 1) * (1 - QUANTILE)  # how far the quantile's place is from the end of what is sorted
        if above < len(most) - 1:  # as it is, unless the sample was not like the whole
            return float(np.quantile(most, 1 - above / (len(most) - 1)))
    return float(np.quantile(values, QUANTILE))


def normalise(pixels: np.ndarray, scale: float | None = None) -> np.ndarray:
    """The pixels (…, 3, h, w), signed, as colours (…, h, w, 3), uint8: zero is 128, −scale is 1 and scale is 255.

    What lies beyond the scale saturates. ``scale`` defaults to the robust scale of all the pixels that are given, so
    that tiles given together can be compared. All zeros are an even mid-grey.
    """
    scale = robust_scale(pixels) if scale is None else scale
    colours = _floats(pixels) / (scale or 1.0)
    np.clip(colours, -1, 1, out=colours)
    colours *= 127
    np.rint(colours, out=colours)
    colours += GREY
    return np.moveaxis(colours.astype(np.uint8), -3, -1)                         # (…, h, w, 3)


def _floats(pixels: np.ndarray) -> np.ndarray:
    """The same in float32, or in float64 if they are given so: that is thrice as slow, and no eye sees it."""
    return np.asarray(pixels, dtype=np.result_type(pixels, np.float32))


def shrunk_signed(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Signed pixels (k, 3, h, w), shrunk to (height, width) where they are larger."""
    if not len(pixels) or max(pixels.shape[2:]) <= max(size):
        return pixels
    planes = [_shrink(Image.fromarray(plane), size) for plane in np.concatenate(pixels).astype(np.float32)]
    return np.stack(planes).reshape(*pixels.shape[:2], *size)


def shrunk(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (k, h, w, 3), shrunk to (height, width) where they are larger."""
    if not len(pixels) or max(pixels.shape[1:3]) <= max(size):
        return pixels
    return np.stack([_shrink(Image.fromarray(tile), size) for tile in pixels])


def _shrink(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))
