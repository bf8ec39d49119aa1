"""The versions of what computes, for provenance and for going on only with what is the same."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch


def versions() -> dict[str, str]:
    """The versions of what computes: deconvnet, torch, numpy, Python."""
    return {name: _version(name) for name in ("deconvnet", "torch", "numpy")} | {"python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was not installed
        return torch.__version__ if package == "torch" else "unknown"
