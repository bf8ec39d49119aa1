"""Caffe's layers as those of a network that is written down, with their weights."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DeconvnetError
from ..importing.layered import IMAGE
from .prototxt import Message

_LEFT_OUT = ("dropout", "softmax", "split")  # nothing of them is on the way down: what they take passes
_NO_LAYERS = ("data", "input", "imagedata", "hdf5data", "dummydata", "softmaxwithloss", "softmaxloss", "accuracy",
              "silence")


# ---- from Caffe's layers to ours ----

class Translation:
    """The layers of a prototxt as ``layered.Layer`` has them, and their weights under our names.

    Attributes:
        path: of the prototxt.
        layers: what stands in the YAML for each.
        state: the tensors.
        size: the side of the images in pixels.
        last: Caffe's name of the last layer.
    """

    def __init__(self, path: Path, net: Message, weights: Callable[[str], Sequence[np.ndarray]]) -> None:
        self.path, self.net = path, net
        self.weights = lambda layer: [torch.from_numpy(blob) for blob in weights(layer)]
        self.layers: list[dict[str, Any]] = []
        self.state: dict[str, Tensor] = {}
        self.made: dict[str, str] = {}  # Caffe's blob → our layer that made it last
        self.flat: set[str] = set()     # our layers whose values are (N, C)
        self.last = ""
        layers = [layer for layer in (*net.get("layer", []), *net.get("layers", [])) if _is_run(layer)]
        self._refuse([layer for layer in layers if _kind(layer) not in (*_TRANSLATED, *_LEFT_OUT, *_NO_LAYERS)])
        self.size = self._size(layers)
        for layer in layers:
            self._take(layer)
        if not self.layers:
            raise DeconvnetError(f"{path}: there are no layers in it")
        if self.layers[-1]["kind"] == "global_average_pool":
            self.flattened(self.layers[-1]["name"])

    def images(self) -> dict[str, Any]:
        """How images are made, as far as the file says it: with the mean and the scale of its input layer."""
        layers = [layer for layer in self.net.get("layer", []) if "transform_param" in layer]
        part = _part(layers[0], "transform_param") if layers else {}
        said: dict[str, Any] = {"preset": "caffe"}
        means = [float(value) for value in part.get("mean_value", [])]
        if len(means) in (1, 3):  # one is for every channel
            said["mean"] = means * (3 // len(means))
        elif "scale" in part and "mean_file" not in part:
            said["mean"] = [0.0] * 3
        if "scale" in part:
            said["std"] = [1 / float(_one(part, "scale", 1))] * 3
        return said

    def _size(self, layers: Sequence[Message]) -> int:
        """The side of the images; their blob is noted."""
        inputs = [layer for layer in layers if _kind(layer) == "input"]
        names = self.net.get("input") or [name for layer in inputs for name in layer.get("top", [])]
        shapes = [list(part.get("dim", [])) for part in self.net.get("input_shape", [])]
        shapes += [self.net["input_dim"]] if "input_dim" in self.net else []
        shapes += [shape["dim"] for layer in inputs for part in layer.get("input_param", [])
                   for shape in part.get("shape", []) if "dim" in shape]
        if len(names) != 1 or len(shapes) != 1:
            raise DeconvnetError(f"{self.path}: it must say one input and its shape, as a deploy.prototxt does "
                                 '(input: "data" and four input_dim, or an Input layer)')
        if len(shapes[0]) != 4 or shapes[0][1] != 3 or shapes[0][2] != shapes[0][3]:
            raise DeconvnetError(f"{self.path}: its images are {shapes[0]}; only squares of three channels are made")
        self.made[str(names[0])] = IMAGE
        return int(shapes[0][2])

    def _refuse(self, layers: Sequence[Message]) -> None:
        if layers:
            raise DeconvnetError(f"{self.path} has layers that are not run here: " + ", ".join(
                f"{_text(layer, 'name')} ({_text(layer, 'type') or 'without a type'})" for layer in layers))

    def _take(self, layer: Message) -> None:
        kind, tops = _kind(layer), [str(top) for top in layer.get("top", [])]
        if kind in _NO_LAYERS:
            return
        unknown = [name for name in layer.get("bottom", []) if name not in self.made]
        if unknown or not tops or not layer.get("bottom"):
            raise self.error(layer, f"takes {', '.join(map(str, unknown)) or 'nothing'}, which nothing above puts out")
        sources = [self.made[str(name)] for name in layer["bottom"]]
        made = sources[0] if kind in _LEFT_OUT else _TRANSLATED[kind](self, layer, sources)
        self.made.update(dict.fromkeys(tops, made))
        if kind not in _LEFT_OUT:
            self.last = _text(layer, "name")

    def error(self, layer: Message, reason: str) -> DeconvnetError:
        """The error that names a layer."""
        return DeconvnetError(f"{self.path}: the layer {_text(layer, 'name')} {reason}")

    def add(self, name: str, kind: str, sources: list[str], **keys: Any) -> str:
        """Add a layer of ours, under a name that is safe and new, and give that name."""
        safe = plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:70] or kind
        number = 1
        while safe == IMAGE or safe in {layer["name"] for layer in self.layers}:
            number += 1
            safe = f"{plain}_{number}"
        self.layers.append({"name": safe, "kind": kind, "of": sources if len(sources) > 1 else sources[0], **keys})
        return safe

    def flattened(self, source: str) -> str:
        """The layer whose values are those of another in rows (N, C); one is added if need be."""
        if source not in self.flat:
            source = self.add(f"{source}_flat", "flatten", [source])
            self.flat.add(source)
        return source

    def learned(self, layer: Message, name: str, units: int | None) -> None:
        """Take a layer's weight and bias."""
        weight, *biases = self.weights(_text(layer, "name"))
        if units is not None and len(weight) != units:
            raise self.error(layer, f"has {units} units, and weights for {len(weight)}")
        self.state[f"{name}.weight"] = weight
        if biases:
            self.state[f"{name}.bias"] = biases[0].flatten()


