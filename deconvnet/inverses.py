"""The rules by which a signal travels down, one for each call of a network.

Every rule has one signature: ``rule(call, signal)`` takes a call of the tape and the signal on the call's output, and
gives the signal on each of the call's inputs. A table from function to rule is a method: ``deconvnet`` is the paper's,
``gradient`` and ``guided`` differ from it in the row of the ReLU and of contrast normalisation.
"""

from ast import literal_eval
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UsageError
from .receptive import Pair, Sliding, pair
from .tape import Call, as_map

FEW = 4  # output channels up to which strided transposed filters are taken phase by phase: the last step, to pixels


@dataclass
class Signal:
    """What travels down: n windows of one feature map, each of its own image; zero outside the map.

    Attributes:
        values: (n, C, h, w).
        origin: (n, 2) the map's (y, x) of each window's top-left cell; negative beyond the border.
        image: (n,) which image of the batch each window belongs to.
    """

    values: Tensor
    origin: Tensor
    image: Tensor


Rule = Callable[[Call, Signal], list[Signal]]


# ---- the four rules of the paper (Zeiler and Fergus 2014, section 2.1) ----

def unpool(call: Call, signal: Signal) -> list[Signal]:
    """Each value goes to where the maximum was: "placing the reconstructions … into appropriate locations".

    Overlapping windows may share a maximum: the values are summed, which is the exact transpose of the pooling.
    """
    assert call.switches is not None  # the tape keeps them for every max-pooling
    switches = look_up(call.switches, signal)                           # (n, C, h, w) flat positions in the input
    return [_scatter(signal, switches, bind(call).input.shape[-1], _slide(call))]


def rectify(call: Call, signal: Signal) -> list[Signal]:
    """The positive part of the signal, whatever the forward mask was: the reconstruction too goes "through a relu"."""
    return [replace(signal, values=signal.values.clamp(min=0))]


def filter_transposed(call: Call, signal: Signal) -> list[Signal]:
    """The signal through the transposed filters, without bias: "flipping each filter vertically and horizontally"."""
    a, slide = bind(call), _slide(call)
    few = a.weight.shape[1] <= FEW and max(slide.stride) > 1 and slide.dilation == (1, 1)
    values = _in_phases(signal.values, a.weight, slide.stride) if few and a.groups == 1 else F.conv_transpose2d(
        signal.values, a.weight, stride=slide.stride, dilation=slide.dilation, groups=a.groups)
    return [Signal(values, _below(signal.origin, slide), signal.image)]


def pass_through(call: Call, signal: Signal) -> list[Signal]:
    """The signal as it is: contrast normalisation and dropout have no part in the way down."""
    return [signal]


# ---- the same ideas for the calls of later networks ----

def scale(call: Call, signal: Signal) -> list[Signal]:
    """Batch normalisation in evaluation is a scale per channel (and a bias, which has no part)."""
    a = bind(call)
    factor = torch.rsqrt(a.running_var + a.eps)                         # (C,)
    factor = factor if a.weight is None else factor * a.weight
    return [replace(signal, values=signal.values * factor[:, None, None])]


def spread(call: Call, signal: Signal) -> list[Signal]:
    """Average pooling, a filter of equal weights, transposed: each value in equal parts to what it was the mean of."""
    slide = _slide(call)
    channels = signal.values.shape[1]
    ones = signal.values.new_ones(channels, 1, *slide.kernel)            # (C, 1, kh, kw)
    shares = signal.values / look_up(_divisors(call, slide), signal)
    values = F.conv_transpose2d(shares, ones, stride=slide.stride, groups=channels)
    return [Signal(values, _below(signal.origin, slide), signal.image)]


