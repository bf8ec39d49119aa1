"""The state of a scan in a file, from which the same scan goes on after an interruption."""

import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from .batches import length
from .describe import fingerprint
from .errors import DeconvnetError, UsageError
from .files import write_whole
from .scanned import Scan, decode, encode, read_bytes


class Checkpoint:
    """The state of a scan in a file, so that the same scan can go on from there. Without a path it does nothing."""

    def __init__(self, path: str | Path | None, every: float) -> None:
        self.path = None if path is None else Path(path)
        self.every = every
        self.fingerprint: dict[str, Any] = {}
        self._saved = time.monotonic()
        self._whole = True  # no batch is half taken in
        self._done = 0

    def load(self) -> Scan | None:
        """The state in the file, or None if there is none. Raises UsageError if it is that of another scan."""
        if self.path is None or not self.path.exists():
            return None
        try:
            scan, about = decode(read_bytes(self.path), self.path)
        except DeconvnetError as error:
            warnings.warn(f"The scan begins again, for it cannot go on: {error}", stacklevel=3)
            return None
        there, here = about.get("fingerprint", {}), self.fingerprint
        differ = [f"  {key}: {there.get(key)} there, {here.get(key)} here" for key in sorted({*there, *here})
                  if there.get(key) != here.get(key)]
        if differ:
            raise UsageError("\n".join([f"{self.path} is the state of another scan:", *differ,
                                        "Delete the file to begin anew"]))
        self._done = scan.count + len(scan.unreadable)
        return scan

    @contextmanager
    def kept(self, scan: Scan) -> Iterator[None]:
        """Save the state if the block is left early, by Ctrl-C or an error."""
        try:
            yield
        except BaseException:
            if self._whole and scan.count + len(scan.unreadable) > self._done:
                self._save(scan)
            raise

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a batch is taken in; if it is left early, the state is not fit to be saved."""
        self._whole = False
        yield
        self._whole = True

    def save_if_due(self, scan: Scan) -> None:
        """Save the state if the last time is long ago."""
        if time.monotonic() - self._saved >= self.every:
            self._save(scan)

    def remove(self) -> None:
        """Delete the file, the scan being done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _save(self, scan: Scan) -> None:
        if self.path is not None:
            write_whole(self.path, encode(scan, fingerprint=self.fingerprint))
        self._saved, self._done = time.monotonic(), scan.count + len(scan.unreadable)


def fingerprint_of(net: nn.Module, images: Any, blank: Scan, **settings: Any) -> dict[str, Any]:
    """What must be the same for a scan to go on: the caller's provenance, the settings, the weights, the images."""
    names = hashlib.sha256(json.dumps([blank.files, blank.classes, blank.labels]).encode()).hexdigest()
    facts = {"k": blank.k, "per_image": blank.per_image, "shard": list(blank.shards[0]), "images": length(images),
             "names": names, "weights": fingerprint(net)}
    return json.loads(json.dumps({**blank.provenance, **facts, **settings}))
