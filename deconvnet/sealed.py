"""Files of tensors that notice a changed bit: safetensors whose header carries the SHA-256 of all the rest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor

from .errors import DeconvnetError

_MARK = b'{"__metadata__":{"deconvnet":"sha256:'  # how the header begins; then 64 digits, a space, and JSON


class Damaged(DeconvnetError):
    """A file that is not what was written: another kind of file, cut off, or changed by as little as a bit."""


def seal(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """A safetensors file of tensors and what JSON can say about them; the same content gives the same bytes."""
    # one key only, for safetensors writes several in a random order
    data = safetensors.torch.save(dict(tensors), {"deconvnet": f"sha256:{'0' * 64} {json.dumps(about)}"})
    start = data.index(_MARK) + len(_MARK)
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + 64:]


def unseal(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and what was said about them, from the bytes that ``seal`` made. Raises Damaged, with the reason."""
    start = 8 + len(_MARK)
    if data[8:start] != _MARK:
        raise Damaged("it does not begin as it should")
    if hashlib.sha256(data[:start] + b"0" * 64 + data[start + 64:]).hexdigest().encode() != data[start:start + 64]:
        raise Damaged("its SHA-256 does not fit")
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return safetensors.torch.load(data), json.loads(header["__metadata__"]["deconvnet"].partition(" ")[2])
