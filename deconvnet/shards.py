"""Tar files in WebDataset's layout: what lies in them, and the bytes of it, read where they are.

Members belong together that have the same name up to the first dot of its last part: ``000123.jpg``, ``000123.cls``. An
image is a member with the ending of one. Its class is what ``KEY.cls`` says, a number or a name, or else ``label``,
``cls`` or ``class`` in ``KEY.json``; where no image has such a class, it is the first folder of its name, as in a
folder of images. Everything else is passed over. Nothing is unpacked or executed; a name is a name and leads nowhere.
"""

import json
import os
import re
import stat
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from os.path import commonpath
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from .errors import UnreadableImage, UsageError
from .processes import slow_bar
from .scanned import CLASSES

MOST = 100_000              # tar files
HEADER = 1 << 14            # bytes that may describe one member; more is an attack, or no tar file
TEXT, NOTE = 256, 1 << 20   # bytes of a .cls, of a .json

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}
_SHORT = (".tgz", ".tbz", ".tbz2", ".txz", ".tzst")

Class = int | str | None


# ---- which files ----


def named(spec: str | Path) -> list[Path]:
    """The tar files that ``x.tar``, ``x-{000..123}.tar`` or ``x-*.tar`` names, or that lie in a folder, in order.

    None of them where it is not about tar files. Raises UsageError where it is, and one is missing.
    """
    text = str(spec)
    if is_folder(text):
        return _inside(Path(text))
    if not (text.lower().endswith((".tar", *_SHORT)) or ".tar." in PurePosixPath(text).name.lower()):
        return []
    found = {pattern: _matching(Path(pattern)) for pattern in ([text] if _matching(Path(text)) else _expanded(text))}
    missing = [pattern for pattern, paths in found.items() if not paths]
    if missing:
        more = f", nor are {len(missing) - 1} others of {text}" if missing[1:] else ""
        raise UsageError(f"the tar file {missing[0]} is not there{more}")
    return [path for paths in found.values() for path in paths]


def is_folder(spec: str | Path) -> bool:
    """Whether there is a folder of that name; False also for what cannot be a name."""
    try:
        return Path(spec).is_dir()
    except (OSError, ValueError):
        return False


def there(spec: str | Path) -> bool:
    """Whether what is named, a folder, a file or a pattern of tar files, is there."""
    try:
        return Path(spec).exists() or bool(named(spec))
    except (UsageError, OSError, ValueError):
        return False


