"""Operations of windows without weights: pooling, and normalisation over neighbouring channels."""

from torch import nn

from ...receptive import Pair
from .making import Made, Making, Table
from .padding import PaddedAvgPool2d, PaddedMaxPool2d, Window


def _max_pool(making: Making) -> Made:
    making.only_first_output()
    window = _pooling_window(making)
    both = _plain(window)
    if both is not None:
        return making.alone(nn.MaxPool2d(window.kernel, window.stride, both, window.dilation, ceil_mode=window.ceil))
    pool = PaddedMaxPool2d(window.kernel, window.stride, 0, window.dilation)
    pool.window = window
    return making.alone(pool)


def _average_pool(making: Making) -> Made:
    window = _pooling_window(making)
    if window.dilation != (1, 1):
        raise making.refuse("average pooling with gaps (dilations) is not run")
    counted = bool(making.attribute("count_include_pad", 0))
    both = _plain(window)
    if both is not None:
        return making.alone(nn.AvgPool2d(window.kernel, window.stride, both, window.ceil, counted))
    pool = PaddedAvgPool2d(window.kernel, window.stride, 0, window.ceil, counted)
    pool.window = window
    return making.alone(pool)


def _pooling_window(making: Making) -> Window:
    """How the node slides; each of its windows has some of the map in it."""
    window = making.window(making.pair("kernel_shape", (0, 0)))
    if any(amount >= kernel for amount, kernel in zip(window.pads, window.kernel * 2, strict=True)):
        raise making.refuse(f"pads {list(window.pads)} leave windows of {list(window.kernel)} without a cell of the "
                            "map")
    return window


def _plain(window: Window) -> Pair | None:
    """The padding with which torch's own pooling is the same on every map; None where there is none."""
    both = window.fixed
    if both is None or (window.auto != "NOTSET" and window.ceil):
        return None
    return both if all(2 * b <= k for b, k in zip(both, window.kernel, strict=True)) else None


def _lrn(making: Making) -> Made:
    size, alpha, beta = (making.attribute(*known) for known in (("size", 0), ("alpha", 1e-4), ("beta", 0.75)))
    if size < 1 or size % 2 == 0 or not (alpha > 0 and beta > 0):
        raise making.refuse(f"normalisation over {size} channels, alpha {alpha:g}, beta {beta:g} is not run; only over "
                            "an odd number, alpha and beta above 0")
    return making.alone(nn.LocalResponseNorm(size, alpha, beta, making.attribute("bias", 1.0)))


POOLING: Table = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda making: making.alone(nn.AdaptiveAvgPool2d(1)),
    "LRN": _lrn,
    "MaxPool": _max_pool,
}
