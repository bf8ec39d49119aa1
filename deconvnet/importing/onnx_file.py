"""An ONNX file, read and checked: its nodes, its constants, its image. Nothing but the file itself is opened."""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DeconvnetError, UsageError, brief
from .graph import Graph, Node
from .torch_norm import with_norms

LIMIT = 2**31 - 1  # bytes; protobuf reads no more
_NAME_LIMIT = 80  # characters of a layer's name, which becomes part of the names of files


def read(path: Path, known: Collection[str]) -> Graph:
    """The graph in an ONNX file, of which every operation is one of the ``known``.

    Raises UsageError where there is no such file or onnx is not installed, and DeconvnetError, naming the file, for
    what is no ONNX model, is cut off or unsound, keeps its weights in other files, or needs what we do not run.
    """
    onnx = _library()
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    if path.stat().st_size > LIMIT:
        raise DeconvnetError(f"{path} is larger than 2 GiB, which no ONNX file can be.")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has errors of several kinds
        raise DeconvnetError(f"{path} is no ONNX model, or is cut off ({_said(error)}). Fetch it again.") from error
    if not model.graph.node or not model.graph.output:
        raise DeconvnetError(f"{path} is no ONNX model, or is cut off: there is no graph in it. Fetch it again.")
    try:
        nodes = with_norms(onnx, model.graph)
        _refuse(path, onnx, model, nodes, known)
        onnx.checker.check_model(model, full_check=True)
        return _graph(path, onnx, model, nodes, hashlib.sha256(content).hexdigest())
    except DeconvnetError:
        raise
    except Exception as error:  # of the checker, the inference of shapes, protobuf, NumPy: hostile bytes may raise any
        raise DeconvnetError(f"{path} is not a sound ONNX model: {_said(error)}") from error


def _library() -> ModuleType:
    try:
        import onnx
        import onnx.checker
        import onnx.numpy_helper
    except ImportError as error:
        raise UsageError("To read ONNX files, install what reads them: pip install 'deconvnet[onnx]'") from error
    return onnx


def _said(error: Exception) -> str:
    """An error on one line, without the context that onnx's checker appends."""
    return brief(str(error).partition("==> Context")[0]) or type(error).__name__


# ---- what is refused ----

def _refuse(path: Path, onnx: ModuleType, model: Any, nodes: Sequence[Any], known: Collection[str]) -> None:
    """Raises DeconvnetError for a model that cannot be run here, before anything of it is looked at closely."""
    missing = sorted({_kind(node) for node in nodes} - set(known))
    if missing:
        raise DeconvnetError(f"{path} uses operations that deconvnet does not run: {', '.join(missing)}.")
    if model.ir_version > onnx.IR_VERSION:
        raise DeconvnetError(f"{path} has ONNX's format {model.ir_version}, and the installed onnx knows "
                             f"{onnx.IR_VERSION}: pip install -U onnx")
    newest = onnx.defs.onnx_opset_version()
    if any(entry.version > newest for entry in model.opset_import if entry.domain in ("", "ai.onnx")):
        raise DeconvnetError(f"{path} has operations newer than version {newest}, which is what the installed onnx "
                             "knows: pip install -U onnx")
    if model.graph.sparse_initializer:
        raise DeconvnetError(f"{path} has sparse weights, which are not read. Save them as ordinary tensors.")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise DeconvnetError(f"{path} keeps weights in other files, which are not read. Put them into one: "
                             "onnx.save(onnx.load(FILE), NEW_FILE)")


def _kind(node: Any) -> str:
    """What a node does; with the domain, where that is not ONNX's own. Invalid text, which comes as bytes, is shown."""
    return f"{node.op_type}" if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


# ---- what is taken ----

def _graph(path: Path, onnx: ModuleType, model: Any, raw: Sequence[Any], sha256: str) -> Graph:
    graph = model.graph
    constants = {tensor.name: _tensor(onnx, tensor) for tensor in graph.initializer}
    images = [value for value in graph.input if value.name not in constants]
    if len(images) != 1:
        raise DeconvnetError(f"{path} takes {len(images)} inputs besides its weights; a network here takes one, the "
                             "images.")
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    outputs = [value.name for value in graph.output]
    nodes = [_node(onnx, node, name) for node, name in zip(raw, _names(raw), strict=True)]
    return Graph(_needed(nodes, outputs), constants, images[0].name, _shape(path, onnx, images[0]), outputs, opset,
                 sha256)


def _shape(path: Path, onnx: ModuleType, image: Any) -> tuple[int | None, ...]:
    """(N, C, H, W) of the input, None where it is open. DeconvnetError for what are no images."""
    kind = image.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise DeconvnetError(f"{path} takes {onnx.TensorProto.DataType.Name(kind.elem_type)}, and only images in "
                             "FLOAT (32 bits) are given to a network here.")
    if len(shape) != 4 or any(size is not None and size < 1 for size in shape):
        raise DeconvnetError(f"{path} takes {shape}, and images are (N, C, H, W).")
    return shape


def _node(onnx: ModuleType, raw: Any, name: str) -> Node:
    attributes = {attribute.name: _attribute(onnx, attribute) for attribute in raw.attribute}
    return Node(_kind(raw), name, tuple(raw.input), tuple(raw.output), attributes)


def _attribute(onnx: ModuleType, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return _tensor(onnx, value)
    return list(value) if attribute.type in (onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS) else value


def _tensor(onnx: ModuleType, tensor: Any) -> Tensor:
    """A constant as a tensor of its own memory. Raises ValueError for types that are not read."""
    types = onnx.TensorProto
    if tensor.data_type not in (types.FLOAT, types.DOUBLE, types.INT64, types.INT32, types.BOOL):
        name = types.DataType.Name(tensor.data_type) if tensor.data_type in types.DataType.values() else "unknown"
        raise ValueError(f"the tensor {tensor.name!r} is of type {name}, which is not read")
    return torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))


def _needed(nodes: list[Node], outputs: list[str]) -> list[Node]:
    """The nodes on which the outputs depend, in their order; of their own outputs those that somebody takes."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(filter(None, node.inputs))
            kept.append(replace(node, outputs=tuple(name if name in wanted else "" for name in node.outputs)))
    return kept[::-1]


# ---- what layers are called ----

def _names(nodes: Any) -> Iterator[str]:
    """A name for the layer of each node; see Node."""
    taken: set[str] = set()
    for node in nodes:
        name = plain = _safe(node.name or next(filter(None, node.output), "")) or node.op_type
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name)
        yield name


def _safe(name: str) -> str:
    """A name without what means something else in names of layers, units and files: dots, slashes, colons, commas."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:_NAME_LIMIT]
