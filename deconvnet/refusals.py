"""Why calls have no rule: what is said when a signal would have to travel down one of them."""

_BENDS = ("The signal is rectified because what a ReLU puts out is positive; this lets some of what is negative "
          "through, bent, and nothing says what a valid reconstruction of it would be. Train with ReLU or leaky ReLU")
_SQUASHES = ("It squashes its input into a fixed range: how strong an activation is says nothing of how strong a "
             "reconstruction below it should be")
_NORMALISES = ("What it divides by is computed from the image itself, so that it has no fixed weights to be "
               "transposed. Batch normalisation in evaluation and local response normalisation have a rule")
_ATTENDS = "What it multiplies by is computed from the image itself, so that it has no fixed weights to be transposed"
_OTHER_DIMENSIONS = ("Signals are windows on two-dimensional maps. What has one dimension can be written as maps of "
                     "one row (N, C, 1, L), with kernels (1, k); volumes have no rule")
_UNSWITCHED = "It keeps no switch that says where its output came from. F.max_pool2d has them"
_POOLS = "It is a norm of its window: neither a maximum, which has a switch, nor a mean, which is spread evenly"

_REASONS: dict[str, str] = {name: reason for names, reason in (
    ("elu selu celu gelu silu mish hardswish softplus softsign logsigmoid tanhshrink softshrink hardshrink", _BENDS),
    ("sigmoid tanh softmax softmin log_softmax hardsigmoid gumbel_softmax", _SQUASHES),
    ("group_norm layer_norm instance_norm normalize rms_norm", _NORMALISES),
    ("multi_head_attention_forward scaled_dot_product_attention matmul bmm baddbmm einsum glu bilinear lstm gru "
     "rnn_tanh rnn_relu", _ATTENDS),
    ("conv1d conv3d conv_transpose1d conv_transpose3d max_pool1d max_pool3d avg_pool1d avg_pool3d adaptive_avg_pool1d "
     "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool3d max_pool1d_with_indices max_pool3d_with_indices",
     _OTHER_DIMENSIONS),
    ("max amax fractional_max_pool2d max_unpool2d", _UNSWITCHED),
    ("lp_pool2d", _POOLS),
) for name in names.split()}


def reason(name: str) -> str:
    """Why a function of that name, which has no rule, has none; where those that have one are listed if unknown."""
    return _REASONS.get(name.rstrip("_"), "The README lists the calls that have one")
