"""Functions of one's own that build a network: found in a file or a module, with what lies beside them, and called.

This is the only place where code that a user names is run.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..errors import DeconvnetError, UsageError
from ..watching import uncompiled

_ALWAYS_THE_SAME = {"deconvnet", "torch", "torchvision", "numpy", "PIL"}  # whatever lies beside one's own file


def build_own(source: str, function: str) -> nn.Module:
    """What the function gives; ``source`` is a Python file or the name of a module, in the current folder or installed.

    The file may lie in any folder and have any name. What lies beside it is imported as by a script that is run there,
    ``import layers`` or ``from ..layers import Block``, and goes before modules of the same names elsewhere; a folder
    with ``__init__.py`` is a package, whose other modules can be reached too. Raises UsageError where there is no such
    file, module or function, and DeconvnetError where it fails or gives no ``nn.Module``; both name the file.
    """
    file = Path(source).resolve() if source.endswith(".py") else None
    if file and not file.is_file():
        raise UsageError(f"There is no file {source}.")
    folders = [file.parent, _root(file)] if file else [Path.cwd()]
    with _first(folders):
        module = _run(file) if file else _imported(source)
        builder = getattr(module, function, None)
        if not callable(builder):
            raise UsageError(_no_function(module, source, function))
        try:
            net = builder()
        except (Exception, SystemExit) as error:
            raise DeconvnetError(f"{source}:{function} failed to build a network: {type(error).__name__}: {error}"
                                 f"{_loaded(module, source)}") from error
    if not isinstance(net, nn.Module):
        raise DeconvnetError(f"{source}:{function} must return a torch.nn.Module, and returned a "
                             f"{type(net).__name__}.{_loaded(module, source)}")
    return uncompiled(net)


def _run(file: Path) -> Any:
    """A file as a module, under a name that no other has; in a package, under the package's."""
    package = _package(file.parent, ".".join(file.parent.relative_to(_root(file)).parts))
    name = f"{package}.{file.stem.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise DeconvnetError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _package(folder: Path, name: str) -> str:
    """The package that a folder is; if none, one made for it, so that ``from ..layers import Block`` works there."""
    if name:
        with suppress(Exception):  # what cannot be imported may not be needed
            importlib.import_module(name)
            return name
    made = f"deconvnet_own_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    for old in [old for old in sys.modules if old.startswith(f"{made}.")]:
        del sys.modules[old]  # the files may have changed
    sys.modules[made] = ModuleType(made)
    sys.modules[made].__path__ = [str(folder)]
    return made


def _root(file: Path) -> Path:
    """The folder from which a file is imported: the one in which its outermost package lies."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder and folder.name.isidentifier():
        folder = folder.parent
    return folder


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"The module {name} cannot be imported: {type(error).__name__}: {error}. For a function in a "
                         "file: path/to/file.py:function") from error


@contextmanager
def _first(folders: list[Path]) -> Iterator[None]:
    """While it lasts, what lies in these folders goes before everything else that has its name, imported or not."""
    roots = [str(folder) for folder in dict.fromkeys(folders)]
    beside = {name for folder in folders for name in _modules(folder)} - sys.stdlib_module_names - _ALWAYS_THE_SAME
    clashing = {name for name in beside if name in sys.modules and not _lies_in(sys.modules[name], roots)}
    others = _all_of(clashing)
    for name in others:
        del sys.modules[name]
    sys.path[:0] = roots
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for root in roots:
            if root in sys.path:
                sys.path.remove(root)
        for name in _all_of(clashing):
            del sys.modules[name]  # who imported these keeps them
        sys.modules.update(others)


def _all_of(names: set[str]) -> dict[str, ModuleType]:
    """The modules of these names, and what lies in them, that are imported."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}


def _modules(folder: Path) -> Iterator[str]:
    """The names under which something in a folder can be imported."""
    try:
        for path in folder.iterdir():
            if path.suffix == ".py" or (path / "__init__.py").is_file():
                yield path.stem
    except OSError:
        return


def _lies_in(module: ModuleType | None, folders: list[str]) -> bool:
    """Whether a module was imported from one of these folders."""
    file = getattr(module, "__file__", None)
    places = [file] if file else list(getattr(module, "__path__", []))
    return any(Path(place).resolve().is_relative_to(folder) for place in places for folder in folders)


def _no_function(module: Any, source: str, function: str) -> str:
    near = get_close_matches(function, vars(module), n=1)
    return (f"There is no function {function!r} in {source}." + (f" Did you mean {near[0]!r}?" if near else "")
            + _loaded(module, source))


def _loaded(module: Any, source: str) -> str:
    """Which file it was, in a sentence: a name may mean another module than one thinks."""
    file = getattr(module, "__file__", None)
    hint = "" if source.endswith(".py") else f" For a file of your own: {source.replace('.', '/')}.py:FUNCTION"
    return f" (The file that was loaded: {file or 'none, it is built in'}.{hint})"
