"""Networks and weights from elsewhere, as modules that can be recorded.

ONNX files: ``onnx_file`` reads and refuses, ``graph`` is what it gives, ``operations`` makes a module of each node,
``graph_network`` runs them, ``torch_norm`` finds what torch's exporters took apart, ``beside`` reads what stands in the
YAML next to the file. A network written in YAML: ``description``, and ``layered`` where it lists the layers.
Weights: ``weights`` reads files of every kind, ``card`` the JSON beside our own, ``downloads`` fetches torchvision's.
``channels`` turns what was trained on blue, green, red, and ``builders`` runs code of one's own.
"""

from pathlib import Path

from torch import nn

from ..errors import DeconvnetError, UsageError
from .beside import path_beside, read_beside, read_classes
from .channels import turn_channels
from .graph_network import GraphNetwork
from .onnx_file import read
from .operations import OPERATIONS
from .weights import check_sha256


def is_onnx(name: str) -> bool:
    """Whether a model's name is that of an ONNX file."""
    return Path(name).suffix.lower() == ".onnx"


def load_onnx(file: Path) -> nn.Module:
    """The network in an ONNX file, in evaluation mode, with ``.classes`` and ``.preprocess`` from the YAML beside it.

    ``net.yaml`` stands beside ``net.onnx``; without one, images are made as for most of the ONNX model zoo. Raises
    UsageError for a missing file or a wrong key, and DeconvnetError, naming the file, for what cannot be read or run.
    """
    beside = read_beside(file)
    graph = read(file, OPERATIONS)
    check_sha256(file, beside.sha256, path_beside(file))
    try:
        size = beside.size or 224
        net = GraphNetwork(graph, (size, size))
    except DeconvnetError as error:
        raise DeconvnetError(f"{file}: {error}") from error
    classes = read_classes(file, beside)
    if classes and len(classes) != net.outputs:
        raise UsageError(f"{path_beside(file)}: classes: {len(classes)} names for a network with {net.outputs} outputs")
    if net.channels not in (1, 3):
        raise UsageError(f"{file} takes images of {net.channels} channels; pictures have 3, or 1 where they are grey. "
                         "Channels come first, (N, C, H, W)")
    if net.size[0] != net.size[1]:
        raise UsageError(f"{file} takes images of {net.size[0]}×{net.size[1]} pixels (height × width); only squares "
                         "are made")
    if beside.reversed() and net.channels == 3:
        turn_channels(net, net.size, str(file))
    if beside.size not in (None, net.size[0]):
        raise UsageError(f"{path_beside(file)}: size: {beside.size}, and {file} takes images of "
                         f"{net.size[0]}×{net.size[1]} pixels: leave size out")
    try:
        net.classes, net.preprocess = classes, beside.preprocess(net.size[0], net.channels)  # type: ignore[assignment]
    except UsageError as error:
        raise UsageError(f"{path_beside(file)}: {error}") from error
    return net