def _inside(folder: Path) -> list[Path]:
    """The tar files in a folder, sorted; none where it cannot be listed, which who reads it as a folder will say."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tar")
    except OSError:
        return []


def _matching(pattern: Path) -> list[Path]:
    """The file of that name, or else those whose names match its last part, sorted."""
    try:
        return [pattern] if pattern.exists() else sorted(pattern.parent.glob(pattern.name))
    except (OSError, ValueError):
        return []


def _expanded(text: str) -> list[str]:
    """``a-{08..10}`` as a-08, a-09, a-10; any number of such ranges."""
    names = [text]
    while _RANGE.search(names[0]):
        names = [name for pattern in names for name in _counted(pattern)]
        if len(names) > MOST:
            raise UsageError(f"{text} names more than {MOST:,} tar files")
    return names


def _counted(pattern: str) -> Iterator[str]:
    """The pattern with each number of its first range in the range's place."""
    before, first, last, after = _RANGE.split(pattern, maxsplit=1)
    if not int(first) <= int(last) < int(first) + MOST:
        raise UsageError(f"{{{first}..{last}}} counts backwards, or further than {MOST:,}: {pattern}")
    yield from (f"{before}{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1))


# ---- what lies in them ----


class Shards:
    """The images that lie in tar files, in their order, and how to get at the bytes of each.

    Attributes:
        files: a name for each image: that of its shard, from the folder on that all shards share, and its own in there.
        classes: the names of the classes; numbers, if they were given as numbers.
        labels: a class number for each image, −1 where it has none.
        sizes: bytes of each; −1 where it is none, but a link or a device with the name of one.
        ignored: members that are neither images nor say the class of one.

    Raises UsageError, naming the file, where one is compressed, damaged or cut off, and where there are no images.
    """

    def __init__(self, paths: Sequence[Path], endings: Sequence[str]) -> None:
        self.paths = list(paths)
        self._listed = [_size_and_time(path) for path in self.paths]
        self.files: list[str] = []
        self.ignored = 0
        self.sizes, self._shards, self._offsets = array("q"), array("q"), array("q")  # 24 bytes an image
        said, folders = self._list(tuple(endings))
        if not self.files:
            raise UsageError(f"no images in {self.paths[0]}{' …' if self.paths[1:] else ''} ({self.ignored} other "
                             f"members); looked for members that end in {' '.join(endings)}")
        self.classes, self.labels = _numbered(said if any(name is not None for name in said) else folders)

    def read(self, index: int, limit: int) -> bytes:
        """The bytes of an image, of which there may be ``limit``. Raises UnreadableImage, with its name and why.

        It does so too where its tar file is no longer as large as when it was listed, or was written to since.
        """
        name, size = self.files[index], self.sizes[index]
        if size < 0:
            raise UnreadableImage(name, "a link, a device or a sparse member, not a file")
        if size > limit:
            raise UnreadableImage(name, f"too large: {size:,} bytes, and the limit is {limit:,}")
        try:
            path, then = self.paths[self._shards[index]], self._listed[self._shards[index]]
            with path.open("rb") as file:
                content, now = _piece(file, self._offsets[index], size), os.fstat(file.fileno())
        except OSError as error:
            raise UnreadableImage(name, f"its tar file cannot be read: {error.strerror or error}") from error
        if now.st_size < then[0]:
            raise UnreadableImage(name, "its tar file has become shorter since it was listed")
        if (now.st_size, now.st_mtime_ns) != then:
            raise UnreadableImage(name, "its tar file was written to since it was listed")
        return content

    def _list(self, endings: tuple[str, ...]) -> tuple[list[Class], list[Class]]:
        """Notes all images; the class that is said of each, and the folder that it lies in."""
        said: list[Class] = []
        folders: list[Class] = []
        same: dict[Class, Class] = {None: None}  # one object for each class, however many images have it
        total = sum(size for size, _ in self._listed)
        with slow_bar(total=total, unit="B", unit_scale=True, desc="listing shards") as bar:
            for number, (path, shard) in enumerate(zip(self.paths, _names(self.paths), strict=True)):
                images, ignored = _contents(path, endings, bar)
                self.ignored += ignored
                for name, image in images.items():
                    folder, slash, _ = name.partition("/")
                    said.append(same.setdefault(image.said, image.said))
                    folders.append(same.setdefault(folder, folder) if slash else None)
                    self.files.append(f"{shard}/{name}")
                    self._shards.append(number)
                    self._offsets.append(image.offset)
                    self.sizes.append(image.size)
        return said, folders


class _Image(NamedTuple):
    offset: int
    size: int
    said: Class = None


def _contents(path: Path, endings: tuple[str, ...], bar: tqdm) -> tuple[dict[str, _Image], int]:
    """The images of one tar file by name, of several with one name the last, and how many other members there are."""
    images: dict[str, _Image] = {}
    classes: dict[str, Class] = {}  # by key
    ignored = 0
    with path.open("rb") as file:
        for member in _members(path, bar):
            name, plain = _visible(member.name), member.isreg() and not member.issparse()
            key, ending = _key(name)
            if name.lower().endswith(endings):
                images[name] = _Image(member.offset_data, member.size if plain else -1)
            elif plain and name and ending in (".cls", ".json"):
                said = _said(file, member, ending, path)
                classes[key] = said if ending == ".cls" else classes.get(key, said)
            elif name and not member.isdir():
                ignored += 1
    kept = _without_fields(images, endings)
    return ({name: image._replace(said=classes.get(_key(name)[0])) for name, image in kept.items()},
            ignored + len(images) - len(kept))


def _without_fields(images: dict[str, _Image], endings: tuple[str, ...]) -> dict[str, _Image]:
    """The images but for those that say something of another one, such as KEY.mask.png beside KEY.jpg."""
    whole = {key for key, ending in map(_key, images) if ending in endings}
    return {name: image for name, image in images.items() if _key(name)[1] in endings or _key(name)[0] not in whole}


def _key(name: str) -> tuple[str, str]:
    """A name up to the first dot of its last part, and what follows in small letters: (a/000123, .jpg)."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}".lower()


def _visible(name: str) -> str:
    """The name without ./ before it; nothing, where a part of it begins with a dot, as those that macOS adds."""
    name = name.removeprefix("./")
    hidden = name.startswith(".") or "/." in name
    return "" if hidden and any(part[:1] == "." and part not in (".", "..") for part in name.split("/")) else name


def _said(file: BinaryIO, member: tarfile.TarInfo, ending: str, path: Path) -> Class:
    """The class that a .cls or .json says; None where the .json says none. Raises UsageError for what is no class."""
    if ending == ".json":
        said = _in_json(_piece(file, member.offset_data, member.size)) if member.size <= NOTE else None
    else:
        content = _piece(file, member.offset_data, min(member.size, TEXT + 1))
        if len(content) < min(member.size, TEXT + 1):  # the file is cut off here, which is about to be found out
            return None
        said = content.decode("utf-8", "replace").strip()
        said = int(said) if said.isascii() and said.isdigit() else said
    too_long = isinstance(said, str) and not 0 < len(said.encode("utf-8", "surrogatepass")) <= TEXT
    if too_long or (isinstance(said, int) and not 0 <= said < CLASSES):
        raise UsageError(f"{member.name!r} in {path} says no class: that is a number from 0 to {CLASSES - 1:,}, or a "
                         f"name of 1 to {TEXT} bytes")
    return said


def _in_json(content: bytes) -> Class:
    try:
        note = json.loads(content)
    except (ValueError, RecursionError):
        return None
    keys = [key for key in ("label", "cls", "class") if key in note] if isinstance(note, dict) else []
    said = note[keys[0]] if keys else None
    return said if isinstance(said, str) or (isinstance(said, int) and not isinstance(said, bool)) else None


def _numbered(said: list[Class]) -> tuple[list[str], list[int]]:
    """The names of the classes, and for each image the number of its own, −1 for none."""
    known = {name for name in said if name is not None}
    if known and all(isinstance(name, int) for name in known):
        return [str(number) for number in range(max(known) + 1)], [-1 if name is None else name for name in said]  # type: ignore
    classes = sorted(map(str, known))
    numbers = {name: number for number, name in enumerate(classes)}
    return classes, [-1 if name is None else numbers[str(name)] for name in said]


def _names(paths: Sequence[Path]) -> list[str]:
    """The paths from the folder on that all of them share."""
    whole = [path.absolute() for path in paths]
    folder = commonpath([path.parent for path in whole])
    return [path.relative_to(folder).as_posix() for path in whole]


# ---- one tar file ----


class _Careful:
    """A file as tarfile may read it: forwards only, and little for each member, however it describes itself."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left, self.tell = file, HEADER, file.tell

    def read(self, size: int = -1) -> bytes:
        """So many bytes, if they are not too many."""
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"more than {HEADER:,} bytes describe one member")
        return self.file.read(size)

    def seek(self, place: int) -> None:
        """Goes on to a place; one back is what tarfile does to see whether the last byte is there."""
        if place < self.file.tell() - 1:
            raise tarfile.ReadError("a member leads back to where it came from")
        self.file.seek(place)


