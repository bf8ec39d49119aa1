"""The paper's tables by number (arXiv v3), each in a file of its own.

A table's module has ``Settings``, what its YAML in configs/tables may say, and ``make``, which computes.
"""

from importlib import import_module
from typing import Any

from ..errors import UsageError
from ..exhibit import Table
from ..settings import Part

TABLES: dict[str, str] = {  # number: the module
    "1": "correspondence",  # the same part of like images covered: do features change alike?
    "2": "errors",          # of trained networks and of ensembles
    "3": "ablation",        # layers left out and made wider
    "4": "caltech101",      # frozen features, a new classifier
    "5": "caltech256",
    "6": "voc",             # PASCAL VOC 2012, each class against all others
    "7": "layers",          # how good the features of each layer are
}


def settings(number: str) -> type[Part]:
    """What the configuration of a table may say. Raises UsageError where there is no such table."""
    return _module(number).Settings


def make(number: str, chosen: Any, progress: bool = True) -> Table:
    """A table, for settings of its own kind. Raises UsageError and DeconvnetError before any long work."""
    return _module(number).make(chosen, progress)


def _module(number: str) -> Any:
    if number not in TABLES:
        raise UsageError(f"there is no table {number}; there are {', '.join(TABLES)}")
    return import_module(f".{TABLES[number]}", __package__)
