"""Configurations: YAML files that are data and nothing else, checked against a model before anything starts."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import UsageError

LIMIT = 1_000_000  # bytes; a configuration is a page, and what is larger is another file given by mistake

_TIMES = [f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")]  # as which YAML reads 3:12

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML without its traps: no key twice, no aliases; 1e-3 is a number, and the key 3:12 no 192 seconds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases are not read: write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping as a dict. Raises ConstructorError where a key stands twice; PyYAML alone keeps the last."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag in _TIMES and ":" in key_node.value:
                key_node.tag = self.DEFAULT_SCALAR_TAG
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"a key must be text: {key!r}", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: str | Path, model: type[Model], changes: Mapping[str, Any] | None = None) -> Model:
    """The checked configuration in a YAML file, with some keys changed, say by the command line.

    A file may begin with ``base: OTHER.yaml``, named as seen from its own folder: it then changes the keys of that one.
    Raises UsageError, which names the file and every wrong key at once, with the nearest right one.
    """
    path = Path(path)
    content = {**read(path), **(changes or {})}
    try:
        return model.model_validate(content, context={"folder": path.parent})
    except ValidationError as error:
        lines = [_explain(detail, model) + _from(path, detail["loc"], content, changes or {})
                 for detail in _causes(error.errors(include_url=False))]
        raise UsageError("\n".join([f"{path}: {_count(len(lines))}", *(f"  {line}" for line in lines)])) from None


def read(path: str | Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a YAML file over those of its base, and of that one's base, and so on, unchecked. Raises UsageError.

    ``above``: the files that this one is a base of.
    """
    path = Path(path)
    content = _read(path)
    if "base" not in content:
        return content
    base = content.pop("base")
    if not isinstance(base, str):
        raise UsageError(f"{path}: base: expected the name of a file, found {_short(base)}")
    if path.resolve() in above:
        raise UsageError(f"{path}: base: leads back to this file")
    return {**read(path.parent / base, (*above, path.resolve())), **content}


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        if path.stat().st_size > LIMIT:
            raise UsageError(f"{path}: larger than {LIMIT:,} bytes; is this the configuration?")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that cannot be one
        raise UsageError(f"{path}: {_place(error)}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested too deeply") from error
    if content is None:
        raise UsageError(f"{path}: empty")
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected lines of `key: value`, found {_short(content)}")
    return content


def _place(error: Exception) -> str:
    """A YAML error on one line: where, and what."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return where + (error.problem or error.context or "not YAML")
    return " ".join(str(error).split())


def _count(n: int) -> str:
    return "1 error" if n == 1 else f"{n} errors"


def _explain(detail: Any, model: type[BaseModel]) -> str:
    """One pydantic error as `key: what is wrong`, with the nearest key where it is unknown."""
    *parents, name = detail["loc"] or ("",)
    where = _dotted(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = sorted(_keys(model, parents))
        near = get_close_matches(str(name), known, 1, 0.5)
        return f"{where}: unknown key; " + (f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}")
    if detail["type"] == "missing":
        return f"{where}: missing"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{where}: {message}, found {_short(detail['input'])}" if where else message


def _causes(details: Sequence[Any]) -> list[Any]:
    """The errors without those of lists that are only found too short since what is in them is wrong."""
    inner = {detail["loc"][:n] for detail in details for n in range(len(detail["loc"]))}
    return [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inner]


def _from(path: Path, location: Sequence[str | int], content: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Where a wrong key stands, in brackets, if that is not the file itself."""
    key = location[0] if location else None
    if key not in content:
        return ""
    if key in changes:
        return " (given beside the file)"
    file, keys = path, _read(path)
    while key not in keys:
        file = file.parent / keys["base"]
        keys = _read(file)
    return "" if file == path else f" (in {file})"


def _dotted(location: Iterable[str | int]) -> str:
    """``stages[1].epochs`` for ("stages", 1, "epochs")."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".")


def _keys(model: type[BaseModel], parents: Iterable[str | int]) -> set[str]:
    """The keys that a model knows below a path of keys and list positions."""
    inner: Any = model
    for parent in parents:
        if isinstance(parent, str) and isinstance(inner, type) and issubclass(inner, BaseModel):
            inner = inner.model_fields[parent].annotation if parent in inner.model_fields else None
        models = [part for part in _within(inner) if isinstance(part, type) and issubclass(part, BaseModel)]
        inner = models[0] if models else None
    return set(inner.model_fields) if inner else set()


def _within(annotation: Any) -> list[Any]:
    """The types named in an annotation such as tuple[Stage, ...] | None, itself included."""
    return [annotation] + [inner for part in getattr(annotation, "__args__", ()) for inner in _within(part)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
