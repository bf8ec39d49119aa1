"""Files to tensors and back: reading images safely, folders and tar files of them, preprocessing and its exact inverse.

What a file gives is defined once, here. Only JPEG, PNG, GIF, BMP, WebP, TIFF and PPM are read, whatever the file's name
says; of several frames or pages the first. EXIF orientation is applied, colour profiles are not. Transparent pixels
show mid-grey, which is also what stands outside an image in a patch. Grey is repeated in the three channels, CMYK is
converted without a profile, 16-bit pixels are scaled (65535 becomes 255). 32-bit and floating-point pixels are refused,
because no value of theirs is white.
"""

import errno
import hashlib
import importlib.util
import io
import stat
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError, __version__, features

from .batches import Pixels
from .errors import DeconvnetError, UnreadableImage, UsageError
from .shards import Shards, is_folder, named

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # the only decoders that see a file
ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
PIXEL_LIMIT = 50_000_000  # 200 MB decoded; Pillow alone would stop at 179 million
SIDE_LIMIT = 65_535  # JPEG's own; every row costs memory beside its pixels
GREY = 128  # mid-grey: under transparent pixels, outside the image, and zero in a reconstruction


# ---- one file ----


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
        raise UnreadableImage(name, _reason(error)) from error


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


def _reason(error: Exception) -> str:
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


# ---- preprocessing ----


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
        return self.inputs(torch.from_numpy(np.array(view))[None])[0]

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """The pixels (n, H, W, 3) uint8 of RGB pictures as (n, C, H, W) float32, normalised and not resized.

        On the device of the pixels, and the same to the bit on each: what was computed in float64, then rounded.
        """
        pixels = _luma(pixels) if self.channels == 1 else pixels                 # (n, H, W, C)
        if self.mean_picture is not None:
            exact = ((pixels.cpu().numpy() / 255 - self._subtracted) / self.std).astype(np.float32)
            return torch.from_numpy(np.ascontiguousarray(exact.transpose(0, 3, 1, 2))).to(pixels.device)
        if pixels.device.type != "cpu":
            table = torch.from_numpy(self._table).to(pixels.device)              # (C, 256)
            return torch.stack([table[c][pixels[..., c].int()] for c in range(self.channels)], 1)
        found = np.empty((len(pixels), self.channels, *pixels.shape[1:3]), dtype=np.float32)
        for image, whole in zip(pixels.numpy(), found, strict=True):
            for channel, values in enumerate(self._table):  # a table of 256 is four times as fast as the arithmetic
                np.take(values, image[..., channel], out=whole[channel], mode="clip")
        return torch.from_numpy(found)

    @cached_property
    def _table(self) -> np.ndarray:
        """What each value of a pixel becomes in each channel, (C, 256) float32."""
        values = np.arange(256)[:, None] / 255                                   # (256, 1) 0..1
        return np.ascontiguousarray(((values - self._subtracted) / self.std).astype(np.float32).T)

    def inverse(self, tensor: torch.Tensor) -> np.ndarray:
        """The pixels (…, H, W, 3), uint8, of inputs (…, C, H, W): bit for bit those that went in."""
        values = tensor.detach().cpu().double().movedim(-3, -1).numpy()          # (…, H, W, C)
        pixels = np.clip(np.rint((values * self.std + self._subtracted) * 255), 0, 255).astype(np.uint8)
        return np.repeat(pixels, 3, -1) if self.channels == 1 else pixels


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


# ---- many files ----


def list_images(root: str | Path) -> list[tuple[str, str | None]]:
    """The images under a folder, sorted: (name relative to it with forward slashes, class or None).

    An image is what has the ending of one, in either case; whether it can be read shows when it is read. The class is
    the first subfolder on the way, however deep the image lies; images beside the subfolders have none. Names that
    begin with a dot are passed over. Links are followed, but not round in a circle. Raises UsageError where there is no
    such folder, or no image in it.
    """
    return [(name, _class(name)) for name in _split(_walk(Path(root)), root)[0]]


