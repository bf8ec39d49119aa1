"""Caffe's text files: messages of named values, as protobuf writes them for people to read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DeconvnetError, UsageError

LIMIT = 2_000_000  # bytes; ResNet-152's has 120,000
_DEPTH = 20        # messages in messages
_TOKEN = re.compile(r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<sign>[{}:;,\[\]])"""
                    r"""|(?P<word>[\w.+-]+)|(?P<wrong>.)""")

Message = dict[str, list[Any]]  # each name with all its values: text, int, float or Message


def read_prototxt(path: Path) -> Message:
    """The fields of a ``.prototxt``. Raises UsageError where there is none, DeconvnetError, naming the line, where it
    is not one.
    """
    try:
        if path.stat().st_size > LIMIT:
            raise DeconvnetError(f"{path}: larger than {LIMIT:,} bytes; is this the prototxt?")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DeconvnetError(f"{path} is no text (byte {error.start}). The prototxt comes first.") from error
    tokens = _tokens(path, text)
    found = _message(path, tokens, 0)
    if not found:
        raise DeconvnetError(f"{path}: empty")
    return found


def _tokens(path: Path, text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, text, line) of what stands in a file; at its end, a closing bracket of its own."""
    line = 1
    for found in _TOKEN.finditer(text):
        if found.lastgroup == "wrong":
            raise DeconvnetError(f"{path}: line {line}: {found[0]!r} has no meaning here")
        if found.lastgroup:
            yield found.lastgroup, found[0], line
        line += found[0].count("\n")
    yield "end", "the end of the file", line


def _message(path: Path, tokens: Iterator[tuple[str, str, int]], depth: int) -> Message:
    """The fields up to the bracket that closes the message, or to the end of the file."""
    found: Message = {}
    for kind, text, line in tokens:
        if text in (";", ","):
            continue
        if (text == "}" and depth) or (kind == "end" and not depth):
            return found
        if kind != "word":
            raise DeconvnetError(f"{path}: line {line}: {text} where a name should stand")
        found.setdefault(text, []).extend(_values(path, tokens, line, depth))
    return found


def _values(path: Path, tokens: Iterator[tuple[str, str, int]], line: int, depth: int) -> list[Any]:
    """The value after a name, or the values in square brackets."""
    kind, text, line = next(tokens, ("end", "the end of the file", line))
    if text == ":":
        kind, text, line = next(tokens, ("end", "the end of the file", line))
    elif text != "{":
        raise DeconvnetError(f"{path}: line {line}: {text} where a colon or a bracket should stand")
    if text == "{":
        if depth == _DEPTH:
            raise DeconvnetError(f"{path}: line {line}: nested too deeply")
        return [_message(path, tokens, depth + 1)]
    if text == "[":
        listed: list[Any] = []
        for kind, text, line in tokens:
            if text == "]":
                return listed
            if text != ",":
                listed.append(_value(path, kind, text, line))
    return [_value(path, kind, text, line)]


def _value(path: Path, kind: str, text: str, line: int) -> str | int | float:
    if kind == "text":
        return text[1:-1]
    if kind != "word":
        raise DeconvnetError(f"{path}: line {line}: {text} where a value should stand")
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
