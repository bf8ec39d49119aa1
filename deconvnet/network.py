"""Networks by name, with their weights, their classes and their preprocessing."""

import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .errors import DeconvnetError, UsageError
from .images import Preprocess
from .importing import load_onnx
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
        weights: the name of what ships: ``demo`` of zfnet and alexnet_dense, ``epoch-01`` … ``epoch-64`` on
            the way to zfnet's (convolutions only). Or a ``.safetensors`` file, with a ``.json`` of that
            name beside it if there is one (classes, preprocessing, SHA-256); a ``.pt`` or ``.pth`` state dict, which is
            read without running code. None leaves what the network starts with, for ours random numbers; they are drawn
            from one seed, so that the same call gives the same network.

    ``.layers`` are the names of the modules without modules of their own, ``.classes`` the class names (empty if
    unknown). Raises UsageError for a name that does not exist, DeconvnetError for weights that do not fit, naming every
    tensor that is missing, left over, misshapen or not finite.
    """
    file = _weights_file(name, weights)
    if file and is_file(name):
        raise UsageError(f"{name} brings its own weights; leave --weights out")
    card = _read_card(file) if file else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _build(name, card.get("arguments", {}))
    picture = _load_weights(net, file) if file else None
    size = native_size(name)
    default = Preprocess(size, 256 if size <= 256 else round(size * 8 / 7))
    _set_default(net, "layers", [path for path, module in net.named_modules() if path and not any(module.children())])
    _set_default(net, "classes", card.get("classes", []))
    _set_default(net, "preprocess", _preprocess(card, picture) or default)
    return cast(Network, net.eval())


# ---- the network ----

def is_file(name: str) -> bool:
    """Whether a model's name is that of a file which brings everything, and of which nothing is run."""
    return name.endswith(".onnx")


def _build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    if is_file(name):
        return load_onnx(Path(name))
    source, _, function = name.rpartition(":")
    if not source:
        if name.endswith(".py"):
            raise UsageError(f"{name}: say which function of the file makes the network, such as {name}:build")
        if name not in MODELS:
            near = get_close_matches(name, MODELS, n=1)
            raise UsageError(f"There is no model {name!r}.{f' Did you mean {near[0]!r}?' if near else ''} There are: "
                             f"{', '.join(MODELS)}; torchvision:NAME; package.module:function; file.py:function; "
                             "net.onnx")
        try:
            return MODELS[name](**arguments)
        except (TypeError, ValueError) as error:
            raise DeconvnetError(f"The card beside the weights asks {name} for what it cannot be: {error}"
                                 ) from error
    if source == "torchvision":
        return _from_torchvision(function)
    module = _import_file(Path(source)) if source.endswith(".py") else _import_package(source)
    builder = getattr(module, function, None)
    if not callable(builder):
        near = get_close_matches(function, vars(module), n=1)
        raise UsageError(f"There is no function {function!r} in {source}."
                         + (f" Did you mean {near[0]!r}?" if near else ""))
    return _call(builder, name)


def _from_torchvision(name: str) -> nn.Module:
    from torchvision import models

    if name not in models.list_models():
        near = get_close_matches(name, models.list_models(), n=3)
        raise UsageError(f"torchvision has no model {name!r}. Did you mean: {', '.join(near) or 'resnet18'}?")
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # else they warn, and are slow
    return models.get_model(name, weights=None, **extra)


def _import_file(file: Path) -> Any:
    if not file.is_file():
        raise UsageError(f"There is no file {file}.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)  # so that it can import what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DeconvnetError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return module


def _import_package(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))  # as python -m does
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"The module {name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(Path.cwd()))


