"""Operations that learned: convolutions, products of matrices, batch normalisation."""

import torch
from torch import Tensor, nn

from .making import Made, Making, Table
from .padding import PaddedConv2d


def _conv(making: Making) -> Made:
    weight, bias = making.weights(1), making.weights(2)
    if weight is None or weight.ndim != 4:
        raise making.refuse("only convolutions in two dimensions are run")
    groups, (outputs, inputs, height, width) = making.attribute("group", 1), weight.shape
    if groups < 1 or outputs % groups or making.pair("kernel_shape", (height, width)) != (height, width):
        raise making.refuse(f"weights {tuple(weight.shape)} do not go with its group or kernel_shape")
    window = making.window((height, width))
    both = window.fixed
    padded = both is None
    conv = (PaddedConv2d if padded else nn.Conv2d)(inputs * groups, outputs, window.kernel, window.stride, both or 0,
                                                   window.dilation, groups, bias is not None, device="meta")
    if isinstance(conv, PaddedConv2d):
        conv.window = window
    conv.weight = weight
    if bias is not None:
        conv.bias = bias
    return making.alone(conv)


def _gemm(making: Making) -> Made:
    weight, bias = making.weights(1), making.constant(2)
    if weight is None or weight.ndim != 2 or making.attribute("transA", 0):
        raise making.refuse("only a product of flat values (N, C) and constant weights is run")
    alpha, beta = making.attribute("alpha", 1.0), making.attribute("beta", 1.0)
    rows = weight.data if making.attribute("transB", 0) else weight.data.T
    if bias is not None and (bias.numel() not in (1, len(rows)) or bias.numel() != bias.shape[-1:].numel()):
        raise making.refuse(f"its bias {tuple(bias.shape)} must be one number for each of {len(rows)} outputs")
    return making.alone(_linear(rows if alpha == 1 else rows * alpha,
                                None if bias is None else (bias.flatten() * beta).expand(len(rows))))


def _matmul(making: Making) -> Made:
    weight = making.constants.get(making.node.inputs[1])
    if weight is None or weight.ndim != 2:
        return making.combined(torch.matmul)
    return making.alone(_linear(weight.T, None))


def _linear(rows: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(rows.shape[1], rows.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(rows.contiguous())
    if bias is not None:
        linear.bias = nn.Parameter(bias.contiguous())
    return linear


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of maps or of what is flat."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def _batch_norm(making: Making) -> Made:
    making.only_first_output()
    if making.attribute("training_mode", 0) or not making.attribute("spatial", 1):
        raise making.refuse("it is not in evaluation mode with one scale for each channel, which alone is run")
    scale, bias, mean, variance = (making.weights(number) for number in range(1, 5))
    if scale is None or bias is None or mean is None or variance is None:
        raise making.refuse("statistics are missing")
    if {tuple(t.shape) for t in (scale, bias, mean, variance)} != {(len(scale),)}:
        raise making.refuse("its statistics are not one number for each channel")
    norm = BatchNorm(len(scale), making.attribute("epsilon", 1e-5), device="meta")
    norm.weight, norm.bias, norm.running_mean, norm.running_var = scale, bias, mean.data, variance.data
    norm.num_batches_tracked = None
    return making.alone(norm)


LEARNED: Table = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
