"""From Caffe's two files to the YAML and the weights of a network that is read here, checked against OpenCV."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from ..errors import DeconvnetError, UsageError, brief
from ..files import writable_folder, write_whole
from ..importing.description import Description
from ..importing.layered import build_layers
from .opencv import OpenCV
from .prototxt import read_prototxt
from .translation import Translation

TOLERANCE = 1e-4  # of the largest value that the network gives for noise

_HEAD = """# From Caffe's {} and {}. Look at what it says of images:
# preset caffe is blue, green, red, 0 to 255, minus (104, 117, 123); caffe-vgg has VGG's mean. The first filters are
# turned to red, green, blue when they are read. And name the classes: classes: FILE, one a line.
"""


def convert(prototxt: Path, caffemodel: Path, out: Path) -> str:
    """Writes ``out`` and the safetensors file beside it, and gives a line on how far the network is from OpenCV's.

    Files that are there already stay: those of another network, and a YAML that was changed since it was written.

    Raises UsageError where OpenCV or a file is missing, and DeconvnetError for layers that are not run here, all of
    them at once, for weights that cannot be read, and where the network's outputs differ from OpenCV's; nothing is
    written then.
    """
    if out.suffix.lower() != ".yaml":
        raise UsageError(f"{out}: the third name is that of the file to write, such as net.yaml")
    text = read_prototxt(prototxt)
    if not caffemodel.is_file():
        raise UsageError(f"There is no file {caffemodel}.")
    with OpenCV(prototxt, caffemodel) as theirs:
        try:
            made = Translation(prototxt, text, theirs.learned)
            said = _compare(theirs, made)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:  # a word for a number
            raise DeconvnetError(f"{prototxt} does not make sense: {brief(error)}") from error
    content, weights = save(made.state), out.with_suffix(".safetensors")
    about = {"weights": weights.name, "sha256": hashlib.sha256(content).hexdigest(), **made.images(), "size": made.size}
    lines = [yaml.safe_dump(layer, default_flow_style=True, width=10_000, sort_keys=False) for layer in made.layers]
    written = "".join([_HEAD.format(_shown(prototxt), _shown(caffemodel)), yaml.safe_dump(about, sort_keys=False),
                       "layers:\n", *(f"  - {line}" for line in lines)]).encode()
    writable_folder(out.parent)
    _refuse_others({out: written, weights: content})
    write_whole(weights, content)
    write_whole(out, written)
    return said


def _shown(path: Path) -> str:
    """The name of a file as a comment may hold it, which ends with its line."""
    return "".join(letter if letter.isprintable() else "?" for letter in path.name)


def _refuse_others(contents: Mapping[Path, bytes]) -> None:
    """Raises UsageError where a file is there that holds something else than what would be written."""
    for path, content in contents.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise UsageError(f"{path} is there already, edited or of another network, and nothing was written: choose "
                             "another name, or remove it first")


def _compare(opencv: OpenCV, made: Translation) -> str:
    """How far the network is from OpenCV's, which must be next to nothing."""
    said = Description.model_validate({**made.images(), "layers": made.layers})
    assert said.layers is not None
    try:
        ours = build_layers(said.layers, made.state, made.size)
    except DeconvnetError as error:
        raise DeconvnetError(f"{made.path}: {error}") from error
    images = torch.randn(2, 3, made.size, made.size, generator=torch.Generator().manual_seed(0)) * 60
    theirs = torch.from_numpy(opencv.forward(made.last, images.numpy()))
    with torch.no_grad():
        found = ours(images)
    if found.numel() != theirs.numel():
        raise DeconvnetError(f"{made.path}: the network gives {tuple(found.shape)}, and OpenCV's "
                             f"{tuple(theirs.shape)}: something in it is read differently")
    largest = float(theirs.abs().max())
    apart = float((found.flatten(1) - theirs.reshape(2, -1)).abs().max())
    if not apart <= TOLERANCE * largest:  # nor is it, where one is not finite
        raise DeconvnetError(f"{made.path}: the network gives other values than OpenCV's: {apart:.2g} apart, of "
                             f"{largest:.2g}. Something in it is read differently")
    return f"on noise, {made.last} differs from OpenCV's by {apart:.1g} at most, of {largest:.2g}"

