"""The paper's figures by number (arXiv v3), each in a file of its own, and the one that its critics ask for.

A figure's module has ``Settings``, what its YAML in configs/figures may say, with defaults that run on what ships;
``make``, which computes; and functions that draw, which take arrays, return a drawing, and touch no file or network.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..errors import UsageError
from ..exhibit import Exhibit
from ..settings import Part

FIGURES = {  # number: the module, in the order of the paper
    "1": "descent",         # the deconvnet drawn for a real activation
    "2": "features",        # the strongest activations of maps of all layers, projected
    "3": "architecture",    # the layers of a network: sizes, kernels, receptive fields
    "4": "evolution",       # how the strongest activation of some maps changes from epoch to epoch
    "5": "invariance",      # distances of features, and the class, as images are shifted, enlarged and turned
    "6": "selection",       # first and second layers of two networks, side by side
    "7": "occlusion",       # a feature map and the class as a grey square goes over the image
    "8": "correspondence",  # the same part of like images covered
    "9": "few",             # accuracy against training images a class
    "methods": "methods",   # one activation by several methods: what comes from the filters, what from the switches
}


def settings(number: str) -> type[Part]:
    """What the configuration of a figure may say. Raises UsageError where there is no such figure."""
    return _module(number).Settings


def make(number: str, chosen: Any, progress: bool = True) -> Exhibit:
    """A figure, for settings of its own kind. Raises UsageError and DeconvnetError before any long work."""
    return _maker(number)(chosen, progress)


def _maker(number: str) -> Callable[[Any, bool], Exhibit]:
    return _module(number).make


def _module(number: str) -> Any:
    if number not in FIGURES:
        raise UsageError(f"there is no figure {number}; there are {', '.join(FIGURES)}")
    return import_module(f".{FIGURES[number]}", __package__)