def _class(name: str) -> str | None:
    first, slash, _ = name.partition("/")
    return first if slash else None


def _split(names: Iterable[str], root: str | Path) -> tuple[list[str], int]:
    """The names that end as images do, and how many do not; UsageError where none does."""
    everything = list(names)
    images = [name for name in everything if PurePosixPath(name).suffix.lower() in ENDINGS]
    if not images:
        others = f" ({len(everything)} other files)" if everything else ""
        raise UsageError(f"no images in {root}{others}; looked for files that end in {' '.join(ENDINGS)}")
    return images, len(everything) - len(images)


def _walk(folder: Path, prefix: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Every visible file below a folder, in the order of their names, part by part."""
    try:
        info = folder.stat()
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:  # a folder that is passed over in silence would be a class that is missing
        raise UsageError(f"cannot list the folder {folder}: {_reason(error)}") from error
    here = (info.st_dev, info.st_ino)
    if here in above:  # a link back to a folder that we are in
        return
    for name in names:
        if name.startswith("."):
            continue
        # a folder called x.jpg is listed as an image and then named as unreadable: someone meant it to be one
        if not name.lower().endswith(ENDINGS) and (folder / name).is_dir():
            yield from _walk(folder / name, f"{prefix}{name}/", (*above, here))
        else:
            yield prefix + name


class Images(Pixels):
    """Images by number, as network inputs with labels: what a scan reads. An item is ((3, H, W) float32, label).

    Attributes:
        preprocess: how a picture becomes an input.
        files: a name for each image, the same on every machine.
        labels: a class number for each image, −1 where it has none.
        classes: the names of the classes.
    """

    preprocess: Preprocess
    files: list[str]
    labels: list[int]
    classes: list[str]

    @property
    def manifest(self) -> str:
        """SHA-256 (hex) by which this set of images is known."""
        raise NotImplementedError

    def view(self, index: int) -> Image.Image:
        """What the network sees of one image, as a PIL picture. Raises UnreadableImage."""
        raise NotImplementedError

    def image(self, index: int) -> np.ndarray:
        """The same as pixels, (H, W, 3) uint8. Raises UnreadableImage."""
        return np.asarray(self.view(index))

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """The network's inputs (n, 3, H, W), float32, of pixels (n, H, W, 3) uint8."""
        return self.preprocess.inputs(pixels)

    def __len__(self) -> int:
        return len(self.files)


class Pictures(Images):
    """Images of any size, of which the network sees the middle.

    Attributes:
        ignored: files or members that are no images by their ending.
        limit: the pixels allowed in one image.
    """

    ignored: int
    limit: int

    def picture(self, index: int, enough: int | None = None) -> Image.Image:
        """The whole of one image, as a PIL picture; ``enough`` as in read_image. Raises UnreadableImage."""
        raise NotImplementedError

    def view(self, index: int) -> Image.Image:
        """What the network sees of one image, as a PIL picture. Raises UnreadableImage."""
        return self.preprocess.view(self.picture(index, self.preprocess.enough))


class ImageFolder(Pictures):
    """The images under a folder, see list_images. Reading one raises UnreadableImage where it is damaged.

    So it does where the file is no longer as large as when ``manifest``, by which the set is known, was asked for.
    """

    def __init__(self, root: str | Path, preprocess: Preprocess, limit: int = PIXEL_LIMIT) -> None:
        self.root = Path(root)
        self.preprocess = preprocess
        self.limit = limit
        self.files, self.ignored = _split(_walk(self.root), root)
        names = [_class(name) for name in self.files]
        self.classes = sorted({name for name in names if name is not None})
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels = [-1 if name is None else numbers[name] for name in names]
        self._sizes: array[int] | None = None  # in bytes, as the manifest has them

    def picture(self, index: int, enough: int | None = None) -> Image.Image:
        """The whole of one image, as a PIL picture; ``enough`` as in read_image. Raises UnreadableImage."""
        name, path = self.files[index], self.root / self.files[index]
        if self._sizes is not None and _bytes(path) not in (-1, self._sizes[index]):
            raise UnreadableImage(name, f"changed since it was listed: {self._sizes[index]:,} bytes then, "
                                        f"{_bytes(path):,} now")
        return read_image(path, name, self.limit, enough)

    @cached_property
    def manifest(self) -> str:
        """SHA-256 (hex) over the names and sizes in bytes of all images: another data set has another one."""
        self._sizes = array("q", (_bytes(self.root / name) for name in self.files))
        return _manifest(zip(self.files, self._sizes, strict=True))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone, or a link to nothing: the scan will say so
        return -1


def _manifest(sizes: Iterable[tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    for name, size in sizes:
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))  # names need not be valid UTF-8
    return digest.hexdigest()


class ImageShards(Pictures):
    """The images in tar files in WebDataset's layout, see the module shards: read where they are, never unpacked.

    Reading one that is damaged raises UnreadableImage. Raises UsageError where a tar file is damaged.
    """

    def __init__(self, paths: Sequence[Path], preprocess: Preprocess, limit: int = PIXEL_LIMIT) -> None:
        self.preprocess, self.limit = preprocess, limit
        self._shards = Shards(paths, ENDINGS)
        self.files, self.labels, self.classes = self._shards.files, self._shards.labels, self._shards.classes
        self.ignored = self._shards.ignored

    def picture(self, index: int, enough: int | None = None) -> Image.Image:
        """The whole of one image, as a PIL picture; ``enough`` as in read_image. Raises UnreadableImage."""
        content = self._shards.read(index, 8 * self.limit + 2 ** 20)
        return decode_image(content, self.files[index], self.limit, enough)

    @cached_property
    def manifest(self) -> str:
        """SHA-256 (hex) over the names, sizes in bytes and classes of all images."""
        names = (f"{name}\0{label}" for name, label in zip(self.files, self.labels, strict=True))
        return _manifest(zip(names, self._shards.sizes, strict=True))


# ---- the built-in photographs ----

# What scikit-image bundles and a camera took; its drawings, and the near-double motorcycle_right, are left out.
PHOTOGRAPHS = {
    "astronaut": "astronaut.png", "chelsea": "chelsea.png", "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png", "rocket": "rocket.jpg", "camera": "camera.png", "coins": "coins.png",
    "brick": "brick.png", "grass": "grass.png", "gravel": "gravel.png", "page": "page.png", "text": "text.png",
    "moon": "moon.png", "hubble": "hubble_deep_field.jpg", "retina": "retina.jpg", "ihc": "ihc.png",
}
WINDOW = 224  # the side of a view, in pixels of the photograph after scaling
SPANS = (1, 2, 3, 4)  # a photograph is scaled until its short side is so many views long,
ENLARGEMENT = 2.25  # but enlarged no further than this: it would only be blurred


class Photographs(Images):
    """``builtin:photographs``: sixteen photographs that scikit-image bundles, as thousands of overlapping views.

    A view is a square of 224 pixels of a photograph that was scaled until its short side is 1, 2, 3 or 4 views long.
    It is called ``astronaut@0.44+112+056`` where it lies 112 pixels down and 56 right on the astronaut at 0.44 of its
    size; its class is its photograph. The views of one scale cover the photograph, neighbours sharing at least the part
    ``overlap`` (0 ≤ overlap < 1) of their side: 0.65 gives 2,558 views, 0 gives 472 that share little. Preprocess
    gives the size in pixels (224 is the view as it is), mean and std; its resize is not used. Read from the installed
    package, offline.
    """

    def __init__(self, preprocess: Preprocess, overlap: float = 0.65) -> None:
        if not 0 <= overlap < 1:
            raise UsageError(f"overlap must be at least 0 and below 1: {overlap}")
        self.preprocess = preprocess
        self.classes = list(PHOTOGRAPHS)
        self._pictures: dict[str, Image.Image] = {}  # decoded when first asked for; 16 MB for all
        self._views = [view for name in PHOTOGRAPHS for view in _views(name, overlap)]
        self.files = [f"{name}@{scale:.2f}+{y:03d}+{x:03d}" for name, scale, y, x in self._views]
        self.labels = [self.classes.index(name) for name, *_ in self._views]

    def view(self, index: int) -> Image.Image:
        """What the network sees of one view, as a PIL picture."""
        name, scale, y, x = self._views[index]
        box = (x / scale, y / scale, (x + WINDOW) / scale, (y + WINDOW) / scale)
        return self.preprocess.seen(window(self.photograph(name), box, self.preprocess.size))

    def photograph(self, name: str) -> Image.Image:
        """The whole photograph that one of the ``classes`` is called by, as a PIL picture."""
        if name not in self._pictures:
            self._pictures[name] = read_image(_bundled(name), PHOTOGRAPHS[name])
        return self._pictures[name]

    @cached_property
    def manifest(self) -> str:
        """SHA-256 (hex) over the names of all views and the sizes in bytes of their photographs."""
        sizes = {name: _bytes(_bundled(name)) for name in PHOTOGRAPHS}
        return _manifest((file, sizes[name]) for file, (name, *_) in zip(self.files, self._views, strict=True))


def _bundled(name: str) -> Path:
    """Where the installed scikit-image keeps a photograph; found without importing it, and without its downloads."""
    spec = importlib.util.find_spec("skimage")
    folders = spec.submodule_search_locations if spec else None
    path = Path((folders or ["."])[0], "data", PHOTOGRAPHS[name])
    if not path.is_file():
        raise DeconvnetError(f"scikit-image has no {PHOTOGRAPHS[name]} in its data folder; reinstall scikit-image")
    return path


def _views(name: str, overlap: float) -> Iterator[tuple[str, float, int, int]]:
    """(photograph, scale, y, x) of its views, smallest scale first."""
    with Image.open(_bundled(name), formats=FORMATS) as image:  # the header only
        width, height = image.size
    for scale in (span * WINDOW / min(width, height) for span in SPANS):
        if scale > ENLARGEMENT:
            return
        rows, columns = (_places(round(side * scale), overlap) for side in (height, width))
        yield from ((name, scale, y, x) for y in rows for x in columns)


def _places(length: int, overlap: float) -> list[int]:
    """Where the windows begin along a side: evenly from end to end, none where the side is too short."""
    room = length - WINDOW
    if room < 0:
        return []
    steps = ceil(room / (WINDOW * (1 - overlap)))
    return [round(step * room / max(steps, 1)) for step in range(steps + 1)]


BUILTIN = {"builtin:photographs": 0.65, "builtin:photographs-apart": 0.0}  # name → overlap of neighbouring views


def open_images(spec: str | Path, preprocess: Preprocess) -> Images:
    """The images that ``--images`` names: ``builtin:photographs``, the same with views that lie apart, a folder, or tar
    files in WebDataset's layout, as ``x.tar``, ``x-{000..123}.tar``, ``x-*.tar``, or a folder of them without images.

    Raises UsageError where there are none.
    """
    if not isinstance(preprocess, Preprocess):  # one's own network may bring anything
        raise UsageError("to read images, the network's preprocess must be a deconvnet.images.Preprocess, not a "
                         f"{type(preprocess).__name__}")
    if str(spec) in BUILTIN:
        return Photographs(preprocess, BUILTIN[str(spec)])
    if str(spec).startswith("builtin:"):
        raise UsageError(f"no images called {spec}; there are {', '.join(BUILTIN)}, or give a folder")
    shards = named(spec)
    if not shards:
        return ImageFolder(spec, preprocess)
    if is_folder(spec) and any(name.lower().endswith(ENDINGS) for name in _walk(Path(spec))):
        return ImageFolder(spec, preprocess)  # which happens to have tar files beside its images
    return ImageShards(shards, preprocess)
