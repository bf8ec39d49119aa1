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

from . import refusals, slides
from .errors import UsageError
from .moves import moves
from .receptive import Sliding
from .tape import Call, as_map
from .transposed import convolve_transposed
from .windows import Signal, below, cells_of, look_up, rewindow, scatter

Rule = Callable[[Call, Signal], list[Signal]]


# ---- the four rules of the paper (Zeiler and Fergus 2014, section 2.1) ----

def unpool(call: Call, signal: Signal) -> list[Signal]:
    """Each value goes to where the maximum was: "placing the reconstructions … into appropriate locations".

    Overlapping windows may share a maximum: the values are summed, which is the exact transpose of the pooling.
    """
    assert call.switches is not None  # the tape keeps them for every max-pooling
    slide, columns = _slide(call), bind(call).input.shape[-1]
    height, width = slide.extent((signal.values.shape[2], signal.values.shape[3]))
    first = below(signal.origin, slide) @ signal.origin.new_tensor([width, 1])               # (n,)
    # row · width + column − first, of a switch that is row · columns + column; as floats, since whole numbers are
    # divided one by one, and half a column from the next row, so that no rounding takes a switch there
    switches = look_up(call.switches, signal, _exact(call.given[0]))     # (n, C, h, w) flat positions in the input
    rows = switches.add(0.5).mul_(1 / columns).floor_()
    cells = switches.add_(rows, alpha=width - columns).sub_(first.to(rows.device).view(-1, 1, 1, 1))
    cells = cells.clamp_(0, height * width - 1).long()                   # what the clamp catches is zero
    return [scatter(signal, cells, slide)]


def rectify(call: Call, signal: Signal) -> list[Signal]:
    """The positive part of the signal, whatever the forward mask was: the reconstruction too goes "through a relu".

    Through the network's own: where that is leaky, what is negative is multiplied by its slope here too. An upper bound
    (ReLU6) has no part: it is one of activations, and the scale of a signal is that of its seed.
    """
    values, slope = signal.values.clamp(min=0), slope_of(call)
    if isinstance(slope, Tensor) or slope:
        values += slope * signal.values.clamp(max=0)
    return [replace(signal, values=values)]


def filter_transposed(call: Call, signal: Signal) -> list[Signal]:
    """The signal through the transposed filters, without bias: "flipping each filter vertically and horizontally"."""
    a, slide = bind(call), _slide(call)
    values = convolve_transposed(signal.values, a.weight, slide, a.groups)
    return [Signal(values, below(signal.origin, slide), signal.image)]


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


def multiply(call: Call, signal: Signal) -> list[Signal]:
    """The signal times what the maps were multiplied by: a number, or a constant for each channel or cell."""
    a = bind(call)
    factor = a.other if a.input is call.given[0] else a.input
    if isinstance(factor, Tensor):
        maps = as_map(torch.broadcast_to(factor, call.shape))
        factor = look_up(maps, signal).to(signal.values.dtype)           # (n, C, h, w)
    divides = call.name.strip("_") in ("div", "true_divide")
    return [replace(signal, values=signal.values / factor if divides else signal.values * factor)]


def spread(call: Call, signal: Signal) -> list[Signal]:
    """Average pooling, a filter of equal weights, transposed: each value in equal parts to what it was the mean of."""
    slide = _slide(call)
    channels = signal.values.shape[1]
    ones = signal.values.new_ones(channels, 1, *slide.kernel)            # (C, 1, kh, kw)
    shares = signal.values / look_up(_divisors(call, slide), signal)
    values = F.conv_transpose2d(shares, ones, stride=slide.stride, groups=channels)
    return [Signal(values, below(signal.origin, slide), signal.image)]


def spread_adaptive(call: Call, signal: Signal) -> list[Signal]:
    """Adaptive average pooling: windows of equal size where it divides evenly, else the whole map at once."""
    if sliding(call) is not None:
        return spread(call, signal)
    a = bind(call)
    rows, columns = (_adaptive_means(i, o, signal.values) for i, o in
                     zip(a.input.shape[-2:], slides.adaptive_size(a), strict=True))      # (out, in) each
    whole = rewindow(signal, torch.zeros_like(signal.origin), (len(rows), len(columns)))
    return [_whole(rows.T @ whole.values @ columns, signal)]


def spread_mean(call: Call, signal: Signal) -> list[Signal]:
    """The mean over a whole map, transposed: to every cell an equal part."""
    height, width = bind(call).input.shape[-2:]
    return [_whole((signal.values / (height * width)).expand(-1, -1, height, width), signal)]


def weigh(call: Call, signal: Signal) -> list[Signal]:
    """A fully connected layer's signal through its transposed weights, without bias."""
    return [_whole((signal.values.flatten(1) @ bind(call).weight)[:, :, None, None], signal)]


