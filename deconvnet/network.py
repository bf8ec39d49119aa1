"""Networks by name, with their weights, their classes and their preprocessing."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from .errors import DeconvnetError, UsageError
from .images import Preprocess, usual_resize
from .importing import card, is_onnx, load_onnx
from .importing.builders import build_own
from .importing.card import read_with_card
from .importing.channels import turn_channels
from .importing.description import build_written, is_description, load_description, read_trained
from .importing.downloads import fetch, weights_by_name
from .importing.weights import ENDINGS, Trained, as_wrapped, misfits
from .models import MODELS

_SHIPPED = Path(importlib.import_module("deconvnet.models").__file__ or "").parent / "weights"
_SIZES = {"alexnet": 227, "alexnet_dense": 227, "torchvision:inception_v3": 299}  # pixels; 224 for everything else


def native_size(name: str) -> int:
    """The side in pixels of the images that a network by this name is made for."""
    return _SIZES.get(name, 224)


class Network(nn.Module):
    """What ``load_model`` gives: the module that was asked for, with these attributes."""

    layers: list[str]
    classes: list[str]
    preprocess: Preprocess


def load_model(name: str, weights: str | Path | None = None) -> Network:
    """A network in evaluation mode, with ``.layers``, ``.classes`` and ``.preprocess(image)`` → (3, H, W).

    Args:
        name: ``zfnet``, ``zfnet_wide``, ``alexnet``, ``alexnet_dense``; ``torchvision:resnet18`` and so on; one's own
            as ``package.module:function`` or ``file.py:function``, where the function takes nothing and gives an
            ``nn.Module`` (that code is run). Attributes ``classes`` and ``preprocess`` that it sets are kept. Or an
            ONNX file, ``net.onnx``, which brings its weights; ``net.yaml`` beside it says how images are made for it.
            Or a ``.yaml`` that says what network it is, or lists its layers, and names its weights, with the keys of
            ``Description``.
        weights: the name of what ships: ``demo`` of zfnet and alexnet_dense, ``epoch-01`` … ``epoch-64`` on
            the way to zfnet's (convolutions only); of what torchvision offers for its own, such as ``DEFAULT``, which
            is fetched. Or a ``.safetensors`` or ``.npz`` file or a ``.pt`` or ``.pth`` state dict, read without running
            code, with a ``.json`` of that name beside it if there is one (classes, preprocessing, SHA-256). Or a
            ``.yaml`` that names such a file and says more of it, such as other names of its tensors. None leaves what
            the network starts with, for ours random numbers; they are drawn from one seed, so that the same call gives
            the same network.

    ``.layers`` are the names of the modules without modules of their own, ``.classes`` the class names (empty if
    unknown). Raises UsageError for a name that does not exist and for a YAML of weights that contradicts the network's
    own attributes, DeconvnetError for weights that do not fit, naming every tensor that is missing, left over,
    misshapen, of another kind or not finite.
    """
    net, trained = _written(Path(name), weights) if is_description(name) else _named(name, weights)
    if weights is not None and is_description(weights):
        _check_said_once(net, trained, weights)
    if trained.reversed:
        size = trained.preprocess.size if trained.preprocess else native_size("")
        turn_channels(net, (size, size), trained.where)
    size = native_size(name)
    default = Preprocess(size, usual_resize(size))
    _set_default(net, "layers", [path for path, module in net.named_modules() if path and not any(module.children())])
    _set_default(net, "classes", trained.classes)
    _set_default(net, "preprocess", trained.preprocess or default)
    return cast(Network, net.eval())


# ---- the network ----

def brings_weights(name: str) -> bool:
    """Whether a model's name is that of a file which brings everything, and of which nothing is run."""
    return is_onnx(name) or is_description(name)


def _written(path: Path, weights: str | Path | None) -> tuple[nn.Module, Trained]:
    """The network that a YAML describes, and what is said of it."""
    said = load_description(path)
    if said.network is None and said.layers is None:
        raise UsageError(f"{path}: says no network: or layers:, so it goes with --weights, beside a --model")
    trained = read_trained(path, said, native_size(said.network or ""), weights)
    if said.layers is not None:
        return build_written(path, said, trained), trained
    return _build_with(str(said.network), trained), trained


def _named(name: str, weights: str | Path | None) -> tuple[nn.Module, Trained]:
    """The network of a name, with its weights, and what is said of them."""
    if weights is not None and brings_weights(name):
        raise UsageError(f"{name} brings its own weights; leave --weights out")
    _check_name(name)
    trained = _trained(name, weights)
    return _build_with(name, trained), trained or Trained({}, "")


