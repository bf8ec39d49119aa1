# %% [markdown]
# # 7 · What deconvnets do not show
#
# A reconstruction beside its patch is persuasive: the unit fires, and here is what it fires for. But a picture can be
# sharp and still say little about the unit. How much of it comes from the unit's own filters, how much from the layers
# below, and how much from the image, which slips in through the switches?
#
# In this notebook the deconvnet is put to the tests that its critics have devised:
#
# * other rules for the ReLU: the gradient, guided backpropagation;
# * no switches, or the switches of another image (after Mahendran and Vedaldi, ECCV 2016);
# * random weights, from the top layer down (in the spirit of Adebayo et al. 2018, *Sanity Checks for Saliency Maps*;
#   see Nie et al. 2018 for the reason of what comes out);
# * another unit at the same place.
#
# All pictures are made here, by the ZFNet that ships. Zero is mid-grey in every reconstruction, and each has a scale of
# its own, because methods differ in size by orders of magnitude. Where a patch is evenly grey it lies outside its
# image.

# %%
import copy
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch

import deconvnet
from deconvnet.colours import normalise
from deconvnet.course import limits as check
from deconvnet.figures import methods
from deconvnet.figures.methods import correlation, of_ones
from deconvnet.inverses import rectify, table
from deconvnet.patches import cut

net = deconvnet.load_model("zfnet", weights="demo")
photographs = deconvnet.open_images("builtin:photographs", net.preprocess)

# %% [markdown]
# ## Four activations
#
# Four views of photographs, and for each the unit of conv5 that fires most, each time another. One tape holds all four.

# %%
numbers = [30, 55, 102, 197]
images = torch.stack([photographs[number][0] for number in numbers])        # (4, 3, 224, 224)
tape = deconvnet.record(net, images)
activations = tape.activations("conv5")                                     # (4, 256, 13, 13)

units = []
for image in range(len(numbers)):
    order = activations[image].amax((1, 2)).argsort(descending=True).tolist()
    unit = next(unit for unit in order if unit not in [taken for _, taken, *_ in units])
    y, x = divmod(int(activations[image, unit].argmax()), activations.shape[3])
    units.append((image, unit, y, x))

original = deconvnet.project(tape, "conv5", units)
size = original.pixels.shape[2:]
origins = original.origin.tolist()
patches = [cut(photographs.image(number), origin, size) for number, origin in zip(numbers, origins, strict=True)]
white = np.ones((*original.size, 3), np.uint8)
inside = [cut(white, origin, size)[:, :, 0] == 1 for origin in origins]     # (h, w): True where there is image
names = [f"conv5:{unit}" for _, unit, *_ in units]


def show(columns, rows=names):
    """Pictures by column: arrays (h, w, 3) as they are, signed (3, h, w) with zero as mid-grey; words below some."""
    size = 1.6 * len(columns) + 0.3, 1.85 * len(rows) + 0.3
    _, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=9)
        for row, picture in enumerate(pictures):
            pixels, words = picture if isinstance(picture, tuple) else (picture, "")
            pixels = pixels if isinstance(pixels, np.ndarray) else normalise(pixels.numpy())
            axes[row, column].imshow(pixels, interpolation="nearest")
            axes[row, column].set_xticks([], [])
            axes[row, column].set_yticks([], [])
            axes[row, column].set_xlabel(words, fontsize=8)
            axes[row, 0].set_ylabel(rows[row], fontsize=9)
    plt.show()


show({"image patch": patches, "deconvnet": original.pixels})

# %% [markdown]
# ## How alike are two pictures?
#
# Before changing anything we need a measure. Pearson's correlation *r* of the signed pixels is 1 for pictures that are
# equal but for contrast, 0 for pictures that have nothing to do with each other and −1 for a picture and its negative.
# It must be taken **within the image** only: outside nothing arrives in either picture, and those zeros would say that
# they are alike. And of a picture that is the same everywhere there is no correlation at all.

# %% tags=["exercise"]
def likeness(one, other, inside):
    """Pearson's r of two pictures (3, h, w) over the pixels where ``inside`` (h, w) is True; None if one is even.

    r = Σ (a − mean a)(b − mean b) / √(Σ (a − mean a)² · Σ (b − mean b)²)
    """
    # solution: take the pixels inside of all three colours, subtract each picture's mean, then divide the product
    a, b = one[:, inside].ravel(), other[:, inside].ravel()
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / length) if length > 0 else None
    # end of solution

# %% tags=["check"]
check.likeness(likeness)