def spread_adaptive(call: Call, signal: Signal) -> list[Signal]:
    """Adaptive average pooling: windows of equal size where it divides evenly, else the whole map at once."""
    if sliding(call) is not None:
        return spread(call, signal)
    a = bind(call)
    rows, columns = (_adaptive_means(i, o, signal.values) for i, o in
                     zip(a.input.shape[-2:], _adaptive_size(a), strict=True))      # (out, in) each
    whole = rewindow(signal, torch.zeros_like(signal.origin), (len(rows), len(columns)))
    return [_whole(rows.T @ whole.values @ columns, signal)]


def spread_mean(call: Call, signal: Signal) -> list[Signal]:
    """The mean over a whole map, transposed: to every cell an equal part."""
    height, width = bind(call).input.shape[-2:]
    return [_whole((signal.values / (height * width)).expand(-1, -1, height, width), signal)]


def weigh(call: Call, signal: Signal) -> list[Signal]:
    """A fully connected layer's signal through its transposed weights, without bias."""
    return [_whole((signal.values.flatten(1) @ bind(call).weight)[:, :, None, None], signal)]


def unflatten(call: Call, signal: Signal) -> list[Signal]:
    """The flat signal (n, C·H·W, 1, 1) as a whole map (n, C, H, W) again."""
    return [_whole(signal.values.reshape(-1, *as_map(bind(call).input).shape[1:]), signal)]


def share(call: Call, signal: Signal) -> list[Signal]:
    """To each summand of an addition the whole signal."""
    return [signal for _ in call.inputs]


def split(call: Call, signal: Signal) -> list[Signal]:
    """To each part of a concatenation the channels that it gave."""
    parts = signal.values.split([t.shape[1] for t in bind(call).tensors], dim=1)
    return [replace(signal, values=part) for part in parts]


# ---- what other methods do differently ----

def mask_forward(call: Call, signal: Signal) -> list[Signal]:
    """The derivative of the ReLU: the signal where the forward input was positive (Simonyan et al. 2013)."""
    return [replace(signal, values=signal.values * (look_up(as_map(bind(call).input), signal) > 0))]


def mask_both(call: Call, signal: Signal) -> list[Signal]:
    """Guided backpropagation: the positive signal where the forward input was positive (Springenberg et al. 2014)."""
    return rectify(call, mask_forward(call, signal)[0])


def differentiate_norm(call: Call, signal: Signal) -> list[Signal]:
    """The derivative of contrast normalisation, which works across channels only and so cell by cell."""
    a = bind(call)
    with torch.enable_grad():
        x = look_up(a.input, signal).requires_grad_()
        y = F.local_response_norm(x, a.size, a.alpha, a.beta, a.k)
    return [replace(signal, values=torch.autograd.grad(y, x, signal.values)[0])]


def unpool_to_center(call: Call, signal: Signal) -> list[Signal]:
    """Each value to the middle of its pooling window, as far as that lies on the map: what is left without switches."""
    slide = _slide(call)
    height, width = bind(call).input.shape[-2:]
    ys, xs = _center(signal, 0, slide, height), _center(signal, 1, slide, width)             # (n, h), (n, w)
    places = ys[:, None, :, None] * width + xs[:, None, None, :]
    return [_scatter(signal, places.expand(signal.values.shape), width, slide)]


# ---- how each call slides over its input ----

def _unmoved(a: SimpleNamespace) -> Sliding | None:
    return Sliding()


def _everything(a: SimpleNamespace) -> Sliding | None:
    return None


def _convolution(a: SimpleNamespace) -> Sliding | None:
    kernel, dilation = pair(tuple(a.weight.shape[-2:])), pair(a.dilation)
    if a.padding == "same":  # the odd cell, if any, is on the right and at the bottom
        padding = pair([d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)])
    else:
        padding = pair(0 if a.padding == "valid" else a.padding)
    return Sliding(kernel, pair(a.stride), padding, dilation)


def _pooling(a: SimpleNamespace) -> Sliding | None:
    stride = a.stride or a.kernel_size
    return Sliding(pair(a.kernel_size), pair(stride), pair(a.padding), pair(getattr(a, "dilation", 1)))


