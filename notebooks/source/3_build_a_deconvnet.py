# %% [markdown]
# # 3 · Build a deconvnet
#
# A **deconvnet** takes one activation of a network down to pixels. It has only three operations, and each answers one
# operation of the way up:
#
# | on the way up | on the way down |
# |---|---|
# | filter (convolve) | **filter, transposed**: the same weights, walked the other way |
# | rectify (ReLU) | **rectify** again |
# | max-pool | **unpool**, by the switches |
#
# You write the three, put them together, and compare with the library. Then you find that what you have built is
# almost a gradient, and where the "almost" sits.

# %%
import numpy as np
import torch
import torch.nn.functional as F

import deconvnet
from deconvnet import colours
from deconvnet.course import building as check
from deconvnet.course import pictures

net = deconvnet.load_model("zfnet", weights="demo")
photographs = deconvnet.open_images("builtin:photographs", net.preprocess)
number = photographs.files.index("camera@0.44+000+000")
image, shown = photographs[number][0], photographs.image(number)     # (3, 224, 224) to be fed; (224, 224, 3) to be seen
steps, maps = check.climb(net, image, "relu3")                       # the way up to layer 3, step by step
for step in steps:
    print(f"{step.name}: {step.kind:9} a map of {step.size[0]}×{step.size[1]}", "" if step.switches is None else
          f"— keeps {step.switches.numel()} switches")

# %% [markdown]
# `climb` is a loop over the layers of the network (`check.climb??` shows its lines). For each it keeps what the way
# down will need: the filters, the size of the map that came in, and the switches.
#
# We follow one activation, the strongest of unit 194 of layer 3:

# %%
unit = 194
y, x = divmod(int(maps[unit].argmax()), maps.shape[2])
box = deconvnet.receptive_field(net, "conv3").box(y, x)
pictures.row([shown, maps[unit]], ["the photograph", f"conv3:{unit}, 13×13"], boxes=[box, ((y, x), (1, 1))], height=2.8,
             caption=f"Its strongest activation is {maps[unit, y, x]:.2f} at ({y}, {x}).\n"
                     "Framed: what it sees (75×75). What in there made it fire?")

# %% [markdown]
# ## 1 · Filter, transposed
#
# Going up, a filter is laid on a window of the map, and weight times value is summed into *one* number. Going down,
# one number is sent back to *all* cells of that window, each along its own weight: **the number lays a copy of the
# filter, multiplied by itself, on the map below**. Where copies overlap they add up.
#
# A filter of 2×2 has slid over a map of 3×3, so there are 2×2 numbers. Work out what the signal below becomes: the
# copy times 1 lies top left, the copy times 10 bottom right.

# %%
weight = torch.tensor([[1.0, 2], [3, 4]])
signal = torch.tensor([[1.0, 0], [0, 10]])
below = F.conv_transpose2d(signal[None, None], weight[None, None])[0, 0]
pictures.tables([weight, signal, below], ["filter", "signal", "transposed filtering"], marks=[None, None, [(1, 1)]],
                caption="Framed: here both copies lie, 4 of the first and 10·1 of the second.")

# %% [markdown]
# ### Exercise 1
# Write it for real layers: several units, several channels, a stride and a padding. Units are summed as well: each
# lays down its own filter. Write a loop over the cells of the signal; skip those that are zero, which are most of
# them.

# %% tags=["exercise"]
def filter_transposed(signal, weight, stride, padding, size):
    """The signal (units, h, w) on the map below: (channels, H, W), where ``size`` is (H, W).

    ``weight`` is (units, channels, k, k). There is no bias. Cells that no filter saw get zero.
    """
    # solution: begin with zeros of (channels, H + 2·padding, W + 2·padding), add each copy, and cut the padding off
    kernel = weight.shape[2]
    out = torch.zeros(weight.shape[1], size[0] + 2 * padding, size[1] + 2 * padding)
    for y in range(signal.shape[1]):
        for x in range(signal.shape[2]):
            if signal[:, y, x].any():
                copy = (signal[:, y, x, None, None, None] * weight).sum(0)               # (channels, k, k)
                out[:, y * stride:y * stride + kernel, x * stride:x * stride + kernel] += copy
    return out[:, padding:padding + size[0], padding:padding + size[1]]
    # end of solution