def _members(path: Path, bar: tqdm) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, one after the other, in memory that does not grow with them.

    Raises UsageError, naming the file, where it is compressed, damaged, cut off or none.
    """
    size, _ = _size_and_time(path)
    with path.open("rb") as raw:
        _check_plain(path, _piece(raw, 0, 6))
        raw.seek(0)
        careful, place = _Careful(raw), 0
        try:
            with tarfile.open(fileobj=careful, mode="r:") as archive:  # type: ignore[call-overload]
                while (member := archive.next()) is not None:
                    archive.members.clear()
                    yield member
                    careful.left = HEADER
                    bar.update(archive.offset - place)
                    place = archive.offset
        except (tarfile.TarError, RecursionError, ValueError, OverflowError) as error:
            raise _damaged(path, place, str(error)) from error
        if _piece(raw, archive.offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise _damaged(path, archive.offset, "there is neither a member nor the mark of the end")
        bar.update(size - place)


def _check_plain(path: Path, beginning: bytes) -> None:
    packed = next((name for mark, name in _COMPRESSED.items() if beginning.startswith(mark)), None)
    if packed:
        raise UsageError(f"{path} is compressed ({packed}), and only plain tar files can be read where they are: make "
                         "a plain .tar of it; images hardly take more room there")


def _damaged(path: Path, place: int, reason: str) -> UsageError:
    return UsageError(f"{path} is damaged, cut off, or no tar file: {reason} (at byte {place:,}). Fetch it again, or "
                      "leave it out")


def _size_and_time(path: Path) -> tuple[int, int]:
    """The bytes of a regular file, and when it was last written to, in ns. UsageError where it is none, or closed."""
    try:
        info = path.stat()
        if stat.S_ISREG(info.st_mode):  # asked before opening, because opening a FIFO waits for its other end
            path.open("rb").close()
            return info.st_size, info.st_mtime_ns
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    raise UsageError(f"{path} is not a regular file")


def _piece(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)