def _adaptive_pooling(a: SimpleNamespace) -> Sliding | None:
    sizes, wanted = a.input.shape[-2:], _adaptive_size(a)
    if any(i % o for i, o in zip(sizes, wanted, strict=True)):
        return None
    kernel = pair([i // o for i, o in zip(sizes, wanted, strict=True)])
    return Sliding(kernel, kernel)


# ---- what a rule does not cover ----

def _none(a: SimpleNamespace, call: Call) -> str | None:
    return None


def _not_training(a: SimpleNamespace, call: Call) -> str | None:
    return "it is in training mode; call net.eval() first" if a.training and getattr(a, "p", 1) > 0 else None


def _only_running_statistics(a: SimpleNamespace, call: Call) -> str | None:
    if a.running_mean is None or a.running_var is None:
        return "it normalises by the batch itself; only running statistics (track_running_stats=True) have a rule"
    return _not_training(a, call)


def _only_flat(a: SimpleNamespace, call: Call) -> str | None:
    before = tuple(a.input.shape)
    return None if len(before) == 2 else f"it takes {before}; only what is flat (N, features) has a rule"


def _only_flattening(a: SimpleNamespace, call: Call) -> str | None:
    before = tuple(a.input.shape)
    flat = call.shape == (before[0], a.input[0].numel())
    return None if flat else f"it turns {before} into {call.shape}; only flattening to (N, C·H·W) has a rule"


def _only_plain_sums(a: SimpleNamespace, call: Call) -> str | None:
    plain = a.alpha == 1 and all(t.shape == call.shape for t in call.given)
    return None if plain else "only the plain sum of tensors of one shape has a rule"


def _only_channels(a: SimpleNamespace, call: Call) -> str | None:
    plain = getattr(a, "axis", a.dim) in (1, 1 - len(call.shape)) and len(call.inputs) == len(a.tensors)
    return None if plain else "only the concatenation of channels (dim=1) of tensors made from the image has a rule"


def _only_whole_maps(a: SimpleNamespace, call: Call) -> str | None:
    dims = {d % a.input.ndim for d in (a.dim if isinstance(a.dim, (tuple, list)) else [a.dim or 0])}
    return None if dims == {2, 3} and a.input.ndim == 4 else "only the mean over the whole map (dim=(2, 3)) has a rule"


# ---- the tables ----

@dataclass(frozen=True)
class Operation:
    """A function that networks call: the names of its parameters, its rule in the paper's method, how it slides over
    its input (None: every output sees the whole map), and why some calls of it have no rule.
    """

    parameters: str
    rule: Rule
    slide: Callable[[SimpleNamespace], Sliding | None] = _unmoved
    limits: Callable[[SimpleNamespace, Call], str | None] = _none


_FUNCTIONS: dict[Operation, tuple[Callable, ...]] = {
    Operation("input weight bias=None stride=1 padding=0 dilation=1 groups=1", filter_transposed, _convolution):
        (F.conv2d, torch.conv2d),
    Operation("input inplace=False", rectify):
        (F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_),
    Operation("input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
              unpool, _pooling): (F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d),
    Operation("input size alpha=0.0001 beta=0.75 k=1.0", pass_through): (F.local_response_norm,),
    Operation("input p=0.5 training=True inplace=False", pass_through, limits=_not_training):
        (F.dropout, F.dropout2d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout),
    Operation("input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-05", scale,
              limits=_only_running_statistics): (F.batch_norm,),
    Operation("input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True divisor_override=None",
              spread, _pooling): (F.avg_pool2d,),
    Operation("input output_size", spread_adaptive, _adaptive_pooling): (F.adaptive_avg_pool2d,),
    Operation("input dim=None keepdim=False", spread_mean, _everything, _only_whole_maps):
        (torch.mean, torch.Tensor.mean),
    Operation("input weight bias=None", weigh, _everything, _only_flat): (F.linear,),
    Operation("input start_dim=0 end_dim=-1", unflatten, _everything, _only_flattening):
        (torch.flatten, torch.Tensor.flatten),
    Operation("input *shape", unflatten, _everything, _only_flattening):
        (torch.reshape, torch.Tensor.reshape, torch.Tensor.view, torch.squeeze, torch.Tensor.squeeze),
    Operation("input other alpha=1", share, limits=_only_plain_sums):
        (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__,
         torch.Tensor.__radd__),
    Operation("tensors dim=0", split, limits=_only_channels): (torch.cat, torch.concat, torch.concatenate),
    Operation("input *rest", pass_through):
        (torch.clone, torch.Tensor.clone, torch.Tensor.detach, torch.Tensor.contiguous),
}
OPERATIONS: dict[Callable, Operation] = {f: operation for operation, fs in _FUNCTIONS.items() for f in fs}

Table = Mapping[Callable, Rule]
DECONVNET: Table = {function: operation.rule for function, operation in OPERATIONS.items()}


def _with(base: Table, changes: Mapping[Rule, Rule]) -> Table:
    """The table with some rules exchanged for others."""
    return {f: changes.get(DECONVNET[f], rule) for f, rule in base.items()}


GRADIENT = {**_with(DECONVNET, {rectify: mask_forward}), F.local_response_norm: differentiate_norm}
METHODS: dict[str, Table] = {
    "deconvnet": DECONVNET,
    "gradient": GRADIENT,
    "guided": _with(GRADIENT, {rectify: mask_both}),
}
UNPOOLINGS: dict[str, Rule] = {"switches": unpool, "center": unpool_to_center}


def table(method: str | Table = "deconvnet", unpooling: str = "switches") -> Table:
    """The rules of a method by name, max-pooling as asked for. A table of one's own is taken as it is."""
    if not isinstance(method, str):
        return method
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}; there are: {', '.join(METHODS)}")
    if unpooling not in UNPOOLINGS:
        raise UsageError(f"There is no unpooling {unpooling!r}; there are: {', '.join(UNPOOLINGS)}")
    return _with(METHODS[method], {unpool: UNPOOLINGS[unpooling]})


def obstacle(call: Call, rules: Table = DECONVNET) -> str | None:
    """Why no signal can travel down through a call, with the remedy; None where it can."""
    if call.function not in rules or call.function not in OPERATIONS:
        return "it has no rule; look at a layer below it. The README lists the calls that have one"
    if call.strangers:
        return ("it takes a tensor that no recorded call made, or that was changed through a view; register constants "
                "as buffers and write custom functions in torch's own")
    operation = OPERATIONS[call.function]
    odd = [tuple(t.shape) for t in call.given if t.ndim not in (2, 4)]
    if odd:
        return f"it takes {odd[0]}, which is neither feature maps (N, C, H, W) nor flat (N, C)"
    if call.kwargs.get("out") is not None:
        return "it writes into an argument of its own (out=); leave that out"
    a = bind(call)
    if operation.rule not in (share, split) and (len(call.inputs) > 1 or a.input is not call.given[0]):
        return "its weights depend on the image"
    return operation.limits(a, call)


def sliding(call: Call) -> Sliding | None:
    """How a call slides over its input; None where every output sees the whole of it."""
    return OPERATIONS[call.function].slide(bind(call))


def _slide(call: Call) -> Sliding:
    """How a call slides, for the rules of calls that do."""
    slide = sliding(call)
    assert slide is not None
    return slide


def bind(call: Call) -> SimpleNamespace:
    """The arguments of a call by the names of its parameters."""
    arguments = _defaults(OPERATIONS[call.function].parameters)
    return SimpleNamespace(**arguments | dict(zip(arguments, call.args, strict=False)) | call.kwargs)


@cache
def _defaults(parameters: str) -> dict[str, Any]:
    """The names of the parameters, each with its default."""
    words = (word.partition("=") for word in parameters.split())
    return {name: literal_eval(default) if default else None for name, _, default in words}


def _in_phases(values: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """What ``conv_transpose2d`` gives of values (n, C, h, w) and weights (C, c, kh, kw), faster where c is small.

    With a stride of s each pixel gets every s-th weight only. So the pixels of one phase, s apart, are a convolution of
    stride 1; it gives all phases as channels, which are then laid side by side.
    """
    (sy, sx), (c, kh, kw) = stride, weight.shape[1:]
    my, mx = -(-kh // sy), -(-kw // sx)                                  # weights that meet in a pixel, per axis
    padded = F.pad(weight, (0, mx * sx - kw, 0, my * sy - kh))
    taps = padded.view(-1, c, my, sy, mx, sx).flip(2, 4).permute(1, 3, 5, 0, 2, 4)           # (c, sy, sx, C, my, mx)
    phases = F.conv2d(values, taps.flatten(0, 2), padding=(my - 1, mx - 1))                  # (n, c·sy·sx, h', w')
    n, _, h, w = phases.shape
    pixels = phases.view(n, c, sy, sx, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c, h * sy, w * sx)
    height, width = ((size - 1) * s + k for size, s, k in zip(values.shape[2:], stride, (kh, kw), strict=True))
    return pixels[:, :, :height, :width]


# ---- windows ----

def look_up(maps: Tensor, signal: Signal) -> Tensor:
    """What lies under each of the signal's windows (n, C, h, w) on the maps (N, C, H, W); outside the map, its edge."""
    ys, xs = (cells.clamp(0, size - 1) for cells, size in zip(_cells(signal), maps.shape[-2:], strict=True))
    found = maps[signal.image[:, None, None], :, ys[:, :, None], xs[:, None, :]]  # (n, h, w, C)
    return found.permute(0, 3, 1, 2)


def rewindow(signal: Signal, origin: Tensor, size: Pair) -> Signal:
    """The signal on other windows, of ``size`` from ``origin`` (n, 2): cut where they are smaller, 0 where larger."""
    values = signal.values
    shift = origin - signal.origin                                       # (n, 2)
    for axis in (0, 1):
        old = values.shape[2 + axis]
        first = shift[:, axis]
        if bool((first == first[0]).all()):  # one cut for all rows is much cheaper than a cut for each
            left, right = int(first[0]), int(first[0]) + size[axis]
            if left >= old or right <= 0:  # nothing in common
                left, right, values = 0, size[axis], torch.zeros_like(values)
            pads = [-left, right - old]
            values = F.pad(values, pads if axis == 1 else [0, 0, *pads])
        else:
            cells = first[:, None] + torch.arange(size[axis], device=first.device)              # (n, size)
            inside = (cells >= 0) & (cells < old)
            view = (len(cells), 1, -1, 1) if axis == 0 else (len(cells), 1, 1, -1)
            shape = list(values.shape)
            shape[2 + axis] = size[axis]
            values = values.gather(2 + axis, cells.clamp(0, old - 1).view(view).expand(shape)) * inside.view(view)
    return Signal(values, origin, signal.image)


def fit(signal: Signal, size: Pair) -> Signal:
    """The signal with zeros outside a map of ``size``, and no larger than the map."""
    h, w = signal.values.shape[-2:]
    if h > size[0] or w > size[1]:
        origin = torch.stack([torch.zeros_like(o) if n > m else o
                              for o, n, m in zip(signal.origin.T, (h, w), size, strict=True)], dim=1)
        signal = rewindow(signal, origin, (min(h, size[0]), min(w, size[1])))
    ys, xs = (((cells >= 0) & (cells < n)) for cells, n in zip(_cells(signal), size, strict=True))
    if ys.all() and xs.all():
        return signal
    return replace(signal, values=signal.values * (ys[:, None, :, None] & xs[:, None, None, :]))


def join(one: Signal, other: Signal) -> Signal:
    """The sum of two signals on one map, on the union of their windows."""
    if torch.equal(one.origin, other.origin) and one.values.shape == other.values.shape:
        return replace(one, values=one.values + other.values)
    sizes = [one.origin.new_tensor(s.values.shape[-2:]) for s in (one, other)]
    origin = torch.minimum(one.origin, other.origin)                                            # (n, 2)
    stop = torch.maximum(one.origin + sizes[0], other.origin + sizes[1])
    h, w = (stop - origin).amax(0).tolist()
    values = rewindow(one, origin, (h, w)).values + rewindow(other, origin, (h, w)).values
    return Signal(values, origin, one.image)


def _cells(signal: Signal) -> tuple[Tensor, Tensor]:
    """The rows (n, h) and columns (n, w) of the map under each window."""
    h, w = signal.values.shape[-2:]
    device = signal.origin.device
    y, x = signal.origin[:, :1], signal.origin[:, 1:]
    return y + torch.arange(h, device=device), x + torch.arange(w, device=device)


def _below(origin: Tensor, slide: Sliding) -> Tensor:
    return origin * origin.new_tensor(slide.stride) - origin.new_tensor(slide.padding)


def _scatter(signal: Signal, places: Tensor, columns: int, slide: Sliding) -> Signal:
    """The signal's values, summed where they meet, at flat ``places`` (n, C, h, w) of a map with so many columns."""
    n, channels, h, w = signal.values.shape
    origin = _below(signal.origin, slide)
    height, width = slide.extent((h, w))
    first = origin[:, 0] * width + origin[:, 1]                          # (n,)
    # row · width + column − first, of a place that is row · columns + column; in place, for this is a third of the work
    cells = places.div(columns, rounding_mode="floor").mul_(width - columns).add_(places).sub_(first.view(-1, 1, 1, 1))
    cells.clamp_(0, height * width - 1)  # what the clamp catches is outside the map, and zero
    flat = signal.values.new_zeros(n, channels, height * width)
    flat.scatter_add_(2, cells.flatten(2), signal.values.flatten(2))
    return Signal(flat.view(n, channels, height, width), origin, signal.image)


def _center(signal: Signal, axis: int, slide: Sliding, size: int) -> Tensor:
    """The middle cell (n, h), along one axis, of each pooling window, as far as the window lies on the map."""
    first = _cells(signal)[axis] * slide.stride[axis] - slide.padding[axis]
    last = first + slide.dilation[axis] * (slide.kernel[axis] - 1)
    return (first.clamp(min=0) + last.clamp(max=size - 1)) // 2


def _whole(values: Tensor, signal: Signal) -> Signal:
    """A signal on the whole of a map."""
    return Signal(values, torch.zeros_like(signal.origin), signal.image)


def _divisors(call: Call, slide: Sliding) -> Tensor:
    """By how much average pooling divided each of its sums (N, 1, Ho, Wo); at borders it depends on its options."""
    a = bind(call)
    ones = a.input.new_ones(1, 1, *a.input.shape[-2:])
    options = {k: v for k, v in vars(a).items() if k in ("ceil_mode", "count_include_pad", "divisor_override")}
    window = (slide.kernel, slide.stride, slide.padding)
    means = F.avg_pool2d(ones, *window, **options)
    counts = F.avg_pool2d(ones, *window, **options | {"divisor_override": 1})
    return (counts / means).expand(len(a.input), -1, -1, -1)


def _adaptive_size(a: SimpleNamespace) -> Pair:
    wanted = pair(a.output_size) if not isinstance(a.output_size, (tuple, list)) else a.output_size
    y, x = (i if o is None else o for i, o in zip(a.input.shape[-2:], wanted, strict=True))
    return y, x


def _adaptive_means(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """The matrix (outputs, inputs) of adaptive average pooling along one axis."""
    return F.adaptive_avg_pool1d(torch.eye(inputs, dtype=like.dtype, device=like.device), outputs).T