# %% tags=["check"]
check.filter_transposed(filter_transposed)

# %% [markdown]
# **Question.** The paper says that the filters are flipped "vertically and horizontally". You have flipped nothing.
# Who is right?
# <details><summary>Answer</summary>
#
# Both. You let each number *lay down* a filter. One can also ask for each cell below what it *collects*: then one
# slides a window over the signal, and the weights stand in it the other way round, since the cell that lies left of a
# number is reached by the weight that is right in the window. Sliding the flipped filter gives exactly your result.
# Flipping a filter and then laying it down flips it once too often.
# </details>
#
# **Question.** Going up, each unit also adds its bias. Why is there none on the way down?
# <details><summary>Answer</summary>
#
# A bias is the part of an activation that comes from no pixel. Added on the way down it would draw something even
# where the signal is zero, the same in every picture. Without it, a signal three times as strong gives a picture
# three times as strong, and no signal gives an even grey.
# </details>
#
# ## 2 · Unpool
#
# This is notebook 2 again, for a signal of several channels, each with switches of its own.
#
# ### Exercise 2

# %% tags=["exercise"]
def unpool(signal, switches, size):
    """The signal (C, h, w) on the map below (C, H, W): each value at its switch, values that meet added up.

    ``switches`` is (C, h, w), of whole numbers y·W + x.
    """
    # solution: flatten each channel; torch.zeros(C, H·W).scatter_add(1, switches, signal) adds at the switches
    flat = torch.zeros(len(signal), size[0] * size[1])
    return flat.scatter_add(1, switches.flatten(1), signal.flatten(1)).view(-1, *size)
    # end of solution


# %% tags=["check"]
check.unpool(unpool)

# %% [markdown]
# ## 3 · The whole way down
#
# The third operation is the shortest: **rectify**, `signal.clamp(min=0)`. On the way up every map was positive, says
# the paper, so on the way down the signal is made positive too, wherever a ReLU stood. Contrast normalisation has no
# part: the signal passes as it is.
#
# The order follows from the way up, read backwards. After the last transposed filtering we are at the pixels: no ReLU
# stood there, so pixels stay signed.
#
# ### Exercise 3
# Walk the steps backwards.

# %% tags=["exercise"]
def descend(steps, signal):
    """The signal on the output of the last step (C, h, w), taken down through all steps to the image (3, H, W).

    Each step has ``.kind`` (filter, rectify, pool, normalise), ``.size`` (H, W) of what it was given, ``.switches``,
    and ``.layer``: a filter's has ``.weight``, ``.stride[0]`` and ``.padding[0]``.
    """
    # solution: for step in reversed(steps): one if for each kind, with your functions from above
    for step in reversed(steps):
        if step.kind == "filter":
            layer = step.layer
            signal = filter_transposed(signal, layer.weight, layer.stride[0], layer.padding[0], step.size)
        elif step.kind == "rectify":
            signal = signal.clamp(min=0)
        elif step.kind == "pool":
            signal = unpool(signal, step.switches, step.size)
    return signal
    # end of solution


# %% tags=["check"]
check.descend(descend)

# %% [markdown]
# Now the photograph. One activation, its own value, everything else zero; and down it goes. Each picture is the
# signal below one step, its channels summed by size.

# %%
seed = torch.zeros_like(maps)                                        # (384, 13, 13)
seed[unit, y, x] = maps[unit, y, x]
stages = {"the seed": seed}
with torch.no_grad():
    for n in (8, 6, 5, 4, 2, 1):                                     # the steps from number n on
        stages[f"below {steps[n].name}"] = descend(steps[n:], seed)
