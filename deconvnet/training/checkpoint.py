"""Checkpoints: the last two states of a run on the disk, so that one of them is whole whatever happens."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import DeconvnetError, UsageError
from ..files import write_whole
from ..sealed import Damaged, seal, unseal

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and what JSON can hold; in it ``step``, the steps since the beginning of the run."""


class Checkpoints:
    """The states of one run in a folder, in two files that take turns: the older one is overwritten.

    Each file carries its SHA-256 and the recipe that it belongs to, ``identity``.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.files = [folder / "checkpoint-a.safetensors", folder / "checkpoint-b.safetensors"]
        self.identity = dict(identity)

    def save(self, state: State) -> None:
        """Writes a state in place of the older one. Raises DeconvnetError where it cannot; both are then as before."""
        tensors, about = state
        write_whole(self.files[0], seal(tensors, {**about, "recipe": self.identity}))
        self.files.reverse()

    def latest(self) -> State | None:
        """The last state that was saved, None if there is none; a warning if it is damaged, and the one before it.

        Raises UsageError where it belongs to another recipe or other images, and says what differs; DeconvnetError
        where nothing that is there is whole.
        """
        found, damaged = [], {}
        for file in self.files:
            try:
                tensors, about = unseal(file.read_bytes())
                if not about.keys() >= {"step", "recipe"}:
                    raise Damaged("it is whole, but no checkpoint")
                found.append((about["step"], file, tensors, about))
            except FileNotFoundError:
                continue
            except (Damaged, OSError) as error:
                damaged[file] = str(error)
        if damaged and not found:
            reasons = "; ".join(f"{file.name}: {reason}" for file, reason in damaged.items())
            raise DeconvnetError(f"No checkpoint in {self.files[0].parent} is whole ({reasons}). "
                                 "Remove them to begin anew.")
        if not found:
            return None
        _, file, tensors, about = max(found, key=lambda one: one[0])
        self._check_alike(about.pop("recipe"), file)
        for other, reason in damaged.items():
            warnings.warn(f"{other} is damaged ({reason}): the run goes on from {file.name}, step {about['step']:,}",
                          stacklevel=2)
        self.files.sort(key=lambda one: one == file)  # the file that was read is overwritten last
        return tensors, about

    def _check_alike(self, before: Mapping[str, Any], file: Path) -> None:
        now = self.identity
        changed = [f"  {key}: {before.get(key)} before, {now.get(key)} now"
                   for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        if changed:
            raise UsageError("\n".join([f"{file} was made by another recipe:", *changed,
                                        "Train into another folder (--out), or remove the checkpoints to begin anew."]))