# %% [markdown]
# The library has the same in `deconvnet.figures.methods.correlation`. It gives two numbers: *r* of the signed pixels,
# and *r* of their strength, |x| summed over the colours, which only asks whether both have something in the same
# places. From here on the notebook uses it.


# %%
def with_r(pictures):
    """Each picture with its likeness to the deconvnet's: r, and in brackets r of the strength."""
    found = []
    for first, picture, within in zip(original.pixels, pictures, inside, strict=True):
        r, where = correlation(first.numpy(), picture.numpy(), within)
        words = f"r {round(r, 2) + 0:.2f} (where {where:.2f})"              # + 0: no −0.00
        found.append((picture, words.replace("-", "−")))
    return found


def mean_r(pictures):
    """The mean over the activations of r to the deconvnet's pictures."""
    return np.mean([correlation(first.numpy(), picture.numpy(), within)[0]
                    for first, picture, within in zip(original.pixels, pictures, inside, strict=True)])


# %% [markdown]
# ## Other rules for the ReLU
#
# Everything on the way down is linear but for the ReLU, and there the methods part:
#
# | method | what passes a ReLU on the way down |
# |---|---|
# | deconvnet (Zeiler and Fergus 2014) | where the **signal** is positive |
# | gradient (Simonyan et al. 2013) | where the **forward input** of the ReLU was positive |
# | guided backpropagation (Springenberg et al. 2014) | where **both** are |
#
# You wrote the three in notebook 3. How do their pictures compare?

# %%
by_method = {method: deconvnet.project(tape, "conv5", units, method=method).pixels for method in ("gradient", "guided")}
show({"image patch": patches, "deconvnet": original.pixels, "gradient": with_r(by_method["gradient"]),
      "guided\nbackpropagation": with_r(by_method["guided"])})

# %% [markdown]
# The same activations, the same weights, the same switches: only the masks of zeros and ones differ. (The gradient also
# takes the derivative of contrast normalisation, which the deconvnet passes by.) The gradient is the true answer to a
# clear question (how does the activation change with each pixel?), and it is the one that looks worst. That a picture
# is pleasant is no evidence that it is right.
#
# **Question.** The gradient's picture of conv5 has the same switches as the deconvnet's, and yet it is hardly
# correlated with it, while that of guided backpropagation is. What do the deconvnet and guided backpropagation share?
# <details><summary>Answer</summary>
#
# Both throw away the negative signal at every ReLU. What comes down is a sum of positive contributions only, and these
# add up to edges and blobs that do not cancel; in the gradient positive and negative contributions interleave. Nie et
# al. (2018) show that it is this rectification, together with the switches, that restores the image itself.
#
# </details>
#
# How much is thrown away? A method is a table from call to rule, and `project` takes a table of our own as `method=`. A
# rule gets the `call` and the `signal` on its output, and gives a list: the signal on each input of the call. Write the
# deconvnet's rule of the ReLU, as one that takes notes.


# %% tags=["exercise"]
def rectify_and_note(call, signal, lost):
    """[the signal below a ReLU], rectified; ``lost`` gets an entry (call.module, share) more.

    share: how much of the strength of the signal, Σ |signal.values|, was negative, from 0 to 1; 0 where there is no
    signal. ``signal`` itself is not changed: dataclasses.replace(signal, values=…) makes another.
    """
    # solution: take values.clamp(max=0) for what is lost and values.clamp(min=0) for what is left
    total = float(signal.values.abs().sum())
    negative = float(signal.values.clamp(max=0).abs().sum())
    lost.append((call.module, negative / total if total else 0.0))
    return [replace(signal, values=signal.values.clamp(min=0))]
    # end of solution

# %% tags=["check"]
check.rectify_and_note(rectify_and_note)

# %%
lost = []
noting = partial(rectify_and_note, lost=lost)
rules = {call: noting if rule is rectify else rule for call, rule in table("deconvnet").items()}
deconvnet.project(tape, "conv5", units, method=rules)
for layer, share in lost:
    print(f"{layer}: {100 * share:4.1f} % of the signal is negative and thrown away")

# %% [markdown]
# The signal starts at conv5 as one positive number. Every ReLU below throws a large part of it away: what would have
# made the unit fire *less*. A deconvnet cannot show what inhibits a unit.
#
# ## Without switches, and with the switches of another image
#
# The switches are no part of the network: they are taken from the image. What is left of the reconstruction if each
# value is unpooled to the centre of its window instead?