pictures.row([stage.abs().sum(0).sqrt() for stage in stages.values()],
             [f"{name}\n{stage.shape[1]}×{stage.shape[2]}" for name, stage in stages.items()], height=1.6,
             caption="On the way down: black is zero. A filter widens what is there, a pooling spreads it with gaps, "
                     "a ReLU removes what is negative.\n"
                     "(The square root of the size is drawn, so that weak parts can be seen.)")

# %%
(top, left), (height, width) = box
pixels = descend(steps, seed).detach()                               # (3, 224, 224)
part = colours.normalise(pixels[:, max(top, 0):top + height, max(left, 0):left + width].numpy())
patch = shown[max(top, 0):top + height, max(left, 0):left + width]
pictures.row([colours.normalise(pixels.numpy()), part, patch], ["your projection", "its field", "the patch"],
             height=2.8, boxes=[box],
             caption="Your deconvnet's answer. Mid-grey is zero: those pixels had no part in it.")

# %% [markdown]
# The library does the same in two lines, without ever computing on a map outside the field. Do they agree?

# %%
tape = deconvnet.record(net, image[None])
theirs = deconvnet.project(tape, "conv3", [(0, unit, y, x)]).on_canvas()[0]
yours, tripled = (descend(steps, times * seed).detach() for times in (1, 3))
print(f"largest difference, relatively: {float((yours - theirs).abs().max() / theirs.abs().max()):.1e}")
print(f"three times the seed gives the picture times: {float(tripled.norm() / yours.norm()):.4f}")

# %% [markdown]
# ## 4 · Almost a gradient
#
# There is another way to ask what an activation owes to each pixel: its **gradient**. PyTorch computes it with one
# call, on the way back through the same layers. Compare, step by step:
#
# | | deconvnet | gradient |
# |---|---|---|
# | filter | transposed | transposed: a linear step's derivative is its transpose |
# | max-pool | by the switches, summed | by the switches, summed (notebook 2) |
# | ReLU | keeps the signal where **the signal** is positive | keeps it where **the map on the way up** was positive |
# | contrast normalisation | passes the signal | its derivative |
#
# So, apart from the normalisation, **they differ in the rule of the ReLU and in nothing else**. A third method,
# guided backpropagation, asks for both.
#
# ### Exercise 4
# Write the three rules. `x` is what the ReLU was given on the way up, `signal` what comes down to it.

# %%
x_up = torch.tensor([[-2.0, -1, 0, 1, 2]]).expand(5, 5)
coming = 2 * x_up.T
pictures.tables([x_up, coming], ["x, on the way up", "signal, on the way down"],
                caption="Every combination of signs. Which of the 25 values gets through, by each of the three rules?")

# %% tags=["exercise"]
def three_rules(x, signal):
    """What is left of the signal below a ReLU: (deconvnet, gradient, guided), three tensors of its shape."""
    # solution: a mask is a comparison, such as (x > 0), and a signal times a mask is 0 where it is False
    return signal.clamp(min=0), signal * (x > 0), signal.clamp(min=0) * (x > 0)
    # end of solution


# %% tags=["check"]
check.three_rules(three_rules)

# %%
pictures.tables(three_rules(x_up, coming), ["deconvnet", "gradient", "guided"],
                caption="The deconvnet keeps the rows in which the signal is positive, the gradient the columns in "
                        "which x was,\nguided backpropagation the corner where both are.")

# %% [markdown]
# ### Exercise 5
# If that is all, then PyTorch's own gradient becomes a deconvnet as soon as its ReLU has the other rule. PyTorch lets
# us write a function with a way back of our own choice. `grad` is the signal that comes down.