def _call(builder: Callable[[], Any], name: str) -> nn.Module:
    try:
        net = builder()
    except Exception as error:
        raise DeconvnetError(f"{name} failed to build a network: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise DeconvnetError(f"{name} must return a torch.nn.Module, and returned a {type(net).__name__}.")
    return net


def _preprocess(card: Mapping[str, Any], picture: Tensor | None) -> Preprocess | None:
    if "preprocess" not in card:
        return None
    try:
        values = dict(card["preprocess"])
        expected = values.pop("mean_picture_sha256", None)
        found = Preprocess(**values, mean_picture=None if picture is None else picture.float().numpy())
    except (TypeError, ValueError, AttributeError) as error:
        raise DeconvnetError(f"The card beside the weights has a preprocess that cannot be read: {error}") from error
    if expected not in (None, found.settings().get("mean_picture_sha256")):
        raise DeconvnetError("The mean picture that the card beside the weights speaks of is not in their file.")
    return found


def _set_default(net: nn.Module, name: str, value: Any) -> None:
    if not hasattr(net, name):  # what the network's author says, or needs, goes first
        setattr(net, name, value)


# ---- its weights ----

def has_weights(name: str, weights: str | Path) -> bool:
    """Whether weights by this name ship with a network, or lie in a file of that name."""
    return str(weights) in _shipped(name) or Path(weights).is_file()


def _shipped(name: str) -> dict[str, Path]:
    """The weights that ship with a network, by name."""
    return {file.stem.removeprefix(f"{name}_"): file for file in _SHIPPED.glob("*.safetensors")
            if file.stem.startswith(f"{name}_")}  # not in the pattern: a model's name may be a path


def _weights_file(name: str, weights: str | Path | None) -> Path | None:
    if weights is None:
        return None
    shipped = _shipped(name)
    file = shipped.get(str(weights), Path(weights))
    if weights == "demo" and "demo" not in shipped:
        others = ", ".join(sorted(f.stem.removesuffix("_demo") for f in _SHIPPED.glob("*_demo.safetensors")))
        raise UsageError(f"No demo weights ship for {name!r}; they do for: {others or 'no network'}")
    if not file.is_file():
        raise UsageError(f"There is no weights file {file}.")
    return file


def read_card(name: str, weights: str | Path | None) -> dict[str, Any]:
    """What the ``.json`` beside the weights that ``load_model`` would take says; nothing if there is none."""
    file = _weights_file(name, weights)
    return _read_card(file) if file else {}


def _read_card(file: Path) -> dict[str, Any]:
    """What is said beside a weights file, in the ``.json`` of the same name; nothing if there is none."""
    beside = file.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DeconvnetError(f"{beside} is not JSON: {error}") from error
    if not isinstance(card, dict):
        raise DeconvnetError(f"{beside} must hold a JSON object.")
    expected = card.get("sha256")
    if expected and hashlib.sha256(file.read_bytes()).hexdigest() != expected:
        raise DeconvnetError(f"{file} is damaged: its SHA-256 is not the one in {beside.name}. Fetch it again.")
    return card


MEAN_PICTURE = "preprocess.mean_picture"  # beside the weights in their file, where training subtracted one


def _load_weights(net: nn.Module, file: Path) -> Tensor | None:
    """Puts the weights of a file into the network; comes back with the mean picture that lies beside them, if any."""
    state = _in_floats(_read_weights(file))
    picture = state.pop(MEAN_PICTURE, None)
    problems = _misfits(net.state_dict(), state)
    if problems:
        raise DeconvnetError(f"The weights in {file} do not fit the network:\n  " + "\n  ".join(problems))
    net.load_state_dict(net.state_dict() | state)  # copies, and converts to the network's own dtype
    return picture


def _in_floats(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a byte each times the scale of their unit, which lies beside them as ``NAME_scale``."""
    bytewise = [name for name, value in state.items() if value.dtype == torch.int8 and f"{name}_scale" in state]
    floats = {name: state[name].float() * state[f"{name}_scale"].view(-1, *[1] * (state[name].ndim - 1))
              for name in bytewise}
    scales = {f"{name}_scale" for name in bytewise}
    return {name: floats.get(name, value) for name, value in state.items() if name not in scales}


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if file.suffix in (".pt", ".pth"):
            state = torch.load(file, map_location="cpu", weights_only=True)
            for key in ("state_dict", "model_state_dict", "model"):  # where checkpoints keep it
                state = state.get(key, state) if isinstance(state, dict) else state
            if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
                return {name.removeprefix("module."): value for name, value in state.items()}
            raise DeconvnetError(f"{file} holds no state dict (names and tensors), but a {type(state).__name__}.")
    except DeconvnetError:
        raise
    except (SafetensorError, OSError) as error:
        raise DeconvnetError(f"{file} cannot be read: {error}. It may be cut off; fetch it again.") from error
    except Exception as error:  # torch.load raises many kinds
        raise DeconvnetError(f"{file} cannot be read without running code, and was not: {type(error).__name__}. Save a "
                             "state dict (torch.save(net.state_dict(), …)) or a .safetensors file.") from error
    raise UsageError(f"{file}: weights are .safetensors, .pt or .pth files")


def _misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Everything that keeps weights from fitting, a line each."""
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [f"missing: {name} {tuple(wanted[name].shape)}" for name in wanted.keys() - given.keys() - optional]
    extra = [f"not in the network: {name} {tuple(given[name].shape)}" for name in given.keys() - wanted.keys()]
    both = wanted.keys() & given.keys()
    shapes = [f"misshapen: {name} is {tuple(given[name].shape)}, the network's is {tuple(wanted[name].shape)}"
              for name in both if given[name].shape != wanted[name].shape]
    dense = [name for name in both if given[name].layout == torch.strided and not given[name].is_quantized]
    shapes += [f"not dense: {name} is sparse or quantized" for name in both - set(dense)]
    values = [f"not finite: {name} holds NaN or infinity" for name in dense
              if given[name].shape == wanted[name].shape and not torch.isfinite(given[name]).all()]
    return sorted(missing) + sorted(extra) + sorted(shapes) + sorted(values)