def _build_with(name: str, trained: Trained | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _build(name, trained.arguments if trained else {})
    if trained:
        state = as_wrapped(net.state_dict(), trained.state)
        problems = misfits(net.state_dict(), state)
        if problems:
            raise DeconvnetError(f"The weights in {trained.where} do not fit the network:\n  " + "\n  ".join(problems))
        net.load_state_dict(net.state_dict() | state)  # copies, and converts to the network's own dtype
    return net


def _check_name(name: str) -> None:
    """Raises UsageError where a network's name is neither one of ours nor tells where it comes from."""
    if is_onnx(name) or ":" in name or name in MODELS:
        return
    if name.endswith(".py"):
        raise UsageError(f"{name}: say which function of the file makes the network, such as {name}:build")
    raise UsageError(f"There is no model {name!r}.{_meant(name)} There are: {', '.join(MODELS)}; "
                     "torchvision:NAME; package.module:function; file.py:function; net.onnx; net.yaml")


def _build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    if is_onnx(name):
        return load_onnx(Path(name))
    source, _, function = name.rpartition(":")
    if not source:
        try:
            return MODELS[name](**arguments)
        except (TypeError, ValueError) as error:
            raise DeconvnetError(f"The card beside the weights asks {name} for what it cannot be: {error}"
                                 ) from error
    return _from_torchvision(function) if source == "torchvision" else build_own(source, function)


def _meant(name: str) -> str:
    """What may be meant by a name that is none, as a sentence; empty where nothing comes near."""
    from torchvision import models

    ending = Path(name).suffix.lower()
    if ending in (".prototxt", ".caffemodel"):
        return " Caffe's files are converted first: python -m deconvnet.caffe NET.prototxt NET.caffemodel net.yaml."
    if ending in ENDINGS:
        return " Weights alone are no network: they go with --weights, beside a --model."
    near = get_close_matches(name, MODELS, n=1)
    if not near and name in models.list_models():
        near = [f"torchvision:{name}"]
    return f" Did you mean {near[0]!r}?" if near else ""


def _from_torchvision(name: str) -> nn.Module:
    from torchvision import models

    if name not in models.list_models():
        near = get_close_matches(name, models.list_models(), n=3)
        raise UsageError(f"torchvision has no model {name!r}. Did you mean: {', '.join(near) or 'resnet18'}?")
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # else they warn, and are slow
    return models.get_model(name, weights=None, **extra)


def _check_said_once(net: nn.Module, trained: Trained, yaml: str | Path) -> None:
    """Raises UsageError where a YAML of weights says something else than the network itself."""
    for name, said in (("classes", trained.classes), ("preprocess", trained.preprocess)):
        own = getattr(net, name, None)
        if own and said and (list(own) if name == "classes" else own) != said:
            what = "what its classes are" if name == "classes" else "how images are made"
            raise UsageError(f"{yaml} says {what}, and so does net.{name}, otherwise: say it in one of them")


def _set_default(net: nn.Module, name: str, value: Any) -> None:
    if not hasattr(net, name):  # what the network's author says, or needs, goes first
        setattr(net, name, value)


# ---- its weights ----

def has_weights(name: str, weights: str | Path) -> bool:
    """Whether weights by this name ship with a network, or lie in a file of that name."""
    return str(weights) in _shipped(name) or Path(weights).is_file()


def offered(name: str) -> list[str]:
    """The names of the weights that torchvision has for a network by this name, to be fetched."""
    source, _, function = name.rpartition(":")
    return weights_by_name(function) if source == "torchvision" else []


def _shipped(name: str) -> dict[str, Path]:
    """The weights that ship with a network, by name."""
    return {file.stem.removeprefix(f"{name}_"): file for file in _SHIPPED.glob("*.safetensors")
            if file.stem.startswith(f"{name}_")}  # not in the pattern: a model's name may be a path


def _trained(name: str, weights: str | Path | None) -> Trained | None:
    """The weights that ``load_model`` would take for a network by this name, unless it starts with its own."""
    if weights is None:
        return None
    if is_description(weights):
        said = load_description(Path(weights))
        if said.network or said.layers:
            raise UsageError(f"{weights} says what network it is: give it with --model, without --weights")
        found = read_trained(Path(weights), said, native_size(name))
        return found if said.says_images else replace(found, preprocess=None, reversed=False)
    if str(weights) in offered(name) and not Path(weights).is_file():
        return fetch(name.removeprefix("torchvision:"), str(weights))
    file = _weights_file(name, weights)
    assert file is not None
    return read_with_card(file)


def _weights_file(name: str, weights: str | Path | None) -> Path | None:
    if weights is None:
        return None
    shipped = _shipped(name)
    file = shipped.get(str(weights), Path(weights))
    if weights == "demo" and "demo" not in shipped:
        others = ", ".join(sorted(f.stem.removesuffix("_demo") for f in _SHIPPED.glob("*_demo.safetensors")))
        raise UsageError(f"No demo weights ship for {name!r}; they do for: {others or 'no network'}")
    if not file.is_file():
        others, ours = ", ".join(offered(name)), ", ".join(sorted(shipped))
        raise UsageError(f"There is no weights file {file}." + (f" torchvision offers {others}." if others else "")
                         + (f" With {name} ship {ours}." if ours else ""))
    return file


def read_card(name: str, weights: str | Path | None) -> dict[str, Any]:
    """What the ``.json`` beside the weights that ``load_model`` would take says; nothing if there is none."""
    file = None if weights is not None and is_description(weights) else _weights_file(name, weights)
    return card.read_card(file) if file else {}
