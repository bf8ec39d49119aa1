"""Weights that torchvision offers by name: fetched once over https, checked, and read without running code."""

import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import DeconvnetError, UsageError
from ..files import sha256_of
from ..images import Preprocess
from .weights import Trained

_OWN_SCALE = ("googlenet", "inception_v3")  # torchvision normalises their images once more, to −1..1, in the network


def weights_by_name(model: str) -> list[str]:
    """The names that torchvision has for a model's weights, such as IMAGENET1K_V1, and DEFAULT, its own choice."""
    from torchvision import models

    entries = models.get_model_weights(model) if model in models.list_models() else []
    return [*(entry.name for entry in entries), "DEFAULT"] if len(entries) else []


def fetch(model: str, name: str) -> Trained:
    """Weights by name with the classes and the preprocessing that torchvision gives them; views are resized bicubic.

    They lie where torchvision puts them (``$TORCH_HOME``, or torch in the cache folder) and are fetched if they do not.
    Raises DeconvnetError where they cannot be fetched, and where their SHA-256 does not begin as their name says.
    """
    from torchvision import models

    entry: Any = models.get_model_weights(model)[name]
    folder = _folder()
    file = folder / entry.url.rpartition("/")[2]
    if not entry.url.startswith("https://") or _expected(file) is None:
        raise UsageError(f"torchvision fetches {name} of {model} without https or a checksum; that is not done here.")
    if file.is_file():
        _check(file)
    return Trained(_state(entry, folder, file), str(file), list(entry.meta.get("categories", [])),
                   _preprocess(model, entry))


def _state(entry: Any, folder: Path, file: Path) -> dict[str, Tensor]:
    try:
        state = entry.get_state_dict(model_dir=str(folder), progress=True, check_hash=True, map_location="cpu",
                                     weights_only=True)
        _check(file)
        return dict(state)
    except DeconvnetError:
        raise
    except Exception as error:  # of the network, of the disk, of torch
        raise DeconvnetError(f"{entry.url} cannot be fetched or read: {error}. Fetch it elsewhere, and give the file "
                             "with --weights.") from error


def _folder() -> Path:
    """Where torchvision keeps what it fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"


def _expected(file: Path) -> str | None:
    """How the SHA-256 of a file begins, by its name."""
    found = re.search(r"-([0-9a-f]{8,64})\.", file.name)
    return found[1] if found else None


def _check(file: Path) -> None:
    if not sha256_of(file).startswith(_expected(file) or "no"):
        raise DeconvnetError(f"{file} is damaged: its SHA-256 does not begin as its name says. Delete it, and it is "
                             "fetched again.")


def _preprocess(model: str, entry: Any) -> Preprocess | None:
    """How images are made for these weights; None where torchvision does not say it in these terms."""
    own = entry.transforms()
    if not all(hasattr(own, key) for key in ("crop_size", "resize_size", "mean", "std")):
        return None
    size, resize = own.crop_size[0], max(own.resize_size[0], own.crop_size[0])
    if model in _OWN_SCALE:
        return Preprocess(size, resize, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Preprocess(size, resize, tuple(own.mean), tuple(own.std))
