"""The modules of a network, watched by name while it runs; nothing is left on it."""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .errors import UsageError


class Enough(Exception):
    """All layers that are wanted have been seen: the rest of the network need not run."""


@contextmanager
def watch(net: nn.Module, callback: Callable[[str, Tensor], None], path: list[str] | None = None) -> Iterator[None]:
    """While open, ``callback(name, output)`` is called whenever a named module of ``net`` has put out a tensor.

    Names are those of ``named_modules()``; the second call of a module within one forward pass is ``name#2``, and so
    on. ``path`` is kept as the stack of the names of the modules at work. Nothing is left on the network, whatever
    happens.
    """
    names = {module: name for name, module in net.named_modules()}
    path = [] if path is None else path
    counts: Counter[str] = Counter()

    def enter(module: nn.Module, _args: Any) -> None:
        if module is net:
            counts.clear()
        if module in names:
            name = names[module]
            counts[name] += 1
            path.append(name if counts[name] == 1 else f"{name}#{counts[name]}")

    def leave(module: nn.Module, _args: Any, output: Any) -> None:
        if module in names:
            name = path.pop()
            if name and isinstance(output, Tensor):
                callback(name, output)

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        with _as_written():
            yield
    finally:
        for handle in handles:
            handle.remove()
        path.clear()


def uncompiled(net: nn.Module) -> nn.Module:
    """The network that ``torch.compile`` was given, which computes the same call by call; any other as it is."""
    return getattr(net, "_orig_mod", net)


@contextmanager
def _as_written() -> Iterator[None]:
    """While open, what ``torch.compile`` was given runs as it was written: of compiled code no call is to be seen."""
    if "torch._dynamo" not in sys.modules:  # which takes a second to import, and is there where anything was compiled
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")  # as ours are
        yield


def count_calls(names: Sequence[str] | Mapping[str, Any]) -> dict[str, int]:
    """How often each module was called, by name, from the names that ``watch`` gives."""
    return dict(Counter(name.split("#")[0] for name in names))


def address(key: str, calls: Mapping[str, int]) -> str:
    """What a user calls a layer that ``watch`` names: ``relu#1`` for the first call of a module with others."""
    return f"{key}#1" if calls[key.partition("#")[0]] > 1 and "#" not in key else key


def learned(net: nn.Module) -> set[str]:
    """The names of all convolutions and fully connected layers: the layers that are meant where none are named."""
    return {name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def resolve(layer: str, calls: Mapping[str, int]) -> str:
    """The key of a layer as ``watch`` names it: ``relu`` if it is called once, ``relu#1``, ``relu#2`` … if more often.

    Args:
        layer: what the user wrote.
        calls: how often each module is called in one forward pass.

    Raises UsageError with what exists where there is no such layer, or with the calls where there are several.
    """
    name, _, call = layer.partition("#")
    if name not in calls:
        near = get_close_matches(layer, calls, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"There is no layer {layer!r}.{hint} The layers are: {', '.join(filter(None, calls))}")
    numbered = [f"{name}#{n + 1}" for n in range(calls[name])]
    if (call and layer not in numbered) or (not call and calls[name] > 1):
        raise UsageError(f"{name!r} is called {calls[name]} times; say which call: {', '.join(numbered)}")
    return name if call in ("", "1") else layer
