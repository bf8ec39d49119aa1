"""A file to a picture, safely: what a file gives is defined once, here.

Only JPEG, PNG, GIF, BMP, WebP, TIFF and PPM are read, whatever the file's name says; of several frames or pages the
first. EXIF orientation is applied, colour profiles are not. Transparent pixels show mid-grey, which is also what stands
outside an image in a patch. Grey is repeated in the three channels, CMYK is converted without a profile, 16-bit pixels
are scaled (65535 becomes 255). 32-bit and floating-point pixels are refused, because no value of theirs is white.
"""

import errno
import io
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, __version__, features

from .errors import DeconvnetError, UnreadableImage, UsageError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # the only decoders that see a file
PIXEL_LIMIT = 50_000_000  # 200 MB decoded; Pillow alone would stop at 179 million
SIDE_LIMIT = 65_535  # JPEG's own; every row costs memory beside its pixels
GREY = 128  # mid-grey: under transparent pixels, outside the image, and zero in a reconstruction


def read_image(path: str | Path, name: str | None = None, limit: int = PIXEL_LIMIT,
               enough: int | None = None) -> Image.Image:
    """The upright RGB picture in a file, as a PIL image.

    A JPEG of which ``enough`` pixels on the short side will do may come at a half, a quarter or an eighth of its size.
    Raises UnreadableImage with ``name`` (default: the path) and a reason in plain words for everything that is not a
    regular file holding one whole picture of at most ``limit`` pixels and 65,535 on a side; the size is checked before
    the pixels are decoded. Nothing else is raised and no warning is given.
    """
    return _read(lambda: _decode(Path(path), limit, enough), str(path) if name is None else name)


def decode_image(content: bytes, name: str, limit: int = PIXEL_LIMIT, enough: int | None = None) -> Image.Image:
    """The same from the bytes of a file, which need not be on a disk."""
    return _read(lambda: _picture(io.BytesIO(content), limit, enough), name)


def _read(decode: Callable[[], Image.Image], name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it reads all the same
            return decode()
    except Exception as error:  # a decoder that is fed hostile bytes may raise anything
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):  # not the image's fault
            raise DeconvnetError(f"{name} cannot be opened: {error.strerror}. Allow more with ulimit -n") from error
        raise UnreadableImage(name, reason(error)) from error


def _decode(path: Path, limit: int, enough: int | None) -> Image.Image:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):  # asked before opening, because opening a FIFO waits for its other end
        raise UsageError("a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file")
    with path.open("rb") as file:
        return _picture(file, limit, enough)


def _picture(file: BinaryIO, limit: int, enough: int | None) -> Image.Image:
    if not file.read(1):
        raise UsageError("an empty file")
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        _check_size(image.width, image.height, limit)
        if enough and image.format == "JPEG":
            part = max(part for part in (1, 2, 4, 8) if part == 1 or min(image.size) >= part * enough)
            image.draft(None, (image.width // part, image.height // part))  # leaves out the higher frequencies
        image.load()
        return to_rgb(_upright(image))


def _check_size(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise UsageError(f"too large: {width}×{height} pixels, and the limit is {limit:,}")
    if max(width, height) > SIDE_LIMIT:
        raise UsageError(f"too long: {width}×{height} pixels, and the limit of a side is {SIDE_LIMIT:,}")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; where the EXIF block is broken, as it is stored."""
    try:
        turn = _TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # the picture is whole, only the block that describes it is not
        turn = None
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB: transparency over mid-grey, 16 bits scaled to 8, grey repeated.

    Raises UsageError for pixels that have no defined white (32-bit and floating-point ones).
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # PPM: 0..65535 in 32 bits
        values = np.asarray(image).astype(np.float32)                            # (H, W) 0..65535
        return Image.fromarray((values / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UsageError("32-bit or floating-point pixels, whose white is not defined")
    if image.has_transparency_data:
        premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
        layer = image.convert(premultiplied).convert("RGBA")
        grey = Image.new("RGBA", image.size, (GREY, GREY, GREY, 255))
        return Image.alpha_composite(grey, layer).convert("RGB")
    return image.convert("RGB")


def reason(error: Exception) -> str:
    """What is the matter with a file, in plain words, of what reading it raised."""
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a format that is read ({', '.join(FORMATS)}), or its header is damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: the limit is {PIXEL_LIMIT:,} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    return f"damaged or cut off ({detail})"


def decoder() -> str:
    """What decoded the images, for provenance: another decoder may round pixels differently."""
    libraries = " ".join(f"{name}-{features.version(name)}" for name in ("jpg", "zlib", "webp", "libtiff"))
    return f"Pillow {__version__} ({libraries}), EXIF orientation applied"
