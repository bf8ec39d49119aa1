"""The state of a scan in a file, from which the same scan goes on after an interruption."""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .batches import length
from .errors import DeconvnetError, UsageError
from .files import sole_writer, write_whole
from .scanned import Scan, decode, encode
from .sealed import Damaged
from .stopping import uninterrupted
from .versions import versions

EVERY = 20.0  # seconds between two states
SHARE = 0.05  # of the time, at most, goes into saving: with many units, classes, or on a slow disk that takes seconds


class Checkpoint:
    """The state of a scan in a file, so that the same scan can go on from there. Without a path it does nothing.

    The state before the last is kept beside it, as ``NAME.previous``, in case a disk damages the last one. Neither
    holds the names and classes of the images, which may be a million and are the same for the same ``fingerprint``.
    """

    def __init__(self, path: str | Path | None, every: float = EVERY, fingerprint: Mapping[str, Any] | None = None,
                 folder: Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.every = every
        self.fingerprint = fingerprint or {}  # what must be the same for a scan to go on
        self.folder = folder  # what to delete for a scan of something else, if it is more than this file
        self.over = False  # whether the last state is that of a scan which is through
        self._saved = time.monotonic()
        self._took = 0.0  # seconds, the last time
        self._whole = True  # no batch is half taken in
        self._done = 0
        self._worth_keeping = True  # what bears the name, if there is anything, is a state of this scan

    @property
    def files(self) -> list[Path]:
        """Where the last state is, and the one before."""
        return [] if self.path is None else [self.path, self.path.with_name(f"{self.path.name}.previous")]

    def alone(self) -> AbstractContextManager[None]:
        """While this process is the only one with this file. Raises DeconvnetError, saying who else has it."""
        return nullcontext() if self.path is None else sole_writer(self.path)

    def load(self, blank: Scan) -> Scan:
        """The scan as the last state has it that is whole, or ``blank``, which has seen nothing yet.

        What is damaged is said in a warning. Raises UsageError, with what differs, if there are only states of another
        scan.
        """
        no_good: dict[Path, Exception] = {}
        for file in self.files:
            try:
                scan = self._read(file, blank)
            except FileNotFoundError:
                continue
            except (Damaged, UsageError) as error:
                no_good[file] = error
                continue
            self._worth_keeping = self.path not in no_good
            if no_good:
                warnings.warn(f"The scan goes on from the state before the last, {scan.count:,} images: "
                              f"{_first_line(no_good)}", stacklevel=3)
            self._done = scan.count + len(scan.unreadable)
            return scan
        if others := [error for error in no_good.values() if isinstance(error, UsageError)]:
            files = "the file" if len(no_good) == 1 else "the files " + " and ".join(map(str, no_good))
            raise UsageError(f"{others[0]}\nDelete {self.folder or files} to begin anew")
        if no_good:
            self._worth_keeping = False
            warnings.warn(f"The scan begins again, for it cannot go on: {_first_line(no_good)}", stacklevel=3)
        return blank

    def through(self, blank: Scan) -> Scan:
        """The scan that ``finish`` has kept. Raises DeconvnetError if there is none that is whole, or another one."""
        assert self.path is not None
        with suppress(FileNotFoundError):
            scan = self._read(self.path, blank)
            if self.over:
                return scan
        raise DeconvnetError(f"{self.path} is not there, or not whole, though its process is through: all processes "
                             "need --out in one folder that they share. Copy the part to it, and give the same command "
                             "again")

    def _read(self, file: Path, blank: Scan) -> Scan:
        """The state in a file. Raises FileNotFoundError; Damaged; UsageError if it is that of another scan."""
        try:
            scan, about = decode(file.read_bytes(), file)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Damaged(f"{file} cannot be read: {error.strerror or error}") from error
        except DeconvnetError as error:
            if isinstance(error.__cause__, Damaged):
                raise Damaged(f"{file} is damaged: {error.__cause__}") from error
            raise UsageError(str(error)) from error
        if "fingerprint" not in about:
            raise UsageError(f"{file} is a scan that is over, not the state of one")
        if lines := differences(about["fingerprint"], self.fingerprint):
            raise UsageError("\n".join([f"{file} is the state of another scan:", *lines]))
        self.over = about.get("over", False)
        return replace(blank, layers=scan.layers, count=scan.count, unreadable=scan.unreadable)

    @contextmanager
    def kept(self, scan: Scan) -> Iterator[None]:
        """Save the state if the block is left early, by Ctrl-C or an error."""
        try:
            yield
        except BaseException as reason:
            if self._whole and scan.count + len(scan.unreadable) > self._done:
                try:
                    self._save(scan)
                except DeconvnetError as error:
                    if str(error) != str(reason):
                        warnings.warn(f"The state of the scan could not be saved: {error}", stacklevel=3)
            raise

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a batch is taken in, Ctrl-C waits; if it is left early all the same, the state is not fit to be saved.
        """
        with uninterrupted():
            self._whole = False
            yield
            self._whole = True

    def save_if_due(self, scan: Scan) -> None:
        """Save the state if the last time is ``every`` seconds ago, or longer where saving takes long."""
        if time.monotonic() - self._saved >= (self.every and max(self.every, self._took / SHARE)):
            self._save(scan)

    def finish(self, scan: Scan) -> None:
        """Keep a scan that is through, for ``through``."""
        if not self.over:
            self.over = True
            self._save(scan)

    def remove(self) -> None:
        """Delete the files, the scan being done."""
        for file in reversed(self.files):  # while there is any, there is the last
            file.unlink(missing_ok=True)

    def _save(self, scan: Scan) -> None:
        begun = time.monotonic()
        if self.path is not None:
            previous = self.files[1] if self._worth_keeping else None
            bare = replace(scan, files=[], classes=[], labels=[])
            write_whole(self.path, encode(bare, fingerprint=self.fingerprint, over=self.over), previous=previous)
            self._worth_keeping = True
        self._saved, self._done = time.monotonic(), scan.count + len(scan.unreadable)
        self._took = self._saved - begun


def differences(there: Mapping[str, Any], here: Mapping[str, Any], above: str = "") -> list[str]:
    """A line for each entry that differs, also deep within, as ``  versions.torch: 2.10 there, 2.15 here``."""
    lines = []
    for key in sorted({*there, *here}):
        one, other = there.get(key), here.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            lines += differences(one, other, f"{above}{key}.")
        elif one != other:
            lines.append(f"  {above}{key}: {one} there, {other} here")
    return lines


def fingerprint_of(net: nn.Module, weights: str, images: Any, blank: Scan, place: torch.device,
                   **settings: Any) -> dict[str, Any]:
    """What must be the same for a scan to go on.

    That is the caller's provenance and settings, the network's layers as they print, its weights (their SHA-256), the
    kind of device, the versions, and the images as far as they tell: the values of a tensor; the names, sizes and
    preprocessing of files.
    """
    names = hashlib.sha256(json.dumps([blank.files, blank.classes, blank.labels]).encode()).hexdigest()
    facts = {"k": blank.k, "per_image": blank.per_image, "shard": list(blank.shards[0]), "images": length(images),
             "names": names, "images_content": _content(images), "images_preprocess": _preprocess(images),
             "network": _layout(net), "weights": weights, "device": place.type, "versions": versions()}
    return json.loads(json.dumps({**blank.provenance, **facts, **settings}))


def _layout(net: nn.Module) -> str:
    """The SHA-256 of what a network prints of its layers: strides and paddings are in no weights."""
    words = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(net))  # an object without words of its own prints where it lies
    return hashlib.sha256(words.encode(errors="surrogatepass")).hexdigest()


def _content(images: Any) -> str | None:
    """The SHA-256 of a tensor, or that by which a set of images is known; None where it does not tell."""
    if not isinstance(images, Tensor):
        with suppress(NotImplementedError):
            return getattr(images, "manifest", None)
        return None
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _preprocess(images: Any) -> Any:
    """The settings by which pictures become inputs, where the images tell them."""
    settings = getattr(getattr(images, "preprocess", None), "settings", None)
    return settings() if callable(settings) else None


def _first_line(errors: Mapping[Path, Exception]) -> str:
    """What is the matter with each file, on one line."""
    return "; ".join(str(error).partition(":\n")[0] for error in errors.values())
