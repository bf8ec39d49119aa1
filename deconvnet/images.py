"""The images that a user names: folders of them, tar files, and the photographs that are built in.

What concerns one file is in ``decoding``, what a network is given in ``preprocess``; all of it can be had from here.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL import Image

from .decoding import FORMATS, GREY, PIXEL_LIMIT, SIDE_LIMIT, decode_image, decoder, read_image, reason, to_rgb
from .errors import DeconvnetError, UnreadableImage, UsageError
from .photographs import BUILTIN, PHOTOGRAPHS, WINDOW, Photographs
from .pictures import Images, Pictures, manifest_of
from .preprocess import Preprocess, usual_resize, window
from .processes import slow_bar
from .shards import Shards, is_folder, named

__all__ = ["BUILTIN", "ENDINGS", "FORMATS", "GREY", "PHOTOGRAPHS", "PIXEL_LIMIT", "SIDE_LIMIT", "WINDOW", "ImageFolder",
           "ImageShards", "Images", "Photographs", "Pictures", "Preprocess", "decode_image", "decoder", "list_images",
           "open_images", "read_image", "to_rgb", "usual_resize", "window"]

ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")


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
        others = f" ({len(everything)} other file{'s' * (len(everything) > 1)})" if everything else ""
        raise UsageError(f"no images in {root}{others}; looked for files that end in {' '.join(ENDINGS)}")
    return images, len(everything) - len(images)


def _walk(folder: Path, prefix: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Every visible file below a folder, in the order of their names, part by part."""
    try:
        info = folder.stat()
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:  # a folder that is passed over in silence would be a class that is missing
        raise UsageError(f"cannot list the folder {folder}: {reason(error)}") from error
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


class ImageFolder(Pictures):
    """The images under a folder, see list_images. Reading one raises UnreadableImage where it is damaged.

    So it does where the file is no longer what it was when ``manifest``, by which the set is known, was asked for: not
    as large, or written to since, as the file system has it. The manifest itself has no times, so that a copy of the
    folder is the same set; what is exchanged between two runs for as many bytes is not noticed.
    """

    def __init__(self, root: str | Path, preprocess: Preprocess, limit: int = PIXEL_LIMIT) -> None:
        self.root = Path(root)
        self.preprocess = preprocess
        self.limit = limit
        listed = slow_bar(_walk(self.root), desc="listing images", unit=" files")
        self.files, self.ignored = _split(listed, root)
        names = [_class(name) for name in self.files]
        self.classes = sorted({name for name in names if name is not None})
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels = [-1 if name is None else numbers[name] for name in names]
        self._listed: tuple[array[int], array[int]] | None = None  # the sizes in bytes, and when they were written

    def picture(self, index: int, enough: int | None = None) -> Image.Image:
        """The whole of one image, as a PIL picture; ``enough`` as in read_image. Raises UnreadableImage."""
        name, path = self.files[index], self.root / self.files[index]
        if self._listed is not None:
            _check_unchanged(name, tuple(column[index] for column in self._listed), _size_and_time(path))
        return read_image(path, name, self.limit, enough)

    def check_there(self) -> None:
        """Raises DeconvnetError where the folder is gone, or empty as a disk leaves it that is taken away."""
        try:
            if next(self.root.iterdir(), None) is None:
                raise DeconvnetError(f"{self.root} is empty now. Bring the images back, and the same command goes on")
        except OSError as error:
            raise DeconvnetError(f"{self.root} cannot be read any more: {reason(error)}. Bring the images back, and "
                                 "the same command goes on") from error

    @cached_property
    def manifest(self) -> str:
        """SHA-256 (hex) over the names and sizes in bytes of all images: another data set has another one."""
        sizes, times = array("q"), array("q")
        for name in slow_bar(self.files, desc="sizes of images", unit=" files"):
            size, time = _size_and_time(self.root / name)
            sizes.append(size)
            times.append(time)
        self._listed = sizes, times
        return manifest_of(zip(self.files, sizes, strict=True))


def _size_and_time(path: Path) -> tuple[int, int]:
    """The bytes of a file, and when it was last written to, in ns; −1 for both where there is none."""
    try:
        info = path.stat()
    except OSError:  # gone, or a link to nothing: reading it will say so
        return -1, -1
    return info.st_size, info.st_mtime_ns


def _check_unchanged(name: str, then: tuple[int, ...], now: tuple[int, int]) -> None:
    if now in (then, (-1, -1)):
        return
    how = (f"written to, though it has {now[0]:,} bytes as before" if now[0] == then[0] else
           f"{then[0]:,} bytes then, {now[0]:,} now")
    raise UnreadableImage(name, f"changed since it was listed: {how}")


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
        return manifest_of(zip(names, self._shards.sizes, strict=True))


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
