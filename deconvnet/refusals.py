"""Why calls have no rule: what is said when a signal would have to travel down one of them."""

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from . import slides
from .moves import moves
from .tape import Call

_BENDS = ("The signal is rectified because what a ReLU puts out is positive; this lets some of what is negative "
          "through, bent, and nothing says what a valid reconstruction of it would be. Train with ReLU or leaky ReLU")
_SQUASHES = ("It squashes its input into a fixed range: how strong an activation is says nothing of how strong a "
             "reconstruction below it should be")
_NORMALISES = ("What it divides by is computed from the image itself, so that it has no fixed weights to be "
               "transposed. Batch normalisation in evaluation and local response normalisation have a rule")
ATTENDS = "What it multiplies by is computed from the image itself, so that it has no fixed weights to be transposed"
_OTHER_DIMENSIONS = ("Signals are windows on two-dimensional maps. What has one dimension can be written as maps of "
                     "one row (N, C, 1, L), with kernels (1, k); volumes have no rule")
_UNSWITCHED = "It keeps no switch that says where its output came from. F.max_pool2d has them"
_POOLS = "It is a norm of its window: neither a maximum, which has a switch, nor a mean, which is spread evenly"

_REASONS: dict[str, str] = {name: reason for names, reason in (
    ("elu selu celu gelu silu mish hardswish softplus softsign logsigmoid tanhshrink softshrink hardshrink", _BENDS),
    ("sigmoid tanh softmax softmin log_softmax hardsigmoid gumbel_softmax", _SQUASHES),
    ("group_norm layer_norm instance_norm normalize rms_norm", _NORMALISES),
    ("multi_head_attention_forward scaled_dot_product_attention matmul bmm baddbmm einsum glu bilinear lstm gru "
     "rnn_tanh rnn_relu", ATTENDS),
    ("conv1d conv3d conv_transpose1d conv_transpose3d max_pool1d max_pool3d avg_pool1d avg_pool3d adaptive_avg_pool1d "
     "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool3d max_pool1d_with_indices max_pool3d_with_indices",
     _OTHER_DIMENSIONS),
    ("max amax fractional_max_pool2d max_unpool2d", _UNSWITCHED),
    ("lp_pool2d", _POOLS),
) for name in names.split()}


def reason(name: str) -> str:
    """Why a function of that name, which has no rule, has none; where those that have one are listed if unknown."""
    return _REASONS.get(name.rstrip("_"), "The README lists the calls that have one")


# ---- calls that a rule does not cover, though it covers others of the function: why, or None ----

def none(a: SimpleNamespace, call: Call) -> str | None:
    """All calls have a rule."""
    return None


def not_training(a: SimpleNamespace, call: Call) -> str | None:
    """Only evaluation has a rule."""
    return "it is in training mode; call net.eval() first" if a.training and getattr(a, "p", 1) > 0 else None


def only_running_statistics(a: SimpleNamespace, call: Call) -> str | None:
    """Only batch normalisation by what training has left."""
    if a.running_mean is None or a.running_var is None:
        return "it normalises by the batch itself; only running statistics (track_running_stats=True) have a rule"
    return not_training(a, call)


def only_flat(a: SimpleNamespace, call: Call) -> str | None:
    """Only what is flat (N, features)."""
    before = tuple(a.input.shape)
    return None if len(before) == 2 else f"it takes {before}; only what is flat (N, features) has a rule"


def only_flattening(a: SimpleNamespace, call: Call) -> str | None:
    """Only flattening to (N, C·H·W)."""
    before = tuple(a.input.shape)
    flat = call.shape == (before[0], a.input[0].numel())
    return None if flat else f"it turns {before} into {call.shape}; only flattening to (N, C·H·W) has a rule"


def only_regrouping(a: SimpleNamespace, call: Call) -> str | None:
    """Only flattening and back, and regrouping channels."""
    if slides.regroups(call) or (a.input.ndim == 2 and len(call.shape) == 4 and call.shape[0] == len(a.input)):
        return None
    problem = only_flattening(a, call)
    return problem and problem.replace("has a rule", "and back, and regrouping channels (N, …, H, W), have a rule")


def only_lines(a: SimpleNamespace, call: Call) -> str | None:
    """Only what moves whole channels, rows or columns."""
    return None if moves(call) else ("only slices, parts and permutations of channels, and rows and columns at even "
                                     "distances, have a rule")


def only_constant_borders(a: SimpleNamespace, call: Call) -> str | None:
    """Only borders of one value around the maps."""
    if a.mode != "constant":
        return (f"it repeats the map in its border (mode={a.mode!r}), so that a value stands in several places; only "
                "constant borders have a rule")
    return None if len(a.pad) <= 6 or not any(a.pad[6:]) else "it adds images to the batch"