# %%
centred = deconvnet.project(tape, "conv5", units, unpool="center").pixels
show({"image patch": patches, "unpooled by\nits switches": original.pixels, "unpooled to\nthe centre": with_r(centred)})

# %% [markdown]
# It falls apart into a regular texture. And what comes out if the same filters are given the switches of *another*
# image? For this, write a function that puts the switches of one tape into another. A tape has a list of `calls`, and a
# max-pooling call has its `switches` (those of all other calls are `None`).

# %% tags=["exercise"]
def with_switches_of(tape, other):
    """A copy of ``tape`` whose max-poolings have the switches of ``other``, a tape of the same network.

    Neither tape is changed. ``dataclasses.replace(call, switches=…)`` copies a call with one attribute changed.
    """
    # solution: go through the calls of both tapes in step, and replace the switches where there are any
    calls = [call if call.switches is None else replace(call, switches=theirs.switches)
             for call, theirs in zip(tape.calls, other.calls, strict=True)]
    return replace(tape, calls=calls)
    # end of solution

# %% tags=["check"]
check.with_switches_of(with_switches_of)

# %%
# The same four images, one place further on: the first activation gets the switches of the second image, and so on.
further = deconvnet.record(net, images.roll(-1, 0))
foreign = deconvnet.project(with_switches_of(tape, further), "conv5", units).pixels
lenders = [cut(photographs.image(number), origin, size)
           for number, origin in zip([*numbers[1:], numbers[0]], origins, strict=True)]
show({"image patch": patches, "its own switches": original.pixels,
      "switches of the\nimage on the right": with_r(foreign), "the image that\nlent them": lenders})

theirs = deconvnet.project(of_ones(further, "conv5"), "conv5", units).pixels  # the lender's own, from the same units
for name, one, other, within in zip(names, foreign, theirs, inside, strict=True):
    r, _ = correlation(one.numpy(), other.numpy(), within)
    print(f"{name}: foreign switches against the lender's own reconstruction, r = {r:.4f}")

# %% [markdown]
# With foreign switches it draws **the other image**: its zip, its arc, its shuttle, although the activation and every
# filter are still the first image's. The last lines print how alike this is to what the same unit gives for the lender
# itself (`of_ones` starts from 1 where the unit does not fire there; that changes the scale only). It is no accident.
# Look through the rules again: a deconvnet takes from the image its switches and one number, the activation, and
# nothing else.
#
# **Question.** "The reconstruction has an edge exactly where the image has one, so the unit has detected this edge."
# What is wrong with the argument?
# <details><summary>Answer</summary>
#
# The edge's place was not found by the unit: the switches of pool1 and pool2 put every value where the image had its
# local maximum, and so every unit's reconstruction has its edges where the image has them. To learn whether the unit
# needs this edge, take it away and look at the activation (occlusion, notebook 6).
#
# </details>
#
# ## Random weights
#
# A picture that explains what the network *has learned* must change when that is taken away. The sanity check of
# Adebayo et al. makes the weights random, layer after layer from the top, and asks how long the picture stays the same.
# Random weights here have the mean and the standard deviation of those that they replace, so that the layer still works
# in its usual range.

# %% tags=["exercise"]
def randomised(net, layers, seed=0):
    """A copy of ``net`` in which the weights of the named layers are random; everything else, biases too, stays.

    Each weight is normally distributed with the mean and the standard deviation of the weights that it replaces. The
    same seed gives the same numbers, and the first layers of a longer list get the same as in a shorter one.
    """
    # solution: copy.deepcopy the network, and draw from torch.Generator().manual_seed(seed) layer by layer
    changed = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        weight = changed.get_submodule(layer).weight.data
        weight.copy_(torch.randn(weight.shape, generator=generator) * weight.std() + weight.mean())
    return changed
    # end of solution

# %% tags=["check"]
check.randomised(randomised)

# %% [markdown]
# A unit of a random network need not fire where the learned one did, so we start from 1 everywhere again.

# %%
layers = ["conv5", "conv4", "conv3", "conv2", "conv1"]
steps = methods.randomised(net, [f"{layer}.weight" for layer in layers], steps=5, seed=0)
cascade = {method: [] for method in ("deconvnet", "gradient", "guided")}
for _, random_net in steps:
    random_tape = of_ones(deconvnet.record(random_net, images), "conv5")
    for method, made in cascade.items():
        made.append(deconvnet.project(random_tape, "conv5", units, method=method).pixels)

