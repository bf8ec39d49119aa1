"""What a network called on the way up, call by call, with the switches of every max-pooling.

Calls are recorded, not modules: it does not matter whether a ReLU is a module, a function, in place, or one module used
five times. Values are numbered as they are made; 0 is the images.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .errors import DeconvnetError, UsageError
from .watching import Enough, count_calls, resolve, uncompiled, watch

_MAX_POOLS: dict[Callable, Callable] = {  # to what gives the same, and the switches too
    F.max_pool2d: F.max_pool2d, F.max_pool2d_with_indices: F.max_pool2d, torch.max_pool2d: F.max_pool2d,
    F.adaptive_max_pool2d: F.adaptive_max_pool2d, F.adaptive_max_pool2d_with_indices: F.adaptive_max_pool2d}
_FROM_OUTSIDE = {torch.from_numpy, torch.tensor, torch.as_tensor, torch.asarray, torch.frombuffer}
_RELUS = {F.relu, F.relu_, torch.relu_, torch.Tensor.relu_}


@dataclass
class Call:
    """One call that the network made: what was called, from which module, on which values, giving which."""

    function: Callable
    args: tuple
    kwargs: dict[str, Any]
    module: str                   # path of the innermost module, as named_modules() gives it
    inputs: list[int]             # numbers of the values among the arguments, in order
    given: list[Tensor]           # those values, as the call found them
    outputs: list[int]            # the number of the value it made, alone: what gives several is a call for each
    shape: tuple[int, ...]        # of that value
    strangers: bool = False       # some argument is a tensor of unknown origin
    part: int = 0                 # which of the several that were given it is
    switches: Tensor | None = None  # max-pooling: the flat place of each value's maximum (N, C, H, W), in few bytes

    @property
    def name(self) -> str:
        """The name of the function that was called."""
        return getattr(self.function, "__name__", str(self.function))

    def __str__(self) -> str:
        return f"{self.name} in {self.module}" if self.module else f"{self.name} in the network's own forward"


@dataclass
class Tape:
    """A recorded forward pass.

    Attributes:
        calls: every call, in order.
        values: every value, by number; ``values[0]`` is the images (N, C, H, W).
        layers: number of the value that each layer put out, by name; ``name#2`` for a module's second call.
    """

    calls: list[Call]
    values: list[Tensor]
    layers: dict[str, int]

    def number(self, layer: str) -> int:
        """The number of the value that a layer put out. UsageError if there is no such layer, or more than one."""
        return self.layers[resolve(layer, count_calls(self.layers))]

    def activations(self, layer: str) -> Tensor:
        """The activations of a layer (N, C, H, W), the positive part of what it put out; (N, C, 1, 1) if it is flat.

        UsageError if there is no such layer, or if what it puts out is neither feature maps nor flat.
        """
        return self.maps(layer).clamp(min=0)

    def maps(self, layer: str) -> Tensor:
        """What a layer put out, signed (N, C, H, W); otherwise as ``activations``."""
        value = self.values[self.number(layer)]
        if value.ndim not in (2, 4) or not value.is_floating_point():
            raise UsageError(f"Layer {layer!r} puts out {_describe(value)}: neither feature maps (N, C, H, W) nor flat "
                             "(N, C). Look at a layer below it")
        return as_map(value)

    @property
    def memory(self) -> int:
        """Bytes of all values and switches."""
        held = [*self.values, *(call.switches for call in self.calls if call.switches is not None)]
        return sum({_memory(tensor): tensor.untyped_storage().nbytes() for tensor in held}.values())


def record(net: nn.Module, images: Tensor) -> Tape:
    """The tape of one forward pass of ``images`` (N, C, H, W) through any network.

    The network and the images are left as they were found. Raises UsageError for images that are not such a batch and
    DeconvnetError, naming the layer, where a value is NaN or infinite.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not images.numel():
        raise UsageError(f"images must be a floating-point tensor (N, C, H, W), not {_describe(images)}; a series is a "
                         "map of one row (N, C, 1, L)")
    return record_as_far_as(net, images)


def record_as_far_as(net: nn.Module, images: Tensor, *layers: str) -> Tape:
    """The same, but the network stops once it has put out all of these layers, which must be full addresses.

    The tape cannot know of later calls: of a module that is called twice, ``relu`` would be taken for ``relu#1``.
    """
    net = uncompiled(net)
    with torch.inference_mode(False), torch.no_grad():  # in inference mode nobody counts what is written in place
        images = images.detach().clone()  # networks may begin with a call in place
        recorder = _Recorder(net, images, layers)
        watched = watch(net, recorder.leave, recorder.path)
        with suppress(Enough), full_precision(), _buffers_kept(net), watched, recorder:
            net(images)
    return Tape(recorder.calls, recorder.values, recorder.layers)