# %% tags=["exercise"]
class ClampedReLU(torch.autograd.Function):
    """A ReLU on the way up; on the way down the rule of the deconvnet."""

    @staticmethod
    def forward(context, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(context, grad):
        # solution: the rule of the deconvnet in one line; it needs nothing of the way up
        return grad.clamp(min=0)
        # end of solution


# %% tags=["check"]
check.clamped_relu(ClampedReLU)

# %%
def by_autograd(relu, pass_norm):
    """The gradient of the activation with respect to the image, times the activation."""
    leaf = image[None].clone().requires_grad_()
    value = leaf
    for step in steps:
        out = relu(value) if step.kind == "rectify" else step.layer(value)
        if step.kind == "normalise" and pass_norm:
            out = value + (out - value).detach()                     # goes up as ever, but is not differentiated
        value = out
    (gradient,) = torch.autograd.grad(value[0, unit, y, x], leaf)
    return (gradient * value[0, unit, y, x]).detach()[0]


def apart(one, other):
    return float((one - other).norm() / other.norm())


gradient = deconvnet.project(tape, "conv3", [(0, unit, y, x)], method="gradient").on_canvas()[0]
print(f"plain autograd   against method='gradient':  {apart(by_autograd(torch.relu, False), gradient):.1e}")
print(f"plain autograd   against the deconvnet:      {apart(by_autograd(torch.relu, False), theirs):.1e}")
print(f"the same, normalisation passed:              {apart(by_autograd(torch.relu, True), theirs):.1e}")
print(f"clamped autograd against the deconvnet:      {apart(by_autograd(ClampedReLU.apply, True), theirs):.1e}")

# %% [markdown]
# The first and the last are rounding. So, once the normalisation is passed, PyTorch's gradient with one line
# exchanged *is* the deconvnet, and without that line it is far from it. (In `by_autograd` the gradient is multiplied
# by the activation, since a deconvnet is seeded with the activation's value.)
#
# What does the one line do to the picture?

# %%
units = [194, 313, 225]
places = [(0, unit, *divmod(int(maps[unit].argmax()), 13)) for unit in units]
methods = ("deconvnet", "gradient", "guided")
down = {method: deconvnet.project(tape, "conv3", places, method=method).pixels for method in methods}
pictures.row([colours.normalise(down[method][n].numpy()) for n in range(3) for method in methods],
             [f"conv3:{unit}\n{method}" for unit in units for method in methods], height=1.25,
             caption="Three units by three rules. Mid-grey is zero; each picture is scaled by itself.")

# %%
layers = ["conv1", "conv2", "conv3", "conv4", "conv5"]
alike = []
for layer in layers:
    found = tape.activations(layer)[0]                               # (C, h, w)
    best = found.amax((1, 2)).topk(8).indices.tolist()
    at = [(0, one, *divmod(int(found[one].argmax()), found.shape[2])) for one in best]
    one, other = (deconvnet.project(tape, layer, at, method=method).pixels.flatten(1) for method in methods[:2])
    alike.append([np.corrcoef(a, b)[0, 1] for a, b in zip(one.numpy(), other.numpy(), strict=True)])
    print(f"{layer}: correlation of deconvnet and gradient {np.mean(alike[-1]):.3f} (mean of eight units)")

# %% [markdown]
# **Question.** In layer 1 the correlation is exactly 1, and it falls from layer to layer. Why?
# <details><summary>Answer</summary>
#
# Between layer 1 and the pixels there is no ReLU but the unit's own, which let its activation through by either rule.
# So there is nothing to differ in: both give the filter. Each layer above adds one more ReLU at which the two rules
# decide differently, and one more normalisation that only the gradient takes part in.
# </details>
#
# **Question.** Which of the two tells the truth?
# <details><summary>Answer</summary>
#
# They answer different questions. The gradient says exactly how the activation changes if a pixel changes a little.
# The deconvnet answers no such exact question: it draws what supports the activation, and leaves out whatever works
# against it at any ReLU on the way. Its pictures are cleaner, and that is a choice, not a finding. Notebook 7 asks
# what remains of these pictures when the weights are random.
# </details>
#
# **You can now** build a deconvnet out of three operations, say what it has in common with a gradient, and where in
# the code the difference lies. Notebook 4 lets the library do it for every unit of a layer.