titles = ["conv5\nrandom", "conv5 and\nconv4 random", "conv5 to conv3\nrandom", "conv5 to conv2\nrandom", "all random"]
show({"image patch": patches, "learned": original.pixels,
      **{title: with_r(made) for title, made in zip(titles, cascade["deconvnet"], strict=True)}})

# %% [markdown]
# With conv5's filters random, not one of the numbers that make *this* unit what it is has remained, and the picture is
# almost the same. The curve below has all three methods, each compared with its own picture of the learned network.

# %%
learned = {"deconvnet": original.pixels, **by_method}
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for method, made in cascade.items():
    r = [np.mean([correlation(first.numpy(), picture.numpy(), within)[0]
                  for first, picture, within in zip(learned[method], pictures, inside, strict=True)])
         for pictures in made]
    axes.plot(range(6), [1, *r], "o-", label=method)
axes.axhline(0, color="grey", linewidth=0.8)
axes.set_xticks(range(6), ["none", "conv5", "+ conv4", "+ conv3", "+ conv2", "+ conv1"])
axes.set_xlabel("layers whose filters are random")
axes.set_ylabel("r to the picture of the\nlearned network (mean of 4)")
axes.legend()
plt.show()

# %% [markdown]
# The gradient passes the check: one random layer is enough to change it altogether. Deconvnet and guided
# backpropagation fail it for the upper layers. Even where *all* filters are random, the outline of the image can be
# made out. Is it in the switches, then? Not in them alone: if the switches are those of the learned network and only
# the filters on the way down are random, nothing is to be seen.

# %%
all_random, anew = steps[-1][1], cascade["deconvnet"][-1]
switches_only = deconvnet.project(methods.refiltered(tape, net, all_random), "conv5", units).pixels
show({"image patch": patches, "learned": original.pixels, "all random,\nrecorded anew": with_r(anew),
      "learned switches,\nrandom filters": with_r(switches_only)})
print(f"mean r: all random, recorded anew {mean_r(anew):.2f}, "
      f"only the switches kept {mean_r(switches_only):.2f}")

# %% [markdown]
# **Question.** A network that has learned nothing draws the outline of the image. How can it?
# <details><summary>Answer</summary>
#
# The same filters are used upwards and, transposed, downwards. Upwards they decide which places win the pooling;
# downwards they put the signal back at these places and undo, roughly, what they did. Filters and their own switches
# together amount to a recovery of the image (Nie et al. 2018), whether they are learned or random. Switches of other
# filters do not fit, and the picture is lost.
#
# </details>
#
# ## Another unit at the same place
#
# The simplest test needs no surgery. If the picture shows what *this* unit has found, then another unit that fires at
# the same place of the same image must give another picture.

# %%
others = []
for image, unit, y, x in units:
    here = activations[image, :, y, x].clone()
    here[unit] = 0
    others.append((image, int(here.argmax()), y, x))
pictures = [(picture, f"conv5:{unit}\n{words}") for (_, unit, *_), (picture, words) in
            zip(others, with_r(deconvnet.project(tape, "conv5", others).pixels), strict=True)]
show({"image patch": patches, "the unit": original.pixels, "the strongest other\nunit at this place": pictures})

# %% [markdown]
# **Question.** Two units of conv5 give nearly the same reconstruction of one image. Do they detect the same?
# <details><summary>Answer</summary>
#
# That does not follow: they share the patch, the switches and conv1 to conv4, and these alone make pictures alike. Look
# at the nine patches of each unit. Which images a unit chooses out of thousands is decided by its own filters, and no
# rule of the way down has a part in it.
#
# </details>
#
# ## What may be said all the same
#
# * **The patches are evidence.** They were chosen by the unit's forward activation, and the deconvnet has no part in
#   it. What nine patches from different images have in common is what the unit prefers.
# * **The reconstructions say what the layers below can carry**: of a patch they draw the edges and textures for which
#   there are filters, and leave even areas grey. That is a statement about the network up to here rather than about
#   this one unit.
# * **They show excitation only.** What inhibits the unit has been rectified away.
# * **They hold for one activation in one image.** The nine together are better than any one of them.
# * **Whether the unit needs what the picture shows** is tested forward: cover it, move it, replace it, and look at the
#   activation.
#
# **Question.** A paper shows sharp deconvnet pictures of a layer as proof that training has worked. Which single
# control would you ask for?
# <details><summary>Answer</summary>
#
# The same figure for the same network with random weights in that layer (and, one by one, in those below), on the same
# images and the same scale. `deconvnet figure methods` makes it for any network.
#
# </details>