def place_of(net: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a network computes, and in which precision."""
    first = next((p for p in net.parameters() if p.is_floating_point()), torch.zeros(()))
    return first.device, first.dtype


@contextmanager
def full_precision() -> Iterator[None]:
    """While open, CUDA convolutions compute in float32 and not in TF32, whose error is a thousand times as large."""
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def _buffers_kept(net: nn.Module) -> Iterator[None]:
    """Afterwards the buffers are as they were: in training mode a forward pass moves the running statistics."""
    before = [(b, b.clone()) for b in net.buffers()] if any(m.training for m in net.modules()) else []
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def as_map(value: Tensor) -> Tensor:
    """A value as a feature map (N, C, H, W): what is flat (N, C) becomes (N, C, 1, 1).

    Of other values the last two axes are H and W and what lies between is channels: (N, G, C, H, W) has G·C.
    """
    if value.ndim == 2:
        return value[:, :, None, None]
    return value if value.ndim == 4 else value.reshape(len(value), -1, *value.shape[-2:])


class _Recorder(TorchFunctionMode):
    """Sees each functional call as the network makes it, numbers its values and keeps its switches."""

    def __init__(self, net: nn.Module, images: Tensor, layers: Sequence[str]) -> None:
        super().__init__()
        self.awaited = {layer.removesuffix("#1") for layer in layers} if layers else {""}  # no layer has no name
        self.calls: list[Call] = []
        self.values: list[Tensor] = []
        self.layers: dict[str, int] = {}
        self.path: list[str] = []
        self._numbers: dict[int, int] = {}   # id of a tensor → number of the value it holds now
        self._versions: dict[int, int] = {}  # id of a tensor → its version when it was numbered
        self._used: set[int] = set()         # where the values lie that calls have taken
        self._held: list[Tensor] = []        # what copies replaced: held, so that its id is not given to another
        self._constants = {id(t): t for t in (*net.parameters(), *net.buffers())}
        self._check_finite(images, "the images")
        self._new_value(images)

    def leave(self, name: str, output: Tensor) -> None:
        """Note which value a module put out; one that no call made, as it is now, is a value that leads nowhere."""
        if id(output) in self._numbers and not self._is_stranger(output):
            self.layers[name] = self._numbers[id(output)]
        else:
            self.values.append(output)
            self.layers[name] = len(self.values) - 1
        self.awaited.discard(name)
        if not self.awaited:
            raise Enough

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves, spec = tree_flatten((args, kwargs))
        args, kwargs = tree_unflatten(leaves, spec)  # a list of our own: networks go on to append to theirs
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        given = [t for t in tensors if id(t) in self._numbers]
        inputs = [self._numbers[id(t)] for t in given]
        if not inputs:
            return self._constant(func, tensors, func(*args, **kwargs))
        strangers = any(self._is_stranger(t) for t in tensors)
        versions = [_version(t) for t in tensors]
        copies = self._copy_what_is_overwritten(func, args, kwargs)
        switches = None
        if func in _MAX_POOLS:
            result, switches = _max_pool(func, args, kwargs)
        else:
            result = func(*args, **kwargs)
        changed = [t for t, version in zip(tensors, versions, strict=True) if _version(t) != version]
        if changed and copies:
            args, kwargs, given = self._exchange(copies, (args, kwargs, given))
        made = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
        made = [t for t in made if t.is_floating_point() and not any(t is old for old in tensors)] + changed
        if made:
            module = self.path[-1] if self.path else ""
            self._used.update(_memory(t) for t in given)
            for part, t in enumerate(made):
                if func is not F.pad:  # before a max-pooling, borders may be minus infinity
                    self._check_finite(t, f"layer {module!r} ({getattr(func, '__name__', func)})")
                self.calls.append(Call(func, args, kwargs, module, inputs, given, [self._new_value(t)],
                                       tuple(t.shape), strangers, part, switches))
        return result

    def _new_value(self, tensor: Tensor) -> int:
        self.values.append(tensor)  # held, so that its id is not given to another
        self._numbers[id(tensor)] = len(self.values) - 1
        self._versions[id(tensor)] = _version(tensor)
        return len(self.values) - 1

    def _constant(self, func: Callable, tensors: list[Tensor], result: Any) -> Any:
        """Note what is made without any value: weights computed on the fly, a position code, zeros.

        What comes from NumPy may have been computed there from a value, so it is no constant.
        """
        if func not in _FROM_OUTSIDE and all(id(t) in self._constants for t in tensors):
            made = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
            self._constants.update((id(t), t) for t in made)
        return result

    def _is_stranger(self, tensor: Tensor) -> bool:
        """Whether a tensor is neither value nor constant, or was changed, through a view, since it was numbered."""
        if id(tensor) in self._numbers:
            return _version(tensor) != self._versions[id(tensor)]
        return tensor.is_floating_point() and id(tensor) not in self._constants

    def _copy_what_is_overwritten(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> dict[int, Tensor]:
        """Copies, by id, of the values that lie in the memory that a call is about to write to.

        A ReLU is let through unless something else has used the value: the activations of what it overwrites are the
        positive part, which it leaves as it is.
        """
        target = kwargs.get("out", args[0] if args and _writes_in_place(func, args, kwargs) else None)
        number = self._numbers.get(id(target))
        if not isinstance(target, Tensor) or number is None:
            return {}
        memory = _memory(target)
        if func in _RELUS and memory not in self._used:
            return {}
        return {id(value): value.clone() for value in self.values if _memory(value) == memory}

    def _exchange(self, copies: dict[int, Tensor], arguments: tuple) -> tuple:
        """Put copies where the tape holds what a call has overwritten; its arguments with the copies in them."""
        def exchanged(tree: Any) -> Any:
            return tree_map(lambda leaf: copies.get(id(leaf), leaf), tree)

        overwritten = {number for number, value in enumerate(self.values) if id(value) in copies}
        self._held.extend(self.values[number] for number in overwritten)
        self.values = exchanged(self.values)
        for call in self.calls:
            if not overwritten.isdisjoint(call.inputs):
                call.args, call.kwargs, call.given = exchanged((call.args, call.kwargs, call.given))
        return exchanged(arguments)

    def _check_finite(self, tensor: Tensor, where: str) -> None:
        if torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all():  # the sum is cheap but may overflow
            return
        image = int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0]) if tensor.ndim > 1 else 0
        raise DeconvnetError(f"NaN or infinity in {where}, for image {image} of the batch. Nothing was projected; "
                             "look at the weights and at the preprocessing of the images.")


def _writes_in_place(func: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a call overwrites its first argument."""
    if isinstance(func, FunctionType) and "inplace" in (parameters := _parameters(func)):
        return dict(zip(parameters, args, strict=False)).get("inplace", kwargs.get("inplace", False))
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _parameters(func: Callable) -> Sequence[str]:
    """The names of a function's parameters; none where it does not tell."""
    try:
        return list(signature(func).parameters)
    except ValueError:  # torch wraps some builtins in a function that has no signature of its own
        return []


def _max_pool(func: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Tensor]:
    """The result of a max-pooling as the network expects it, and the switches."""
    names = ("input", "output_size") if _MAX_POOLS[func] is F.adaptive_max_pool2d else (
        "input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    bound = dict(zip((*names, "return_indices"), args, strict=False)) | kwargs
    both = func in (F.max_pool2d_with_indices, F.adaptive_max_pool2d_with_indices)
    wanted = bound.pop("return_indices", both)
    maps = bound.pop("input")
    quick = maps.device.type == "cpu" and maps.ndim == 4  # torch pools some ten times as fast there, channels last
    laid = maps.contiguous(memory_format=torch.channels_last) if quick else maps
    pooled, indices = _MAX_POOLS[func](laid, **bound, return_indices=True)
    switches = indices.to(_narrowest(maps.shape[-2] * maps.shape[-1]), memory_format=torch.contiguous_format)
    expected = (pooled, indices) if wanted else (pooled,)
    made = tuple(one.contiguous() for one in expected) if quick and maps.is_contiguous() else expected
    return (made if wanted else made[0]), switches


def _narrowest(count: int) -> torch.dtype:
    """The smallest type of whole numbers for so many places: what is looked up on the way down is read from memory."""
    return next(dtype for dtype in (torch.int16, torch.int32, torch.int64) if count <= torch.iinfo(dtype).max)


def _version(tensor: Tensor) -> int:
    """How often a tensor has been written to; of one made in inference mode, which cannot be, nobody counts it."""
    return 0 if tensor.is_inference() else tensor._version


def _memory(tensor: Tensor) -> int:
    """Where a tensor's numbers lie; a view and what it is a view of lie in the same place."""
    return tensor.untyped_storage().data_ptr()


def _describe(images: Any) -> str:
    return f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
