"""What every unit of a convolutional network has learned, by the method of Zeiler and Fergus (2014).

Names are loaded when they are first used, so that ``deconvnet --help`` need not wait for torch.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_HOME = {
    "load_model": "network",
    "open_images": "images",
    "record": "tape",
    "Tape": "tape",
    "project": "projection",
    "Projection": "projection",
    "receptive_field": "describe",
    "scan": "scan",
    "read_scan": "scanned",
    "Scan": "scanned",
    "gallery": "gallery",
    "Gallery": "gallery",
    "DeconvnetError": "errors",
}

__all__ = list(_HOME)


class _Package(ModuleType):
    """A package whose functions ``scan`` and ``gallery`` are not hidden by the modules that hold them."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'deconvnet' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"deconvnet.{_HOME[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):  # importing a submodule sets it on its package
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(__all__)


sys.modules[__name__].__class__ = _Package