def _convolution(made: Translation, layer: Message, sources: list[str]) -> str:
    part = _part(layer, "convolution_param")
    keys = {"stride": _pair(part, "stride", 1), "padding": _pair(part, "pad", 0),
            "dilation": _pair(part, "dilation", 1), "groups": int(_one(part, "group", 1))}
    plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    name = made.add(_text(layer, "name"), "convolution", sources,
                    **{key: value for key, value in keys.items() if value != plain[key]})
    made.learned(layer, name, int(_one(part, "num_output", 0)))
    return name


def _inner_product(made: Translation, layer: Message, sources: list[str]) -> str:
    part = _part(layer, "inner_product_param")
    if _one(part, "axis", 1) != 1 or _one(part, "transpose", "false") != "false":
        raise made.error(layer, "works along another axis than the usual one, which is not done here")
    name = made.add(_text(layer, "name"), "linear", [made.flattened(sources[0])])
    made.learned(layer, name, int(_one(part, "num_output", 0)))
    made.flat.add(name)
    return name


def _relu(made: Translation, layer: Message, sources: list[str]) -> str:
    slope = float(_one(_part(layer, "relu_param"), "negative_slope", 0))
    return _as_its_source(made, made.add(_text(layer, "name"), "relu", sources, **({"slope": slope} if slope else {})),
                          sources)


def _pooling(made: Translation, layer: Message, sources: list[str]) -> str:
    part = _part(layer, "pooling_param")
    kind = {"MAX": "max_pool", "0": "max_pool", "AVE": "average_pool", "1": "average_pool"}.get(
        str(_one(part, "pool", "MAX")))
    everything = _one(part, "global_pooling", "false") == "true"
    if kind is None or (everything and kind == "max_pool"):
        raise made.error(layer, "pools in a way that is not done here")
    if everything:
        return made.add(_text(layer, "name"), "global_average_pool", sources)
    keys = {"kernel": _pair(part, "kernel_size", 0, "kernel"), "stride": _pair(part, "stride", 1)}
    padding = _pair(part, "pad", 0)
    return made.add(_text(layer, "name"), kind, sources, **keys, **({"padding": padding} if padding else {}),
                    ceil=str(_one(part, "round_mode", "CEIL")) in ("CEIL", "0"))


def _lrn(made: Translation, layer: Message, sources: list[str]) -> str:
    part = _part(layer, "lrn_param")
    if str(_one(part, "norm_region", "ACROSS_CHANNELS")) not in ("ACROSS_CHANNELS", "0"):
        raise made.error(layer, "normalises within channels, which is not done here")
    return made.add(_text(layer, "name"), "lrn", sources, size=int(_one(part, "local_size", 5)),
                    alpha=float(_one(part, "alpha", 1)), beta=float(_one(part, "beta", 0.75)),
                    k=float(_one(part, "k", 1)))


