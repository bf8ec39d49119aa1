"""What every unit of a convolutional network has learned, by the method of Zeiler and Fergus (2014).

Names, and modules, are loaded when they are first used, so that ``deconvnet --help`` need not wait for torch.

The modules, in an order in which each imports only those before it, and what they are for:

    errors versions files stopping processes sealed places: errors, whole files, signals, torchrun's processes
    receptive watching tape moves windows: the way up, call by call, and windows upon its maps
    transposed slides refusals inverses projection descent describe: the way down, a rule for each call
    topk sample scanned: what is found, and kept
    drawing readers: threads and processes that draw pictures and read images
    batches contrast rows forward resume scan parts: one pass over any number of images
    shards decoding preprocess pictures photographs images: where images come from
    config settings importing network caffe check provenance: networks from anywhere, and what made a result
    patches colours layout units render gallery report: the strongest activations as pictures
    subject exhibit compare training transfer figures tables course atlas: the paper's figures and tables, and beyond
    commands cli __main__: the command line
"""

import importlib
import sys
from importlib.util import find_spec
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
            if not name.startswith("_") and find_spec(f"deconvnet.{name}"):  # a module
                return importlib.import_module(f"deconvnet.{name}")
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