def only_repeating(a: SimpleNamespace, call: Call) -> str | None:
    """Only enlarging by whole numbers, each cell repeated."""
    even = not any(made % size for made, size in zip(call.shape[-2:], a.input.shape[-2:], strict=True))
    return None if even and a.mode.startswith("nearest") else ("only enlarging by repeating each cell (mode='nearest', "
                                                               "by whole numbers) has a rule")


def only_even_windows(a: SimpleNamespace, call: Call) -> str | None:
    """Only adaptive pooling that divides the map evenly."""
    return None if slides.adaptive_pooling(a, call) else "only where it divides the map evenly has it a rule"


def only_rectifying(a: SimpleNamespace, call: Call) -> str | None:
    """Only bounds of which the lower is 0."""
    low, high = bounds(a)
    if getattr(a, "training", False):
        return "it is in training mode; call net.eval() first"
    if not isinstance(low, int | float) or not (high is None or isinstance(high, int | float)):
        return "only bounds that are numbers have a rule"
    lifts = low > 0 and not hasattr(a, "value")  # a threshold leaves 0 below it, other bounds leave themselves
    if low < 0 or lifts or getattr(a, "value", 0.0) != 0 or (high is not None and high <= 0):
        return "only a lower bound of 0 has a rule: what lets negative values through, up to a bound, does not rectify"
    return None


def only_above_zero(a: SimpleNamespace, call: Call) -> str | None:
    """Only the maximum with 0."""
    plain = len(call.inputs) == 1 and a.input is call.given[0] and call.shape == a.input.shape and not a.other.any()
    return None if plain else "only the maximum with 0 has a rule"


def only_positive_slopes(a: SimpleNamespace, call: Call) -> str | None:
    """Only leaky rectifiers that do not turn the sign."""
    factor = slope(a)
    if getattr(a, "training", False):
        return "it is in training mode; call net.eval() first"
    negative = bool((factor < 0).any()) if isinstance(factor, Tensor) else factor < 0
    return "it has a negative slope, and so does not rectify" if negative else None


def only_constants(a: SimpleNamespace, call: Call) -> str | None:
    """Only products with, and quotients by, what does not depend on the image."""
    if len(call.inputs) > 1:
        return ("it multiplies or divides two values that both depend on the image (a gate, as in squeeze-and-"
                "excitation), so that it has no fixed weights to be transposed")
    other = a.other if a.input is call.given[0] else a.input
    if getattr(a, "rounding_mode", None) is not None or (a.input is not call.given[0] and call.name.startswith("div")):
        return "only dividing by a constant, without rounding, has a rule"
    if isinstance(other, Tensor) and not other.is_floating_point():
        return "it multiplies by a mask; write F.relu, if that is what it does"
    same = call.given[0].shape == call.shape
    return None if same else "only constants that leave the maps' shape as it is have a rule"


def only_plain_sums(a: SimpleNamespace, call: Call) -> str | None:
    """Only sums of one shape, each summand once."""
    plain = a.alpha == 1 and all(t.shape == call.shape for t in call.given)
    return None if plain else "only the plain sum of tensors of one shape has a rule"


def only_channels(a: SimpleNamespace, call: Call) -> str | None:
    """Only concatenation of channels."""
    plain = getattr(a, "axis", a.dim) in (1, 1 - len(call.shape)) and len(call.inputs) == len(a.tensors)
    return None if plain else "only the concatenation of channels (dim=1) of tensors made from the image has a rule"


def only_whole_maps(a: SimpleNamespace, call: Call) -> str | None:
    """Only the mean over a whole map."""
    dims = {d % a.input.ndim for d in (a.dim if isinstance(a.dim, (tuple, list)) else [a.dim or 0])}
    return None if dims == {2, 3} and a.input.ndim == 4 else "only the mean over the whole map (dim=(2, 3)) has a rule"


def slope(a: SimpleNamespace) -> Tensor | float:
    """By what a rectifier multiplies what is negative; (C, 1, 1) where it learned one for each channel."""
    if hasattr(a, "lower"):
        return (a.lower + a.upper) / 2
    return a.weight[:, None, None] if hasattr(a, "weight") else getattr(a, "negative_slope", 0.0)


def bounds(a: SimpleNamespace) -> tuple[Any, Any]:
    """Between which values a rectifier is linear; None where there is no upper bound."""
    low = next((getattr(a, key) for key in ("threshold", "min_val", "min") if hasattr(a, key)), 0)
    return (float("-inf") if low is None else low), getattr(a, "max_val", getattr(a, "max", None))