def _batch_norm(made: Translation, layer: Message, sources: list[str]) -> str:
    name = made.add(_text(layer, "name"), "batch_norm", sources,
                    epsilon=float(_one(_part(layer, "batch_norm_param"), "eps", 1e-5)))
    mean, variance, factor = (blob.flatten() for blob in made.weights(_text(layer, "name")))
    scale = 1 / factor if float(factor) else torch.zeros(1)  # Caffe's: sums, and by what to divide them
    made.state |= {f"{name}.weight": torch.ones_like(mean), f"{name}.bias": torch.zeros_like(mean),
                   f"{name}.running_mean": mean * scale, f"{name}.running_var": variance * scale}
    return name


def _scale(made: Translation, layer: Message, sources: list[str]) -> str:
    """Caffe's batch normalisation learns its scale in a layer of its own."""
    above = next((entry for entry in made.layers if entry["name"] == sources[0]), None)
    if above is None or above["kind"] != "batch_norm" or len(sources) > 1:
        raise made.error(layer, "scales something else than a batch normalisation, which is not done here")
    weight, *biases = (blob.flatten() for blob in made.weights(_text(layer, "name")))
    made.state[f"{sources[0]}.weight"] = weight
    if biases:
        made.state[f"{sources[0]}.bias"] = biases[0]
    return sources[0]


def _eltwise(made: Translation, layer: Message, sources: list[str]) -> str:
    part = _part(layer, "eltwise_param")
    if str(_one(part, "operation", "SUM")) not in ("SUM", "1") or "coeff" in part:
        raise made.error(layer, "combines in another way than by a plain sum, which is not done here")
    return made.add(_text(layer, "name"), "add", sources)


def _concat(made: Translation, layer: Message, sources: list[str]) -> str:
    part = _part(layer, "concat_param")
    if _one(part, "axis", _one(part, "concat_dim", 1)) != 1:
        raise made.error(layer, "joins along another axis than that of channels, which is not done here")
    return made.add(_text(layer, "name"), "concatenate", sources)


def _flatten(made: Translation, layer: Message, sources: list[str]) -> str:
    name = made.add(_text(layer, "name"), "flatten", sources)
    made.flat.add(name)
    return name


def _as_its_source(made: Translation, name: str, sources: list[str]) -> str:
    if sources[0] in made.flat:
        made.flat.add(name)
    return name


_TRANSLATED: dict[str, Callable[[Translation, Message, list[str]], str]] = {
    "convolution": _convolution, "innerproduct": _inner_product, "relu": _relu, "pooling": _pooling, "lrn": _lrn,
    "batchnorm": _batch_norm, "scale": _scale, "eltwise": _eltwise, "concat": _concat, "flatten": _flatten}


# ---- fields ----

def _kind(layer: Message) -> str:
    """The kind of a layer, in one spelling for that of 2014 (INNER_PRODUCT) and that of later (InnerProduct)."""
    return _text(layer, "type").replace("_", "").lower()


def _is_run(layer: Any) -> bool:
    """Whether a layer belongs to the network when it is not being trained."""
    if not isinstance(layer, dict):
        return False
    rules = [part for part in layer.get("include", []) if isinstance(part, dict)]
    return not any(rule.get("phase") in (["TRAIN"], [0]) for rule in rules)


def _part(layer: Message, name: str) -> Message:
    found = layer.get(name, [{}])[-1]
    return found if isinstance(found, dict) else {}


def _one(part: Message, name: str, default: Any) -> Any:
    return part.get(name, [default])[-1]


def _text(layer: Message, name: str) -> str:
    return str(_one(layer, name, ""))


def _pair(part: Message, name: str, default: int, plain: str | None = None) -> int | list[int]:
    """A size along both axes, as ``pad: 1``, ``pad: 1 pad: 2``, or ``pad_h`` and ``pad_w``: [y, x] if they differ."""
    given = part.get(name, [])
    vertical, horizontal = (given[0], given[-1]) if given else (default, default)
    both = [int(_one(part, f"{plain or name}_h", vertical)), int(_one(part, f"{plain or name}_w", horizontal))]
    return both[0] if both[0] == both[1] else both