def reshape(call: Call, signal: Signal) -> list[Signal]:
    """The flat signal (n, C·H·W, 1, 1) as a whole map (n, C, H, W) again, or the other way; regrouped channels pass."""
    if slides.regroups(call):
        return [signal]
    size = (1, 1) if len(call.shape) == 2 else (call.shape[-2], call.shape[-1])
    whole = rewindow(signal, torch.zeros_like(signal.origin), size)
    return [_whole(whole.values.reshape(-1, *as_map(bind(call).input).shape[1:]), signal)]


def put_back(call: Call, signal: Signal) -> list[Signal]:
    """Slices, parts and permutations: each value to where it was taken from."""
    moved = moves(call)
    assert moved is not None
    (down, right), (n, _, h, w) = moved.slide.stride, signal.values.shape
    values = signal.values.new_zeros(n, as_map(call.given[0]).shape[1], (h - 1) * down + 1, (w - 1) * right + 1)
    values[:, :, ::down, ::right].index_add_(1, moved.channels, signal.values)
    return [Signal(values, below(signal.origin, moved.slide), signal.image)]


def unshuffle(call: Call, signal: Signal) -> list[Signal]:
    """Channels that were dealt out to groups, gathered again."""
    return [replace(signal, values=F.channel_shuffle(signal.values, signal.values.shape[1] // bind(call).groups))]


def unpad(call: Call, signal: Signal) -> list[Signal]:
    """What is not on the border that was put around the maps; none of the channels that were added."""
    slide, pads = _slide(call), slides.pads(bind(call))
    values = F.pad(signal.values, [0, 0, 0, 0, -pads[4], -pads[5]])
    return [Signal(values, below(signal.origin, slide), signal.image)]


def filter_again(call: Call, signal: Signal) -> list[Signal]:
    """A transposed convolution's filters, transposed, are those of a convolution; so are an enlargement's, all ones."""
    a, slide = bind(call), _slide(call)
    channels, (h, w) = signal.values.shape[1], signal.values.shape[2:]
    weight = getattr(a, "weight", None)
    groups = channels if weight is None else a.groups
    weight = signal.values.new_ones(channels, 1, *slide.kernel) if weight is None else weight
    stride, padding, dilation = (signal.origin.new_tensor(x) for x in (slide.stride, slide.padding, slide.dilation))
    reach = dilation * (dilation.new_tensor(slide.kernel) - 1)
    first = -((reach - signal.origin - padding) // stride)                # (n, 2) the first input cell of each window
    rows, columns = slide.extent((h, w))
    size = ((rows - 1) * slide.stride[0] + int(reach[0]) + 1, (columns - 1) * slide.stride[1] + int(reach[1]) + 1)
    seen = rewindow(signal, first * stride - padding, size)
    values = F.conv2d(seen.values, weight, stride=slide.stride, dilation=slide.dilation, groups=groups)
    return [Signal(values, first, signal.image)]


def share(call: Call, signal: Signal) -> list[Signal]:
    """To each summand of an addition the whole signal."""
    return [signal for _ in call.inputs]


def share_signed(call: Call, signal: Signal) -> list[Signal]:
    """The signal to what was subtracted from, its negative to what was subtracted."""
    a = bind(call)
    backwards = call.name in ("rsub", "__rsub__")
    signs = [-1 if backwards != (value is not a.input) else 1 for value in call.given]
    if len(signs) == 2:
        signs = [-1, 1] if backwards else [1, -1]  # x − x has the same value twice
    return [replace(signal, values=signal.values * sign) for sign in signs]


def negate(call: Call, signal: Signal) -> list[Signal]:
    """The negative of the signal."""
    return [replace(signal, values=-signal.values)]


def split(call: Call, signal: Signal) -> list[Signal]:
    """To each part of a concatenation the channels that it gave."""
    parts = signal.values.split([t.shape[1] for t in bind(call).tensors], dim=1)
    return [replace(signal, values=part) for part in parts]


# ---- what other methods do differently ----

def mask_forward(call: Call, signal: Signal) -> list[Signal]:
    """The derivative of the ReLU: the signal where the forward input was positive (Simonyan et al. 2013).

    Where the ReLU is leaky, elsewhere by its slope; where it has an upper bound, nothing from what is above that.
    """
    low, high = refusals.bounds(bind(call))
    x, slope = look_up(as_map(bind(call).input), signal), slope_of(call)
    linear = (x > low) if high is None else (x > low) & (x < high)
    if isinstance(slope, Tensor) or slope:
        return [replace(signal, values=torch.where(linear, signal.values, signal.values * slope))]
    return [replace(signal, values=signal.values * linear)]


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
    origin, sizes = below(signal.origin, slide), slide.extent((signal.values.shape[2], signal.values.shape[3]))
    ys, xs = ((_center(signal, axis, slide, size) - origin[:, axis, None]).clamp_(0, sizes[axis] - 1)
              for axis, size in enumerate(bind(call).input.shape[-2:]))                      # (n, h), (n, w)
    cells = ys[:, None, :, None] * sizes[1] + xs[:, None, None, :]       # what the clamp catches is outside, and zero
    return [scatter(signal, cells.to(signal.values.device).expand(signal.values.shape), slide)]


# ---- the tables ----

@dataclass(frozen=True)
class Operation:
    """A function that networks call: the names of its parameters, its rule in the paper's method, how it slides over
    its input (None: every output sees the whole map), why some calls of it have no rule, and how many axes a value may
    have.
    """

    parameters: str
    rule: Rule
    slide: Callable[[SimpleNamespace, Call], Sliding | None] = slides.unmoved
    limits: Callable[[SimpleNamespace, Call], str | None] = refusals.none
    axes: tuple[int, ...] = (2, 4)


_FUNCTIONS: dict[Operation, tuple[Callable, ...]] = {
    Operation("input weight bias=None stride=1 padding=0 dilation=1 groups=1", filter_transposed, slides.convolution):
        (F.conv2d, torch.conv2d),
    Operation("input inplace=False", rectify):
        (F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_),
    Operation("input max_val=6.0 inplace=False", rectify): (F.relu6,),
    Operation("input min_val=-1.0 max_val=1.0 inplace=False", rectify, limits=refusals.only_rectifying):
        (F.hardtanh, F.hardtanh_),
    Operation("input threshold value inplace=False", rectify, limits=refusals.only_rectifying):
        (F.threshold, torch.threshold),
    Operation("input min=None max=None", rectify, limits=refusals.only_rectifying):
        (torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_, torch.clip, torch.clip_,
         torch.Tensor.clip, torch.Tensor.clip_, torch.clamp_min, torch.clamp_min_, torch.Tensor.clamp_min,
         torch.Tensor.clamp_min_),
    Operation("input other", rectify, limits=refusals.only_above_zero): (torch.maximum, torch.Tensor.maximum),
    Operation("input negative_slope=0.01 inplace=False", rectify, limits=refusals.only_positive_slopes):
        (F.leaky_relu, F.leaky_relu_),
    Operation("input lower=0.125 upper=0.3333333333333333 training=False inplace=False", rectify,
              limits=refusals.only_positive_slopes): (F.rrelu, F.rrelu_, torch.rrelu, torch.rrelu_),
    Operation("input weight", rectify, limits=refusals.only_positive_slopes): (torch.prelu, torch.Tensor.prelu),
    Operation("input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
              unpool, slides.pooling): (F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d),
    Operation("input output_size return_indices=False", unpool, slides.adaptive_pooling, refusals.only_even_windows):
        (F.adaptive_max_pool2d, F.adaptive_max_pool2d_with_indices),
    Operation("input size alpha=0.0001 beta=0.75 k=1.0", pass_through): (F.local_response_norm,),
    Operation("input p=0.5 training=True inplace=False", pass_through, limits=refusals.not_training):
        (F.dropout, F.dropout2d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout),
    Operation("input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-05", scale,
              limits=refusals.only_running_statistics): (F.batch_norm,),
    Operation("input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True divisor_override=None",
              spread, slides.pooling): (F.avg_pool2d,),
    Operation("input output_size", spread_adaptive, slides.adaptive_pooling): (F.adaptive_avg_pool2d,),
    Operation("input dim=None keepdim=False", spread_mean, slides.everything, refusals.only_whole_maps):
        (torch.mean, torch.Tensor.mean),
    Operation("input weight bias=None", weigh, slides.everything, refusals.only_flat): (F.linear,),
    Operation("input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1", filter_again,
              slides.transposed_convolution): (F.conv_transpose2d, torch.conv_transpose2d),
    Operation("input size=None scale_factor=None mode='nearest'", filter_again, slides.enlargement,
              refusals.only_repeating, (4,)): (F.interpolate,),
    Operation("input pad mode='constant' value=None", unpad, slides.padding, refusals.only_constant_borders, (4,)):
        (F.pad,),
    Operation("input start_dim=0 end_dim=-1", reshape, slides.everything, refusals.only_flattening):
        (torch.flatten, torch.Tensor.flatten),
    Operation("input *shape", reshape, slides.reshaping, refusals.only_regrouping, (2, 3, 4, 5)):
        (torch.reshape, torch.Tensor.reshape, torch.Tensor.view, torch.squeeze, torch.Tensor.squeeze, torch.unsqueeze,
         torch.Tensor.unsqueeze, torch.unflatten, torch.Tensor.unflatten),
    Operation("input *how", put_back, slides.moving, refusals.only_lines, (3, 4, 5)):
        (torch.Tensor.__getitem__, torch.chunk, torch.Tensor.chunk, torch.split, torch.Tensor.split, torch.unbind,
         torch.Tensor.unbind, torch.narrow, torch.Tensor.narrow, torch.select, torch.Tensor.select, torch.flip,
         torch.Tensor.flip, torch.transpose, torch.Tensor.transpose, torch.permute, torch.Tensor.permute),
    Operation("input groups", unshuffle): (F.channel_shuffle, torch.channel_shuffle),
    Operation("input other rounding_mode=None", multiply, limits=refusals.only_constants):
        (torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.mul_, torch.div, torch.true_divide, torch.Tensor.div,
         torch.Tensor.div_, torch.Tensor.true_divide),
    Operation("input other alpha=1", share_signed, limits=refusals.only_plain_sums):
        (torch.sub, torch.Tensor.sub, torch.Tensor.sub_, torch.rsub, torch.Tensor.__rsub__),
    Operation("input", negate): (torch.neg, torch.Tensor.neg),
    Operation("input other alpha=1", share, limits=refusals.only_plain_sums):
        (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__,
         torch.Tensor.__radd__),
    Operation("tensors dim=0", split, limits=refusals.only_channels): (torch.cat, torch.concat, torch.concatenate),
    Operation("input *rest", pass_through, axes=(2, 3, 4, 5)):
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
        if unpooling != "switches":
            raise UsageError(f"A table of rules says itself how it unpools: leave unpool={unpooling!r} out")
        return method
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}; there are: {', '.join(METHODS)}")
    if unpooling not in UNPOOLINGS:
        raise UsageError(f"There is no unpooling {unpooling!r}; there are: {', '.join(UNPOOLINGS)}")
    return _with(METHODS[method], {unpool: UNPOOLINGS[unpooling]})


def obstacle(call: Call, rules: Table = DECONVNET) -> str | None:
    """Why no signal can travel down through a call, with the remedy; None where it can."""
    if call.function not in rules or call.function not in OPERATIONS:
        return f"it has no rule; look at a layer below it. {refusals.reason(call.name)}"
    if call.strangers:
        return ("it takes a tensor that no recorded call made, or that was changed through a view; register constants "
                "as buffers and write custom functions in torch's own")
    operation = OPERATIONS[call.function]
    if any(t.ndim == 0 for t in call.given):
        return f"it takes a number that is computed from the image. {refusals.ATTENDS}; look at a layer below it"
    odd = [tuple(t.shape) for t in call.given if t.ndim not in operation.axes]
    if odd:
        flat = f"it takes what is flat, {odd[0]}; only for feature maps (N, C, H, W) has it a rule"
        other = f"it takes {odd[0]}, which is neither feature maps (N, C, H, W) nor flat (N, C)"
        return flat if len(odd[0]) == 2 else other
    if call.kwargs.get("out") is not None:
        return "it writes into an argument of its own (out=); leave that out"
    a = bind(call)
    several = "other" in vars(a) or "tensors" in vars(a)
    if not several and (len(call.inputs) > 1 or a.input is not call.given[0]):
        return f"its weights depend on the image. {refusals.ATTENDS}; look at a layer below it"
    return operation.limits(a, call)


def sliding(call: Call) -> Sliding | None:
    """How a call slides over its input; None where every output sees the whole of it."""
    return OPERATIONS[call.function].slide(bind(call), call)


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


def slope_of(call: Call) -> Tensor | float:
    """By what a rectifier multiplies what is negative: 0, but for a leaky one; (C, 1, 1) where it learned one each."""
    return refusals.slope(bind(call))


def _exact(maps: Tensor) -> torch.dtype:
    """Floats in which flat places on the maps are exact, and half a column more than their rounding (``unpool``)."""
    return torch.float32 if maps.shape[-2] * maps.shape[-1] <= 2 ** 20 else torch.float64


def _center(signal: Signal, axis: int, slide: Sliding, size: int) -> Tensor:
    """The middle cell (n, h), along one axis, of each pooling window, as far as the window lies on the map."""
    first = cells_of(signal)[axis] * slide.stride[axis] - slide.padding[axis]
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


def _adaptive_means(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """The matrix (outputs, inputs) of adaptive average pooling along one axis."""
    return F.adaptive_avg_pool1d(torch.eye(inputs, dtype=like.dtype, device=like.device), outputs).T
