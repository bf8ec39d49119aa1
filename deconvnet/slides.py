"""How each call slides over its input: from its arguments, by name, and the call.

None where every output sees the whole of the input.
"""

from types import SimpleNamespace

from .moves import moves
from .receptive import Pair, Sliding, Spreading, pair
from .tape import Call


def unmoved(a: SimpleNamespace, call: Call) -> Sliding | None:
    """Cell by cell."""
    return Sliding()


def everything(a: SimpleNamespace, call: Call) -> Sliding | None:
    """Every output sees the whole map."""
    return None


def convolution(a: SimpleNamespace, call: Call) -> Sliding | None:
    """By its kernel."""
    kernel, dilation = pair(tuple(a.weight.shape[-2:])), pair(a.dilation)
    if a.padding == "same":  # the odd cell, if any, is on the right and at the bottom
        padding = pair([d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)])
    else:
        padding = pair(0 if a.padding == "valid" else a.padding)
    return Sliding(kernel, pair(a.stride), padding, dilation)


def pooling(a: SimpleNamespace, call: Call) -> Sliding | None:
    """By its window, whose stride is its size where none is given."""
    stride = a.stride or a.kernel_size
    return Sliding(pair(a.kernel_size), pair(stride), pair(a.padding), pair(getattr(a, "dilation", 1)))


def adaptive_pooling(a: SimpleNamespace, call: Call) -> Sliding | None:
    """By windows of equal size, where these divide the map evenly."""
    sizes, wanted = a.input.shape[-2:], adaptive_size(a)
    if any(i % o for i, o in zip(sizes, wanted, strict=True)):
        return None
    kernel = pair([i // o for i, o in zip(sizes, wanted, strict=True)])
    return Sliding(kernel, kernel)


def reshaping(a: SimpleNamespace, call: Call) -> Sliding | None:
    """Cell by cell, where at most channels are regrouped."""
    return Sliding() if regroups(call) else None


def moving(a: SimpleNamespace, call: Call) -> Sliding | None:
    """As what it moves lies now."""
    moved = moves(call)
    return moved.slide if moved else None


def padding(a: SimpleNamespace, call: Call) -> Sliding | None:
    """By what it adds on the left and at the top."""
    left, _, top, *_ = pads(a)
    return Sliding(padding=(top, left))


def transposed_convolution(a: SimpleNamespace, call: Call) -> Sliding | None:
    """The other way round: each input spreads over many outputs."""
    return Spreading(pair(tuple(a.weight.shape[-2:])), pair(a.stride), pair(a.padding), pair(a.dilation))


def enlargement(a: SimpleNamespace, call: Call) -> Sliding | None:
    """Each input spreads over as many outputs as repeat it."""
    kernel = pair([made // size for made, size in zip(call.shape[-2:], a.input.shape[-2:], strict=True)])
    return Spreading(kernel, kernel)


def adaptive_size(a: SimpleNamespace) -> Pair:
    """How large the map is that adaptive pooling makes, (H, W)."""
    wanted = pair(a.output_size) if not isinstance(a.output_size, (tuple, list)) else a.output_size
    y, x = (i if o is None else o for i, o in zip(a.input.shape[-2:], wanted, strict=True))
    return y, x


def regroups(call: Call) -> bool:
    """Whether a call leaves images, rows and columns as they are, and so at most regroups channels."""
    before, after = tuple(call.given[0].shape), call.shape
    return min(len(before), len(after)) > 2 and before[0] == after[0] and before[-2:] == after[-2:]


def pads(a: SimpleNamespace) -> list[int]:
    """How wide the border is: left, right, top, bottom, and channels before and after."""
    return [*a.pad, *[0] * 6][:6]
