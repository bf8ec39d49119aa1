"""What the benchmarks share: their clocks, what their numbers depend on, their files and their command lines."""

import json
import os
import platform
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from inspect import getdoc
from pathlib import Path
from typing import Any

import torch
from jsonargparse import DefaultHelpFormatter, auto_cli

from deconvnet.errors import DeconvnetError

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def begin(out: str | None, threads: int | None) -> None:
    """Makes sure that the file can be written, before the work, and sets the threads of torch."""
    if out is not None:
        Path(out).touch()
    if threads is not None:
        torch.set_num_threads(threads)


def conditions() -> dict[str, Any]:
    """What numbers depend on besides the program: versions, threads, cores."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in ("deconvnet", "torch")}}
    return {"versions": versions, "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def write(result: Mapping[str, Any], out: str | None) -> None:
    """Writes a result as JSON, where a file was asked for."""
    if out is not None:
        Path(out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help that keeps the paragraphs of a description."""


def run(benchmark: Callable[..., None], name: str, words: Sequence[str] | None = None) -> int:
    """Runs a benchmark from the command line and gives the exit code."""
    about = (getdoc(benchmark) or "").split("\n\nArgs:")[0]
    try:
        auto_cli(benchmark, args=words, as_positional=False, description=about, formatter_class=_Help)
    except (DeconvnetError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
